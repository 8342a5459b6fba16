"""Methods that must be the same where their settings say so, and the classical algorithms they contain.

All in float64 to 1e-12; agreement of each with its own reference is in `test_agreement.py`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.network.weights import dense
from dbwjax.policies.gossip import DENSE_ABOVE
from dbwjax.tasks.synthetic import logistic
from dbwjax.types import Policy
from tests import handmade
from tests.cases import Case, policy_of

NODES, STEPS, RATE, BATCH, SEED = 6, 25, 0.3, 4, 5

pytestmark = pytest.mark.usefixtures("x64")

GRAPHS = {
    "random": lambda: graphs.erdos_renyi(NODES, p=0.5, seed=2),
    "slow links": lambda: graphs.with_links(graphs.erdos_renyi(NODES, p=0.5, seed=11), latency=0.4),
}
"""Both have rows of the same width, so that a policy is compiled once for both."""


@functools.cache  # the same world for every policy; only called under the x64 fixture
def case_of(graph):
    return Case(GRAPHS[graph](), seed=3)


@functools.cache
def outcome(spec, graph="random"):
    """End times, each worker's own end times, active sets and parameters of every step."""
    return case_of(graph).simulate(policy_of(spec), STEPS)


def assert_same(first, second, rtol=1e-12):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_backups_is_full_with_a_neighbour_barrier(graph):
    assert_same(outcome("backup:b=0", graph), outcome("full:barrier=neighbours", graph))


@pytest.mark.parametrize("graph", GRAPHS)
def test_both_barriers_of_full_learn_the_same(graph):
    """They differ in time only, and the neighbour barrier never ends an iteration later."""
    ends, own, active, x = outcome("full", graph)
    sooner_ends, sooner_own, sooner_active, same_x = outcome("full:barrier=neighbours", graph)
    assert_same((active, x), (sooner_active, same_x))
    assert (sooner_own <= own + 1e-12).all()
    assert sooner_ends[-1] < ends[-1] - 1e-6


def test_both_barriers_of_dpsgd_learn_the_same():
    assert_same(outcome("dpsgd")[2:], outcome("dpsgd:barrier=global")[2:])


@pytest.mark.parametrize(
    ("rule", "graph"),
    [
        ("full:late=apply", "random"),
        ("deadline:seconds=inf", "slow links"),
        ("deadline:seconds=inf,late=carry", "random"),
        (f"fastest:k={NODES}", "slow links"),
        (f"fastest:k={NODES},late=carry", "random"),
        (f"fastest:k={NODES},late=apply", "random"),
    ],
)
def test_rules_that_wait_for_everybody_are_full(rule, graph):
    assert_same(outcome(rule, graph), outcome("full", graph))


def test_what_is_late_matters_where_somebody_is():
    """The equalities above are not for want of difference."""
    parameters = [outcome(f"fastest:k=3,late={late}")[3] for late in ("drop", "carry", "apply")]
    for i in range(3):
        assert not np.allclose(parameters[i], parameters[i - 1], rtol=1e-3, atol=1e-3)


def test_messages_that_take_no_time():
    """A latency of 0, or a message of some bytes over an infinite bandwidth, changes no bit; a real one does."""
    for spec, links in (("dybw", {"latency": 0.0}), ("backup:b=1", {"message_bytes": 1e9})):
        same = Case(graphs.with_links(GRAPHS["random"](), **links), seed=3)
        for a, b in zip(same.simulate(policy_of(spec), STEPS), outcome(spec), strict=True):
            np.testing.assert_array_equal(a, b)
    slow = Case(graphs.with_links(GRAPHS["random"](), message_bytes=1e9, bandwidth=1e10), seed=3)
    ends, _, _, x = slow.simulate(policy_of("full"), STEPS)
    np.testing.assert_allclose(ends, outcome("full")[0] + 0.1 * np.arange(1, STEPS + 1), rtol=1e-12)
    np.testing.assert_array_equal(x, outcome("full")[3])


@pytest.mark.parametrize(
    ("spec", "slots"),
    [
        ("dybw", NODES + 1),
        ("dybw", DENSE_ABOVE + 5),
        ("full:weights=best_constant", NODES + 1),
        ("backup:b=0", DENSE_ABOVE + 5),
        ("dpsgd", NODES + 1),
    ],
)
def test_padding_changes_nothing(spec, slots):
    """Rows with unused slots; with so many of them that the policy turns to the dense form."""
    padded = Case(graphs.pad(GRAPHS["slow links"](), slots), seed=3)
    assert_same(padded.simulate(policy_of(spec), STEPS), outcome(spec, "slow links"))


