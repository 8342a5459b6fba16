"""Many devices: the stack cut along its workers, and the same simulation on every piece.

The mesh has one axis, `workers`. Each device holds `height` rows of parameters, optimiser states and starting points,
and runs the whole clock: plans are small, and computing them everywhere is cheaper than sending them. What a device
does with its rows is in `part`.

Processes (`jax.distributed`) make no difference here: a mesh over the devices of all of them runs this same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from dbwjax.engine import readings, simulate
from dbwjax.engine.readings import Due, Held
from dbwjax.engine.sharding.part import AXIS, Part
from dbwjax.engine.sharding.schedule import Exchange, Layout, lay_out
from dbwjax.engine.simulate import Seen, SimState, World
from dbwjax.types import Graph, Learner, ModelState, Policy, StepRecord


class Devices:
    """The devices of a run, and where each worker of a graph is among them.

    Args:
      graph: who hears whom.
      devices: in the order of the mesh; those of one process together.

    Attributes:
      mesh: axis `workers`.
      exchange: the schedule, with the number of rows that it moves.
      order: `[L]` worker of each row of a stack; padding repeats the last worker.
    """

    def __init__(self, graph: Graph, devices: Sequence[Any]):
        self.mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.exchange, layout = lay_out(graph, len(devices))
        self.order, self.real = layout.order, layout.real
        self._layout = jax.tree.map(lambda leaf, spec: self._global(leaf, spec), layout, _lines(layout))

    def replicate(self, tree: PyTree) -> PyTree:
        """The same arrays on every device; on several processes each passes the same values."""
        return jax.tree.map(lambda leaf: self._global(leaf, P()), tree)

    def init(self, policy: Policy, learner: Learner, world: World, params: PyTree) -> SimState:
        """A simulation at virtual time 0, made in pieces; arguments and errors as for `simulate.init`."""
        small = simulate.start_clock(policy, world)
        small, params = self.replicate(small), self.replicate(params)
        shape = jax.eval_shape(partial(self._stacks, policy, learner), params)
        cut = jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), _model_specs(shape))
        stacks = jax.jit(partial(self._stacks, policy, learner), out_shardings=cut)(params)
        feedback = simulate.no_feedback(policy, learner, world, stacks)
        return SimState(small, stacks, None if feedback is None else self.replicate(feedback))

    def run(
        self, policy: Policy, learner: Learner, world: World, state: SimState, steps: int
    ) -> tuple[SimState, StepRecord]:
        """`simulate.run` on these devices; `state` is donated, `world` comes from `replicate`."""
        return _run(self.mesh, self.exchange, self._layout, policy, learner, world, state, steps)

    def advance(
        self, policy: Policy, learner: Learner, world: World, state: SimState, held: Held, due: Due, steps: Any
    ) -> tuple[SimState, Held, Seen]:
        """`simulate.advance` on these devices; `state`, `held` are donated; `due`, `steps` may lie on the host."""
        due, steps = self.replicate((due, np.asarray(steps, np.int32)))
        return _advance(self.mesh, self.exchange, self._layout, policy, learner, world, state, held, due, steps)

    def no_readings(self, params: PyTree, slots: int, own: bool) -> Held:
        """`readings.empty`, its single workers cut as the stack is; `params` are one worker's shapes."""
        rows = len(self.order)
        stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, rows, *leaf.shape), leaf.dtype), params)
        made = partial(readings.empty, params, slots, stack if own else None)
        specs = jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), _held_specs(jax.eval_shape(made)))
        return jax.jit(made, out_shardings=specs)()

    def lower(self, policy: Policy, learner: Learner, world: World, state: SimState, steps: int) -> Any:
        """The program of `run`, not yet compiled, for those who want to read it."""
        return _run.lower(self.mesh, self.exchange, self._layout, policy, learner, world, state, steps)

    def rows_of_workers(self) -> np.ndarray:
        """`[N]` the row of each worker."""
        return first_rows(self.order, self.exchange.nodes)

    def to_read(self, rows: int, axis: int = 0) -> NamedSharding:
        """How to read stacks whose `axis` has so many rows, laid out for other devices: in pieces if they divide."""
        return NamedSharding(self.mesh, P() if rows % self.exchange.devices else P(*[None] * axis, AXIS))

    def adopt(self, model: ModelState, first: np.ndarray) -> ModelState:
        """A model laid out otherwise, laid out for these devices; `first [N]` is its row of each worker."""
        cut = jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), _model_specs(model))
        pick = jax.jit(lambda model, rows: stacks_of(model, lambda leaf: leaf[rows]), out_shardings=cut)
        return pick(model, self.replicate(first[self.order]))

    def _stacks(self, policy: Policy, learner: Learner, params: PyTree) -> ModelState:
        from dbwjax.engine import learner as learning

        made = learning.init(learner, policy, params, len(self.order))
        nodes = self.exchange.nodes
        return made._replace(
            started=jnp.zeros(nodes, jnp.int32), mass=None if made.mass is None else jnp.ones(nodes, made.mass.dtype)
        )

    def _global(self, leaf: Any, spec: Any) -> Array:
        """An array over the whole mesh from one that every process holds whole."""
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = self._global(jax.random.key_data(leaf), spec)
            wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(leaf))
            return jax.jit(wrap, out_shardings=NamedSharding(self.mesh, spec))(data)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, NamedSharding(self.mesh, spec), lambda index: host[index])


