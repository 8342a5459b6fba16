"""Words that several parts of a page share: rules as code, intervals as they are read aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dbwjax.report import digits
from dbwjax.report.intervals import inverse


def aim(summary: Mapping[str, Any], cell: Mapping[str, Any]) -> float | None:
    """The target of a cell."""
    target = summary["target_accuracy"]
    return None if target is None else cell["values"].get("target_accuracy", target)


def holds_none(kind: str, interval: Mapping[str, Any] | None) -> bool:
    """Whether an interval holds no difference; one without limits holds nothing, and excludes nothing."""
    if interval is None or not has_limits(interval):
        return False
    low, high, none = interval["low"], interval["high"], 1 if kind in ("target", "timing") else 0
    return (low is None or low <= none) and (high is None or high >= none)


def has_limits(interval: Mapping[str, Any] | None) -> bool:
    """Whether an interval says anything: one of a single cluster does not."""
    return interval is not None and (interval["low"] is not None or interval["high"] is not None)


def negative(interval: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The first's difference to a rule, from the rule's to the first."""
    if interval is None or interval["estimate"] is None:
        return interval
    low, high = (None if end is None else -end for end in (interval["high"], interval["low"]))
    return {**interval, "estimate": -interval["estimate"], "low": low, "high": high}


def interval_text(kind: str, interval: Mapping[str, Any]) -> str:
    """`1.62 times [1.46, 1.79]`, or `0.021 [0.017, 0.025]` of a difference."""
    text = digits.interval_text(interval).removesuffix(" [-]")
    if kind not in ("target", "timing"):
        return text
    number, space, limits = text.partition(" [")
    return f"{number} times{space}{limits}"


def length(ratio: Mapping[str, Any]) -> str:
    """`2.9 times [2.7, 3.1] shorter than`, whichever way it goes."""
    if holds_none("target", ratio):
        return f"about as long ({digits.interval_text(ratio)}) as"
    if ratio["estimate"] >= 1:
        return f"{interval_text('target', ratio)} shorter than"
    return f"{interval_text('target', inverse(ratio) or ratio)} longer than"


def code(spec: str) -> Markup:
    """A SPEC as code."""
    return Markup("<code>{}</code>").format(spec)


def listed(specs: Sequence[str]) -> Markup:
    """`a`, `b` and `c`."""
    shown = [code(spec) for spec in specs]
    if len(shown) < 2:
        return Markup("").join(shown)
    return Markup("{} and {}").format(Markup(", ").join(shown[:-1]), shown[-1])
