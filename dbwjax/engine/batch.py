"""Trees stacked along a leading axis `B`: what all simulations have in common is kept once, the rest is stacked.

Several devices share a batch along a mesh axis `sims`: simulations never speak to one another, so nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

AXIS = "sims"


class Batch(NamedTuple):
    """Trees of one structure, stacked: leaves that differ have a leading axis `B`, the others are there once."""

    tree: PyTree
    axes: PyTree  # 0 or None for every leaf of `tree`, as `jax.vmap` takes them


def stack(trees: Sequence[PyTree]) -> Batch:
    """Stacks trees whose leaves agree in shape and type.

    Raises:
      ValueError: trees of different structures or shapes.
    """
    kinds: list[Any] = [jax.tree.structure(tree) for tree in trees]
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in trees]
    if any(kind != kinds[0] for kind in kinds) or any(shape != shapes[0] for shape in shapes):
        raise ValueError("simulations of different shapes cannot be one batch; run them one after another")
    columns = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    stacked = [_stacked(column) for column in columns]
    tree = jax.tree.unflatten(kinds[0], [leaf for leaf, _ in stacked])
    return Batch(tree, jax.tree.unflatten(kinds[0], [axis for _, axis in stacked]))


def stack_all(trees: Sequence[PyTree]) -> PyTree:
    """As `stack`, but every leaf has the leading axis `B`, also where all agree."""
    batch = stack(trees)
    leaves, kind = jax.tree.flatten(batch.tree)
    axes = _axes(kind, batch)
    wide = [
        jnp.broadcast_to(leaf, (len(trees), *np.shape(leaf))) if axis is None else leaf
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    return jax.tree.unflatten(kind, wide)


def take(batch: Batch, which: np.ndarray) -> Batch:
    """Some of a batch's simulations."""
    return Batch(_rows(batch, which), batch.axes)


def alone(batch: Batch, which: int) -> PyTree:
    """One of a batch's simulations, without the leading axis."""
    return _rows(batch, which)


def rows_of(tree: PyTree, which: np.ndarray | int) -> PyTree:
    """`leaf[which]` of every leaf, in one program."""
    return _gather(jax.tree.leaves(tree), np.asarray(which, np.int32), jax.tree.structure(tree))


def _rows(batch: Batch, which: np.ndarray | int) -> PyTree:
    """The rows of what differs, and what the simulations have in common as it is."""
    leaves, kind = jax.tree.flatten(batch.tree)
    axes = _axes(kind, batch)
    picked = iter(rows_of([leaf for leaf, axis in zip(leaves, axes, strict=True) if axis is not None], which))
    return jax.tree.unflatten(
        kind, [leaf if axis is None else next(picked) for leaf, axis in zip(leaves, axes, strict=True)]
    )


@partial(jax.jit, static_argnames=("kind",))
def _gather(leaves: list, which: Array, kind: Any) -> PyTree:
    return jax.tree.unflatten(kind, [leaf[which] for leaf in leaves])


def picked(batch: Batch, which: Array) -> PyTree:
    """`alone` for a number that is known only when the program runs."""
    leaves, kind = jax.tree.flatten(batch.tree)
    axes = _axes(kind, batch)
    return jax.tree.unflatten(
        kind,
        [
            leaf if axis is None else jax.lax.dynamic_index_in_dim(leaf, which, keepdims=False)
            for leaf, axis in zip(leaves, axes, strict=True)
        ],
    )


def mesh_of(devices: Sequence[Any]) -> Mesh | None:
    """A mesh of one axis, `sims`; `None` for a single device."""
    return None if len(devices) == 1 else Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def spread(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch cut along its simulations among the devices of `mesh`; what they have in common is put on each.

    `B` must be a multiple of the number of devices.
    """
    return _placed(spread_common(batch, mesh), mesh, P(AXIS), of=0)


def spread_common(batch: Batch, mesh: Mesh | None) -> Batch:
    """Puts what a batch's simulations have in common on every device of `mesh`, once for all blocks taken from it."""
    return _placed(batch, mesh, P(), of=None)


class Axes:
    """A tree of axes that can be a static argument: equal where the axes are."""

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, kind = jax.tree.flatten(tree, is_leaf=lambda axis: axis is None)
        self._key = (kind, tuple(leaves))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Axes) and self._key == other._key


def shared(function: Callable, axes: tuple, mesh: Mesh | None) -> Callable:
    """A function of batches, run by every device of `mesh` on its own simulations; for programs to be compiled.

    Args:
      function: its arguments and results are batches.
      axes: of every argument, as `jax.vmap` takes them.
      mesh: the devices that share the batch; `None`: one.
    """
    if mesh is None:
        return function
    specs = jax.tree.map(_spec, axes, is_leaf=lambda axis: axis is None)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)


def _placed(batch: Batch, mesh: Mesh | None, spec: P, of: int | None) -> Batch:
    """The leaves of one axis, `of`, where `spec` says."""
    if mesh is None:
        return batch
    leaves, kind = jax.tree.flatten(batch.tree)
    placed = [
        jax.device_put(leaf, NamedSharding(mesh, spec)) if axis == of else leaf
        for leaf, axis in zip(leaves, _axes(kind, batch), strict=True)
    ]
    return Batch(jax.tree.unflatten(kind, placed), batch.axes)


def _spec(axis: int | None) -> P:
    return P() if axis is None else P(AXIS)


def _axes(kind: Any, batch: Batch) -> list[int | None]:
    """The axis of every leaf."""
    return kind.flatten_up_to(batch.axes)


def _stacked(column: tuple) -> tuple[Any, int | None]:
    """One leaf of all trees, and its axis."""
    first = column[0]
    # Keys are stacked even where they agree, so that a batch of one has an axis to be mapped over.
    keys = isinstance(first, jax.Array) and jnp.issubdtype(first.dtype, jax.dtypes.prng_key)
    if not keys and all(leaf is first for leaf in column):
        return first, None
    host = [np.asarray(jax.random.key_data(leaf) if keys else leaf) for leaf in column]
    if not keys and all(np.array_equal(leaf, host[0]) for leaf in host[1:]):
        return first, None
    stacked = jnp.asarray(np.stack(host))
    return (jax.random.wrap_key_data(stacked, impl=jax.random.key_impl(first)) if keys else stacked), 0
