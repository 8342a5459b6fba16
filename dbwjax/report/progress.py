"""Why a rule is sooner at a target: seconds of an iteration times iterations, each paired by world.

Time to a target is (seconds of an iteration until then) x (iterations until then), exactly. So a ratio of times is a
ratio of lengths times a ratio of progress per iteration, and each has an interval of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax.report.intervals import Hashes, mean_over, ratio
from dbwjax.report.statistics import Time, crossing

Interval = Mapping[str, Any]


class Progress(NamedTuple):
    """One policy's way to the target; `None` where not every world reached it, or no iteration was needed."""

    iterations: float | None  # mean over workers and over worlds, geometric
    seconds: float | None  # of one of them
    length: (
        Interval | None
    )  # INTERVAL: the baseline's seconds of an iteration over the policy's: above 1, it is shorter
    gain: (
        Interval | None
    )  # INTERVAL: the baseline's iterations to the target over the policy's: above 1, it needs fewer


def progress_of(
    rows: Sequence[Mapping[str, Any]],
    worlds: Sequence[Hashes],
    names: Sequence[Any],
    policies: Sequence[str],
    baseline: str,
    target: float,
) -> dict[str, Progress]:
    """Every policy's way to a target, and its ratios to a baseline's.

    Args:
      rows: of one cell, with `policy`, `world`, `row`, `virtual_time`, `step` and `test_accuracy`.
      worlds: `[W]` hashes.
      names: `[W]` each world's `world`.
      policies: SPECs.
      baseline: one of them.
      target: accuracy.
    """
    by: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for row in rows:
        by.setdefault((row["policy"], row["world"]), []).append(row)
    ways = {spec: [_way(by[spec, name], target) for name in names] for spec in policies}
    found = {}
    for spec, way in ways.items():
        steps, seconds = (_geometric([one and one[at] for one in way], worlds) for at in (0, 1))
        own = None if spec == baseline else way
        found[spec] = Progress(steps, seconds, *(_over(ways[baseline], own, at, worlds) for at in (1, 0)))
    return found


def _over(rivals: Sequence[Any], ours: Sequence[Any] | None, at: int, worlds: Sequence[Hashes]) -> Interval | None:
    """A rival's iterations (0) or seconds of one (1) over ours; `None` where a world of either is missing."""
    if ours is None or None in rivals or None in ours:
        return None
    first, second = ([Time(one[at]) for one in own] for own in (rivals, ours))
    return ratio(first, second, worlds)


def _way(rows: Sequence[Mapping[str, Any]], target: float) -> tuple[float, float] | None:
    """Iterations until the target, and seconds of one of them."""
    ordered = sorted(rows, key=lambda row: row["row"])
    times = [float(row["virtual_time"]) for row in ordered]
    found = crossing(times, [row.get("test_accuracy") for row in ordered], target)
    if found is None or found.seconds <= 0:
        return None
    steps = float(np.interp(found.seconds, times, [float(row["step"]) for row in ordered]))
    return (steps, found.seconds / steps) if steps > 0 else None


def _geometric(values: Sequence[float | None], worlds: Sequence[Hashes]) -> float | None:
    mean = mean_over([None if value is None else float(np.log(value)) for value in values], worlds, "learning")
    return None if mean is None else float(np.exp(mean))
