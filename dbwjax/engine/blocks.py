"""Gradients of many workers without the memory of all their batches and activations at once.

`map_workers` walks the workers in blocks: what a function makes on the way (a batch, activations) exists for one block
at a time. `in_slices` does the same inside one worker's batch. Both give what the whole gives, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.types import Learner


def map_workers(function: Callable[..., PyTree], block: int | None, *trees: PyTree) -> PyTree:
    """`jax.vmap(function)(*trees)`, `block` workers at a time.

    Args:
      function: of one worker.
      block: workers held in memory at once; `None`, or as many as there are: all. Where it does not divide them, the
        last block is shorter.
      trees: leaves `[M, ...]`.

    Returns:
      Leaves `[M, ...]`.

    Raises:
      ValueError: a block of less than one worker.
    """
    if block is None:
        return jax.vmap(function)(*trees)
    if block < 1:
        raise ValueError(f"block={block} holds no worker; use 1 or more, or None for all at once")
    if block >= jax.tree.leaves(trees)[0].shape[0]:
        return jax.vmap(function)(*trees)
    return jax.lax.map(lambda operands: function(*operands), trees, batch_size=block)


def in_slices(loss: Callable[[PyTree, PyTree], Array], slices: int) -> Callable[[PyTree, PyTree], Array]:
    """The same loss as the mean over equal slices of the batch, each recomputed on the way back (`jax.checkpoint`).

    For a loss that is a mean over its batch. Activations then exist for one slice at a time, and the forward pass is
    done twice: for models of which not even one worker fits.

    Args:
      loss: `(params, batch) -> ()`.
      slices: must divide the batch size; 1 gives `loss` itself.

    Raises:
      ValueError: less than one slice; when traced, a batch that `slices` does not divide.
    """
    if slices < 1:
        raise ValueError(f"slices={slices} is not a number of slices; use 1 or more")
    if slices == 1:
        return loss

    def sliced(params: PyTree, batch: PyTree) -> Array:
        size = jax.tree.leaves(batch)[0].shape[0]
        if size % slices:
            raise ValueError(f"slices={slices} does not divide the batch of {size} samples; use a divisor")
        parts = jax.tree.map(lambda leaf: leaf.reshape(slices, size // slices, *leaf.shape[1:]), batch)

        @jax.checkpoint
        def one(total: Array, part: PyTree) -> tuple[Array, None]:
            return total + loss(params, part).astype(total.dtype), None

        kind = jax.eval_shape(loss, params, jax.tree.map(lambda leaf: leaf[0], parts)).dtype
        total, _ = jax.lax.scan(one, jnp.zeros((), jnp.promote_types(kind, jnp.float32)), parts)
        return (total / slices).astype(kind)

    return sliced


def block_of(workers: int, bytes_per_worker: float, budget: int) -> int | None:
    """The block whose batches and activations fit `budget` bytes; a divisor of `workers` where one is near.

    Returns:
      `None` where all workers fit at once.

    >>> block_of(64, 100_000, 64 << 20), block_of(4096, 100_000, 16 << 20)
    (None, 128)
    """
    fits = max(1, int(budget // max(bytes_per_worker, 1)))
    if fits >= workers:
        return None
    divisors = [size for size in range(fits // 2 + 1, fits + 1) if workers % size == 0]
    return max(divisors, default=fits)


def working_bytes(learner: Learner, params: PyTree, batch: PyTree) -> int:
    """What one worker's gradient makes on the way, in bytes: the batch and every intermediate result of the traced
    function, a bound of what is alive at once. The results themselves are not counted.

    Args:
      learner: whose gradient.
      params: one worker's, or their shapes.
      batch: one worker's, or its shapes.
    """
    local = jax.eval_shape(learner.init, params)
    traced = jax.make_jaxpr(learner.gradient)(params, local, batch).jaxpr
    made = [variable for equation in traced.eqns for variable in equation.outvars if variable not in traced.outvars]
    made += traced.invars[len(jax.tree.leaves((params, local))) :]
    return sum(variable.aval.size * variable.aval.dtype.itemsize for variable in made if hasattr(variable.aval, "size"))
