"""Methods without a barrier: `adpsgd`, `randomized_gossip`, `token`, `swift`. Nobody waits for the slowest.

A step is one event: a worker finishes, or (`randomized_gossip`) a pair averages. Each worker makes its own update with
its own optimiser state; with plain SGD that is each paper's rule.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax.limits import shown, whole
from dbwjax.network import draws
from dbwjax.network.weights import metropolis
from dbwjax.policies.events import EventState, Happening, Row, events
from dbwjax.policies.gossip import require_graph, require_no_latency
from dbwjax.policies.method import Method
from dbwjax.policies.papers import AD_PSGD, GOSSIP, INCREMENTAL, SWIFT, TOKEN
from dbwjax.policies.partners import (
    is_node,
    message_seconds,
    pair_seconds,
    random_neighbour,
    random_slot,
    with_nodes,
)
from dbwjax.policies.presence import end_not_before
from dbwjax.policies.selection import first_least
from dbwjax.policies.sides import larger_side
from dbwjax.policies.ticks import Event, require_rate, ticking
from dbwjax.types import Graph, Key, Plan, Policy


class Partners(NamedTuple):
    """With whom each worker will average when it has finished, and who asks others at all."""

    partner: Int[Array, " N"]  # the worker itself: with nobody
    seconds: Float[Array, " N"]  # from the finish until both have the other's message
    asks: Bool[Array, " N"]
    pair: Float[Array, "N D"]  # those seconds, by worker and slot


def adpsgd(bipartite: bool = False) -> Policy:
    """AD-PSGD (Lian, Zhang, Zhang, Liu 2018, arXiv 1710.06952, as recalled).

        worker i finishes a gradient g of the copy that it started from, and picks a neighbour j at random:
        x_i, x_j <- (x_i + x_j) / 2      then x_i <- x_i - eta g

    Worker j goes on with what it computes, at the copy which that started from. Worker i starts its next computation
    from what it has then. Of several finishes at one instant that of the lowest number comes first.

    With latency, both send when i finishes, and the exchange takes place when both messages are in: that is the later
    of the two, and i waits for it. The exchange stays atomic, as in the paper: it averages what both have at that
    instant, and neither is locked until then, so that others may average with either meanwhile. That is our reading.

    A worker without neighbours applies its updates and averages with nobody.

    Args:
      bipartite: only the workers of one side pick, and all of their neighbours are on the other; those of the other
        side apply their updates and never pick, so that no two exchanges can wait for each other. The side that picks
        is the larger one, of equals that of worker 0 (the choice is ours).

    Raises:
      ValueError: `bipartite` is no truth value; in `init`, a graph that `require_graph` refuses, or with `bipartite`
        one that has an odd cycle.
    """
    if not isinstance(bipartite, bool):
        raise ValueError(f"bipartite={shown(bipartite)} is no truth value; use true or false")

    def init_fn(graph: Graph) -> Partners:
        require_graph(graph, "doubly")
        nodes = graph.neighbours.shape[0]
        asks = larger_side(graph) if bipartite else np.ones(nodes, bool)
        none = jnp.zeros(nodes, jnp.result_type(float))
        return Partners(
            jnp.arange(nodes, dtype=graph.neighbours.dtype),
            none,
            jnp.asarray(asks),
            pair_seconds(graph).astype(none.dtype),
        )

    def pick(key: Key, graph: Graph, state: Partners, i: Array) -> tuple[Array, Array]:
        slot = jnp.where(state.asks[i], random_slot(key, graph, i), 0)
        return graph.neighbours[i, slot], state.pair[i, slot]

    def begin_fn(key: Key, graph: Graph, state: EventState) -> EventState:
        own = state.own
        partner, seconds = jax.vmap(lambda i: pick(key, graph, own, i))(jnp.arange(own.asks.shape[0]))
        return state._replace(own=own._replace(partner=partner, seconds=seconds))

    def happen(key: Key, graph: Graph, state: Partners, i: Array, waits: Array) -> tuple[Happening, Partners]:
        del waits
        nodes, j = state.partner.shape[0], state.partner[i]
        mean = ((i, 0.5), (j, 0.5))  # with itself, a worker keeps what it has to the last bit
        partner, seconds = pick(key, graph, state, i)
        here = is_node(i, nodes)
        told = {
            "flight": state.seconds[i][None],
            "messages": jnp.where(j == i, 0, 2),
            "info": {"partner": j, "next": partner},
        }
        after = state._replace(
            partner=jnp.where(here, partner, state.partner), seconds=jnp.where(here, seconds, state.seconds)
        )
        rows = (Row(i, mean, push=1.0), Row(jnp.where(j == i, nodes, j), mean))
        return Happening(rows, told=told), after

    return events(init_fn, happen, travel=lambda graph, state: state.seconds, begin=begin_fn)


def randomized_gossip(rate: float = 1.0) -> Policy:
    """Asynchronous SGD over randomized gossip (Boyd, Ghosh, Prabhakar, Shah 2006, as recalled).

    Every worker has a Poisson clock (`ticks.py`). At a tick of worker i it picks a neighbour j at random, and both take
    the mean of what they have. Whoever finishes adds its update, computed at the copy that it started from, to its own
    parameters alone, and goes on. The paper is about averaging; gradients between its ticks are the plainest addition.

    An average is of one instant, so messages take no time. A worker without neighbours has no clock.

    Args:
      rate: ticks per worker and mean computation; each worker takes part in about twice as many averages.

    Raises:
      ValueError: a `rate` that is none; in `init`, latency, or a graph that `require_graph` refuses.
    """
    rate = require_rate(rate)

    def init_fn(graph: Graph) -> tuple[()]:
        require_graph(graph, "doubly")
        require_no_latency(graph, "randomized_gossip", "an average is of one instant; use --latency 0, or adpsgd")
        return ()

    def happen(key: Key, graph: Graph, state: tuple[()], event: Event) -> tuple[Happening, tuple[()]]:
        i, nodes = event.node, graph.neighbours.shape[0]
        j = jnp.where(event.tick, random_neighbour(key, graph, i), i)
        mean = ((i, 0.5), (j, 0.5))
        rows = (Row(i, mean, push=1.0), Row(jnp.where(event.tick, j, nodes), mean))
        told = {"messages": jnp.where(event.tick, 2, 0), "info": {"partner": j}}
        return Happening(rows, told=told), state

    return ticking(init_fn, happen, rate)


class Walk(NamedTuple):
    """Where the token may go, and where it has been."""

    weights: Float[Array, "N D"]  # Metropolis, of the workers' graph
    held: Bool[Array, " N"]  # who has had the token


def token() -> Policy:
    """A token that walks the graph (Johansson, Rabi, Johansson 2009, as recalled): incremental SGD.

    The token carries the parameters. Its holder computes one gradient at them, applies it, and passes the token on:
    to neighbour j with the Metropolis weight `w_ij` of the graph, and to itself with the rest, so that the walk visits
    all equally often in the long run. Everybody else waits. Worker 0 holds it first.

    The token is a node of its own behind the workers, and the model is what it carries. The clock starts everybody at
    time 0; whoever does not hold the token is not computing then, and a first turn is a computation of its own: of all
    but worker 0, computation 0 never takes place.

    With latency, the next holder starts when the message from the last one is there; keeping the token takes no time.

    Raises:
      ValueError: in `network`, a graph that `require_graph` refuses.
    """

    def network(graph: Graph) -> Graph:
        require_graph(graph, "doubly")
        return with_nodes(graph, 1)

    def init_fn(graph: Graph) -> EventState:
        first = jnp.arange(graph.neighbours.shape[0]) == 0
        weights = metropolis().apply(None, graph, graph.links)
        return EventState(Walk(weights, first), ~first)

    def happen(key: Key, graph: Graph, state: Walk, i: Array, waits: Array) -> tuple[Happening, Walk]:
        del waits
        carrier = graph.neighbours.shape[0] - 1
        j = _walked(key, graph, state.weights, i)
        seconds, next_holder = message_seconds(graph, j, i), is_node(j, carrier + 1)
        told = {
            "idle": next_holder & ~state.held,
            "flight": seconds[None],
            "messages": jnp.where(j == i, 0, 1),
            "info": {"holder": i, "next": j},
        }
        rows = (Row(carrier, ((carrier, 1.0),), push=1.0),)
        found = Happening(rows, start=j, after=seconds, at=carrier, told=told)
        return found, state._replace(held=state.held | next_holder)

    policy = events(lambda graph: None, happen, stale=False, network=network, evaluated=lambda graph: ~graph.computes)
    return policy._replace(init=init_fn, housed=lambda node, workers: jnp.full_like(node, -1))


def _walked(key: Key, graph: Graph, weights: Float[Array, "N D"], i: Array) -> Int[Array, ""]:
    """Where a step of the walk from worker `i` leads: along slot s with the weight of slot s, else nowhere."""
    taken = weights[i, 1:] if graph.known is None else jnp.where(graph.links[i, 1:], weights[i, 1:], 0)
    reached = jnp.cumsum(taken)
    share = draws.uniform(key, i, jnp.zeros((), jnp.int32), weights.dtype)
    return jnp.append(graph.neighbours[i, 1:], i.astype(graph.neighbours.dtype))[(reached <= share).sum()]


class Swift(NamedTuple):
    """What is fixed for a graph, and how far each worker is."""

    weights: Float[Array, "N D"]  # Metropolis
    every: Int[Array, ""]
    done: Int[Array, " N"]  # iterations


def swift(every: int = 1) -> Policy:
    """SWIFT (Bornstein, Rabbani, Wang, Bedi, Huang 2023, arXiv 2210.14026; rule from the authors' code).

        worker i finishes a gradient g of x_i:      x_i <- sum_j w_ij x_j  in each `every`-th iteration of i, else x_i
                                                    x_i <- x_i - eta g,    g at x_i before the averaging

    Only `x_i` changes: `x_j` is the newest that i has of j. Nobody waits. The mean of all is kept in expectation only.

    As in the paper's algorithm, a worker sends its parameters to all its neighbours when it starts an iteration. So
    without latency the newest are those that j has, and no mailbox is needed; with latency they would be older ones,
    which is refused. (The authors' code sends them when the gradient is there, just before averaging: then they are
    those of one iteration before.) Weights are Metropolis ones (ours; the authors choose weights by how often each
    worker is active, which for equally fast workers are symmetric, too).

    Args:
      every: a worker averages in every so-manieth of its iterations, and sends in each.

    Raises:
      ValueError: an `every` that is no whole number from 1; in `init`, latency, or a graph that `require_graph`
        refuses.
    """
    every = whole("every", every)

    def init_fn(graph: Graph) -> Swift:
        require_graph(graph, "doubly")
        require_no_latency(graph, "swift", "a neighbour's newest parameters would be older; use --latency 0, or adpsgd")
        weights = metropolis().apply(None, graph, graph.links)
        return Swift(weights, jnp.asarray(every), jnp.zeros(graph.neighbours.shape[0], jnp.int32))

    def decide_fn(key: Key, graph: Graph, state: Swift, remaining: Array, feedback: Any) -> tuple[Plan, Swift]:
        del key, feedback
        i, now = first_least(remaining)
        now = end_not_before(graph, now)
        averages = (state.done[i] + 1) % state.every == 0
        alone = jnp.arange(graph.neighbours.shape[1]) == 0
        plan = Plan(
            duration=jnp.maximum(now, 0),
            fresh=jnp.ones(1, bool),
            mix=jnp.where(averages, state.weights[i], alone)[None],
            sources=jnp.where(averages & graph.links[i], graph.neighbours[i], i)[None],
            push=jnp.ones((1, 1), now.dtype),
            workers=i[None],
            rows=i[None],
            restart=i[None],
            messages=graph.links[i].sum(),
            updates=jnp.asarray(False),  # no worker's parameters change while it computes, so nothing is stale
        )
        return plan, state._replace(done=state.done + is_node(i, remaining.shape[0]))

    return Policy(init_fn, decide_fn)


def _adpsgd(*, bipartite: bool = False) -> Policy:
    return adpsgd(bipartite)


def _randomized_gossip(*, rate: float = 1.0) -> Policy:
    return randomized_gossip(rate)


def _token() -> Policy:
    return token()


def _swift(*, every: int = 1) -> Policy:
    return swift(every)


METHODS = (
    Method(
        "adpsgd",
        _adpsgd,
        "AD-PSGD: whoever finishes averages with a random neighbour, then adds its stale update; nobody waits",
        (AD_PSGD,),
        family="pairwise",
        mixing="doubly",
        absence="it is picked by nobody; whoever has picked it already adds its own update and averages with nobody",
    ),
    Method(
        "randomized_gossip",
        _randomized_gossip,
        "gossip SGD: random pairs average at Poisson ticks; whoever finishes updates its own model",
        (GOSSIP,),
        family="pairwise",
        mixing="doubly",
        absence="it has no ticks and is picked by nobody; who ticks averages with a neighbour that is there",
    ),
    Method(
        "token",
        _token,
        "a token with the parameters walks the graph; its holder computes, everybody else waits",
        (INCREMENTAL, TOKEN),
        family="pairwise",
        mixing="row",
        absence="the token goes to nobody that is known to be absent; where its holder is away it waits for it, and "
        "with a holder that never returns the method cannot go on",
    ),
    Method(
        "swift",
        _swift,
        "SWIFT: whoever finishes averages its neighbours' newest models into its own; nobody waits",
        (SWIFT,),
        family="pairwise",
        mixing="row",
        absence="its neighbours average without its newest parameters, the weight being their own",
    ),
)
