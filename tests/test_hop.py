"""Hop against its event queue, and what is known of it: equivalence, gap, who is heard, skipping."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.network import graphs, properties
from dbwjax.policies import build_policy
from tests.cases import LEARNER, RATE, Case, P, policy_of
from tests.reference.hop import Hop

pytestmark = pytest.mark.usefixtures("x64")

NODES, EVENTS = 9, 400
ONE_WAY = np.array([[(j - i) % 9 in (1, 3) or (i, j) in ((0, 5), (4, 6)) for j in range(9)] for i in range(9)])
GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "one way": lambda: graphs.from_adjacency(ONE_WAY),
    "slow links": lambda: graphs.with_links(graphs.erdos_renyi(NODES, p=0.4, seed=3), latency=0.3),
    "constant": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "constant, slow links": lambda: graphs.with_links(graphs.erdos_renyi(NODES, p=0.4, seed=3), latency=0.5),
}
SETTINGS = {
    "hop": (1, 8, 0, 0),
    "hop:b=2,gap=1": (2, 1, 0, 0),
    "hop:b=0,gap=4,staleness=2": (0, 4, 2, 0),
    "hop:b=1,gap=4,staleness=1,skip=1": (1, 4, 1, 1),
    "hop:b=2,gap=4,skip=1": (2, 4, 0, 1),
}


class Seen(NamedTuple):
    """A run, event by event."""

    ends: np.ndarray  # [T] seconds since the start
    row: np.ndarray  # [T] the node that is written
    x: np.ndarray  # [T, N, P] the workers' parameters
    iteration: np.ndarray  # [T, N]
    heard: np.ndarray  # [T, D] who is heard; else N(1 + S)
    missed: np.ndarray  # [T] neighbours not heard
    messages: np.ndarray  # [T]
    flight: np.ndarray  # [T] seconds


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def watched(policy, steps, world, policy_state):
    state = simulate.init(policy._replace(init=lambda graph: policy_state), LEARNER, world, jnp.zeros(P))

    def one(state, _):
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock)
        model, _ = learning.step(LEARNER, world.batches, plan, state.model, world.key, idles=policy.idles)
        at = ticking.policy.own.iteration
        told = (plan.heard, plan.backups, plan.messages, plan.flight[0])
        seen = Seen(plan.duration, plan.rows[0], model.params[: at.shape[0]], at, *told)
        return state._replace(clock=ticking, model=model), seen

    return jax.lax.scan(one, state, None, length=steps)[1]


@functools.cache  # only called under the x64 fixture
def case_of(graph):
    law = "constant" if "constant" in graph else "shifted_exponential:shift=0.2,rate=1"
    return Case(graphs.pad(GRAPHS[graph](), NODES), 1, law)


@functools.cache
def run(spec, graph):
    """The engine's run."""
    return run_of(policy_of(spec), case_of(graph).world)


def run_of(policy, world, steps=EVENTS):
    world = simulate.networked(policy, world)
    seen = jax.device_get(watched(policy, steps, world, policy.init(world.graph)))
    return seen._replace(ends=np.cumsum(seen.ends))


def reference(kind, settings, case):
    told = {"delay": case.delay, "update": case.update, "x0": np.zeros((case.nodes, P))}
    return kind(*settings, **told, neighbours=case.neighbours, latency=case.latency)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("spec", SETTINGS)
