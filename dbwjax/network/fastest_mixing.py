"""How fast a graph can mix: the ends of sparse spectra, and the weights of fastest linear averaging (FDLA).

All of it runs on the host, in float64. SciPy and cvxpy are imported where they are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dbwjax.limits import require_count
from dbwjax.types import Graph

DENSE = 1000
"""Up to so many nodes the whole spectrum is computed: 0.3 s."""

FULL = 20
"""A matrix of which more than one entry in so many is not zero is taken for dense, too."""

PRECISE = 1e-9
"""Residual of an eigenvector, by the size of its eigenvalue."""

PATIENCE = 100
"""Restarts of the Lanczos method at most. It is done after a few on random graphs, where a factorisation would fill up;
on rings and grids, where it would take thousands, a factorisation stays sparse. (2,000 to 20,000 nodes were tried.)"""

LARGEST_FDLA = 48
"""Workers for which FDLA takes 6 s on two cores (degree 4, and one link in three); 32 take 1 s, 64 take 29 s."""

_EDGE = 1e-9  # how far beyond a bound of the spectrum the factorised matrix is shifted, by the width of the spectrum


def sparse(slots: Any, graph: Graph) -> Any:
    """Slot weights [N, D] as a SciPy matrix [N, N] in float64."""
    from scipy.sparse import csc_array

    weights, heard = np.asarray(slots, dtype=np.float64), np.asarray(graph.neighbours)
    nodes = len(weights)
    rows = np.repeat(np.arange(nodes), weights.shape[1])
    # Padding weighs nothing: what stands twice is added.
    return csc_array((weights.ravel(), (rows, heard.ravel())), shape=(nodes, nodes))


def laplacian(graph: Graph) -> Any:
    """The Laplacian of a graph's links as a SciPy matrix [N, N]: degrees on the diagonal, -1 for every link."""
    links = np.asarray(graph.links)
    slots = np.where(links, -1.0, 0.0)
    slots[:, 0] = links.sum(axis=1)
    return sparse(slots, graph)


