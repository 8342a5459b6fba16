"""A task's figures of mean models that lie in slots (`readings`), for all simulations of a batch in one program."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from dbwjax.engine.batch import Axes, Batch, picked, shared


def evaluate_slots(evaluate: Batch, mean: PyTree, which: tuple, mesh: Mesh | None = None) -> dict[str, Array]:
    """A task's figures of the mean models in some slots.

    Args:
      evaluate: B evaluations.
      mean: `Held.mean`, as `advance_batch` gives it.
      which: simulations `[devices, E]` and slots `[devices, E]`, counted on the device, and how many of the E are
        wanted, `[devices]`.
      mesh: the devices that share the batch.

    Returns:
      `[devices, E]` by name, zero beyond what is wanted.
    """
    return _evaluate(evaluate.tree, Axes(evaluate.axes), mean, *which, mesh)


@partial(jax.jit, static_argnames=("axes", "mesh"))
def _evaluate(
    evaluate: Any, axes: Axes, mean: PyTree, sims: Array, slots: Array, count: Array, mesh: Mesh | None
) -> dict[str, Array]:
    def some(evaluate: Any, mean: PyTree, sims: Array, slots: Array, count: Array) -> dict[str, Array]:
        def figures(i: Array) -> dict[str, Array]:
            model = jax.tree.map(lambda leaf: leaf[slots[0, i]], mean)
            return picked(Batch(evaluate, axes.tree), sims[0, i])(model)

        def body(carry: tuple[Array, dict]) -> tuple[Array, dict]:
            i, found = carry
            return i + 1, jax.tree.map(lambda every, new: every.at[i].set(new), found, figures(i))

        shapes = jax.eval_shape(figures, jnp.zeros((), jnp.int32))
        blank = jax.tree.map(lambda leaf: jnp.zeros(sims.shape[1:] + leaf.shape, leaf.dtype), shapes)
        found = jax.lax.while_loop(lambda carry: carry[0] < count[0], body, (jnp.zeros((), jnp.int32), blank))[1]
        return jax.tree.map(lambda leaf: leaf[None], found)

    return shared(some, (axes.tree, 0, 0, 0, 0), mesh)(evaluate, mean, sims, slots, count)
