"""The gossip family under a neighbour barrier: `backup` (Hop's backup workers, without its queues) and `dpsgd`.

`drifting.py` keeps the start times `T_j(k)` of the workers' iterations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dbwjax.limits import real, require_count, whole
from dbwjax.network.weights import Weights, masked
from dbwjax.policies.drifting import Drift, Going, drifting
from dbwjax.policies.gossip import matrix, require_graph
from dbwjax.policies.method import Barrier, Method, Mixing, build_weights
from dbwjax.policies.papers import D_PSGD, HOP
from dbwjax.policies.selection import kth_smallest
from dbwjax.types import Graph, Key, Policy

GAP = 8
"""Iterations by which a worker may be ahead of a neighbour, by default. The number is ours.

Where workers are slow by chance, `backup:b=1` did at least 84 % of the iterations that it does without a gap, mostly
all of them (means over 10 workers and 2 seeds after 100 s; ring and random graph of degree 4; exponential, log-normal,
Pareto 1.5 and Markov times). Behind a worker that is always slower the whole graph ends up at that worker's pace, as
under any finite gap: one of 10 being 5 times slower, 55 to 62 %. There, compare with `gap=inf` as well.
"""

LARGEST_GAP = 4096
"""A longer memory of start times costs more than the step, and would hardly ever be looked at."""


class NeighbourState(NamedTuple):
    """What is fixed once for a graph."""

    weights: PyTree
    backups: Int[Array, ""]  # b, neighbours that nobody waits for, before it is capped


def backups_of(graph: Graph, b: int | Array) -> Int[Array, " N"]:
    """How many neighbours each worker does not wait for: `b`, but at least one neighbour is waited for. Traceable."""
    degree = graph.links.sum(axis=1)
    return jnp.minimum(b, jnp.maximum(degree - 1, 0))


def backup(b: int = 0, gap: float = GAP, weights: Weights | str | None = None, mixing: Mixing = "row") -> Policy:
    """Static backup workers among neighbours; `b=0` is cb-Full under a neighbour barrier. Adapt, then combine.

        T_j(k+1) = max(T_j(k) + c_j,
                       the (|N_j| - b_j)-th smallest over i in N_j of T_i(k) + c_i + latency_ji,
                       the largest over i in N_j of T_i(k+1-gap))

    Hop's backup workers and tokens (Luo et al. 2019, arXiv 1902.01064, as recalled) without its queues of updates: a
    message that comes after its receiver has gone on is not used. Worker j mixes the iteration-k messages that are in
    by `T_j(k+1)`. Each row is stochastic: the weights are those of the whole graph, which a worker knows without asking
    who waited for whom, and the diagonal takes the rest. (`hop` is the method with its queues: there a worker takes the
    plain mean of its own message and of the first `|N_j| - b_j`, and of no others.)

    A worker starts an iteration only when each of its neighbours has started the one that is `gap` before it. Tokens
    take no time: that a neighbour has started is known at once. At any time two neighbours are at most `gap`
    iterations apart, up to the rounding of a start time.

    Args:
      b: slowest neighbours that nobody waits for; `b_j = min(b, |N_j| - 1)`, so everybody waits for one at least.
      gap: most iterations by which a worker may be ahead of a neighbour, a whole number from 1; `inf`: no limit.
      weights: of the whole graph, or their name; Metropolis by default.
      mixing: what is promised of the weights; with `b=0` they may be `doubly` stochastic.

    Raises:
      ValueError: `b` below 0; `gap` not a whole number from 1 to `LARGEST_GAP`, nor `inf`; in `init`, a graph that
        `require_graph` refuses, or start times that do not fit the memory.
    """
    b, gap = whole("b", b, 0), real("gap", gap)
    if gap != math.inf and not (1 <= gap <= LARGEST_GAP and gap == int(gap)):
        raise ValueError(
            f"gap={gap:g} is not a number of iterations; use a whole number from 1 to {LARGEST_GAP}, or inf (no limit)"
        )
    scheme = build_weights(weights)
    kept_starts = None if gap == math.inf else int(gap) - 1

    def init_fn(graph: Graph) -> NeighbourState:
        require_graph(graph, mixing)
        if kept_starts is not None:
            workers = graph.neighbours.shape[0]
            require_count("gap", kept_starts + 1, lambda count: 16.0 * count * workers, f" of {workers} workers")
        return NeighbourState(scheme.init(graph), jnp.asarray(b))

    def go_on(key: Key, graph: Graph, drift: Drift, remaining: Array) -> tuple[Going, NeighbourState]:
        del key
        state = drift.own
        arrival = jnp.where(graph.links, remaining[graph.neighbours] + graph.latency, jnp.inf)
        needed = graph.links.sum(axis=1) - backups_of(graph, state.backups)
        ready = jnp.maximum(remaining, kth_smallest(arrival, needed))
        if kept_starts is not None:
            ready = jnp.maximum(ready, _tokens(graph, drift.earlier[-1] if kept_starts else drift.offset))

        kept = graph.links & (arrival <= ready[:, None]) & jnp.isfinite(arrival)
        mix, sources = matrix(masked(scheme.apply(state.weights, graph, graph.links), kept), graph, kept)
        flight = in_flight(graph, remaining, remaining, arrival, ready)
        sent = graph.links.sum()
        return Going(ready, {"mix": mix, "sources": sources, "flight": flight, "messages": sent}), state

    return drifting(init_fn, go_on, kept_starts or 0)


def dpsgd(weights: Weights | str | None = None, everybody: bool = False) -> Policy:
    """D-PSGD: combine, then adapt (Lian et al. 2017, arXiv 1705.09056, as recalled).

        mix = W      push = identity      X' = W @ X + U

    Worker j sends `x_j(k)` when its iteration k *starts*, so messages travel while gradients are computed:
    `T_i(k+1) = max(T_i + c_i, max over j in N_i of T_j + latency_ij)`.

    Args:
      weights: of the whole graph; Metropolis by default.
      everybody: a global barrier, on the same footing as DTUR: an iteration ends for everybody when all have finished
        and all messages are in, `max(max_i c_i, max over links of latency)`.
    """
    scheme = build_weights(weights)

    def init_fn(graph: Graph) -> NeighbourState:
        require_graph(graph, "doubly")
        return NeighbourState(scheme.init(graph), jnp.asarray(0))

    def go_on(key: Key, graph: Graph, drift: Drift, remaining: Array) -> tuple[Going, NeighbourState]:
        del key
        state = drift.own
        arrival = jnp.where(graph.links, drift.offset[graph.neighbours] + graph.latency, -jnp.inf)
        ready = jnp.maximum(remaining, arrival.max(axis=1))
        flight = in_flight(graph, remaining, drift.offset, arrival, ready)
        mix, sources = matrix(scheme.apply(state.weights, graph, graph.links), graph, graph.links)
        if everybody:
            ready = jnp.broadcast_to(ready.max(), ready.shape)
        plan = {"mix": mix, "sources": sources, "push": jnp.ones_like(remaining), "flight": flight}
        return Going(ready, plan), state

    return drifting(init_fn, go_on)


def in_flight(
    graph: Graph, finished: Float[Array, " N"], sent: Float[Array, " N"], arrival: Float[Array, "N D"], ready: Array
) -> Float[Array, " N"]:
    """Seconds for which each worker, having finished, waited for a message that was on its way.

    Args:
      graph: who hears whom.
      finished: when each worker has.
      sent: when each worker's message sets out.
      arrival: when it is there, by receiver and slot.
      ready: when each worker goes on.
    """
    last = graph.links & (arrival == ready[:, None])
    set_out = jnp.where(last, sent[graph.neighbours], jnp.inf).min(axis=1)
    return jnp.where(jnp.isfinite(set_out), jnp.maximum(ready - jnp.maximum(finished, set_out), 0), 0)


def _tokens(graph: Graph, oldest: Float[Array, " N"]) -> Array:
    """When each worker's last neighbour has started iteration k+1-gap, from those times; -inf without neighbours."""
    return jnp.where(graph.links, oldest[graph.neighbours], -jnp.inf).max(axis=1)


