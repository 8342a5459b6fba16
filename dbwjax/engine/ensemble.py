"""Many simulations in one program: graphs, seeds and settings that change no shape are one `vmap`.

What all simulations have in common (the data, as a rule) is kept once; the rest is stacked along a leading axis `B`. A
batched simulation has the delays, batches and plans of the same simulation alone, to the last bit.

Several devices share a batch along a mesh axis `sims`: simulations never speak to one another, so nothing is sent. A
device that holds a single one runs it as `simulate.run` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.simulate import SimState, World
from dbwjax.types import ClockState, Learner, ModelState, Policy, StepRecord

AXIS = "sims"


class Batch(NamedTuple):
    """Trees of one structure, stacked: leaves that differ have a leading axis `B`, the others are there once."""

    tree: PyTree
    axes: PyTree  # 0 or None for every leaf of `tree`, as `jax.vmap` takes them


class ClockRecord(NamedTuple):
    """What a step leaves when the clock runs alone; stacked `[B, T]`."""

    duration: Float[Array, ""]  # seconds
    active: Int[Array, ""]  # workers that took part
    gradients: Int[Array, ""]  # updates that counted
    backup_workers: Float[Array, ""]  # mean over workers of the neighbours not heard


def stack(trees: Sequence[PyTree]) -> Batch:
    """Stacks trees whose leaves agree in shape and type.

    Raises:
      ValueError: trees of different structures or shapes.
    """
    kinds: list[Any] = [jax.tree.structure(tree) for tree in trees]
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in trees]
    if any(kind != kinds[0] for kind in kinds) or any(shape != shapes[0] for shape in shapes):
        raise ValueError("simulations of different shapes cannot be one batch; run them one after another")
    columns = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    stacked = [_stacked(column) for column in columns]
    tree = jax.tree.unflatten(kinds[0], [leaf for leaf, _ in stacked])
    return Batch(tree, jax.tree.unflatten(kinds[0], [axis for _, axis in stacked]))


def stack_all(trees: Sequence[PyTree]) -> PyTree:
    """As `stack`, but every leaf has the leading axis `B`, also where all agree."""
    batch = stack(trees)
    leaves, kind = jax.tree.flatten(batch.tree)
    axes = _axes(kind, batch)
    wide = [
        jnp.broadcast_to(leaf, (len(trees), *np.shape(leaf))) if axis is None else leaf
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    return jax.tree.unflatten(kind, wide)


def take(batch: Batch, which: np.ndarray) -> Batch:
    """Some of a batch's simulations."""
    leaves, kind = jax.tree.flatten(batch.tree)
    axes = _axes(kind, batch)
    picked = [leaf if axis is None else leaf[which] for leaf, axis in zip(leaves, axes, strict=True)]
    return Batch(jax.tree.unflatten(kind, picked), batch.axes)


def alone(batch: Batch, which: int) -> PyTree:
    """One of a batch's simulations, without the leading axis."""
    leaves, kind = jax.tree.flatten(batch.tree)
    axes = _axes(kind, batch)
    return jax.tree.unflatten(
        kind, [leaf if axis is None else leaf[which] for leaf, axis in zip(leaves, axes, strict=True)]
    )


def mesh_of(devices: Sequence[Any]) -> Mesh | None:
    """A mesh of one axis, `sims`; `None` for a single device."""
    return None if len(devices) == 1 else Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def spread(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch cut along its simulations among the devices of `mesh`; what they have in common is put on each.

    `B` must be a multiple of the number of devices.
    """
    return _placed(spread_common(batch, mesh), mesh, P(AXIS), of=0)


def spread_common(batch: Batch, mesh: Mesh | None) -> Batch:
    """Puts what a batch's simulations have in common on every device of `mesh`, once for all blocks taken from it."""
    return _placed(batch, mesh, P(), of=None)


class Axes:
    """A tree of axes that can be a static argument: equal where the axes are."""

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, kind = jax.tree.flatten(tree, is_leaf=lambda axis: axis is None)
        self._key = (kind, tuple(leaves))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Axes) and self._key == other._key


def shared(function: Callable, axes: tuple, mesh: Mesh | None) -> Callable:
    """A function of batches, run by every device of `mesh` on its own simulations; for programs to be compiled.

    Args:
      function: its arguments and results are batches.
      axes: of every argument, as `jax.vmap` takes them.
      mesh: the devices that share the batch; `None`: one.
    """
    if mesh is None:
        return function
    specs = jax.tree.map(_spec, axes, is_leaf=lambda axis: axis is None)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)


def init(
    policy: Policy, learner: Learner, worlds: Batch, policy_states: PyTree, params: PyTree, mesh: Mesh | None = None
) -> SimState:
    """Simulations at virtual time 0.

    Args:
      policy: must not read training.
      learner: the workers' learner. Its `init` gives every simulation the same local states; what differs (a learning
        rate) is put into them afterwards.
      worlds: B worlds.
      policy_states: from `policy.init` of each graph, leaves `[B, ...]`.
      params: one worker's parameters in each simulation, leaves `[B, ...]`.
      mesh: the devices that share the batch; `None`: one.
    """
    clocks = start(worlds, policy_states, mesh)
    return SimState(clocks, _models(policy, learner, params, clocks.started.shape[1], mesh), None)


def start(worlds: Batch, policy_states: PyTree, mesh: Mesh | None = None) -> ClockState:
    """B clocks at virtual time 0."""
    lean = _lean(worlds)
    return _start(lean.tree, Axes(lean.axes), policy_states, mesh)


