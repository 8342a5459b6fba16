"""Intervals over worlds, one definition: which worlds count, how they form clusters, and Student's limits.

A *world* is one draw of everything random, and all policies run in it. So policies are compared within a world, and the
world is the unit of repetition. Three things keep the number of repetitions honest: worlds that draw the same count
once; worlds that share delays are averaged to one *cluster*; and a world in which a policy did not reach the target is
censored at the end of its rows, never left out: the ratio becomes a bound. `benchmarks/coverage.py` measures how often
the interval holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

LEVEL = 0.95
"""Confidence of every interval."""

Hashes = Mapping[str, str]
"""What a world drew, as `worlds.json` says: `graph`, `delays`, `timing`, `learning`."""

Way = list[list[list[int]]]
"""`[cluster][distinct world]`: the worlds that are equal to it, by number."""


class Time(NamedTuple):
    """Seconds to an event, or, where it did not happen, for how long it was awaited."""

    seconds: float
    reached: bool = True


def ratio(
    rivals: Sequence[Time], ours: Sequence[Time], worlds: Sequence[Hashes], same: str = "learning"
) -> dict[str, Any]:
    """A rival's seconds over ours, paired by world: above 1, ours is faster.

    `d = ln rival - ln ours` in each world, censored times taken as they are; the estimate is `exp(mean d)` over
    clusters, the limits are Student's on n - 1 clusters. If a rival is censored anywhere, the estimate is "at least"
    and has no upper limit; if ours is, "at most" and no lower limit; if both are, there is no ratio ("none"). Nor is
    there one where a time is zero or not finite.

    Args:
      rivals: `[W]`, one a world.
      ours: `[W]`.
      worlds: `[W]` what each drew.
      same: the hash that says which worlds are one: `learning`, or `timing` for seconds that do not depend on learning.

    Returns:
      `estimate`, `low`, `high` (`None` where there is none), `bound` (`None`, "at least", "at most", "none"), `worlds`
      and `clusters` counted. One cluster has no limits.
    """
    counted = cluster(worlds, same)
    censored = [any(not time.reached for time in times) for times in (rivals, ours)]
    every = [time.seconds for times in (rivals, ours) for time in times]
    if not every or not all(0 < seconds < math.inf for seconds in every) or all(censored):
        return _interval(counted, bound="none")
    logs = [math.log(a.seconds) - math.log(b.seconds) for a, b in zip(rivals, ours, strict=True)]
    mean, reach, count = _widest(logs, counted)
    low, high = (None, None) if reach is None else (_exp(mean - reach), _exp(mean + reach))
    bound = "at least" if censored[0] else "at most" if censored[1] else None
    return _interval(
        counted,
        estimate=_exp(mean),
        low=None if censored[1] else low,
        high=None if censored[0] else high,
        bound="none" if _exp(mean) is None else bound,
        clusters=count,
    )


def difference(
    rivals: Sequence[float], ours: Sequence[float], worlds: Sequence[Hashes], same: str = "learning"
) -> dict[str, Any]:
    """Ours minus a rival's, paired by world: the mean over clusters, with Student's limits.

    Args and Returns: as in `ratio`; nothing is censored here.
    """
    counted = cluster(worlds, same)
    gaps = [float(b) - float(a) for a, b in zip(rivals, ours, strict=True)]
    if not gaps or not all(map(math.isfinite, gaps)):
        return _interval(counted, bound="none")
    mean, reach, count = _widest(gaps, counted)
    low, high = (None, None) if reach is None else (mean - reach, mean + reach)
    return _interval(counted, estimate=mean, low=low, high=high, clusters=count)


def inverse(interval: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The interval of one over a ratio: a rival's over ours becomes ours over the rival's."""
    if interval is None or interval["estimate"] is None:
        return interval
    low, high = (None if end is None else 1 / end for end in (interval["high"], interval["low"]))
    bound = {"at least": "at most", "at most": "at least"}.get(interval["bound"] or "", interval["bound"])
    return {**interval, "estimate": 1 / interval["estimate"], "low": low, "high": high, "bound": bound}


def equal_worlds(worlds: Sequence[Hashes], same: str) -> list[list[int]]:
    """The worlds, those that draw the same together."""
    return _together(range(len(worlds)), [world[same] for world in worlds])


def _together(items: Iterable[Any], keys: Sequence[Any]) -> list[list[Any]]:
    found: dict[Any, list[Any]] = {}
    for item, key in zip(items, keys, strict=True):
        found.setdefault(key, []).append(item)
    return list(found.values())


class Clusters(NamedTuple):
    """Which worlds count together."""

    distinct: int  # worlds, equal ones once
    ways: list[Way]  # one, or two where graphs and delays cross


def cluster(worlds: Sequence[Hashes], same: str) -> Clusters:
    """Puts worlds that share delays into one cluster.

    Where graphs and delays cross (several graphs share delays, and several delays share a graph), worlds that share a
    graph are a second way. A graph that all worlds have, or delays of their own, are no reason for one.

    Args:
      worlds: `[W]` what each drew.
      same: the hash that says which worlds are one.
    """
    groups = equal_worlds(worlds, same)
    ways = [_together(groups, [worlds[group[0]][name] for group in groups]) for name in ("delays", "graph")]
    crossed = all(
        any(len({worlds[group[0]][other] for group in shared}) > 1 for shared in way)
        for way, other in zip(ways, ("graph", "delays"), strict=True)
    )
    return Clusters(len(groups), ways if crossed else ways[:1])


