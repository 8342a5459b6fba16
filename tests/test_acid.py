"""A2CiD2: its reference to 1e-12, its constants in closed form, and what is known of it without gradients."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dbwjax.engine.simulate import World, networked
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.policies.acid import acid, constants
from dbwjax.policies.pairwise import randomized_gossip
from tests.cases import Case, policy_of
from tests.eventful import assert_agree, course, plans
from tests.reference import pairwise_more
from tests.test_agreement import NODES
from tests.test_pairwise import case_of, drawn, given, one_way, x64


@x64
@pytest.mark.parametrize("graph", ["ring", "random", "star", "complete"])
def test_acid_is_its_reference(graph):
    case = case_of(graph)
    seen = course(policy_of("acid"), case.world)
    assert seen.x.shape[1] == 2 * NODES
    assert_agree(pairwise_more.run_acid(drawn(seen), 1.0, **given(case)), seen)
    assert 80 < seen.fresh.sum() < 160
    apart = np.abs(seen.x[-1, :NODES] - seen.x[-1, NODES:]).max()
    assert apart < 1e-12 if graph == "complete" else apart > 0.01  # there, gain = 1/2, and both copies do the same


@x64
def test_acid_at_another_rate_and_with_ties_is_its_reference():
    case = case_of("random", law="constant:seconds=1")
    seen = course(policy_of("acid:rate=3"), case.world)
    assert_agree(pairwise_more.run_acid(drawn(seen), 3.0, **given(case)), seen)
    assert 30 < seen.fresh.sum() < 90


@x64
def test_without_momentum_it_is_randomized_gossip():
    """h = 0, gain = 1/2: x and x~ stay the same where they meet, and x does what gossip does, draw for draw."""
    case = case_of("random")
    plain, other = course(policy_of("randomized_gossip"), case.world), course(acid(1.0, 0.0, 0.5), case.world)
    np.testing.assert_array_equal(other.ends, plain.ends)
    np.testing.assert_array_equal(other.info["partner"], plain.info["partner"])
    np.testing.assert_allclose(other.x[:, :NODES], plain.x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other.x[:, NODES:], plain.x, rtol=1e-12, atol=1e-12)


def mixed(found, x):
    """[T + 1, 2 N] what the mixing of the plans alone makes of `x` [2 N], event after event, in float64."""
    every = [np.append(x, 0.0)]
    for rows, sources, mix in zip(found.rows, found.sources, found.mix.astype(float), strict=True):
        after = every[-1].copy()
        after[rows] = (mix * every[-1][sources]).sum(axis=1)
        every.append(after)
    return np.stack(every)[:, :-1]


def clock_of(policy, net, steps, seed=0, law="shifted_exponential:shift=0,rate=1"):
    """Plans of the clock alone."""
    delays = laws.build_delays(law, len(net.links), 1)
    return plans(policy, World(net, delays, None, jax.random.key(seed)), steps)


@x64
def test_without_gradients_the_means_of_both_copies_are_equal_and_kept():
    """Once the time since the last event of each worker is made up for; the sum over both copies is kept as it is."""
    net, workers = graphs.ring(10), 10
    found = clock_of(policy_of("acid"), net, 800, law="constant:seconds=1")  # so a mean computation is one second
    start = np.random.default_rng(0).normal(size=workers)
    x = mixed(found, np.concatenate([start, start]))
    np.testing.assert_allclose(x.mean(axis=1), start.mean(), atol=1e-13)
    h, gain = constants(net, 1.0)
    assert gain > 1
    since, means = np.zeros(workers), []
    for event, now in enumerate(found.duration):
        since += now
        since[[found.info["node"][event], found.info["partner"][event]]] = 0
        left = np.exp(-2 * h * since)
        one, other = x[event + 1, :workers], x[event + 1, workers:]
        means.append([((1 + left) / 2 * one + (1 - left) / 2 * other).mean()])
        means[-1].append(((1 - left) / 2 * one + (1 + left) / 2 * other).mean())
    np.testing.assert_allclose(means, start.mean(), atol=1e-13)
    assert np.abs(x[-1] - start.mean()).max() < 1e-3 * np.abs(start - start.mean()).max()


@x64
def test_on_a_ring_it_agrees_sooner_than_gossip():
    """The point of the paper: sqrt(chi1 chi2) in place of chi1. A ring of 32; the mean of the logarithm over worlds."""
    net, left = graphs.ring(32), {}
    start = np.random.default_rng(1).normal(size=32)
    for name, policy in (("acid", policy_of("acid")), ("gossip", policy_of("randomized_gossip"))):
        spreads = []
        for seed in range(2):
            found = clock_of(policy, net, 4000, seed)
            x = mixed(found, np.tile(start, 2 if name == "acid" else 1))[-1, :32]
            spreads.append(np.log(x.std()))
        left[name] = np.mean(spreads)
    assert left["acid"] < left["gossip"] - 3


def test_constants_in_closed_form():
    """A link ij of d-regular graphs averages 2 rate / d times per mean computation."""
    for rate in (1.0, 2.5):
        # Complete: all eigenvalues are N times a link's weight, all resistances 2 over that: chi1 = chi2.
        h, gain = constants(graphs.complete(6), rate)
        chi = 5 / (2 * rate * 6)
        np.testing.assert_allclose((h, gain), (1 / (2 * chi), 0.5), rtol=1e-12)
        # Ring: links weigh `rate`; the smallest eigenvalue is 2 rate (1 - cos(2 pi / N)), a link's way round N - 1.
        h, gain = constants(graphs.ring(8), rate)
        chi1, chi2 = 1 / (2 * rate * (1 - np.cos(np.pi / 4))), 7 / 8 / rate / 2
        np.testing.assert_allclose((h, gain), (0.5 / np.sqrt(chi1 * chi2), 0.5 * np.sqrt(chi1 / chi2)), rtol=1e-12)
        # Star: a link averages rate (1 + 1/(N - 1)) times, is the smallest eigenvalue, and carries all of its current.
        h, gain = constants(graphs.star(5), rate)
        weight = rate * (1 + 1 / 4)
        np.testing.assert_allclose((h, gain), (weight / np.sqrt(2), np.sqrt(2) / 2), rtol=1e-12)
    assert constants(graphs.path(1), 1.0) == (0.0, 0.0)


def test_links_average_as_often_as_the_constants_suppose():
    """Ticks of a star: each link rate (1 + 1/(N - 1)) times per computation of a worker."""
    found = clock_of(policy_of("acid:rate=2"), graphs.star(5), 12_000)
    ticks = found.info["tick"]
    pairs = np.sort(np.stack([found.info["node"], found.info["partner"]])[:, ticks], axis=0)
    assert (pairs[0] == 0).all()
    counts = np.bincount(pairs[1], minlength=5)[1:]
    expected = 2 * (1 + 1 / 4) * found.fresh.sum() / 5
    assert (np.abs(counts - expected) < 3 * np.sqrt(expected + expected * 2 / 5)).all()


def test_the_settings_are_in_the_state_and_the_model_is_the_mean_of_x():
    policy = policy_of("acid")
    world = networked(policy, Case(graphs.ring(5)).world)
    own = policy.init(world.graph).events.own
    np.testing.assert_allclose((own.h, own.gain), constants(graphs.ring(5), 1.0), rtol=1e-6)
    assert policy.evaluated is None  # the workers
    np.testing.assert_array_equal(world.graph.computes, np.arange(10) < 5)
    assert not world.graph.links[5:].any()


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (
            lambda: graphs.with_links(graphs.ring(4), latency=0.5),
            "acid takes no latency, and a message needs up to 0.5 s",
        ),
        (one_way, "use an undirected graph"),
        (lambda: graphs.ring(200_000), "workers=200000 and the spectrum of their Laplacian needs about"),
    ],
)
def test_graphs_that_do_not_fit_are_refused_in_a_line(net, said):
    with pytest.raises(ValueError, match="[^\n]+") as refused:
        build_policy("acid").network(net())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: build_policy("acid:rate=-1"), "rate=-1 is not a rate of ticks; use a number above 0"),
        (lambda: build_policy("acid:h=1"), "unknown key 'h'"),
        (lambda: acid(1.0, h=-0.5), "h=-0.5 is out of range; use a number from 0, or leave it out"),
        (lambda: acid(1.0, gain=float("inf")), "gain=inf is out of range"),
        (lambda: acid("fast"), "rate='fast' is not a number"),
        (lambda: randomized_gossip(1e-300), "rate=1e-300"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_line(build, said):
    with pytest.raises(ValueError, match="[^\n]+") as refused:
        build()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
