"""One device's rows of a simulation whose workers are cut among devices, inside `shard_map`.

Gradients are local; mixing moves the rows that links carry across (`schedule`), and nothing else but each step's losses
and a flag. Delays, batches, plans and padded mixing are bitwise those of one device, because the same slots are added
in the same order. Plans that name their workers (an event of one worker, a server's) are computed on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine import mixing
from dbwjax.engine.sharding.schedule import Exchange, Layout
from dbwjax.types import Plan, StepRecord

AXIS = "workers"


class Part:
    """One device's rows: a `placement.Placement` that lives inside `shard_map`.

    Args:
      exchange: the schedule.
      layout: its arrays as `shard_map` cuts them: this device's rows of `order` and `real`, its line of `lookup`.
    """

    def __init__(self, exchange: Exchange, layout: Layout):
        self.exchange, self.order, self.real, self.position = exchange, layout.order, layout.real, layout.position
        self.lookup, self.send = layout.lookup[0], [rows[0] for rows in layout.send]

    def numbers(self, nodes: int) -> Array:  # noqa: D102
        return self.order

    def mine(self, vector: Array) -> Array:  # noqa: D102
        return vector[self.order]

    def mine_once(self, vector: Array) -> Array:  # noqa: D102
        return jnp.where(self.real, vector[self.order], 0)

    def of_nodes(self, vector: Array | None, nodes: Array | None) -> Any:  # noqa: D102
        return None if vector is None else vector[self.order if nodes is None else nodes]

    def local(self, nodes: Array) -> Array:  # noqa: D102
        height = self.exchange.height
        place = self.position.at[nodes].get(mode="fill", fill_value=-1) - jax.lax.axis_index(AXIS) * height
        return jnp.where((place >= 0) & (place < height), place, height)

    def take(self, tree: PyTree, nodes: Array | None) -> PyTree:  # noqa: D102
        if nodes is None:
            return tree
        if nodes.size >= self.exchange.nodes:
            rows = self.position.at[nodes].get(mode="clip")
            return jax.tree.map(lambda leaf: _gathered(leaf)[rows], tree)
        place = self.local(nodes)
        here = place < self.exchange.height

        def rows_of(leaf: Array) -> Array:
            own = leaf.at[place].get(mode="clip")
            # One device has the row and the others add zeros, so the sum is the row.
            return jax.lax.psum(jnp.where(mixing.expand_to(here, own), own, jnp.zeros_like(own)), AXIS)

        return jax.tree.map(rows_of, tree)

    def put(self, tree: PyTree, nodes: Array | None, rows: PyTree) -> PyTree:  # noqa: D102
        return mixing.write_rows(None if nodes is None else self.local(nodes), tree, rows)

    def everyone(self, tree: PyTree) -> PyTree:  # noqa: D102
        return jax.tree.map(lambda leaf: _gathered(leaf)[self.position], tree)

    def apply(self, plan: Plan, params: PyTree, updates: PyTree) -> PyTree:  # noqa: D102
        written = self.mixed(plan, updates if plan.push is None else params)
        if plan.push is not None:
            written = jax.tree.map(jnp.add, written, self._pushed(plan, plan.push, updates))
        rounded = jax.tree.map(lambda sums, leaf: sums.astype(leaf.dtype), written, params)
        return self.put(params, plan.rows, rounded)

    def total(self, tree: PyTree) -> PyTree:  # noqa: D102
        return jax.lax.psum(tree, AXIS)

    def checked(self, plan: Plan, record: StepRecord) -> StepRecord:  # noqa: D102
        if plan.rows is not None or plan.sources is None or self.exchange.gather:
            return record
        astray = self._places(plan.sources) < 0
        lost = (astray & (self.mine(plan.mix) != 0) & self.real[:, None]).any()
        anywhere = jax.lax.pmax(lost.astype(jnp.int32), AXIS)
        return record._replace(unreachable=anywhere > 0)

    def mixed(self, plan: Plan, tree: PyTree) -> PyTree:
        """`mix @ tree`, not rounded, for the rows that are written: those here (`rows=None`), or all of them on every
        device."""
        if plan.rows is None and plan.sources is not None:
            return self._neighbours(self.mine(plan.mix), plan.sources, tree)
        if plan.sources is None:
            weights = self._by_row(plan.mix if plan.rows is not None else self.mine(plan.mix))
            return jax.tree.map(lambda leaf: mixing.weighted(weights, None, _gathered(leaf)), tree)
        read = self.take(tree, plan.sources.reshape(-1))
        places = jnp.arange(plan.sources.size).reshape(plan.sources.shape)
        return jax.tree.map(lambda leaf: mixing.weighted(plan.mix, places, leaf), read)

    def _pushed(self, plan: Plan, push: Array, updates: PyTree) -> PyTree:
        if plan.workers is None and push.ndim == 2 and push.shape[0] == 1:  # the same sum for every row
            mine = self.mine_once(push[0])[None]
            return jax.lax.psum(jax.tree.map(lambda leaf: mixing.pushed(mine, leaf), updates), AXIS)
        push = push if plan.rows is not None or push.shape[0] == 1 else self.mine(push)
        if plan.pushers is not None:
            updates = jax.tree.map(lambda leaf: leaf[plan.pushers], updates)
        elif push.ndim == 1:  # each row takes its own update
            updates = self.take(updates, plan.rows)
        elif plan.workers is None:
            push, updates = self._by_row(push), jax.tree.map(_gathered, updates)
        return jax.tree.map(lambda leaf: mixing.pushed(push, leaf), updates)

    def _neighbours(self, weights: Array, sources: Array, tree: PyTree) -> PyTree:
        """Padded mixing of the rows here; a row is read from this device or from what has just been received."""
        # Padding rows keep to themselves: what they stand for may lie on a device that sends them nothing.
        own = jnp.arange(self.exchange.height)[:, None]
        weights = jnp.where(self.real[:, None], weights, jnp.arange(weights.shape[1]) == 0)
        if self.exchange.gather:
            places = jnp.where(self.real[:, None], self.position[sources[self.order]], 0)
            return jax.tree.map(lambda leaf: mixing.weighted(weights, places, _gathered(leaf)), tree)
        places = jnp.maximum(jnp.where(self.real[:, None], self._places(sources), own), 0)
        leaves, kind = jax.tree.flatten(tree)
        received = self._received(leaves)
        return jax.tree.unflatten(
            kind, [self._two_sources(weights, places, *pair) for pair in zip(leaves, received, strict=True)]
        )

    def _two_sources(self, weights: Array, places: Array, here: Array, there: Array | None) -> Array:
        if there is None:
            return mixing.weighted(weights, places, here)
        height = self.exchange.height

        def rows(slot: int | Array) -> Array:
            place = places[:, slot]
            near = here.at[jnp.minimum(place, height - 1)].get(mode="promise_in_bounds")
            far = there.at[jnp.maximum(place - height, 0)].get(mode="promise_in_bounds")
            return jnp.where(mixing.expand_to(place < height, near), near, far)

        return mixing.add_slots(weights.astype(mixing.accumulator_dtype(here)), rows)

    def _received(self, leaves: Sequence[Array]) -> list[Array | None]:
        """For each leaf the rows that other devices send, round after round; leaves of one type travel together."""
        if not self.send:
            return [None] * len(leaves)
        result: list[Array | None] = [None] * len(leaves)
        for dtype in {leaf.dtype for leaf in leaves}:
            which = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
            rounds = []
            for one, rows in zip(self.exchange.rounds, self.send, strict=True):
                flat = [leaves[i][rows].reshape(one.rows, -1) for i in which]
                rounds.append(jax.lax.ppermute(jnp.concatenate(flat, axis=1), AXIS, one.pairs))
            arrived, start = jnp.concatenate(rounds), 0
            for i in which:
                width = leaves[i][0].size
                result[i] = arrived[:, start : start + width].reshape(-1, *leaves[i].shape[1:])
                start += width
        return result

    def _places(self, sources: Array) -> Array:
        return self.lookup[sources[self.order]]

    def _by_row(self, weights: Array) -> Array:
        """`[R, N]` weights of nodes as `[R, L]` weights of rows; padding weighs nothing."""
        everywhere = jax.lax.all_gather(self.order, AXIS, tiled=True)
        real = jax.lax.all_gather(self.real, AXIS, tiled=True)
        return jnp.where(real[None, :], weights[:, everywhere], 0)


def _gathered(leaf: Array) -> Array:
    return jax.lax.all_gather(leaf, AXIS, tiled=True)
