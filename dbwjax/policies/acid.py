"""A2CiD2: gossip of random pairs with a continuous momentum between two copies of each worker's parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dbwjax import numbers
from dbwjax.limits import real, require_count
from dbwjax.policies.events import Happening, Row
from dbwjax.policies.gossip import require_graph, require_no_latency
from dbwjax.policies.method import Method
from dbwjax.policies.papers import ACID
from dbwjax.policies.partners import is_node, random_neighbour, with_nodes
from dbwjax.policies.ticks import Event, require_rate, ticking
from dbwjax.types import Graph, Key, Policy


class Momentum(NamedTuple):
    """The two constants, and the time since each worker's copies were last mixed."""

    h: Float[Array, ""]  # rate at which the two copies of a worker approach each other, per mean computation
    gain: Float[Array, ""]  # by which an exchange moves the second copy
    since: Float[Array, " N"]  # seconds since the last event of each worker


def acid(rate: float = 1.0, h: float | None = None, gain: float | None = None) -> Policy:
    """A2CiD2 (Nabli, Belilovsky, Oyallon 2023, arXiv 2306.08289; rule from the authors' code).

    Each worker has two copies, x and x~. Before each event that touches worker i, the time dt since its last one, in
    mean computations, is made up for:

        (x_i, x~_i) <- exp(dt [[-h, h], [h, -h]]) (x_i, x~_i)

    Worker i finishes: both of its copies take its update, computed at the x_i that it started from. At a tick
    (`ticks.py`) worker i picks a neighbour j at random:

        x~_i <- x~_i + gain (x_j - x_i)      x~_j <- x~_j + gain (x_i - x_j)      x_i, x_j <- (x_i + x_j) / 2

        h = 1 / (2 sqrt(chi1 chi2))      gain = sqrt(chi1 / chi2) / 2

    with chi1 = 1 / (second smallest eigenvalue) of the Laplacian in which a link weighs as many averages as it does per
    mean computation, and chi2 half the largest effective resistance of a link in that network. Link ij averages `rate
    (1/d_i + 1/d_j)` times per mean computation: both ends pick.

    Ours: both ends of a pair make up for their time before anything is sent, as in the paper's equations (the authors'
    code sends x_j as of j's last event), so that the means of x and of x~ over workers are kept; the mean computation
    is that of `ticks.py` (the authors': each worker's own moving average); the authors' rate counts the averages that a
    worker takes part in, which are about two for each of its ticks; an update is that of the worker's own optimiser. An
    average is of one instant, so messages take no time. A worker without neighbours has no clock.

    Nodes N to 2N - 1 are the x~ of workers 0 to N - 1; the model is the mean of x. What a node holds is as of its
    worker's last event. On a complete graph the gain is 1/2, both copies are the same, and this is `randomized_gossip`.

    Args:
      rate: ticks per worker and mean computation.
      h, gain: constants to use in place of those; `h=0, gain=0.5` is `randomized_gossip`.

    Raises:
      ValueError: a `rate` that is none, an `h` or `gain` below 0 or infinite; in `network`, latency, or a graph that
        `require_graph` refuses, or one too large for its spectrum.
    """
    rate = require_rate(rate)
    given = [_constant("h", h), _constant("gain", gain)]

    def network(graph: Graph) -> Graph:
        _require_spectrum(graph)
        require_graph(graph, "doubly")
        require_no_latency(graph, "acid", "an average is of one instant; use --latency 0, or adpsgd")
        return with_nodes(graph, graph.neighbours.shape[0])

    def init_fn(graph: Graph) -> Momentum:
        real_type, workers = jnp.result_type(float), int(np.asarray(graph.computes).sum())
        found = constants(graph, rate) if None in given else (0.0, 0.0)
        h, gain = (jnp.asarray(b if a is None else a, real_type) for a, b in zip(given, found, strict=True))
        return Momentum(h, gain, jnp.zeros(workers, real_type))

    def happen(key: Key, graph: Graph, state: Momentum, event: Event) -> tuple[Happening, Momentum]:
        i, workers = event.node, state.since.shape[0]
        j = jnp.where(event.tick, random_neighbour(key, graph, i), i)
        since = state.since + event.now
        gone = jnp.where(event.mean > 0, since / event.mean, 0)
        half, push = jnp.where(event.tick, 0.5, 0.0), (1.0, 1.0, 0.0, 0.0)
        weights = _weights(half, 2 * half * state.gain, _made_up(state.h, gone[i]), _made_up(state.h, gone[j]))
        nodes, nobody = (i, i + workers, j, j + workers), graph.neighbours.shape[0]
        written = (*nodes[:2], *(jnp.where(event.tick, node, nobody) for node in nodes[2:]))
        rows = [
            Row(node, tuple(zip(nodes, took, strict=True)), share)
            for node, took, share in zip(written, weights, push, strict=True)
        ]
        touched = is_node(i, workers) | is_node(j, workers)
        told = {"messages": jnp.where(event.tick, 2, 0), "info": {"partner": j}}
        return Happening(rows, told=told), state._replace(since=jnp.where(touched, 0, since))

    return ticking(init_fn, happen, rate, network=network, unbroken=_UNBROKEN)


