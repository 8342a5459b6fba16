"""What is concluded from what is kept: rates, times to target, paired intervals, groups. All by `dbwjax.report`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import all_methods_kept as kept
from benchmarks import all_methods_plan as plan
from benchmarks.all_methods_settings import BASELINE, BEYOND, DATA, FIXED, RATES, Scale
from dbwjax.report.intervals import LEVEL
from dbwjax.report.statistics import Time, crossing, difference, ratio

SIMULTANEOUS = 0.95
"""Probability with which everything that is said of a group holds at once."""


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


class Cell(NamedTuple):
    """All rows that are measured under one law and data setting."""

    law: str
    data: str
    scale: Scale
    rates: dict[str, float]  # chosen, by row
    test: dict[str, list[kept.Found]]  # at that rate, by row; one a world
    fixed: dict[str, list[kept.Found]]  # at the fixed rate
    outward: dict[str, bool]  # whether the next rate outward did better in the tuning worlds; where an edge was chosen

    @property
    def order(self) -> list[str]:
        """The rows, the best first."""
        return sorted(self.test, key=lambda spec: merit(self.test[spec], self.scale))

    def times(self, spec: str, target: float | None = None) -> list[Time]:
        """To the target, by world."""
        return [time_of(one, self.scale, target) for one in self.test[spec]]

    def accuracies(self, spec: str) -> list[float]:
        """At the end, by world."""
        return [accuracy_of(one, self.scale) for one in self.test[spec]]

    @property
    def draws(self) -> list[dict[str, str]]:
        """What the worlds drew: each has a seed, and delays, of its own, and all share the graph."""
        seeds = [str(one.sim.seed) for one in next(iter(self.test.values()))]
        return [{"graph": "", **dict.fromkeys(("delays", "timing", "learning"), seed)} for seed in seeds]

    def ratio(self, spec: str, over: str) -> dict[str, Any]:
        """The time of `over` over that of a row: above 1 the row is faster."""
        return ratio(self.times(over), self.times(spec), self.draws)

    def ahead(self, spec: str, over: str) -> dict[str, Any]:
        """The accuracy of a row at the end less that of `over`."""
        return difference(self.accuracies(over), self.accuracies(spec), self.draws)

    def fastest(self) -> set[str]:
        """The rows that no other is faster than, at `SIMULTANEOUS` over all; none where no row always arrives."""
        sure = [spec for spec in self.test if all(time.reached for time in self.times(spec))]
        if not sure:
            return set()
        return {spec for spec in self.test if not any(self._beats(rival, spec) for rival in sure if rival != spec)}

    def _beats(self, rival: str, spec: str) -> bool:
        found = self.ratio(rival, over=spec)
        return found["low"] is not None and widened(found, len(self.test) - 1, log=True)[0] > 1

    def most_accurate(self) -> set[str]:
        """The rows that no other is more accurate than at the end, at `SIMULTANEOUS` over all."""
        count = len(self.test) - 1
        return {
            spec
            for spec in self.test
            if not any(
                widened(self.ahead(rival, over=spec), count, log=False)[0] > 0 for rival in self.test if rival != spec
            )
        }

    def against(self, spec: str, count: int) -> str:
        """How a row stands against the baseline at `SIMULTANEOUS` over `count` two-sided comparisons: "faster",
        "slower", "equal" (the interval holds 1) or "none" (no ratio)."""
        found = self.ratio(spec, over=BASELINE)
        if found["estimate"] is None:
            return "none"
        low, high = widened(found, 2 * count, log=True)
        if found["low"] is not None and low > 1:
            return "faster"
        return "slower" if found["high"] is not None and high < 1 else "equal"


def widened(interval: dict[str, Any], count: int, log: bool) -> tuple[float, float]:
    """Limits of a Student interval at a level that holds for `count` one-sided limits at once (Bonferroni).

    Args:
      interval: of `ratio` or `difference`, with one limit at least.
      count: limits of which, with the probability `SIMULTANEOUS`, none is wrong.
      log: whether the interval is one of logarithms.
    """
    from scipy.special import stdtrit

    freedom = interval["clusters"] - 1
    factor = stdtrit(freedom, 1 - (1 - SIMULTANEOUS) / max(count, 1)) / stdtrit(freedom, (1 + LEVEL) / 2)
    value = math.log if log else float
    middle = value(interval["estimate"])
    end = interval["high"] if interval["low"] is None else interval["low"]
    reach = abs(middle - value(end)) * factor
    return (math.exp(middle - reach), math.exp(middle + reach)) if log else (middle - reach, middle + reach)


def cells(specs: Sequence[str], scale: Scale, folder: Path = kept.FOLDER) -> list[Cell]:
    """Every law and data setting, with the rows that are measured."""
    found = [
        Cell(law, data, scale, {}, {}, {}, {}) for data in DATA for law in scale.laws
    ]  # by data, as the page shows them
    for spec in specs:
        tuning = kept.load(folder, spec, "tuning", plan.tuning_sims(scale), scale)
        if tuning is None:
            continue
        chosen = best_rates(tuning, scale)
        test = kept.load(folder, spec, "test", plan.test_sims(scale, chosen), scale)
        if test is None:
            continue
        beyond = kept.load(folder, spec, "beyond", plan.beyond_sims(scale, chosen), scale) or []
        for cell in found:
            rate = chosen[cell.law, cell.data]
            cell.rates[spec] = rate
            cell.test[spec] = _of(test, cell.law, cell.data, rate)
            cell.fixed[spec] = _of(test, cell.law, cell.data, FIXED)
            tried = _of(beyond, cell.law, cell.data, BEYOND.get(rate, rate))
            if tried:
                at_edge = _of(tuning, cell.law, cell.data, rate)
                cell.outward[spec] = merit(tried, scale) < merit(at_edge, scale)
    return found


def ranking(found: Sequence[Cell]) -> list[str]:
    """All rows, the best first: by `merit`, averaged over the settings."""

    def overall(spec: str) -> tuple[float, float]:
        merits = [merit(cell.test[spec], cell.scale) for cell in found]
        return math.fsum(one[0] for one in merits), math.fsum(one[1] for one in merits)

    return sorted(found[0].test, key=overall)


def shares(found: Sequence[kept.Found]) -> dict[str, float]:
    """Of all worker seconds, the mean share `wasted` and `waiting` (messages in flight included; 0 where no computation
    has ended); and the means of `step`, `gradients` and `bytes_sent`."""
    count, parts = len(found), {"wasted": 0.0, "waiting": 0.0}
    for one in found:
        wasted, waiting = one.end["wasted"] or 0.0, math.fsum(one.end[name] or 0.0 for name in _WAITED)
        whole = math.fsum([wasted, waiting, one.end["computing"] or 0.0]) or 1.0
        parts["wasted"] += wasted / whole / count
        parts["waiting"] += waiting / whole / count
    means = ("step", "gradients", "bytes_sent")
    return parts | {name: math.fsum(one.end[name] or 0.0 for one in found) / count for name in means}


_WAITED = ("waiting", "communicating")