def test_agreement(spec, graph):
    told, seen = reference(Hop, SETTINGS[spec], case_of(graph)), run(spec, graph)
    records = told.run(EVENTS)
    np.testing.assert_allclose(seen.ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(seen.iteration, [record.iteration for record in records])
    if "skip" in spec and "constant" not in graph:
        assert told.jumps > 2


@pytest.mark.parametrize("graph", ["ring", "random", "slow links"])
def test_without_backups_it_is_full_with_uniform_weights(graph):
    """The same times, parameters and seconds in flight of every worker's every iteration."""
    case, seen = case_of(graph), run("hop:b=0,gap=4", graph)
    course = case.simulate(policy_of("full:barrier=neighbours,weights=uniform"))
    flight = flight_of(case)
    for j in range(NODES):
        ended = np.flatnonzero(seen.row == j)
        assert len(ended) > 18
        np.testing.assert_allclose(seen.ends[ended], course.own[: len(ended), j], rtol=1e-12)
        np.testing.assert_allclose(seen.x[ended, j], course.x[: len(ended), j], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(seen.flight[ended], flight[: len(ended), j], rtol=1e-9, atol=1e-9)
    assert (seen.flight.max() > 0.29) == (graph == "slow links")


def flight_of(case):
    """Of each iteration of `full:barrier=neighbours`: seconds a worker waited for its last message in flight."""
    start, found = np.zeros(NODES), []
    for k in range(60):
        end = np.array([start[i] + case.delay(i, k) for i in range(NODES)])
        last = [max((end[i] + case.latency(j, i), end[i]) for i in case.neighbours[j]) for j in range(NODES)]
        found.append([max(last[j][0] - max(end[j], last[j][1]), 0) for j in range(NODES)])
        start = np.array([max(end[j], last[j][0]) for j in range(NODES)])
    return np.array(found)


def test_nobody_is_further_ahead_than_the_gap():
    """Worker 0 takes for ever: a worker at distance d of it comes to a stop `gap d` iterations later, and no sooner."""
    world = Case(graphs.ring(NODES), 1).world
    stuck = world._replace(delays=Partial(stuck_first, world.delays))
    seen = run_of(policy_of("hop:b=1,gap=2"), stuck, 200)
    at = seen.iteration[seen.ends < 1e9]
    hops = properties.distances(world.graph)
    assert (np.abs(at[:, :, None] - at[:, None, :]) <= 2 * hops).all()
    np.testing.assert_array_equal(at[-1], 2 * hops[0])


def stuck_first(law, key, worker, started):
    return jnp.where(worker == 0, 1e9, law(key, worker, started))


@pytest.mark.parametrize("graph", ["random", "slow links"])
@pytest.mark.parametrize("spec", SETTINGS)
def test_neighbours_stay_within_the_gap(spec, graph):
    at, gap = run(spec, graph).iteration, SETTINGS[spec][1]
    apart = np.abs(at[:, :, None] - at[:, None, :])
    linked = graphs.adjacency(case_of(graph).world.graph)
    furthest = {"hop:b=0,gap=4,staleness=2": 3}  # everybody waits for messages 2 iterations old
    assert apart[:, linked].max() <= furthest.get(spec, gap)
    assert apart[:, linked].max() == furthest.get(spec, gap) or spec == "hop"  # whose gap is wide


def test_as_many_are_heard_as_waited_for():
    """And so a message may be there and not be taken, which is where `backup` differs."""
    case, seen = case_of("random"), run("hop", "random")
    degree = np.array([len(near) for near in case.neighbours])
    ends = seen.row < NODES
    heard = (seen.heard < NODES).sum(axis=1)
    np.testing.assert_array_equal(heard[ends], np.maximum(degree - 1, 1)[seen.row[ends]])
    np.testing.assert_array_equal(heard[~ends], 0)
    np.testing.assert_array_equal(seen.missed[ends], degree[seen.row[ends]] - heard[ends])
    for k in np.flatnonzero(ends):
        assert set(seen.heard[k][seen.heard[k] < NODES]) <= set(case.neighbours[seen.row[k]])
    np.testing.assert_array_equal(seen.messages[ends], 0)
    worker = (seen.row[~ends] - NODES) // 9
    np.testing.assert_array_equal(seen.messages[~ends], degree[worker])


def test_a_slow_worker_skips_and_the_others_gain():
    world = Case(graphs.erdos_renyi(NODES, p=0.5, seed=1), 3).world
    slow = world._replace(delays=Partial(slow_first, world.delays))
    skipping, plain = (run_of(policy_of(f"hop:b=1,gap=4,skip={m}"), slow) for m in (2, 0))
    computed = (skipping.row == 0).sum()
    assert skipping.iteration[-1, 0] > 2 * computed > 4
    assert skipping.ends[-1] < 0.6 * plain.ends[-1]  # for as many events
    assert plain.iteration[-1, 0] == (plain.row == 0).sum()


def slow_first(law, key, worker, started):
    return law(key, worker, started) * jnp.where(worker == 0, 10.0, 1.0)


class Silent(Hop):
    """Without notices of what is skipped."""

    def send(self, sender, tag, message):
        if message is not None:
            super().send(sender, tag, message)


@pytest.mark.parametrize("settings", [(1, 4, 0, 1), (2, 4, 0, 1), (0, 4, 2, 1)])
def test_without_notices_workers_would_wait_for_ever(settings):
    """The reason for them: some worker's neighbours have all skipped its iteration."""
    seconds = 0.2 + np.random.default_rng(0).exponential(size=(NODES, 1500))
    seconds[:3] *= 4
    given = {"delay": lambda i, n: seconds[i, n], "update": lambda i, n, x: 0 * x, "x0": np.zeros((NODES, 1))}
    ring = [sorted({(i - 1) % NODES, (i + 1) % NODES}) for i in range(NODES)]
    assert len(Hop(*settings, **given, neighbours=ring).run(1000)) == 1000
    with pytest.raises(IndexError):  # nothing is left in the queue
        Silent(*settings, **given, neighbours=ring).run(1000)


@pytest.mark.parametrize("spec", ["hop:gap=1", "hop:b=1,gap=4,staleness=1,skip=1"])
def test_one_worker_is_plain_sgd(spec):
    case = Case(graphs.path(1), 2)
    seen = run_of(policy_of(spec), case.world, 40)
    x, expected = np.zeros(P), []
    for k in range(20):
        x = x + case.update(0, k, x)
        expected.append(x)
    np.testing.assert_allclose(seen.x[1::2, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.ends[1::2], np.cumsum(case.seconds[0, :20]), rtol=1e-12)
    assert RATE > 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("hop:b=-1", "b=-1 is out of range; use 0 or more"),
        ("hop:gap=0", "gap=0 is out of range; use 1 to 4096"),
        ("hop:gap=5000", "gap=5000 is out of range; use 1 to 4096"),
        ("hop:gap=inf", "gap=inf"),
        ("hop:gap=2,staleness=3", "gap=2 is below staleness=3, so that .*; use a gap of 3 or more"),
        ("hop:staleness=-1", "staleness=-1 is out of range"),
        ("hop:skip=-1", "skip=-1 is out of range"),
        ("hop:b=0,skip=2", "skip=2 with b=0 and staleness=0 never happens.*; use b=1 or staleness=1, or skip=0"),
        ("hop:skip=8", "skip=8 with gap=8 never happens.*; use a skip of 7 or less"),
        ("hop:weights=uniform", "unknown key 'weights'"),
    ],
)
def test_bad_settings(spec, words):
    with pytest.raises(ValueError, match=words) as error:
        build_policy(spec)
    assert "\n" not in str(error.value)


def test_bad_graphs():
    policy = policy_of("hop")
    with pytest.raises(ValueError, match="hop needs its mailboxes"):
        policy.init(graphs.ring(NODES))
    with pytest.raises(ValueError, match="the graph is not connected"):
        policy.network(graphs.from_links(4, [(0, 1), (2, 3)]))
