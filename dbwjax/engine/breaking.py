"""A world that breaks: what absences do to computations, who knows of them, and when a step is decided again.

*Physics.* A computation that an absence cuts short is lost, and the same one is done again from the return on; one that
would begin during an absence begins at the return. A crash is an absence without an end. That depends on nothing but
when computations start.

*Knowledge.* A worker is believed absent from `patience` seconds after it left until it is back. Across a partition
nothing is carried, and everybody knows it at once. A policy decides on the graph that is believed to be there. Where
its step would end after the next change of that belief, it decides again, from the same state, under the new belief,
and then nobody goes on before the change (`Known.floor`). So learning of an absence costs exactly the patience.

What a step may carry is in `masks.py`. Nodes beyond the workers (a server, mailboxes) are never away.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from dbwjax.engine import masks
from dbwjax.types import ClockState, Events, Graph, Key, Known, Plan, Policy


def require_fit(policy: Policy, graph: Graph, events: Events) -> None:
    """Refuses a method that cannot live in a world that breaks, and events of other workers. On shapes alone.

    Raises:
      ValueError: one line.
    """
    if policy.unbroken is not None:
        raise ValueError(policy.unbroken)
    workers, nodes = events.away_from.shape[0], graph.neighbours.shape[0]
    if workers > nodes or (policy.network is None and workers != nodes):
        raise ValueError(f"the events are of {workers} workers, and the graph has {nodes}; use the same number")


def fitted(events: Events, nodes: int) -> Events:
    """The events of a network: nodes beyond the workers are never away, and on the side of worker 0. Traceable."""
    more = nodes - events.away_from.shape[0]
    if not more:
        return events
    never = jnp.full((more, events.away_from.shape[1]), jnp.inf, events.away_from.dtype)
    side = jnp.broadcast_to(events.side[:, :1], (events.side.shape[0], more))
    return events._replace(
        away_from=jnp.concatenate([events.away_from, never]),
        away_until=jnp.concatenate([events.away_until, never]),
        patience=jnp.concatenate([events.patience, jnp.zeros_like(never)]),
        side=jnp.concatenate([events.side, side], axis=1),
    )


def relative(events: Events, elapsed: Float[Array, " 2"]) -> Events:
    """The events with times after the origin of a step."""

    def since(times: Array) -> Array:
        return (times - elapsed[0]) - elapsed[1]

    return events._replace(
        away_from=since(events.away_from),
        away_until=since(events.away_until),
        cut_from=since(events.cut_from),
        cut_until=since(events.cut_until),
    )


def later(elapsed: Float[Array, " 2"], seconds: Float[Array, ""]) -> Float[Array, " 2"]:
    """The sum with so many seconds more, by Knuth's two-sum; endless seconds are left out, for nothing follows them."""
    high, low = elapsed[0], elapsed[1]
    total = high + seconds
    part = total - high
    low = low + ((high - (total - part)) + (seconds - part))
    whole = total + low
    return jnp.where(jnp.isfinite(seconds), jnp.stack([whole, low - (whole - total)]), elapsed)


