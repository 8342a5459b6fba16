"""DSGD-AAU against a reference told by sets of workers, and what its epochs promise."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.policies.aau import adaptive
from tests.cases import Case, policy_of
from tests.reference import gossip
from tests.reference.aau import Growing

NODES = 9
GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "complete": lambda: graphs.complete(NODES),
    "star": lambda: graphs.star(NODES),
    "path": lambda: graphs.path(NODES),
    "slow links": lambda: graphs.with_links(graphs.grid(NODES, rows=3), latency=0.3),
}


@functools.cache  # only called under the x64 fixture
def case_of(graph, seed=0):
    return Case(graphs.pad(GRAPHS[graph](), NODES), seed)


def referred(case):
    rule = Growing(case.neighbours)
    records = gossip.run_global(rule, "carry", neighbours=case.neighbours, latency=case.latency, **case.common)
    return rule, records


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", GRAPHS)
def test_it_is_the_reference(graph):
    case = case_of(graph)
    _, records = referred(case)
    ends, _, active, x = case.simulate(policy_of("dsgd_aau"))
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    assert [set(np.flatnonzero(row)) for row in active] == [record.active for record in records]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_iteration_joins_workers_and_an_epoch_has_less_than_n_iterations(graph):
    rule, _ = referred(case_of(graph))
    assert min(rule.joined) >= 1
    assert len(rule.epoch_lengths) >= 6
    assert max(rule.epoch_lengths) <= NODES - 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", ["star", "path"])
def test_on_a_tree_it_is_dtur(graph):
    """There the path of DTUR is the graph, and its links not yet established are those between components."""
    case = case_of(graph)
    for seen, expected in zip(*(case.simulate(policy_of(spec)) for spec in ("dsgd_aau", "dybw")), strict=True):
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.usefixtures("x64")
def test_where_there_is_more_than_a_tree_it_ends_iterations_earlier():
    ends = [case_of("complete").simulate(policy_of(spec)).ends[-1] for spec in ("dsgd_aau", "dybw", "full")]
    assert ends == sorted(ends)
    assert ends[0] < 0.8 * ends[1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("nodes", [1, 2])
def test_one_or_two_workers_are_full(nodes):
    case = Case(graphs.path(nodes), seed=2)
    for seen, expected in zip(*(case.simulate(policy_of(spec)) for spec in ("dsgd_aau", "full")), strict=True):
        np.testing.assert_array_equal(seen, expected)


RULE = adaptive()
cut = jax.jit(lambda graph, state, arrival: RULE.cut(None, graph, state, arrival))


def test_ties_and_components_are_those_of_networkx():
    """Whole arrivals make ties; components are found anew in a graph that is kept by hand."""
    rng, several = np.random.default_rng(0), 0
    for seed in range(20):
        graph = graphs.pad(graphs.erdos_renyi(7, p=0.35, seed=seed), 7)
        state, epoch = RULE.init(graph), networkx.empty_graph(7)
        links = {(i, int(j)) for i in range(7) for j in np.asarray(graph.neighbours)[i][np.asarray(graph.links)[i]]}
        for _ in range(12):
            arrival = rng.integers(0, 5, 7).astype(np.float32)
            parts = [frozenset(part) for part in networkx.connected_components(epoch)]
            of = {i: part for part in parts for i in part}
            theta = min(max(arrival[i], arrival[j]) for i, j in links if of[i] != of[j])
            active, end, state = cut(graph, state, jnp.asarray(arrival))
            assert float(end) == theta
            np.testing.assert_array_equal(active, arrival <= theta)
            epoch.add_edges_from((i, j) for i, j in links if max(arrival[i], arrival[j]) <= theta)
            after = list(networkx.connected_components(epoch))
            several += len(parts) - len(after) > 1
            if len(after) == 1:
                epoch = networkx.empty_graph(7)
                after = list(networkx.connected_components(epoch))
            expected = np.empty(7, int)
            for part in after:
                expected[list(part)] = min(part)
            np.testing.assert_array_equal(state, expected)
    assert several > 20


def test_a_long_chain_of_ties_is_one_component():
    """Labels spread as far as they must within one iteration."""
    graph = graphs.path(40)
    active, end, state = cut(graph, RULE.init(graph), jnp.ones(40).at[39].set(2.0))
    assert float(end) == 1
    assert active.sum() == 39
    np.testing.assert_array_equal(state, [0] * 39 + [39])


PIECES = graphs.from_adjacency(np.kron(np.eye(2), np.ones((3, 3)) - np.eye(3)).astype(bool))
ONE_WAY = graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1).astype(bool))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("dsgd_aau:late=drop"), "unknown key 'late'"),
        (lambda: build_policy("dsgd_aau:weights=metropols"), "did you mean 'metropolis'"),
        (lambda: build_policy("dsgd_aau").init(PIECES), "the graph is not connected"),
        (lambda: build_policy("dsgd_aau").init(ONE_WAY), "not the other way round"),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)
