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

from dbwjax.engine import breaking
from dbwjax.engine.randomness import Stream, stream
from dbwjax.network import draws, times
from dbwjax.types import ClockState, DelayModel, Events, Graph, Key, Plan, Policy


def init(policy: Policy, graph: Graph, delays: DelayModel, key: Key, events: Events | None = None) -> ClockState:
    """The clock at time 0, when every computing node starts its computation 0.

    Args:
      policy: who waits for whom; its `init` runs here, on the host, and checks its settings against the graph.
      graph: who hears whom.
      delays: seconds per computation.
      key: the simulation's key.
      events: what breaks; `None`: nothing.

    Raises:
      ValueError: settings of the policy that this graph does not allow; a world that breaks, of a method that cannot
        live with one.
    """
    return _start(policy, policy.init(graph), graph, delays, key, events)


def start(
    policy: Policy, policy_state: PyTree, graph: Graph, delays: DelayModel, key: Key, events: Events | None = None
) -> ClockState:
    """The traceable half of `init`: everybody draws the delay of computation 0."""
    nodes = graph.neighbours.shape[0]
    started = jnp.zeros(nodes, jnp.int32)
    remaining = jnp.where(graph.computes, _draw(graph, delays, key, jnp.arange(nodes), started), jnp.inf)
    if policy.begin is not None:
        policy_state = policy.begin(stream(key, Stream.BEGINNING), graph, policy_state)
    begun, none = jnp.zeros(nodes, remaining.dtype), jnp.zeros((), jnp.int32)
    state = ClockState(
        remaining, started, none, policy_state, begun, jnp.zeros(nodes, bool), none, jnp.zeros(nodes, jnp.int32)
    )
    if events is None:
        return state
    breaking.require_fit(policy, graph, events)
    remaining, cut = breaking.done(breaking.fitted(events, nodes), begun, remaining)
    return state._replace(remaining=remaining, elapsed=jnp.zeros(2, begun.dtype), cut=cut)


_start = jax.jit(start, static_argnames=("policy",))


def tick(
    policy: Policy,
    graph: Graph,
    delays: DelayModel,
    key: Key,
    state: ClockState,
    feedback: Any = None,
    events: Events | None = None,
) -> tuple[Plan, ClockState]:
    """One step of time: the policy decides, and those whom it restarts draw their next computation's delay.

    A node that is not restarted keeps its computation; if it had finished, its `remaining` falls to zero and below,
    and the policy is the one to remember that it waits.

    Args:
      policy, graph, delays, key: as for `init`.
      state: the clock before the step.
      feedback: the learner's last `StepInfo`, for a policy that reads training.
      events: what breaks, as for `init`.

    Returns:
      The plan, and the clock after the step. Where a node is busy with a computation whose delay is no time (see
      `network.times`), the duration is NaN.
    """
    decision = decision_key(key, state.step)
    if events is None:
        plan, policy_state = policy.decide(decision, graph, state.policy, state.remaining, feedback)
        plan = plan._replace(duration=jnp.asarray(plan.duration, state.remaining.dtype))  # it may be a Python number
    else:
        keys = decision, stream(key, Stream.LOSSES)
        plan, policy_state = breaking.decide(policy, graph, events, keys, state, feedback)
    if not times.is_sure(delays):
        plan = plan._replace(duration=jnp.where(jnp.isnan(state.remaining).any(), jnp.nan, plan.duration))
    elapsed = None if events is None else breaking.later(state.elapsed, plan.duration)  # type: ignore[arg-type]
    to_come = None if events is None else breaking.relative(breaking.fitted(events, len(state.started)), elapsed)  # type: ignore[arg-type]
    remaining, started, cut = _advance(graph, delays, key, plan, state, to_come)
    begun, counted, updates, born = _begun(plan, state)
    after = ClockState(remaining, started, state.step + 1, policy_state, begun, counted, updates, born, elapsed, cut)
    return plan, after


def decision_key(key: Key, step: Array) -> Key:
    """The key of a policy's decision in a step: one hash, of a pass that a CPU fuses with what else it does."""
    base = stream(key, Stream.POLICY)
    if jax.random.key_data(base).shape != (2,):
        return jax.random.fold_in(base, step)
    bits = jnp.stack(draws.words(base, step, jnp.zeros((), jnp.int32)))
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(base))


FEW = 8
"""Up to so many numbered nodes are found by comparing every node with them: one pass that a CPU fuses with what else it
does to the vector, where a scatter is a call of its own."""


def is_numbered(plan: Plan) -> bool:
    """Whether the plan names those who restart by their numbers."""
    return plan.restart is not None and plan.restart.dtype != bool


def put(vector: Array, nodes: Array, values: Array) -> Array:
    """`vector [N]` with `values` (`[K]` or one for all) at `nodes [K]`; an entry equal to N is padding."""
    if nodes.shape[0] > FEW:
        return vector.at[nodes].set(values, mode="drop")
    each, places = jnp.broadcast_to(jnp.asarray(values, vector.dtype), nodes.shape), jnp.arange(vector.shape[0])
    for k in range(nodes.shape[0]):
        vector = jnp.where(places == nodes[k], each[k], vector)
    return vector


