"""Push-sum: gossip over directed links, where a sender cannot know what its receivers weigh.

Columns of the mixing sum to one, rows need not: a worker shares what it has among itself and those who hear it. A
scalar `w` (`ModelState.mass`) is shared in the same way, starts at 1, and tells how much each has gathered: parameters
are read as `x / w`. Sums of `x` and of `w` over the workers are kept by every exchange.

`sgp` does it in iterations, each worker waiting for those it hears; `agp` without any, nobody waiting for anybody.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dbwjax.limits import shown
from dbwjax.network.assembly import from_lists, with_latency
from dbwjax.network.properties import neighbour_lists
from dbwjax.policies.drifting import Drift, Going, drifting
from dbwjax.policies.events import Happening, Row, events
from dbwjax.policies.gossip import matrix, require_graph, require_no_latency
from dbwjax.policies.method import Barrier, Method
from dbwjax.policies.neighbours import in_flight
from dbwjax.policies.papers import AGP, SGP
from dbwjax.specs import nearest
from dbwjax.types import Graph, Key, Policy

Topology = Literal["given", "exponential", "one_peer"]
"""Who hears whom in `sgp`.

`given`: the run's graph. `exponential`: worker i hears i - 1, i - 2, i - 4, ... (modulo N; every offset below N).
`one_peer`: of the same links one at a time: in iteration k everybody sends to the worker `2^(k mod ceil(log2 N))` after
it, and to nobody else. With N a power of two, ceil(log2 N) iterations average exactly.
"""


class Shares(NamedTuple):
    """What is fixed for a graph, and where the cycle of one peer stands."""

    share: Float[Array, " N"]  # of what a worker has: so much it keeps, and so much each of those who hear it gets
    iteration: Int[Array, ""]


def sgp(graph: Topology = "given", barrier: Barrier = "neighbours") -> Policy:
    """Stochastic gradient push (Assran et al., arXiv 1811.10792, as recalled). Adapt, then combine.

        x, w = P @ (x + u(x / w)), P @ w        P[i, j] = 1 / (1 + how many hear j) where i hears j, and for i = j
        T_i(k+1) = max(T_i(k) + c_i, the largest over those heard of T_j(k) + c_j + latency_ij)

    A worker's gradient is of `x / w`; what it sends is `x` with its own update, and `w`. Message k is used in iteration
    k by whoever hears it, so the parameters are those of the synchronous method whatever the times. (The paper also has
    an overlapping variant, in which messages may be some iterations late; that is not here.) An update moves `x / w` by
    `u / w`: on a graph so uneven that some `w` are small, step sizes must be, too. With momentum or Adam the state is
    the worker's own.

    `exponential` and `one_peer` bring links of their own, in place of the graph's. A message takes the mean time of the
    graph's links on each of them; that is our choice.

    Args:
      graph: who hears whom.
      barrier: `global`: an iteration ends for everybody when all have finished and all messages are in.

    Raises:
      ValueError: an unknown `graph`; in `init`, a graph that `require_graph` refuses (links may go one way, but
        everybody must hear everybody, if by way of others).
    """
    if graph not in get_args(Topology):
        raise ValueError(f"unknown graph={shown(graph)}; {nearest(str(graph), get_args(Topology))}")
    topology: Topology = graph

    def init_fn(graph: Graph) -> Shares:
        require_graph(graph, "column")
        nodes = len(graph.computes)
        heard_by = np.full(nodes, min(nodes - 1, 1)) if topology == "one_peer" else _heard_by(graph)
        return Shares(jnp.asarray(1 / (1 + heard_by), jnp.result_type(float)), jnp.zeros((), jnp.int32))

    def go_on(key: Key, graph: Graph, drift: Drift, remaining: Array) -> tuple[Going, Shares]:
        del key
        share, iteration = drift.own
        own, kept = graph.neighbours[:, 0], graph.links
        sources: Array | None
        if topology == "one_peer":
            peer = _peer(own, iteration)
            kept = kept & (graph.neighbours == peer[:, None])
            mix, sources = jnp.stack([share, 1 - share], axis=1), jnp.stack([own, peer], axis=1)
        else:
            used = kept.at[:, 0].set(True)
            mix, sources = matrix(jnp.where(used, share[graph.neighbours], 0), graph, used)
        arrival = jnp.where(kept, remaining[graph.neighbours] + graph.latency, -jnp.inf)
        ready = jnp.maximum(remaining, arrival.max(axis=1))
        flight = in_flight(graph._replace(links=kept), remaining, remaining, arrival, ready)
        if barrier == "global":
            ready = jnp.broadcast_to(ready.max(), ready.shape)
        plan = {"mix": mix, "sources": sources, "flight": flight, "messages": kept.sum(dtype=jnp.int32)}
        return Going(ready, plan), Shares(share, iteration + 1)

    bring = None if topology == "given" else _exponential
    return drifting(init_fn, go_on, pushsum=True, network=bring)


def _heard_by(graph: Graph) -> np.ndarray:
    """How many hear each node, `[N]`; on the host."""
    sources = np.asarray(graph.neighbours)[np.asarray(graph.links)]
    return np.bincount(sources, minlength=len(graph.computes))


def hearers(graph: Graph) -> Int[Array, "N H"]:
    """Those who hear each node, ascending and padded with N; on the host.

    H is at least the slots for neighbours, so that padded graphs of one shape give states of one shape.
    """
    lists, nodes = neighbour_lists(graph), len(graph.computes)
    who: list[list[int]] = [[] for _ in range(nodes)]
    for receiver, near in enumerate(lists):
        for sender in near:
            who[int(sender)].append(receiver)
    width = max([graph.neighbours.shape[1] - 1, *map(len, who)])
    return jnp.asarray(np.array([row + [nodes] * (width - len(row)) for row in who]).reshape(nodes, width), jnp.int32)


def _peer(own: Array, iteration: Array) -> Array:
    """Whom each worker hears in an iteration."""
    nodes = own.shape[0]
    return (own - jnp.left_shift(1, iteration % _rounds(nodes))) % nodes


def _rounds(nodes: int) -> int:
    """ceil(log2 N), and 1 for one node."""
    return max((nodes - 1).bit_length(), 1)


def _exponential(graph: Graph) -> Graph:
    """The directed exponential graph on the same nodes; each link takes the mean time of the graph's."""
    nodes, links = len(graph.computes), np.asarray(graph.links)
    offsets = [1 << m for m in range(_rounds(nodes))] if nodes > 1 else []
    lists = [np.array(sorted((i - offset) % nodes for offset in offsets), int) for i in range(nodes)]
    made = from_lists(lists, np.asarray(graph.computes))
    seconds = np.asarray(graph.latency, np.float64)[links]
    return with_latency(made, np.where(made.links, seconds.mean() if len(seconds) else 0.0, 0.0))


