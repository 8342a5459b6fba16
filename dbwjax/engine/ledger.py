"""Where the seconds of a step went, and what else the clock alone says about it.

A worker computes from its restart to its finish, and waits from there to its next restart. A computation that is cut
short ends at that restart. It is *computing* if its update counted and *wasted* if it was thrown away. The three add up
to each worker's own time until its last restart.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine import clock, simulate
from dbwjax.engine.simulate import World
from dbwjax.types import ClockState, Graph, Plan, Policy, Tick


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
