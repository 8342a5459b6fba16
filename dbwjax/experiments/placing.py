"""Where a block of simulations runs: side by side in batches, or one whose workers are cut among devices.

Both do the same four things for `Training`: make the states, run the clock ahead, advance and read, evaluate what was
read. Simulations are counted on their device; a device holds `sims` of them and `slots` rows of each.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dbwjax.engine import batch, ensemble, ledger, simulate, wide
from dbwjax.engine.ahead import Way
from dbwjax.engine.batch import Batch
from dbwjax.engine.evaluation import evaluate_slots
from dbwjax.engine.programs import canonical
from dbwjax.engine.readings import Due, Held
from dbwjax.engine.sharding.shard import Devices, first_rows, stacks_from, stacks_of
from dbwjax.engine.simulate import SimState, World
from dbwjax.experiments.networks import bytes_sent
from dbwjax.learners.schedules import with_rates
from dbwjax.types import ClockState, DelayModel, Learner, Policy


class Placing(Protocol):
    """What `Training` asks."""

    policy: Policy
    delays: DelayModel  # of the first simulation, or of all
    devices: int  # that hold simulations of their own
    sims: int  # on each of them

    def init(self) -> SimState:
        """The simulations at virtual time 0, leaves `[B, ...]` (or without B where there is one, cut)."""

    def start(self) -> ClockState:
        """The clocks at virtual time 0."""

    def no_readings(self, slots: int, own: bool) -> Held:
        """Room for `slots` rows of every simulation, and for single workers if `own`."""

    def look_ahead(self, clock: ClockState, steps: int, feedback: Any = None, spectrum: bool = False) -> Any:
        """The next `Tick`s on the host, leaves `[B, steps, ...]`; with the mixing where `spectrum` is wanted."""

    def lost(self, state: SimState, sim: int, steps: int) -> ledger.Lost | None:
        """`ledger.lost` of one of the simulations."""

    def one(self) -> tuple[World, ClockState]:
        """One simulation's world and clock at time 0, or their shapes."""

    def advance(
        self, state: SimState, held: Held, due: Due, steps: np.ndarray, way: Way | None = None
    ) -> tuple[SimState, Held, Any]:
        """Runs `steps [devices]`; what the learner said comes on the host, leaves `[B, C, ...]`."""

    def message_bytes(self) -> float:
        """Bytes of one message of a worker."""

    def evaluate(self, held: Held, sims: np.ndarray, slots: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Figures of the models in some slots, `[devices, E]`."""

    def own(self, held: Held) -> Any:
        """Single workers' parameters, leaves `[B, N, ...]`, worker i in row i."""

    def with_readings(self, held: Held, saved: dict[str, Any], slots: int) -> Held:
        """Empty readings with what a checkpoint kept of them: slots `[B, U, ...]`, and single workers or none."""

    @property
    def order(self) -> list[int] | None:
        """The worker in each row of the stacks, where they are cut among devices; `None`: worker i in row i."""

    def like(self, state: SimState, order: list[int] | None, sims: int) -> SimState:
        """What a checkpoint of `sims` simulations holds whose stacks have their rows in `order`, and where to read it
        to."""

    def reshard(self, state: SimState, order: list[int] | None, which: np.ndarray, sims: int) -> SimState:
        """A state read as `like` says: the simulations `which [B]` of it, with their rows where they are now."""


class SideBySide:
    """B simulations in batches, on one device or shared by several (`sims`).

    Args:
      policy: who waits for whom.
      learner: what a worker does with a batch.
      worlds: B worlds.
      evaluate: B evaluations.
      policy_states: `policy.init` of each graph, leaves `[B, ...]`.
      params: one worker's initial parameters in each, leaves `[B, ...]`.
      mesh: the devices that share them; `None`: one.
      rates: `[B]` learning rates to put into the optimisers' states; `None`: they are there.
    """

    def __init__(
        self,
        policy: Policy,
        learner: Learner,
        worlds: Batch,
        evaluate: Batch,
        policy_states: Any,
        params: Any,
        mesh: Mesh | None = None,
        rates: np.ndarray | None = None,
    ):
        self.policy, self.learner = canonical((policy, learner))
        self.mesh, self.rates = mesh, rates
        self.worlds, self.evaluations = batch.spread(worlds, mesh), batch.spread(evaluate, mesh)
        self.policy_states, self.params, self.delays = policy_states, params, worlds.tree.delays
        self.devices = 1 if mesh is None else mesh.size
        self.count = jax.tree.leaves(params)[0].shape[0]
        self.sims = self.count // self.devices

    def init(self) -> SimState:  # noqa: D102
        made = ensemble.init(self.policy, self.learner, self.worlds, self.policy_states, self.params, self.mesh)
        if self.rates is None or self.policy.whole is not None:  # which keeps no optimiser
            return made
        local = with_rates(made.model.local, self.rates)
        return made._replace(model=made.model._replace(local=local))

    def start(self) -> ClockState:  # noqa: D102
        return ensemble.start(self.policy, self.worlds, self.policy_states, self.mesh)

    def no_readings(self, slots: int, own: bool) -> Held:  # noqa: D102
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.params)
        nodes = self.worlds.tree.graph.neighbours.shape[-2]
        stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.count, nodes, *leaf.shape), leaf.dtype), one)
        return ensemble.no_readings(one, self.count * slots, stack if own else None, self.mesh)

    def look_ahead(  # noqa: D102
        self, clock: ClockState, steps: int, feedback: Any = None, spectrum: bool = False
    ) -> Any:
        _, found = ensemble.look_ahead(self.policy, self.worlds, clock, steps, self.mesh, feedback, spectrum)
        return jax.device_get(found)

    def lost(self, state: SimState, sim: int, steps: int) -> ledger.Lost | None:  # noqa: D102
        clock, feedback = batch.rows_of((state.clock, state.feedback), sim)
        return ledger.lost(self.policy, batch.alone(self.worlds, sim), clock, steps, feedback)

    def one(self) -> tuple[World, ClockState]:  # noqa: D102
        return jax.eval_shape(lambda: (batch.alone(self.worlds, 0), batch.rows_of(self.start(), 0)))

    def advance(  # noqa: D102
        self, state: SimState, held: Held, due: Due, steps: np.ndarray, way: Way | None = None
    ) -> tuple[SimState, Held, Any]:
        if way is not None:
            return wide.advance(self.policy, self.learner, self.worlds, state, held, due, steps, way, self.mesh)
        trips = jnp.asarray(steps, jnp.int32)
        after, held, seen = ensemble.advance_batch(
            self.policy, self.learner, self.worlds, state, held, due, trips, self.mesh
        )
        # [devices, C, sims, ...] to [B, C, ...]
        seen = jax.tree.map(
            lambda leaf: np.moveaxis(leaf, 2, 1).reshape(-1, leaf.shape[1], *leaf.shape[3:]), jax.device_get(seen)
        )
        return after, held, seen

    def message_bytes(self) -> float:  # noqa: D102
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.params)
        return bytes_sent(self.policy, self.learner, one)

    def evaluate(  # noqa: D102
        self, held: Held, sims: np.ndarray, slots: np.ndarray, count: np.ndarray
    ) -> dict[str, np.ndarray]:
        return jax.device_get(evaluate_slots(self.evaluations, held.mean, (sims, slots, count), self.mesh))

    def own(self, held: Held) -> Any:  # noqa: D102
        return held.own

    def with_readings(self, held: Held, saved: dict[str, Any], slots: int) -> Held:  # noqa: D102
        filled = _with_slots(held, saved, slots)
        if held.own is None or "own" not in saved:
            return filled
        own = jax.tree.map(lambda leaf, kept: jax.device_put(kept, leaf.sharding), held.own, saved["own"])
        return filled._replace(own=own)

    order = None

    def like(self, state: SimState, order: list[int] | None, sims: int) -> SimState:  # noqa: D102
        if order is None and sims == self.count:
            return state
        lead = (sims,) if order is None else ()  # a simulation that is cut has no leading axis

        def one(leaf: jax.Array, rows: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            where = leaf.sharding if self.mesh is None else NamedSharding(self.mesh, P())
            return jax.ShapeDtypeStruct((*lead, *rows, *leaf.shape[1 + len(rows) :]), leaf.dtype, sharding=where)

        rows = () if order is None else (len(order),)
        every = jax.tree.map(lambda leaf: one(leaf, ()), state)
        return every._replace(model=stacks_from(state.model, every.model, lambda leaf: one(leaf, rows)))

    def reshard(  # noqa: D102
        self, state: SimState, order: list[int] | None, which: np.ndarray, sims: int
    ) -> SimState:
        if order is None and sims == self.count:
            return state
        if order is not None:
            first = first_rows(np.asarray(order), state.clock.started.shape[0])
            state = state._replace(model=stacks_of(state.model, lambda leaf: leaf[first]))
            state = jax.tree.map(lambda leaf: leaf[None], state)
        state = jax.tree.map(lambda leaf: leaf[which], state)
        if self.mesh is None:
            return state
        return jax.device_put(state, NamedSharding(self.mesh, P(batch.AXIS)))


class CutAmongDevices:
    """One simulation whose workers are cut among several devices.

    Args:
      policy, learner: as above.
      world, evaluate: on all of them (`Devices.replicate`).
      params: one worker's initial parameters.
      cut: the devices.
      rate: learning rate to put into the optimisers' states; `None`: it is there.
    """

    devices, sims = 1, 1

    def __init__(
        self,
        policy: Policy,
        learner: Learner,
        world: World,
        evaluate: Any,
        params: Any,
        cut: Devices,
        rate: float | None = None,
    ):
        self.policy, self.learner = canonical((policy, learner))
        self.world, self.params, self.cut, self.delays = world, params, cut, world.delays
        self.evaluation, self.rate = evaluate, rate

    def init(self) -> SimState:  # noqa: D102
        made = self.cut.init(self.policy, self.learner, self.world, self.params)
        if self.rate is None or self.policy.whole is not None:
            return made
        return made._replace(model=made.model._replace(local=with_rates(made.model.local, self.rate)))

    def start(self) -> ClockState:  # noqa: D102
        return self.cut.replicate(simulate.start_clock(self.policy, self.world))

    def no_readings(self, slots: int, own: bool) -> Held:  # noqa: D102
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.params)
        return self.cut.no_readings(one, slots, own)

    def look_ahead(  # noqa: D102
        self, clock: ClockState, steps: int, feedback: Any = None, spectrum: bool = False
    ) -> Any:
        lean = self.world._replace(batches=None)  # type: ignore[arg-type]
        _, ticks = _look_ahead(self.policy, lean, clock, steps, feedback, spectrum)
        return jax.tree.map(lambda leaf: leaf[None], jax.device_get(ticks))

    def lost(self, state: SimState, sim: int, steps: int) -> ledger.Lost | None:  # noqa: D102
        return ledger.lost(self.policy, self.world, state.clock, steps, state.feedback)

    def one(self) -> tuple[World, ClockState]:  # noqa: D102
        return self.world, self.start()

    def advance(  # noqa: D102
        self, state: SimState, held: Held, due: Due, steps: np.ndarray, way: Way | None = None
    ) -> tuple[SimState, Held, Any]:
        assert way is None
        due = jax.tree.map(lambda leaf: leaf[0], due)
        after, held, seen = self.cut.advance(self.policy, self.learner, self.world, state, held, due, steps[0])
        return after, held, jax.tree.map(lambda leaf: leaf[None], jax.device_get(seen))

    def message_bytes(self) -> float:  # noqa: D102
        return bytes_sent(self.policy, self.learner, self.params)

    def evaluate(  # noqa: D102
        self, held: Held, sims: np.ndarray, slots: np.ndarray, count: np.ndarray
    ) -> dict[str, np.ndarray]:
        whole = Batch(self.evaluation, jax.tree.map(lambda _: None, self.evaluation))
        numbers = self.cut.replicate((sims, slots, count))
        return jax.device_get(evaluate_slots(whole, held.mean, numbers, None))

    def own(self, held: Held) -> Any:  # noqa: D102
        rows = self.cut.rows_of_workers()
        return jax.tree.map(lambda leaf: leaf[:, rows], held.own)

    def with_readings(self, held: Held, saved: dict[str, Any], slots: int) -> Held:  # noqa: D102
        filled = _with_slots(held, saved, slots)
        if held.own is None or "own" not in saved:
            return filled
        rows = self.cut.order
        own = jax.tree.map(lambda leaf, kept: jax.device_put(kept[:, rows], leaf.sharding), held.own, saved["own"])
        return filled._replace(own=own)

    @property
    def order(self) -> list[int] | None:  # noqa: D102
        return self.cut.order.tolist()

    def like(self, state: SimState, order: list[int] | None, sims: int) -> SimState:  # noqa: D102
        if order == self.order:
            return state
        lead = 1 if order is None else 0  # simulations side by side have a leading axis
        rows = self.cut.exchange.nodes if order is None else len(order)

        def one(leaf: jax.Array, shape: tuple[int, ...], where: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((sims,) * lead + shape, leaf.dtype, sharding=where)

        everywhere = NamedSharding(self.cut.mesh, P())
        every = jax.tree.map(lambda leaf: one(leaf, leaf.shape, everywhere), state)
        stacks = stacks_from(
            state.model, every.model, lambda leaf: one(leaf, (rows, *leaf.shape[1:]), self.cut.to_read(rows, lead))
        )
        return every._replace(model=stacks)

    def reshard(  # noqa: D102
        self, state: SimState, order: list[int] | None, which: np.ndarray, sims: int
    ) -> SimState:
        if order == self.order:
            return state
        nodes = self.cut.exchange.nodes
        if order is None:
            state = jax.tree.map(lambda leaf: leaf[int(which[0])], state)
        first = first_rows(np.arange(nodes) if order is None else np.asarray(order), nodes)
        return state._replace(model=self.cut.adopt(state.model, first))


def _with_slots(held: Held, saved: dict[str, Any], slots: int) -> Held:
    def put(leaf: jax.Array, kept: np.ndarray) -> jax.Array:
        host = np.array(leaf)
        host.reshape(-1, slots, *leaf.shape[1:])[:, : kept.shape[1]] = kept
        return jax.device_put(host, leaf.sharding)

    return held._replace(mean=jax.tree.map(put, held.mean, saved["mean"]), spread=put(held.spread, saved["spread"]))


@partial(jax.jit, static_argnames=("policy", "steps", "spectrum"))
def _look_ahead(policy: Policy, world: World, clock: Any, steps: int, feedback: Any, spectrum: bool) -> Any:
    return ledger.look_ahead(policy, world, clock, steps, feedback, spectrum)
