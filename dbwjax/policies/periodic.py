"""Mixing now and then: `local_sgd` (every h-th iteration) and `dspodfl` (each link and each gradient by chance)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from dbwjax.limits import real, whole
from dbwjax.network import draws
from dbwjax.network.graphs import delivery
from dbwjax.network.weights import Weights, masked, metropolis
from dbwjax.policies.drifting import Drift, Going, drifting
from dbwjax.policies.gossip import matrix, require_graph
from dbwjax.policies.method import Barrier, Method, build_weights
from dbwjax.policies.neighbours import in_flight
from dbwjax.policies.papers import DSPODFL, LOCAL_SGD
from dbwjax.policies.presence import end_not_before, last_there
from dbwjax.types import Graph, Key, Plan, Policy


class PeriodState(NamedTuple):
    """Settings, what is fixed once for a graph, and how far the period is."""

    weights: PyTree
    h: Int[Array, ""]  # iterations of a period
    delivery: Float[Array, " N"]  # seconds until all neighbours have a worker's message
    done: Int[Array, ""]  # iterations of this period so far


def local_sgd(h: int, weights: Weights | str | None = None, everybody: bool = True) -> Policy:
    """Local SGD: each worker trains alone, and every h-th iteration ends in an averaging (Stich 2018, arXiv 1805.09767,
    as recalled).

    Iteration k of a worker is one computation. Where `(k+1) % h` is not 0 it adds its update and goes straight on,
    waiting for nobody. Otherwise it sends `x + u` to its neighbours and averages what they send: `X' = W @ (X + U)`.
    On the complete graph that is the mean, as in the paper; on others it is periodic gossip. `h=1` is `full` of the
    same barrier.

    Messages of an averaging set out when their sender has finished its h-th computation.

    Args:
      h: computations from one averaging to the next.
      weights: of the whole graph; Metropolis by default.
      everybody: a global barrier: the averaging ends for everybody when all have finished and all messages are in.
        Otherwise each worker goes on when its own neighbours' are in.

    Raises:
      ValueError: `h` below 1; in `init`, a graph that `require_graph` refuses.
    """
    h, scheme = whole("h", h), build_weights(weights)

    def init_fn(graph: Graph) -> PeriodState:
        require_graph(graph, "doubly")
        none = jnp.zeros((), jnp.int32)
        return PeriodState(scheme.init(graph), jnp.asarray(h, jnp.int32), delivery(graph), none)

    def go_on(key: Key, graph: Graph, drift: Drift, remaining: Array) -> tuple[Going, PeriodState]:
        del key
        state = drift.own
        mixes = state.done + 1 >= state.h
        arrival = jnp.where(graph.links, remaining[graph.neighbours] + graph.latency, -jnp.inf)
        ready = jnp.maximum(remaining, arrival.max(axis=1))
        flight = in_flight(graph, remaining, remaining, arrival, ready)
        if everybody:
            flight, ready = state.delivery, jnp.broadcast_to(ready.max(), ready.shape)
        kept = graph.links & mixes
        mix, sources = matrix(masked(scheme.apply(state.weights, graph, graph.links), kept), graph, kept)
        plan = {
            "mix": mix,
            "sources": sources,
            "flight": jnp.where(mixes, flight, 0),
            "messages": kept.sum(),
        }
        done = jnp.where(mixes, 0, state.done + 1)
        return Going(jnp.where(mixes, ready, remaining), plan), state._replace(done=done)

    return drifting(init_fn, go_on)


class Sporadic(NamedTuple):
    """Settings of `dspodfl`."""

    gradients: Float[Array, ""]  # probability that a worker computes in an iteration
    links: Float[Array, ""]  # probability that a link is used in one


def dspodfl(gradients: float, links: float) -> Policy:
    """DSpodFL: sporadic gradients and sporadic links (Zehtabi et al. 2024, arXiv 2402.03448; authors' code).

        x_i' = x_i + sum_j v_ij W_ij (x_j - x_i) + v_i u_i

    In every iteration each worker computes with probability `gradients`, and each link is used with probability
    `links`, in both directions; all draws are independent. `W` are the Metropolis weights of the whole graph, which do
    not depend on the draws. Who computes does so at its parameters before the averaging.

    Ours is the time: a global barrier. An iteration ends for everybody when all that compute have finished and all
    messages are in; parameters are sent when it starts, as under `dpsgd:barrier=global`, which this is with both
    probabilities 1. An iteration in which nobody computes and nothing travels takes no time. Every worker draws a
    computation in every iteration, so that iteration k has the same seconds and samples under both methods; who does
    not compute waits.

    Args:
      gradients: above 0, at most 1; with 0 no time would pass.
      links: from 0, where nobody ever averages, to 1.

    Raises:
      ValueError: a probability out of range; in `init`, a graph that `require_graph` refuses.
    """
    if not 0 < real("gradients", gradients) <= 1:
        remedy = "nobody would compute; use a probability above 0, at most 1" if gradients == 0 else _OUT
        raise ValueError(f"gradients={gradients:g}: {remedy}")
    if not 0 <= real("links", links) <= 1:
        raise ValueError(f"links={links:g}: {_OUT}")
    scheme = metropolis()

    def init_fn(graph: Graph) -> Sporadic:
        require_graph(graph, "doubly")
        kind = jnp.result_type(float)
        return Sporadic(jnp.asarray(gradients, kind), jnp.asarray(links, kind))

    def decide_fn(key: Key, graph: Graph, state: Sporadic, remaining: Array, feedback: None) -> tuple[Plan, Sporadic]:
        del feedback
        computes, used = drawn(key, graph, state)
        if graph.known is not None:
            computes &= graph.computes
        finished = jnp.where(computes, remaining, 0)
        arrival = jnp.where(used, graph.latency, -jnp.inf)
        ready = jnp.maximum(finished, arrival.max(axis=1))
        only = graph._replace(links=used)
        mix, sources = matrix(masked(scheme.apply(None, graph, graph.links), used), graph, used)
        plan = Plan(
            duration=end_not_before(graph, last_there(graph, ready)),
            fresh=computes,
            mix=mix,
            sources=sources,
            push=jnp.ones_like(remaining),
            active=computes | used.any(axis=1),
            idle=~computes,
            flight=in_flight(only, finished, jnp.zeros_like(remaining), arrival, ready),
            messages=used.sum(),
            info={"computes": computes, "used": used},
        )
        return plan, state

    return Policy(init_fn, decide_fn)


_OUT = "it is no probability; use 0 to 1"


def drawn(key: Key, graph: Graph, state: Sporadic) -> tuple[Bool[Array, " N"], Bool[Array, "N D"]]:
    """Who computes in an iteration, and which links are used. Both ends of a link draw the same. Traceable.

    Args:
      key: of the iteration.
      graph: who hears whom.
      state: the probabilities.
    """
    whose, which = jax.random.split(key)
    workers = jnp.arange(graph.neighbours.shape[0], dtype=jnp.int32)
    kind = state.gradients.dtype
    computes = jax.vmap(lambda i: draws.uniform(whose, i, jnp.zeros_like(i), kind))(workers) < state.gradients
    lower, higher = jnp.minimum(workers[:, None], graph.neighbours), jnp.maximum(workers[:, None], graph.neighbours)
    each = jax.vmap(jax.vmap(lambda i, j: draws.uniform(which, i, j, kind)))(lower, higher)
    return computes, graph.links & (each < state.links)


def _local_sgd(*, h: int = 4, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    return local_sgd(h, build_weights(weights), everybody=barrier == "global")


def _dspodfl(*, gradients: float = 0.5, links: float = 0.5) -> Policy:
    return dspodfl(gradients, links)


METHODS = (
    Method(
        "local_sgd",
        _local_sgd,
        "local SGD: workers train alone and average at every h-th iteration",
        (LOCAL_SGD,),
        family="gossip",
        mixing="doubly",
        absence="the others average without it; back again, it takes part in the next averaging as far as it has come",
    ),
    Method(
        "dspodfl",
        _dspodfl,
        "DSpodFL: in every iteration each worker computes, and each link is used, with a probability",
        (DSPODFL,),
        family="gossip",
        mixing="doubly",
        absence="it neither computes nor uses a link, and the others' draws are as always",
    ),
)
