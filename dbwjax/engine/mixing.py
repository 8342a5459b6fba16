"""The one formula, `X' = mix @ X + push @ U`, on stacked pytrees.

Both forms of a mixing matrix have one meaning. Dense `[R, N]` is a matrix product at full precision. Sparse `[R, D]`
with `sources [R, D]` is one gather and multiply-add per slot, which XLA fuses into a single pass over the result: on a
CPU it runs at the speed of a copy, where segment sums and BCOO are several times slower (`benchmarks/mixing.py`).
Slots are added in their order, so the result does not depend on who arrived first.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dbwjax.types import Plan

UNROLLED_SLOTS = 32
"""Up to so many slots are unrolled into one fused pass; more are looped over, to bound the code XLA has to compile."""


def mix(weights: Array, sources: Array | None, tree: PyTree) -> PyTree:
    """Rows of weighted sums of nodes: `out[r] = sum_s weights[r, s] * tree[sources[r, s]]`.

    Args:
      weights: `[R, N]` when `sources` is `None`, otherwise `[R, D]`.
      sources: `[R, D]` node of each slot, or `None` for the dense form.
      tree: leaves `[N, ...]`.

    Returns:
      Leaves `[R, ...]`. Of leaves narrower than 32 bits the sums are float32 and rounded once.
    """
    return jax.tree.map(lambda leaf: weighted(weights, sources, leaf).astype(leaf.dtype), tree)


def weighted(weights: Array, sources: Array | None, leaf: Array) -> Array:
    """`mix` of one leaf `[N, ...]`, not rounded to its type."""
    weights = weights.astype(accumulator_dtype(leaf))
    return _dense(weights, leaf) if sources is None else _slots(weights, sources, leaf)


def pushed(push: Array, leaf: Array) -> Array:
    """`push @ leaf`, not rounded to its type; a vector `push [R]` weighs each row's own update.

    Of a matrix `[1, M]` the result is `[1, ...]`, the same for every row.
    """
    push = push.astype(accumulator_dtype(leaf))
    if push.ndim == 1 or leaf.shape[0] == 1:  # of one update every row takes its share
        return expand_to(push.reshape(push.shape[0]), leaf) * upcast(leaf)
    return _dense(push, leaf)


def apply_plan(plan: Plan, params: PyTree, updates: PyTree) -> PyTree:
    """The parameters after a step: `X' = mix @ X + push @ U` on the rows that the plan writes.

    Args:
      plan: the step.
      params: leaves `[N, ...]`.
      updates: leaves `[M, ...]`, zero where an update does not count; under `push=None` already added to the
      parameters.

    Returns:
      Leaves `[N, ...]`.
    """
    if plan.push is None:
        written = mix(plan.mix, plan.sources, updates)
    else:
        push = plan.push
        if plan.pushers is not None:
            updates = jax.tree.map(lambda leaf: leaf[plan.pushers], updates)
        written = jax.tree.map(
            lambda x, u: (weighted(plan.mix, plan.sources, x) + pushed(push, u)).astype(x.dtype), params, updates
        )
    return write_rows(plan.rows, params, written)


def write_rows(rows: Array | None, tree: PyTree, written: PyTree) -> PyTree:
    """`tree` with `written [R, ...]` at `rows [R]` (`None`: everywhere; an entry equal to N writes nothing)."""
    if rows is None:
        return written
    return jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), tree, written)


def expand_to(vector: Array, leaf: Array) -> Array:
    """`vector [R]` shaped to multiply `leaf [R, ...]`."""
    return vector.reshape(vector.shape + (1,) * (leaf.ndim - 1))


def upcast(leaf: Array) -> Array:
    """A float narrower than 32 bits (bfloat16, float16) as float32; everything else as it is."""
    if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4:
        return leaf.astype(jnp.float32)
    return leaf


def accumulator_dtype(leaf: Array) -> jnp.dtype:
    """The type in which rows of a leaf are weighed and added."""
    return jax.eval_shape(upcast, leaf).dtype


def _dense(weights: Array, leaf: Array) -> Array:
    # Accelerators round the inputs of a float32 product by default, which would round every parameter at every step.
    flat = jnp.matmul(weights, upcast(leaf).reshape(leaf.shape[0], -1), precision=jax.lax.Precision.HIGHEST)
    return flat.reshape(weights.shape[:1] + leaf.shape[1:])


def _slots(weights: Array, sources: Array, leaf: Array) -> Array:
    return add_slots(weights, lambda slot: leaf.at[sources[:, slot]].get(mode="promise_in_bounds"))


def add_slots(weights: Float[Array, "R D"], rows: Callable[[int | Array], Array]) -> Array:
    """`sum_s weights[:, s] * rows(s)` in the order of the slots, `rows(s)` being the `[R, ...]` read for slot `s`."""

    def term(slot: int | Array) -> Array:
        read = rows(slot)
        return expand_to(weights[:, slot], read) * upcast(read)

    slots = weights.shape[1]
    if slots > UNROLLED_SLOTS:
        return jax.lax.fori_loop(1, slots, lambda slot, total: total + term(slot), term(0))
    total = term(0)
    for slot in range(1, slots):
        total = total + term(slot)
    return total