def in_dense_form(policy):
    """The same policy with every plan's neighbour lists written out as a matrix."""

    def decide_fn(key, graph, state, remaining, feedback):
        plan, state = policy.decide(key, graph, state, remaining, feedback)
        assert plan.sources is not None
        matrix = dense(plan.mix, graph._replace(neighbours=plan.sources))
        return plan._replace(mix=matrix, sources=None), state

    return policy._replace(decide=decide_fn)


@pytest.mark.parametrize("spec", ["dybw:late=carry", "backup:b=1", "dpsgd"])
def test_both_forms_of_one_plan(spec):
    seen = case_of("random").simulate(in_dense_form(policy_of(spec)), STEPS)
    assert_same(seen, outcome(spec))


def test_no_staleness_and_equal_delays_is_a_synchronous_server():
    """A round of the bounded server is one event of each worker; the synchronous one adds all updates at once."""
    workers, rounds = 5, 8
    graph = graphs.star(workers + 1)._replace(computes=jnp.arange(workers + 1) < workers)
    case = Case(graph, seed=6, law="constant:seconds=0.7")
    mean = handmade.server(0)

    def decide_fn(*arguments):
        plan, state = mean.decide(*arguments)
        return plan._replace(push=plan.push * workers), state

    ends, _, _, x = case.simulate(Policy(mean.init, decide_fn), rounds)
    stale_ends, _, _, stale_x = case.simulate(handmade.bounded_staleness(0), rounds * workers)
    np.testing.assert_allclose(stale_ends[workers - 1 :: workers], ends, rtol=1e-12)
    np.testing.assert_allclose(stale_x[workers - 1 :: workers], x, rtol=1e-12, atol=1e-12)


OPTIMIZERS = {
    "sgd": optax.sgd(RATE),
    "momentum:beta=0.8": optax.sgd(RATE, momentum=0.8),
    "adam": optax.adam(RATE),
}


@functools.cache
def regression(workers):
    """Logistic regression whose workers hold different classes, so that a wrong average cannot hide."""
    return logistic(dimension=5, samples=240, heterogeneity=0.5, workers=workers, batch_size=BATCH)


def trained(spec, optimizer, workers):
    """Parameters `[N, 5]` after all steps."""
    task, graph = regression(workers), graphs.complete(workers)
    delays = laws.build_delays("shifted_exponential:shift=0.1,rate=1", workers)
    world = World(graph, delays, task.batches, jax.random.key(SEED))
    learner = from_optimizer(task.loss, build_optimizer(optimizer, RATE))
    policy = policy_of(spec)
    state = simulate.init(policy, learner, world, jnp.zeros(5))
    state, _ = jax.jit(lambda world, state: simulate.run(policy, learner, world, state, STEPS))(world, state)
    return np.asarray(state.model.params)


@functools.cache
def plain_loop(optimizer, workers):
    """Optax on one model; a batch is the N workers' batches of that step put together."""
    task = regression(workers)
    chain = OPTIMIZERS[optimizer]

    key = stream(jax.random.key(SEED), Stream.BATCHES)

    @jax.jit
    def one(params, state, k):
        batches = [task.batches(key, jnp.asarray(worker), k) for worker in range(workers)]
        batch = jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)
        assert batch["label"].shape == (workers * BATCH,)
        update, state = chain.update(jax.grad(task.loss)(params, batch), state, params)
        return optax.apply_updates(params, update), state

    params = jnp.zeros(5)
    state = chain.init(params)
    for k in range(STEPS):
        params, state = one(params, state, jnp.asarray(k))
    return np.asarray(params)


@pytest.mark.parametrize(
    ("spec", "optimizer"),
    [*(("full", optimizer) for optimizer in OPTIMIZERS), ("dybw", "adam"), ("dpsgd", "adam"), ("backup:b=0", "sgd")],
)
def test_one_worker_is_a_plain_optax_loop(spec, optimizer):
    params = trained(spec, optimizer, 1)
    assert np.abs(params).max() > 0.1
    np.testing.assert_allclose(params[0], plain_loop(optimizer, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "optimizer"),
    [
        ("full:weights=uniform", "sgd"),
        ("full:weights=uniform", "momentum:beta=0.8"),
        ("full:weights=metropolis", "sgd"),
    ],
)
def test_a_complete_graph_is_centralised_training(spec, optimizer):
    """All weights are 1 / N, so the workers stay together and take the mean gradient of N * B samples.

    Linear updates only: Adam divides each worker's own gradient before the average.
    """
    params = trained(spec, optimizer, 4)
    np.testing.assert_allclose(params, np.tile(plain_loop(optimizer, 4), (4, 1)), rtol=1e-12, atol=1e-12)


def test_waiting_for_fewer_is_not():
    params = trained("dybw", "sgd", 4)
    assert not np.allclose(params, plain_loop("sgd", 4)[None], rtol=1e-3, atol=1e-3)
