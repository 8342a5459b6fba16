"""MATCHA: agreement with a heap-queue reference, its matchings, its probabilities and its step."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from dbwjax.engine import timeline as timelines
from dbwjax.engine.clock import decision_key
from dbwjax.engine.clock import init as start
from dbwjax.network import graphs
from dbwjax.network.matchings import matchings
from dbwjax.network.properties import links_matrix
from dbwjax.policies import build_policy, matcha
from tests.cases import GRAPHS, NINE, STEPS, Case, assert_agree, nine, policy_of
from tests.reference import sporadic

NODES = NINE


def laplacians(graph, numbers):
    """`L_j` of each matching."""
    heard, links = np.asarray(graph.neighbours), np.asarray(graph.links)
    found = np.zeros((numbers.max() + 1, len(links), len(links)))
    for i, s in zip(*np.nonzero(links), strict=True):
        found[numbers[i, s], i, i] += 1
        found[numbers[i, s], i, heard[i, s]] -= 1
    return found


def links_used(case, state):
    """`used(k)` as the reference wants it: drawn anew from the policy's keys."""

    @functools.cache
    def used(k):
        drawn, _ = matcha.activated(decision_key(case.world.key, k), case.world.graph, state)
        number, heard = np.asarray(state.matching), np.asarray(case.world.graph.neighbours)
        links = zip(*np.nonzero(np.asarray(case.world.graph.links)), strict=True)
        return {tuple(sorted((int(i), int(heard[i, s])))) for i, s in links if drawn[number[i, s]]}

    return used


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("barrier", ["global", "neighbours"])
def test_it_is_the_reference(barrier, graph):
    agrees(nine(graph), barrier)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("barrier", ["global", "neighbours"])
def test_with_ties_it_is_the_reference(barrier):
    agrees(nine("random", "constant:seconds=1"), barrier)


def agrees(case, barrier):
    policy = policy_of(f"matcha:barrier={barrier}")
    state = policy.init(case.world.graph).own
    used = links_used(case, state)
    assert 0 < np.mean([len(used(k)) for k in range(STEPS)]) < np.asarray(case.world.graph.links).sum() / 2
    given = {"neighbours": case.neighbours, "latency": case.latency, **case.common}
    records = sporadic.run_matcha(barrier, used, float(state.step), **given)
    assert_agree(case.simulate(policy), records)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", ["random", "slow links"])
