"""Many simulations in one program: graphs, seeds and settings that change no shape are one `vmap`.

What all simulations have in common (the data, as a rule) is kept once; the rest is stacked along a leading axis `B`. A
batched simulation has the delays, batches and plans of the same simulation alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.simulate import SimState, World, heard
from dbwjax.types import ClockState, Learner, Policy, StepRecord


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


def init(policy: Policy, learner: Learner, worlds: Batch, policy_states: PyTree, params: PyTree) -> SimState:
    """Simulations at virtual time 0.

    Args:
      policy: must not read training.
      learner: the workers' learner. Its `init` gives every simulation the same local states; what differs (a learning
        rate) is put into them afterwards.
      worlds: B worlds.
      policy_states: from `policy.init` of each graph, leaves `[B, ...]`.
      params: one worker's parameters in each simulation, leaves `[B, ...]`.
    """
    clocks = start(worlds, policy_states)
    nodes = clocks.started.shape[1]
    models = jax.jit(jax.vmap(lambda params: learning.init(learner, policy, params, nodes)))(params)
    return SimState(clocks, models, None)


def start(worlds: Batch, policy_states: PyTree) -> ClockState:
    """B clocks at virtual time 0."""

    def one(world: World, state: PyTree) -> ClockState:
        return clock.start(state, world.graph, world.delays, world.key)

    lean = worlds.tree._replace(batches=None), worlds.axes._replace(batches=None)
    return jax.jit(jax.vmap(one, in_axes=(lean[1], 0)))(lean[0], policy_states)


def run_batch(
    policy: Policy, learner: Learner, worlds: Batch, states: SimState, steps: int
) -> tuple[SimState, StepRecord]:
    """`simulate.run` for B simulations at once; `states` is donated. Records are stacked `[B, T, ...]`."""
    return _run(policy, learner, worlds.tree, _Axes(worlds.axes), states, steps)


def clock_batch(policy: Policy, worlds: Batch, states: ClockState, steps: int) -> tuple[ClockState, ClockRecord]:
    """Runs B clocks alone: no parameters, no data, and no plans kept.

    Args:
      policy: must not read training.
      worlds: B worlds; their batches are not touched and may be `None`.
      states: from `start`, or from an earlier call.
      steps: T.

    Returns:
      The clocks after them, and their records, `[B, T]`.

    Raises:
      ValueError: the policy reads training.
    """
    if policy.reads_training:
        raise ValueError("this policy reads training and has no clock of its own; train instead")
    lean = worlds.tree._replace(batches=None), worlds.axes._replace(batches=None)
    return _clocks(policy, lean[0], _Axes(lean[1]), states, steps)


@partial(jax.jit, static_argnames=("policy", "learner", "axes", "steps"), donate_argnames=("states",))
def _run(
    policy: Policy, learner: Learner, worlds: World, axes: Any, states: SimState, steps: int
) -> tuple[SimState, StepRecord]:
    def one(world: World, state: SimState) -> tuple[SimState, StepRecord]:
        return simulate.scan(policy, learner, world, state, steps)

    return jax.vmap(one, in_axes=(axes.tree, 0))(worlds, states)


@partial(jax.jit, static_argnames=("policy", "axes", "steps"))
def _clocks(policy: Policy, worlds: World, axes: Any, states: ClockState, steps: int) -> tuple[ClockState, ClockRecord]:
    def tick(world: World, state: ClockState) -> tuple[ClockState, ClockRecord]:
        plan, state = clock.tick(policy, world.graph, world.delays, world.key, state)
        rows = jnp.arange(state.started.shape[0]) if plan.rows is None else plan.rows
        written = rows < state.started.shape[0]
        degree = world.graph.links.sum(axis=1)
        degree = degree if plan.rows is None else degree.at[rows].get(mode="clip")
        # Who is heard is read off the sources alone, so that no weight need be computed.
        others = heard(plan, rows) if plan.sources is None else (plan.sources != rows[:, None]).sum(axis=1)
        missed = jnp.where(written, degree - others, 0).sum() / jnp.maximum(written.sum(), 1)
        active = plan.fresh.sum() if plan.active is None else plan.active.sum()
        return state, ClockRecord(plan.duration, active, plan.fresh.sum(), missed)

    def step(states: ClockState, _: None) -> tuple[ClockState, ClockRecord]:
        return jax.vmap(tick, in_axes=(axes.tree, 0))(worlds, states)

    states, records = jax.lax.scan(step, states, None, length=steps)
    return states, jax.tree.map(lambda leaf: leaf.T, records)


class _Axes:
    """A tree of axes that can be a static argument: equal where the axes are."""

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, kind = jax.tree.flatten(tree, is_leaf=lambda axis: axis is None)
        self._key = (kind, tuple(leaves))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Axes) and self._key == other._key


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
