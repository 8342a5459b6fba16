"""MATCHA: each iteration averages over some matchings of the graph, drawn by chance (Wang et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax.limits import real, require_count
from dbwjax.network import draws
from dbwjax.network.matchings import matchings
from dbwjax.network.weights import masked
from dbwjax.policies.drifting import Drift, Going, drifting
from dbwjax.policies.gossip import matrix, require_graph
from dbwjax.policies.method import Barrier, Method
from dbwjax.policies.neighbours import in_flight
from dbwjax.policies.papers import MATCHA
from dbwjax.types import Graph, Key, Policy

CUTS = 300
"""Rounds of cutting planes at most; the best probabilities seen are kept."""

CLOSE = 1e-6
"""The eigenvalue reached is this close to the largest possible one, relatively, where the rounds suffice. (The linear
programmes are solved to 1e-7.) Erdos-Renyi graphs of 32 and 100 workers took 52 and 101 rounds."""

OUTWARDS = 0.3
"""How far the next trial lies from the best so far towards the programme's answer: with 1 the 100 workers took 300
rounds and were not there."""


class MatchaState(NamedTuple):
    """What is fixed once for a graph. There are D matchings at most, so that the shapes are those of the graph."""

    matching: Int[Array, "N D"]  # number of the matching of each link; 0 where there is no link
    probability: Float[Array, " D"]  # that a matching is used in an iteration; 0 for numbers that are none
    step: Float[Array, ""]  # a, the weight of a link that is used


def matcha(budget: float = 0.5, everybody: bool = True) -> Policy:
    """MATCHA: adapt, then combine over the matchings that are drawn (arXiv 1905.09435; authors' code).

        X' = W @ (X + U),  W = I - a sum_j B_j L_j,  B_j = 1 with probability p_j, independently

    `L_j` is the Laplacian of matching j of M. The probabilities maximise the second smallest eigenvalue of
    `Lbar = sum_j p_j L_j`, subject to `sum_j p_j <= budget * M`; then `a` minimises the rate of consensus, the spectral
    norm of `E[W W] - J = I - 2 a Lbar + a^2 (Lbar^2 + 2 sum_j p_j (1 - p_j) L_j) - J`. With `budget=1` every matching
    is used always, and this is `full:weights=best_constant`.

    A worker's message sets out when it has finished, over the links that are used. Under the global barrier an
    iteration ends for everybody when all have finished and these messages are in; otherwise each worker waits for the
    neighbours with which it is matched, and for nobody where it is not.

    Ours: the matchings (`network/matchings.py`: M is the largest degree, or one more); the probabilities by cutting
    planes (a linear programme that gains the cuts of the lowest eigenvectors until its bound is reached within `CLOSE`,
    or for `CUTS` rounds); `a` by bisection of the norm's slope, the norm being convex in it.

    Args:
      budget: share of the matchings that are used on average, above 0, at most 1.
      everybody: the global barrier.

    Raises:
      ValueError: a budget out of range; in `init`, a graph that `require_graph` refuses, or one too large for its
        spectrum.
    """
    if not 0 < real("budget", budget) <= 1:
        raise ValueError(f"budget={budget:g} is no share of the matchings; use one above 0, at most 1")

    def init_fn(graph: Graph) -> MatchaState:
        require_graph(graph, "doubly")
        return design(graph, budget)

    def go_on(key: Key, graph: Graph, drift: Drift, remaining: Array) -> tuple[Going, MatchaState]:
        state = drift.own
        drawn, used = activated(key, graph, state)
        arrival = jnp.where(used, remaining[graph.neighbours] + graph.latency, -jnp.inf)
        ready = jnp.maximum(remaining, arrival.max(axis=1))
        flight = in_flight(graph._replace(links=used), remaining, remaining, arrival, ready)
        if everybody:
            ready = jnp.broadcast_to(ready.max(), ready.shape)
        mix, sources = matrix(masked(jnp.broadcast_to(state.step, used.shape), used), graph, used)
        plan = {"mix": mix, "sources": sources, "flight": flight, "messages": used.sum(), "info": drawn}
        return Going(ready, plan), state

    return drifting(init_fn, go_on)


def activated(key: Key, graph: Graph, state: MatchaState) -> tuple[Bool[Array, " D"], Bool[Array, "N D"]]:
    """Which matchings an iteration uses, and which links. Traceable.

    Args:
      key: of the iteration.
      graph: who hears whom.
      state: from `design`.
    """
    numbers = jnp.arange(state.probability.shape[0], dtype=jnp.int32)
    chance = jax.vmap(lambda j: draws.uniform(key, j, jnp.zeros_like(j), state.probability.dtype))(numbers)
    drawn = chance < state.probability
    return drawn, graph.links & drawn[state.matching]


def design(graph: Graph, budget: float) -> MatchaState:
    """The matchings of a graph, their probabilities and the step; on the host, in float64.

    Raises:
      ValueError: a graph too large for its spectrum.
    """
    links, slots = np.asarray(graph.links), graph.neighbours.shape[1]
    require_count("workers", len(links), lambda count: 64.0 * count * count, " and the spectrum of their Laplacian")
    number = matchings(graph)
    rows, places = np.nonzero(links)
    heard = np.asarray(graph.neighbours)[rows, places]
    ends = [
        np.stack([rows, heard], axis=1)[(number[rows, places] == j) & (rows < heard)] for j in range(number.max() + 1)
    ]
    probability = np.zeros(slots)
    probability[: len(ends)] = probabilities(len(links), ends, budget)
    step = best_step(len(links), ends, probability)
    kind = jnp.result_type(float)
    return MatchaState(jnp.asarray(np.maximum(number, 0)), jnp.asarray(probability, kind), jnp.asarray(step, kind))


def probabilities(nodes: int, ends: list[np.ndarray], budget: float) -> np.ndarray:
    """`p [M]` of largest second eigenvalue of `sum_j p_j L_j`, with `sum p <= budget * M` and each from 0 to 1.

    Args:
      nodes: N.
      ends: the links of each matching, `[links, 2]`, as pairs of nodes.
      budget: above 0, at most 1.
    """
    from scipy.linalg import eigh
    from scipy.optimize import linprog

    count = len(ends)
    best = np.full(count, budget)
    if budget == 1 or count < 2:  # all of them always; or one or none, which has the budget
        return best
    reached, trial, cuts = 0.0, best, np.zeros((0, count))
    for _ in range(CUTS):
        # The lowest few above the constant vector: a cut each, or symmetric graphs would need many rounds.
        lowest = [1, min(4, nodes - 1)]
        values, vectors = eigh(laplacian(nodes, ends, trial), subset_by_index=lowest)
        if values[0] > reached * (1 + CLOSE / 100):  # rounding does not choose among equally good ones
            reached, best = values[0], trial
        new = np.stack([((vectors[e[:, 0]] - vectors[e[:, 1]]) ** 2).sum(axis=0) for e in ends], axis=1)
        cuts = np.concatenate([cuts, new])
        # t <= p @ cut for every cut; sum p <= budget M. Unknowns: p, then t.
        bounds = np.concatenate([np.c_[-cuts, np.ones(len(cuts))], np.append(np.ones(count), 0)[None]])
        limits = np.append(np.zeros(len(cuts)), budget * count)
        solved = linprog(np.append(np.zeros(count), -1), bounds, limits, bounds=[(0, 1)] * count + [(None, None)])
        if not solved.success or -solved.fun - reached <= CLOSE * reached:
            break
        trial = best + OUTWARDS * (np.clip(solved.x[:count], 0, 1) - best)
        trial = trial * min(1, budget * count / trial.sum())
    return best


def laplacian(nodes: int, ends: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """`sum_j weights_j L_j`, `[N, N]`."""
    found = np.zeros((nodes, nodes))
    for pairs, weight in zip(ends, weights, strict=False):
        one, other = pairs.T
        found[one, other] = found[other, one] = -weight
    found[np.arange(nodes), np.arange(nodes)] = -found.sum(axis=1)
    return found


def best_step(nodes: int, ends: list[np.ndarray], p: np.ndarray) -> float:
    """The weight `a` of least `||I - 2 a Lbar + a^2 (Lbar^2 + 2 sum_j p_j (1 - p_j) L_j) - J||`; 0 without links."""
    if not ends:
        return 0.0
    mean = laplacian(nodes, ends, p)
    second = mean @ mean + 2 * laplacian(nodes, ends, p * (1 - p))
    rest = np.eye(nodes) - 1 / nodes

    def falls(a: float) -> bool:
        """Whether the norm falls at `a`: it is the largest of parabolas in `a`, one for each vector."""
        top = np.linalg.eigh(rest - 2 * a * mean + a * a * second)[1][:, -1]
        return float(top @ (a * second - mean) @ top) < 0

    return _turning(falls)


def _turning(falls: Callable[[float], bool]) -> float:
    """Where a convex function of positive numbers turns, to the last bits."""
    low, high = 0.0, 1.0
    while falls(high):
        low, high = high, 2 * high
    while high - low > 2e-16 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if falls(middle) else (low, middle)
    return (low + high) / 2


def _matcha(*, budget: float = 0.5, barrier: Barrier = "global") -> Policy:
    return matcha(budget, everybody=barrier == "global")


METHODS = (
    Method(
        "matcha",
        _matcha,
        "MATCHA: each iteration averages over matchings of the graph, drawn with chosen probabilities",
        (MATCHA,),
        family="gossip",
        mixing="doubly",
        absence="matchings are drawn as always, and links to it are not used",
    ),
)
