"""Training one policy in a block of worlds, to a budget of virtual time: rows on a grid of times, no files.

`Training` lets the clock run a chunk ahead, dates it on the host, advances the learner with the readings that are due,
and evaluates the rows that are whole. `train_policy` is the whole thing in one call, for one world.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax.engine.readings import Due
from dbwjax.engine.simulate import SimState
from dbwjax.experiments.accounting import Account, Outlook, Reading
from dbwjax.experiments.extent import MOST_SPANS, require_end
from dbwjax.experiments.networks import Roles
from dbwjax.experiments.placing import Placing
from dbwjax.experiments.spectrum import MOST
from dbwjax.experiments.timing import NotATime, Standstill, patience, require_sound
from dbwjax.experiments.ways import steps_are_events, way_of
from dbwjax.network.delays import copies_of
from dbwjax.types import COLUMNS

CHUNK = 100
"""Steps in one call of the device, at most: between calls the host works, signals are obeyed and checkpoints kept."""

EVENTS = 32
"""Where a step is one worker's event, it counts as so many-th a step of everybody, or as 1/N of it."""

SINGLE_WORKERS = 64
"""Up to so many workers are evaluated one by one at the budget."""

SLOTS = 64 << 20
"""Bytes of mean models that wait to be evaluated in one simulation, unless a single step needs more."""


class Diverged(RuntimeError):
    """A loss that counted was not finite."""

    exit_code = 3

    def __init__(self, seconds: float):
        super().__init__(f"a loss is not finite at {seconds:.6g} s; use a smaller learning rate")


class Stalled(RuntimeError):
    """A time that is not a number, or an iteration of the baseline that never ends."""

    exit_code = 3

    def __init__(self, step: int, duration: float):
        super().__init__(
            f"the iteration at step {step} never ends (duration {duration}); check the delays and the policy, or give "
            "a budget with --seconds"
        )


class UnreachableRow(RuntimeError):
    """A plan reads a row that is not moved between these devices."""

    exit_code = 3

    def __init__(self, step: int):
        super().__init__(
            f"the policy reads a node that is no neighbour in the graph, at step {step}; several devices move "
            "neighbours' rows only: use --devices 1, or link the two nodes"
        )


def chunk_of(place: Placing, workers: int) -> int:
    """Steps in one call of the device, at most, of a policy where it runs."""
    return CHUNK * (min(workers, EVENTS) if steps_are_events(place) else 1)


