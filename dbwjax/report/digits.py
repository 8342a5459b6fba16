"""Numbers as people read them, with three significant digits.

Limits are rounded outward and bounds to their safe side, so that no digit claims more than was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Any


def interval_text(interval: Mapping[str, Any] | None) -> str:
    """An interval as the tables print it: `1.29 [1.07, 1.55]`, `at least 1.40 [1.10, -]`, `1.29 [-]` of one cluster.

    >>> interval_text({"estimate": 1.2871, "low": 1.0712, "high": 1.5462, "bound": None})
    '1.29 [1.07, 1.55]'
    """
    if interval is None:
        return "-"
    if interval["estimate"] is None:
        return "no ratio"
    bound, low, high = interval["bound"], interval["low"], interval["high"]
    safe = {None: ROUND_HALF_EVEN, "at least": ROUND_FLOOR, "at most": ROUND_CEILING}[bound]
    estimate = f"{bound} " * (bound is not None) + digits(interval["estimate"], safe)
    if low is None and high is None:
        return estimate if bound else f"{estimate} [-]"
    return f"{estimate} [{digits(low, ROUND_FLOOR)}, {digits(high, ROUND_CEILING)}]"


def percent(share: float | None) -> str:
    """A share as a number of percent, without the sign."""
    return "-" if share is None else f"{100 * share:.1f}"


def digits(value: float | None, rounding: str = ROUND_HALF_EVEN) -> str:
    """Three significant digits, and all before the point; an exponent where that is unreadable."""
    if value is None:
        return "-"
    if value == 0 or isinstance(value, int):
        return str(int(value))
    exact = Decimal(f"{value:.12g}")
    size = exact.adjusted()
    if -4 <= size < 7:
        return f"{exact.quantize(Decimal(1).scaleb(min(size - 2, 0)), rounding):f}"
    return f"{exact.quantize(Decimal(1).scaleb(size - 2), rounding):.2e}"
