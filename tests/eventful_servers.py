"""Small server methods written with `events`, which need no table: an SSP and a K-async server with an accumulator."""

from __future__ import annotations

import jax.numpy as jnp

from dbwjax.policies.events import Happening, Release, Row, events
from dbwjax.types import Graph

NEVER = 10**9


def with_server(graph: Graph, others: int) -> Graph:
    """Workers that hear one server, and further nodes behind it."""
    workers = graph.neighbours.shape[0]
    nodes = jnp.arange(workers + others)
    hears = nodes < workers
    neighbours = jnp.stack([nodes, jnp.where(hears, workers, nodes)], axis=1)
    links = jnp.stack([jnp.zeros_like(hears), hears], axis=1)
    return Graph(neighbours, links, jnp.zeros((len(nodes), 2), graph.latency.dtype), hears)


def _is_server(network: Graph, others: int):
    nodes = network.neighbours.shape[0]
    return jnp.arange(nodes) == nodes - others


def stale_synchronous(bound: int, stale: bool):
    """SSP: a worker goes on when it is at most `bound` ahead of the slowest."""

    def ahead(graph, clocks):
        return clocks - jnp.where(graph.computes, clocks, NEVER).min()

    def happen(key, graph, clocks, i, waits):
        nodes = clocks.shape[0]
        clocks = clocks + (jnp.arange(nodes) == i)
        goes = jnp.where(ahead(graph, clocks)[i] <= bound, i, nodes)
        server = nodes - 1
        return Happening((Row(server, ((server, 1.0),), 1.0), Row(goes, ((server, 1.0),), 1.0)), start=goes), clocks

    def ready(graph, clocks):
        return jnp.where(ahead(graph, clocks) <= bound, 0.0, jnp.inf)

    def go_on(key, graph, clocks, j, waits):
        nodes = clocks.shape[0]
        return Happening((Row(nodes, ((nodes - 1, 1.0),)), Row(j, ((nodes - 1, 1.0),))), start=j), clocks

    return events(
        lambda graph: jnp.zeros(graph.neighbours.shape[0], jnp.int32),
        happen,
        Release(ready, go_on),
        stale=stale,
        network=lambda graph: with_server(graph, 1),
        evaluated=lambda network: _is_server(network, 1),
    )


def k_async(k: int):
    """K-async: the server takes what an accumulator has gathered of k workers, who wait for it."""

    def happen(key, graph, arrived, i, waits):
        nodes = graph.neighbours.shape[0]
        server, draft = nodes - 2, nodes - 1
        last = arrived + 1 == k
        share, taken = 1 / k, jnp.where(last, 1.0, 0.0)
        goes = jnp.where(last, i, nodes)
        rows = (
            Row(draft, ((draft, 1 - taken),), share * (1 - taken)),
            Row(server, ((server, 1.0), (draft, taken)), share * taken),
            Row(goes, ((server, 1.0), (draft, taken)), share * taken),
        )
        return Happening(rows, start=goes), jnp.where(last, 0, arrived + 1)

    def ready(graph, arrived):
        return jnp.where(arrived == 0, jnp.zeros(graph.neighbours.shape[0]), jnp.inf)

    def go_on(key, graph, arrived, j, waits):
        nodes = graph.neighbours.shape[0]
        server = nodes - 2
        nothing = Row(nodes, ((server, 1.0),))
        return Happening((nothing, nothing, Row(j, ((server, 1.0), (server, 0.0)))), start=j), arrived

    return events(
        lambda graph: jnp.zeros((), jnp.int32),
        happen,
        Release(ready, go_on),
        network=lambda graph: with_server(graph, 2),
        evaluated=lambda network: _is_server(network, 2),
    )
