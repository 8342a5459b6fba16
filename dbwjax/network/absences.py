"""Who is away when, and which partitions there are, as arrays: checked together, from wherever they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dbwjax import limits
from dbwjax.types import Events


class Away(NamedTuple):
    """Absences in any order; K of them, times in seconds."""

    worker: np.ndarray  # [K] int
    at: np.ndarray  # [K] float64
    until: np.ndarray  # [K]; inf: for ever
    patience: np.ndarray  # [K] until the others know
    line: np.ndarray  # [K] int, by which an error finds what it is to be called


class Cut(NamedTuple):
    """A partition, or C of them with a leading axis."""

    at: np.ndarray
    until: np.ndarray
    side: np.ndarray  # [..., N] int, each worker's side


def halves(workers: int, groups: int = 2) -> np.ndarray:
    """`[N]`: groups of consecutive workers, as equal as they can be; of two, the first is not the smaller one.

    >>> halves(5).tolist(), halves(5, 3).tolist()
    ([0, 0, 0, 1, 1], [0, 0, 1, 1, 2])
    """
    return np.arange(workers) * groups // workers


def cuts_of(cuts: Sequence[Cut], workers: int) -> Cut:
    """Several partitions, stacked."""
    at, until = (np.array([cut[place] for cut in cuts], np.float64) for place in (0, 1))
    return Cut(at, until, np.array([cut.side for cut in cuts], np.int64).reshape(-1, workers))


def arrays_of(away: Away, cuts: Cut, loss: float, workers: int, where: Callable[[int], str]) -> Events:
    """Everything as arrays: of each worker's absences in order of time, padded to those of the worker with most.

    Args:
      away, cuts: in any order.
      loss: probability that a message is lost.
      workers: N.
      where: from a `line` of `away`: what an error calls that absence.

    Returns:
      At least one absence and one partition, of which `inf` says never.

    Raises:
      ValueError: a worker that is away twice at a time, a time at which nobody is there, or more than the memory holds.
    """
    order = np.lexsort((away.at, away.worker))
    away = Away(*(column[order] for column in away))
    _require_apart(away, where)
    _require_somebody(away, workers)
    counts = np.bincount(away.worker, minlength=workers)
    most = max(1, int(counts.max(initial=0)))
    limits.require_count("absences of one worker", most, lambda count: 24.0 * count * workers)
    place = np.arange(len(away.worker)) - np.repeat(np.cumsum(counts) - counts, counts)

    def filled(values: np.ndarray, otherwise: float) -> Array:
        found = np.full((workers, most), otherwise)
        found[away.worker, place] = values
        return _real(found)

    never = np.full(max(0, 1 - len(cuts.at)), np.inf)
    return Events(
        away_from=filled(away.at, np.inf),
        away_until=filled(away.until, np.inf),
        patience=filled(away.patience, 0.0),
        cut_from=_real(np.concatenate([cuts.at, never])),
        cut_until=_real(np.concatenate([cuts.until, never])),
        side=jnp.asarray(np.concatenate([cuts.side, np.zeros((len(never), workers), np.int64)]), jnp.int32),
        loss=_real(np.asarray(loss)),
    )


def padded(events: Sequence[Events | None]) -> list[Events | None]:
    """Those of several worlds of as many workers, with as many absences and partitions as the one with most, so that
    they stack."""
    some = [one for one in events if one is not None]
    most = max((one.away_from.shape[1] for one in some), default=1)
    cuts = max((one.cut_from.shape[0] for one in some), default=1)
    return [None if one is None else _wide(one, most, cuts) for one in events]


def _wide(events: Events, most: int, cuts: int) -> Events:
    more = ((0, 0), (0, most - events.away_from.shape[1]))
    extra = (0, cuts - events.cut_from.shape[0])
    if more[1] == extra == (0, 0):
        return events
    return events._replace(
        away_from=jnp.pad(events.away_from, more, constant_values=math.inf),
        away_until=jnp.pad(events.away_until, more, constant_values=math.inf),
        patience=jnp.pad(events.patience, more),
        cut_from=jnp.pad(events.cut_from, extra, constant_values=math.inf),
        cut_until=jnp.pad(events.cut_until, extra, constant_values=math.inf),
        side=jnp.pad(events.side, (extra, (0, 0))),
    )


def _require_apart(away: Away, where: Callable[[int], str]) -> None:
    """No worker is away twice at a time; absences by worker and in order of time."""
    again = (away.worker[1:] == away.worker[:-1]) & (away.at[1:] < away.until[:-1])
    if again.any():
        place = int(np.argmax(again))
        at, begin, end = away.at[place + 1], away.at[place], away.until[place]
        until = "for ever" if end == math.inf else f"until {end:g} s"
        raise ValueError(
            f"{where(int(away.line[place + 1]))}: at {at:g} s worker {away.worker[place]} is away already, from "
            f"{begin:g} s {until} ({where(int(away.line[place]))}); keep one of them"
        )


def _require_somebody(away: Away, workers: int) -> None:
    """At no time all are away; one that returns and one that goes at the same time leave nobody out."""
    times = np.concatenate([away.at, away.until])
    gone = np.concatenate([np.ones(len(away.at), np.int64), -np.ones(len(away.until), np.int64)])
    order = np.lexsort((gone, times))
    times, count = times[order], np.cumsum(gone[order])
    empty = (count == workers) & (times < math.inf)
    if empty.any():
        place = int(np.argmax(empty))
        raise ValueError(
            f"world: from {times[place]:g} s on all {workers} workers are away, and nobody is left to go on; keep one "
            "of them there"
        )


def _real(values: np.ndarray) -> Array:
    return jnp.asarray(values, jnp.result_type(float))
