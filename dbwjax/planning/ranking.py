"""Candidates in order, who cannot be told apart, and whether the order would change.

Figures are logarithms of seconds, paired by replicate. Limits are those of `report.intervals`: over bootstrap
replicates for clocks, over replicates with a training each for times to a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dbwjax.planning.replicates import SCENARIOS, Clocks
from dbwjax.report.intervals import Time, among_replicates, replicated

Key = tuple[str, str]
"""A candidate: policy and graph."""

_Limits = Callable[[np.ndarray], tuple[float, float | None, float | None]]

_EQUAL = 1e-5  # of logarithms of seconds that were added up in float32


class Interval(NamedTuple):
    """An estimate with its limits at 95 %; `None`: no limit."""

    estimate: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{digits(self.estimate)} [{digits(self.low)}, {digits(self.high)}]"


class Entry(NamedTuple):
    """A candidate's place."""

    policy: str
    graph: str
    group: int  # from 1; within a group the first cannot be told apart from the others
    seconds: Interval  # what is ranked: see `Ranking.by`
    over_best: Interval  # those seconds over the first candidate's, paired by replicate
    iteration: Interval  # seconds
    gradients: float  # that count in an iteration, of all workers together
    shares: tuple[float, ...]  # of a worker's time: computing, wasted, waiting, communicating
    first: float  # share of replicates in which nobody is quicker
    reached: tuple[int, int] | None  # replicates in which the target was reached, of how many; None: clocks alone

    @property
    def name(self) -> str:
        """Policy and graph, for people."""
        return f"{self.policy} on {self.graph}"


class Change(NamedTuple):
    """Who would be first if something changed."""

    scenario: str
    policy: str
    graph: str
    first: float  # share of replicates in which nobody is quicker
    ours: Interval  # seconds of today's winner over those of the one that would be first
    gain: Interval  # today's winner's seconds over its seconds in the scenario


class Ranking(NamedTuple):
    """Who is quickest."""

    by: str  # `iteration`, `gradients` or `target`
    entries: list[Entry]
    changes: list[Change]

    @property
    def top(self) -> list[Entry]:
        """The winner, and who cannot be told apart from it."""
        return [one for one in self.entries if one.group == 1]


def rank(
    clocks: Mapping[Key, Clocks],
    trained: Mapping[Key, Sequence[Time]] | None,
    by: str,
    machines: int,
    blocks: float,
) -> Ranking:
    """Orders candidates by what `by` says.

    Args:
      clocks: of every candidate.
      trained: times to the target in a few replicates; `None`: clocks alone.
      by: `iteration`, `gradients` (seconds for as many gradients as there are machines) or `target`.
      machines: N.
      blocks: how many blocks the trace is made of.

    Raises:
      ValueError: no candidate reached the target in every replicate.
    """
    logs = {key: _logs(one, "iteration" if trained else by, machines) for key, one in clocks.items()}
    ranked = (
        {key: np.log([each.seconds for each in own]) for key, own in trained.items()}
        if trained
        else {key: own[0] for key, own in logs.items()}
    )
    sure = {key: trained is None or all(each.reached for each in trained[key]) for key in clocks}
    if not any(sure.values()):
        raise ValueError("no rule reached the target in every replicate; train longer (--steps) or lower the target")
    order = sorted(clocks, key=lambda key: (not sure[key], round(float(ranked[key].mean()) / _EQUAL)))
    between = _interval_of(trained is not None, blocks)
    best = order[0]
    groups = _groups(order, ranked, sure, between)
    everywhere = {key: _weighed(logs[key], ranked[key] if trained else None) for key in order}
    first = _first(order, {key: own[0] for key, own in everywhere.items()})
    entries = []
    for key in order:
        low_only = not sure[key]
        over = between(ranked[key] - ranked[best])
        entries.append(
            Entry(
                *key,
                groups[key],
                _seconds(between(ranked[key]), low_only),
                _seconds(over, low_only),
                _seconds(replicated(_list(np.log(clocks[key].length[0])), blocks)),
                float(clocks[key].gradients[0].mean()),
                tuple(clocks[key].shares.tolist()),
                first[key],
                (sum(each.reached for each in trained[key]), len(trained[key])) if trained else None,
            )
        )
    return Ranking(by, entries, _changes(order, everywhere, blocks))


