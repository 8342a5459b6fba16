"""Graphs from their links, and what is done to any graph: padded, given latencies, read back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dbwjax import numbers
from dbwjax.types import Graph


def from_adjacency(adjacency: np.ndarray, computes: np.ndarray | None = None) -> Graph:
    """A graph from `adjacency [N, N]`: `adjacency[i, j]` says that `i` hears `j`; messages take no time.

    Args:
      adjacency: boolean, without self loops.
      computes: `[N]`, False for nodes that never compute; all compute by default.

    Raises:
      ValueError: not a square matrix with at least one node, or a self loop.
    """
    matrix = np.asarray(adjacency, bool)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"adjacency has shape {matrix.shape}; give a square matrix with at least one node")
    if matrix.diagonal().any():
        raise ValueError(f"node {int(np.argmax(matrix.diagonal()))} is linked to itself; clear the diagonal")
    return from_lists([np.flatnonzero(row) for row in matrix], computes)


def from_links(nodes: int, links: Iterable[tuple[int, int]]) -> Graph:
    """An undirected graph from its links, given once each in either direction."""
    lists: list[set[int]] = [set() for _ in range(nodes)]
    for i, j in links:
        if i != j:
            lists[i].add(j)
            lists[j].add(i)
    return from_lists([np.array(sorted(near), int) for near in lists], None)


def adjacency(graph: Graph) -> np.ndarray:
    """The matrix `[N, N]` of a graph: `[i, j]` says that `i` hears `j`."""
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    matrix = np.zeros((len(links), len(links)), bool)
    rows, slots = np.nonzero(links)
    matrix[rows, sources[rows, slots]] = True
    return matrix


def pad(graph: Graph, slots: int) -> Graph:
    """The same graph with rows of `slots` slots, so that graphs of different degrees stack into a batch.

    Raises:
      ValueError: fewer slots than the graph has.
    """
    have = graph.neighbours.shape[1]
    if slots < have:
        raise ValueError(f"slots={slots} is less than the {have} that this graph needs; use {have} or more")
    more = ((0, 0), (0, slots - have))
    own = jnp.repeat(graph.neighbours[:, :1], slots - have, axis=1)
    return graph._replace(
        neighbours=jnp.concatenate([graph.neighbours, own], axis=1),
        links=jnp.pad(graph.links, more),
        latency=jnp.pad(graph.latency, more),
    )


def with_links(graph: Graph, *, latency: float = 0.0, bandwidth: float = math.inf, message_bytes: float = 0.0) -> Graph:
    """The same graph with messages that take `own latency + latency + message_bytes / bandwidth` seconds on every link.

    Raises:
      ValueError: a time, size or bandwidth that is not one, or a time on a link that float32 does not hold.
    """
    if not 0 <= latency < math.inf:
        raise ValueError(f"latency={latency:g} is not a time; use 0 or more seconds")
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth:g} moves nothing; use more than 0 bytes a second (inf: no limit)")
    if not 0 <= message_bytes < math.inf:
        raise ValueError(f"message_bytes={message_bytes:g} is not a size; use 0 or more bytes")
    said = f"bandwidth={bandwidth:g}, message_bytes={message_bytes:g}: seconds of a message"
    sending = numbers.require(said, message_bytes / bandwidth)
    seconds = numbers.require("latency", latency) + sending
    total = np.where(graph.links, np.asarray(graph.latency, np.float64) + seconds, 0)
    return with_latency(graph, total)


def with_latency(graph: Graph, seconds: np.ndarray) -> Graph:
    """The same graph with other latencies `[N, D]`.

    Raises:
      ValueError: one that is no time, or that float32 does not hold.
    """
    for node, slot in np.argwhere((seconds != 0) & ~((seconds >= numbers.LEAST) & (seconds <= numbers.MOST)))[:1]:
        sender = int(graph.neighbours[node, slot])
        numbers.not_negative(f"latency from node {sender} to node {node}", float(seconds[node, slot]))
    return graph._replace(latency=jnp.asarray(seconds, graph.latency.dtype))


@jax.jit
def delivery(graph: Graph) -> Float[Array, " N"]:
    """How long until all who hear a node have its message, in seconds; 0 for a node that nobody hears. Traceable."""
    return jnp.zeros_like(graph.latency[:, 0]).at[graph.neighbours].max(graph.latency)


def from_lists(lists: list[np.ndarray], computes: np.ndarray | None = None) -> Graph:
    """A graph from whom each node hears.

    Args:
      lists: of every node, the numbers of those it hears, ascending.
      computes: `[N]`, False for nodes that never compute; all compute by default.
    """
    nodes, slots = len(lists), 1 + max(len(near) for near in lists)
    neighbours = np.repeat(np.arange(nodes, dtype=np.int32)[:, None], slots, axis=1)
    links = np.zeros((nodes, slots), bool)
    for i, near in enumerate(lists):
        neighbours[i, 1 : 1 + len(near)] = near
        links[i, 1 : 1 + len(near)] = True
    return Graph(
        neighbours=jnp.asarray(neighbours),
        links=jnp.asarray(links),
        latency=jnp.asarray(np.zeros((nodes, slots)), jnp.result_type(float)),
        computes=jnp.asarray(np.ones(nodes, bool) if computes is None else np.asarray(computes, bool)),
    )
