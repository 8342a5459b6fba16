"""Virtual time on the host: when each worker's iterations end, which models are read when, and what a row says.

The clock runs ahead of the learner and hands over relative times; absolute times are summed here in float64, in order,
so that nothing depends on how steps were cut into chunks. A row is dated by the grid. What happened in an iteration
counts to the first row at or after the iteration's end; what a worker *holds* at a row is what it has since its last
iteration's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

SUMS = (
    *("loss", "losses", "active", "missed", "ended", "length"),
    *("gradients", "computing", "wasted", "waiting"),
)
"""What is summed for each row over the iterations that end between it and the row before."""


class Reading(NamedTuple):
    """Workers whose parameters are read before one step of a chunk."""

    step: int  # counted within the chunk
    rows: tuple[int, ...]  # of the grid; several where they all hold the same
    workers: np.ndarray  # [N] bool
    before: int  # workers that were read for these rows earlier


class Outlook(NamedTuple):
    """What the clock, run ahead, says about a chunk."""

    needed: int  # steps until every worker is past the grid; all of the chunk if it is not, 0 if it was before
    ends: np.ndarray  # [C, N] or [C, 1] absolute seconds, float64
    window: np.ndarray  # the same shape: first row at or after that
    readings: list[Reading]
    last: list[tuple[int, int]]  # (step, worker): who is read for the last row, and when


class Account:
    """One simulation's time and sums.

    Args:
      grid: `[R+1]` seconds, ascending from 0; the last is the budget.
      computes: `[N]` which nodes are workers.

    Attributes:
      origin: absolute time of the clock's origin, seconds, float64.
      steps: steps done.
      still: how many of the last ones moved the origin by nothing.
      done: whether every worker is past the grid.
      diverged: the first row whose models are not finite; R+1: none.
    """

    def __init__(self, grid: np.ndarray, computes: np.ndarray):
        self.grid, self.computes = np.asarray(grid, np.float64), np.asarray(computes, bool)
        rows, nodes = len(self.grid), len(self.computes)
        self.origin, self.steps, self.done, self.diverged = 0.0, 0, False, rows
        self.still = 0
        self.at = np.zeros(nodes)  # when each worker's running iteration began
        self.sums = np.zeros((len(SUMS), rows + 1))
        self.per_worker = np.zeros((rows + 1, nodes), np.int32)  # iterations that ended, by row
        self.filled = np.zeros(rows, np.int32)  # workers read for each row
        nothing = np.zeros(0, np.float32)
        self._history: dict[str, list[np.ndarray]] = {
            **{name: [nothing] for name in ("duration", "backup_workers", "length")},
            "active": [np.zeros((0, nodes), bool)],
        }

    def history(self, name: str) -> np.ndarray:
        """What was remembered of every step: `duration` [T] s, `active` [T, N], `backup_workers` [T]; and `length` [n]
        s, of the iterations that ended by the budget."""
        pieces = self._history[name]
        pieces[:] = [np.concatenate(pieces)] if len(pieces) > 1 else pieces
        return pieces[0]

    duration = property(lambda self: self.history("duration"))
    active = property(lambda self: self.history("active"))
    backup_workers = property(lambda self: self.history("backup_workers"))
    length = property(lambda self: self.history("length"))

    def look(self, ticks: Any) -> Outlook:
        """Dates a chunk's `Tick` (leaves `[C, ...]` on the host) and says what must be read when.

        Raises:
          FloatingPointError: a time that is not a number; the argument is the step, counted within the chunk.
        """
        if self.done:  # its clock has gone on with those beside it, and nobody looks
            nothing = np.zeros((0, len(self.computes)))
            return Outlook(0, nothing, nothing.astype(int), [], [])
        origins = np.cumsum(np.concatenate([[self.origin], ticks.duration.astype(np.float64)]))
        if ticks.ended is None:
            ends = origins[1:, None]
        else:
            ends = origins[:-1, None] + ticks.ended.astype(np.float64)
        odd = np.isnan(ends).any(axis=1) | np.isnan(ticks.duration)
        past = ends > self.grid[-1]
        if odd.any() and not past[: int(odd.argmax())].all(axis=1).any():
            raise FloatingPointError(int(odd.argmax()))
        finished = np.flatnonzero(past.all(axis=1))
        needed = int(finished[0]) + 1 if finished.size else len(ends)
        window = np.searchsorted(self.grid, ends, side="left")
        first = np.searchsorted(self.grid, self.at, side="left")
        first = first[:1] if ends.shape[1] == 1 else first
        before = np.concatenate([first[None], window[:-1]])
        readings, last = self._readings(before[:needed], window[:needed])
        return Outlook(needed, ends, window, readings, last)

    def _readings(self, first: np.ndarray, after: np.ndarray) -> tuple[list[Reading], list[tuple[int, int]]]:
        """Rows `first` to `after - 1` are held in each step by each worker."""
        steps, who = np.nonzero(after > first)
        found: dict[tuple[int, int], np.ndarray] = {}
        for step, worker in zip(steps, who, strict=True):
            for row in range(first[step, worker], after[step, worker]):
                found.setdefault((int(step), row), np.zeros(first.shape[1], bool))[worker] = True
        workers, filled = int(self.computes.sum()), self.filled.copy()
        readings: list[Reading] = []
        last: list[tuple[int, int]] = []
        for (at, row), mask in sorted(found.items(), key=lambda item: item[0]):
            mask = (np.broadcast_to(mask, self.computes.shape) if len(mask) == 1 else mask) & self.computes
            count = int(mask.sum())
            if row == len(self.grid) - 1:
                last += [(at, int(worker)) for worker in np.flatnonzero(mask)]
            if count == 0:
                continue
            alike = readings and readings[-1].step == at and count == workers and readings[-1].before == 0
            if alike and readings[-1].workers.sum() == workers:
                readings[-1] = readings[-1]._replace(rows=(*readings[-1].rows, row))
            else:
                readings.append(Reading(at, (row,), mask, int(filled[row])))
            filled[row] += count
        return readings, last

    def add(self, ticks: Any, seen: Any, outlook: Outlook, steps: int) -> list[int]:
        """Counts the first `steps` steps of a chunk, at most those that were needed.

        Args:
          ticks: the chunk's `Tick`, leaves `[C, ...]` on the host.
          seen: what the learner said, leaves `[C, ...]`; `None`: the clock ran alone.
          outlook: of these ticks.
          steps: how many of them were done.

        Returns:
          The rows that are whole now.
        """
        steps = min(steps, outlook.needed)
        nodes = len(self.computes)
        ends = np.broadcast_to(outlook.ends[:steps], (steps, nodes))
        window = np.broadcast_to(outlook.window[:steps], (steps, nodes))
        begun = np.concatenate([self.at[None], ends[:-1]]) if steps else ends
        ended = np.broadcast_to(self.computes, ends.shape)
        if ticks.iterated is not None:
            ended = ended & ticks.iterated[:steps]
        values = {
            "active": ticks.active[:steps] & ended,
            "missed": ticks.missed[:steps] * ended,
            "ended": ended,
            "length": np.where(ended & np.isfinite(ends), ends - begun, 0.0),
            "gradients": ticks.counted[:steps],
            "computing": ticks.computing[:steps],
            "wasted": ticks.wasted[:steps],
            "waiting": ticks.waiting[:steps],
        }
        for name, each in values.items():
            self._sum(name, window, each)
        if seen is not None:
            self._losses(seen, ticks, outlook, steps)
        np.add.at(self.per_worker, (window, np.broadcast_to(np.arange(nodes), window.shape)), ended.astype(np.int32))
        self._remember(ticks, steps, values["length"], window)
        for reading in outlook.readings:
            if reading.step < steps:
                self.filled[list(reading.rows)] += int(reading.workers.sum())
        if steps:
            for duration in ticks.duration[:steps].astype(np.float64):
                before, self.origin = self.origin, self.origin + float(duration)
                self.still = 0 if self.origin > before else self.still + 1
            self.at = ends[-1].copy()
        self.steps += steps
        self.done = bool((self.at > self.grid[-1]).all())
        return np.flatnonzero(self.filled == self.computes.sum()).tolist()

    def _sum(self, name: str, window: np.ndarray, values: np.ndarray) -> None:
        np.add.at(self.sums[SUMS.index(name)], window.ravel(), np.asarray(values, np.float64).ravel())

    def _losses(self, seen: Any, ticks: Any, outlook: Outlook, steps: int) -> None:
        if seen.workers is None:
            window = np.broadcast_to(outlook.window[:steps], seen.loss[:steps].shape)
            counted = ticks.counted[:steps]
        else:  # events end for everybody at once
            window = np.broadcast_to(outlook.window[:steps, :1], seen.loss[:steps].shape)
            counted = np.take_along_axis(ticks.counted[:steps], np.minimum(seen.workers[:steps], len(self.at) - 1), 1)
        loss = np.where(counted, seen.loss[:steps].astype(np.float64), 0)
        self._sum("loss", window, loss)
        self._sum("losses", window, counted)
        bad = counted & ~np.isfinite(loss)
        if bad.any():
            self.diverged = min(self.diverged, int(window[bad].min()))

    def _remember(self, ticks: Any, steps: int, length: Any, window: np.ndarray) -> None:
        nodes, inside = len(self.computes), window < len(self.grid)
        missed = ticks.missed[:steps].sum(axis=1) / np.float32(nodes)
        own = ticks.duration[:steps][inside[:, 0]] if ticks.ended is None else length[inside]
        for name, new in (
            ("duration", ticks.duration[:steps]),
            ("active", ticks.active[:steps]),
            ("backup_workers", missed.astype(np.float32)),
            ("length", own.astype(np.float32)),
        ):
            self._history[name].append(new)

    def row(self, number: int) -> dict[str, Any]:
        """What the clock and the losses say about one row."""
        here = dict(zip(SUMS, self.sums[:, number], strict=True))
        so_far = dict(zip(SUMS, self.sums[:, : number + 1].sum(axis=1), strict=True))
        iterations = self.per_worker[: number + 1, self.computes].sum(axis=0)
        said = clock_row(number, float(self.grid[number]), iterations, here, so_far)
        return {**said, "train_loss": mean(here["loss"], here["losses"])}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a checkpoint must keep."""
        kept = {name: getattr(self, name) for name in ("at", "sums", "per_worker", "filled")}
        small = np.array([self.origin, self.steps, self.done, self.diverged], np.float64)
        return {"small": small, **kept, **{name: self.history(name) for name in self._history}}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Puts the account where `state` was."""
        for name, value in state.items():
            if name in self._history:
                self._history[name] = [np.array(value)]
            elif name != "small":
                setattr(self, name, np.array(value))
        origin, steps, done, diverged = state["small"]
        self.origin, self.steps, self.done, self.diverged = float(origin), int(steps), bool(done), int(diverged)


def clock_row(
    number: int, seconds: float, iterations: np.ndarray, here: Mapping[str, float], so_far: Mapping[str, float]
) -> dict[str, Any]:
    """A row as far as a clock knows it, in the columns of `metrics.jsonl`.

    Args:
      number: of the row.
      seconds: its time.
      iterations: `[N]` that each worker has ended by then.
      here: sums since the row before, as far as `SUMS` names them.
      so_far: sums since the beginning.
    """
    return {
        "row": number,
        "virtual_time": seconds,
        "step": float(iterations.mean()),
        "drift": int(iterations.max() - iterations.min()),
        "active_fraction": mean(here["active"], here["ended"]),
        "backup_workers": mean(here["missed"], here["ended"]),
        "gradients": int(so_far["gradients"]),
        "computing": so_far["computing"],
        "wasted": so_far["wasted"],
        "waiting": so_far["waiting"],
        "iteration_length": mean(so_far["length"], so_far["ended"]),
    }


def mean(total: float, count: float) -> float | None:
    """`total / count`; nothing has no mean, and one that is not finite is none.

    >>> mean(3.0, 2), mean(0.0, 0)
    (1.5, None)
    """
    return float(total / count) if count and np.isfinite(total) else None


def even_grid(seconds: float, rows: int) -> np.ndarray:
    """`[rows + 1]` times from 0 to `seconds`, evenly spaced.

    >>> even_grid(10.0, 4).tolist()
    [0.0, 2.5, 5.0, 7.5, 10.0]
    """
    return np.linspace(0.0, seconds, rows + 1)


def grid_at(ends: np.ndarray, every: int) -> np.ndarray:
    """Times at the ends of the iterations `every`, 2 `every`, ... and of the last.

    Args:
      ends: `[T]` seconds, when each iteration of the baseline ends.
      every: iterations.
    """
    numbers = np.unique(np.append(np.arange(every, len(ends) + 1, every), len(ends)))
    return np.concatenate([[0.0], ends[numbers - 1]])
