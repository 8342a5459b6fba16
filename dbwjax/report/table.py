"""The table that ends a run, from what `summary.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEADER = (
    ("policy", "steps", "duration", "time", "to target", "accuracy", "active", "speed-up", "speed-up"),
    ("", "", "mean [s]", "[s]", "[s]", "final", "share", "duration", "to target"),
)


def format_table(summary: Mapping[str, Any]) -> str:
    """A plain-text table, one line per policy, and a line that says what the columns count.

    Times are seconds of virtual time; the speed-ups are over the last policy.

    Args:
      summary: as `records.summary` returns it.

    Returns:
      Lines without a newline at the end. A policy that did not reach the target reads "not reached"; a value that
      does not exist, "-".
    """
    target = summary["target_accuracy"]
    rows = [*_HEADER, *(_cells(name, facts, summary) for name, facts in summary["policies"].items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(len(_HEADER), "-" * max(map(len, lines)))
    last = list(summary["policies"])[-1]
    aim = "" if target is None else f"; the target is a test accuracy of {target:g}"
    return "\n".join([*lines, f"Seconds are virtual time; speed-ups are over {last}{aim}."])


def _cells(name: str, facts: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[str, ...]:
    missing = "-" if summary["target_accuracy"] is None or facts["final_test_accuracy"] is None else "not reached"
    speedup = summary["speedup"][name]
    return (
        name,
        str(facts["steps"]),
        _number(facts["mean_duration"], ".3f"),
        _number(facts["virtual_time"], ".1f"),
        _number(facts["time_to_target"], ".1f", missing),
        _number(facts["final_test_accuracy"], ".4f"),
        _number(facts["active_fraction"], ".3f"),
        _number(speedup["duration"], ".2f"),
        _number(speedup["time_to_target"], ".2f"),
    )


def _number(value: float | None, form: str, missing: str = "-") -> str:
    """Fixed point where it shows the number, four digits otherwise."""
    if value is None:
        return missing
    shown = format(value, form)
    return shown if value == 0 or 1e-2 <= abs(value) < 1e7 else f"{value:.4g}"