def _backup_notes(graph: Graph, state: Drift) -> list[str]:
    b, degree = int(state.own.backups), np.asarray(graph.links).sum(axis=1)
    capped = np.flatnonzero((degree > 0) & (degree <= b))
    if not len(capped):
        return []
    fewest = int(capped[np.argmin(degree[capped])])
    near = f"worker {fewest} has {degree[fewest]} neighbour{'s' if degree[fewest] > 1 else ''}"
    if len(capped) == 1:
        return [f"{near}, so it waits for the fastest of them (b capped at {degree[fewest] - 1})"]
    return [
        f"{len(capped)} of {len(degree)} workers have at most {b} neighbour{'s' if b > 1 else ''} and wait for the "
        f"fastest of them (b capped at their number less 1; {near})"
    ]


def _backup(*, b: int = 1, gap: float = GAP, weights: str = "metropolis", barrier: Barrier = "neighbours") -> Policy:
    if barrier != "neighbours":
        raise ValueError(
            "barrier=global does not fit: every worker's own finish would still be waited for; leave barrier= out, "
            "or use fastest:k= for a global rule"
        )
    return backup(b, gap, build_weights(weights))


def _dpsgd(*, barrier: Barrier = "neighbours", weights: str = "metropolis") -> Policy:
    return dpsgd(build_weights(weights), everybody=barrier == "global")


METHODS = (
    Method(
        "backup",
        _backup,
        "Hop's backup workers: all but the b slowest neighbours, at most gap iterations ahead of any",
        (HOP,),
        family="gossip",
        mixing="row",
        absence="its neighbours neither wait for it nor count it among their backups, and tokens from it are not "
        "needed",
        notes=_backup_notes,
    ),
    Method(
        "dpsgd",
        _dpsgd,
        "D-PSGD: combine, then adapt",
        (D_PSGD,),
        family="gossip",
        mixing="doubly",
        absence="its neighbours go on without its parameters; back again, it sends what it has at once",
    ),
)
