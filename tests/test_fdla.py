"""FDLA weights and the best constant weight: which is faster, what is kept, what is refused; sparse spectra."""

from __future__ import annotations

import sys

import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from dbwjax import limits
from dbwjax.network import fastest_mixing, graphs
from dbwjax.network.fastest_mixing import laplacian, laplacian_ends, lowest, sparse
from dbwjax.network.weights import WEIGHTS, best_constant, dense, fdla, max_degree
from dbwjax.policies import build_policy

CLOSE = 1e-7
"""To the solver's accuracy."""


def norm_of(scheme, graph):
    """Spectral norm of `W - J`, and `W`, of the whole graph."""
    mixing = np.asarray(dense(scheme.apply(scheme.init(graph), graph, graph.links), graph))
    return np.abs(np.linalg.eigvalsh(mixing - 1 / len(mixing))).max(), mixing


@pytest.mark.usefixtures("x64")
def test_on_random_graphs_fdla_is_at_most_the_best_constant_and_that_the_maximum_degree():
    better = 0
    for seed in range(50):
        nodes = (6, 10)[seed % 2]
        graph = graphs.pad(graphs.erdos_renyi(nodes, p=0.3 + 0.2 * (seed % 3), seed=seed), nodes)
        (fast, mixing), (constant, _), (degree, _) = (norm_of(s(), graph) for s in (fdla, best_constant, max_degree))
        assert fast <= constant + 1e-15, seed
        assert constant <= degree + 1e-15, seed
        better += fast < constant - 1e-3
        np.testing.assert_array_equal(mixing, mixing.T)
        np.testing.assert_allclose(mixing.sum(axis=0), 1, atol=1e-12)
        np.testing.assert_allclose(mixing.sum(axis=1), 1, atol=1e-12)
        off = ~np.eye(len(mixing), dtype=bool)
        assert (mixing[off & ~np.asarray(graphs.adjacency(graph))] == 0).all()
    assert better > 25, better


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spec", ["ring", "complete", "hypercube"])
def test_where_all_links_are_alike_it_is_the_best_constant(spec, monkeypatch):
    """By the solver alone, too: the better of the two is not looked for."""
    graph = graphs.build_graph(spec, 8)
    constant, expected = norm_of(best_constant(), graph)
    norm, mixing = norm_of(fdla(), graph)
    assert abs(norm - constant) < CLOSE
    monkeypatch.setattr(fastest_mixing, "_norm", lambda nodes, pairs, weights: -weights.std())  # anything but constant
    norm, mixing = norm_of(fdla(), graph)
    assert abs(norm - constant) < CLOSE
    if spec != "hypercube":  # there others are as fast
        np.testing.assert_allclose(mixing, expected, atol=1e-4)


