"""Waiting rules with one end for everybody: `full`, `fastest`, `deadline`. (DTUR has a file of its own, `dtur.py`.)

A rule looks at one iteration's arrival times and says who is active and when the iteration ends. Settings that change
no shape are arrays in its state, so that a sweep over them is a `vmap`.

`fastest` is the rule of a parameter server with backup workers (Chen et al. 2016, arXiv 1604.00981) carried over to
gossip, and `deadline` is the same with a time in place of a number: there is no server, active workers average over the
links between them, and a late worker keeps its own parameters (see `gossip.Late`). That an iteration has ended is known
everywhere at once, as a server would tell it.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array

from dbwjax import numbers
from dbwjax.limits import real, whole
from dbwjax.policies import neighbours
from dbwjax.policies.gossip import IDEALISED, LATE, Late, gossip
from dbwjax.policies.method import Barrier, Method, build_weights, only_global
from dbwjax.policies.papers import CB_DYBW, SYNCHRONOUS_SGD
from dbwjax.policies.presence import at_most_there, last_there
from dbwjax.policies.selection import kth_smallest
from dbwjax.types import Graph, Key, Policy, WaitRule


def full() -> WaitRule:
    """Everybody waits for everybody (cb-Full, arXiv 2102.06280, as recalled): the slowest worker ends the iteration."""

    def init_fn(graph: Graph) -> None:
        del graph

    def cut_fn(key: Key, graph: Graph, state: None, arrival: Array) -> tuple[Array, Array, None]:
        del key
        return jnp.ones(arrival.shape, bool), last_there(graph, arrival), state

    return WaitRule(init_fn, cut_fn)


def fastest(k: int) -> WaitRule:
    """The iteration ends for everybody when `k` of the N workers have arrived; ties at that time are active too.

    The parameter server's rule with N - k backup workers (arXiv 1604.00981), carried over to gossip.

    Raises:
      ValueError: `k` below 1, and in `init` above N.
    """
    k = whole("k", k)

    def init_fn(graph: Graph) -> Array:
        workers = graph.neighbours.shape[0]
        if k > workers:
            raise ValueError(f"k={k} is more than the {workers} workers; use 1 to {workers}")
        return jnp.asarray(k)

    def cut_fn(key: Key, graph: Graph, state: Array, arrival: Array) -> tuple[Array, Array, Array]:
        del key
        end = kth_smallest(arrival, at_most_there(graph, state))
        return arrival <= end, end, state

    return WaitRule(init_fn, cut_fn)


def deadline(seconds: float) -> WaitRule:
    """The iteration ends after `seconds`, or as soon as everybody has arrived; `inf` is `full`.

    Raises:
      ValueError: `seconds` not above zero.
    """
    if not real("seconds", seconds) > 0:
        raise ValueError(f"seconds={seconds:g} lets no time pass; use a number above 0 (inf waits for everybody)")
    if seconds != math.inf:
        numbers.require("seconds", seconds)

    def init_fn(graph: Graph) -> Array:
        del graph
        return jnp.asarray(seconds, jnp.result_type(float))

    def cut_fn(key: Key, graph: Graph, state: Array, arrival: Array) -> tuple[Array, Array, Array]:
        del key
        end = jnp.minimum(last_there(graph, arrival), state)
        return arrival <= end, end, state

    return WaitRule(init_fn, cut_fn)


def _full(*, barrier: Barrier = "global", late: Late = LATE, weights: str = "metropolis") -> Policy:
    if barrier == "global":
        return gossip(full(), build_weights(weights), late)
    if late != LATE:
        raise ValueError(f"late={late} has no meaning where nobody is late; leave late= out with barrier=neighbours")
    return neighbours.backup(0, math.inf, build_weights(weights), mixing="doubly")


def _fastest(*, k: int, late: Late = LATE, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    only_global(barrier)
    return gossip(fastest(k), build_weights(weights), late)


def _deadline(*, seconds: float, late: Late = LATE, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    only_global(barrier)
    return gossip(deadline(seconds), build_weights(weights), late)


METHODS = (
    Method(
        "full",
        _full,
        "cb-Full: everybody waits for all neighbours",
        (CB_DYBW,),
        family="gossip",
        mixing="doubly",
        absence="everybody waits for it until its absence is known, then for those that are there; back again, it is "
        "waited for",
        idealised=IDEALISED,
    ),
    Method(
        "fastest",
        _fastest,
        "a parameter server's rule for gossip: the iteration ends when k workers have finished",
        (SYNCHRONOUS_SGD,),
        family="gossip",
        mixing="doubly",
        absence="the k fastest of those that are there end the iteration, or all of them where they are fewer",
        idealised=IDEALISED,
    ),
    Method(
        "deadline",
        _deadline,
        "the same with a clock: the iteration ends after a fixed time, or as soon as everybody has finished",
        (SYNCHRONOUS_SGD,),
        family="gossip",
        mixing="doubly",
        absence="the iteration ends at its time as always, or when all that are there have finished",
        idealised=IDEALISED,
    ),
)
