"""What can be known of a graph: degrees, distances, the spectral gap, and a spanning path for DTUR. Host side,
NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from dbwjax.network.weights import metropolis
from dbwjax.types import Graph

_WALK = 4096  # targets walked to at once: their bits for 4,096 nodes are 2 MB
_DENSE_SPECTRUM = 512  # nodes; the eigenvalues of a larger symmetric matrix are found by Lanczos
_ENOUGH = 200_000_000  # places moved in the search of a path: about a second


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

    All nodes walk at once: row i is the set of nodes within so many hops of i, one bit each, and a hop unites the rows
    that i hears. (4,096 nodes of degree 4: 0.1 s; one walk after another: 25 s.)

    Raises:
      ValueError: a graph in pieces.
    """
    sources = np.asarray(graph.neighbours)
    farthest = np.zeros(len(sources), int)
    for first in range(0, len(sources), _WALK):
        targets = np.arange(first, min(first + _WALK, len(sources)))
        everybody = np.packbits(np.ones(len(targets), bool))
        within = np.zeros((len(sources), len(everybody)), np.uint8)
        within[targets, (targets - first) // 8] = 128 >> (targets - first) % 8
        hops = 0
        while (on_the_way := (within != everybody).any(axis=1)).any():
            hops += 1
            farthest[on_the_way] = np.maximum(farthest[on_the_way], hops)
            before = within
            within = before[sources[:, 0]]
            for slot in range(1, sources.shape[1]):
                within |= before[sources[:, slot]]
            if np.array_equal(before, within):
                start = int(np.argmax(on_the_way))
                lost = first + int(np.argmin(np.unpackbits(within[start])[: len(targets)]))
                raise ValueError(f"node {lost} cannot be reached from node {start}; connect the graph")
    return farthest


def diameter(graph: Graph) -> int:
    """Hops between the two nodes farthest apart."""
    return int(eccentricity(graph).max())


def is_connected(graph: Graph) -> bool:
    """Whether every node reaches every other."""
    return bool((_hops(neighbour_lists(graph), 0) >= 0).all())


def spectral_gap(mixing: Any) -> float:
    """1 minus the second largest absolute eigenvalue of a mixing matrix `[N, N]`: the rate at which consensus
    contracts.

    Args:
      mixing: a NumPy array, or a SciPy sparse matrix; a large symmetric one is not made dense, unless the gap is so
        small that Lanczos does not converge.
    """
    from scipy import sparse

    nodes = mixing.shape[0]
    if nodes < 2:
        return 1.0
    if nodes <= _DENSE_SPECTRUM:
        matrix = mixing.toarray() if sparse.issparse(mixing) else np.asarray(mixing, float)
        return float(1 - np.sort(np.abs(np.linalg.eigvals(matrix)))[-2])
    listed = sparse.csr_array(mixing, dtype=float)
    difference = abs(listed - listed.T)
    if difference.nnz and difference.max() > 1e-6:
        return float(1 - np.sort(np.abs(np.linalg.eigvals(listed.toarray())))[-2])
    return float(1 - _largest(listed)[-2])


def _largest(matrix: Any) -> np.ndarray:
    """The two largest absolute eigenvalues of a symmetric sparse matrix."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    try:
        return np.abs(
            eigsh(matrix, k=2, which="LM", v0=start, ncv=40, maxiter=200, tol=1e-9, return_eigenvectors=False)
        )
    except ArpackNoConvergence:
        return np.sort(np.abs(np.linalg.eigvalsh(matrix.toarray())))[-2:]


def mixing_matrix(graph: Graph, slots: np.ndarray) -> Any:
    """Slot weights `[N, D]` as a SciPy sparse matrix `[N, N]`: what `weights.dense` gives, without its zeros."""
    from scipy import sparse

    sources, values = np.asarray(graph.neighbours), np.asarray(slots, float)
    rows = np.repeat(np.arange(len(sources)), sources.shape[1])
    return sparse.csr_array((values.reshape(-1), (rows, sources.reshape(-1))), shape=(len(sources),) * 2)


def summary(graph: Graph) -> dict[str, Any]:
    """The plain facts, for records and figures; the spectral gap is that of Metropolis weights."""
    scheme, degree = metropolis(), degrees(graph)
    mixing = mixing_matrix(graph, np.asarray(scheme.apply(scheme.init(graph), graph, graph.links)))
    return {
        "nodes": len(degree),
        "links": int(degree.sum()) // 2,
        "degree": [int(degree.min()), float(degree.mean()), int(degree.max())],
        "diameter": diameter(graph),
        "spectral_gap": spectral_gap(mixing),
    }


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
    near = [row.tolist() for row in neighbour_lists(graph)]
    if not is_connected(graph):
        raise ValueError("the graph is in pieces, so nothing spans it; connect it")
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
    return _tree(near), False


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
