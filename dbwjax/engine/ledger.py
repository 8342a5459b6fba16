"""Where the seconds of a step went, and what else the clock alone says about it.

A worker computes from its restart to its finish, and waits from there to its next restart. A computation that is cut
short ends at that restart. It is *computing* if its update counted and *wasted* if it was thrown away. The three add up
to each worker's own time until its last restart.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from dbwjax.engine import clock, simulate
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.types import ClockState, Graph, Plan, Policy, Tick


class Lost(NamedTuple):
    """A computation whose delay is no time."""

    worker: int
    computation: int  # of this worker, from 0
    seconds: float  # what was drawn for it


def tick_of(graph: Graph, plan: Plan, before: ClockState) -> Tick:
    """What is recorded of a step.

    Args:
      graph: who hears whom.
      plan: what the policy decided.
      before: the clock before the step.
    """
    nodes = graph.neighbours.shape[0]
    fresh = clock.fresh_nodes(plan, nodes)
    computing, wasted, waiting = seconds(graph, plan, before)
    others = simulate.received(plan)
    degree = graph.links.sum(axis=1)
    if plan.rows is None:
        missed, iterated = degree - others, None
    else:
        missed = (
            jnp.zeros(nodes, degree.dtype)
            .at[plan.rows]
            .set(degree.at[plan.rows].get(mode="clip") - others, mode="drop")
        )
        iterated = jnp.zeros(nodes, bool).at[plan.rows].set(True, mode="drop")
    return Tick(
        duration=plan.duration,
        ended=plan.ready if plan.rows is None else None,
        iterated=iterated,
        active=fresh if plan.active is None else plan.active,
        missed=missed.astype(jnp.int32),
        counted=fresh,
        computing=computing,
        wasted=wasted,
        waiting=waiting,
    )


def seconds(graph: Graph, plan: Plan, before: ClockState) -> tuple[Array, Array, Array]:
    """`[N]` seconds computing, wasted and waiting of the computations that end in a step (0 for the others)."""
    nodes = graph.neighbours.shape[0]
    ends = clock.restarts(plan, nodes) & graph.computes
    ready = plan.duration if plan.ready is None else plan.ready
    spent = jnp.minimum(before.remaining, ready) - before.begun
    counted = before.counted | clock.fresh_nodes(plan, nodes)
    computing = jnp.where(ends & counted, spent, 0)
    wasted = jnp.where(ends & ~counted, spent, 0)
    return computing, wasted, jnp.where(ends, jnp.maximum(ready - before.remaining, 0), 0)


def lost(policy: Policy, world: World, state: ClockState, steps: int, feedback: PyTree = None) -> Lost | None:
    """The first computation whose delay is no time (see `network.times`); on the host, one step after another.

    Args:
      policy, world, state, feedback: as for `look_ahead`.
      steps: how many to look through.

    Returns:
      The computation; `None`: there is none.
    """
    lean = world._replace(batches=None)  # type: ignore[arg-type]
    for _ in range(steps + 1):
        odd = np.isnan(np.asarray(state.remaining))
        if odd.any():
            worker = int(odd.argmax())
            started = int(np.asarray(state.started)[worker])
            key = stream(world.key, Stream.DELAYS)
            return Lost(worker, started, float(world.delays(key, jnp.asarray(worker), jnp.asarray(started))))
        _, state = _tick(policy, lean, state, feedback)
    return None


@partial(jax.jit, static_argnames=("policy",))
def _tick(policy: Policy, world: World, state: ClockState, feedback: PyTree) -> tuple[Plan, ClockState]:
    return clock.tick(policy, world.graph, world.delays, world.key, state, feedback)


def look_ahead(
    policy: Policy, world: World, state: ClockState, steps: int, feedback: PyTree = None
) -> tuple[ClockState, Tick]:
    """Runs the clock alone for `steps` steps, and says what it did; for programs to be compiled.

    Args:
      policy: one that reads training can look one step ahead only.
      world: its batches are not touched and may be `None`.
      state: the clock.
      steps: T.
      feedback: the learner's last `StepInfo`, for a policy that reads training.

    Returns:
      The clock after them, and the ticks, stacked `[T, ...]`.
    """
    if policy.reads_training and steps > 1:
        raise ValueError("a policy that reads training can look one step ahead only")

    def one(before: ClockState, _: None) -> tuple[ClockState, Tick]:
        plan, after = clock.tick(policy, world.graph, world.delays, world.key, before, feedback)
        return after, tick_of(world.graph, plan, before)

    return jax.lax.scan(one, state, None, length=steps)
