"""What the methods with a parameter server have in common: the network, and whose updates came first.

Workers keep their numbers `0..N-1`; the server is node N, and never computes. Where a server gathers updates one by
one before it changes its model, node N+1 is its *draft*: the model as it will be with the updates that have arrived, so
that every mixing weight is 1 and each arrival costs one row. The graph between the workers does not matter, but for
latency: a message between worker i and the server, either way, takes the mean latency of the links on which i hears
others (0 where it has none). The choice is ours; give every link the same latency to be sure of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax.policies.gossip import require_workers
from dbwjax.policies.selection import kth_smallest
from dbwjax.types import Graph, Policy


def star(graph: Graph, draft: bool = False) -> Graph:
    """The network of a server method: each worker hears the server, which has no links. On the host.

    Args:
      graph: the workers', any.
      draft: whether the server keeps one.

    Raises:
      ValueError: a node that never computes.
    """
    require_workers(graph, "the method brings its own server")
    links, latency = np.asarray(graph.links), np.asarray(graph.latency, np.float64)
    workers, others = len(links), 1 + draft
    nodes = np.arange(workers + others, dtype=np.int32)
    hears = nodes < workers
    seconds = np.zeros((len(nodes), 2))
    seconds[:workers, 1] = np.where(links, latency, 0).sum(axis=1) / np.maximum(links.sum(axis=1), 1)
    return Graph(
        neighbours=jnp.asarray(np.stack([nodes, np.where(hears, workers, nodes)], axis=1), jnp.int32),
        links=jnp.asarray(np.stack([np.zeros_like(hears), hears], axis=1)),
        latency=jnp.asarray(seconds, graph.latency.dtype),
        computes=jnp.asarray(hears),
    )


def served(policy: Policy, draft: bool = False) -> Policy:
    """The policy with the network of a server method, whose model is the server's."""
    return policy._replace(network=partial(star, draft=draft), evaluated=partial(_is_server, others=1 + draft))


def _is_server(network: Graph, others: int) -> Bool[Array, " N"]:
    nodes = network.neighbours.shape[0]
    return jnp.arange(nodes) == nodes - others


def workers_of(network: Graph) -> int:
    """How many workers there are. On the host.

    Raises:
      ValueError: a graph without a server.
    """
    computes = np.asarray(network.computes)
    if computes.all():
        raise ValueError("the graph has no server; use the network that the method brings, policy.network(graph)")
    return int(computes.sum())


def require_at_most(name: str, value: int, workers: int) -> None:
    """Raises `ValueError` where a number of workers is more than there are."""
    if value > workers:
        raise ValueError(f"{name}={value} is more than the {workers} workers; use 1 to {workers}")


def travel(network: Graph) -> Float[Array, " N"]:
    """Seconds of a message between each worker and the server; 0 for the other nodes. Traceable."""
    return network.latency[:, 1]


def pulled(network: Graph, fresh: Bool[Array, " N"], k: Int[Array, ""]) -> dict[str, Any]:
    """The fields of a plan of everybody by which all nodes take the server and the mean of k updates. Traceable."""
    nodes, kind = fresh.shape[0], network.latency.dtype
    return {
        "fresh": fresh,
        "mix": jnp.ones((nodes, 1), kind),
        "sources": jnp.full((nodes, 1), nodes - 1, jnp.int32),
        "push": (fresh / k.astype(kind))[None],
        "backups": network.computes.sum() - k,
        "flight": 2 * travel(network),
    }


def first_of(arrival: Float[Array, " N"], k: Int[Array, ""]) -> tuple[Bool[Array, " N"], Float[Array, ""]]:
    """Which k arrive first, of those at one instant the lowest numbers, and when they all have. Traceable.

    Where fewer than k ever arrive, the time is infinite, and they are those who do.
    """
    end = kth_smallest(arrival, k)
    earlier, last = arrival < end, arrival == end
    return (earlier | (last & (jnp.cumsum(last) <= k - earlier.sum()))) & jnp.isfinite(arrival), end
