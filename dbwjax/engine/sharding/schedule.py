"""Which device holds which worker, and which rows must cross from one device to another. Host side, NumPy.

The stack of parameters has one row a worker, cut into equal pieces, one a device. Workers are put in an order in
which few links cross from piece to piece: as they are, or by reverse Cuthill-McKee (Cuthill and McKee 1969; George
1971), whichever moves fewer rows. A row that is needed elsewhere is sent there once, however many workers hear it.

What is sent is decided by the graph alone, so it is a schedule fixed before anything is compiled: rounds in which a
device sends to at most one other and hears from at most one (`ppermute`), or one all-gather, whichever is fewer
bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dbwjax.types import Graph

MOST_IN_VAIN = 1.05
"""Transfers that share a round all have the size of the largest; so much more than is needed may be moved for that."""


class Round(NamedTuple):
    """Transfers that happen at once; hashable."""

    pairs: tuple[tuple[int, int], ...]  # (from, to), each device at most once on either side
    rows: int  # sent by each of them


class Exchange(NamedTuple):
    """The schedule of one mixing; hashable, because the compiled program depends on it."""

    devices: int
    height: int  # rows of each device
    nodes: int  # N; rows beyond it are padding
    rounds: tuple[Round, ...]
    gather: bool  # one all-gather instead of the rounds

    @property
    def moved(self) -> int:
        """Rows that the schedule moves between devices, all devices together."""
        if self.gather:
            return self.devices * (self.devices - 1) * self.height
        return sum(len(one.pairs) * one.rows for one in self.rounds)


class Layout(NamedTuple):
    """The schedule's arrays (or how they are cut). `L` rows in all, `L = devices * height >= N`."""

    order: Any  # [L] int32: worker in each row; padding repeats the last worker
    real: Any  # [L] bool: False for padding
    position: Any  # [N] int32: row of each worker
    lookup: Any  # [devices, N] int32: where a device finds a worker: own rows, then received ones; -1: nowhere
    send: tuple[Any, ...]  # [devices, rows] int32 each: which own rows to send in a round


def lay_out(graph: Graph, devices: int) -> tuple[Exchange, Layout]:
    """Places the workers of a graph on devices.

    Args:
      graph: who hears whom; nodes that never compute have rows too.
      devices: how many there are; N need not be a multiple of it.

    Returns:
      The schedule, and its arrays.

    Raises:
      ValueError: fewer than one device.
    """
    if devices < 1:
        raise ValueError(f"devices={devices} is too few; use 1 or more")
    nodes = graph.neighbours.shape[0]
    height = -(-nodes // devices)
    order = _order(graph, height)
    position = np.empty(nodes, np.int32)
    position[order] = np.arange(nodes, dtype=np.int32)
    needed = crossing(graph, position, height)
    rounds, gather = _schedule(needed, devices, height)
    lookup = np.full((devices, nodes), -1, np.int32)
    for device in range(devices):
        own = order[device * height : (device + 1) * height]
        lookup[device, own] = np.arange(len(own))
    send, offset = [], height
    for one in rounds:
        rows = np.zeros((devices, one.rows), np.int32)
        for source, target in one.pairs:
            theirs = needed[source, target]
            rows[source, : len(theirs)] = theirs - source * height
            lookup[target, order[theirs]] = offset + np.arange(len(theirs))
        send.append(rows)
        offset += one.rows
    padding = devices * height - nodes
    layout = Layout(
        order=np.concatenate([order, np.full(padding, nodes - 1)]).astype(np.int32),
        real=np.arange(devices * height) < nodes,
        position=position,
        lookup=lookup,
        send=tuple(send),
    )
    return Exchange(devices, height, nodes, rounds, gather), layout


def crossing(graph: Graph, position: np.ndarray, height: int) -> dict[tuple[int, int], np.ndarray]:
    """Rows that a device needs of another: `(from, to) -> rows`, ascending; a row counts once for each device.

    Args:
      graph: who hears whom.
      position: `[N]` row of each worker.
      height: rows of each device.
    """
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    hearers, slots = np.nonzero(links)
    rows = position[sources[hearers, slots]].astype(np.int64)
    targets = position[hearers].astype(np.int64) // height
    away = rows // height != targets
    pairs = np.unique(np.stack([rows[away] // height, targets[away], rows[away]], axis=1), axis=0)
    found: dict[tuple[int, int], np.ndarray] = {}
    if len(pairs):
        starts = np.flatnonzero(np.any(np.diff(pairs[:, :2], axis=0, prepend=-1) != 0, axis=1))
        for piece in np.split(pairs, starts[1:]):
            found[int(piece[0, 0]), int(piece[0, 1])] = piece[:, 2]
    return found


def _order(graph: Graph, height: int) -> np.ndarray:
    """`[N]` workers in the order of their rows."""
    nodes = graph.neighbours.shape[0]
    natural = np.arange(nodes)
    if height >= nodes:
        return natural
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    hearers, slots = np.nonzero(np.asarray(graph.links))
    ones = np.ones(len(hearers), bool)
    linked = csr_matrix((ones, (hearers, np.asarray(graph.neighbours)[hearers, slots])), shape=(nodes, nodes))
    banded = reverse_cuthill_mckee((linked + linked.T).tocsr(), symmetric_mode=True).astype(np.int64)

    def moved(order: np.ndarray) -> int:
        position = np.empty(nodes, np.int64)
        position[order] = natural
        return sum(map(len, crossing(graph, position, height).values()))

    return min(natural, banded, key=moved)


def _schedule(needed: dict[tuple[int, int], np.ndarray], devices: int, height: int) -> tuple[tuple[Round, ...], bool]:
    """The fewest rounds that move hardly more than is needed, or an all-gather if even that is fewer rows."""
    least = sum(map(len, needed.values()))
    for share in (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        rounds = _rounds(needed, devices, share)
        moved = sum(len(one.pairs) * one.rows for one in rounds)
        if moved <= MOST_IN_VAIN * least:
            break
    if moved >= devices * (devices - 1) * height:
        return (), bool(needed)
    return rounds, False


def _rounds(needed: dict[tuple[int, int], np.ndarray], devices: int, share: float) -> tuple[Round, ...]:
    """Largest transfers first; each joins the first round in which both ends are free and that is not too large for it.

    Args:
      needed: rows by (from, to).
      devices: how many there are.
      share: a transfer joins a round only if it is at least this share of the round's size.
    """
    rounds: list[tuple[list[tuple[int, int]], int]] = []
    for pair in sorted(needed, key=lambda pair: (-len(needed[pair]), (pair[1] - pair[0]) % devices, pair)):
        size = len(needed[pair])
        for pairs, rows in rounds:
            free = all(pair[0] != source and pair[1] != target for source, target in pairs)
            if free and size >= share * rows:
                pairs.append(pair)
                break
        else:
            rounds.append(([pair], size))
    return tuple(Round(tuple(sorted(pairs)), rows) for pairs, rows in rounds)
