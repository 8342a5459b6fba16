"""The clock, run ahead of the learner, and how the events that it leaves are best put together in wide steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from dbwjax.engine import clock
from dbwjax.engine.batch import Axes, Batch, alone, shared
from dbwjax.engine.composition import compositions
from dbwjax.engine.simulate import World
from dbwjax.engine.waves import Wide, Width, are_events, events_of, lean, waves, width_of
from dbwjax.types import ClockState, Plan, Policy

How = Literal["waves", "composition"]

WORTH = 4.0
"""Events of a wide step below which they are run one by one."""


UPDATES = {"waves": 128, "composition": 64}
"""Updates of a wide step, at most. What an event costs in a block, on the host and on the device, grows with its width:
with N = 1,024, blocks of 32, 64 and 128 updates take 3.8, 4.8 and 7.0 us an event to make."""


class Way(NamedTuple):
    """How the events of a policy are put together."""

    how: How
    width: Width
    slots: int = 1  # sources of a row of a block, at least: that all chunks are of one shape


def steps_are_events(policy: Policy, world: World, state: ClockState) -> bool:
    """Whether the steps of a policy are events that can be put together; nothing runs.

    Args:
      policy: who waits for whom.
      world, state: of one simulation; shapes are enough.
    """

    def decided(world: World, state: ClockState) -> Plan:
        return clock.tick(policy, world.graph, world.delays, world.key, state, events=world.events)[0]

    if policy.reads_training:
        return False
    return are_events(jax.eval_shape(decided, world._replace(batches=None), state))  # type: ignore[arg-type]


def chosen(
    policy: Policy, plans: Plan, computes: np.ndarray, how: How | None = None, forced: bool = False
) -> Way | None:
    """Which way of putting events together gives wide steps, from the plans of a policy's beginning.

    Args:
      policy: who waits for whom.
      plans: of one simulation, stacked `[T, ...]`, on the host.
      computes: `[N]` who is a worker.
      how: the way, where that is known.
      forced: whether they are put together also where neither way gives wide steps.

    Returns:
      Waves, whose numbers are those of the events one by one, where they are wide (`WORTH`); blocks where those are;
      otherwise `None`, or the wider ones if `forced`.
    """
    steps, nodes, ways = len(plans.duration), len(computes), []
    for way in ("waves", "composition") if how is None else (how,):
        width = width_of(int(np.sum(computes)), policy.idles, UPDATES[way])
        found = made(policy, Way(way, width), plans, steps, np.zeros(steps, bool), nodes)  # type: ignore[arg-type]
        slots = found.plans.mix.shape[2] if way == "composition" else 1
        ways.append((steps / len(found.events), Way(way, width, slots)))  # type: ignore[arg-type]
    if how is not None:
        return ways[0][1]
    wide = [way for events, way in ways if events >= WORTH]
    return wide[0] if wide else max(ways, key=lambda one: one[0])[1] if forced else None


def made(policy: Policy, way: Way, plans: Plan, steps: int, barrier: np.ndarray, nodes: int) -> Wide:
    """The wide steps of the first `steps` of stacked plans `[T, ...]`; `barrier [T]` as of `waves`. On the host."""
    events = events_of(plans, nodes, steps)
    if way.how == "waves":
        return waves(events, barrier, way.width)
    return compositions(events, barrier, way.width, policy.stale, way.slots)


def plans_of(
    policy: Policy, worlds: Batch, states: ClockState, steps: np.ndarray, capacity: int, mesh: Mesh | None = None
) -> tuple[ClockState, Plan]:
    """Runs B clocks alone.

    Args:
      policy: must not read training.
      worlds: B worlds; their batches are not touched.
      states: the clocks.
      steps: `[devices]` how many steps, at most `capacity`.
      capacity: T.
      mesh: the devices that share the batch; `None`: one.

    Returns:
      The clocks after `steps`, and on the host what changes numbers of the plans of `capacity` steps, `[B, T, ...]`.
    """
    free = worlds._replace(tree=worlds.tree._replace(batches=None), axes=worlds.axes._replace(batches=None))
    after, plans = _plans(policy, free.tree, Axes(free.axes), states, capacity, mesh)
    if (steps != capacity).any():  # which is so at the end, and where rows are many
        after = _later_clocks(policy, free.tree, Axes(free.axes), states, jnp.asarray(steps, jnp.int32), mesh)
    return after, jax.device_get(plans)


@partial(jax.jit, static_argnames=("policy", "axes", "capacity", "mesh"))
def _plans(
    policy: Policy, worlds: World, axes: Axes, states: ClockState, capacity: int, mesh: Mesh | None
) -> tuple[ClockState, Plan]:
    def of_one(world: World, state: ClockState) -> tuple[ClockState, Plan]:
        def tick(state: ClockState, _: None) -> tuple[ClockState, Plan]:
            plan, after = clock.tick(policy, world.graph, world.delays, world.key, state, events=world.events)
            return after, lean(plan)

        return jax.lax.scan(tick, state, None, length=capacity)

    return shared(_mapped(of_one, axes), (axes.tree, 0), mesh)(worlds, states)


@partial(jax.jit, static_argnames=("policy", "axes", "mesh"))
def _later_clocks(
    policy: Policy, worlds: World, axes: Axes, states: ClockState, steps: Array, mesh: Mesh | None
) -> ClockState:
    def of_device(worlds: World, states: ClockState, steps: Array) -> ClockState:
        def of_one(world: World, state: ClockState) -> ClockState:
            def tick(_: Array, state: ClockState) -> ClockState:
                return clock.tick(policy, world.graph, world.delays, world.key, state, events=world.events)[1]

            return jax.lax.fori_loop(0, steps[0], tick, state)

        return _mapped(of_one, axes)(worlds, states)

    return shared(of_device, (axes.tree, 0, 0), mesh)(worlds, states, steps)


def _mapped(of_one: Callable[..., Any], axes: Axes) -> Callable[..., Any]:
    """Of a device's simulations side by side; one alone is not mapped, which is quicker."""

    def of_device(worlds: World, states: ClockState) -> Any:
        if states.step.shape[0] > 1:
            return jax.vmap(of_one, in_axes=(axes.tree, 0))(worlds, states)
        single = alone(Batch(worlds, axes.tree), 0), jax.tree.map(lambda leaf: leaf[0], states)
        return jax.tree.map(lambda leaf: leaf[None], of_one(*single))

    return of_device