_UNBROKEN = (
    "acid takes no world that breaks, since an exchange that does not take place would have to be made up for in both "
    "copies; leave the events out, or use randomized_gossip"
)

Pair = tuple[Array, Array]


def _made_up(h: Array, time: Array) -> Pair:
    """What a copy keeps of itself and takes from the other one of its worker, after a time in mean computations."""
    left = jnp.exp(-2 * h * time)
    return (1 + left) / 2, (1 - left) / 2


def _weights(half: Array, gain: Array, i: Pair, j: Pair) -> tuple[tuple[Array, ...], ...]:
    """What x_i, x~_i, x_j, x~_j become: each one's weights of the four as they were at the last events.

    Args:
      half: how much of the other's x goes into x; 0 where nothing is exchanged, as `gain`.
      gain: by how much of the difference of the two x the other copies move.
      i, j: what either worker's copies keep and take in the time to be made up for.
    """
    (a, b), (c, d) = i, j
    return (
        ((1 - half) * a, (1 - half) * b, half * c, half * d),
        (b - gain * a, a - gain * b, gain * c, gain * d),
        (half * a, half * b, (1 - half) * c, (1 - half) * d),
        (gain * a, gain * b, d - gain * c, c - gain * d),
    )


def constants(graph: Graph, rate: float) -> tuple[float, float]:
    """`h` and `gain` from the graph of the nodes that compute; 0 and 0 for a worker alone. On the host.

    Args:
      graph: who hears whom; undirected and connected.
      rate: ticks per worker and mean computation.
    """
    workers = int(np.asarray(graph.computes).sum())
    if workers < 2:
        return 0.0, 0.0
    links, sources = np.asarray(graph.links)[:workers], np.asarray(graph.neighbours)[:workers]
    rows, slots = np.nonzero(links)
    ends, degree = sources[rows, slots], links.sum(axis=1)
    laplacian = np.zeros((workers, workers))
    laplacian[rows, ends] = -rate * (1 / degree[rows] + 1 / degree[ends])
    laplacian -= np.diag(laplacian.sum(axis=1))
    values, vectors = np.linalg.eigh(laplacian)
    inverse = (vectors[:, 1:] / values[1:]) @ vectors[:, 1:].T
    across = np.diag(inverse)[rows] + np.diag(inverse)[ends] - 2 * inverse[rows, ends]
    chi1, chi2 = 1 / values[1], across.max() / 2
    return float(1 / (2 * np.sqrt(chi1 * chi2))), float(np.sqrt(chi1 / chi2) / 2)


def _constant(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not 0 <= real(name, value) < float("inf"):
        raise ValueError(f"{name}={value:g} is out of range; use a number from 0, or leave it out (from the graph)")
    return numbers.require(name, float(value))


def _require_spectrum(graph: Graph) -> None:
    """Raises `ValueError` where the Laplacian's eigenvectors and pseudoinverse do not fit."""
    workers = graph.neighbours.shape[0]
    require_count("workers", workers, lambda count: 48.0 * count * count, " and the spectrum of their Laplacian")


def _acid(*, rate: float = 1.0) -> Policy:
    return acid(rate)


METHODS = (
    Method(
        "acid",
        _acid,
        "A2CiD2: gossip SGD with a continuous momentum between two copies of each worker",
        (ACID,),
        family="pairwise",
        mixing="row",  # columns sum to one as well, but the weights are not symmetric
        absence="it refuses a world that breaks: an exchange that does not take place would have to be made up for in "
        "both copies",
    ),
)
