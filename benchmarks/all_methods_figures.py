"""What is concluded from what is kept: rates, times to target, paired intervals, groups. All by `dbwjax.report`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import all_methods_kept as kept
from benchmarks.all_methods_settings import DATA, RATES, Scale
from dbwjax.report.statistics import Time, crossing


def time_of(found: kept.Found, scale: Scale, target: float | None = None) -> Time:
    """Seconds to the target, or, where it was not reached, the budget."""
    count = len(found.hits) - 1
    seconds = [scale.seconds * row / count for row in range(count + 1)]
    accuracies = [None if one is None else one / scale.tests for one in found.hits]
    at = crossing(seconds, accuracies, scale.target(found.sim.data) if target is None else target)
    return Time(scale.seconds, False) if at is None else Time(at.seconds)


def accuracy_of(found: kept.Found, scale: Scale) -> float:
    """At the end; 0 where the model was no longer finite."""
    return (found.hits[-1] or 0) / scale.tests


def merit(found: Sequence[kept.Found], scale: Scale) -> tuple[float, float]:
    """What rows and rates are sorted by, less is better: the geometric mean time to the target, a world that did not
    reach it counting as the budget; of equals, the accuracy at the end."""
    logs = [math.log(time_of(one, scale).seconds) for one in found]
    return math.fsum(logs) / len(logs), -math.fsum(accuracy_of(one, scale) for one in found) / len(found)


def best_rates(tuning: Sequence[kept.Found], scale: Scale) -> dict[tuple[str, str], float]:
    """By law and data, the rate that did best in the tuning worlds."""
    return {
        (law, data): min(RATES, key=lambda rate: merit(_of(tuning, law, data, rate), scale))
        for law in scale.laws
        for data in DATA
    }


def _of(found: Sequence[kept.Found], law: str, data: str, rate: float) -> list[kept.Found]:
    return [one for one in found if one.sim[:3] == (law, data, rate)]