def lowest(matrix: Any, count: int) -> np.ndarray:
    """The `count` smallest eigenvalues of a symmetric SciPy matrix [N, N], ascending; all of them where N is less.

    Of thousands of nodes the spectrum is not computed: Lanczos finds its end, or, where that is crowded, a
    factorisation of the matrix shifted to a bound of its spectrum. The same matrix has the same answer.

    Raises:
      ValueError: a dense matrix of more nodes than the memory has room for.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    nodes = matrix.shape[0]
    if nodes <= max(DENSE, count) or matrix.nnz * FULL > nodes * nodes:
        require_count("workers", nodes, lambda workers: 32.0 * workers * workers, " and the spectrum of their links")
        return np.linalg.eigvalsh(matrix.toarray())[:count]
    start = np.random.default_rng(0).normal(size=nodes)
    given = {"k": count, "v0": start, "return_eigenvectors": False}
    try:
        found = eigsh(matrix, which="SA", tol=PRECISE, maxiter=PATIENCE, **given)
    except ArpackNoConvergence:
        reach = abs(matrix).sum(axis=1)  # Gershgorin: centre and radius of each row
        centre = matrix.diagonal()
        floor = (centre - (reach - abs(centre))).min()
        width = (centre + (reach - abs(centre))).max() - floor
        found = eigsh(matrix, sigma=floor - _EDGE * width, which="LM", **given)
    return np.sort(found)


def laplacian_ends(graph: Graph, scheme: str) -> tuple[float, float]:
    """The smallest eigenvalue but one and the largest of the Laplacian of a whole graph; zeros for one node.

    Args:
      graph: who hears whom.
      scheme: of weights, named in errors.

    Raises:
      ValueError: a graph in pieces or with links of one direction, or one too dense for the memory.
    """
    matrix = laplacian(graph)
    if abs(matrix - matrix.T).sum() > 0:
        raise ValueError(f"{scheme} needs links of both directions; give an undirected graph, or use metropolis")
    if matrix.shape[0] == 1:
        return 0.0, 0.0
    from scipy.sparse.csgraph import connected_components

    if connected_components(matrix, directed=False, return_labels=False) > 1:
        raise ValueError(f"{scheme} has no weight for a graph in pieces; connect it")
    return float(lowest(matrix, 2)[1]), -float(lowest(-matrix, 1)[0])


def fastest_links(graph: Graph) -> np.ndarray:
    """FDLA: symmetric weights of the links for which `||W - J||` is least (Xiao and Boyd 2004).

        minimise t  subject to  -t I <= W - J <= t I,  W 1 = 1,  W symmetric, W_ij = 0 where there is no link

    One unknown a link, so that `W` is symmetric and its rows sum to one as it is written: `W = I - sum_l w_l b_l b_l'`
    with `b_l` the difference of the link's ends. cvxpy states it, Clarabel solves it. Where the best constant weight is
    as good to the solver's accuracy (about 1e-8), that is taken.

    Returns:
      Weights [N, D]; zeros where there is no link, and in slot 0.

    Raises:
      ValueError: a graph that `laplacian_ends` refuses, more than `LARGEST_FDLA` workers, no cvxpy, or a solver without
        an answer.
    """
    links, heard = np.asarray(graph.links), np.asarray(graph.neighbours)
    nodes = len(links)
    if nodes > LARGEST_FDLA:
        raise ValueError(
            f"weights=fdla of {nodes} workers would take minutes (at most {LARGEST_FDLA}); use weights=best_constant"
        )
    low, high = laplacian_ends(graph, "fdla")
    if nodes == 1:
        return np.zeros(links.shape)
    rows, slots = np.nonzero(links)
    ends = np.stack([rows, heard[rows, slots]])
    pairs, number = np.unique(np.sort(ends, axis=0), axis=1, return_inverse=True)
    constant = np.full(pairs.shape[1], 2 / (low + high))
    solved = _solved(nodes, pairs)
    best = min((constant, solved), key=lambda weights: _norm(nodes, pairs, weights))
    found = np.zeros(links.shape)
    found[rows, slots] = best[number.reshape(-1)]
    return found


def _solved(nodes: int, pairs: np.ndarray) -> np.ndarray:
    """A weight for each link, of those in `pairs [2, L]`."""
    try:
        import cvxpy
    except ImportError:
        raise ValueError(
            "weights=fdla needs cvxpy, which is not installed: pip install 'dbwjax[convex]', or use "
            "weights=best_constant"
        ) from None
    count = pairs.shape[1]
    difference = np.zeros((nodes, count))
    difference[pairs[0], np.arange(count)], difference[pairs[1], np.arange(count)] = 1, -1
    weights, bound = cvxpy.Variable(count), cvxpy.Variable()
    rest = np.eye(nodes) - 1 / nodes - difference @ cvxpy.diag(weights) @ difference.T
    problem = cvxpy.Problem(cvxpy.Minimize(bound), [rest << bound * np.eye(nodes), rest >> -bound * np.eye(nodes)])
    # Its default factorisation is single-threaded: four times as slow at 48 workers.
    problem.solve(solver=cvxpy.CLARABEL, direct_solve_method="faer")
    if problem.status != cvxpy.OPTIMAL or weights.value is None:
        raise ValueError(f"weights=fdla: the solver's answer is {problem.status!r}; use weights=best_constant")
    return np.asarray(weights.value, dtype=np.float64)


def _norm(nodes: int, pairs: np.ndarray, weights: np.ndarray) -> float:
    """`||W - J||` of link weights."""
    found = np.zeros((nodes, nodes))
    found[pairs[0], pairs[1]] = found[pairs[1], pairs[0]] = weights
    np.fill_diagonal(found, 1 - found.sum(axis=1))
    return float(np.abs(np.linalg.eigvalsh(found - 1 / nodes)).max())