def ratio(
    clocks: Mapping[Key, Clocks],
    trained: Mapping[Key, Sequence[Time]] | None,
    by: str,
    machines: int,
    blocks: float,
    rival: Key,
    ours: Key,
) -> Interval:
    """A rival's seconds over ours, paired by replicate; of one that did not reach the target, at least."""
    if trained:
        logs = [math.log(a.seconds) - math.log(b.seconds) for a, b in zip(trained[rival], trained[ours], strict=True)]
        return _seconds(among_replicates(logs), not all(each.reached for each in trained[rival]))
    gap = _logs(clocks[rival], by, machines)[0] - _logs(clocks[ours], by, machines)[0]
    return _seconds(replicated(_list(gap), blocks))


def digits(value: float | None) -> str:
    """Three significant digits; a missing limit is a dash."""
    return "-" if value is None else f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def _logs(clocks: Clocks, by: str, machines: int) -> np.ndarray:
    """`[S, B]`."""
    rounds = machines / np.maximum(clocks.gradients, 1e-30) if by == "gradients" else 1.0
    return np.log(clocks.length * rounds)


def _interval_of(trained: bool, blocks: float) -> _Limits:
    def of(values: np.ndarray) -> tuple[float, float | None, float | None]:
        return among_replicates(_list(values)) if trained else replicated(_list(values), blocks)

    return of


def _groups(
    order: Sequence[Key], ranked: Mapping[Key, np.ndarray], sure: Mapping[Key, bool], between: _Limits
) -> dict[Key, int]:
    """The first without a group leads one: those after it whose ratio to it may be 1 are in it."""
    groups: dict[Key, int] = {}
    for key in order:
        if key in groups:
            continue
        number = 1 + max(groups.values(), default=0)
        groups[key] = number
        for other in order:
            if other in groups:
                continue
            _, low, high = between(ranked[other] - ranked[key])
            slower = low is not None and low > _EQUAL
            quicker = high is not None and high < -_EQUAL and sure[other] and sure[key]
            if not slower and not quicker:
                groups[other] = number
    return groups


def _weighed(logs: np.ndarray, trained: np.ndarray | None) -> np.ndarray:
    """`[S, B]`: what is ranked in every scenario and replicate.

    Of times to a target: the iterations that a training needed, times the replicate's iteration length. Trainings are
    dealt out over replicates in turn, the same for all candidates.
    """
    if trained is None:
        return logs
    needed = trained - logs[0].mean()
    return logs + needed[np.arange(logs.shape[1]) % len(needed)]


def _first(order: Sequence[Key], values: Mapping[Key, np.ndarray]) -> dict[Key, float]:
    least = np.min([values[key] for key in order], axis=0)
    return {key: float((values[key] <= least + _EQUAL).mean()) for key in order}


def _changes(order: Sequence[Key], values: Mapping[Key, np.ndarray], blocks: float) -> list[Change]:
    """Who would be first in every scenario but the first."""
    ours, found = order[0], []
    for scenario in range(1, values[ours].shape[0]):
        own = {key: each[scenario] for key, each in values.items()}
        winner = min(order, key=lambda key: round(float(own[key].mean()) / _EQUAL))
        found.append(
            Change(
                SCENARIOS[scenario],
                *winner,
                _first(order, own)[winner],
                _seconds(replicated(_list(own[ours] - own[winner]), blocks)),
                _seconds(replicated(_list(values[ours][0] - own[ours]), blocks)),
            )
        )
    return found


def _seconds(logs: tuple[float, float | None, float | None], low_only: bool = False) -> Interval:
    mean, low, high = (None if one is None else math.exp(one) for one in logs)
    assert mean is not None
    return Interval(mean, low, None if low_only else high)


def _list(values: np.ndarray) -> list[float]:
    return np.asarray(values, np.float64).tolist()
