"""The models at given times: what every worker *holds* then, read off the stack on the way.

Worker j holds `x_j(k)` from the start of its iteration k to the start of the next. The host knows from the clock, which
runs ahead, at which step each worker's parameters must be read for which row (`Due`). A row is the mean of what the
workers hold; those that pass its time at other steps are added to it there. Masked means and squared distances are
merged by the formula of Chan, Golub and LeVeque (1983), because a plain sum of squares cancels in float32.

A row lies in a slot until all its workers are in it and it has been evaluated, so the memory is that of the open rows,
however far workers drift apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from dbwjax.engine.learner import readable
from dbwjax.engine.mixing import expand_to, upcast
from dbwjax.engine.sharding.placement import WHOLE, Placement
from dbwjax.types import ModelState


class Due(NamedTuple):
    """What is read before each of `C` steps; arrays, so that nothing is compiled anew.

    Before step k the readings `first[k]` to `first[k + 1] - 1` are taken, each of some workers of one simulation into
    one slot, and the copies `own_first[k]` to `own_first[k + 1] - 1`, each of one worker.
    """

    first: Int[Array, " C+1"]
    sim: Int[Array, " K"]  # of a batch; 0 where there is one simulation
    slot: Int[Array, " K"]
    weights: Float[Array, "K N"]  # 1 for the workers that are read
    before: Float[Array, " K"]  # workers that are in the slot already
    own_first: Int[Array, " C+1"]
    own_sim: Int[Array, " Q"]
    own_worker: Int[Array, " Q"]


class Held(NamedTuple):
    """What has been read."""

    mean: PyTree  # [S, ...] mean of the workers in the slot, at least float32
    spread: Float[Array, " S"]  # sum over them of squared distances to it
    own: PyTree | None  # [B, N, ...] single workers' parameters as they are read; None: not wanted


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


def squared_distances(params: PyTree, mean: PyTree) -> Float[Array, " N"]:
    """`[N]` squared Euclidean distances of the rows of a stack to one model."""

    def squared(leaf: Array, centre: Array) -> Array:
        gap = (upcast(leaf) - centre[None]) ** 2
        return gap.reshape(gap.shape[0], -1).sum(axis=1)

    return sum(jax.tree.leaves(jax.tree.map(squared, params, mean)))  # type: ignore[return-value]


def empty(params: PyTree, slots: int, own: PyTree | None = None) -> Held:
    """Nothing read yet.

    Args:
      params: one worker's parameters, or their shapes.
      slots: S.
      own: where single workers are wanted, an array (or a shape) like their stack for every leaf, `[B, N, ...]`.
    """
    mean = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), jax.eval_shape(upcast, leaf).dtype), params)
    double = any(leaf.dtype.itemsize > 4 for leaf in jax.tree.leaves(mean))
    zeros = None if own is None else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), own)
    return Held(mean, jnp.zeros(slots, jnp.float64 if double else jnp.float32), zeros)


def take(
    due: Due,
    step: Array,
    model: ModelState,
    held: Held,
    place: Placement = WHOLE,
    batched: bool = False,
    report: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> tuple[Held, ModelState]:
    """Takes the readings that are due before a step.

    Args:
      due: of the chunk.
      step: k, counted within the chunk.
      model: before the step; with a leading axis B where `batched`.
      held: what has been read so far.
      place: which rows of the stack are here.
      batched: whether the model is a batch.
      report: the learner's: what is read in a worker's place, from its parameters and its local state.

    Returns:
      What has been read now, and the model as it was, which the step must use: it went through the loops, because XLA
      would copy a stack that a loop reads and somebody else overwrites.
    """

    def of(params: PyTree, sim: Array) -> tuple[PyTree, Array | None]:
        part = (params, model.mass, None if report is None else model.local)
        if batched:
            part = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, sim, keepdims=False), part)
        if report is None:
            return part[:2]
        return jax.vmap(report)(part[0], part[2]), part[1]

    def reading(carry: tuple[Array, Held, PyTree]) -> tuple[Array, Held, PyTree]:
        i, held, params = carry
        held = _merge(due, i, of(params, due.sim[i]), held, place)
        return i + 1, held, _touched(params, held.spread[due.slot[i]])

    def copy(carry: tuple[Array, Held, PyTree]) -> tuple[Array, Held, PyTree]:
        i, held, params = carry
        sim, worker = due.own_sim[i], due.own_worker[i]
        row = place.local(worker)

        def put(kept: Array, leaf: Array) -> Array:
            return kept.at[sim, row].set(leaf.at[row].get(mode="clip"), mode="drop")

        stack, mass = of(params, sim)
        own = jax.tree.map(put, held.own, readable(stack, place.of_nodes(mass, None)))
        first = jax.tree.leaves(own)[0]
        return i + 1, held._replace(own=own), _touched(params, first[(0,) * first.ndim])

    def until(last: Array) -> Any:
        return lambda carry: carry[0] < last

    params = model.params
    _, held, params = jax.lax.while_loop(until(due.first[step + 1]), reading, (due.first[step], held, params))
    if held.own is not None:
        begin = due.own_first[step], held, params
        _, held, params = jax.lax.while_loop(until(due.own_first[step + 1]), copy, begin)
    return held, model._replace(params=params)


def _touched(params: PyTree, read: Array) -> PyTree:
    """The stack, one of its rows written over itself once `read`, which comes of reading it, is known.

    What a loop only reads XLA hoists out of its carry, and then copies it at every step for whoever overwrites it
    later: a whole stack, where this is a row.
    """
    first = (read < 0).astype(jnp.int32)

    def touched(leaf: Array) -> Array:
        if leaf.dtype.itemsize < 4:
            return leaf  # a CPU would write the whole stack down as float32, which costs more than the copy
        row = jax.lax.dynamic_slice_in_dim(leaf, first, 1)
        return jax.lax.dynamic_update_slice_in_dim(leaf, row, first, 0)

    return jax.tree.map(touched, params)


def _merge(due: Due, i: Array, read: tuple[PyTree, Array | None], held: Held, place: Placement) -> Held:
    """One reading, merged into its slot."""
    slot, exact = due.slot[i], held.spread.dtype
    before, every = due.before[i].astype(exact), due.weights[i].astype(exact)
    weights, count = place.mine_once(every), every.sum()
    stack, mass = read[0], place.of_nodes(read[1], None)
    share = weights / count
    # Under push-sum the weights are divided, not the parameters: that would be another stack.
    mean = place.total(mean_model(share if mass is None else jnp.where(weights > 0, share / mass, 0), stack))
    if any(leaf.dtype.itemsize < 4 for leaf in jax.tree.leaves(stack)):
        # Apart, or a stack of bfloat16 is widened once for both and written down.
        stack, mean = jax.lax.optimization_barrier((stack, mean))
    distances = squared_distances(readable(stack, mass), mean)
    spread = place.total(jnp.where(weights > 0, distances, 0).sum())
    old = jax.tree.map(lambda leaf: leaf[slot], held.mean)
    gap = jax.tree.map(lambda new, was: new - was, mean, old)
    part, weight = count / (before + count), before * count / (before + count)
    first = before == 0
    merged = jax.tree.map(lambda new, was, by: jnp.where(first, new, was + by * part.astype(by.dtype)), mean, old, gap)
    apart = sum(jnp.sum(by**2) for by in jax.tree.leaves(gap))
    total = jnp.where(first, spread, held.spread[slot] + spread + apart * weight)
    return held._replace(
        mean=jax.tree.map(lambda leaf, new: leaf.at[slot].set(new), held.mean, merged),
        spread=held.spread.at[slot].set(total.astype(held.spread.dtype)),
    )
