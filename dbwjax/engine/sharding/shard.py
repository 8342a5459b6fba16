"""Many devices: the stack cut along its workers, and the same simulation on every piece.

The mesh has one axis, `workers`. Each device holds `height` rows of parameters, optimiser states and starting points,
and runs the whole clock: plans are small, and computing them everywhere is cheaper than sending them. Inside
`shard_map` the gradients are local; mixing moves the rows that links carry across (`layout.py`), and nothing else but
each step's losses and a flag. Delays, batches, plans and padded mixing are bitwise those of one device, because the
same slots are added in the same order. Plans that name their workers (an event of one worker, a server's) are
computed on every device.

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
from jaxtyping import Array, Bool, PyTree

from dbwjax.engine import mixing, readings, simulate
from dbwjax.engine.readings import Due, Held
from dbwjax.engine.sharding.schedule import Exchange, Layout, lay_out
from dbwjax.engine.simulate import Seen, SimState, World
from dbwjax.types import Graph, Learner, ModelState, Plan, Policy, StepRecord

AXIS = "workers"


class Part:
    """One device's rows: a `placement.Placement` that lives inside `shard_map`.

    Args:
      exchange: the schedule.
      layout: its arrays as `shard_map` cuts them: this device's rows of `order` and `real`, its line of `lookup`.
    """

    def __init__(self, exchange: Exchange, layout: Layout):
        self.exchange, self.order, self.real, self.position = exchange, layout.order, layout.real, layout.position
        self.lookup, self.send = layout.lookup[0], [rows[0] for rows in layout.send]

    def numbers(self, nodes: int) -> Array:  # noqa: D102
        return self.order

    def mine(self, vector: Array) -> Array:  # noqa: D102
        return vector[self.order]

    def mine_once(self, vector: Array) -> Array:  # noqa: D102
        return jnp.where(self.real, vector[self.order], 0)

    def of_nodes(self, vector: Array | None, nodes: Array | None) -> Any:  # noqa: D102
        return None if vector is None else vector[self.order if nodes is None else nodes]

    def local(self, nodes: Array) -> Array:  # noqa: D102
        height = self.exchange.height
        place = self.position.at[nodes].get(mode="fill", fill_value=-1) - jax.lax.axis_index(AXIS) * height
        return jnp.where((place >= 0) & (place < height), place, height)

    def take(self, tree: PyTree, nodes: Array | None) -> PyTree:  # noqa: D102
        if nodes is None:
            return tree
        if nodes.size >= self.exchange.nodes:
            rows = self.position.at[nodes].get(mode="clip")
            return jax.tree.map(lambda leaf: _gathered(leaf)[rows], tree)
        place = self.local(nodes)
        here = place < self.exchange.height

        def rows_of(leaf: Array) -> Array:
            own = leaf.at[place].get(mode="clip")
            # One device has the row and the others add zeros, so the sum is the row.
            return jax.lax.psum(jnp.where(mixing.expand_to(here, own), own, jnp.zeros_like(own)), AXIS)

        return jax.tree.map(rows_of, tree)

    def put(self, tree: PyTree, nodes: Array | None, rows: PyTree) -> PyTree:  # noqa: D102
        return mixing.write_rows(None if nodes is None else self.local(nodes), tree, rows)

    def everyone(self, tree: PyTree) -> PyTree:  # noqa: D102
        return jax.tree.map(lambda leaf: _gathered(leaf)[self.position], tree)

    def apply(self, plan: Plan, params: PyTree, updates: PyTree) -> PyTree:  # noqa: D102
        written = self._mixed(plan, updates if plan.push is None else params)
        if plan.push is not None:
            written = jax.tree.map(jnp.add, written, self._pushed(plan, plan.push, updates))
        rounded = jax.tree.map(lambda sums, leaf: sums.astype(leaf.dtype), written, params)
        return self.put(params, plan.rows, rounded)

    def total(self, tree: PyTree) -> PyTree:  # noqa: D102
        return jax.lax.psum(tree, AXIS)

    def checked(self, plan: Plan, record: StepRecord) -> StepRecord:  # noqa: D102
        if plan.rows is not None or plan.sources is None or self.exchange.gather:
            return record
        astray = self._places(plan.sources) < 0
        lost = (astray & (self.mine(plan.mix) != 0) & self.real[:, None]).any()
        anywhere = jax.lax.pmax(lost.astype(jnp.int32), AXIS)
        return record._replace(unreachable=anywhere > 0)

    def _mixed(self, plan: Plan, tree: PyTree) -> PyTree:
        """`mix @ tree`, not rounded, for the rows that are written: those here (`rows=None`), or all of them on every
        device."""
        if plan.rows is None and plan.sources is not None:
            return self._neighbours(self.mine(plan.mix), plan.sources, tree)
        if plan.sources is None:
            weights = self._by_row(plan.mix if plan.rows is not None else self.mine(plan.mix))
            return jax.tree.map(lambda leaf: mixing.weighted(weights, None, _gathered(leaf)), tree)
        read = self.take(tree, plan.sources.reshape(-1))
        places = jnp.arange(plan.sources.size).reshape(plan.sources.shape)
        return jax.tree.map(lambda leaf: mixing.weighted(plan.mix, places, leaf), read)

    def _pushed(self, plan: Plan, push: Array, updates: PyTree) -> PyTree:
        push = push if plan.rows is not None else self.mine(push)
        if push.ndim == 1:  # each row takes its own update
            updates = self.take(updates, plan.rows)
        elif plan.workers is None:
            push, updates = self._by_row(push), jax.tree.map(_gathered, updates)
        return jax.tree.map(lambda leaf: mixing.pushed(push, leaf), updates)

    def _neighbours(self, weights: Array, sources: Array, tree: PyTree) -> PyTree:
        """Padded mixing of the rows here; a row is read from this device or from what has just been received."""
        # Padding rows keep to themselves: what they stand for may lie on a device that sends them nothing.
        own = jnp.arange(self.exchange.height)[:, None]
        weights = jnp.where(self.real[:, None], weights, jnp.arange(weights.shape[1]) == 0)
        if self.exchange.gather:
            places = jnp.where(self.real[:, None], self.position[sources[self.order]], 0)
            return jax.tree.map(lambda leaf: mixing.weighted(weights, places, _gathered(leaf)), tree)
        places = jnp.maximum(jnp.where(self.real[:, None], self._places(sources), own), 0)
        leaves, kind = jax.tree.flatten(tree)
        received = self._received(leaves)
        return jax.tree.unflatten(
            kind, [self._two_sources(weights, places, *pair) for pair in zip(leaves, received, strict=True)]
        )

    def _two_sources(self, weights: Array, places: Array, here: Array, there: Array | None) -> Array:
        if there is None:
            return mixing.weighted(weights, places, here)
        height = self.exchange.height

        def rows(slot: int | Array) -> Array:
            place = places[:, slot]
            near = here.at[jnp.minimum(place, height - 1)].get(mode="promise_in_bounds")
            far = there.at[jnp.maximum(place - height, 0)].get(mode="promise_in_bounds")
            return jnp.where(mixing.expand_to(place < height, near), near, far)

        return mixing.add_slots(weights.astype(mixing.accumulator_dtype(here)), rows)

    def _received(self, leaves: Sequence[Array]) -> list[Array | None]:
        """For each leaf the rows that other devices send, round after round; leaves of one type travel together."""
        if not self.send:
            return [None] * len(leaves)
        result: list[Array | None] = [None] * len(leaves)
        for dtype in {leaf.dtype for leaf in leaves}:
            which = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
            rounds = []
            for one, rows in zip(self.exchange.rounds, self.send, strict=True):
                flat = [leaves[i][rows].reshape(one.rows, -1) for i in which]
                rounds.append(jax.lax.ppermute(jnp.concatenate(flat, axis=1), AXIS, one.pairs))
            arrived, start = jnp.concatenate(rounds), 0
            for i in which:
                width = leaves[i][0].size
                result[i] = arrived[:, start : start + width].reshape(-1, *leaves[i].shape[1:])
                start += width
        return result

    def _places(self, sources: Array) -> Array:
        return self.lookup[sources[self.order]]

    def _by_row(self, weights: Array) -> Array:
        """`[R, N]` weights of nodes as `[R, L]` weights of rows; padding weighs nothing."""
        everywhere = jax.lax.all_gather(self.order, AXIS, tiled=True)
        real = jax.lax.all_gather(self.real, AXIS, tiled=True)
        return jnp.where(real[None, :], weights[:, everywhere], 0)


def _gathered(leaf: Array) -> Array:
    return jax.lax.all_gather(leaf, AXIS, tiled=True)


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

    def counts(self, graph: Graph) -> Bool[Array, " L"]:
        """Which rows are workers that compute."""
        return self._global(np.asarray(graph.computes)[self.order] & self.real, P(AXIS))

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

    def by_row(self, state: ModelState) -> ModelState:
        """A model whose mass is by row, as its stacks are."""
        return state if state.mass is None else state._replace(mass=state.mass[self.order])

    def to_read(self, rows: int) -> NamedSharding:
        """How to read stacks of so many rows that were laid out for other devices: in pieces if they divide."""
        return NamedSharding(self.mesh, P() if rows % self.exchange.devices else P(AXIS))

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
    changed = {name: jax.tree.map(change, getattr(model, name)) for name in ("params", "local", "origin")}
    return model._replace(**changed)


def first_rows(order: np.ndarray, nodes: int) -> np.ndarray:
    """`[N]` the row of each worker from `order [L]`; of a worker that padding repeats, the first."""
    rows = np.empty(nodes, np.int64)
    rows[order[::-1]] = np.arange(len(order))[::-1]
    return rows
