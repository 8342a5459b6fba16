"""DSGD-AAU: adaptive asynchronous updates, a waiting rule that grows its own spanning graph (arXiv 2306.06559).

Each worker computes all the time at its own parameters. A virtual iteration ends when two finished neighbours offer a
link that the epoch still wants: one whose ends are not yet connected by the links of this epoch. All that have finished
by then average over the links between them; the others go on with what they are computing, and nothing is thrown away.
When the epoch's links connect everybody, they are forgotten and the next epoch begins.

DTUR (`dtur.py`), by the same authors, waits for the links of a path that is fixed in advance. On a tree both wait for
the same links, and are the same method.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from dbwjax.network.bitmask import flagged
from dbwjax.policies.gossip import gossip
from dbwjax.policies.method import Method, build_weights
from dbwjax.policies.papers import DSGD_AAU
from dbwjax.policies.presence import last_there
from dbwjax.types import Graph, Key, Policy, WaitRule


def adaptive() -> WaitRule:
    """The iteration ends with the first link that joins two components of the epoch's graph (arXiv 2306.06559, as
    recalled).

        theta = min over links (i, j) of the graph, in different components, of max(t_i, t_j)
        active = those with t_i <= theta

    With `t` the arrivals. All links between active workers are then taken into the epoch's graph: of one that closes a
    cycle nothing is kept, so an epoch has at most N - 1 iterations. When the graph is connected it is emptied, in the
    same iteration. An only worker waits for itself.

    Ours, where the description leaves it open: several links that are ready at one instant are all taken; a link
    between two workers that are connected already is used for averaging and ends nothing.

    The state is the component of each worker `[N]`, named by its lowest number.
    """

    def init_fn(graph: Graph) -> Int[Array, " N"]:
        return jnp.arange(graph.neighbours.shape[0], dtype=jnp.int32)

    def cut_fn(
        key: Key, graph: Graph, state: Int[Array, " N"], arrival: Array
    ) -> tuple[Array, Array, Int[Array, " N"]]:
        del key
        nodes = arrival.shape[0]
        if nodes == 1:
            return jnp.ones(1, bool), last_there(graph, arrival), state
        offered = jnp.maximum(arrival[:, None], arrival[graph.neighbours])
        wanted = graph.links & (state[:, None] != state[graph.neighbours])
        if graph.known is not None:  # no link that is there joins anything more: the next epoch begins
            over = ~wanted.any()
            state = jnp.where(over, jnp.arange(nodes, dtype=state.dtype), state)
            wanted = jnp.where(over, graph.links, wanted)
        theta = jnp.where(wanted, offered, jnp.inf).min()
        if graph.known is not None:  # nobody that is there hears anybody
            theta = jnp.where(graph.links.any(), theta, last_there(graph, arrival))
        active = arrival <= theta
        joined = graph.links & active[:, None] & flagged(active, graph.neighbours)
        component = _joined(state, graph, joined)
        start = jnp.arange(nodes, dtype=state.dtype)
        return active, theta, jnp.where((component == 0).all(), start, component)

    return WaitRule(init_fn, cut_fn)


def _joined(component: Int[Array, " N"], graph: Graph, links: Bool[Array, "N D"]) -> Int[Array, " N"]:
    """The components after some links were taken in: the lowest number spreads over them until nothing changes."""
    nodes = component.shape[0]

    def spread(component: Array) -> Array:
        heard = jnp.where(links, component[graph.neighbours], nodes).min(axis=1)
        lowest = jnp.arange(nodes, dtype=component.dtype).at[component].min(jnp.minimum(component, heard))
        return lowest[component]

    def changes(pair: tuple[Array, Array]) -> Array:
        return (pair[0] != pair[1]).any()

    return jax.lax.while_loop(changes, lambda pair: (pair[1], spread(pair[1])), (component, spread(component)))[1]


def _dsgd_aau(*, weights: str = "metropolis") -> Policy:
    return gossip(adaptive(), build_weights(weights), "carry")


METHODS = (
    Method(
        "dsgd_aau",
        _dsgd_aau,
        "DSGD-AAU: the iteration ends with the first link that joins new workers; late ones compute on",
        (DSGD_AAU,),
        family="gossip",
        mixing="doubly",
        absence="links to it are not waited for, and an epoch ends when no link that is there joins anything more",
    ),
)
