"""The two sides of a bipartite graph."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from dbwjax.network.properties import links_matrix
from dbwjax.types import Graph

_FEW = 9  # workers of an odd cycle that an error lists


def larger_side(graph: Graph) -> Bool[np.ndarray, " N"]:
    """Who is on the larger side of a connected bipartite graph; of equal ones, on that of worker 0. Host side.

    Raises:
      ValueError: the graph has an odd cycle.
    """
    from scipy.sparse import csgraph

    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    order, before = csgraph.breadth_first_order(links_matrix(graph), 0, directed=False)
    depth = np.zeros(len(links), int)
    for node in order[1:]:
        depth[node] = depth[before[node]] + 1
    rows, slots = np.nonzero(links)
    ends = sources[rows, slots]
    odd = np.flatnonzero((depth[rows] - depth[ends]) % 2 == 0)
    if len(odd):
        i, j = int(rows[odd[0]]), int(ends[odd[0]])
        cycle = _cycle(i, j, before)
        listed = f" ({'-'.join(map(str, cycle))})" if len(cycle) <= _FEW else ""
        raise ValueError(
            f"workers {i} and {j} are linked and on one side: the graph has an odd cycle of {len(cycle)} "
            f"workers{listed}; use a graph of two sides (an even ring, a grid, a tree), or bipartite=false"
        )
    even = depth % 2 == 0
    return even if 2 * even.sum() >= len(even) else ~even


def _cycle(i: int, j: int, before: np.ndarray) -> list[int]:
    """The cycle that link (i, j) closes in a tree in which both are equally deep."""
    up, down = [i], [j]
    while up[-1] != down[-1]:
        up.append(int(before[up[-1]]))
        down.append(int(before[down[-1]]))
    return up + down[-2::-1]