def slots_of(model: int, rows: int) -> int:
    """How many rows of one simulation wait at once to be evaluated, to begin with; `model` are bytes of one model."""
    return min(rows, max(8, SLOTS // max(model, 1)))


class Slots(NamedTuple):
    """Which slots the open rows of one simulation lie in."""

    of_row: dict[int, int]
    free: list[int]


class Training:
    """A policy being trained in B worlds.

    Args:
      place: where the simulations run.
      grids: `[R+1]` seconds for each of them, from 0 to its budget.
      roles: who is who among the nodes.
      own: whether single workers' parameters are kept at the budget.
      evaluate_own: whether they are evaluated there.
      real: how many of the B are not repetitions that only fill a block.
      wide: whether events are put together in wide steps (`engine.wide`) where steps are events; `None`: on
        accelerators, if that gives wide ones.
      spans: how many computations of a world are remembered one by one.

    Attributes:
      state: the simulations on the device.
      accounts: their virtual times and sums, on the host.
      wall_time: seconds spent in `advance`.
      way: how events are put together; `None`: they are not.
    """

    def __init__(
        self,
        place: Placing,
        grids: Sequence[np.ndarray],
        roles: Roles,
        own: bool = False,
        evaluate_own: Any = None,
        real: int | None = None,
        wide: bool | None = None,
        spans: int = MOST_SPANS,
    ):
        self.place, self.own, self.evaluate_own = place, own, evaluate_own
        self.state: SimState = place.init()
        copies = copies_of(place.delays)
        self.accounts = [Account(grid, roles.computes, roles.evaluated, copies, spans) for grid in grids]
        # Of nodes that are no workers, the mixing says nothing about workers.
        self.spectrum = bool(roles.computes.all()) and 1 < len(roles.computes) <= MOST
        self.single = not roles.evaluated[roles.computes].any()  # a model of its own: no worker's is evaluated
        self.real = len(grids) if real is None else real
        bytes_of_one = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.model.params)) / len(grids)
        self.message = place.message_bytes()
        self.chunk = chunk_of(place, len(roles.computes))
        self.way = way_of(place, wide, self.chunk)
        self.slots = slots_of(int(bytes_of_one / len(roles.computes)), max(len(grid) for grid in grids))
        self.held = place.no_readings(self.slots, own)
        self.open = [Slots({}, list(range(self.slots))[::-1]) for _ in grids]
        self.room = (64, 64)  # readings and single workers of a chunk; grows as needed
        self.wall_time = 0.0

    @property
    def done(self) -> bool:
        """Whether every world is past its budget."""
        return all(account.done for account in self.accounts[: self.real])

    @property
    def seconds(self) -> float:
        """The least virtual time that a world has reached."""
        return min(float(min(account.origin, account.grid[-1])) for account in self.accounts[: self.real])

    def advance(self) -> list[tuple[int, dict[str, Any]]]:
        """Runs one chunk.

        Returns:
          The rows that are whole now, each with its simulation, in the columns of `metrics.jsonl` from `row` on.

        Raises:
          ValueError: in the first chunk, a budget that takes more steps than can be counted or kept.
          NotATime: a delay is negative, not a number, or beyond what float32 holds.
          Standstill: time does not pass.
          Stalled: another time is not a number.
          UnreachableRow: the plan does not fit several devices.
        """
        begin = time.perf_counter()
        ahead = 1 if self.state.feedback is not None else self.chunk
        ticks = self.place.look_ahead(self.state.clock, ahead, self.state.feedback, self.spectrum)
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], ticks) for i in range(len(self.accounts))]
        outlooks = [self._look(sim, tick) for sim, tick in enumerate(each)]
        if self.state.feedback is None and not any(account.steps for account in self.accounts):
            self._require_end(ticks)
        steps = self._steps(outlooks)
        due = self._due(outlooks, steps)
        self.state, self.held, seen = self.place.advance(self.state, self.held, due, steps, self.way)
        self._check(seen, steps, outlooks)
        whole = []
        for sim, (account, tick, outlook) in enumerate(zip(self.accounts, each, outlooks, strict=True)):
            said = jax.tree.map(lambda leaf, i=sim: leaf[i], seen)
            whole.append(account.add(tick, said, outlook, int(steps[sim // self.place.sims])))
            if account.still > patience(len(account.computes)):
                raise Standstill(account.still, account.origin)
        figures = self._evaluate(whole)
        self.wall_time += time.perf_counter() - begin
        return [(sim, self._row(sim, row, found)) for (sim, row), found in figures.items() if sim < self.real]

    def _require_end(self, ticks: Any) -> None:
        """Raises `ValueError` where the first steps say that the budget takes more than can be counted or kept."""
        budgets = np.array([account.grid[-1] for account in self.accounts])
        what, drifts = f"a budget of {budgets.max():g} s", ticks.ended is not None
        first = self.accounts[0]
        require_end(ticks.duration, budgets, len(first.computes), drifts, what, True, first.spans)

    def _look(self, sim: int, ticks: Any) -> Outlook:
        account = self.accounts[sim]
        try:
            require_sound(self.state.clock, account, ticks)
            return account.look(ticks)
        except FloatingPointError as error:
            step = int(error.args[0])
            lost = self.place.lost(self.state, sim, step)
            if lost is not None:
                raise NotATime(lost) from None
            raise Stalled(account.steps + step, float(ticks.duration[step])) from None

    def _steps(self, outlooks: list[Outlook]) -> np.ndarray:
        """`[devices]` steps of this chunk: until all are done, or no slot is free."""
        found = []
        for device in range(self.place.devices):
            here = range(device * self.place.sims, (device + 1) * self.place.sims)
            needed = max(outlooks[sim].needed for sim in here)
            found.append(min([needed, *(self._fits(sim, outlooks[sim], needed) for sim in here)]))
        return np.array(found, np.int32)

    def _fits(self, sim: int, outlook: Outlook, needed: int) -> int:
        """How many steps the free slots of a simulation allow; makes room where there is not enough for one."""
        free, known = len(self.open[sim].free), set(self.open[sim].of_row)
        for reading in outlook.readings:
            if reading.step >= needed:
                break
            if reading.rows[0] not in known:
                known.add(reading.rows[0])
                free -= 1
            if free < 0:
                if reading.step == 0:
                    self._grow()
                    return self._fits(sim, outlook, needed)
                return reading.step
        return needed

    def _grow(self) -> None:
        """Twice the slots."""
        old, sims = self.slots, self.place.sims
        self.slots = 2 * old
        bigger = self.place.no_readings(self.slots, False)

        def moved(new: jax.Array, was: jax.Array) -> jax.Array:
            shape = (-1, sims, old, *was.shape[1:])
            room = new.reshape(-1, sims, self.slots, *was.shape[1:])
            return room.at[:, :, :old].set(was.reshape(shape)).reshape(new.shape)

        self.held = self.held._replace(
            mean=jax.tree.map(moved, bigger.mean, self.held.mean), spread=moved(bigger.spread, self.held.spread)
        )
        for slots in self.open:
            slots.free[:0] = range(old, self.slots)[::-1]

    def _due(self, outlooks: list[Outlook], steps: np.ndarray) -> Due:
        """The readings of the steps that are done, as arrays of every device."""
        readings: list[list[tuple[int, Reading]]] = [[] for _ in range(self.place.devices)]
        singles: list[list[tuple[int, int, int]]] = [[] for _ in range(self.place.devices)]
        for sim, outlook in enumerate(outlooks):
            device, local = divmod(sim, self.place.sims)
            readings[device] += [(local, one) for one in outlook.readings if one.step < steps[device]]
            if self.own:
                singles[device] += [(step, local, who) for step, who in outlook.last if step < steps[device]]
        most = max(map(len, readings)), max(map(len, singles))
        while self.room[0] < most[0] or self.room[1] < most[1]:
            self.room = tuple(2 * have if have < want else have for have, want in zip(self.room, most, strict=True))  # type: ignore[assignment]
        parts = [
            self._due_of(device, sorted(one, key=lambda item: item[1].step), sorted(single))
            for device, (one, single) in enumerate(zip(readings, singles, strict=True))
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)

    def _due_of(self, device: int, readings: list[tuple[int, Reading]], singles: list[tuple[int, int, int]]) -> Due:
        count, nodes = self.room[0], len(self.accounts[0].computes)
        capacity = 1 if self.state.feedback is not None else self.chunk
        slot, weights = np.zeros(count, np.int32), np.zeros((count, nodes), np.float32)
        before, sims = np.zeros(count, np.float32), np.zeros(count, np.int32)
        for i, (local, reading) in enumerate(readings):
            slots = self.open[device * self.place.sims + local]
            if reading.rows[0] not in slots.of_row:
                slots.of_row.update(dict.fromkeys(reading.rows, slots.free.pop()))
            slot[i] = local * self.slots + slots.of_row[reading.rows[0]]
            weights[i], before[i], sims[i] = reading.workers, reading.before, local
        own = np.zeros((2, self.room[1]), np.int32)
        own[:, : len(singles)] = np.array([(sim, who) for _, sim, who in singles], np.int32).reshape(-1, 2).T
        at = np.arange(capacity + 1)
        first = np.searchsorted([reading.step for _, reading in readings], at).astype(np.int32)
        own_first = np.searchsorted([step for step, *_ in singles], at).astype(np.int32)
        arrays: Any = (first, sims, slot, weights, before, own_first, own[0], own[1])
        return Due(*arrays)

    def _check(self, seen: Any, steps: np.ndarray, outlooks: list[Outlook]) -> None:
        for sim in range(self.real):
            done = min(int(steps[sim // self.place.sims]), outlooks[sim].needed)
            lost = np.flatnonzero(seen.unreachable[sim][:done])
            if lost.size:
                raise UnreachableRow(self.accounts[sim].steps + int(lost[0]))

    def _evaluate(self, whole: list[list[int]]) -> dict[tuple[int, int], dict[str, float | None]]:
        """Figures of the rows that are whole and lie in slots, which are free then."""
        wanted: list[list[tuple[int, int, int]]] = [[] for _ in range(self.place.devices)]  # simulation, slot, row
        for sim, rows in enumerate(whole):
            device, slots = sim // self.place.sims, self.open[sim]
            wanted[device] += [(sim, slots.of_row[row], row) for row in rows if row in slots.of_row]
        distinct = [list(dict.fromkeys((sim, slot) for sim, slot, _ in one)) for one in wanted]
        if not any(distinct):
            return {}
        sims = np.zeros((self.place.devices, self.place.sims * self.slots), np.int32)
        slots_of = np.zeros_like(sims)
        for device, pairs in enumerate(distinct):
            for i, (sim, slot) in enumerate(pairs):
                local = sim % self.place.sims
                sims[device, i], slots_of[device, i] = local, local * self.slots + slot
        count = np.array([len(pairs) for pairs in distinct], np.int32)
        figures = self.place.evaluate(self.held, sims, slots_of, count)
        spread = np.asarray(jax.device_get(self.held.spread)).reshape(self.place.devices, -1)
        found = {}
        for device, one in enumerate(wanted):
            numbers = {pair: i for i, pair in enumerate(distinct[device])}
            for sim, slot, row in one:
                i = numbers[sim, slot]
                values = {name: float(value[device, i]) for name, value in figures.items()}
                models = self.accounts[sim].evaluated.sum()
                apart = None if self.single else float(np.sqrt(spread[device, slots_of[device, i]] / models))
                found[sim, row] = {**values, "consensus_distance": apart}
            for sim, slot in distinct[device]:
                self.open[sim].free.append(slot)
            for sim, _, row in one:
                del self.open[sim].of_row[row]
        return found

    def _row(self, sim: int, number: int, figures: dict[str, float | None]) -> dict[str, Any]:
        account = self.accounts[sim]
        if not np.isfinite(figures["test_loss"]):  # type: ignore[arg-type]
            account.diverged = min(account.diverged, number)
        diverged = number >= account.diverged
        values = {name: None if diverged else value for name, value in figures.items()}
        known = {
            **account.row(number),
            "wall_time": self.wall_time,
            "test_accuracy": None,
            "bytes_sent": account.messages(number) * self.message,
            **self._single_workers(sim, number, diverged),
            "diverged": diverged,
            **values,
        }
        return {name: known.pop(name) for name in COLUMNS if name in known} | known

    def _single_workers(self, sim: int, number: int, diverged: bool) -> dict[str, float | None]:
        """The spread of accuracy over single workers at the budget."""
        last = number == len(self.accounts[sim].grid) - 1
        names = ("worker_accuracy_min", "worker_accuracy_median")
        if not last or diverged or self.evaluate_own is None or self.single:
            return dict.fromkeys(names)
        found = self.evaluate_own(sim, jax.tree.map(lambda leaf: leaf[sim], self.place.own(self.held)))
        if found is None:
            return dict.fromkeys(names)
        found = found[self.accounts[sim].computes]
        return dict(zip(names, (float(np.min(found)), float(np.median(found))), strict=True))
