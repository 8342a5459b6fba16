"""The engine against the event-queue references: every rule, `late` and barrier, to 1e-12 in float64.

The two sides share the delays and the batches, and nothing else.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dbwjax.engine import clock
from dbwjax.engine import learner as learning
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World, by_node, init
from dbwjax.network import delays as laws
from dbwjax.network import graphs, properties, spanning
from dbwjax.policies import build_policy
from dbwjax.types import Learner
from tests import handmade
from tests.reference import drifting, gossip, pairwise, server

P = 3
STEPS = 60
RATE = 0.1

pytestmark = pytest.mark.usefixtures("x64", "compiled_lightly")


def sample(targets, key, worker, started):
    """One worker's 'batch': its own minimiser and this computation's noise."""
    noise = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, worker), started), (P,))
    return {"target": targets[worker], "noise": noise}


def gradient_fn(x, batch):
    error = x - batch["target"] + batch["noise"]
    return error, 0.5 * (error**2).sum(), None


def update_fn(gradient, local, x):
    return -RATE * gradient, local


LEARNER = Learner(lambda params: (), gradient_fn, update_fn)


class Case:
    """A graph with delays and batches, as the engine and as the reference take them."""

    def __init__(self, graph, seed=0, law="shifted_exponential:shift=0.2,rate=1"):
        self.nodes = graph.neighbours.shape[0]
        self.world = World(
            graph=graph,
            delays=laws.delays(law, self.nodes, seed),
            batches=Partial(sample, jnp.asarray(np.random.default_rng(seed).normal(size=(self.nodes, P)))),
            key=jax.random.key(seed),
        )
        draws = 3 * STEPS
        index = jnp.arange(self.nodes)[:, None] + jnp.zeros((1, draws), jnp.int32)
        count = jnp.arange(draws)[None, :] + jnp.zeros((self.nodes, 1), jnp.int32)

        def table(draw, purpose):
            each = jax.vmap(jax.vmap(draw, (None, 0, 0)), (None, 0, 0))
            return jax.tree.map(np.asarray, each(stream(self.world.key, purpose), index, count))

        self.seconds = table(self.world.delays, Stream.DELAYS)
        self.samples = table(self.world.batches, Stream.BATCHES)
        lists = np.asarray(graph.neighbours)
        links = np.asarray(graph.links)
        self.neighbours = [sorted(int(j) for j in lists[i][links[i]]) for i in range(self.nodes)]
        wait = {
            (i, int(j)): float(np.asarray(graph.latency)[i, s])
            for i in range(self.nodes)
            for s, j in enumerate(lists[i])
        }
        self.latency = lambda i, j: wait[i, j]

    def delay(self, i, n):
        return float(self.seconds[i, n])

    def update(self, i, n, x):
        return -RATE * (x - self.samples["target"][i, n] + self.samples["noise"][i, n])

    @property
    def common(self):
        return {"delay": self.delay, "update": self.update, "x0": np.zeros((self.nodes, P)), "steps": STEPS}

    def simulate(self, policy, steps=STEPS):
        """Absolute times and all parameters after each step, and whom the rule made active."""
        state = init(policy, LEARNER, self.world, jnp.zeros(P))
        world = self.world

        def one(state, _):
            plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock, state.feedback)
            model, info = learning.step(LEARNER, world.batches, plan, state.model, world.key)
            seen = by_node(plan, info, model) if policy.reads_training else None
            active = plan.fresh if plan.active is None else plan.active
            ready = plan.duration + 0 * state.clock.remaining if plan.ready is None else plan.ready
            return state._replace(clock=ticking, model=model, feedback=seen), (
                plan.duration,
                ready,
                active,
                model.params,
            )

        _, (duration, ready, active, x) = jax.jit(lambda s: jax.lax.scan(one, s, None, length=steps))(state)
        ends = np.cumsum(duration)
        return ends, (ends - duration)[:, None] + np.asarray(ready), np.asarray(active), np.asarray(x)


def assert_agree(records, ends, x):
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, [record.x for record in records], rtol=1e-12, atol=1e-12)


GRAPHS = {
    "ring": lambda: graphs.ring(6),
    "random": lambda: graphs.erdos_renyi(9, p=0.4, seed=3),
    "star": lambda: graphs.star(5),
    "complete": lambda: graphs.complete(5),
    "alone": lambda: graphs.path(1),
    "slow links": lambda: graphs.with_links(graphs.grid(6, rows=2), latency=0.3),
}


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
    if graph == "alone" and rule.startswith("fastest"):
        rule, reference = "fastest:k=1", gossip.Fastest(1)
        case = Case(GRAPHS[graph]())
    else:
        case = Case(GRAPHS[graph]())
        reference = reference_rule(rule, case.world.graph)
    policy = build_policy(rule + (",late=" if ":" in rule else ":late=") + late)
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
    ends, _, _, x = case.simulate(build_policy(f"dybw:flood_latency=0.05,late={late}"))
    assert_agree(records, ends, x)


@pytest.mark.parametrize("graph", ["ring", "random", "complete", "slow links"])
@pytest.mark.parametrize(("policy", "b"), [("full:barrier=neighbours", 0), ("backup:b=0", 0), ("backup:gap=inf", 1)])
def test_neighbour_barrier(policy, b, graph):
    case = Case(GRAPHS[graph](), seed=1)
    records = drifting.run_backup(b, neighbours=case.neighbours, latency=case.latency, **case.common)
    ends, own, _, x = case.simulate(build_policy(policy))
    assert_agree(records, ends, x)
    np.testing.assert_allclose(own, [record.ends for record in records], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("graph", ["ring", "random", "star", "slow links"])
@pytest.mark.parametrize("barrier", ["neighbours", "global"])
def test_dpsgd(barrier, graph):
    case = Case(GRAPHS[graph](), seed=2)
    records = drifting.run_dpsgd(barrier, neighbours=case.neighbours, latency=case.latency, **case.common)
    ends, own, _, x = case.simulate(build_policy(f"dpsgd:barrier={barrier}"))
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
