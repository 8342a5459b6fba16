"""Mixing weights: how much each worker takes from each neighbour, masked by the links that are active.

A scheme is a pair of functions over padded neighbour lists. What is not kept weighs exactly nothing and the diagonal
(slot 0) takes the rest, so every row sums to one. For a symmetric mask all schemes but `uniform` are symmetric, hence
doubly stochastic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from dbwjax.network.fastest_mixing import fastest_links, laplacian_ends
from dbwjax.types import Graph


class Weights(NamedTuple):
    """`init(graph) -> constants` on the host; `apply(constants, graph, kept [N, D]) -> [N, D]`, traceable."""

    init: Callable[[Graph], PyTree]
    apply: Callable[[PyTree, Graph, Array], Array]


def metropolis() -> Weights:
    """`1 / (1 + max(p_i, p_j))` with `p` the kept links of each end (Metropolis-Hastings; Xiao, Boyd, Kim 2007)."""

    def apply_fn(constants: None, graph: Graph, kept: Bool[Array, "N D"]) -> Float[Array, "N D"]:
        degree = kept.sum(axis=1)
        larger = jnp.maximum(degree[:, None], degree[graph.neighbours])
        return masked(1 / (1 + larger.astype(_real())), kept)

    return Weights(_nothing, apply_fn)


def lazy() -> Weights:
    """`(I + W) / 2` with Metropolis `W`: no negative eigenvalues."""
    scheme = metropolis()

    def apply_fn(constants: None, graph: Graph, kept: Bool[Array, "N D"]) -> Float[Array, "N D"]:
        return masked(scheme.apply(constants, graph, kept) / 2, kept)

    return Weights(_nothing, apply_fn)


def max_degree() -> Weights:
    """`1 / (d_max + 1)` on every kept link, `d_max` being the largest degree of the whole graph."""

    def init_fn(graph: Graph) -> Array:
        return jnp.asarray(1 / (1 + int(np.asarray(graph.links).sum(axis=1).max())), _real())

    return Weights(init_fn, _same_everywhere)


def best_constant() -> Weights:
    """`2 / (l_1(L) + l_{n-1}(L))`, the fastest constant edge weight (Xiao and Boyd 2004).

    `L` is the Laplacian of the whole graph, `l_1` its largest and `l_{n-1}` its smallest non-zero eigenvalue. The
    diagonal can be negative; the matrix is doubly stochastic in its sums, and converges on the whole graph.

    Raises:
      ValueError: in `init`, a graph in pieces or with links of one direction, or one too large and too dense for its
        spectrum.
    """

    def init_fn(graph: Graph) -> Array:
        low, high = laplacian_ends(graph, "best_constant")
        return jnp.asarray(2 / (low + high) if high else 0.0, _real())

    return Weights(init_fn, _same_everywhere)


def fdla() -> Weights:
    """The symmetric weights of fastest averaging, by a convex solver (Xiao and Boyd 2004); needs the extra `convex`.

    They are of the whole graph, and may be negative: sums are one, signs are not promised. Where links are dropped, the
    diagonal takes the rest, and what is left may be slower than under other schemes.

    Raises:
      ValueError: in `init`, a graph in pieces or with links of one direction, more workers than the solver does in
        seconds, or no cvxpy.
    """

    def init_fn(graph: Graph) -> Array:
        return jnp.asarray(fastest_links(graph), _real())

    def apply_fn(constants: Array, graph: Graph, kept: Bool[Array, "N D"]) -> Float[Array, "N D"]:
        return masked(constants, kept)

    return Weights(init_fn, apply_fn)


def uniform() -> Weights:
    """`1 / (1 + p_i)` on the kept links and on itself: rows are stochastic, columns only where degrees are equal."""

    def apply_fn(constants: None, graph: Graph, kept: Bool[Array, "N D"]) -> Float[Array, "N D"]:
        share = 1 / (1 + kept.sum(axis=1).astype(_real()))
        return masked(jnp.broadcast_to(share[:, None], kept.shape), kept)

    return Weights(_nothing, apply_fn)


WEIGHTS: dict[str, Callable[[], Weights]] = {
    "metropolis": metropolis,
    "max_degree": max_degree,
    "best_constant": best_constant,
    "fdla": fdla,
    "lazy": lazy,
    "uniform": uniform,
}


def dense(slots: Float[Array, "N D"], graph: Graph) -> Float[Array, "N N"]:
    """Slot weights as a full mixing matrix."""
    nodes = slots.shape[0]
    return jnp.zeros((nodes, nodes), slots.dtype).at[jnp.arange(nodes)[:, None], graph.neighbours].add(slots)


def _nothing(graph: Graph) -> None:
    del graph


def _same_everywhere(constant: Array, graph: Graph, kept: Array) -> Array:
    return masked(jnp.broadcast_to(constant[None, None], kept.shape), kept)


def masked(weights: Float[Array, "N D"], kept: Bool[Array, "N D"]) -> Float[Array, "N D"]:
    """Slot weights of the links kept, unchanged, and nothing of the others; slot 0 takes the rest of the row."""
    others = jnp.where(kept, weights, 0)[:, 1:]
    return jnp.concatenate([1 - others.sum(axis=1, keepdims=True), others], axis=1)


def _real() -> jnp.dtype:
    return jnp.result_type(float)
