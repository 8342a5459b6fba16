"""A spanning path for DTUR, or a spanning tree where there is none. Host side, NumPy and SciPy."""

from __future__ import annotations

import numpy as np

from dbwjax.network.properties import eccentricity, is_connected, links_matrix, neighbour_lists
from dbwjax.types import Graph

_ENOUGH = 200_000_000  # places moved in the search of a path: about a second
_EXACT_CENTRE = 512  # nodes; the centre of a larger graph is looked for from two nodes


def spanning_links(graph: Graph, *, effort: int = _ENOUGH) -> tuple[np.ndarray, bool]:
    """Links of a spanning path, or of a spanning tree where no path was found.

    The search starts at a node of least degree, goes on to the unvisited neighbour with the fewest unvisited
    neighbours (Warnsdorff), and turns the path around (Posa's rotation) when its end is stuck. It is deterministic and
    gives up after `effort` places moved, or 1,000 + 40 N rotations from each of 8 starts (random regular graphs needed
    at most 10 N, measured up to 8,192 nodes). The tree is breadth first from a centre.

    Returns:
      `[N - 1, 2]` node numbers, and whether they are a path.

    Raises:
      ValueError: a graph in pieces.
    """
    if not is_connected(graph):
        raise ValueError("the graph is in pieces, so nothing spans it; connect it")
    near = [row.tolist() for row in neighbour_lists(graph)]
    order = sorted(range(len(near)), key=lambda node: (len(near[node]), node))
    # A node with one neighbour can only be an end of the path, so three of them rule a path out.
    if sum(len(row) == 1 for row in near) <= 2:
        for start in order[:8]:
            found, spent = _path_from(near, start, effort)
            effort -= spent
            if found is not None:
                return np.stack([found[:-1], found[1:]], axis=1), True
            if effort <= 0:
                break
    return _tree(graph), False


def _path_from(near: list[list[int]], start: int, effort: int) -> tuple[np.ndarray | None, int]:
    """A path over all nodes, grown from `start`, or None; and how many places were moved."""
    rng = np.random.default_rng(start)
    nodes = len(near)
    free = [len(row) for row in near]  # unvisited neighbours
    path = np.empty(nodes, int)
    place = np.full(nodes, -1)
    visited = spent = rotations = 0
    end: int | None = start
    while True:
        if end is not None:
            path[visited], place[end] = end, visited
            visited += 1
            for nearby in near[end]:
                free[nearby] -= 1
            last = end
        if visited == nodes:
            return path, spent
        if free[last]:
            end = min((node for node in near[last] if place[node] < 0), key=lambda node: (free[node], node))
            continue
        end = None
        if spent > effort or rotations > 1000 + 40 * nodes:
            return None, spent
        inside = [node for node in near[last] if place[node] < visited - 2]
        if inside and rng.random() < 0.9:
            pivot = int(place[inside[int(rng.integers(len(inside)))]]) + 1
        else:
            pivot = 0  # turn the whole path around and grow at its other end
        turned = path[pivot:visited][::-1].copy()
        path[pivot:visited] = turned
        place[turned] = np.arange(pivot, visited)
        last = int(turned[-1])
        spent += visited - pivot
        rotations += 1


def _tree(graph: Graph) -> np.ndarray:
    """Breadth-first tree from a centre; for large graphs from the middle of a longest known path."""
    from scipy.sparse import csgraph

    heard = links_matrix(graph)

    def hops(start: int) -> np.ndarray:
        return csgraph.dijkstra(heard, unweighted=True, indices=start)

    if len(graph.neighbours) <= _EXACT_CENTRE:
        centre = int(np.argmin(eccentricity(graph)))
    else:
        one_end = hops(int(np.argmax(hops(0))))
        centre = int(np.argmin(np.maximum(one_end, hops(int(np.argmax(one_end))))))
    order, before = csgraph.breadth_first_order(heard, centre)
    return np.stack([before[order[1:]], order[1:]], axis=1).astype(int)
