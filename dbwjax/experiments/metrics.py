"""What is measured of a stack of models: the mean model, and how far the workers are from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree

from dbwjax.engine import batch
from dbwjax.engine.batch import Axes, Batch, shared
from dbwjax.engine.learner import readable
from dbwjax.engine.mixing import expand_to, upcast
from dbwjax.types import Graph, ModelState


def mean_model(share: Float[Array, " N"], params: PyTree) -> PyTree:
    """The weighted sum of the nodes' parameters: leaves `[N, ...]` to `[...]`, at least float32.

    Args:
      share: each row's weight; 1 / workers for the workers, 0 for rows that do not count (a server, padding).
      params: the stack, in any order of rows.
    """

    def average(leaf: Array) -> Array:
        if leaf.dtype.itemsize < 4:
            # A matrix product would first write the whole stack down as float32.
            return (expand_to(share.astype(jnp.float32), leaf) * upcast(leaf)).sum(axis=0)
        flat = leaf.reshape(leaf.shape[0], -1)
        return jnp.matmul(share.astype(leaf.dtype), flat, precision="highest").reshape(leaf.shape[1:])

    return jax.tree.map(average, params)


def consensus_distance(share: Float[Array, " N"], params: PyTree, mean: PyTree) -> Float[Array, ""]:
    """Root mean square over workers of the Euclidean distance to the mean model, `sqrt(1/N sum_i |x_i - x|^2)`.

    Source: Kong et al. 2021, "Consensus Control for Decentralized Deep Learning", arXiv 2102.04828, equation (3).

    Args:
      share: as for `mean_model`; only which rows have any is read.
      params: the stack.
      mean: the mean model.
    """

    def squared(leaf: Array, centre: Array) -> Array:
        gap = (upcast(leaf) - centre[None]) ** 2
        return gap.reshape(gap.shape[0], -1).sum(axis=1)

    distances = sum(jax.tree.leaves(jax.tree.map(squared, params, mean)))
    workers = share > 0
    return jnp.sqrt(jnp.where(workers, distances, 0).sum() / workers.sum())


@jax.jit
def measure(
    graph: Graph,
    evaluate: Callable[[PyTree], dict[str, Array]],
    state: ModelState,
    counts: Bool[Array, " rows"] | None = None,
) -> dict[str, Array]:
    """The mean model's test figures, and the consensus distance of the workers, without a second copy of the stack.

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


def measure_batch(graphs: Batch, evaluate: Batch, states: ModelState, mesh: Mesh | None = None) -> dict[str, Array]:
    """`measure` of B simulations at once; leaves `[B]`.

    Args:
      graphs: B graphs.
      evaluate: B evaluations.
      states: stacked `[B, N, ...]`.
      mesh: the devices that share the batch; `None`: one.
    """
    return _measure_batch(graphs.tree, evaluate.tree, states, Axes((graphs.axes, evaluate.axes, 0)), mesh)


@partial(jax.jit, static_argnames=("axes", "mesh"))
def _measure_batch(graphs: Graph, evaluate: Any, states: ModelState, axes: Axes, mesh: Mesh | None) -> dict:
    def some(*trees: Any) -> dict:
        if trees[2].started.shape[0] > 1:
            return jax.vmap(measure, in_axes=axes.tree)(*trees)
        single = [batch.alone(batch.Batch(tree, axis), 0) for tree, axis in zip(trees[:2], axes.tree[:2], strict=True)]
        found = measure(*single, jax.tree.map(lambda leaf: leaf[0], trees[2]))
        return jax.tree.map(lambda leaf: leaf[None], found)

    return shared(some, axes.tree, mesh)(graphs, evaluate, states)
