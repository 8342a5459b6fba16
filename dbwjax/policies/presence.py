"""What a rule asks of a world that breaks: who is there, and what time it must not go before. Traceable.

Where nothing breaks (`graph.known` is `None`), each returns what it was given, and adds nothing to a program.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dbwjax.types import Graph


def not_before(graph: Graph, times: Array) -> Array:
    """Times of the nodes `[N]`, none before what the decision rests on was known."""
    return times if graph.known is None else jnp.maximum(times, graph.known.floor)


def unless_away(graph: Graph, times: Float[Array, " N"]) -> Float[Array, " N"]:
    """Times of the nodes, `inf` of those believed absent."""
    return times if graph.known is None else jnp.where(graph.known.away, jnp.inf, times)


def end_not_before(graph: Graph, time: Float[Array, ""]) -> Float[Array, ""]:
    """The end of a step of everybody, likewise."""
    return time if graph.known is None else jnp.maximum(time, graph.known.floor.max())


def last_there(graph: Graph, arrival: Float[Array, " N"]) -> Float[Array, ""]:
    """When the last of those that are there has arrived; `inf`: nobody is there."""
    if graph.known is None:
        return arrival.max()
    last = jnp.where(graph.computes, arrival, -jnp.inf).max()
    return jnp.where(graph.computes.any(), last, jnp.inf)


def at_most_there(graph: Graph, k: Int[Array, ""]) -> Int[Array, ""]:
    """So many workers, or all that are there where those are fewer; at least one, who is then waited for."""
    return k if graph.known is None else jnp.clip(graph.computes.sum(dtype=k.dtype), 1, k)


def kept_up(graph: Graph, count: Int[Array, " N"]) -> Int[Array, " N"]:
    """What each has done; who is absent keeps up with the least of the others, and nobody waits for what it missed."""
    if graph.known is None:
        return count
    most = jnp.iinfo(count.dtype).max
    least = jnp.where(graph.computes, count, most).min()
    return jnp.where(graph.known.away & (least < most), jnp.maximum(count, least), count)
