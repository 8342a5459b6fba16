"""SGP and asynchronous gradient-push against their references, and what is known of push-sum."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.types import Learner
from tests.cases import RATE, Case, P, policy_of
from tests.reference import push_sum

pytestmark = pytest.mark.usefixtures("x64")

NODES, STEPS, EVENTS = 9, 60, 240
ONE_WAY = np.array([[(j - i) % 9 in (1, 3) or (i, j) in ((0, 5), (4, 6)) for j in range(9)] for i in range(9)])
"""An irregular digraph: everybody hears two others, and two workers three."""
UNEVEN = np.eye(9, k=1, dtype=bool) | np.eye(9, k=-8, dtype=bool) | (np.arange(9)[:, None] == 0) & (np.arange(9) > 0)
"""A ring of one direction in which worker 0 hears everybody: what most have gathered is small, and steps would have to
be, too."""
GRAPHS = {
    "one way": lambda: graphs.from_adjacency(ONE_WAY),
    "uneven": lambda: graphs.from_adjacency(UNEVEN),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "ring": lambda: graphs.ring(NODES),
    "slow links": lambda: graphs.with_links(graphs.from_adjacency(ONE_WAY), latency=0.3),
}


class Seen(NamedTuple):
    """A run, step by step."""

    ends: np.ndarray  # [T] seconds since the start
    own: np.ndarray  # [T, N] when each worker's own iteration ends
    x: np.ndarray  # [T, N, P]
    mass: np.ndarray  # [T, N]
    messages: np.ndarray  # [T]
    flight: np.ndarray  # [T, N] seconds


def gradient_fn(x, local, batch):
    error = x - batch["target"] + batch["noise"]
    return batch["rate"] * error, 0.5 * (error**2).sum(), None


LEARNER = Learner(lambda x: (), gradient_fn, lambda gradient, local, x: (-gradient, local))


def rated(rate, batches, key, worker, started):
    return {**batches(key, worker, started), "rate": rate}


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def watched(policy, steps, world, policy_state, x0):
    state = simulate.init(policy._replace(init=lambda graph: policy_state), LEARNER, world, jnp.zeros(P))
    origin = None if state.model.origin is None else x0
    state = state._replace(model=state.model._replace(params=x0, origin=origin))

    def one(state, _):
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock)
        model, _ = learning.step(LEARNER, world.batches, plan, state.model, world.key)
        ready = jnp.full_like(state.clock.remaining, plan.duration) if plan.ready is None else plan.ready
        flight = jnp.zeros_like(ready) if plan.flight is None else plan.flight
        seen = Seen(plan.duration, ready, model.params, model.mass, plan.messages, flight)
        return state._replace(clock=ticking, model=model), seen

    return jax.lax.scan(one, state, None, length=steps)[1]


@functools.cache  # only called under the x64 fixture
def case_of(graph):
    return Case(graphs.pad(GRAPHS[graph](), NODES), 1)


def run(spec, case, steps=STEPS, rate=RATE, x0=None):
    policy, start = policy_of(spec), np.zeros((case.nodes, P)) if x0 is None else x0
    batches = jax.tree_util.Partial(rated, jnp.asarray(rate), case.world.batches)
    world = simulate.networked(policy, case.world._replace(batches=batches))
    seen = jax.device_get(watched(policy, steps, world, policy.init(world.graph), jnp.asarray(start)))
    ends = np.cumsum(seen.ends)
    return seen._replace(ends=ends, own=(ends - seen.ends)[:, None] + seen.own)


def receivers_of(case):
    """Who hears each worker."""
    return [[j for j in range(case.nodes) if i in case.neighbours[j]] for i in range(case.nodes)]


def senders_to(spec, case):
    """`receivers(k, i)`, and how long a message takes."""
    nodes, to = case.nodes, receivers_of(case)
    mean = np.mean([case.latency(j, i) for i in range(nodes) for j in to[i]])
    if "exponential" in spec:
        return lambda k, i: sorted((i + hop) % nodes for hop in (1, 2, 4, 8)), lambda j, i: mean
    if "one_peer" in spec:
        return lambda k, i: [(i + 2 ** (k % 4)) % nodes], lambda j, i: mean
    return lambda k, i: to[i], case.latency


@pytest.mark.parametrize("graph", ["one way", "random", "slow links"])
@pytest.mark.parametrize("spec", ["sgp", "sgp:barrier=global", "sgp:graph=exponential", "sgp:graph=one_peer"])
def test_sgp_agrees(spec, graph):
    case = case_of(graph)
    receivers, latency = senders_to(spec, case)
    barrier = "global" if "global" in spec else "neighbours"
    records = push_sum.run_sgp(receivers, barrier, **case.common, latency=latency)
    seen = run(spec, case)
    np.testing.assert_allclose(seen.x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.mass, [record.w for record in records], rtol=1e-12)
    np.testing.assert_allclose(seen.own, [record.ends for record in records], rtol=1e-12)
    sent = sum(len(receivers(0, i)) for i in range(NODES))
    np.testing.assert_array_equal(seen.messages, sent)
    if graph == "slow links":
        assert seen.flight.max() == pytest.approx(0.3)


@pytest.mark.parametrize("graph", ["one way", "random", "ring"])
def test_agp_agrees(graph):
    case = case_of(graph)
    records = push_sum.run_agp(receivers_of(case), **{**case.common, "steps": EVENTS})
    seen = run("agp", case, EVENTS)
    np.testing.assert_allclose(seen.ends, [record.time for record in records], rtol=1e-12)
    np.testing.assert_allclose(seen.x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.mass, [record.w for record in records], rtol=1e-12)
    sent = [len(receivers_of(case)[min(record.active)]) for record in records]
    np.testing.assert_array_equal(seen.messages, sent)


@pytest.mark.parametrize("spec", ["sgp", "agp"])
def test_ties_go_to_the_lower_number(spec):
    case = Case(graphs.pad(GRAPHS["one way"](), NODES), 4, "constant")
    if spec == "agp":
        seen = run(spec, case, EVENTS)
        records = push_sum.run_agp(receivers_of(case), **{**case.common, "steps": EVENTS})
    else:
        seen = run(spec, case)
        records = push_sum.run_sgp(senders_to(spec, case)[0], "neighbours", **case.common)
    np.testing.assert_allclose(seen.ends, [record.time for record in records], rtol=1e-12)
    np.testing.assert_allclose(seen.x, [record.x for record in records], rtol=1e-12, atol=1e-12)


X0 = np.random.default_rng(5).normal(size=(NODES, P))


@pytest.mark.parametrize("graph", ["one way", "uneven"])
@pytest.mark.parametrize(("spec", "steps"), [("sgp", 200), ("agp", 2000)])
def test_without_updates_the_mean_is_reached(spec, steps, graph):
    """`x / w` goes to the mean of what everybody started from; `x` alone does not. Sums are kept at every step."""
    seen = run(spec, case_of(graph), steps, rate=0.0, x0=X0)
    np.testing.assert_allclose(seen.x.sum(axis=1), np.broadcast_to(X0.sum(axis=0), (steps, P)), atol=1e-12)
    np.testing.assert_allclose(seen.mass.sum(axis=1), NODES, rtol=1e-12)
    mean, last = X0.mean(axis=0), seen.x[-1] / seen.mass[-1][:, None]
    assert np.abs(last - mean).max() < 2e-15
    assert np.abs(seen.x[-1] - mean).max() > 0.1  # so that it matters
    assert np.abs(seen.mass[-1] - 1).max() > 0.1


def test_updates_move_the_sum_by_their_sum():
    """With updates, too, nothing else changes the sum of `x`."""
    case = case_of("one way")
    seen = run("sgp", case, 1, x0=X0)
    updates = [case.update(i, 0, X0[i]) for i in range(NODES)]
    np.testing.assert_allclose(seen.x[0].sum(axis=0), X0.sum(axis=0) + np.sum(updates, axis=0), rtol=1e-12)


def test_one_peer_averages_eight_in_three_rounds():
    case, start = Case(graphs.ring(8), 2), np.random.default_rng(6).normal(size=(8, P))
    seen = run("sgp:graph=one_peer", case, 3, rate=0.0, x0=start)
    off = np.abs(seen.x - start.mean(axis=0)).max(axis=(1, 2))
    assert off[2] < 1e-15
    assert off[1] > 0.05
    np.testing.assert_array_equal(seen.mass, 1)


def test_where_columns_and_rows_sum_to_one_it_is_full():
    """On a ring `sgp` is cb-Full with weights of a third."""
    case = Case(graphs.pad(graphs.ring(NODES), NODES), 3)
    course, seen = case.simulate(policy_of("full:barrier=neighbours,weights=uniform")), run("sgp", case)
    np.testing.assert_allclose(seen.x, course.x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.own, course.own, rtol=1e-12)


@pytest.mark.parametrize("spec", ["sgp", "sgp:graph=exponential", "sgp:graph=one_peer", "agp"])
def test_one_worker_is_plain_sgd(spec):
    case = Case(graphs.path(1), 2)
    seen, x, expected = run(spec, case, 20), np.zeros(P), []
    for k in range(20):
        x = x + case.update(0, k, x)
        expected.append(x)
    np.testing.assert_allclose(seen.x[:, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.ends, np.cumsum(case.seconds[0, :20]), rtol=1e-12)
    np.testing.assert_array_equal(seen.messages, 0)


@pytest.mark.parametrize("nodes", [2, 3, 8, 9])
def test_exponential_graph(nodes):
    made = policy_of("sgp:graph=exponential").network(graphs.with_links(graphs.path(nodes), latency=0.5))
    heard = graphs.adjacency(made)
    offsets = {2: [1], 3: [1, 2], 8: [1, 2, 4], 9: [1, 2, 4, 8]}[nodes]
    for i in range(nodes):
        assert set(np.flatnonzero(heard[i])) == {(i - offset) % nodes for offset in offsets}
    np.testing.assert_array_equal(np.asarray(made.latency)[np.asarray(made.links)], 0.5)


def test_a_link_of_the_exponential_graph_takes_the_mean_time():
    graph = graphs.with_links(graphs.path(3), latency=0.5)
    graph = graph._replace(latency=graph.latency.at[0, 1].set(2.5))  # four links in all
    made = policy_of("sgp:graph=one_peer").network(graph)
    np.testing.assert_array_equal(np.asarray(made.latency)[np.asarray(made.links)], 1.0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("sgp:graph=ring", "graph=ring is not a choice"),
        ("sgp:barrier=local", "barrier=local is not a choice"),
        ("sgp:weights=uniform", "unknown key 'weights'"),
        ("agp:barrier=global", "unknown key 'barrier'"),
    ],
)
def test_bad_settings(spec, words):
    with pytest.raises(ValueError, match=words) as error:
        build_policy(spec)
    assert "\n" not in str(error.value)


def test_bad_graphs():
    slow = graphs.with_links(graphs.ring(5), latency=0.25)
    with pytest.raises(
        ValueError, match=r"agp takes no latency, and a message needs up to 0.25 s: .*use --latency 0, or sgp"
    ):
        policy_of("agp").init(slow)
    one_way = np.eye(4, k=1, dtype=bool)
    for spec in ("sgp", "agp"):
        with pytest.raises(ValueError, match="the graph is not connected: not everybody hears everybody"):
            policy_of(spec).init(graphs.from_adjacency(one_way))
