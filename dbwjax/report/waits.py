"""Who waited for whom, from the times of a timeline alone.

A *cell* is one computation of a worker and the wait that followed it: start, finish, released. The *cause* of a wait is
the worker at whose finish it ended, its message's flight included. A timeline does not hold causes; they are found from
times, so two workers that finish at one instant cannot be told apart, and a wait that no worker's finish ended (a
deadline, a token, a message that was on its way before) is due to nobody, -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 3e-4
"""How near a finish must be to the end of a wait to have ended it, in median computations; times are float32 sums."""

_EXACT = 1e-5
"""What counts as no wait, in median computations: a wait is one float32, not a sum of them."""

_LOOKED_AT = 16
"""Of workers that finish within the tolerance of one another, how many are looked at."""


class Cells(NamedTuple):
    """Computations and the waits after them, `[S]`, in the order in which their workers went on."""

    worker: np.ndarray  # int, from 0
    number: np.ndarray  # int, of the computations of that worker, from 0
    step: np.ndarray  # int, in which it went on
    start: np.ndarray  # s, float64
    finish: np.ndarray  # s; where it was cut short, when that was
    released: np.ndarray  # s, when it went on
    flight: np.ndarray  # s of the wait, its end, in which the message waited for was on its way
    used: np.ndarray  # bool, whether the update counted
    cause: np.ndarray  # int, the worker at whose finish the wait ended; -1: nobody's, or there was no wait
    cause_cell: np.ndarray  # int, the cell of that finish; -1
    workers: int  # N
    ends: np.ndarray | None  # [T] s, when each iteration ended, if it did for everybody at once
    complete: bool  # whether every computation until the budget is here

    @property
    def waited(self) -> np.ndarray:
        """Seconds of each wait, flight included."""
        return self.released - self.finish


class Totals(NamedTuple):
    """Seconds of some cells, by worker."""

    computing: np.ndarray  # [N] of updates that counted
    waiting: np.ndarray  # [N] without flight
    wasted: np.ndarray  # [N] of computations that were thrown away
    communicating: np.ndarray  # [N]
    due: np.ndarray  # [N, N] that i waited, flight included, due to j
    nobody: np.ndarray  # [N] that i waited due to nobody


def cells_of(timeline: Mapping[str, Any], pairs: np.ndarray | None = None) -> Cells:
    """The cells of one policy in one world.

    Args:
      timeline: its arrays in `timeline.npz`.
      pairs: `[P, 2]` who hears whom; of workers that finish at one instant, one that is heard is the cause. `None`: not
        known.

    Raises:
      ValueError: the timeline holds no computations.
    """
    if not len(timeline.get("span_worker", ())):
        raise ValueError("the timeline holds no computations one by one; run again with --timelines auto")
    worker, step = (np.asarray(timeline[f"span_{name}"], np.int64) for name in ("worker", "step"))
    used = np.asarray(timeline["span_used"], bool)
    seconds = {
        name: np.asarray(timeline[f"span_{name}"], np.float64) for name in ("computing", "waiting", "communicating")
    }
    workers = len(timeline["worker_computing"])
    took = seconds["computing"] + seconds["waiting"] + seconds["communicating"]
    number, start = _by_worker(worker, took)
    finish = start + seconds["computing"]
    released = finish + seconds["waiting"] + seconds["communicating"]
    whole = sum(float(np.sum(timeline[f"worker_{name}"])) for name in ("computing", "wasted", *list(seconds)[1:]))
    complete = float((released - start).sum()) >= (1 - 1e-5) * whole
    busy = seconds["computing"][seconds["computing"] > 0]
    near = TOLERANCE * float(np.median(busy)) if len(busy) else 0.0
    ends = None if "workers" in timeline else _common_ends(step, released, near)
    none = np.full(len(worker), -1)
    found = Cells(
        *(worker, number, step, start, finish, released, seconds["communicating"], used, none, none),
        workers=workers,
        ends=ends,
        complete=complete,
    )
    takes_part = used if "workers" in timeline else np.asarray(timeline["active"], bool)[step, worker]
    cell = _causes(found, takes_part, near, _keys(pairs, workers))
    return found._replace(cause=np.where(cell >= 0, worker[cell], -1), cause_cell=cell)


def totals(cells: Cells, which: np.ndarray | None = None) -> Totals:
    """What some cells add up to.

    Args:
      cells: of one policy in one world.
      which: their numbers, or a mask; all by default.
    """
    some: Any = slice(None) if which is None else which
    worker, used, cause = cells.worker[some], cells.used[some], cells.cause[some]
    busy, waited, flight = (cells.finish - cells.start)[some], cells.waited[some], cells.flight[some]
    count = cells.workers

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(worker, values, count)

    pair = np.where(cause >= 0, worker * count + cause, 0)
    due = np.bincount(pair, np.where(cause >= 0, waited, 0), count * count).reshape(count, count)
    return Totals(
        computing=summed(np.where(used, busy, 0)),
        waiting=summed(waited - flight),
        wasted=summed(np.where(used, 0, busy)),
        communicating=summed(flight),
        due=due,
        nobody=summed(np.where(cause >= 0, 0, waited)),
    )


def lost_to(cells: Cells) -> np.ndarray:
    """`[N]` seconds that the other workers waited due to each."""
    found = cells.cause >= 0
    return np.bincount(cells.cause[found], cells.waited[found], cells.workers)


def established(active: np.ndarray, path: np.ndarray) -> np.ndarray:
    """`[T, L]` which links of DTUR's path are established when each iteration has ended.

    A link is when both its ends were active in one iteration of the epoch; when all are, the next epoch begins with
    none (the last iteration of an epoch shows none).

    Args:
      active: `[T, N]`.
      path: `[L, 2]` links of the spanning path or tree.
    """
    path = np.asarray(path, int).reshape(-1, 2)
    both = active[:, path[:, 0]] & active[:, path[:, 1]]
    state, found = np.zeros(len(path), bool), np.zeros(both.shape, bool)
    for step, new in enumerate(both):
        state = state | new
        if state.all():
            state = np.zeros_like(state)
        found[step] = state
    return found


def _by_worker(worker: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each cell among its worker's, and when it starts."""
    order = np.argsort(worker, kind="stable")
    mine = worker[order]
    first = np.flatnonzero(np.diff(mine, prepend=-1))
    length = np.diff(np.append(first, len(mine)))
    number, start = np.empty(len(mine), np.int64), np.empty(len(mine))
    number[order] = np.arange(len(mine)) - np.repeat(first, length)
    for begin, count in zip(first, length, strict=True):  # one sum a worker, so that no error comes from the others
        own = order[begin : begin + count]
        start[own] = np.concatenate([[0.0], np.cumsum(seconds[own])[:-1]])
    return number, start


