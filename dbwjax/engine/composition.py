"""Consecutive events of different workers as one wide step: for servers, where every event writes the same node.

An event is a linear map: its rows become `mix @ X + push * u`. A block of events is one, too:

    X' = A X + B U     built event by event:     A[rows] = mix @ A[sources]
                                                 B[rows] = mix @ B[sources] + push in the column of the event's update

with X as it was before the block and U the updates of all its events, computed at once. That is exact, up to the order
of sums, as long as each update is computed at what was there before the block. So a block ends before an event

- whose worker restarted in the block, or has an update in it;
- whose update is computed at present parameters that the block has written (`Plan.at`, or no copies are kept);
- that restarts whom the block restarted, or writes a node that it restarted (what that one started from were lost);
- for whose update or nodes there is no room left, or before which a model is read (a barrier).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax.engine.waves import Events, Wide, Width, host, padded
from dbwjax.types import Plan


class Blocks(NamedTuple):
    """Which events lie in which block, and their nodes counted within it; the last number of a block is nobody's."""

    place: Int[np.ndarray, " T"]  # the block of each event
    before: Int[np.ndarray, " T"]  # the block before which a barrier before each event lies
    rows: Int[np.ndarray, "T R"]
    sources: Int[np.ndarray, "T R D"]


def compositions(events: Events, barrier: Bool[np.ndarray, " T"], width: Width, stale: bool, slots: int = 1) -> Wide:
    """Events as blocks.

    Args:
      events: in their order.
      barrier: before which of them all earlier ones must be done.
      width: of a block.
      stale: as `Policy.stale`.
      slots: how many sources a row is given at least; where one takes of more, twice as many.
    """
    blocks, height = cut(events, barrier, width, stale), height_of(events, width)
    place, fresh, total = blocks.place[: events.steps], events.fresh[: events.steps], len(events.fresh)
    count = int(place.max(initial=-1)) + 1
    begin = np.searchsorted(place, np.arange(count))
    table = np.full((count, width.events), total)
    table[place, np.arange(events.steps) - begin[place]] = np.arange(events.steps)
    before = np.cumsum(fresh) - fresh
    column = np.where(fresh, before - before[begin][place], 0)
    updates = np.full((count, width.updates), total)
    updates[place[fresh], column[fresh]] = np.flatnonzero(fresh)
    own, written = _nodes(events, blocks, (count, height + 1))
    taken, push = _maps(events, blocks, table, column, (height, width.updates))
    while slots < (taken != 0).sum(axis=2).max(initial=1):
        slots *= 2
    which = np.argsort(taken == 0, axis=2, kind="stable")[:, :, :slots]
    mix = np.take_along_axis(taken, which, axis=2)
    which = np.where(mix != 0, which, which[:, :, :1])  # padding takes nothing of what the row reads anyway
    sources = np.minimum(np.take_along_axis(own[:, None, :height], which, axis=2), events.nodes - 1)
    plan: dict[str, Any] = {
        "duration": np.zeros(count, events.mix.dtype),
        "fresh": updates < total,
        "mix": mix.astype(events.mix.dtype),
        "sources": sources.astype(np.int32),
        "push": push.astype(events.mix.dtype),
        "workers": padded(events.worker, events.nodes)[updates],
        "at": None if events.at is None else padded(events.at, 0)[updates],
        "rows": np.where(written, own, events.nodes)[:, :height].astype(np.int32),
        "restart": padded(events.restart, events.nodes)[table].reshape(count, -1),
    }
    return Wide(Plan(**plan), updates, blocks.before)


def height_of(events: Events, width: Width) -> int:
    """How many nodes a block may touch: a worker of each event, and those that they share."""
    rows, slots = events.mix.shape[1:]
    return width.events + rows * (1 + slots)