def run_batch(
    policy: Policy, learner: Learner, worlds: Batch, states: SimState, steps: int, mesh: Mesh | None = None
) -> tuple[SimState, StepRecord]:
    """`simulate.run` for B simulations at once; `states` is donated. Records are stacked `[B, T, ...]`."""
    return _run(policy, learner, worlds.tree, Axes(worlds.axes), states, steps, mesh)


def clock_batch(
    policy: Policy, worlds: Batch, states: ClockState, steps: int, mesh: Mesh | None = None
) -> tuple[ClockState, ClockRecord]:
    """Runs B clocks alone: no parameters, no data, and no plans kept.

    Args:
      policy: must not read training.
      worlds: B worlds; their batches are not touched and may be `None`.
      states: from `start`, or from an earlier call.
      steps: T.
      mesh: the devices that share the batch; `None`: one.

    Returns:
      The clocks after them, and their records, `[B, T]`.

    Raises:
      ValueError: the policy reads training.
    """
    if policy.reads_training:
        raise ValueError("this policy reads training and has no clock of its own; train instead")
    lean = _lean(worlds)
    return _clocks(policy, lean.tree, Axes(lean.axes), states, steps, mesh)


@partial(jax.jit, static_argnames=("axes", "mesh"))
def _start(worlds: World, axes: Axes, states: PyTree, mesh: Mesh | None) -> ClockState:
    def one(world: World, state: PyTree) -> ClockState:
        return clock.start(state, world.graph, world.delays, world.key)

    return shared(jax.vmap(one, in_axes=(axes.tree, 0)), (axes.tree, 0), mesh)(worlds, states)


@partial(jax.jit, static_argnames=("policy", "learner", "nodes", "mesh"))
def _models(policy: Policy, learner: Learner, params: PyTree, nodes: int, mesh: Mesh | None) -> ModelState:
    every = jax.vmap(lambda one: learning.init(learner, policy, one, nodes))
    return shared(every, (0,), mesh)(params)


@partial(jax.jit, static_argnames=("policy", "learner", "axes", "steps", "mesh"), donate_argnames=("states",))
def _run(
    policy: Policy, learner: Learner, worlds: World, axes: Axes, states: SimState, steps: int, mesh: Mesh | None
) -> tuple[SimState, StepRecord]:
    def one(world: World, state: SimState) -> tuple[SimState, StepRecord]:
        return simulate.scan(policy, learner, world, state, steps)

    def some(worlds: World, states: SimState) -> tuple[SimState, StepRecord]:
        if states.clock.step.shape[0] > 1:
            return jax.vmap(one, in_axes=(axes.tree, 0))(worlds, states)
        single = alone(Batch(worlds, axes.tree), 0), jax.tree.map(lambda leaf: leaf[0], states)
        return jax.tree.map(lambda leaf: leaf[None], one(*single))

    return shared(some, (axes.tree, 0), mesh)(worlds, states)


@partial(jax.jit, static_argnames=("policy", "axes", "steps", "mesh"))
def _clocks(
    policy: Policy, worlds: World, axes: Axes, states: ClockState, steps: int, mesh: Mesh | None
) -> tuple[ClockState, ClockRecord]:
    def tick(world: World, state: ClockState) -> tuple[ClockState, ClockRecord]:
        plan, state = clock.tick(policy, world.graph, world.delays, world.key, state)
        active = plan.fresh.sum() if plan.active is None else plan.active.sum()
        missed = simulate.missed(world.graph, plan.rows, simulate.received(plan, reads_weights=False))
        return state, ClockRecord(plan.duration, active, plan.fresh.sum(), missed)

    def some(worlds: World, states: ClockState) -> tuple[ClockState, ClockRecord]:
        def step(states: ClockState, _: None) -> tuple[ClockState, ClockRecord]:
            return jax.vmap(tick, in_axes=(axes.tree, 0))(worlds, states)

        states, records = jax.lax.scan(step, states, None, length=steps)
        return states, jax.tree.map(lambda leaf: leaf.T, records)

    return shared(some, (axes.tree, 0), mesh)(worlds, states)


def _placed(batch: Batch, mesh: Mesh | None, spec: P, of: int | None) -> Batch:
    """The leaves of one axis, `of`, where `spec` says."""
    if mesh is None:
        return batch
    leaves, kind = jax.tree.flatten(batch.tree)
    placed = [
        jax.device_put(leaf, NamedSharding(mesh, spec)) if axis == of else leaf
        for leaf, axis in zip(leaves, _axes(kind, batch), strict=True)
    ]
    return Batch(jax.tree.unflatten(kind, placed), batch.axes)


def _spec(axis: int | None) -> P:
    return P() if axis is None else P(AXIS)


def _lean(worlds: Batch) -> Batch:
    """Worlds without their data, which clocks do not touch."""
    return Batch(worlds.tree._replace(batches=None), worlds.axes._replace(batches=None))


def _axes(kind: Any, batch: Batch) -> list[int | None]:
    """The axis of every leaf."""
    return kind.flatten_up_to(batch.axes)


def _stacked(column: tuple) -> tuple[Any, int | None]:
    """One leaf of all trees, and its axis."""
    first = column[0]
    if all(leaf is first for leaf in column):
        return first, None
    keys = isinstance(first, jax.Array) and jnp.issubdtype(first.dtype, jax.dtypes.prng_key)
    host = [np.asarray(jax.random.key_data(leaf) if keys else leaf) for leaf in column]
    if all(np.array_equal(leaf, host[0]) for leaf in host[1:]):
        return first, None
    stacked = jnp.asarray(np.stack(host))
    return (jax.random.wrap_key_data(stacked, impl=jax.random.key_impl(first)) if keys else stacked), 0