def _interval(counted: Clusters, **values: Any) -> dict[str, Any]:
    nothing = {"estimate": None, "low": None, "high": None, "bound": None, "worlds": counted.distinct}
    return {**nothing, "clusters": min(map(len, counted.ways)), **values}


def _cluster_means(values: Sequence[float], way: Way) -> list[float]:
    return [_average([_average([values[i] for i in group]) for group in shared]) for shared in way]


def _widest(values: Sequence[float], counted: Clusters) -> tuple[float, float | None, int]:
    """Mean, half the width of the interval (`None`: one cluster) and number of clusters, of the way that is widest."""
    found = []
    for way in counted.ways:
        means = _cluster_means(values, way)
        found.append((*_student(means), len(means)))
    return max(found, key=lambda each: -1.0 if each[1] is None else each[1])


def _student(values: Sequence[float]) -> tuple[float, float | None]:
    count, mean = len(values), _average(values)
    if count < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, _quantile(count - 1) * math.sqrt(variance / count)


@lru_cache
def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def replicated(values: Sequence[float], blocks: float) -> tuple[float, float, float]:
    """Mean and limits of a figure over bootstrap replicates of one trace.

    Percentiles, further out than at 2.5 and 97.5 %, so that as much is left for few blocks as Student's interval leaves
    (Hesterberg 2014, arXiv 1411.5279, "expanded percentile interval").

    Args:
      values: `[B]`, such as log ratios paired by replicate.
      blocks: how many blocks the trace is made of; at least 2.

    Raises:
      ValueError: no replicates.
    """
    if not values:
        raise ValueError("there are no replicates; draw at least one")
    import numpy as np
    from scipy.special import ndtr

    count = max(float(blocks), 2.0)
    tail = float(ndtr(-math.sqrt(count / (count - 1)) * _quantile(count - 1)))
    low, high = np.quantile(np.asarray(values, float), [tail, 1 - tail])
    return _average(values), float(low), float(high)


def among_replicates(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and limits of a figure from few replicates of one trace, each with a training of its own.

    Replicates of one trace spread as the mean would over new traces, however many they are: their mean is no nearer to
    the truth. So the limits are Student's for one more replicate, `mean +- t sd sqrt(1 + 1/n)`, and those of training
    are in it. One replicate has no limits.
    """
    mean, reach = _student(values)
    if reach is None:
        return mean, None, None
    reach *= math.sqrt(len(values) + 1)
    return mean, mean - reach, mean + reach


def mean_over(values: Sequence[float | None], worlds: Sequence[Hashes], same: str) -> float | None:
    """The mean over worlds, equal ones once, those that share delays averaged first; `None` unless all have a value.

    So what is shown of two policies agrees with their paired difference.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return _average(_cluster_means(known, cluster(worlds, same).ways[0]))


def _average(values: Sequence[float]) -> float:
    """Summed exactly, so that the order of worlds does not matter."""
    return math.fsum(values) / len(values)


def _exp(value: float) -> float | None:
    """`None` beyond what a float holds: a limit that far says nothing."""
    return math.exp(value) if value < 700 else None


def unpaired_ratio(
    rivals: Sequence[Time],
    ours: Sequence[Time],
    worlds: tuple[Sequence[Hashes], Sequence[Hashes]],
    same: str = "learning",
) -> dict[str, Any]:
    """As `ratio`, of two runs that share no worlds: Welch's interval of the difference of mean logarithms.

    Args:
      rivals: `[V]`, one a world of theirs.
      ours: `[W]`, one a world of ours.
      worlds: what each of theirs drew, and each of ours.
      same: the hash that says which worlds are one.

    Returns:
      An INTERVAL; `clusters` is the smaller number of the two.
    """
    counted = [cluster(own, same) for own in worlds]
    fewer = min(counted, key=lambda one: min(map(len, one.ways)))
    censored = [any(not time.reached for time in times) for times in (rivals, ours)]
    every = [time.seconds for times in (rivals, ours) for time in times]
    if not rivals or not ours or not all(0 < seconds < math.inf for seconds in every) or all(censored):
        return _interval(fewer, bound="none")
    logs = [[math.log(time.seconds) for time in times] for times in (rivals, ours)]
    means = [_cluster_means(own, one.ways[0]) for own, one in zip(logs, counted, strict=True)]
    gap, reach = _average(means[0]) - _average(means[1]), _welch(*means)
    low, high = (None, None) if reach is None else (_exp(gap - reach), _exp(gap + reach))
    bound = "at least" if censored[0] else "at most" if censored[1] else None
    return _interval(
        fewer,
        estimate=_exp(gap),
        low=None if censored[1] else low,
        high=None if censored[0] else high,
        bound="none" if _exp(gap) is None else bound,
    )


def _welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Half the width of Welch's interval for a difference of means; `None`: one of them has a single value."""
    if min(len(first), len(second)) < 2:
        return None
    squares = []
    for values in (first, second):
        mean = _average(values)
        squares.append(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    total = math.fsum(squares)
    if total == 0:
        return 0.0
    parts = (square**2 / (len(values) - 1) for square, values in zip(squares, (first, second), strict=True))
    return _quantile(total**2 / math.fsum(parts)) * math.sqrt(total)