def _nodes(events: Events, blocks: Blocks, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Each block's nodes by their number in it, and whether it writes them."""
    own, written, place = np.full(shape, events.nodes), np.zeros(shape, bool), blocks.place[: events.steps]
    for numbers, nodes in ((blocks.sources, events.sources), (blocks.rows, events.rows)):
        flat = numbers[: events.steps].reshape(events.steps, -1)
        own[place[:, None], flat] = nodes[: events.steps].reshape(flat.shape)
    written[place[:, None], blocks.rows[: events.steps]] = True
    return own, written


def _maps(
    events: Events, blocks: Blocks, table: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> tuple[Float[np.ndarray, "W H H"], Float[np.ndarray, "W H M"]]:
    """A and B of each block, in float64: one event of every block at a time. Row H is of nobody, and of no use."""
    (height, most), count = shape, len(table)
    every = np.arange(count)
    made = np.zeros((count, height + 1, height + most))
    made[:, np.arange(height), np.arange(height)] = 1
    flat, begin = made.reshape(-1, height + most), every * (height + 1)

    def by_place(leaf: np.ndarray, padding: float) -> np.ndarray:  # [events of a block, W, ...]
        return np.ascontiguousarray(np.swapaxes(padded(leaf, padding)[table], 0, 1))

    rows, sources = by_place(blocks.rows, height) + begin[:, None], by_place(blocks.sources, height)
    sources = sources + begin[:, None, None]
    mix, push = (by_place(leaf, 0).astype(np.float64) for leaf in (events.mix, events.push))
    columns = height + by_place(np.append(column, np.zeros(len(events.fresh) - len(column), int)), 0)
    for number in range(int((table < len(events.fresh)).sum(axis=1).max(initial=0))):
        new = (flat[sources[number]] * mix[number][..., None]).sum(axis=2)
        new[every, :, columns[number]] += push[number]
        flat[rows[number]] = new
    return made[:, :height, :height], made[:, :height, height:]


class _Event(NamedTuple):
    """What the cutting of blocks looks at, stacked `[T, ...]`."""

    rows: Array  # [R]
    sources: Array  # [R*D], N where nothing is taken
    restart: Array  # [K]
    worker: Array  # ()
    computed_at: Array  # () the node at whose present parameters the update is computed; N: at a copy
    fresh: Array  # ()
    barrier: Array  # ()


class _State(NamedTuple):
    block: Array  # the number of the block
    floor: Array  # the block of the last barrier
    counts: Array  # [3] events, updates and nodes in the block
    touched: Array  # [N+1] the last block that each node is in
    wrote: Array  # [N+1] the last block that wrote each node
    restarted: Array  # [N+1] that restarted it
    updated: Array  # [N+1] that has an update of it


def cut(events: Events, barrier: np.ndarray, width: Width, stale: bool) -> Blocks:
    """Where blocks end; arguments as of `compositions`."""
    steps, height = events.rows.shape
    sources = events.sources.reshape(steps, -1)
    if events.at is not None:
        present = events.at
    else:
        present = np.full_like(events.worker, events.nodes) if stale else events.worker
    given = _Event(events.rows, sources, events.restart, events.worker, present, events.fresh, barrier)  # type: ignore[arg-type]
    with jax.default_device(host()):
        found = _cut(given, events.nodes, width, height_of(events, width), stale)
        place, before = (np.asarray(part) for part in found)
    numbers = _numbers(np.concatenate([events.rows, sources], axis=1), place, events.nodes, height_of(events, width))
    return Blocks(place, before, numbers[:, :height], numbers[:, height:].reshape(events.sources.shape))


def _numbers(nodes: Int[np.ndarray, "T E"], place: np.ndarray, nobody: int, height: int) -> Int[np.ndarray, "T E"]:
    """Nodes counted within their block; `height` for nobody."""
    known, which = np.unique(place[:, None] * (nobody + 1) + nodes, return_inverse=True)
    block, node = np.divmod(known, nobody + 1)
    number = np.arange(len(known)) - np.searchsorted(block, block)
    return np.where(node < nobody, number, height)[which].reshape(nodes.shape)


@partial(jax.jit, static_argnames=("nodes", "width", "height", "stale"))
def _cut(events: _Event, nodes: int, width: Width, height: int, stale: bool) -> tuple[Array, Array]:
    """The block of each event, and the block of the last barrier."""
    one_more = jnp.ones((), jnp.int32)

    def one(state: _State, event: _Event) -> tuple[_State, tuple[Array, Array]]:
        def has(last: Array, which: Array) -> Array:
            return (which < nodes) & (last[which] == state.block)

        touches = jnp.concatenate([event.rows, event.sources])
        again = jnp.tril(touches[:, None] == touches[None, :], -1).any(axis=1)
        known = has(state.touched, touches)
        new = (touches < nodes) & ~again
        distinct, added = new.sum(dtype=jnp.int32), (new & ~known).sum(dtype=jnp.int32)
        counts = state.counts + jnp.stack([one_more, event.fresh.astype(jnp.int32), added])
        ends = (
            (counts > jnp.asarray([width.events, width.updates, height])).any()
            | (event.fresh & (has(state.restarted, event.worker) | has(state.updated, event.worker)))
            | (event.fresh & has(state.wrote, event.computed_at))
            | has(state.restarted, event.restart).any()
            | event.barrier
        )
        if stale:
            ends |= has(state.restarted, event.rows).any()
        ends &= state.counts[0] > 0  # of a block without events the number is used again
        block = state.block + ends
        floor = jnp.where(event.barrier, block, state.floor)
        counts = jnp.where(ends, jnp.stack([one_more, event.fresh.astype(jnp.int32), distinct]), counts)
        after = _State(
            block,
            floor,
            counts,
            state.touched.at[touches].set(block),
            state.wrote.at[event.rows].set(block),
            state.restarted.at[event.restart].set(block),
            state.updated.at[jnp.where(event.fresh, event.worker, nodes)].set(block),
        )
        return after, (block, floor)

    never, zero = jnp.full(nodes + 1, -1, jnp.int32), jnp.zeros((), jnp.int32)
    start = _State(zero, zero, jnp.zeros(3, jnp.int32), never, never, never, never)
    return jax.lax.scan(one, start, events)[1]