@partial(jax.jit, static_argnames=("mesh", "exchange", "policy", "learner", "steps"), donate_argnames=("state",))
def _run(
    mesh: Mesh,
    exchange: Exchange,
    layout: Layout,
    policy: Policy,
    learner: Learner,
    world: World,
    state: SimState,
    steps: int,
) -> tuple[SimState, StepRecord]:
    def piece(layout: Layout, world: World, state: SimState) -> tuple[SimState, StepRecord]:
        return simulate.scan(policy, learner, world, state, steps, Part(exchange, layout))

    lines, states = _lines(layout), _state_specs(state)
    # The replication check is off because a loop's carry that starts from a constant fails it.
    return jax.shard_map(piece, mesh=mesh, in_specs=(lines, P(), states), out_specs=(states, P()), check_vma=False)(
        layout, world, state
    )


@partial(jax.jit, static_argnames=("mesh", "exchange", "policy", "learner"), donate_argnames=("state", "held"))
def _advance(
    mesh: Mesh,
    exchange: Exchange,
    layout: Layout,
    policy: Policy,
    learner: Learner,
    world: World,
    state: SimState,
    held: Held,
    due: Due,
    steps: Array,
) -> tuple[SimState, Held, Seen]:
    def piece(
        layout: Layout, world: World, state: SimState, held: Held, due: Due, steps: Array
    ) -> tuple[SimState, Held, Seen]:
        return simulate.advance(policy, learner, world, state, held, due, steps, Part(exchange, layout))

    lines, states, kept = _lines(layout), _state_specs(state), _held_specs(held)
    specs = (lines, P(), states, kept, P(), P())
    cut = jax.shard_map(piece, mesh=mesh, in_specs=specs, out_specs=(states, kept, P()), check_vma=False)
    return cut(layout, world, state, held, due, steps)


def _lines(layout: Layout) -> Layout:
    """How a layout is cut."""
    return Layout(P(AXIS), P(AXIS), P(), P(AXIS), tuple(P(AXIS) for _ in layout.send))


def _state_specs(state: SimState) -> SimState:
    whole = jax.tree.map(lambda _: P(), (state.clock, state.feedback))
    return SimState(whole[0], _model_specs(state.model), whole[1])


def _held_specs(held: Held) -> Held:
    """How readings are cut: single workers as the stack is, the rest not at all."""
    whole = jax.tree.map(lambda _: P(), held)
    return whole._replace(own=jax.tree.map(lambda _: P(None, AXIS), held.own))


def _model_specs(model: ModelState) -> ModelState:
    """How a model is cut: stacks by row, vectors over nodes not at all."""
    whole = jax.tree.map(lambda _: P(), model)
    cut = jax.tree.map(lambda _: P(AXIS), model)
    return whole._replace(params=cut.params, local=cut.local, origin=cut.origin)


def stacks_of(model: ModelState, change: Any) -> ModelState:
    """A model with `change` applied to every leaf of its stacks."""
    return stacks_from(model, model, change)


def stacks_from(model: ModelState, base: ModelState, change: Any) -> ModelState:
    """`base` with the stacks of `model`, every leaf of them changed by `change`."""
    changed = {name: jax.tree.map(change, getattr(model, name)) for name in ("params", "local", "origin")}
    return base._replace(**changed)


def first_rows(order: np.ndarray, nodes: int) -> np.ndarray:
    """`[N]` the row of each worker from `order [L]`; of a worker that padding repeats, the first."""
    rows = np.empty(nodes, np.int64)
    rows[order[::-1]] = np.arange(len(order))[::-1]
    return rows
