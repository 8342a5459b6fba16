"""What theory says of durations, consensus and speed-up, and whether the simulation agrees.

Durations come from the clock alone. Every mean is compared within four standard errors, estimated from batches of
consecutive steps, since DTUR's steps are not independent within an epoch.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import clock, learner, simulate
from dbwjax.engine import timeline as timelines
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.simulate import World
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.network.weights import WEIGHTS, dense
from dbwjax.tasks.synthetic import logistic
from dbwjax.types import Learner
from tests.cases import policy_of

DRAWS = 20_000
EXPONENTIAL = "shifted_exponential:shift=0,rate=1"


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def ticks(policy, world, start, steps):
    _, stacked = timelines.timeline(policy, world, start, steps)
    return stacked.duration, stacked.active


@functools.cache
def plans(spec, law, nodes, steps=DRAWS):
    """Durations and active sets of the clock alone, on a path (whose spanning path is itself)."""
    policy, graph = policy_of(spec), graphs.path(nodes)
    world = World(graph, laws.build_delays(law, nodes), None, jax.random.key(nodes))
    start = clock.init(policy, graph, world.delays, world.key)
    duration, active = ticks(policy, world, start, steps)
    return np.asarray(duration, float), np.asarray(active)


def standard_error(values, batches=100):
    means = values[: len(values) // batches * batches].reshape(batches, -1).mean(axis=1)
    return means.std(ddof=1) / np.sqrt(batches)


def assert_mean(values, expected):
    np.testing.assert_allclose(values.mean(), expected, rtol=0, atol=4 * standard_error(values))


def order_statistic(law, k, nodes):
    """E[X_(k:n)] of n independent times: a harmonic sum for exponential ones, k / (n + 1) for uniform ones."""
    if law.startswith("uniform"):
        return k / (nodes + 1)
    return sum(1 / i for i in range(nodes - k + 1, nodes + 1))


@pytest.mark.parametrize("law", [EXPONENTIAL, "uniform:low=0,high=1"])
@pytest.mark.parametrize("nodes", [2, 10])
def test_full_lasts_as_long_as_the_slowest(law, nodes):
    durations, active = plans("full", law, nodes)
    assert_mean(durations, order_statistic(law, nodes, nodes))
    assert active.all()


@pytest.mark.parametrize(
    ("law", "k"), [(EXPONENTIAL, 1), (EXPONENTIAL, 4), (EXPONENTIAL, 9), ("uniform:low=0,high=1", 7)]
)
def test_fastest_lasts_as_long_as_the_kth(law, k):
    durations, active = plans(f"fastest:k={k},late=drop", law, 10)
    assert_mean(durations, order_statistic(law, k, 10))
    np.testing.assert_array_equal(active.sum(axis=1), k)


def test_a_deadline_cuts_the_slowest():
    """E[min(max_i X_i, t)] is the integral of 1 - F(s)^n from 0 to t."""
    nodes, seconds = 10, 1.5
    durations, active = plans(f"deadline:seconds={seconds}", EXPONENTIAL, nodes)
    at = np.linspace(0, seconds, 10_001)
    late = 1 - (1 - np.exp(-at)) ** nodes
    assert_mean(durations, np.trapezoid(late, at))
    assert_mean(active.mean(axis=1), 1 - np.exp(-seconds))


def test_carried_computations_end_at_the_rate_of_all_workers():
    """Under `late=carry` with k = 1 nothing is thrown away: exponential workers finish N times as often as one."""
    durations, _ = plans("fastest:k=1,late=carry", EXPONENTIAL, 10)
    assert_mean(durations, 0.1)
    # Memoryless: throwing the unfinished computation away and starting anew costs the same.
    assert_mean(plans("fastest:k=1,late=drop", EXPONENTIAL, 10)[0], 0.1)


# Mean duration saved against `full`, and active share, as simulated apart from this code on a spanning path.
SAVED = {
    (EXPONENTIAL, 6): 0.63,
    (EXPONENTIAL, 10): 0.76,
    (EXPONENTIAL, 20): 0.87,
    ("shifted_exponential:shift=1,rate=1", 6): 0.45,
    ("shifted_exponential:shift=1,rate=1", 10): 0.57,
    ("shifted_exponential:shift=1,rate=1", 20): 0.68,
    ("pareto:alpha=2,scale=1", 6): 0.59,
    ("pareto:alpha=2,scale=1", 10): 0.73,
    ("pareto:alpha=2,scale=1", 20): 0.83,
}
SHARE = {6: 0.60, 10: 0.47, 20: 0.35}


@pytest.mark.parametrize(("law", "nodes"), SAVED)
def test_what_dtur_saves(law, nodes):
    durations, active = plans("dybw:late=drop", law, nodes)
    saved = 1 - durations.mean() / plans("full", law, nodes)[0].mean()
    np.testing.assert_allclose(saved, SAVED[law, nodes], atol=0.02)
    np.testing.assert_allclose(active.mean(), SHARE[nodes], atol=0.015)


@pytest.mark.parametrize("scheme", ["metropolis", "lazy", "max_degree", "best_constant"])
@pytest.mark.parametrize(
    "graph", [graphs.ring(9), graphs.grid(8, rows=2), graphs.star(6)], ids=["ring", "grid", "star"]
)
def test_consensus_contracts_at_the_second_eigenvalue(graph, scheme, x64):
    """With no updates `|x(k) - mean| <= lambda^k |x(0) - mean|`, lambda the second largest absolute eigenvalue.

    In the end the distance falls by lambda a step.
    """
    nodes, steps = graph.neighbours.shape[0], 60
    graph = graph._replace(latency=graph.latency.astype(float))
    weights = WEIGHTS[scheme]()
    mixing = np.asarray(dense(weights.apply(weights.init(graph), graph, graph.links), graph))
    sizes, vectors = np.linalg.eigh(mixing)
    rate = np.sort(np.abs(sizes))[-2]

    policy = policy_of(f"full:weights={scheme}")
    still = Learner(lambda x: (), lambda x, local, batch: (x, x.sum(), None), lambda g, local, x: (0 * g, local))
    world = World(graph, laws.constant(nodes), lambda key, worker, started: 0.0, jax.random.key(0))
    start = np.random.default_rng(0).normal(size=(nodes, 3))

    @jax.jit
    def distances(x):
        state = simulate.init(policy, still, world, jnp.zeros(3))
        state = state._replace(model=state.model._replace(params=x))

        def one(state, _):
            plan, ticking = clock.tick(policy, graph, world.delays, world.key, state.clock)
            model, _ = learner.step(still, world.batches, plan, state.model, world.key)
            return state._replace(clock=ticking, model=model), model.params

        return jax.lax.scan(one, state, None, length=steps)[1]

    away = np.asarray(distances(jnp.asarray(start))) - start.mean(axis=0)
    norm = np.linalg.norm(away, axis=(1, 2))
    bound = np.linalg.norm(start - start.mean(axis=0)) * rate ** np.arange(1, steps + 1)
    assert (norm <= bound * (1 + 1e-9) + 1e-14).all()
    if norm[-1] > 1e-11:  # above rounding: the slowest direction is what is left
        np.testing.assert_allclose(norm[-1] / norm[-2], rate, rtol=1e-2)
    # Started along the slowest direction, every single step contracts by exactly that factor.
    slowest = vectors[:, np.argsort(np.abs(sizes))[-2]]
    norm = np.linalg.norm(np.asarray(distances(jnp.asarray(np.tile(slowest[:, None], (1, 3))))), axis=(1, 2))
    np.testing.assert_allclose(norm, np.sqrt(3) * rate ** np.arange(1, steps + 1), rtol=1e-8, atol=1e-13)


RATE, TARGET, SEEDS, GRADIENTS = 0.03, 1.8e-3, 24, 800
COUNTS = [1, 2, 4, 8, 16]


@functools.partial(jax.jit, static_argnames=("policy", "learner", "steps"))
def trained(policy, learner, evaluate, world, policy_state, params, keys, steps):
    """Suboptimality of the mean model and counted gradients, `[seeds, steps]`, from `params` of each seed."""
    settled = policy._replace(init=lambda graph: policy_state)

    def run(params, key):
        here = world._replace(key=key)

        def one(state, _):
            state, record = simulate.run(policy, learner, here, state, 1)
            value = evaluate(state.model.params.mean(axis=0))["suboptimality"]
            return state, (value, record.gradients[0])

        return jax.lax.scan(one, simulate.init(settled, learner, here, params), None, length=steps)[1]

    return jax.vmap(run)(params, keys)


@functools.cache
def task_and_learner(nodes, rate):
    task = logistic(dimension=10, samples=1680, regularisation=0.1, workers=nodes, batch_size=8)
    return task, from_optimizer(task.loss, build_optimizer("sgd", rate))


@functools.cache
def suboptimality(spec, graph_name, nodes, rate, steps):
    """Seed-averaged suboptimality of the mean model after each step, and the mean number of gradients of a step."""
    task, learner = task_and_learner(nodes, rate)
    policy, graph = policy_of(spec), graphs.pad(getattr(graphs, graph_name)(nodes), nodes)
    keys = jax.random.split(jax.random.key(1), SEEDS)
    params = jnp.stack([task.init(key) for key in keys])
    world = World(graph, laws.build_delays(EXPONENTIAL, nodes), task.batches, keys[0])
    values, counted = trained(policy, learner, task.evaluate, world, policy.init(graph), params, keys, steps)
    return np.asarray(values, float).mean(axis=0), np.asarray(counted, float).mean()


def steps_to_target(values):
    reached = np.flatnonzero(values <= TARGET)
    assert reached.size, f"lowest suboptimality {values.min():.2e}, target {TARGET:.1e}"
    return int(reached[0]) + 1


def slope(counts, steps):
    return np.polyfit(np.log(counts), np.log(steps), 1)[0]


def test_linear_speedup():
    """N workers reach a fixed suboptimality in 1 / N of the steps.

    With a constant step size eta the suboptimality of SGD on a strongly convex function is about
    `(1 - eta mu)^k F_0 + eta L s^2 / (2 mu N)`, the mean of N gradients having a variance of `s^2 / N`. With
    `eta = N * RATE` the second term, the noise floor, is the same for every N, and the first falls N times as fast in
    k: the steps to a target are those of one worker divided by N. The mean over workers pays for the larger step: one
    worker alone with the step size of sixteen never comes near the target. `eta L` stays below 0.2, where the
    recursion is still close to the flow, and the target is about 1.5 noise floors, so that the noise is a good part of
    what is measured.
    """
    steps = [steps_to_target(suboptimality("full", "complete", n, n * RATE, GRADIENTS // n)[0]) for n in COUNTS]
    assert abs(slope(COUNTS, steps) + 1) <= 0.15, steps
    assert steps[0] > 200, "too coarse a measure"
    alone, _ = suboptimality("full", "complete", 1, COUNTS[-1] * RATE, GRADIENTS)
    assert alone.min() > 2 * TARGET


def test_linear_speedup_does_not_need_a_complete_graph():
    """On a ring of 16, with a spectral gap of 0.05, disagreement adds only a term of higher order in eta."""
    most = COUNTS[-1]
    ring, full = (suboptimality("full", g, most, most * RATE, GRADIENTS // most)[0] for g in ("ring", "complete"))
    assert abs(steps_to_target(ring) - steps_to_target(full)) <= 2


def test_linear_speedup_with_backup_workers_is_in_gradients():
    """Under DTUR a step moves the mean model by `eta / N` times the sum of the gradients that counted.

    So not N times the steps but the *counted gradients* to the target are the same for every N, and the steps are those
    of `full` divided by the active share.
    """
    counts, total = COUNTS[::2], []
    for n in counts:
        values, counted = suboptimality("dybw:late=drop", "complete", n, n * RATE, round(1.5 * GRADIENTS / n**0.6))
        total.append(counted * steps_to_target(values))
    assert abs(slope(counts, total)) <= 0.15, total