def _common_ends(step: np.ndarray, released: np.ndarray, near: float) -> np.ndarray | None:
    """When each step ended, if every worker that went on in it did so at one time; else `None`."""
    first = np.flatnonzero(np.diff(step, prepend=-1))
    latest, earliest = np.maximum.reduceat(released, first), np.minimum.reduceat(released, first)
    if (latest - earliest > 2 * near).mean() > 0.01:
        return None
    ends = np.full(step[-1] + 1, np.nan)
    ends[step[first]] = latest
    known = np.flatnonzero(np.isfinite(ends))  # in a step in which nobody went on, nobody's wait ended
    return np.interp(np.arange(len(ends)), known, ends[known])


def _keys(pairs: np.ndarray | None, workers: int) -> np.ndarray:
    """Pairs as sorted numbers."""
    found = np.zeros((0, 2), np.int64) if pairs is None else np.asarray(pairs, np.int64).reshape(-1, 2)
    return np.sort(found[:, 0] * workers + found[:, 1])


def _causes(cells: Cells, takes_part: np.ndarray, near: float, heard: np.ndarray) -> np.ndarray:
    """`[S]` the cell whose finish ended each wait; -1.

    Where a step ends for everybody at once, that is who went on without waiting, but for its own message; elsewhere,
    whose finish is nearest to the end of the wait less the flight.
    """
    none = near * _EXACT / TOLERANCE
    waits = cells.waited > none
    real = cells.finish > cells.start  # an idle worker's span is no computation
    alone = cells.waited - cells.flight <= none
    setters = np.flatnonzero(real & takes_part & alone)
    finishers = np.flatnonzero(real & (takes_part | waits))
    found = np.full(len(cells.worker), -1)
    if cells.ends is not None:
        late = np.flatnonzero(waits & ~alone)
        # All of a step are released at one time, so the step says it better than its time; mostly one worker set it.
        count = np.bincount(cells.step[setters], minlength=len(cells.ends))
        only = np.full(len(cells.ends), -1)
        only[cells.step[setters]] = setters
        found[late] = only[cells.step[late]]
        late = late[count[cells.step[late]] > 1]
        found[late] = _nearest(cells, late, cells.step[late].astype(float), setters, cells.step[setters], 0.25, heard)
        return found
    late = np.flatnonzero(waits)
    target = (cells.released - cells.flight)[late]
    found[late] = _nearest(cells, late, target, finishers, cells.finish[finishers], near, heard)
    return found


def _nearest(
    cells: Cells, late: np.ndarray, target: np.ndarray, others: np.ndarray, at: Any, near: float, heard: np.ndarray
) -> np.ndarray:
    """For each of some cells, the cell of another worker nearest to a target; of those within reach, one that is heard
    first, then the nearest, then the lowest worker's."""
    order = np.lexsort((cells.worker[others], at))
    others, at = others[order], np.asarray(at, np.float64)[order]
    low, high = np.searchsorted(at, target - near, "left"), np.searchsorted(at, target + near, "right")
    best, score = np.full(len(late), -1), np.full(len(late), np.inf)
    for place in range(min(_LOOKED_AT, int((high - low).max(initial=0)))):
        some = np.flatnonzero(low + place < high)
        cell = others[low[some] + place]
        i, j = cells.worker[late[some]], cells.worker[cell]
        keys = i * cells.workers + j
        found = np.searchsorted(heard, keys)
        linked = (found < len(heard)) & (heard[np.minimum(found, len(heard) - 1)] == keys) if len(heard) else False
        new = np.abs(at[low[some] + place] - target[some]) / max(near, 1e-300) + 2.0 * ~np.asarray(linked, bool)
        better = (i != j) & (new < score[some])
        best[some[better]], score[some[better]] = cell[better], new[better]
    return best
