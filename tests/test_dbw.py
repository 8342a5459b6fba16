"""DBW: against its event-queue reference, the fit of its table of times, its known answers, and what it refuses."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import simulate
from dbwjax.network import graphs
from dbwjax.policies import dbw, isotonic
from tests.cases import LEARNER, RATE, Case, P, policy_of
from tests.reference import dbw as reference

NODES, ROUNDS, STEPS = 8, 70, 560


class Course(NamedTuple):
    """A simulation, at the end of each iteration."""

    ends: np.ndarray  # [T]
    server: np.ndarray  # [T, P]
    k: np.ndarray  # [T]
    started: np.ndarray  # [T, N]
    table: dbw.Times  # [T, N, N]
    idle: int  # steps between them


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def watched(policy, steps, world, state):
    def one(state, _):
        state, record = simulate.scan(policy, LEARNER, world, state, 1)
        rounds = state.clock.policy
        seen = record.duration[0], record.gradients[0], state.model.params, rounds.k, state.clock.started
        return state, (*seen, rounds.times)

    return jax.lax.scan(one, state, None, length=steps)


def run(policy, world, steps=STEPS) -> Course:
    world = simulate.networked(policy, world)
    _, seen = watched(policy, steps, world, simulate.init(policy, LEARNER, world, jnp.zeros(P)))
    duration, gradients, x, k, started, table = jax.tree.map(np.asarray, seen)
    over = gradients > 0
    workers = x.shape[1] - 1
    assert (gradients[over] == k[over]).all()
    ends = np.cumsum(duration.astype(np.float64))[over]
    table = jax.tree.map(lambda leaf: leaf[over], table)
    return Course(ends, x[over, workers], k[over], started[over, :workers], table, int((~over).sum()))


class Link:
    """Seconds of a message between a worker and the server: the mean of its links."""

    def __init__(self, case):
        self.case, self.workers = case, case.nodes

    def __call__(self, i):
        near = self.case.neighbours[i]
        return sum(self.case.latency(i, j) for j in near) / max(len(near), 1)


def uneven(graph):
    seconds = np.random.default_rng(1).uniform(0.05, 0.4, graph.links.shape)
    return graphs.with_latency(graph, np.where(graph.links, seconds, 0))


GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.5, seed=1),
    "slow links": lambda: uneven(graphs.ring(NODES)),
}


def reference_of(case, rounds, choose=None):
    def compute(i, n, x):
        error = x - case.samples["target"][i, n] + case.samples["noise"][i, n]
        return error, 0.5 * (error**2).sum()

    return reference.run_dbw(case.delay, compute, RATE, np.zeros(P), rounds, Link(case), choose)


def always(k):
    return dbw.push_and_wait(lambda times, gains, h: jnp.asarray(k))


FIXED = {k: always(k) for k in (1, 3)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("law", ["shifted_exponential:shift=0.2,rate=1", "constant"])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("k", [None, 1, 3])
def test_agrees_with_the_queue(k, graph, law):
    """`constant`: all finish at once; the lowest numbers go first."""
    case = Case(GRAPHS[graph](), seed=3, law=law)
    found = run(policy_of("dbw") if k is None else FIXED[k], case.world)
    records = reference_of(case, ROUNDS, None if k is None else lambda table, gains, h: k)
    assert len(found.ends) > ROUNDS, "too few steps"
    np.testing.assert_array_equal(found.k[:ROUNDS], [len(record.active) for record in records])
    np.testing.assert_allclose(found.ends[:ROUNDS], [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.server[:ROUNDS], [record.x for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.started[:ROUNDS], [record.started for record in records])
    means, samples = (np.array(part) for part in zip(*(record.table for record in records), strict=True))
    np.testing.assert_array_equal(found.table.samples[:ROUNDS], samples)
    np.testing.assert_allclose(found.table.mean[:ROUNDS], means, rtol=1e-12, atol=1e-12)
    if k is None and law != "constant":
        assert len(set(found.k[:ROUNDS].tolist())) > 2, "the rule does not decide anything"


@pytest.mark.usefixtures("x64")
def test_one_worker_is_plain_sgd():
    case = Case(graphs.path(1), seed=1)
    x, expected = np.zeros(P), []
    for n in range(20):
        x = x + case.update(0, n, x)
        expected.append(x)
    found = run(policy_of("dbw"), case.world, 20)
    np.testing.assert_allclose(found.server, expected, rtol=1e-12)
    np.testing.assert_allclose(np.diff(found.ends, prepend=0), case.seconds[0, :20], rtol=1e-12)


# The table of times


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_fit_is_monotone_and_near_the_nearest(share):
    rng = np.random.default_rng(0)
    truth = np.sort(rng.exponential(size=(NODES, NODES)), axis=1).cumsum(axis=0)[::-1]
    counts = rng.integers(1, 50, (NODES, NODES)) * (rng.random((NODES, NODES)) < share)
    counts[-1, 0] = 3
    means = np.where(counts > 0, truth * rng.uniform(0.7, 1.3, truth.shape), 0)
    found = np.asarray(isotonic.monotone(jnp.asarray(means), jnp.asarray(counts, float)))
    assert (np.diff(found, axis=1) >= 0).all()
    assert (np.diff(found, axis=0) <= 0).all()
    np.testing.assert_allclose(found, reference.monotone(means, counts), rtol=1e-9)

    def distance(table):
        return (counts * (table - means) ** 2).sum()

    nearest = reference.monotone(means, counts, sweeps=3000, envelopes=False)
    assert distance(found) <= 1.01 * distance(nearest) + 1e-12


@pytest.mark.usefixtures("x64")
def test_the_fit_of_a_monotone_table_is_the_table():
    table = jnp.asarray(np.add.outer(-np.arange(5.0), np.arange(5.0)) + 9)
    np.testing.assert_allclose(isotonic.monotone(table, jnp.ones((5, 5))), table, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_regression_of_rows_is_pooling():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(4, 9)), rng.uniform(0.1, 5, (4, 9))
    expected = [reference.pooled(*pair) for pair in zip(values, weights, strict=True)]
    np.testing.assert_allclose(isotonic.growing(jnp.asarray(values), jnp.asarray(weights)), expected, rtol=1e-12)


def world_of(law="shifted_exponential:shift=0,rate=1", seed=0):
    return Case(graphs.ring(NODES), seed, law).world


def test_times_of_exponential_workers():
    """T(8, k) is the k-th order statistic. T(1, 1) = 0.40: an independent simulation."""
    fixed = run(FIXED[1], world_of(), 6000)
    seconds = np.diff(fixed.ends)[20:]
    error = seconds.std() / np.sqrt(len(seconds) / 4)  # iterations are correlated
    assert abs(seconds.mean() - 0.40) < 3 * error + 0.005
    followed = jax.tree.map(lambda leaf: leaf[-1], fixed.table)
    assert abs(followed.mean[0, 0] - seconds.mean()) < 0.02
    turns = dbw.push_and_wait(lambda times, gains, h: jnp.where(h == NODES, 1, NODES))
    found = run(turns, world_of(), 3000)
    waited = jax.tree.map(lambda leaf: leaf[-1], found.table)
    samples = waited.samples[NODES - 1, 0]
    assert samples > 500
    for k in range(1, NODES + 1):
        terms = np.arange(NODES - k + 1, NODES + 1)
        error = np.sqrt((1 / terms**2).sum() / samples)
        assert abs(waited.mean[NODES - 1, k - 1] - (1 / terms).sum()) < 3 * error
    # What was not waited for is seen as if it had been: k = 1 follows what the other waits for, after h = 1 both.
    assert followed.samples[0, NODES - 1] > 100
    for k in (2, 4):
        spread = 0.6 / np.sqrt(followed.samples[0, k - 1])
        assert abs(followed.mean[0, k - 1] - waited.mean[0, k - 1]) < 4 * spread


# The rule


def gains_of(variance, slope, smooth, eta=0.1):
    window = jnp.full(dbw.WINDOW, jnp.nan)
    last = dbw.Gains(window, window, window, window, jnp.asarray(1.0), jnp.asarray(eta), jnp.asarray(1.0))
    return last._replace(
        variance=window.at[-1].set(variance),
        slope=window.at[-1].set(slope),
        change=window.at[-1].set(smooth),
        square=window.at[-1].set(jnp.where(jnp.isnan(smooth), jnp.nan, 1.0)),
    )


def times_of(seconds):
    """T(h, k) = `seconds[k - 1]`, whatever h."""
    table = jnp.broadcast_to(jnp.asarray(seconds), (len(seconds), len(seconds)))
    return dbw.Times(table, jnp.ones_like(table))


ORDER = np.cumsum(1 / np.arange(NODES, 0, -1.0))


@pytest.mark.parametrize(
    ("gains", "k"),
    [
        (gains_of(0.0, 1.0, 2.0), 1),  # no variance: one gradient is as good as any
        (gains_of(5.0, 0.0, 2.0), NODES),  # no gradient: nothing is gained
        (gains_of(jnp.nan, 1.0, 2.0), NODES),  # nothing known of the variance
        (gains_of(1.0, 1.0, jnp.nan), NODES),  # nothing known of L
        (gains_of(1.0, 1.0, -3.0), 1),  # the loss falls faster than a plane: L is 0
        (gains_of(500.0, 1.0, 2.0), NODES),  # noise swamps it
    ],
)
def test_which_k(gains, k):
    assert int(dbw.best(times_of(ORDER), gains, jnp.asarray(NODES))) == k


def test_k_maximises_gain_a_second():
    gains, chosen = gains_of(20.0, 1.0, 1.0), []
    for law in (ORDER, 1 + ORDER):
        k = np.arange(1, NODES + 1)
        gain = (0.1 - 0.005) * 1.0 - 0.005 * 20.0 / k
        np.testing.assert_allclose(dbw.expected_gain(gains, jnp.asarray(k)), gain, rtol=1e-5, atol=1e-7)
        chosen.append(int(dbw.best(times_of(law), gains, jnp.asarray(3))))
        assert chosen[-1] == 1 + np.argmax(gain / law)
    assert chosen[0] < chosen[1], "where a start costs time anyway, more are waited for"


def test_without_noise_one_worker_is_enough():
    """All gradients are the same, so V = 0."""
    case = Case(graphs.ring(NODES), 0, "shifted_exponential:shift=0,rate=1")
    same = jax.tree.map(jnp.zeros_like, case.world.batches.args)
    batches = case.world.batches.func
    world = case.world._replace(batches=jax.tree_util.Partial(batches, same[0] + 3, same[1]))
    found = run(policy_of("dbw"), world, STEPS)
    assert found.k[:2].tolist() == [NODES, NODES]
    assert (found.k[2:12] == 1).all()


def test_what_is_measured_of_gradients():
    """V, exact, with an update that does not count and is not finite."""
    rng = np.random.default_rng(2)
    gradients = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=(4, 2, 2))}
    flat = np.concatenate([gradients["a"], gradients["b"].reshape(4, -1)], axis=1)
    gradients["a"][1] = np.nan
    fresh = np.array([True, False, True, True])
    updates = jax.tree.map(lambda leaf: jnp.where(fresh.reshape(4, *[1] * (leaf.ndim - 1)), -0.1 * leaf, 0), gradients)
    learner = dbw.measured(LEARNER)
    squares, norm, moved = learner.statistic(jax.tree.map(jnp.asarray, gradients), updates, fresh, lambda tree: tree)
    mean = flat[fresh].mean(axis=0)
    np.testing.assert_allclose(squares, (flat[fresh] ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(norm, (mean**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(moved / norm), 0.1, rtol=1e-5)
    variance = (flat[fresh] - mean) ** 2
    np.testing.assert_allclose((squares - 3 * norm) / 2, variance.sum() / 2, rtol=1e-5)


# What is refused


def test_too_many_workers():
    policy = policy_of("dbw")
    with pytest.raises(ValueError, match=r"^dbw of 65 workers is too much to fit at each step; use at most 64$"):
        policy.init(policy.network(graphs.ring(65)))
    with pytest.raises(ValueError, match=r"^the graph has no server; "):
        policy.init(graphs.ring(5))


def test_the_model_is_the_server_s():
    policy = policy_of("dbw")
    network = policy.network(graphs.ring(5))
    assert np.flatnonzero(policy.evaluated(network)).tolist() == [5]


def test_waiting_for_all_is_the_synchronous_server():
    case = Case(graphs.ring(NODES), 5, "pareto")
    found = run(always(NODES), case.world, 30)
    slowest = case.seconds[:, :30].max(axis=0)
    np.testing.assert_allclose(np.diff(found.ends, prepend=0), slowest, rtol=1e-4)
    assert found.idle == 0
