"""The gossip family under a neighbour barrier: each worker goes on when *its* messages are in, so workers drift apart.

A step is iteration k of every worker, at different times. With `T_j(k)` the start of worker j's iteration k, the
clock's origin is `max_j T_j(k)`, the start times are `offset = T(k) - origin <= 0`, and a plan's `ready` is `T(k+1)`,
counted from that origin.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dbwjax.network.weights import Weights, metropolis
from dbwjax.policies.gossip import matrix, require_workers
from dbwjax.types import Graph, Key, Plan, Policy


class NeighbourState(NamedTuple):
    """Start times of the iteration, and what is fixed once for a graph."""

    offset: Float[Array, " N"]  # T_j(k) - max_i T_i(k), seconds
    weights: PyTree
    backups: Int[Array, ""]  # b, neighbours that nobody waits for


def backup(b: int = 0, weights: Weights | None = None) -> Policy:
    """Static backup workers among neighbours; `b=0` is cb-Full under a neighbour barrier. Adapt, then combine.

        T_j(k+1) = max(T_j + c_j, the (|N_j| - b)-th smallest over i in N_j of T_i + c_i + latency_ji)

    Worker j mixes the iteration-k messages that are in by then. Each row is stochastic: the weights are those of the
    whole graph, which a worker knows without asking who waited for whom, and the diagonal takes the rest.

    Args:
      b: slowest neighbours that nobody waits for.
      weights: of the whole graph; Metropolis by default.

    Raises:
      ValueError: `b` below 0; in `init`, a `b` that leaves some worker no neighbour to wait for.
    """
    if b < 0:
        raise ValueError(f"b={b} is not a number of backup workers; use 0 or more")
    scheme = weights or metropolis()

    def init_fn(graph: Graph) -> NeighbourState:
        require_workers(graph)
        degrees = np.asarray(graph.links).sum(axis=1)
        if b and b >= degrees.min():
            worker, degree = int(degrees.argmin()), int(degrees.min())
            most = max(degree - 1, 0)
            raise ValueError(
                f"b={b} leaves worker {worker} none of its {degree} neighbours to wait for; use 0 to {most}"
            )
        return _start(graph, scheme, b)

    def decide_fn(
        key: Key, graph: Graph, state: NeighbourState, remaining: Array, feedback: Any
    ) -> tuple[Plan, NeighbourState]:
        del key, feedback
        arrival = jnp.where(graph.links, remaining[graph.neighbours] + graph.latency, jnp.inf)
        needed = graph.links.sum(axis=1) - state.backups
        in_order = jnp.sort(arrival, axis=1)
        last = jnp.take_along_axis(in_order, jnp.maximum(needed - 1, 0)[:, None], axis=1)[:, 0]
        ready = jnp.maximum(remaining, jnp.where(needed > 0, last, -jnp.inf))

        kept = graph.links & (arrival <= ready[:, None])
        base = scheme.apply(state.weights, graph, graph.links)[:, 1:]
        heard = jnp.where(kept[:, 1:], base, 0)
        slots = jnp.concatenate([1 - heard.sum(axis=1, keepdims=True), heard], axis=1)
        mix, sources = matrix(slots, graph, kept)
        return _plan(state, ready, mix=mix, sources=sources)

    return Policy(init_fn, decide_fn)


def dpsgd(weights: Weights | None = None, everybody: bool = False) -> Policy:
    """D-PSGD: combine, then adapt (Lian et al. 2017, arXiv 1705.09056, Algorithm 1).

        mix = W      push = identity      X' = W @ X + U

    Worker j sends `x_j(k)` when its iteration k *starts*, so messages travel while gradients are computed:
    `T_i(k+1) = max(T_i + c_i, max over j in N_i of T_j + latency_ij)`.

    Args:
      weights: of the whole graph; Metropolis by default.
      everybody: a global barrier, on the same footing as DTUR: an iteration ends for everybody when all have finished
        and all messages are in, `max(max_i c_i, max over links of latency)`.
    """
    scheme = weights or metropolis()

    def init_fn(graph: Graph) -> NeighbourState:
        require_workers(graph)
        return _start(graph, scheme, 0)

    def decide_fn(
        key: Key, graph: Graph, state: NeighbourState, remaining: Array, feedback: Any
    ) -> tuple[Plan, NeighbourState]:
        del key, feedback
        arrival = jnp.where(graph.links, state.offset[graph.neighbours] + graph.latency, -jnp.inf)
        ready = jnp.maximum(remaining, arrival.max(axis=1))
        mix, sources = matrix(scheme.apply(state.weights, graph, graph.links), graph, graph.links)
        if everybody:
            ready = jnp.broadcast_to(ready.max(), ready.shape)
        return _plan(state, ready, mix=mix, sources=sources, push=jnp.ones_like(remaining))

    return Policy(init_fn, decide_fn)


def _start(graph: Graph, scheme: Weights, backups: int) -> NeighbourState:
    offset = jnp.zeros(graph.neighbours.shape[0], jnp.result_type(float))
    return NeighbourState(offset, scheme.init(graph), jnp.asarray(backups))


def _plan(state: NeighbourState, ready: Array, **fields: Any) -> tuple[Plan, NeighbourState]:
    duration = ready.max()
    plan = Plan(duration=duration, fresh=jnp.ones(ready.shape, bool), ready=ready, **fields)
    return plan, state._replace(offset=ready - duration)
