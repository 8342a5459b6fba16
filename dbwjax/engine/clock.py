"""The clock half: who finishes when, and what the policy makes of it. It has no parameters in it.

    tick : (key, clock state) -> (plan, clock state)

All times are relative to the origin of the coming step, in the default float type; the host adds up durations in
float64. (An absolute float32 clock loses the order of events after a few hundred thousand of them.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine.randomness import Stream, stream
from dbwjax.network import times
from dbwjax.types import ClockState, DelayModel, Graph, Key, Plan, Policy


def init(policy: Policy, graph: Graph, delays: DelayModel, key: Key) -> ClockState:
    """The clock at time 0, when every computing node starts its computation 0.

    Args:
      policy: who waits for whom; its `init` runs here, on the host, and checks its settings against the graph.
      graph: who hears whom.
      delays: seconds per computation.
      key: the simulation's key.

    Raises:
      ValueError: settings of the policy that this graph does not allow.
    """
    return _start(policy.init(graph), graph, delays, key)


def start(policy_state: PyTree, graph: Graph, delays: DelayModel, key: Key) -> ClockState:
    """The traceable half of `init`: everybody draws the delay of computation 0."""
    nodes = graph.neighbours.shape[0]
    started = jnp.zeros(nodes, jnp.int32)
    remaining = jnp.where(graph.computes, _draw(graph, delays, key, jnp.arange(nodes), started), jnp.inf)
    begun = jnp.zeros(nodes, remaining.dtype)
    return ClockState(remaining, started, jnp.zeros((), jnp.int32), policy_state, begun, jnp.zeros(nodes, bool))


_start = jax.jit(start)


def tick(
    policy: Policy, graph: Graph, delays: DelayModel, key: Key, state: ClockState, feedback: Any = None
) -> tuple[Plan, ClockState]:
    """One step of time: the policy decides, and those whom it restarts draw their next computation's delay.

    A node that is not restarted keeps its computation; if it had finished, its `remaining` falls to zero and below,
    and the policy is the one to remember that it waits.

    Args:
      policy, graph, delays, key: as for `init`.
      state: the clock before the step.
      feedback: the learner's last `StepInfo`, for a policy that reads training.

    Returns:
      The plan, and the clock after the step. Where a node is busy with a computation whose delay is no time (see
      `network.times`), the duration is NaN.
    """
    decision = jax.random.fold_in(stream(key, Stream.POLICY), state.step)
    plan, policy_state = policy.decide(decision, graph, state.policy, state.remaining, feedback)
    plan = plan._replace(duration=jnp.asarray(plan.duration, state.remaining.dtype))  # it may be a Python number
    if not times.is_sure(delays):
        plan = plan._replace(duration=jnp.where(jnp.isnan(state.remaining).any(), jnp.nan, plan.duration))
    remaining, started = _advance(graph, delays, key, plan, state)
    begun, counted = _begun(plan, state)
    return plan, ClockState(remaining, started, state.step + 1, policy_state, begun, counted)


def restarted(plan: Plan, started: Array) -> Array:
    """`started [N]` after the plan's restarts: the index of the computation each node is busy with."""
    if plan.restart is None:
        return started + 1
    if plan.restart.dtype == bool:
        return started + plan.restart
    return started.at[plan.restart].add(1, mode="drop")


def restarts(plan: Plan, nodes: int) -> Array:
    """`[N]` who starts its next computation in this step."""
    if plan.restart is None:
        return jnp.ones(nodes, bool)
    if plan.restart.dtype == bool:
        return plan.restart
    return jnp.zeros(nodes, bool).at[plan.restart].set(True, mode="drop")


def fresh_nodes(plan: Plan, nodes: int) -> Array:
    """`[N]` whose update counts."""
    if plan.workers is None:
        return plan.fresh
    return jnp.zeros(nodes, bool).at[plan.workers].max(plan.fresh, mode="drop")


def _begun(plan: Plan, state: ClockState) -> tuple[Array, Array]:
    """When each node's computation began, after the step's origin that comes, and whether its update has counted."""
    nodes = state.started.shape[0]
    now = 0.0 if plan.ready is None else plan.ready - plan.duration
    if plan.restart is None:
        return jnp.zeros_like(state.begun) + now, jnp.zeros_like(state.counted)
    again = restarts(plan, nodes)
    counted = jnp.where(again, False, state.counted | fresh_nodes(plan, nodes))
    return jnp.where(again, now, state.begun - plan.duration), counted


def _advance(graph: Graph, delays: DelayModel, key: Key, plan: Plan, state: ClockState) -> tuple[Array, Array]:
    started = restarted(plan, state.started)
    nodes = jnp.arange(started.shape[0])
    if plan.restart is None or plan.restart.dtype == bool:
        # Without `ready` the wait is zero exactly: a global barrier leaves each delay as drawn, to the last bit.
        wait = 0.0 if plan.ready is None else plan.ready - plan.duration
        # Added, not selected: a CPU draws three times as fast where no lane is masked.
        idle = jnp.where(graph.computes, 0.0, jnp.inf)
        fresh = idle + (wait + _draw(graph, delays, key, nodes, started))
        if plan.restart is None:
            return fresh, started
        return jnp.where(plan.restart, fresh, state.remaining - plan.duration), started
    # A few nodes restart: draw for them alone. Padding (node N) is clipped when read and dropped when written.
    who = plan.restart
    wait = 0.0 if plan.ready is None else plan.ready.at[who].get(mode="clip") - plan.duration
    fresh = wait + _draw(graph, delays, key, who, started.at[who].get(mode="clip"))
    fresh = jnp.where(graph.computes.at[who].get(mode="clip"), fresh, jnp.inf)
    return (state.remaining - plan.duration).at[who].set(fresh, mode="drop"), started


def _draw(graph: Graph, delays: DelayModel, key: Key, nodes: Array, started: Array) -> Array:
    """Seconds of some computations. What is no time is NaN; of a node that never computes it does not matter."""
    drawn = jax.vmap(delays, in_axes=(None, 0, 0))(stream(key, Stream.DELAYS), nodes, started)
    seconds = drawn.astype(jnp.result_type(float))
    if times.is_sure(delays):
        return seconds
    return jnp.where(graph.computes.at[nodes].get(mode="clip"), times.checked(delays, seconds), 0.0)
