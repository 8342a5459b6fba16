"""What methods of pairs share: a random neighbour, the seconds to it, nodes of one's own, and no latency."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax.network import draws
from dbwjax.types import Graph, Key


def random_neighbour(key: Key, graph: Graph, i: Array) -> Int[Array, ""]:
    """A neighbour of worker `i`, each as likely as the others; `i` itself where it has none. One hash. Traceable.

    Args:
      key: of the event. One key gives every worker a draw of its own.
      graph: who hears whom.
      i: (), the worker.
    """
    return graph.neighbours[i, random_slot(key, graph, i)]


def random_slot(key: Key, graph: Graph, i: Array) -> Int[Array, ""]:
    """In which slot of worker `i` that neighbour is; 0, its own, where it has none."""
    degree = graph.links[i].sum()
    share = draws.uniform(key, i, jnp.zeros((), jnp.int32), jnp.result_type(float))
    # The share is below 1, and its product with a degree is rounded to less than the degree.
    place = jnp.floor(share * degree).astype(jnp.int32)
    if graph.known is not None:  # links are in slots from 1 on only where nothing breaks
        return jnp.where(degree > 0, jnp.argmax(jnp.cumsum(graph.links[i]) > place), 0).astype(jnp.int32)
    return jnp.where(degree > 0, 1 + place, 0)


def pair_seconds(graph: Graph) -> Float[Array, "N D"]:
    """By worker and slot, how long until both have the other's message, in an undirected graph. On the host."""
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours, np.int64)
    nodes, latency = len(links), np.asarray(graph.latency)
    row, slot = np.nonzero(links)
    there, back = row * nodes + sources[row, slot], sources[row, slot] * nodes + row
    order = np.argsort(there)
    other = latency[row, slot][order][np.searchsorted(there[order], back)]
    seconds = np.zeros(links.shape, latency.dtype)
    seconds[row, slot] = np.maximum(latency[row, slot], other)
    return jnp.asarray(seconds)


def message_seconds(graph: Graph, receiver: Array, sender: Array) -> Float[Array, ""]:
    """How long a message from `sender` to `receiver` takes; 0 where they are not linked. Traceable."""
    slots = graph.links[receiver] & (graph.neighbours[receiver] == sender)
    return jnp.where(slots, graph.latency[receiver], 0).max()


def is_node(node: Array, nodes: int) -> Bool[Array, " N"]:
    """The mask of one node. Traceable."""
    return jnp.arange(nodes) == node


def with_nodes(graph: Graph, count: int) -> Graph:
    """The network with `count` further nodes, which never compute and are linked to nobody."""
    nodes, slots = graph.neighbours.shape
    own = jnp.broadcast_to(jnp.arange(nodes, nodes + count, dtype=graph.neighbours.dtype)[:, None], (count, slots))
    return Graph(
        neighbours=jnp.concatenate([graph.neighbours, own]),
        links=jnp.concatenate([graph.links, jnp.zeros((count, slots), bool)]),
        latency=jnp.concatenate([graph.latency, jnp.zeros((count, slots), graph.latency.dtype)]),
        computes=jnp.concatenate([graph.computes, jnp.zeros(count, bool)]),
    )
