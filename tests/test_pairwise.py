"""AD-PSGD, randomized gossip, the token and SWIFT: their references to 1e-12, and what is known of them.

References share delays, batches and what was drawn at random with the engine, and nothing else.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine.simulate import World
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from tests.cases import RATE, Case, P, policy_of
from tests.eventful import EVENTS, assert_agree, course, plans
from tests.reference import pairwise, pairwise_more
from tests.test_agreement import NODES

GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "complete": lambda: graphs.complete(NODES),
    "grid": lambda: graphs.grid(NODES, rows=3),
    "star": lambda: graphs.star(NODES),
    "path": lambda: graphs.path(NODES),
    "slow links": lambda: uneven(graphs.grid(NODES, rows=3)),
    "slow star": lambda: uneven(graphs.star(NODES)),
}
SIDES = {"grid": {0, 2, 4, 6, 8}, "star": set(range(1, 9)), "path": {0, 2, 4, 6, 8}, "slow star": set(range(1, 9))}
"""The larger sides."""

x64 = pytest.mark.usefixtures("x64")


def uneven(graph):
    """Messages that take 0 to 0.8 s, by link and direction."""
    seconds = 0.1 * ((3 * np.arange(len(graph.links))[:, None] + 5 * np.asarray(graph.neighbours)) % 9)
    return graphs.with_latency(graph, np.where(graph.links, seconds, 0))


@functools.cache  # only called under the x64 fixture
def case_of(graph, seed=4, law="shifted_exponential:shift=0.2,rate=1"):
    """All of one size and rows of one width, so that a policy is compiled once for them."""
    return Case(graphs.pad(GRAPHS[graph](), NODES), seed, law)


def one_way():
    """A ring in which every worker hears the next one only."""
    return graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1))


def given(case, steps=EVENTS):
    return {**case.common, "neighbours": case.neighbours, "steps": steps}


def drawn(seen):
    """What a policy with ticks drew for each event."""
    unit, node, partner = (seen.info[name] for name in ("unit", "node", "partner"))
    return lambda event: (float(unit[event]), int(node[event]), int(partner[event]))


def partners_of(seen):
    """With whom each worker averages after each of its computations, as the policy drew it beforehand."""
    lists = [[int(j)] for j in seen.start.own.partner]
    for i, j in zip(seen.worker, seen.info["next"], strict=True):
        lists[i].append(int(j))
    return lambda i, n: lists[i][n]


def assert_adpsgd_agrees(policy, case, asks=None):
    seen = course(policy, case.world)
    asks = set(range(case.nodes)) if asks is None else asks
    records = pairwise_more.run_adpsgd(partners_of(seen), asks, latency=case.latency, **given(case))
    assert_agree(records, seen)
    return seen


@x64
@pytest.mark.parametrize("graph", ["ring", "random", "complete", "slow links", "slow star"])
def test_adpsgd_is_its_reference(graph):
    seen = assert_adpsgd_agrees(policy_of("adpsgd"), case_of(graph))
    assert set(seen.worker) == set(range(NODES))


@x64
@pytest.mark.parametrize("graph", SIDES)
def test_adpsgd_of_two_sides_is_its_reference(graph):
    policy = policy_of("adpsgd:bipartite=true")
    seen = assert_adpsgd_agrees(policy, case_of(graph), SIDES[graph])
    met = seen.worker != seen.info["partner"]
    assert set(seen.worker[met]) == SIDES[graph]
    assert set(seen.worker) == set(range(NODES))
    assert not set(seen.info["partner"][met]) & SIDES[graph]


@x64
def test_adpsgd_is_the_first_reference_too():
    """The one that the engine was built with, which picks when a worker has finished."""
    case = case_of("random")
    seen = course(policy_of("adpsgd"), case.world)
    partner = seen.info["partner"]
    assert_agree(pairwise.run_pairwise(lambda event, i: int(partner[event]), **given(case)), seen)


@x64
@pytest.mark.parametrize("graph", ["ring", "random", "complete"])
def test_randomized_gossip_is_its_reference(graph):
    case = case_of(graph)
    seen = course(policy_of("randomized_gossip"), case.world)
    assert_agree(pairwise_more.run_gossip(drawn(seen), 1.0, **given(case)), seen)
    assert 80 < seen.fresh.sum() < 160  # a tick for each computation


@x64
@pytest.mark.parametrize("graph", ["ring", "random", "star", "slow links"])
def test_token_is_its_reference(graph):
    case = case_of(graph)
    seen = course(policy_of("token"), case.world)
    followers = seen.info["next"]
    records = pairwise_more.run_token(lambda event, i: int(followers[event]), latency=case.latency, **given(case))
    assert_agree(records, seen, slice(NODES, None))
    np.testing.assert_array_equal(seen.x[:, :NODES], 0)
    assert set(followers) == set(range(NODES))


@x64
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("graph", ["ring", "random", "star", "complete"])
def test_swift_is_its_reference(graph, every):
    case = case_of(graph)
    seen = course(policy_of(f"swift:every={every}"), case.world)
    assert_agree(pairwise_more.run_swift(every, **given(case)), seen)


@x64
def test_of_several_finishes_at_one_instant_the_lowest_worker_comes_first():
    """Constant times: at every second, everybody finishes; a tick falls between."""
    case = case_of("random", law="constant:seconds=1")
    assert_adpsgd_agrees(policy_of("adpsgd"), case)
    seen = course(policy_of("swift:every=1"), case.world)
    assert_agree(pairwise_more.run_swift(1, **given(case)), seen)
    assert list(seen.worker) == [event % NODES for event in range(EVENTS)]
    seen = course(policy_of("randomized_gossip"), case.world)
    assert_agree(pairwise_more.run_gossip(drawn(seen), 1.0, **given(case)), seen)
    # Latencies of half a second: some exchanges fall on finishes.
    slow = Case(graphs.with_links(graphs.pad(GRAPHS["grid"](), NODES), latency=0.5), 4, "constant:seconds=1")
    assert_adpsgd_agrees(policy_of("adpsgd"), slow)


@x64
@pytest.mark.parametrize("spec", ["adpsgd", "adpsgd:bipartite=true", "randomized_gossip", "token", "swift", "acid"])
def test_one_worker_is_plain_sgd(spec):
    """It has nobody to average with: no exchanges, no ticks, a token that stays."""
    case, steps = alone(), 100
    seen = course(policy_of(spec), case.world, steps)
    x, expected = np.zeros(P), []
    for n in range(steps):
        x = x + case.update(0, n, x)
        expected.append(x)
    model = seen.x[:, 1] if spec == "token" else seen.x[:, 0]
    np.testing.assert_allclose(model, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(seen.ends, np.cumsum(case.seconds[0, :steps]), rtol=1e-12)
    assert seen.fresh.all()


@functools.cache
def alone():
    return Case(graphs.path(1), 5)


@x64
def test_the_token_among_equal_objectives_is_plain_sgd():
    case = case_of("random")
    same = case.samples["target"][0, 0]
    batches = case.world.batches
    targets, noise = jnp.broadcast_to(jnp.asarray(same), batches.args[0].shape), jnp.zeros_like(batches.args[1])
    world = case.world._replace(batches=type(batches)(batches.func, targets, noise))
    seen = course(policy_of("token"), world)
    expected = (1 - (1 - RATE) ** np.arange(1, EVENTS + 1))[:, None] * same
    np.testing.assert_allclose(seen.x[:, NODES], expected, rtol=1e-12, atol=1e-12)


LONG, TEN = 20_000, 10


@functools.cache
def long_run(spec, law="shifted_exponential:shift=0,rate=1", graph="complete", steps=LONG):
    """Plans of ten workers, the clock alone, in the default float type."""
    net = {"complete": graphs.complete, "ring": graphs.ring}[graph](TEN)
    delays = laws.build_delays(law, TEN, 1)
    return plans(policy_of(spec), World(net, delays, None, jax.random.key(7)), steps)


def spread_factors(found, x):
    """By what each event's mixing alone multiplies the squared spread of `x` [N]."""
    rows, count = found.rows, len(x)
    after = np.broadcast_to(np.append(x, 0.0), (len(rows), count + 1)).copy()
    new = np.einsum("trs,trs->tr", found.mix.astype(float), x[found.sources])
    np.put_along_axis(after, rows, new, axis=1)
    after = after[:, :count]
    return ((after - after.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / ((x - x.mean()) ** 2).sum()


@pytest.mark.parametrize("spec", ["adpsgd", "randomized_gossip"])
def test_an_average_of_a_random_pair_of_all_shrinks_the_squared_spread_as_known(spec):
    """By 1 - 1/(N - 1) in expectation, where any pair is as likely as another: exponential times, complete graph."""
    found, x = long_run(spec), np.random.default_rng(2).normal(size=TEN)
    factors = spread_factors(found, x)
    if spec == "randomized_gossip":
        np.testing.assert_allclose(factors[~found.info["tick"]], 1)
        factors = factors[found.info["tick"]]
    error = factors.std() / np.sqrt(len(factors))
    assert error < 0.002
    assert abs(factors.mean() - (1 - 1 / (TEN - 1))) < 3 * error


def test_the_spread_falls_so_event_after_event():
    """2,000 stretches of ten events each, one after the other, each from the same parameters."""
    found, start = long_run("adpsgd"), np.random.default_rng(3).normal(size=TEN)
    stretch, i, j = 10, found.workers[:, 0].reshape(-1, 10), found.info["partner"].reshape(-1, 10)
    x, every = np.tile(start, (len(i), 1)), np.arange(len(i))
    for event in range(stretch):
        mean = (x[every, i[:, event]] + x[every, j[:, event]]) / 2
        x[every, i[:, event]], x[every, j[:, event]] = mean, mean
    shrunk = ((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / ((start - start.mean()) ** 2).sum()
    error = shrunk.std() / np.sqrt(len(shrunk))
    assert abs(shrunk.mean() - (1 - 1 / (TEN - 1)) ** stretch) < 3 * error
    assert error < 0.01 * 0.5


@pytest.mark.parametrize(
    ("law", "mean", "deviation"),
    [
        ("shifted_exponential:shift=0.2,rate=1", 1.2, 1.0),
        ("uniform:low=0.5,high=1.5", 1.0, 12**-0.5),
        ("lognormal:median=1,sigma=0.5", np.exp(0.125), np.exp(0.125) * np.sqrt(np.exp(0.25) - 1)),
    ],
)
def test_nobody_waits_under_adpsgd(law, mean, deviation):
    """N / E[X] updates a second in the long run, the first N dropped."""
    ends = np.cumsum(long_run("adpsgd", law).duration.astype(float))
    seconds, updates = ends[-1] - ends[TEN - 1], LONG - TEN
    rate, error = updates / seconds, np.sqrt(updates) * deviation / mean / seconds
    assert error / rate < 0.01
    assert abs(rate - TEN / mean) < 3 * error


@pytest.mark.parametrize(
    "law",
    ["shifted_exponential:shift=0,rate=1", "shifted_exponential:shift=0,rate=1*slow_workers:fraction=0.3,factor=5"],
)
@pytest.mark.parametrize("rate", [1, 3])
def test_there_are_so_many_ticks_a_computation_as_the_rate_says(rate, law):
    found = long_run(f"randomized_gossip:rate={rate}", law)
    ticks, computations = found.info["tick"].sum(), found.fresh.sum()
    assert ticks + computations == LONG
    # Ticks given the times are Poisson; the running mean trails the number of computations by about its own scatter.
    error = np.sqrt(rate * computations + rate**2 * computations)
    assert abs(ticks - rate * computations) < 3 * error
    assert error < 0.06 * ticks
    at = found.info["node"][found.info["tick"]]
    counts = np.bincount(at, minlength=TEN)
    assert (np.abs(counts - ticks / TEN) < 4 * np.sqrt(ticks / TEN)).all()  # slow workers tick as often


def test_the_token_does_a_computation_after_the_other():
    """As many gradients as fit one worker: 120 in 120 s of exponential times, whatever the ten would do."""
    counts = []
    delays = laws.build_delays("shifted_exponential:shift=0,rate=1", TEN, 1)
    for seed in range(8):
        found = plans(policy_of("token"), World(graphs.ring(TEN), delays, None, jax.random.key(seed)), 200)
        counts.append((np.cumsum(found.duration.astype(float)) <= 120).sum())
        assert found.fresh.all()
        starts = np.concatenate([[0], found.restart[:-1, 0]])
        np.testing.assert_array_equal(found.workers[:, 0], starts)
    assert abs(np.mean(counts) - 120) < 3 * np.sqrt(120 / len(counts))


def test_the_token_visits_all_equally_often():
    """The walk of Metropolis has the uniform law: also on a star, whose hub has all the links."""
    delays = laws.build_delays("constant:seconds=1", TEN, 1)
    steps = 20_000
    found = plans(policy_of("token"), World(graphs.star(TEN), delays, None, jax.random.key(3)), steps)
    visits = np.bincount(found.workers[:, 0], minlength=TEN)
    # A leaf keeps the token 9 times of 10, so that (1 + 0.9)/(1 - 0.9) = 19 visits tell as much as one alone would.
    assert (np.abs(visits / steps - 1 / TEN) < 3 * np.sqrt(0.1 * 0.9 * 19 / steps)).all()
    held, first = {0}, []
    for k, idle in zip(found.restart[:, 0], found.idle, strict=True):
        first.append(k not in held)
        assert set(np.flatnonzero(idle)) == ({int(k)} if first[-1] else set())
        held.add(int(k))
    assert sum(first) == TEN - 1


def test_the_matrices_of_swift():
    """Each event writes the finisher's row of W; over workers that finish equally often, E[W] = I - (I - W)/N."""
    found = long_run("swift", graph="ring")
    metropolis = np.eye(TEN) / 3 + np.roll(np.eye(TEN), 1, axis=0) / 3 + np.roll(np.eye(TEN), -1, axis=0) / 3
    matrices = np.tile(np.eye(TEN), (LONG, 1, 1))
    every = np.arange(LONG)
    matrices[every, found.rows[:, 0]] = 0
    for slot in range(found.mix.shape[2]):
        matrices[every, found.rows[:, 0], found.sources[:, 0, slot]] += found.mix[:, 0, slot]
    one_of_each = [matrices[found.workers[:, 0] == i][0] for i in range(TEN)]
    expected = np.eye(TEN) - (np.eye(TEN) - metropolis) / TEN
    np.testing.assert_allclose(np.mean(one_of_each, axis=0), expected, atol=1e-7)
    for i, matrix in enumerate(one_of_each):
        assert (matrices[found.workers[:, 0] == i] == matrix).all()
        assert not np.allclose(matrix.sum(axis=0), 1)  # an event alone does not keep the mean
    errors = np.maximum(matrices.std(axis=0), 1e-9) / np.sqrt(LONG)
    assert (np.abs(matrices.mean(axis=0) - expected) < 4 * errors + 1e-6).all()  # of 30 entries, so 4


def test_swift_averages_in_every_third_iteration_only():
    found = long_run("swift:every=3", graph="ring")
    averages, seen = found.mix[:, 0, 0] != 1, np.zeros(TEN, int)
    for i, averaged in zip(found.workers[:, 0], averages, strict=True):
        seen[i] += 1
        assert averaged == (seen[i] % 3 == 0)
    assert (found.messages == 2).all()  # sent in every iteration


def test_waiting_for_the_exchange_is_told_as_flight():
    delays = laws.build_delays("shifted_exponential:shift=0.2,rate=1", NODES, 1)
    net = graphs.pad(GRAPHS["slow links"](), NODES)
    found = plans(policy_of("adpsgd"), World(net, delays, None, jax.random.key(3)), 300)
    seconds = {(i, int(j)): float(net.latency[i, s]) for i in range(NODES) for s, j in enumerate(net.neighbours[i])}
    pairs = list(zip(found.workers[:, 0].tolist(), found.info["partner"].tolist(), strict=True))
    longest = [max(seconds[i, j], seconds[j, i]) for i, j in pairs]
    np.testing.assert_allclose(found.flight[:, 0], longest, rtol=1e-6)
    assert (found.messages == 2).all()
    found = plans(policy_of("token"), World(net, delays, None, jax.random.key(3)), 300)
    steps = list(zip(found.info["holder"].tolist(), found.info["next"].tolist(), strict=True))
    np.testing.assert_allclose(found.flight[:, 0], [seconds[j, i] for i, j in steps], rtol=1e-6)
    np.testing.assert_array_equal(found.messages, [i != j for i, j in steps])


def test_who_only_applies_sends_nothing():
    net = graphs.pad(graphs.grid(TEN, rows=2), TEN)
    delays = laws.build_delays("shifted_exponential:shift=0.2,rate=1", TEN, 1)
    found = plans(policy_of("adpsgd:bipartite=true"), World(net, delays, None, jax.random.key(3)), 300)
    alone = found.workers[:, 0] == found.info["partner"]
    np.testing.assert_array_equal(found.messages, np.where(alone, 0, 2))
    assert 100 < alone.sum() < 200
    found = plans(policy_of("randomized_gossip"), World(net, delays, None, jax.random.key(3)), 300)
    np.testing.assert_array_equal(found.messages, np.where(found.info["tick"], 2, 0))


@pytest.mark.parametrize(
    ("spec", "graph", "said"),
    [
        ("adpsgd:bipartite=true", lambda: graphs.ring(5), "an odd cycle of 5 workers (2-1-0-4-3); use a graph of two"),
        ("adpsgd:bipartite=true", lambda: graphs.ring(4097), "an odd cycle of 4097 workers; use"),
        ("adpsgd:bipartite=true", lambda: graphs.complete(4), "workers 1 and 2 are linked and on one side"),
        ("swift", lambda: graphs.with_links(graphs.ring(4), latency=0.25), "swift takes no latency, and a message"),
        (
            "randomized_gossip",
            lambda: graphs.with_links(graphs.ring(4), latency=0.25),
            "needs up to 0.25 s: an average",
        ),
        ("adpsgd", one_way, "hears worker 1 and not the other way round"),
        ("token", one_way, "use an undirected graph"),
        ("swift", one_way, "use an undirected graph"),
        ("randomized_gossip", lambda: graphs.from_links(4, [(0, 1), (1, 0), (2, 3), (3, 2)]), "not connected"),
    ],
)
def test_graphs_that_do_not_fit_are_refused_in_a_line(spec, graph, said):
    policy = build_policy(spec)
    with pytest.raises(ValueError, match="[^\n]+") as refused:
        policy.init(graph() if policy.network is None else policy.network(graph()))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("adpsgd:bipartite=maybe", "bipartite=maybe"),
        ("randomized_gossip:rate=0", "rate=0 is not a rate of ticks; use a number above 0"),
        ("randomized_gossip:rate=inf", "rate=inf is not a rate of ticks"),
        ("swift:every=0", "every=0 is out of range; use 1 or more"),
        ("token:rate=1", "unknown key 'rate'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_line(spec, said):
    with pytest.raises(ValueError, match="[^\n]+") as refused:
        build_policy(spec)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
