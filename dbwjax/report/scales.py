"""Log axes whose few ticks are round numbers, written out and not as powers of ten."""

from __future__ import annotations

import math
from typing import Any


def log_axis(ax: Any, which: str, low: float, high: float, ratio: bool = False) -> None:
    """A log scale from `low` to `high` with a few round ticks.

    Args:
      ax: the axes.
      which: "x" or "y".
      low: where the axis begins, > 0.
      high: where it ends.
      ratio: ticks on both sides of 1, at a number and at one over it.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(FixedLocator(ratio_ticks(low, high) if ratio else log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}" if ratio and value < 1 else f"{value:.3g}"))
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within `low` and `high`, at most seven."""
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    inside: list[float] = []
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        inside = [value for value in (step * decade for decade in decades for step in steps) if low <= value <= high]
        if len(inside) <= 7:
            break
    while len(inside) > 7:
        inside = inside[::2]
    if len(inside) < 2:  # less than from 1 to 1.5
        step = 10 ** math.floor(math.log10((high - low) / 2))
        inside = [value * step for value in range(math.ceil(low / step), math.floor(high / step) + 1)]
        inside = inside[:: -(-len(inside) // 6)]
    return inside


def ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios within `low` and `high` and 1 among them, as many as can be read: at most six."""
    decades = [10.0**power for power in range(8)]
    finer = (
        [1 + 0.02 * k for k in range(1, 12)],
        [1 + 0.05 * k for k in range(1, 12)],
        [1 + 0.1 * k for k in range(1, 12)],
        [1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8],
        [step * decade for decade in decades for step in (1.5, 2, 3, 5, 7, 10)],
        [2.0**power for power in range(1, 12)],
        [step * decade for decade in decades for step in (2, 5, 10)],
        decades[1:],
        decades[3::3],
    )
    for above in finer:
        inside = [value for value in sorted([1.0, *above, *(1 / v for v in above)]) if low <= value <= high]
        if len(inside) <= 6:
            break
    return inside