@pytest.mark.parametrize("barrier", ["global", "neighbours"])
def test_with_the_whole_budget_it_is_the_best_constant_weight(barrier, graph):
    case = nine(graph)
    specs = f"matcha:budget=1,barrier={barrier}", f"full:weights=best_constant,barrier={barrier}"
    seen, expected = (case.simulate(policy_of(spec)) for spec in specs)
    np.testing.assert_array_equal(seen.own, expected.own)
    np.testing.assert_allclose(seen.x, expected.x, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_one_worker_is_plain_sgd():
    case = Case(graphs.path(1), seed=2)
    for seen, expected in zip(*(case.simulate(policy_of(spec)) for spec in ("matcha", "full")), strict=True):
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.usefixtures("x64")
def test_ten_workers_who_all_hear_each_other():
    """Nine matchings at one half: `Lbar = (10 I - 11') / 2`, so its eigenvalue is 5, and a = rho = 1/6."""
    graph = graphs.complete(10)
    state = matcha.design(graph, 0.5)
    every, p = laplacians(graph, np.asarray(state.matching)), np.asarray(state.probability)[:9]
    np.testing.assert_allclose(p, 0.5, rtol=1e-9)
    mean = np.tensordot(p, every, 1)
    assert np.linalg.eigvalsh(mean)[1] == pytest.approx(5, rel=1e-9)
    assert float(state.step) == pytest.approx(1 / 6, rel=1e-9)
    assert rate(every, p, float(state.step)) == pytest.approx(1 / 6, rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_the_drawn_matrices_contract_as_promised():
    """`E[W W] = J + rho (I - J)` on ten workers who all hear each other, so every vector's square falls by 1/6."""
    case, policy = Case(graphs.complete(10), seed=3), policy_of("matcha")
    world = case.world
    state = start(policy, world.graph, world.delays, world.key)
    plans = timelines.timeline(policy, world, state, 600)[1]
    matrices = np.zeros((600, 10, 10))
    np.add.at(matrices, (np.arange(600)[:, None, None], np.arange(10)[:, None], plans.sources), plans.mix)
    x = np.random.default_rng(0).normal(size=(600, 10))
    x -= x.mean(axis=1, keepdims=True)
    share = ((matrices @ x[..., None]) ** 2).sum(axis=(1, 2)) / (x**2).sum(axis=1)
    assert abs(share.mean() - 1 / 6) < 3 * share.std() / np.sqrt(600)
    used = np.asarray(plans.info)[:, :9].mean(axis=0)
    assert (abs(used - 0.5) < 4 * 0.5 / np.sqrt(600)).all()
    np.testing.assert_array_equal(
        plans.messages, (np.asarray(plans.sources)[:, :, 1:] != np.arange(10)[:, None]).sum((1, 2))
    )


def rate(every, p, a):
    """The spectral norm, written out."""
    nodes = every.shape[1]
    mean = np.tensordot(p, every, 1)
    second = mean @ mean + 2 * np.tensordot(p * (1 - p), every, 1)
    return np.linalg.norm(np.eye(nodes) - 2 * a * mean + a * a * second - 1 / nodes, 2)


def test_the_rate_is_the_mean_square_of_all_draws():
    """By going through all of them: `E[W W] - J`."""
    graph = graphs.erdos_renyi(7, p=0.5, seed=1)
    state = matcha.design(graph, 0.6)
    every, a = laplacians(graph, np.asarray(state.matching)), float(state.step)
    p, total = np.asarray(state.probability)[: len(every)].astype(float), np.zeros((7, 7))
    for word in range(2 ** len(every)):
        on = np.array([word >> j & 1 for j in range(len(every))])
        one = np.eye(7) - a * np.tensordot(on, every, 1)
        total += np.prod(np.where(on, p, 1 - p)) * one @ one
    assert np.linalg.norm(total - 1 / 7, 2) == pytest.approx(rate(every, p, a), rel=1e-9)


SPREAD = [("erdos_renyi:p=0.4", 12), ("small_world:degree=4", 14), ("grid:rows=3", 9), ("random_regular:degree=3", 10)]


@pytest.mark.parametrize(("spec", "nodes"), SPREAD)
def test_the_step_is_the_best_one(spec, nodes):
    from scipy.optimize import minimize_scalar

    graph = graphs.build_graph(spec, nodes)
    number = matchings(graph)
    every = laplacians(graph, number)
    p = np.random.default_rng(0).uniform(0.2, 1, len(every))
    found = matcha.best_step(nodes, ends_of(graph, number), p)
    best = minimize_scalar(lambda a: rate(every, p, a), bounds=(0, 2), method="bounded", options={"xatol": 1e-12})
    assert rate(every, p, found) <= best.fun * (1 + 1e-12)
    assert found == pytest.approx(best.x, rel=1e-4)


def ends_of(graph, number):
    heard = np.asarray(graph.neighbours)
    found = [[] for _ in range(number.max() + 1)]
    for i, s in zip(*np.nonzero(np.asarray(graph.links)), strict=True):
        if i < heard[i, s]:
            found[number[i, s]].append((i, heard[i, s]))
    return [np.array(pairs) for pairs in found]


@pytest.mark.parametrize("budget", [0.25, 0.6])
@pytest.mark.parametrize(("spec", "nodes"), SPREAD)
def test_no_other_probabilities_are_better(spec, nodes, budget):
    """A bound from the dual: with `Z` positive of trace 1, the eigenvalue of any `p` is at most `sum p_j <Z, L_j>`."""
    graph = graphs.build_graph(spec, nodes)
    number = matchings(graph)
    every, ends = laplacians(graph, number), ends_of(graph, number)
    p = matcha.probabilities(nodes, ends, budget)
    assert (p >= 0).all()
    assert (p <= 1).all()
    assert p.sum() <= budget * len(every) * (1 + 1e-12)
    values = np.linalg.eigvalsh(np.tensordot(p, every, 1))
    assert dual_bound(every, p, budget) <= values[1] * (1 + 3e-6)
    spread = np.full(len(every), budget)
    assert values[1] >= np.linalg.eigvalsh(np.tensordot(spread, every, 1))[1] * (1 - 1e-12)


def dual_bound(every, p, budget):
    """The smallest such bound with `Z` a mean of squares of eigenvectors of matrices near the optimum."""
    from scipy.optimize import linprog

    rng, vectors = np.random.default_rng(0), []
    for scale in (0, 1e-6, 1e-4, 1e-3, 1e-2):
        for _ in range(40):
            trial = np.clip(p + scale * rng.normal(size=len(p)), 0, 1)
            vectors.append(np.linalg.eigh(np.tensordot(trial, every, 1))[1][:, 1:4].T)
    vectors = np.concatenate(vectors)
    gains = np.einsum("vi,mij,vj->vm", vectors, every, vectors)
    # max over p of p @ g = min over (y, s >= 0) of budget M y + sum s with y + s_j >= g_j.
    count, number = len(p), len(gains)
    cost = np.concatenate([np.zeros(number), [budget * count], np.ones(count)])
    rows = np.concatenate([gains.T, -np.ones((count, 1)), -np.eye(count)], axis=1)
    total = np.concatenate([np.ones(number), np.zeros(1 + count)])[None]
    return linprog(cost, rows, np.zeros(count), total, [1.0]).fun


def test_a_bridge_is_used_most():
    """Two groups of four with one link between them: the matching that holds it is worth more than any other."""
    links = [*[(i, j) for i in range(4) for j in range(i)], *[(4 + i, 4 + j) for i in range(4) for j in range(i)]]
    graph = graphs.from_links(8, [*links, (0, 4)])
    state = matcha.design(graph, 0.5)
    heard, number = np.asarray(graph.neighbours), np.asarray(state.matching)
    bridge = number[0][list(heard[0]).index(4)]
    assert bridge == int(np.argmax(state.probability))
    assert float(state.probability[bridge]) > 0.85
    assert float(state.probability.sum()) == pytest.approx(2, rel=1e-6)


def test_matchings_cover_the_graph_and_do_not_meet():
    for seed in range(12):
        for spec, nodes in [*SPREAD, ("complete", 7), ("complete", 8), ("hypercube", 16), ("path", 1), ("path", 2)]:
            graph = graphs.build_graph(spec, nodes, seed)
            number, links = matchings(graph), np.asarray(graph.links)
            np.testing.assert_array_equal(number >= 0, links)
            heard, largest = np.asarray(graph.neighbours), links.sum(axis=1).max()
            for i in range(nodes):
                own = number[i][links[i]]
                assert len(set(own)) == len(own)
                for j, n in zip(heard[i][links[i]], own, strict=True):
                    assert number[j][list(heard[j]).index(i)] == n
            used = set(number[links].tolist())
            assert used == set(range(len(used)))
            assert len(used) <= largest + 1
            fewest = networkx.is_bipartite(networkx.Graph(zip(*links_matrix(graph).nonzero(), strict=True)))
            if fewest or spec == "complete":
                assert len(used) == largest + (spec == "complete" and nodes % 2)


def test_the_fallback_colours_every_graph_with_one_more():
    """Misra and Gries' step on its own, on graphs that alternating paths may do."""
    from dbwjax.network.matchings import _Colours

    rng = np.random.default_rng(1)
    for seed in range(200):
        graph = networkx.gnp_random_graph(int(rng.integers(2, 12)), rng.random(), seed=seed)
        largest = max(dict(graph.degree).values())
        colours = _Colours(len(graph), largest + 1)
        for u, v in rng.permutation(list(graph.edges)).tolist():
            colours.by_fan(u, v)
        for i in graph:
            own = [colours.of(i, j) for j in graph[i]]
            assert len(set(own)) == len(own)
            assert all(0 <= colour <= largest for colour in own)


def test_the_state_has_the_graphs_shapes_so_that_graphs_are_a_vmap():
    several = [matcha.design(graphs.random_regular(8, degree=4, seed=seed), 0.5) for seed in range(4)]
    assert len({jax.tree.structure(one) for one in several}) == 1
    assert len({tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(one)) for one in several}) == 1


PIECES = graphs.from_adjacency(np.kron(np.eye(2), np.ones((3, 3)) - np.eye(3)).astype(bool))
ONE_WAY = graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1).astype(bool))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("matcha:budget=0"), "budget=0 is no share of the matchings; use one above 0, at most 1"),
        (lambda: build_policy("matcha:budget=1.1"), "budget=1.1 is no share of the matchings"),
        (lambda: build_policy("matcha:budget=-1"), "budget=-1 is no share"),
        (lambda: matcha.matcha(True), "budget=True is not a number"),
        (lambda: build_policy("matcha:barrier=none"), "is not a choice"),
        (lambda: build_policy("matcha:weights=lazy"), "unknown key 'weights'"),
        (lambda: build_policy("matcha").init(PIECES), "the graph is not connected"),
        (lambda: build_policy("matcha").init(ONE_WAY), "not the other way round"),
        (lambda: matcha.design(graphs.ring(200_000), 0.5), "workers=200000 and the spectrum .* needs about"),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)
