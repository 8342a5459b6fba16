"""The engine against the event-queue references: every rule, `late` and barrier, to 1e-12 in float64.

The two sides share the delays and the batches, and nothing else.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.network import graphs, properties, spanning
from tests import handmade
from tests.cases import RATE, STEPS, Case, P, policy_of
from tests.reference import drifting, gossip, pairwise, server

pytestmark = pytest.mark.usefixtures("x64")


def assert_agree(records, ends, x):
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, [record.x for record in records], rtol=1e-12, atol=1e-12)


NODES = 9
GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "star": lambda: graphs.star(NODES),
    "complete": lambda: graphs.complete(NODES),
    "alone": lambda: graphs.path(1),
    "slow links": lambda: graphs.with_links(graphs.grid(NODES, rows=3), latency=0.3),
}


@functools.cache  # only called under the x64 fixture
def case_of(graph, seed=0):
    """All but the lonely worker have one size and rows of one width, so that a policy is compiled once for them."""
    return Case(GRAPHS[graph]() if graph == "alone" else graphs.pad(GRAPHS[graph](), NODES), seed)


def reference_rule(name, graph):
    links, _ = spanning.spanning_links(graph)
    return {
        "full": gossip.Full,
        "dybw": lambda: gossip.Dtur([tuple(int(v) for v in link) for link in links]),
        "fastest:k=3": lambda: gossip.Fastest(3),
        "deadline:seconds=0.9": lambda: gossip.Deadline(0.9),
    }[name]()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("late", ["drop", "carry", "apply"])
@pytest.mark.parametrize("rule", ["dybw", "full", "fastest:k=3", "deadline:seconds=0.9"])
def test_global_barrier(rule, late, graph):
    case = case_of(graph)
    if graph == "alone" and rule.startswith("fastest"):
        rule, reference = "fastest:k=1", gossip.Fastest(1)
    else:
        reference = reference_rule(rule, case.world.graph)
    policy = policy_of(rule + (",late=" if ":" in rule else ":late=") + late)
    records = gossip.run_global(reference, late, neighbours=case.neighbours, latency=case.latency, **case.common)
    ends, _, active, x = case.simulate(policy)
    assert_agree(records, ends, x)
    assert [set(np.flatnonzero(row)) for row in active] == [record.active for record in records]


@pytest.mark.parametrize("late", ["drop", "carry", "apply"])
def test_dtur_announcement_floods(late):
    case = Case(graphs.path(7), seed=5)
    links, is_path = spanning.spanning_links(case.world.graph)
    assert is_path
    reference = gossip.Dtur(
        [tuple(int(v) for v in link) for link in links], 0.05, properties.eccentricity(case.world.graph)
    )
    records = gossip.run_global(reference, late, neighbours=case.neighbours, **case.common)
    ends, _, _, x = case.simulate(policy_of(f"dybw:flood_latency=0.05,late={late}"))
    assert_agree(records, ends, x)


@pytest.mark.parametrize("graph", ["ring", "random", "complete", "slow links"])
@pytest.mark.parametrize(("policy", "b"), [("full:barrier=neighbours", 0), ("backup:b=0", 0), ("backup:gap=inf", 1)])
def test_neighbour_barrier(policy, b, graph):
    case = case_of(graph, seed=1)
    records = drifting.run_backup(b, neighbours=case.neighbours, latency=case.latency, **case.common)
    ends, own, _, x = case.simulate(policy_of(policy))
    assert_agree(records, ends, x)
    np.testing.assert_allclose(own, [record.ends for record in records], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("graph", ["ring", "random", "star", "slow links"])
@pytest.mark.parametrize("barrier", ["neighbours", "global"])
def test_dpsgd(barrier, graph):
    case = case_of(graph, seed=2)
    records = drifting.run_dpsgd(barrier, neighbours=case.neighbours, latency=case.latency, **case.common)
    ends, own, _, x = case.simulate(policy_of(f"dpsgd:barrier={barrier}"))
    assert_agree(records, ends, x)
    np.testing.assert_allclose(own, [record.ends for record in records], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("numbered", [False, True])
def test_pairwise_gossip_with_stale_updates(numbered):
    case = Case(graphs.erdos_renyi(7, p=0.5, seed=1), seed=4)
    rng = np.random.default_rng(0)
    picks = np.array([[rng.choice(near) for near in case.neighbours] for _ in range(STEPS)])
    records = pairwise.run_pairwise(lambda event, i: int(picks[event, i]), neighbours=case.neighbours, **case.common)
    ends, _, _, x = case.simulate(handmade.pairwise(picks, numbered))
    assert_agree(records, ends, x)


@pytest.mark.parametrize(
    ("policy", "reference"),
    [
        (handmade.server(0), lambda case: server.run_synchronous(0, **case.common)),
        (handmade.server(2), lambda case: server.run_synchronous(2, **case.common)),
        (handmade.asynchronous_server(), lambda case: server.run_asynchronous(**case.common)),
        (handmade.bounded_staleness(0), lambda case: server.run_stale(0, **case.common)),
        (handmade.bounded_staleness(2), lambda case: server.run_stale(2, **case.common)),
    ],
    ids=["synchronous", "two backups", "asynchronous", "staleness 0", "staleness 2"],
)
def test_server_is_a_node_that_never_computes(policy, reference):
    graph = graphs.star(6)._replace(computes=jnp.asarray([True] * 5 + [False]))
    case = Case(graph, seed=6)
    records = reference(case)
    ends, _, _, x = case.simulate(policy)
    assert_agree(records, ends, x)


def test_push_sum_moves_mass():
    rng = np.random.default_rng(7)
    columns = rng.random((5, 5)) * (rng.random((5, 5)) < 0.6) + np.eye(5)
    columns /= columns.sum(axis=0, keepdims=True)
    case = Case(graphs.complete(5), seed=7)
    _, _, _, x = case.simulate(handmade.push_sum(columns))
    value, mass, expected = np.zeros((5, P)), np.ones(5), []
    for k in range(STEPS):
        updates = np.stack([case.update(i, k, value[i] / mass[i]) for i in range(5)])
        value, mass = columns @ (value + updates), columns @ mass
        expected.append(value)
    np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-12)


def test_policy_that_reads_training():
    case = Case(graphs.complete(4), seed=8)
    _, _, active, x = case.simulate(handmade.loudest())
    value, loud, expected = np.zeros((4, P)), None, []
    for k in range(STEPS):
        errors = np.stack([value[i] - case.samples["target"][i, k] + case.samples["noise"][i, k] for i in range(4)])
        works = np.arange(4) != loud
        value = value - RATE * errors * works[:, None]
        loud = int(np.argmax(0.5 * (errors**2).sum(axis=1) * works))
        expected.append(value)
    np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-12)
    assert not active.all()
