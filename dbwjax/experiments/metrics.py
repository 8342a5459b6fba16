"""What is measured of a stack of models: the mean model, and how far the workers are from it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from dbwjax.engine.learner import readable
from dbwjax.types import Graph, ModelState


def mean_model(share: Array, params: PyTree) -> PyTree:
    """The average of parameters weighed by `share [L]`, which adds up to 1: leaves `[L, ...]` to `[...]`."""

    def average(leaf: Array) -> Array:
        flat = leaf.reshape(leaf.shape[0], -1)
        return jnp.matmul(share.astype(leaf.dtype), flat, precision="highest").reshape(leaf.shape[1:])

    return jax.tree.map(average, params)


def consensus_distance(share: Array, params: PyTree, mean: PyTree) -> Float[Array, ""]:
    """Root mean square, weighed by `share [L]`, of the distance to the mean model, `sqrt(1/N sum_i |x_i - x|^2)`.

    Source: Kong et al. 2021, "Consensus Control for Decentralized Deep Learning", arXiv 2102.04828, equation (3).
    """

    def squared(leaf: Array, centre: Array) -> Array:
        gap = (leaf - centre[None]) ** 2
        return gap.reshape(gap.shape[0], -1).sum(axis=1)

    distances = sum(jax.tree.leaves(jax.tree.map(squared, params, mean)))
    return jnp.sqrt((jnp.where(share > 0, distances, 0) * share).sum())


@jax.jit
def measure(
    graph: Graph,
    evaluate: Callable[[PyTree], dict[str, Array]],
    state: ModelState,
    counts: Bool[Array, " L"] | None = None,
) -> dict[str, Array]:
    """The mean model's test figures, and the consensus distance of the workers.

    Args:
      graph: says who computes.
      evaluate: a task's `evaluate`, a callable pytree.
      state: the stacked models.
      counts: which rows of the stack are workers that compute; by default the rows are the graph's nodes.

    Returns:
      What `evaluate` returns, and `consensus_distance`; scalars.
    """
    params = readable(state.params, state.mass)
    workers = graph.computes if counts is None else counts
    share = workers / workers.sum()
    mean = mean_model(share, params)
    return {**evaluate(mean), "consensus_distance": consensus_distance(share, params, mean)}
