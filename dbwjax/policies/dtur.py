"""DTUR, the threshold rule of cb-DyBW: dynamic backup workers, chosen by the workers themselves.

Source: Xiong, Yan, Singh, Li, "Straggler-Resilient Distributed Machine Learning with Dynamic Backup Workers",
arXiv 2102.06280. Its text could not be had: this is after the abstract, and as recalled; late workers, delays and
learning rates are ours.

The rule. A spanning path P of the graph (a spanning tree where no path exists) is fixed at the start. Time is cut into
epochs. Iteration k ends at

    theta(k) = min over the links (i, j) of P not yet established in this epoch of max(t_i, t_j),

so at least one new link of P is established in every iteration. Workers with t <= theta(k) are active and mix over
*all* edges of the graph between active workers; every link of P between active workers becomes established, and when
all are, the set is emptied and a new epoch begins. An epoch has at most d iterations (d links in P), and the union of
its active graphs contains P, so it is connected: that is what the convergence proof needs. Worker j has `b_j(k) =
|N_j| - p_j(k)` backup workers, p_j(k) being its active neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax import numbers
from dbwjax.limits import real
from dbwjax.network.properties import eccentricity
from dbwjax.network.spanning import spanning_links
from dbwjax.policies.gossip import IDEALISED, LATE, Late, gossip
from dbwjax.policies.method import Barrier, Method, build_weights, only_global
from dbwjax.policies.papers import CB_DYBW
from dbwjax.policies.presence import last_there
from dbwjax.types import Graph, Key, Policy, WaitRule


class DturState(NamedTuple):
    """What DTUR remembers between iterations."""

    path: Int[Array, "L 2"]  # links of the spanning path or tree
    established: Bool[Array, " L"]  # in this epoch
    announcement: Float[Array, " N"] | None  # seconds until all have a worker's announcement; None: at once


def dtur(flood_latency: float = 0.0) -> WaitRule:
    """The waiting rule of cb-DyBW.

    The announcement that ends an iteration floods the network from the later end of the link that set theta, so it
    costs `flood_latency` times that worker's eccentricity; who arrives during the flood is late.

    Args:
      flood_latency: seconds per hop of the announcement.

    Raises:
      ValueError: a negative or infinite `flood_latency`.
    """
    if not 0 <= real("flood_latency", flood_latency) < float("inf"):
        raise ValueError(f"flood_latency={flood_latency:g} is not a time; use 0 or more seconds a hop")

    def init_fn(graph: Graph) -> DturState:
        links, _ = spanning_links(graph)
        seconds = None
        if flood_latency:
            flood = flood_latency * np.asarray(eccentricity(graph), float)
            for one in (flood.min(), flood.max()):
                numbers.require("flood_latency times the hops", float(one))
            seconds = jnp.asarray(flood, jnp.result_type(float))
        # The lower number first: where both ends arrive at one instant, it announces.
        path = jnp.asarray(np.sort(np.reshape(links, (-1, 2)), axis=1), jnp.int32)
        return DturState(path, jnp.zeros(len(links), bool), seconds)

    def cut_fn(key: Key, graph: Graph, state: DturState, arrival: Array) -> tuple[Array, Array, DturState]:
        del key
        if not state.path.shape[0]:  # one worker has no link to establish and waits for itself
            return jnp.ones(arrival.shape, bool), last_there(graph, arrival), state
        one, other = state.path[:, 0], state.path[:, 1]
        exchanged = jnp.maximum(arrival[one], arrival[other])
        if graph.known is None:
            candidates = jnp.where(state.established, jnp.inf, exchanged)
            theta = candidates.min()
            established = state.established | (exchanged <= theta)  # both ends are active
            established &= ~established.all()
        else:  # links that are not there count as established, for as long as they are not
            gone = ~_linked(graph, state.path)
            before = state.established & ~(state.established | gone).all()
            candidates = jnp.where(before | gone, jnp.inf, exchanged)
            theta = jnp.where(gone.all(), last_there(graph, arrival), candidates.min())
            established = before | ((exchanged <= theta) & ~gone)
        state = state._replace(established=established)
        if state.announcement is None:
            return arrival <= theta, theta, state
        # It floods from the later end of the link that set theta.
        one, other = state.path[jnp.argmin(candidates)]
        announcer = jnp.where(arrival[one] >= arrival[other], one, other)
        return arrival <= theta, theta + state.announcement[announcer], state

    return WaitRule(init_fn, cut_fn)


def _linked(graph: Graph, path: Int[Array, "L 2"]) -> Bool[Array, " L"]:
    """Which links of the path are there."""
    one, other = path[:, 0], path[:, 1]
    return (graph.links[one] & (graph.neighbours[one] == other[:, None])).any(axis=1)


def _dybw(
    *, late: Late = LATE, weights: str = "metropolis", flood_latency: float = 0.0, barrier: Barrier = "global"
) -> Policy:
    only_global(barrier)
    return gossip(dtur(flood_latency), build_weights(weights), late)


METHODS = (
    Method(
        "dybw",
        _dybw,
        "cb-DyBW: dynamic backup workers by the threshold rule DTUR",
        (CB_DYBW,),
        family="gossip",
        mixing="doubly",
        absence="the iteration goes on without who is absent, and a link of the path that has lost an end counts as "
        "established; back again, it takes part when it has finished",
        idealised=IDEALISED,
    ),
)