def done(events: Events, start: Float[Array, " K"], seconds: Float[Array, " K"]) -> tuple[Array, Array]:
    """When some computations are done, of nodes whose absences are the events' rows.

    Args:
      events: `relative`, their rows those of the K nodes.
      start: when each is begun.
      seconds: that it takes.

    Returns:
      When it is done (`inf`: never), and `[2, K]` seconds of absence and of attempts cut short until then.
    """

    def over(a: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        begun, tried = carry
        leaves, returns = events.away_from[:, a], events.away_until[:, a]
        hit = (begun + seconds > leaves) & (begun < returns)
        return jnp.where(hit, returns, begun), tried + jnp.where(hit, jnp.maximum(leaves - begun, 0), 0)

    begun, tried = jax.lax.fori_loop(0, events.away_from.shape[1], over, (start, jnp.zeros_like(start)))
    # Where nothing is hit, the bits are those of a world in which nothing breaks.
    away = jnp.where(begun == start, 0, begun - start - tried)
    return begun + seconds, jnp.stack([away, tried])


def of(events: Events, nodes: Array) -> Events:
    """The events with the absences of some nodes `[K]` alone; numbers beyond the last are clipped."""
    return events._replace(
        away_from=events.away_from.at[nodes].get(mode="clip"), away_until=events.away_until.at[nodes].get(mode="clip")
    )


def believed(events: Events, time: Float[Array, ""]) -> Bool[Array, " N"]:
    """Who is believed absent at a time; `events` are `relative`."""
    return ((events.away_from + events.patience <= time) & (time < events.away_until)).any(axis=1)


def gone(events: Events, time: Float[Array, ""]) -> Bool[Array, " N"]:
    """Who is away at a time, whether or not anybody knows it."""
    return ((events.away_from <= time) & (time < events.away_until)).any(axis=1)


def next_change(events: Events, time: Float[Array, ""]) -> Float[Array, ""]:
    """When belief changes next after a time; `inf`: never again."""
    known = events.away_from + events.patience
    times = jnp.concatenate(
        [
            jnp.where(known < events.away_until, known, jnp.inf).reshape(-1),
            jnp.where(known < events.away_until, events.away_until, jnp.inf).reshape(-1),
            events.cut_from,
            events.cut_until,
        ]
    )
    return jnp.where(times > time, times, jnp.inf).min(initial=jnp.inf)


def under(graph: Graph, events: Events, workers: int, policy: Policy, time: Array, floor: Array) -> Graph:
    """The graph as it is believed to be at a time of the step.

    Args:
      graph: of the policy's network.
      events: `relative` and `fitted`.
      workers: how many nodes are workers.
      policy: whose graph it is.
      time: (), seconds after the step's origin.
      floor: `[N]`, of `Known`.
    """
    nodes = graph.neighbours.shape[0]
    away, cut = believed(events, time), masks.parted(events, time)
    if nodes > workers and policy.housed is None:  # who cannot reach the server is not there for it
        away = away | jax.vmap(lambda i: cut(i, jnp.asarray(workers)))(jnp.arange(nodes))
    came = (events.away_until > 0) & (events.away_until <= time)
    back = jnp.where(came, events.away_until, -jnp.inf).max(axis=1, initial=-jnp.inf)
    own = jnp.arange(nodes)[:, None]
    links = graph.links & ~away[:, None] & ~away[graph.neighbours] & ~cut(own, graph.neighbours)
    return graph._replace(links=links, computes=graph.computes & ~away, known=Known(away, floor, back))


def decide(
    policy: Policy, graph: Graph, events: Events, keys: tuple[Key, Key], state: ClockState, feedback: Any
) -> tuple[Plan, PyTree]:
    """What the policy decides in a world that breaks.

    Args:
      policy: who waits for whom.
      graph: of its network.
      events: of the world.
      keys: of the decision, and of the stream of losses.
      state: the clock before the step.
      feedback: the learner's last, for a policy that reads training.

    Returns:
      The plan, of which nothing is left that is not there or not carried, and the policy's state.
    """
    nodes, workers = graph.neighbours.shape[0], events.away_from.shape[0]
    assert state.elapsed is not None
    here, kind = relative(fitted(events, nodes), state.elapsed), state.remaining.dtype

    def one(time: Array, floor: Array) -> tuple[Plan, PyTree, Array]:
        seen = under(graph, here, workers, policy, time, floor)
        remaining = jnp.where(seen.known.away, jnp.inf, state.remaining)  # type: ignore[union-attr]
        plan, after = policy.decide(keys[0], seen, state.policy, remaining, feedback)
        plan = plan._replace(duration=jnp.asarray(plan.duration, kind))
        return *jax.tree.map(jnp.asarray, (plan, after)), seen.known.away  # type: ignore[union-attr]

    def again(carry: tuple) -> tuple:
        time, floor, *_ = carry
        found = one(time, floor)
        plan = found[0]
        change = next_change(here, time)
        ends = plan.ready if plan.ready is not None and plan.ready.shape == (nodes,) else plan.duration
        over = ~(plan.duration >= change) | jnp.isinf(change)  # NaN, which is no time, ends it too
        return change, jnp.broadcast_to(jnp.minimum(ends, change), (nodes,)).astype(kind), over, found

    time, floor = jnp.zeros((), kind), jnp.zeros(nodes, kind) - jnp.inf
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, time, floor))
    start = (time, floor, jnp.zeros((), bool), blank)
    plan, after, away = jax.lax.while_loop(lambda carry: ~carry[2], again, start)[3]
    carries = masks.Carries(
        gone=gone(here, plan.duration),
        away=away,
        parted=masks.parted(here, plan.duration),
        loss=here.loss,
        key=masks.step_key(keys[1], state.step),
        workers=workers,
        housed=policy.housed,
    )
    return masks.masked(plan, carries, nodes, policy.pushsum), after
