"""Graphs and their facts against networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax import specs
from dbwjax.network import graphs, properties, spanning, weights


def numbered(graph):
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


SPECS = [
    ("ring", 7, lambda: nx.cycle_graph(7)),
    ("ring", 2, lambda: nx.path_graph(2)),
    ("ring", 1, lambda: nx.path_graph(1)),
    ("path", 5, lambda: nx.path_graph(5)),
    ("path", 1, lambda: nx.path_graph(1)),
    ("star", 6, lambda: nx.star_graph(5)),
    ("complete", 5, lambda: nx.complete_graph(5)),
    ("grid:rows=3", 12, lambda: nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 4), ordering="sorted")),
    (
        "torus:rows=3",
        12,
        lambda: nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 4, periodic=True), ordering="sorted"),
    ),
    ("hypercube", 16, lambda: nx.convert_node_labels_to_integers(nx.hypercube_graph(4), ordering="sorted")),
    ("exponential", 9, lambda: nx.circulant_graph(9, [1, 2, 4, 8])),
]
RANDOM = [("erdos_renyi:p=0.3", 12), ("random_regular:degree=3", 12), ("small_world:degree=4,p=0.3", 12)]


def build(spec, workers, seed=0):
    return specs.build(spec, graphs.GRAPHS, "graph", workers, seed=seed)


def as_networkx(graph):
    return nx.from_numpy_array(graphs.adjacency(graph))


@pytest.mark.parametrize(("spec", "workers", "expected"), SPECS)
def test_regular_graphs_are_networkx_graphs(spec, workers, expected):
    assert set(map(frozenset, as_networkx(build(spec, workers)).edges)) == set(map(frozenset, expected().edges))


@pytest.mark.parametrize(("spec", "workers"), [(spec, workers) for spec, workers, _ in SPECS] + RANDOM)
def test_lists_are_padded_with_the_node_itself(spec, workers):
    graph = build(spec, workers)
    sources, links = np.asarray(graph.neighbours), np.asarray(graph.links)
    own = np.arange(workers)[:, None]
    assert (sources[:, :1] == own).all()
    assert not links[:, 0].any()
    assert ((sources == own) == ~links).all()
    for row, kept in zip(sources, links, strict=True):
        assert (np.diff(row[kept]) > 0).all()
    matrix = graphs.adjacency(graph)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(graphs.adjacency(graphs.pad(graph, sources.shape[1] + 3)), matrix)


@pytest.mark.parametrize(("spec", "workers"), RANDOM)
def test_random_graphs_follow_their_seed_and_are_connected(spec, workers):
    first, again, other = (graphs.adjacency(build(spec, workers, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for seed in range(10):
        assert nx.is_connected(as_networkx(build(spec, workers, seed)))


def test_random_graphs_have_their_parameters():
    assert (properties.degrees(build("random_regular:degree=3", 12)) == 3).all()
    links = [properties.degrees(build("erdos_renyi:p=0.5", 20, seed)).sum() / 2 for seed in range(20)]
    assert abs(np.mean(links) - 95) < 4 * np.sqrt(190 * 0.25 / 20)


@pytest.mark.parametrize(("spec", "workers"), [(spec, workers) for spec, workers, _ in SPECS] + RANDOM)
def test_facts_agree_with_networkx(spec, workers):
    graph = build(spec, workers)
    oracle = as_networkx(graph)
    lengths = dict(nx.all_pairs_shortest_path_length(oracle))
    hops = properties.distances(graph)
    assert all(hops[i, j] == lengths[i][j] for i in range(workers) for j in range(workers))
    assert properties.diameter(graph) == nx.diameter(oracle)
    np.testing.assert_array_equal(properties.eccentricity(graph), [nx.eccentricity(oracle)[i] for i in range(workers)])
    assert properties.summary(graph)["links"] == oracle.number_of_edges()


def test_spectral_gap_of_a_ring():
    graph = build("ring", 8)
    scheme = weights.metropolis()
    matrix = weights.dense(scheme.apply(scheme.init(graph), graph, graph.links), graph)
    assert properties.spectral_gap(np.asarray(matrix)) == pytest.approx(
        1 - (1 + 2 * np.cos(2 * np.pi / 8)) / 3, abs=1e-6
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.floats(0.05, 1), st.integers(0, 10**6))
def test_spanning_links_span(workers, p, seed):
    matrix = np.triu(np.random.default_rng(seed).random((workers, workers)) < p, 1)
    for i in range(1, workers):  # a random tree keeps it connected
        matrix[np.random.default_rng(seed + i).integers(i), i] = True
    graph = graphs.from_adjacency(matrix | matrix.T)
    links, is_path = spanning.spanning_links(graph)
    spanned = nx.Graph([tuple(map(int, link)) for link in links])
    assert all(graphs.adjacency(graph)[i, j] for i, j in links)
    assert len(links) == workers - 1
    if workers > 1:
        assert nx.is_tree(spanned)
        assert len(spanned) == workers
    if is_path:
        assert max(dict(spanned.degree).values(), default=0) <= 2


@pytest.mark.parametrize(
    ("spec", "workers", "path"),
    [
        ("ring", 9, True),
        ("grid:rows=4", 20, True),
        ("torus:rows=5", 25, True),
        ("hypercube", 32, True),
        ("complete", 8, True),
        ("random_regular:degree=4", 200, True),
        ("star", 5, False),
    ],
)
def test_a_spanning_path_is_found_where_there_is_one(spec, workers, path):
    assert spanning.spanning_links(build(spec, workers))[1] is path


def test_messages_take_latency_and_size_over_bandwidth():
    graph = graphs.with_links(graphs.path(3), latency=0.1, bandwidth=10.0, message_bytes=2.0)
    seconds = np.asarray(graph.latency)
    np.testing.assert_allclose(seconds[np.asarray(graph.links)], 0.3, rtol=1e-6)
    assert (seconds[~np.asarray(graph.links)] == 0).all()
    np.testing.assert_allclose(graphs.delivery(graph), 0.3, rtol=1e-6)
    assert (np.asarray(graphs.delivery(graphs.path(1))) == 0).all()


def test_delivery_is_the_slowest_way_out(tmp_path):
    file = tmp_path / "links.csv"
    file.write_text("from,to,seconds\n0,1,0.5\n1,2,0.25\n")
    graph = graphs.from_file(3, path=str(file))
    np.testing.assert_allclose(graphs.delivery(graph), [0.5, 0.5, 0.25])


def test_files_of_networkx(tmp_path):
    oracle = nx.petersen_graph()
    nx.write_graphml(oracle, tmp_path / "petersen.graphml")
    nx.write_adjlist(oracle, tmp_path / "petersen.adjlist")
    for name in ("petersen.graphml", "petersen.adjlist"):
        found = as_networkx(graphs.from_file(10, path=str(tmp_path / name)))
        assert set(map(frozenset, found.edges)) == set(map(frozenset, oracle.edges))


@pytest.mark.parametrize(
    ("spec", "workers", "message"),
    [
        ("grid:rows=3", 10, "rows=3 does not divide 10 workers; use one of 1, 2, 5, 10"),
        ("torus:rows=0", 10, "rows=0 does not divide"),
        ("hypercube", 10, "workers=10 is not a power of two; use 8 or 16"),
        ("erdos_renyi:p=0", 10, "p=0 is not a probability"),
        ("erdos_renyi:p=1.5", 10, "p=1.5 is not a probability"),
        ("erdos_renyi:p=0.01", 30, "about 22 of them would have no link; use a larger p"),
        ("random_regular:degree=3", 9, "is odd; use an even degree"),
        ("random_regular:degree=9", 9, "use 0 to 8"),
        ("random_regular:degree=1", 8, "degree=1 connects no more than 2 of 8 workers; use 2 or more"),
        ("small_world:degree=3", 9, "use an even number"),
        ("small_world:degree=4,p=nan", 9, "NaN"),
        ("ring", 0, "workers=0 is out of range; use 1 or more"),
        ("rnig", 4, "did you mean 'ring'"),
        ("ring:p=1", 4, "unknown key 'p'; it has none"),
        ("grid", 4, "needs rows="),
    ],
)
def test_bad_settings_are_one_line_with_a_remedy(spec, workers, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        build(spec, workers)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n1,x\n", "names 3 workers ('0', '1', 'x'), and there are 4"),
        ("0,1\n1\n", "line 2 has 1 columns, line 1 has 2"),
        ("0,1\n1,4\n", "node 4 is not one of 4 workers"),
        ("0,1\n2,2\n", "node 2 is linked to itself"),
        ("0,1\n2,3\n", "in 2 pieces: node 2 cannot reach node 0"),
        ("0,1,-1\n", "line 1, column 3: '-1' is not a time"),
        ("", "in 4 pieces"),
    ],
)
def test_bad_files_name_the_line(tmp_path, text, message):
    file = tmp_path / "links.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        graphs.from_file(4, path=str(file))
    assert message in str(caught.value)


def test_other_bad_files(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        graphs.from_file(4, path=str(tmp_path / "none.csv"))
    (tmp_path / "x.gml").write_text("nonsense [")
    with pytest.raises(ValueError, match="cannot be read as .gml"):
        graphs.from_file(4, path=str(tmp_path / "x.gml"))
    (tmp_path / "x.txt").write_text("0,1")
    with pytest.raises(ValueError, match="ends in '.txt'; use one of .csv"):
        graphs.from_file(4, path=str(tmp_path / "x.txt"))


def test_bad_adjacency():
    with pytest.raises(ValueError, match="square matrix"):
        graphs.from_adjacency(np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="node 0 is linked to itself"):
        graphs.from_adjacency(np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="slots=1 is less than the 2"):
        graphs.pad(graphs.path(2), 1)
