"""What is concluded from rows of metrics: the only place where times to target, pairs and intervals are taken.

Rows are read once, here; tables and figures show what `summarise` found. The interval itself is in `intervals`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax.report.intervals import Hashes, Time, cluster, difference, equal_worlds, mean_over, ratio

__all__ = ["Crossing", "Time", "crossing", "difference", "ratio", "summarise"]

REPETITIONS = ("world", "seed", "graph_seed")
"""Columns that number repetitions. All other axes separate cells, which are never pooled."""

Row = Mapping[str, Any]


class Crossing(NamedTuple):
    """When a target was reached."""

    seconds: float
    resolution: float  # seconds between the rows around it; 0 in row 0


def crossing(times: Sequence[float], values: Sequence[float | None], target: float) -> Crossing | None:
    """The first crossing of a target after which the next row is also at or above it.

    Linear between the row before and the crossing row. A crossing in row 0 has row 0's time; so has one after a row
    without a value its own row's. The last row has no next one, so a crossing there is not confirmed and does not
    count. Accuracies are float32, so one that equals the target after rounding to float32 is at the target.

    Args:
      times: `[R+1]` s, ascending.
      values: `[R+1]`; `None` and what is not finite (a run that diverged) are never at the target.
      target: what is to be reached.

    Returns:
      The time and the gap between rows there; `None`: not reached.

    >>> crossing([0, 10, 20, 30], [0.1, 0.8, 1.0, 1.0], 0.9)
    Crossing(seconds=15.0, resolution=10.0)
    """
    aim = min(float(target), float(np.float32(target)))
    known = [_number(value) for value in values]
    above = [value is not None and value >= aim for value in known]
    for row in range(len(known) - 1):
        if above[row] and above[row + 1]:
            break
    else:
        return None
    if row == 0:
        return Crossing(float(times[0]), 0.0)
    gap = float(times[row]) - float(times[row - 1])
    before, value = known[row - 1], known[row]
    if before is None or value is None:
        return Crossing(float(times[row]), gap)
    return Crossing(float(times[row - 1]) + gap * (min(target, value) - before) / (value - before), gap)


def summarise(
    rows: Iterable[Row],
    worlds: Sequence[Mapping[str, Any]],
    policies: Sequence[str],
    baseline: str,
    target_accuracy: float | None,
) -> dict[str, Any]:
    """What `summary.json` holds: cells, and in each the facts of every policy.

    All means are over worlds, as intervals are: equal ones once, those that share delays averaged first. A mean is
    `None` unless every world has a value, so that no policy is judged by the worlds in which it did well.

    Args:
      rows: of `metrics.jsonl`, in any order. What stands between `policy` and `row` names a world. Rows without
        `test_*` columns are of clocks alone.
      worlds: of `worlds.json`: each world's name as in the rows, and its `hashes`.
      policies: SPECs in the order in which they are shown.
      baseline: the SPEC over which ratios are taken.
      target_accuracy: `None`: there is no target. A swept `target_accuracy` replaces it in its cells.

    Raises:
      ValueError: no rows, a baseline that is not among the policies, or a world without rows or unknown.
    """
    if baseline not in policies:
        raise ValueError(
            f"the baseline '{baseline}' is not among the policies ({', '.join(policies)}); name one of them"
        )
    found, names = _by_world(rows)
    learning = any(name.startswith("test_") for own in found.values() for name in own[0])
    target = target_accuracy if learning else None
    cells: dict[tuple, list[tuple]] = {}
    drew: dict[tuple, Hashes] = {}
    for world in worlds:
        if set(world) != {*names, "hashes"}:
            raise ValueError(f"worlds are named by {', '.join(world)}, rows by {', '.join(names)}; they must agree")
        key = tuple(world[name] for name in names)
        drew[key] = world["hashes"]
        cells.setdefault(tuple(world[name] for name in names if name not in REPETITIONS), []).append(key)
    _require_all(found, drew, policies)
    axes = [name for name in names if name not in REPETITIONS]
    made = [
        _Cell(dict(zip(axes, values, strict=True)), keys, drew, found, policies, learning, target).content(baseline)
        for values, keys in cells.items()
    ]
    kind = "learning" if learning else "timing"
    summary: dict[str, Any] = {"kind": kind, "target_accuracy": target, "baseline": baseline}
    summary |= {"rule": _rule(kind, target, made), "cells": made}
    return summary | ({"policies": made[0]["policies"]} if len(made) == 1 else {})


class _Run(NamedTuple):
    """One policy in one world."""

    end: Row  # the last row
    time: Time | None  # to the target; None: there is no target
    resolution: float | None  # where it was reached
    gap: float  # the longest between two rows
    drift: int | None
    active_fraction: float | None
    backup_workers: float | None
    staleness: float | None
    spectral_gap: float | None


class _Cell:
    """The worlds of one combination of axis values."""

    def __init__(
        self,
        values: dict[str, Any],
        keys: Sequence[tuple],
        drew: Mapping[tuple, Hashes],
        rows: Mapping[tuple, list[Row]],
        policies: Sequence[str],
        learning: bool,
        target: float | None,
    ):
        self.values, self.worlds = values, [drew[key] for key in keys]
        self.same = "learning" if learning else "timing"
        self.target = None if target is None else values.get("target_accuracy", target)
        self.runs = {spec: [_run(rows[spec, key], self.target) for key in keys] for spec in policies}
        ends = [[_number(run.end["virtual_time"]) or 0.0 for run in own] for own in self.runs.values()]
        self.budgets = [max(times) for times in zip(*ends, strict=True)]
        self.equal_time = all(len(set(times)) == 1 for times in zip(*ends, strict=True))

    def content(self, baseline: str) -> dict[str, Any]:
        """The cell as `summary.json` holds it."""
        clusters = cluster(self.worlds, self.same)
        every = [run for own in self.runs.values() for run in own]
        reached = [run for run in every if run.time and run.time.reached]
        gaps = [run.resolution for run in reached if run.resolution] or [run.gap for run in every]
        return {
            "values": self.values,
            "worlds": len(self.worlds),
            "distinct": clusters.distinct,
            "clusters": min(map(len, clusters.ways)),
            "budget": [min(self.budgets), max(self.budgets)],
            "equal_time": self.equal_time,
            "resolution": None if self.target is None else max(gaps),
            "shortest": min((run.time.seconds for run in reached if run.time), default=None),
            "policies": {spec: self._facts(spec, baseline) for spec in self.runs},
        }

    def _facts(self, spec: str, baseline: str) -> dict[str, Any]:
        runs = self.runs[spec]
        rates = [_quotient(run.end["gradients"], run.end["virtual_time"]) for run in runs]
        spread = [self._measure(spec, f"worker_accuracy_{name}") for name in ("min", "median")]
        return {
            "time_to_target": self._time_to_target(runs),
            "reached": self._reached(runs),
            "ratio": None if self.target is None or spec == baseline else self._ratio(spec, baseline),
            "test_accuracy": self._measure(spec, "test_accuracy"),
            "test_loss": self._measure(spec, "test_loss"),
            "accuracy_difference": None if spec == baseline else self._difference(spec, baseline),
            "iterations": self._timing(run.end["step"] for run in runs),
            "iteration_length": self._timing(run.end["iteration_length"] for run in runs),
            "iteration_ratio": None if spec == baseline else self._iteration_ratio(spec, baseline),
            "gradients_per_second": self._timing(rates),
            **{name: self._timing(_share(run.end, name) for run in runs) for name in _LEDGER},
            "drift": max((run.drift for run in runs if run.drift is not None), default=None),
            "active_fraction": self._timing(run.active_fraction for run in runs),
            "backup_workers": self._timing(run.backup_workers for run in runs),
            "staleness": self._timing(run.staleness for run in runs),
            "spectral_gap": self._timing(run.spectral_gap for run in runs),
            "heard_least": self._timing(run.end.get("heard_least") for run in runs),
            "bytes_per_second": self._timing(
                _quotient(run.end.get("bytes_sent"), run.end["virtual_time"]) for run in runs
            ),
            "worker_accuracy": None if None in spread else spread,
            "diverged": sum(
                any(runs[i].end.get("diverged") for i in same) for same in equal_worlds(self.worlds, self.same)
            ),
        }

    def _timing(self, values: Iterable[Any]) -> float | None:
        """The mean over worlds of what does not depend on learning."""
        return mean_over([_number(value) for value in values], self.worlds, "timing")

    def _measure(self, spec: str, column: str) -> float | None:
        """The mean over worlds of a measure at the budget."""
        values = [_number(run.end.get(column)) for run in self.runs[spec]]
        return mean_over(values, self.worlds, self.same) if self.equal_time else None

    def _time_to_target(self, runs: Sequence[_Run]) -> float | None:
        """The geometric mean over worlds if all have reached; where some did at time 0 and others not, none."""
        times = [run.time.seconds if run.time and run.time.reached else None for run in runs]
        if all(time == 0 for time in times):
            return 0.0
        logs = [math.log(time) if time else None for time in times]
        mean = mean_over(logs, self.worlds, self.same)
        return None if mean is None else math.exp(mean)

    def _reached(self, runs: Sequence[_Run]) -> list[int] | None:
        if self.target is None:
            return None
        groups = equal_worlds(self.worlds, self.same)
        return [sum(all(_has_reached(runs[i]) for i in same) for same in groups), len(groups)]

    def _ratio(self, spec: str, baseline: str) -> dict[str, Any]:
        rivals, ours = ([run.time for run in self.runs[name] if run.time] for name in (baseline, spec))
        return ratio(rivals, ours, self.worlds, self.same)

    def _iteration_ratio(self, spec: str, baseline: str) -> dict[str, Any] | None:
        lengths = [[_number(run.end["iteration_length"]) for run in self.runs[name]] for name in (baseline, spec)]
        rivals, ours = ([Time(length) for length in own if length is not None] for own in lengths)
        if len(rivals) < len(self.worlds) or len(ours) < len(self.worlds):
            return None
        return ratio(rivals, ours, self.worlds, "timing")

    def _difference(self, spec: str, baseline: str) -> dict[str, Any] | None:
        found = [[_number(run.end.get("test_accuracy")) for run in self.runs[name]] for name in (baseline, spec)]
        rivals, ours = ([value for value in own if value is not None] for own in found)
        if not self.equal_time or len(rivals) < len(self.worlds) or len(ours) < len(self.worlds):
            return None
        return difference(rivals, ours, self.worlds, self.same)


_LEDGER = ("computing", "wasted", "waiting", "communicating")


def _run(rows: Sequence[Row], target: float | None) -> _Run:
    times = [float(row["virtual_time"]) for row in rows]
    time = resolution = None
    if target is not None:
        found = crossing(times, [row.get("test_accuracy") for row in rows], target)
        time = Time(found.seconds) if found else Time(times[-1], False)
        resolution = found.resolution if found else None
    gap = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
    drifts = [int(row["drift"]) for row in rows if row["drift"] is not None]
    means = (
        *(_mean_of(rows, name) for name in ("active_fraction", "backup_workers")),
        _mean_of(rows, "staleness", by="gradients"),
        _mean_of(rows, "spectral_gap"),
    )
    return _Run(rows[-1], time, resolution, gap, max(drifts, default=None), *means)


def _has_reached(run: _Run) -> bool:
    return run.time is not None and run.time.reached


def _mean_of(rows: Sequence[Row], column: str, by: str = "step") -> float | None:
    """A row's value is the mean over the iterations (or updates) since the row before, so it weighs as many."""
    total, weight, before = 0.0, 0.0, 0.0
    for row in rows:
        count, value = float(row[by]), _number(row.get(column))
        if value is not None:
            total += value * (count - before)
            weight += count - before
        before = count
    return total / weight if weight else None


