"""Virtual time on the host: when each worker's iterations end, which models are read when, and what a row says.

The clock runs ahead of the learner and hands over relative times; absolute times are summed here in float64, in order,
so that nothing depends on how steps were cut into chunks. A row is dated by the grid. What happened in an iteration
counts to the first row at or after the iteration's end; what a worker *holds* at a row is what it has since its last
iteration's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax.experiments.extent import MOST_SPANS
from dbwjax.experiments.rows import clock_row, mean
from dbwjax.experiments.spans import SPANS, spans_of
from dbwjax.experiments.spectrum import Spectrum

SUMS = (
    *("loss", "losses", "active", "missed", "ended", "length"),
    *("gradients", "computing", "wasted", "waiting", "communicating", "age", "messages", "gap", "windows"),
)
"""What is summed for each row over the iterations that end between it and the row before."""

BY_WORKER = ("computing", "wasted", "waiting", "communicating", "counted", "age")
"""What is summed for each worker until the budget."""

HISTORY = {
    **{"duration": np.float32, "backup_workers": np.float32, "length": np.float32},
    **{"active": bool, "workers": np.int32, "age": np.int32},
    **SPANS,
}
"""What is remembered of the steps: `duration` [T] s, `backup_workers` [T] and `active` [T, N]; where steps are events,
`active` [T, E] says whose update counted of the nodes `workers` [T, E] (N: nobody), and `age` [T, E] how stale it was;
`length` [n] s of the iterations that ended by the budget; and `SPANS`."""


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
      evaluated: `[N]` whose mean is the model; by default the workers.
      copies: machines that do each computation at once, of which the first counts.
      spans: how many computations are remembered one by one.

    Attributes:
      origin: absolute time of the clock's origin, seconds, float64.
      steps: steps done.
      still: how many of the last ones moved the origin by nothing.
      done: whether every worker is past the grid.
      diverged: the first row whose models are not finite; R+1: none.
    """

    def __init__(
        self,
        grid: np.ndarray,
        computes: np.ndarray,
        evaluated: np.ndarray | None = None,
        copies: int = 1,
        spans: int = MOST_SPANS,
    ):
        self.grid, self.computes = np.asarray(grid, np.float64), np.asarray(computes, bool)
        self.evaluated = self.computes if evaluated is None else np.asarray(evaluated, bool)
        self.copies, self.spans, self.spans_kept = copies, spans, 0
        rows, nodes = len(self.grid), len(self.computes)
        self.origin, self.steps, self.done, self.diverged = 0.0, 0, False, rows
        self.still = 0
        self.at = np.zeros(nodes)  # when each node's parameters were last written
        self.sums = np.zeros((len(SUMS), rows + 1))
        self.per_worker = np.zeros((rows + 1, nodes), np.int32)  # iterations that ended, by row
        self.heard = np.zeros((rows + 1, nodes), np.int64)  # by how many each was heard, by row
        self.by_worker = np.zeros((len(BY_WORKER), nodes))
        self.filled = np.zeros(rows, np.int32)  # workers read for each row
        self.spectrum = Spectrum(nodes)
        self._history: dict[str, list[np.ndarray]] = {name: [np.zeros(0, kind)] for name, kind in HISTORY.items()}

    def history(self, name: str) -> np.ndarray:
        """What was remembered, as `HISTORY` says."""
        pieces = self._history[name]
        found = [piece for piece in pieces if piece.size] or pieces[:1]
        pieces[:] = [np.concatenate(found)] if len(found) > 1 else found
        return pieces[0]

    def timeline(self) -> dict[str, np.ndarray]:
        """What a run keeps of a simulation: the history, each worker's sums until the budget, and by row the messages
        sent since the row before and the spectral gap (NaN: none)."""
        kept = {name: self.history(name) for name in HISTORY}
        left_out = [] if kept["workers"].size else ["workers", "age"]  # every step is of everybody
        left_out += [] if self.spans else list(SPANS)
        kept = {name: value for name, value in kept.items() if name not in left_out}
        own = dict(zip(BY_WORKER, self.by_worker[:, self.computes], strict=True))
        heard = self.heard[:-1, self.computes].sum(axis=0)
        gap, windows, sent = (self.sums[SUMS.index(name), :-1] for name in ("gap", "windows", "messages"))
        by_row = {"row_messages": sent.copy(), "row_spectral_gap": gap / np.where(windows > 0, windows, np.nan)}
        return {**kept, **{f"worker_{name}": value for name, value in own.items()}, "worker_heard": heard, **by_row}

    duration = property(lambda self: self.history("duration"))
    active = property(lambda self: self.history("active"))
    workers = property(lambda self: self.history("workers"))
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
        """Rows `first` to `after - 1` are held in each step by each node."""
        steps, who = np.nonzero(after > first)
        found: dict[tuple[int, int], np.ndarray] = {}
        for step, worker in zip(steps, who, strict=True):
            for row in range(first[step, worker], after[step, worker]):
                found.setdefault((int(step), row), np.zeros(first.shape[1], bool))[worker] = True
        nodes, filled = int(self.evaluated.sum()), self.filled.copy()
        readings: list[Reading] = []
        last: list[tuple[int, int]] = []
        for (at, row), mask in sorted(found.items(), key=lambda item: item[0]):
            mask = np.broadcast_to(mask, self.computes.shape) if len(mask) == 1 else mask
            if row == len(self.grid) - 1:
                last += [(at, int(node)) for node in np.flatnonzero(mask & (self.computes | self.evaluated))]
            mask = mask & self.evaluated
            count = int(mask.sum())
            if count == 0:
                continue
            alike = readings and readings[-1].step == at and count == nodes and readings[-1].before == 0
            if alike and readings[-1].workers.sum() == nodes:
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
        if not steps:
            return np.flatnonzero(self.filled == self.evaluated.sum()).tolist()
        ticks = jax.tree.map(lambda leaf: leaf[:steps], ticks)
        ends, window = outlook.ends[:steps], outlook.window[:steps]
        entry, ended, length = self._iterations(ticks, ends, steps)
        inside = np.broadcast_to(window, entry.shape)
        values = {
            "active": ticks.active & ended,
            "missed": ticks.missed * ended,
            "ended": ended,
            "length": length,
            "gradients": ticks.counted,
            "computing": ticks.computing,
            "wasted": ticks.wasted + (self.copies - 1) * (ticks.computing + ticks.wasted),
            "waiting": ticks.waiting,
            "communicating": ticks.communicating,
            "age": ticks.age,
        }
        for name, each in values.items():
            self._sum(name, inside, each)
        latest = window.max(axis=1, initial=0)
        self._sum("messages", latest, ticks.messages)
        self._of_workers(entry, inside, {**values, "counted": ticks.counted}, ended)
        self._heard(ticks, latest)
        if seen is not None:
            self._losses(seen, ticks, inside, steps)
        if ticks.mixing is not None:
            for step, gap in self.spectrum.add(ticks.mixing, latest):
                self._sum("gap", latest[step : step + 1], np.array([gap]))
                self._sum("windows", latest[step : step + 1], np.ones(1))
        self._remember(ticks, ended, length, inside)
        for reading in outlook.readings:
            if reading.step < steps:
                self.filled[list(reading.rows)] += int(reading.workers.sum())
        for duration in ticks.duration.astype(np.float64):
            before, self.origin = self.origin, self.origin + float(duration)
            self.still = 0 if self.origin > before else self.still + 1
        self.at = np.broadcast_to(ends[-1], self.at.shape).copy()
        self.steps += steps
        self.done = bool((self.at > self.grid[-1]).all())
        return np.flatnonzero(self.filled == self.evaluated.sum()).tolist()

    def _iterations(self, ticks: Any, ends: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each step's entries `[C, E]`: the node, whether an iteration of its own ends, and the seconds it took."""
        nodes = len(self.computes)
        entry = np.broadcast_to(np.arange(nodes), (steps, nodes)) if ticks.nodes is None else ticks.nodes
        ended = np.append(self.computes, False)[entry]
        if ticks.iterated is not None:
            ended = ended & ticks.iterated
        if ticks.nodes is not None or (ticks.iterated is not None and ticks.ended is None):  # as the ledger says
            length = ticks.computing + ticks.wasted + ticks.waiting + ticks.communicating
            return entry, ended, np.where(ended, length.astype(np.float64), 0.0)
        ends = np.broadcast_to(ends, (steps, nodes))
        begun = np.concatenate([self.at[None], ends[:-1]])
        return entry, ended, np.where(ended & np.isfinite(ends), ends - begun, 0.0)

    def _sum(self, name: str, window: np.ndarray, values: np.ndarray) -> None:
        into = self.sums[SUMS.index(name)]
        into += np.bincount(window.ravel(), np.asarray(values, np.float64).ravel(), len(into))

    def _of_workers(
        self, entry: np.ndarray, window: np.ndarray, values: Mapping[str, np.ndarray], ended: np.ndarray
    ) -> None:
        """What is added up for each worker; an entry of nobody counts nowhere."""
        nodes, rows = len(self.computes), len(self.grid)
        place, real = (window * (nodes + 1) + entry).ravel(), slice(nodes)
        counts = np.bincount(place, ended.ravel(), (rows + 1) * (nodes + 1))
        self.per_worker += counts.reshape(rows + 1, nodes + 1)[:, real].astype(np.int32)
        counts_for = np.where(window < rows, entry, nodes).ravel()
        for into, name in zip(self.by_worker, BY_WORKER, strict=True):
            into += np.bincount(counts_for, np.asarray(values[name], np.float64).ravel(), nodes + 1)[real]

    def _heard(self, ticks: Any, latest: np.ndarray) -> None:
        nodes, rows = len(self.computes), len(self.grid)
        if ticks.nodes is None:
            for window in np.unique(latest):
                self.heard[window] += ticks.heard[latest == window].sum(axis=0)
            return
        place = latest[:, None] * (nodes + 1) + np.minimum(ticks.heard, nodes)
        counts = np.bincount(place.ravel(), minlength=(rows + 1) * (nodes + 1))
        self.heard += counts.reshape(rows + 1, nodes + 1)[:, :nodes]

    def _losses(self, seen: Any, ticks: Any, window: np.ndarray, steps: int) -> None:
        losses = seen.loss[:steps].astype(np.float64)
        if seen.workers is None:
            counted = ticks.counted
        else:  # events end for everybody at once, and their own entries come first
            count = losses.shape[1]
            window, counted = window[:, :count], seen.fresh[:steps]
        loss = np.where(counted, losses, 0)
        self._sum("loss", window, loss)
        self._sum("losses", window, counted)
        bad = counted & ~np.isfinite(loss)
        if bad.any():
            self.diverged = min(self.diverged, int(window[bad].min()))

    def _remember(self, ticks: Any, ended: np.ndarray, length: np.ndarray, window: np.ndarray) -> None:
        inside = window < len(self.grid)
        missed = ticks.missed.sum(axis=1) / np.float32(len(self.computes))
        own = length[inside & ended]
        if ticks.ended is None and ticks.iterated is None:  # one length for everybody
            own = ticks.duration[inside[:, 0]]
        pieces = {"duration": ticks.duration, "backup_workers": missed, "length": own, "active": ticks.active}
        if ticks.nodes is not None:
            pieces |= {"active": ticks.counted, "workers": ticks.nodes, "age": ticks.age}
        if self.spans_kept < self.spans:
            pieces |= spans_of(ticks, inside, self.steps, self.spans - self.spans_kept)
            self.spans_kept += len(pieces["span_worker"])
        for name, new in pieces.items():
            self._history[name].append(np.asarray(new, HISTORY[name]))

    def row(self, number: int) -> dict[str, Any]:
        """What the clock and the losses say about one row."""
        here = dict(zip(SUMS, self.sums[:, number], strict=True))
        so_far = dict(zip(SUMS, self.sums[:, : number + 1].sum(axis=1), strict=True))
        iterations = self.per_worker[: number + 1, self.computes].sum(axis=0)
        said = clock_row(number, float(self.grid[number]), iterations, here, so_far)
        heard = self.heard[: number + 1, self.computes].sum(axis=0)
        return {
            **said,
            "train_loss": mean(here["loss"], here["losses"]),
            "heard_least": mean(float(heard.min()), float(heard.mean())),
            "spectral_gap": mean(here["gap"], here["windows"]),
        }

    def messages(self, number: int) -> float:
        """How many have been sent by a row's time."""
        return float(self.sums[SUMS.index("messages"), : number + 1].sum())

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a checkpoint must keep."""
        kept = {name: getattr(self, name) for name in ("at", "sums", "per_worker", "filled", "heard", "by_worker")}
        small = [self.origin, self.steps, self.done, self.diverged, self.spectrum.steps, self.spectrum.row]
        return {
            "small": np.array(small, np.float64),
            **kept,
            "product": self.spectrum.product,
            **{name: self.history(name) for name in self._history},
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Puts the account where `state` was."""
        for name, value in state.items():
            if name in self._history:
                self._history[name] = [np.array(value)]
            elif name == "product":
                self.spectrum.product = np.array(value)
            elif name != "small":
                setattr(self, name, np.array(value))
        origin, steps, done, diverged, window, row = state["small"]
        self.origin, self.steps, self.done, self.diverged = float(origin), int(steps), bool(done), int(diverged)
        self.spectrum.steps, self.spectrum.row = int(window), int(row)
        self.spans_kept = len(self.history("span_worker"))
