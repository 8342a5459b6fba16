"""What can be known of a graph: degrees, distances, the spectral gap, and a spanning path for DTUR. Host side,
NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from dbwjax.network.weights import dense, metropolis
from dbwjax.types import Graph


def degrees(graph: Graph) -> np.ndarray:
    """How many neighbours each node hears, `[N]`."""
    return np.asarray(graph.links).sum(axis=1)


def neighbour_lists(graph: Graph) -> list[np.ndarray]:
    """The nodes that each node hears, in ascending order."""
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    return [row[kept] for row, kept in zip(sources, links, strict=True)]


def distances(graph: Graph) -> np.ndarray:
    """Hops between all pairs, `[N, N]`; -1 where there is no way."""
    near = neighbour_lists(graph)
    return np.stack([_hops(near, start) for start in range(len(near))])


def eccentricity(graph: Graph) -> np.ndarray:
    """Hops from each node to the farthest one, `[N]`.

    Raises:
      ValueError: a graph in pieces.
    """
    near = neighbour_lists(graph)
    hops = [_hops(near, start) for start in range(len(near))]
    for start, row in enumerate(hops):
        if (row < 0).any():
            raise ValueError(f"node {int(np.argmin(row))} cannot be reached from node {start}; connect the graph")
    return np.array([row.max() for row in hops])


def diameter(graph: Graph) -> int:
    """Hops between the two nodes farthest apart."""
    return int(eccentricity(graph).max())


def is_connected(graph: Graph) -> bool:
    """Whether every node reaches every other."""
    return bool((_hops(neighbour_lists(graph), 0) >= 0).all())


def spectral_gap(mixing: np.ndarray) -> float:
    """1 minus the second largest absolute eigenvalue of a mixing matrix `[N, N]`: the rate at which consensus
    contracts."""
    sizes = np.sort(np.abs(np.linalg.eigvals(np.asarray(mixing, float))))
    return float(1 - sizes[-2]) if len(sizes) > 1 else 1.0


def summary(graph: Graph) -> dict[str, Any]:
    """The plain facts, for records and figures; the spectral gap is that of Metropolis weights."""
    scheme, degree = metropolis(), degrees(graph)
    mixing = dense(scheme.apply(scheme.init(graph), graph, graph.links), graph)
    return {
        "nodes": len(degree),
        "links": int(degree.sum()) // 2,
        "degree": [int(degree.min()), float(degree.mean()), int(degree.max())],
        "diameter": diameter(graph),
        "spectral_gap": spectral_gap(np.asarray(mixing)),
    }


def spanning_links(graph: Graph, *, effort: int = 4_000_000) -> tuple[np.ndarray, bool]:
    """Links of a spanning path, or of a spanning tree where no path was found.

    The search starts at a node of least degree, goes on to the unvisited neighbour with the fewest unvisited
    neighbours (Warnsdorff), and turns the path around (Posa's rotation) when its end is stuck. It is deterministic and
    gives up after `effort` steps. The tree is breadth first from a centre.

    Returns:
      `[N - 1, 2]` node numbers, and whether they are a path.

    Raises:
      ValueError: a graph in pieces.
    """
    near = [list(map(int, row)) for row in neighbour_lists(graph)]
    if not is_connected(graph):
        raise ValueError("the graph is in pieces, so nothing spans it; connect it")
    order = sorted(range(len(near)), key=lambda node: (len(near[node]), node))
    # A node with one neighbour can only be an end of the path, so three of them rule a path out.
    if sum(len(row) == 1 for row in near) <= 2:
        for start in order[:8]:
            found = _path_from(near, start, effort // 8)
            if found is not None:
                return np.array(list(itertools.pairwise(found)), int).reshape(-1, 2), True
    return _tree(near), False


def _path_from(near: list[list[int]], start: int, effort: int) -> list[int] | None:
    """A path over all nodes, grown from `start`, or None."""
    rng = np.random.default_rng(start)
    free = [len(row) for row in near]  # unvisited neighbours
    path: list[int] = []
    place: dict[int, int] = {}

    def visit(node: int) -> None:
        place[node] = len(path)
        path.append(node)
        for nearby in near[node]:
            free[nearby] -= 1

    visit(start)
    while len(path) < len(near):
        end = path[-1]
        if free[end]:
            visit(min((node for node in near[end] if node not in place), key=lambda node: (free[node], node)))
            effort -= 1
            continue
        inside = [node for node in near[end] if place[node] < len(path) - 2]
        if inside and rng.random() < 0.9:
            pivot = place[inside[int(rng.integers(len(inside)))]] + 1
        else:
            pivot = 0  # turn the whole path around and grow at its other end
        path[pivot:] = path[pivot:][::-1]
        place.update((node, pivot + position) for position, node in enumerate(path[pivot:]))
        effort -= len(path) - pivot
        if effort < 0:
            return None
    return path


def _tree(near: list[list[int]]) -> np.ndarray:
    """Breadth-first tree from a centre; for large graphs from the middle of a longest known path."""
    if len(near) <= 512:
        centre = int(np.argmin([_hops(near, start).max() for start in range(len(near))]))
    else:
        far = int(np.argmax(_hops(near, 0)))
        hops = _hops(near, far)
        other = int(np.argmax(hops))
        both = np.maximum(hops, _hops(near, other))
        centre = int(np.argmin(both))
    seen, queue, links = {centre}, [centre], []
    for node in queue:
        for nearby in near[node]:
            if nearby not in seen:
                seen.add(nearby)
                queue.append(nearby)
                links.append((node, nearby))
    return np.array(links, int).reshape(-1, 2)


def _hops(near: list, start: int) -> np.ndarray:
    hops = np.full(len(near), -1)
    hops[start] = 0
    queue = [start]
    for node in queue:
        for nearby in near[node]:
            if hops[nearby] < 0:
                hops[nearby] = hops[node] + 1
                queue.append(int(nearby))
    return hops