def _share(row: Row, name: str) -> float | None:
    spent = [_number(row[part]) for part in _LEDGER]
    return None if None in spent else _quotient(row[name], math.fsum(value for value in spent if value is not None))


def _by_world(rows: Iterable[Row]) -> tuple[dict[tuple, list[Row]], list[str]]:
    """Rows in order by `(policy, world)`, and the columns that name a world."""
    found: dict[tuple, list[Row]] = {}
    names: list[str] = []
    for row in rows:
        if not names:
            columns = list(row)
            names = columns[1 : columns.index("row")]
        found.setdefault((row["policy"], tuple(row[name] for name in names)), []).append(row)
    if not found:
        raise ValueError("there are no rows to conclude from; let the run write at least one")
    return {key: sorted(own, key=lambda row: row["row"]) for key, own in found.items()}, names


def _require_all(rows: Mapping[tuple, Any], drew: Mapping[tuple, Any], policies: Sequence[str]) -> None:
    for spec in policies:
        for key in drew:
            if (spec, key) not in rows:
                raise ValueError(f"policy '{spec}' has no rows in world {key}; finish the run first")
    for spec, key in rows:
        if key not in drew or spec not in policies:
            raise ValueError(f"rows of policy '{spec}' in world {key} belong to no world of this run; start it anew")


def _rule(kind: str, target: float | None, cells: Sequence[Mapping[str, Any]]) -> str:
    if kind == "timing":
        return "no target: clocks alone rank speed, not learning"
    if target is None:
        return "no target"
    resolution = max(cell["resolution"] for cell in cells)
    return (
        "reached: the first crossing after which the next row is also at or above the target, interpolated between "
        f"rows that are {resolution:.3g} s apart or less"
    )


def _quotient(above: Any, below: Any) -> float | None:
    above, below = _number(above), _number(below)
    return above / below if above is not None and below else None


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