def restarted(plan: Plan, started: Array) -> Array:
    """`started [N]` after the plan's restarts: the index of the computation each node is busy with."""
    if plan.restart is None:
        return started + 1
    if plan.restart.dtype == bool:
        return started + plan.restart
    return started + restarts(plan, started.shape[0])


def restarts(plan: Plan, nodes: int) -> Array:
    """`[N]` who starts its next computation in this step."""
    if plan.restart is None:
        return jnp.ones(nodes, bool)
    if plan.restart.dtype == bool:
        return plan.restart
    return put(jnp.zeros(nodes, bool), plan.restart, jnp.asarray(True))


def fresh_nodes(plan: Plan, nodes: int) -> Array:
    """`[N]` whose update counts."""
    if plan.workers is None:
        return plan.fresh
    if plan.workers.shape[0] == 1:
        return (jnp.arange(nodes) == plan.workers[0]) & plan.fresh[0]
    return jnp.zeros(nodes, bool).at[plan.workers].max(plan.fresh, mode="drop")


def updates_of(plan: Plan) -> Array:
    """Whether the step is an update of the model: what staleness is counted in."""
    return plan.fresh.any() if plan.updates is None else plan.updates


def _begun(plan: Plan, state: ClockState) -> tuple[Array, Array, Array, Array]:
    """When each node's computation began, after the step's origin that comes; whether its update has counted; the
    updates so far, and as of each node's start."""
    nodes = state.started.shape[0]
    now = 0.0 if plan.ready is None else plan.ready - plan.duration
    updates = state.updates + updates_of(plan)
    if plan.restart is None:
        born = jnp.zeros_like(state.born) + updates
        return jnp.zeros_like(state.begun) + now, jnp.zeros_like(state.counted), updates, born
    again = restarts(plan, nodes)
    counted = jnp.where(again, False, state.counted | fresh_nodes(plan, nodes))
    born = jnp.where(again, updates, state.born)
    if is_numbered(plan):
        return put(state.begun - plan.duration, plan.restart, jnp.asarray(now)), counted, updates, born
    return jnp.where(again, now, state.begun - plan.duration), counted, updates, born


def _advance(
    graph: Graph, delays: DelayModel, key: Key, plan: Plan, state: ClockState, events: Events | None
) -> tuple[Array, Array, Array | None]:
    """When each node finishes, seconds after the step's origin that comes, the index of its computation, and what of it
    is cut; `events` are counted from that origin."""
    started = restarted(plan, state.started)
    nodes = jnp.arange(started.shape[0])
    # Without `ready` the wait is zero exactly: a global barrier leaves each delay as drawn, to the last bit.
    wait = 0.0 if plan.ready is None else plan.ready - plan.duration
    if plan.restart is None or plan.restart.dtype == bool:
        # Added, not selected: a CPU draws three times as fast where no lane is masked.
        idle = jnp.where(graph.computes, 0.0, jnp.inf)
        drawn = _draw(graph, delays, key, nodes, started)
        fresh, cut = idle + (wait + drawn), None
        if events is not None:
            finish, cut = breaking.done(events, jnp.broadcast_to(jnp.asarray(wait, drawn.dtype), nodes.shape), drawn)
            fresh = idle + finish
        if plan.restart is None:
            return fresh, started, cut
        cut = None if cut is None or state.cut is None else jnp.where(plan.restart, cut, state.cut)
        return jnp.where(plan.restart, fresh, _left(plan, state)), started, cut
    # A few nodes restart: draw for them alone. Padding (node N) is clipped when read and dropped when written.
    who = plan.restart
    drawn = _draw(graph, delays, key, who, state.started.at[who].get(mode="clip") + 1)
    fresh, cut = wait + drawn, state.cut
    if events is not None and cut is not None:
        begin = jnp.broadcast_to(jnp.asarray(wait, drawn.dtype), who.shape)
        fresh, new = breaking.done(breaking.of(events, who), begin, drawn)
        cut = jnp.stack([put(cut[0], who, new[0]), put(cut[1], who, new[1])])
    fresh = jnp.where(graph.computes.at[who].get(mode="clip"), fresh, jnp.inf)
    return put(_left(plan, state), who, fresh), started, cut


def _left(plan: Plan, state: ClockState) -> Array:
    """What is left of the computations that go on; one that never ends does not even after a step that never does."""
    return jnp.where(jnp.isinf(state.remaining), jnp.inf, state.remaining - plan.duration)


def _draw(graph: Graph, delays: DelayModel, key: Key, nodes: Array, started: Array) -> Array:
    """Seconds of some computations. What is no time is NaN; of a node that never computes it does not matter."""
    drawn = jax.vmap(delays, in_axes=(None, 0, 0))(stream(key, Stream.DELAYS), nodes, started)
    seconds = drawn.astype(jnp.result_type(float))
    if times.is_sure(delays):
        return seconds
    return jnp.where(graph.computes.at[nodes].get(mode="clip"), times.checked(delays, seconds), 0.0)
