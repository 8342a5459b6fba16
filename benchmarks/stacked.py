"""What is measured of a whole stack of models: the mean model's figures, and how far the workers are from it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from dbwjax.engine.learner import readable
from dbwjax.engine.readings import mean_model, squared_distances
from dbwjax.types import Graph, ModelState


def consensus_distance(share: Float[Array, " N"], params: PyTree, mean: PyTree) -> Float[Array, ""]:
    """Root mean square over workers of the Euclidean distance to the mean model, `sqrt(1/N sum_i |x_i - x|^2)`.

    Source: Kong et al. 2021, "Consensus Control for Decentralized Deep Learning", arXiv 2102.04828.

    Args:
      share: as for `mean_model`; only which rows have any is read.
      params: the stack.
      mean: the mean model.
    """
    workers = share > 0
    return jnp.sqrt(jnp.where(workers, squared_distances(params, mean), 0).sum() / workers.sum())


@jax.jit
def measure(
    graph: Graph, evaluate: Any, state: ModelState, counts: Bool[Array, " rows"] | None = None
) -> dict[str, Array]:
    """The mean model's test figures, and the consensus distance of the workers, without a second copy of the stack.

    This is of one state, whenever it was; a row of metrics is of one virtual time, see `engine.readings`.

    Args:
      graph: says who computes.
      evaluate: a task's `evaluate`, a callable pytree.
      state: the stacked models.
      counts: which rows of the stack are workers, where its rows are not the graph's nodes in their order.

    Returns:
      What `evaluate` returns, and `consensus_distance`; scalars.
    """
    workers = graph.computes if counts is None else counts
    share = workers / workers.sum()
    # Under push-sum the weights are divided, not the parameters: that would be another stack.
    mean = mean_model(share if state.mass is None else jnp.where(workers, share / state.mass, 0), state.params)
    # Apart, or a stack of bfloat16 is widened once for both and written down.
    params, mean = jax.lax.optimization_barrier((state.params, mean))
    distance = consensus_distance(share, readable(params, state.mass), mean)
    return {**evaluate(mean), "consensus_distance": distance}
