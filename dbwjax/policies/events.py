"""Event-driven methods: what happens when a worker finishes, written in the words of a paper.

`events` makes a `Policy` of a function that says what *one* finish changes. It keeps the workers that wait, finds who
finishes next (of several at one instant the lowest number), and fills in the plan. A method whose workers wait for one
another adds a `Release`: when a waiting worker may go on, and what it takes when it does. Releases are steps of their
own, one worker each, and come before finishes of the same instant; no gradient is computed in them.

AD-PSGD, for instance, is

    def happen(key, graph, state, i, waits):
        j = graph.neighbours[i, 1 + jax.random.randint(key, (), 0, graph.links[i].sum())]
        mean = ((i, 0.5), (j, 0.5))
        return Happening((Row(i, mean, push=1.0), Row(j, mean))), state

    policy = events(lambda graph: (), happen)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from dbwjax.policies.presence import end_not_before
from dbwjax.policies.selection import first_least
from dbwjax.types import Graph, Key, Plan, Policy


class Row(NamedTuple):
    """One node that an event changes, or `k` nodes at once; node N is nobody, and nothing is written.

    All the rows of an event are written at once: what they take are the parameters before it.
    """

    node: Any  # () or [k]
    takes: Sequence[tuple[Any, Any]]  # (source, weight), each () or [k]
    push: Any = 0.0  # how much of the finisher's update it takes, () or [k]


class Happening(NamedTuple):
    """What an event changes."""

    rows: Sequence[Row]
    start: Any = None  # who starts its next computation, numbers () or [K] (N: nobody) or a mask; None: the finisher
    after: Any = 0.0  # seconds from the event to that, a number or by entry of `start`
    fresh: Any = True  # whether the finisher's update counts
    at: Any = None  # the node at whose present parameters the update is computed; None: where the worker started from
    told: Mapping[str, Any] = {}  # further fields of the plan, for the accounts: `updates`, `backups`, `flight`, ...


class Release(NamedTuple):
    """How workers that wait go on.

    `ready(graph, state) -> [N]` is how many seconds from now each worker may go on if it waits (`inf`: that is not
    known yet); `happen(key, graph, state, j, waits) -> (Happening, state)` is what changes when worker j does.
    """

    ready: Callable[[Graph, PyTree], Array]
    happen: Callable[[Key, Graph, PyTree, Array, Array], tuple[Happening, PyTree]]


class EventState(NamedTuple):
    """The method's own state, and who has finished and not been let go on."""

    own: PyTree
    waits: Bool[Array, " N"]


Happen = Callable[[Key, Graph, PyTree, Array, Array], tuple[Happening, PyTree]]


def events(
    init: Callable[[Graph], PyTree],
    happen: Happen,
    release: Release | None = None,
    travel: Callable[[Graph, PyTree], Array] | None = None,
    passed: Callable[[PyTree, Array], PyTree] | None = None,
    **facts: Any,
) -> Policy:
    """A policy whose steps are events: a worker finishes, or one that waits goes on.

    Args:
      init: `(graph) -> state`, on the host; checks the graph.
      happen: `(key, graph, state, i, waits) -> (Happening, state)` when worker i has finished; `waits [N]` are those
        that have finished and not gone on, worker i among them. `key` is of this event. The numbers of rows, of their
        sources and of those who start must always be the same.
      release: how those go on whom `happen` does not start; `None`: there are none.
      travel: `(graph, state) -> [N]` seconds from a worker's finish to the event; `None`: none.
      passed: `(state, seconds) -> state` for a state that holds times, which count from now: `seconds` have passed.
      facts: of the `Policy`. Updates are stale by default: computed at a copy of what the worker started from.

    Raises:
      ValueError: when traced, releases of other shapes than finishes.
    """

    def init_fn(graph: Graph) -> EventState:
        return EventState(init(graph), jnp.zeros(graph.neighbours.shape[0], bool))

    def decide_fn(key: Key, graph: Graph, state: EventState, remaining: Array, feedback: Any) -> tuple[Plan, Any]:
        del feedback
        busy = jnp.where(state.waits, jnp.inf, remaining)
        if travel is not None:
            busy = busy + travel(graph, state.own)
        i, now = first_least(busy)
        now = end_not_before(graph, now)
        found, own = happen(key, graph, state.own, i, state.waits | _is(i, remaining))
        plan, waits = _plan(found, i, jnp.maximum(now, 0), state.waits | _is(i, remaining))
        after = EventState(own, waits)
        if release is not None:
            ready = jnp.where(state.waits, release.ready(graph, state.own), jnp.inf)
            j, soon = first_least(ready)
            soon = end_not_before(graph, soon)
            found, own = release.happen(key, graph, state.own, j, state.waits)
            other, waits = _plan(found._replace(fresh=False), j, jnp.maximum(soon, 0), state.waits)
            first = jnp.isfinite(soon) & (soon <= now)
            plan, after = _chosen(first, (other, EventState(own, waits)), (plan, after))
        if passed is not None:
            after = after._replace(own=passed(after.own, plan.duration))
        return plan, after

    return Policy(init_fn, decide_fn, **{"stale": True, "idles": release is not None, **facts})


def _is(node: Array, by_node: Array) -> Array:
    return jnp.arange(by_node.shape[0]) == node


def _chosen(first: Array, one: PyTree, other: PyTree) -> PyTree:
    kinds = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree) for tree in (one, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"releases and finishes make plans of different shapes, {kinds[0]} and {kinds[1]}; give both the same "
            "numbers of rows, of sources and of those who start"
        )
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)


def _plan(found: Happening, i: Array, now: Array, waits: Array) -> tuple[Plan, Array]:
    """The plan of an event, and who waits after it."""
    slots = max(len(row.takes) for row in found.rows)
    nodes, sources, weights, push = [], [], [], []
    for row in found.rows:
        node = jnp.atleast_1d(jnp.asarray(row.node, jnp.int32))
        nodes.append(node)
        took = [(jnp.broadcast_to(jnp.asarray(s, jnp.int32), node.shape), w) for s, w in row.takes]
        # Padding takes nothing of the first source, which the row reads anyway.
        took += [(took[0][0], 0.0)] * (slots - len(took))
        sources.append(jnp.stack([s for s, _ in took], axis=1))
        weights.append(jnp.stack([jnp.broadcast_to(jnp.asarray(w, now.dtype), node.shape) for _, w in took], axis=1))
        push.append(jnp.broadcast_to(jnp.asarray(row.push, now.dtype), node.shape))
    start = i if found.start is None else jnp.asarray(found.start)
    masked = start.dtype == bool
    start = start if masked else jnp.atleast_1d(start.astype(jnp.int32))
    started = start if masked else (jnp.arange(waits.shape[0])[:, None] == start[None, :]).any(axis=1)
    later = isinstance(found.after, int | float) and found.after == 0
    plan = Plan(
        duration=now,
        fresh=jnp.atleast_1d(jnp.asarray(found.fresh)),
        mix=jnp.concatenate(weights),
        sources=jnp.minimum(jnp.concatenate(sources), waits.shape[0] - 1),
        push=jnp.concatenate(push)[:, None],
        workers=i[None],
        at=None if found.at is None else jnp.atleast_1d(jnp.asarray(found.at, jnp.int32)),
        rows=jnp.concatenate(nodes),
        restart=start,
        ready=None if later else now + jnp.broadcast_to(jnp.asarray(found.after, now.dtype), start.shape),
        **found.told,
    )
    return plan, waits & ~started
