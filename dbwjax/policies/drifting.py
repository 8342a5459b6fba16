"""Neighbour barriers: each worker goes on when *its* messages are in, so workers drift apart.

A step is iteration k of every worker, at different times. With `T_j(k)` the start of worker j's iteration k, the
clock's origin is `max_j T_j(k)`, the start times are `offset = T(k) - origin <= 0`, and a plan's `ready` is `T(k+1)`,
counted from that origin. `drifting` keeps the start times; a method says when each worker goes on and what it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dbwjax.policies.presence import last_there, not_before
from dbwjax.types import Graph, Key, Plan, Policy


class Drift(NamedTuple):
    """Where the workers are, and the method's own state."""

    own: PyTree
    offset: Float[Array, " N"]  # T_j(k) - max_i T_i(k), seconds
    earlier: Float[Array, "H N"]  # T(k-1), ..., T(k-H), on the same clock


class Going(NamedTuple):
    """How iteration k of every worker ends."""

    ready: Float[Array, " N"]  # T_j(k+1), seconds after the origin
    plan: dict[str, Any]  # further fields of the plan: `mix`, `sources`, `push`, `fresh`, `flight`, ...


GoOn = Callable[[Key, Graph, Drift, Array], tuple[Going, PyTree]]


def drifting(init: Callable[[Graph], PyTree], go_on: GoOn, history: int = 0, **facts: Any) -> Policy:
    """A policy under a neighbour barrier.

    Args:
      init: `(graph) -> state`, on the host; checks the graph.
      go_on: `(key, graph, drift, remaining) -> (Going, state)`: `remaining [N]` is when each worker finishes its
        iteration, seconds after the origin, and `drift` has the state.
      history: H, how many earlier start times the method reads. Before the start all are time 0.
      facts: of the `Policy`.
    """

    def init_fn(graph: Graph) -> Drift:
        offset = jnp.zeros(graph.neighbours.shape[0], jnp.result_type(float))
        return Drift(init(graph), offset, jnp.zeros((history, *offset.shape), offset.dtype))

    def decide_fn(key: Key, graph: Graph, state: Drift, remaining: Array, feedback: Any) -> tuple[Plan, Drift]:
        del feedback
        if graph.known is not None:
            # The absent wait for nobody and nobody for them; who is back begins when it is.
            remaining = jnp.where(graph.known.away, -jnp.inf, remaining)
            state = state._replace(offset=jnp.maximum(state.offset, graph.known.back))
        going, own = go_on(key, graph, state, remaining)
        if graph.known is not None:
            going = going._replace(ready=_there(graph, going.ready))
        duration = going.ready.max()
        told = {"fresh": jnp.ones(going.ready.shape, bool), **going.plan}
        plan = Plan(duration=duration, ready=going.ready, **told)
        earlier = state.earlier
        if history:
            earlier = jnp.concatenate([state.offset[None], earlier[:-1]]) - duration
        return plan, Drift(own, going.ready - duration, earlier)

    return Policy(init_fn, decide_fn, **facts)


def _there(graph: Graph, ready: Float[Array, " N"]) -> Float[Array, " N"]:
    """When each goes on, not before it was known that it may; the absent pass with the last of the others."""
    ready = not_before(graph, ready)
    return jnp.where(graph.computes, ready, last_there(graph, ready))