class Sending(NamedTuple):
    """What is fixed for a graph."""

    hearers: Int[Array, "N H"]  # who hears each worker; N: nobody


def agp() -> Policy:
    """Asynchronous gradient-push (Assran and Rabbat, arXiv 1803.08950, as recalled): `sgp` without iterations.

    On the finish of worker i: `x_i += u_i`, then it keeps `1 / (d + 1)` of `x_i` and `w_i` and sends as much to each of
    the d workers that hear it, which add it to what they have; it goes on from `x_i / w_i` at once. Nobody waits. What
    comes while a worker computes changes its `x` and `w` and not its running gradient, which is of what it started
    from: the same numbers as a receive buffer that is emptied when the worker finishes, before it sends. With momentum
    or Adam the state is the worker's own.

    Messages take no time: what is in flight would be missing in the workers' sums.

    Raises:
      ValueError: in `init`, links that take time, or a graph that `require_graph` refuses (links may go one way).
    """

    def init_fn(graph: Graph) -> Sending:
        require_graph(graph, "column")
        require_no_latency(graph, "agp", "what is in flight would be missing in the sums; use --latency 0, or sgp")
        return Sending(hearers(graph))

    def happen(key: Key, graph: Graph, state: Sending, i: Array, waits: Array) -> tuple[Happening, Sending]:
        del key, waits
        to, nodes = state.hearers[i], graph.computes.shape[0]
        there = (to < nodes).astype(graph.latency.dtype)
        share = 1 / (1 + there.sum())
        rows, told = [Row(i, [(i, share)], push=share)], {"messages": there.sum().astype(jnp.int32)}
        if to.shape[0]:
            rows.append(Row(to, [(to, there), (i, there * share)], push=there * share))
            told["heard"] = jnp.where(to < nodes, i, nodes)
        return Happening(rows, told=told), state

    return events(init_fn, happen, pushsum=True)


def _sgp(*, graph: Topology = "given", barrier: Barrier = "neighbours") -> Policy:
    return sgp(graph, barrier)


def _agp() -> Policy:
    return agp()


METHODS = (
    Method(
        "sgp",
        _sgp,
        "stochastic gradient push: push-sum over directed links, each worker waiting for those it hears",
        (SGP,),
        family="directed",
        mixing="column",
        absence="nobody waits for it, and what its senders would give it they keep; they learn at once of a message "
        "that is lost, and keep its mass",
    ),
    Method(
        "agp",
        _agp,
        "asynchronous gradient-push: a finisher shares what it has among those who hear it, and nobody waits",
        (AGP,),
        family="directed",
        mixing="column",
        absence="a finisher keeps the shares of those that are away, and learns at once of a message that is lost, "
        "whose mass it keeps",
    ),
)