@pytest.mark.usefixtures("x64")
def test_a_known_optimum_with_negative_weights():
    """A small graph of Xiao and Boyd's kind by another way: no pattern search gets below the solver."""
    graph = graphs.from_adjacency(np.array(networkx.to_numpy_array(networkx.barbell_graph(4, 0)), bool))
    norm, mixing = norm_of(fdla(), graph)
    pairs = np.argwhere(np.triu(np.asarray(graphs.adjacency(graph)), 1)).T
    weights = mixing[pairs[0], pairs[1]]
    assert norm == pytest.approx(fastest_mixing._norm(8, pairs, weights), abs=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        other = weights + rng.normal(size=len(weights)) * 10 ** rng.uniform(-6, -1)
        assert fastest_mixing._norm(8, pairs, other) >= norm - CLOSE
    assert norm < norm_of(best_constant(), graph)[0] - 0.01


def test_weights_of_links_that_are_dropped_go_to_the_diagonal():
    graph = graphs.erdos_renyi(9, p=0.5, seed=1)
    scheme = fdla()
    constants = scheme.init(graph)
    whole = np.asarray(dense(scheme.apply(constants, graph, graph.links), graph))
    active = jnp.arange(9) % 3 != 0
    kept = graph.links & active[:, None] & active[graph.neighbours]
    part = np.asarray(dense(scheme.apply(constants, graph, kept), graph))
    off = ~np.eye(9, dtype=bool)
    both = np.asarray(active)[:, None] & np.asarray(active)[None]
    np.testing.assert_array_equal(part[off], np.where(both, whole, 0)[off])
    np.testing.assert_allclose(part.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(part, part.T)


def test_padding_changes_nothing():
    graph = graphs.erdos_renyi(7, p=0.5, seed=2)
    wide = graphs.pad(graph, 7)
    scheme = fdla()
    one, other = (dense(scheme.apply(scheme.init(each), each, each.links), each) for each in (graph, wide))
    np.testing.assert_array_equal(one, other)


def test_one_and_two_workers():
    assert norm_of(fdla(), graphs.path(1))[1].tolist() == [[1]]
    np.testing.assert_allclose(norm_of(fdla(), graphs.path(2))[1], 0.5, atol=1e-6)


def test_policies_take_it_by_name():
    state = build_policy("full:weights=fdla").init(graphs.ring(6))
    assert state.weights.shape == (6, 3)
    assert "fdla" in WEIGHTS


# Spectra of thousands of workers.


@pytest.mark.parametrize(
    "graph",
    [
        graphs.ring(300),
        graphs.random_regular(300, degree=4, seed=0),
        graphs.build_graph("torus:rows=15", 300),
        graphs.star(300),
    ],
    ids=["ring", "random", "torus", "star"],
)
def test_the_ends_of_a_sparse_spectrum_are_those_of_the_dense_one(graph, monkeypatch):
    monkeypatch.setattr(fastest_mixing, "DENSE", 100)
    whole = np.linalg.eigvalsh(laplacian(graph).toarray())
    low, high = laplacian_ends(graph, "")
    np.testing.assert_allclose([low, high], whole[[1, -1]], rtol=1e-8, atol=1e-12)
    assert laplacian_ends(graph, "") == (low, high)  # not drawn
    slots = WEIGHTS["metropolis"]().apply(None, graph, graph.links)
    matrix = sparse(slots, graph)
    np.testing.assert_allclose(lowest(matrix, 1), np.linalg.eigvalsh(matrix.toarray())[:1], atol=1e-8)


def test_the_best_constant_weight_of_many_workers():
    """A ring's spectrum is known: 2 - 2 cos(2 pi k / N)."""
    graph = graphs.ring(6000)
    expected = 2 / (4 + 2 - 2 * np.cos(2 * np.pi / 6000))
    np.testing.assert_allclose(best_constant().init(graph), expected, rtol=1e-6)


def test_a_dense_spectrum_that_does_not_fit_is_refused(monkeypatch):
    graph = graphs.build_graph("small_world:degree=110,p=0.1", 2000)
    matrix = laplacian(graph)
    monkeypatch.setattr(limits, "host_bytes", lambda: 10**7)
    with pytest.raises(
        ValueError, match=r"^workers=2000 and the spectrum of their links needs about .*; use at most 559$"
    ):
        lowest(matrix, 1)


# What is refused.

PIECES = graphs.from_adjacency(np.kron(np.eye(2), 1 - np.eye(3)).astype(bool))
ONE_WAY = graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1).astype(bool))


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (PIECES, "fdla has no weight for a graph in pieces; connect it"),
        (ONE_WAY, "fdla needs links of both directions"),
        (graphs.ring(49), r"weights=fdla of 49 workers would take minutes \(at most 48\); use weights=best_constant"),
    ],
)
def test_graphs_that_do_not_fit_are_one_line(graph, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        fdla().init(graph)
    assert "\n" not in str(raised.value)


def test_without_the_extra_it_says_what_to_install_and_the_alternative(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)  # as `import cvxpy` sees a package that is not there
    expected = r"^weights=fdla needs cvxpy, .*: pip install 'dbwjax\[convex\]', or use weights=best_constant$"
    with pytest.raises(ValueError, match=expected):
        build_policy("full:weights=fdla").init(graphs.ring(6))
    build_policy("full:weights=best_constant").init(graphs.ring(6))


def test_a_solver_without_an_answer_is_not_believed(monkeypatch):
    import cvxpy

    monkeypatch.setattr(cvxpy.Problem, "status", property(lambda self: "optimal_inaccurate"))
    with pytest.raises(ValueError, match=r"the solver's answer is 'optimal_inaccurate'; use weights=best_constant"):
        fdla().init(graphs.ring(6))
