"""What can be known of a graph: degrees, distances, connected or not, the spectral gap. Host side, NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from dbwjax.network.weights import metropolis
from dbwjax.types import Graph

_WALK = 4096  # targets walked to at once: their bits for 4,096 nodes are 2 MB
_DENSE_SPECTRUM = 512  # nodes; the eigenvalues of a larger symmetric matrix are found by Lanczos


def degrees(graph: Graph) -> np.ndarray:
    """How many neighbours each node hears, `[N]`."""
    return np.asarray(graph.links).sum(axis=1)


def neighbour_lists(graph: Graph) -> list[np.ndarray]:
    """The nodes that each node hears, in ascending order."""
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    return [row[kept] for row, kept in zip(sources, links, strict=True)]


def links_matrix(graph: Graph) -> Any:
    """Who hears whom as a SciPy sparse matrix `[N, N]`: a 1 in row i, column j where i hears j."""
    from scipy import sparse

    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    ends = np.concatenate([[0], np.cumsum(links.sum(axis=1))])
    heard = sources[links]
    return sparse.csr_array((np.ones(len(heard)), heard, ends), shape=(len(links), len(links)))


def distances(graph: Graph) -> np.ndarray:
    """Hops between all pairs, `[N, N]`; -1 where there is no way."""
    from scipy.sparse import csgraph

    hops = csgraph.dijkstra(links_matrix(graph), unweighted=True)
    return np.where(np.isfinite(hops), hops, -1).astype(int)


def pieces(graph: Graph) -> list[np.ndarray]:
    """The nodes of each connected piece of an undirected graph, in ascending order; pieces by their first node."""
    from scipy.sparse import csgraph

    count, piece = csgraph.connected_components(links_matrix(graph), directed=False)
    return [np.flatnonzero(piece == number) for number in range(count)]


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
    """Whether every node hears every other, if by way of others; links of one direction count in that direction."""
    from scipy.sparse import csgraph

    return csgraph.connected_components(links_matrix(graph), connection="strong", return_labels=False) == 1


def links_of_one_direction(graph: Graph) -> np.ndarray:
    """The links whose reverse is missing, `[L, 2]`: node i hears node j, which does not hear i."""
    heard = links_matrix(graph)
    alone = (heard - heard.T).tocoo()
    one_way = alone.data > 0
    return np.stack([alone.coords[0][one_way], alone.coords[1][one_way]], axis=1)


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
