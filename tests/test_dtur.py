"""What DTUR promises on every connected graph and for every arrival order (arXiv 2102.06280, as recalled).

Agreement with the reference is in `test_agreement.py`; here are the properties that the convergence proof needs, and
`established` is kept again by hand.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax.network import graphs
from dbwjax.policies.dtur import dtur
from dbwjax.policies.gossip import gossip

LARGEST = 7
RULE = dtur()
POLICY = gossip(RULE)
KEY = jax.random.key(0)
cut = jax.jit(lambda graph, state, arrival: RULE.cut(KEY, graph, state, arrival))
decide = jax.jit(lambda graph, state, arrival: POLICY.decide(KEY, graph, state, arrival, None))


@st.composite
def connected_graphs(draw, least=2):
    """A random tree and random further links, so that stars, paths and complete graphs all come up."""
    nodes = draw(st.sampled_from([least, 4, 5, LARGEST]))  # few sizes: each is compiled once
    links = [(draw(st.integers(0, i - 1)), i) for i in range(1, nodes)]
    more = draw(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=12))
    return graphs.pad(graphs.from_links(nodes, [*links, *more]), LARGEST)


@st.composite
def cases(draw, least=2):
    """A graph and the arrivals of some iterations; whole numbers make ties frequent."""
    graph = draw(connected_graphs(least))
    nodes, steps = graph.neighbours.shape[0], draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        return graph, rng.integers(0, 4, size=(steps, nodes)).astype(np.float32)
    return graph, rng.pareto(1.5, size=(steps, nodes)).astype(np.float32)


def iterations(graph, arrivals):
    """Each iteration: links of the path, those established before (kept by hand), arrival, active, end; and epochs."""
    state = RULE.init(graph)
    path = [tuple(map(int, link)) for link in np.asarray(state.path)]
    before, epoch = set(), 0
    for arrival in arrivals:
        active, end, state = cut(graph, state, jnp.asarray(arrival))
        active, end = np.asarray(active), float(end)
        after = before | {link for link in path if active[list(link)].all()}
        yield path, before, after, arrival, active, end, epoch
        if after == set(path):
            after, epoch = set(), epoch + 1
        np.testing.assert_array_equal(state.established, [link in after for link in path])
        before = after


@settings(deadline=None, max_examples=30)
@given(cases())
def test_every_iteration_establishes_a_link_as_early_as_possible(case):
    graph, arrivals = case
    for path, before, after, arrival, active, end, _ in iterations(graph, arrivals):
        assert after > before
        assert end == min(max(arrival[i], arrival[j]) for i, j in path if (i, j) not in before)
        # Minimal: at any earlier moment the workers that had arrived established nothing new.
        for earlier in {float(t) for t in arrival if t < end}:
            there = arrival <= earlier
            assert {link for link in path if there[list(link)].all()} <= before
        # Everybody who has arrived by then is active, whoever ties included, and nobody else.
        np.testing.assert_array_equal(active, arrival <= end)


@settings(deadline=None, max_examples=30)
@given(cases())
def test_the_union_of_an_epoch_is_connected_within_d_iterations(case):
    graph, arrivals = case
    adjacency = graphs.adjacency(graph)
    epochs = {}
    for path, _, after, _, active, _, epoch in iterations(graph, arrivals):
        epochs.setdefault(epoch, []).append((adjacency & active[:, None] & active[None, :], after == set(path)))
    for steps in epochs.values():
        assert len(steps) <= len(adjacency) - 1  # d, the links of the path or tree
        assert [done for _, done in steps[:-1]] == [False] * (len(steps) - 1)
        if steps[-1][1]:
            assert networkx.is_connected(networkx.from_numpy_array(np.any([links for links, _ in steps], axis=0)))


@settings(deadline=None, max_examples=25)
@given(cases())
def test_active_workers_mix_over_all_links_between_them_and_no_others(case):
    graph, arrivals = case
    adjacency, nodes = graphs.adjacency(graph), graph.neighbours.shape[0]
    state = POLICY.init(graph)
    for arrival in arrivals:
        plan, state = decide(graph, state, jnp.asarray(arrival))
        active, mixing = np.asarray(plan.active), np.zeros((nodes, nodes))
        np.add.at(mixing, (np.arange(nodes)[:, None], np.asarray(plan.sources)), np.asarray(plan.mix))
        heard = (mixing > 0) & ~np.eye(nodes, dtype=bool)
        np.testing.assert_array_equal(heard, adjacency & active[:, None] & active[None, :])
        np.testing.assert_allclose(mixing, mixing.T, atol=1e-6)
        # Late workers, and active ones without an active neighbour, keep what they have, exactly.
        alone = ~heard.any(axis=1)
        np.testing.assert_array_equal(mixing[alone], np.eye(nodes)[alone])
        assert alone[~active].all()


@functools.cache
def walk(graph_name, nodes):
    graph = getattr(graphs, graph_name)(nodes)
    rng = np.random.default_rng(nodes)
    return list(iterations(graph, rng.exponential(size=(25, nodes)).astype(np.float32)))


def test_one_worker_waits_for_itself():
    graph = graphs.path(1)
    state = RULE.init(graph)
    for seconds in (2.5, 0.25):
        active, end, state = cut(graph, state, jnp.asarray([seconds]))
        assert np.asarray(active).tolist() == [True]
        assert float(end) == seconds


def test_two_workers_wait_for_each_other():
    for _, _, _, arrival, active, end, _ in walk("path", 2):
        assert active.all()
        assert end == arrival.max()


def test_a_star_has_no_spanning_path_and_its_tree_needs_the_centre():
    """Every link of the star's tree ends at the centre, so the centre is active in every iteration."""
    seen = walk("star", 6)
    assert sorted(map(sorted, seen[0][0])) == [[0, leaf] for leaf in range(1, 6)]
    for path, before, _, arrival, active, end, _ in seen:
        assert active[0]
        missing = [max(link) for link in path if link not in before]
        assert end == max(arrival[0], arrival[missing].min())


def test_a_tie_of_all_ends_an_epoch_at_once():
    for name in ("ring", "star", "complete"):
        seen = list(iterations(getattr(graphs, name)(5), np.full((3, 5), 1.5, np.float32)))
        assert [active.all() for _, _, _, _, active, _, _ in seen] == [True] * 3
        assert [epoch for *_, epoch in seen] == [0, 1, 2]


@pytest.mark.parametrize("nodes", [3, 6, 8])
def test_epochs_use_their_whole_length_only_when_they_must(nodes):
    """Links that come one by one: worker i is ready in iteration i and i + 1 only, so the epoch takes d iterations."""
    arrivals = np.full((nodes - 1, nodes), 9.0, np.float32)
    state = RULE.init(graphs.path(nodes))
    for k, (i, j) in enumerate(np.asarray(state.path)):
        arrivals[k, [i, j]] = 1.0
    seen = list(iterations(graphs.path(nodes), arrivals))
    assert [len(after) for _, _, after, *_ in seen] == list(range(1, nodes))
    assert [end for *_, end, _ in seen] == [1.0] * (nodes - 1)
    assert {epoch for *_, epoch in seen} == {0}
