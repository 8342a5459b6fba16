"""ADMM, SSDA, MSDA, MSPD: agreement with NumPy references, known answers, the time they take, what they refuse."""

from __future__ import annotations

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax import train_policy
from dbwjax.cli import sweep, train
from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.timeline import timeline
from dbwjax.experiments.networks import bytes_sent
from dbwjax.learners.exact import Network, admm, chebyshev, sent
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.network.properties import mixing_matrix
from dbwjax.network.weights import metropolis
from dbwjax.policies import POLICIES, build_policy, notes
from dbwjax.policies.exact import rounds_of, spectrum
from dbwjax.tasks import build_task
from dbwjax.types import Combine, Plan
from tests.cases import GRAPHS, LEARNER, NINE, STEPS, Case, policy_of
from tests.reference import exact as reference

TASK = "quadratic:dimension=4,condition=10"
STRONG, SMOOTH = 0.1, 1.0
LAW = "shifted_exponential:shift=0.2,rate=1"


@functools.cache  # only called under the x64 fixture
def learned(spec, workers):
    task = build_task(spec, workers=workers, batch_size=2)
    return task, from_optimizer(task.loss, optax.sgd(0.1))._replace(oracle=task.oracle)


def course(policy, case, spec=TASK, steps=STEPS, every=1):
    """Ends, models `[N, d]` and the last state, read after every so many iterations."""
    task, learner = learned(spec, case.nodes)
    world = case.world._replace(batches=policy.whole(task.objectives, case.nodes))
    state = simulate.init(policy, learner, world, task.init(jax.random.key(0)))
    ends, models = [0.0], []
    for _ in range(steps // every):
        state, record = simulate.run(policy, learner, world, state, every)
        ends.append(ends[-1] + float(record.duration.sum()))
        models.append(np.asarray(state.model.params))
    return np.array(ends[1:]), np.array(models), state


def argmin_of(workers):
    """Worker i's exact minimiser of `TASK`, by a linear system."""
    curvature, centres, _ = (np.asarray(one) for one in learned(TASK, workers)[0].batches.args)

    def argmin(i, linear, centre, weight):
        system = np.diag(curvature) + 2 * weight * np.eye(len(curvature))
        return np.linalg.solve(system, curvature * centres[i] - linear + 2 * weight * centre)

    return argmin


@functools.cache  # only called under the x64 fixture
def nine(graph):
    return Case(graphs.pad(GRAPHS[graph](), NINE), 1, LAW)


def by_reference(name, case, steps, rho=0.0, eta=0.0, rounds=0):
    """Models, and how many exchanges an iteration has."""
    start, argmin = np.zeros((case.nodes, 4)), argmin_of(case.nodes)
    middle = np.sqrt(STRONG * SMOOTH)
    given = {"neighbours": case.neighbours, "start": start, "steps": steps}
    exchanges = rounds or int(1 / np.sqrt(reference.Gossip(case.neighbours).gap) + 1e-9)
    if name == "admm":
        return reference.run_admm(argmin, rho or middle, **given)[0], 1
    if name == "ssda":
        return reference.run_dual(argmin, STRONG, SMOOTH, **given), 1
    if name == "msda":
        return reference.run_dual(argmin, STRONG, SMOOTH, rounds=exchanges, **given), exchanges
    return reference.run_mspd(argmin, eta or 1 / middle, rounds=exchanges, **given), exchanges


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", ["ring", "random", "slow links", "complete"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("admm", {"rho": 0.3}),
        ("admm", {}),
        ("ssda", {}),
        ("msda", {}),
        ("msda", {"rounds": 4}),
        ("mspd", {"eta": 1.0}),
        ("mspd", {"rounds": 3}),
    ],
)
def test_it_is_the_reference(name, settings, graph):
    case = nine(graph)
    spec = name + (":" + ",".join(f"{key}={value}" for key, value in settings.items()) if settings else "")
    ends, models, _ = course(policy_of(spec), case)
    expected, rounds = by_reference(name, case, STEPS, **settings)
    np.testing.assert_allclose(models, expected, rtol=1e-12, atol=1e-12)
    times = reference.times(case.delay, case.neighbours, STEPS, rounds, case.latency)
    np.testing.assert_allclose(ends, times, rtol=1e-12)
    assert np.abs(models[-1] - models[0]).max() > 0.1


# Known answers, on a ring of ten and a condition of ten


@functools.cache  # only called under the x64 fixture
def ring():
    return Case(graphs.ring(10), 0, LAW)


def errors(models):
    best = np.asarray(learned(TASK, 10)[0].minimiser)
    return np.linalg.norm(models - best, axis=2).max(axis=1)


@pytest.mark.usefixtures("x64")
def test_admm_reaches_the_optimum_and_its_duals_sum_to_zero():
    _, models, state = course(policy_of("admm:rho=0.3"), ring(), steps=1000, every=100)
    dual = np.asarray(state.model.local[0])
    assert errors(models)[-1] < 2e-14
    assert np.abs(dual).max() > 0.1
    assert np.abs(dual.sum(axis=0)).max() < 1e-13


@pytest.mark.usefixtures("x64")
def test_ssda_falls_faster_than_its_bound():
    _, models, _ = course(policy_of("ssda"), ring(), steps=300, every=50)
    error = errors(models)
    gap = reference.Gossip(ring().neighbours).gap
    bound = np.sqrt(1 - np.sqrt(gap * STRONG / SMOOTH))
    assert bound == pytest.approx(0.950, abs=5e-4)
    rates = (error[1:5] / error[:4]) ** (1 / 50)
    np.testing.assert_allclose(rates, 0.908, atol=0.006)
    assert (error[:5] <= errors(np.zeros((1, 1, 4))) * bound ** (50 * np.arange(1, 6))).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("spec", "most"), [("msda", 1e-10), ("mspd:eta=1", 2e-5), ("mspd", 2e-7)])
def test_after_a_hundred_iterations(spec, most):
    _, models, _ = course(policy_of(spec), ring(), steps=100, every=100)
    assert errors(models)[-1] < most


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spec", ["admm", "ssda", "msda", "mspd"])
@pytest.mark.parametrize(
    "task", ["logistic:dimension=3,samples=90,heterogeneity=0.8,regularisation=0.1", "least_squares:dimension=3"]
)
def test_other_convex_tasks_reach_their_optimum_too(spec, task):
    case = nine("random")
    _, models, _ = course(policy_of(spec), case, task, steps=300, every=300)
    assert np.abs(models[-1] - np.asarray(learned(task, NINE)[0].minimiser)).max() < 1e-9


# Time and messages


def plans_of(spec, latency=0.5):
    graph = graphs.with_links(graphs.ring(8), latency=latency)
    policy, law = build_policy(spec), laws.build_delays(LAW, 8)
    start = clock.init(policy, graph, law, jax.random.key(0))
    return jax.device_get(timeline(policy, simulate.World(graph, law, None, jax.random.key(0)), start, 5)[1])


def test_k_exchanges_cost_k_latencies_and_k_messages():
    one, many, full = plans_of("ssda"), plans_of("msda:rounds=4"), plans_of("full")
    np.testing.assert_allclose(one.duration, full.duration)
    np.testing.assert_allclose(many.duration, full.duration + 3 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(one.messages, full.messages)
    np.testing.assert_array_equal(many.messages, 4 * full.messages)
    np.testing.assert_allclose(many.flight, full.flight + 1.5)
    assert many.constants.shape == (5, 3)
    assert (many.constants[:, 2] == 4).all()


def test_a_message_is_one_iterate():
    task, learner = build_task(TASK, workers=4, batch_size=2), None
    learner = from_optimizer(task.loss, optax.sgd(0.1))._replace(oracle=task.oracle)
    for spec in ("admm", "ssda", "msda", "mspd"):
        assert bytes_sent(build_policy(spec), learner, jax.ShapeDtypeStruct((7,), jnp.float32)) == 28


# The gossip matrix


@pytest.mark.usefixtures("x64")
def test_the_spectrum_of_a_ring_is_its_formula():
    """In full, by Lanczos, and where Lanczos does not converge."""
    scheme = metropolis()
    for nodes in (10, 1000):
        graph = graphs.ring(nodes)
        largest, gap = spectrum(mixing_matrix(graph, np.asarray(scheme.apply(None, graph, graph.links))))
        assert largest == pytest.approx(4 / 3, rel=1e-8)
        assert gap * largest == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / nodes)), rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_the_spectrum_of_a_thousand_is_the_dense_one():
    graph, scheme = graphs.random_regular(1000, degree=4, seed=0), metropolis()
    mixing = mixing_matrix(graph, np.asarray(scheme.apply(None, graph, graph.links)))
    values = np.sort(1 - np.linalg.eigvalsh(mixing.toarray()))
    np.testing.assert_allclose(spectrum(mixing), (values[-1], values[1] / values[-1]), rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rounds", [1, 2, 7, 30])
def test_the_polynomial_averages_within_its_bounds(rounds):
    """It is that of the eigenvalues, keeps sums at zero, and has its eigenvalues where steps suppose them."""
    gossip = reference.Gossip([[(i - 1) % 10, (i + 1) % 10] for i in range(10)])
    mixing = jnp.asarray(np.eye(10) - gossip.matrix)
    network = Network(*(jnp.asarray(float(one)) for one in (gossip.largest, gossip.gap, rounds)))
    found = np.asarray(chebyshev(lambda tree: jax.tree.map(lambda leaf: mixing @ leaf, tree), network, jnp.eye(10)))
    expected, high, low = gossip.polynomial(rounds)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-13)
    values = np.linalg.eigvalsh(found)
    assert abs(values[0]) < 1e-13
    assert low - 1e-12 <= values[1]
    assert values[-1] <= high + 1e-12


@pytest.mark.usefixtures("x64")
def test_worlds_of_different_rounds_are_one_program():
    """As `vmap` over random graphs makes them: each has its own number of exchanges."""
    gossip = reference.Gossip([[(i - 1) % 10, (i + 1) % 10] for i in range(10)])
    mixing, rounds = jnp.asarray(np.eye(10) - gossip.matrix), jnp.asarray([1.0, 7.0, 3.0])

    @jax.vmap
    def polynomial(count):
        network = Network(jnp.asarray(gossip.largest), jnp.asarray(gossip.gap), count)
        return chebyshev(lambda leaf: mixing @ leaf, network, jnp.eye(10))

    for found, count in zip(np.asarray(polynomial(rounds)), (1, 7, 3), strict=True):
        np.testing.assert_allclose(found, gossip.polynomial(count)[0], atol=1e-13)


def test_rounds_are_the_rule_s():
    assert [rounds_of(gap) for gap in (1.0, 0.25, 0.0955, 1e-4, 1.0 - 1e-12)] == [1, 2, 3, 100, 1]


def test_what_a_user_should_know():
    said = notes("msda", graphs.ring(10))
    assert said[0].startswith("msda: it solves each worker's own problem exactly, and reads no learning rate")
    assert "an iteration has 3 exchanges" in said[1]
    assert len(notes("ssda", graphs.ring(10))) == 1


# What does not fit


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("admm:rho=-1"), "rho=-1 is out of range"),
        (lambda: build_policy("admm:rho=inf"), "rho=inf is out of range"),
        (lambda: build_policy("admm:rho=x"), "rho=x"),
        (lambda: build_policy("mspd:eta=-0.5"), "eta=-0.5 is out of range"),
        (lambda: build_policy("msda:rounds=-1"), "rounds=-1"),
        (lambda: build_policy("msda:rounds=10001"), "rounds=10001"),
        (lambda: build_policy("msda:rounds=1.5"), "rounds=1.5"),
        (lambda: build_policy("ssda:barrier=neighbours"), "barrier=neighbours does not fit"),
        (lambda: build_policy("ssda:rounds=2"), "unknown key 'rounds'"),
        (
            lambda: build_policy("ssda:weights=uniform").init(graphs.star(5)),
            "the weights are not symmetric on this graph",
        ),
        (
            lambda: build_policy("msda").init(graphs.from_adjacency(np.kron(np.eye(2), 1 - np.eye(2)).astype(bool))),
            "the graph is not connected",
        ),
        (lambda: admm(LEARNER._replace(oracle=None), 0.3), "the task has no oracle"),
        (
            lambda: admm(LEARNER._replace(combine=Combine(lambda *parts: (parts[2], parts[4]), True)), 0.3),
            "this learner mixes more than parameters",
        ),
        (lambda: sent(jnp.zeros(3, jnp.bfloat16)), "the method is exact, and bfloat16 holds three digits at most"),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


WORDS = ("--workers", "4", "--graph", "ring", "--seconds", "5", "--no-progress")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--policies", "admm", "--dataset", "digits"), "policy 'admm' computes on each worker's whole objective"),
        (("--policies", "full", "ssda", "--dataset", "digits"), "task 'digits' does not tell it; use a convex task"),
        (("--policies", "mspd", "--dataset", "quadratic", "--dtype", "bfloat16"), "'mspd': the method is exact, and"),
        (("--policies", "msda:rounds=-2", "--dataset", "quadratic"), "rounds=-2"),
    ],
)
def test_the_command_refuses_before_it_begins(words, expected, capsys, tmp_path):
    assert train.main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert expected in said
    assert not (tmp_path / "run").exists()


def test_python_refuses_a_task_without_an_oracle():
    task = build_task(TASK, workers=4, batch_size=2)._replace(objectives=None, oracle=None)
    with pytest.raises(ValueError, match="computes on each worker's whole objective"):
        train_policy("admm", task, graphs.ring(4), "constant", optax.sgd(0.1), steps=3)
    half = build_task(TASK, workers=4, batch_size=2)._replace(oracle=None)
    with pytest.raises(ValueError, match="the method computes exact minimisers, and the task has no"):
        train_policy("ssda", half, graphs.ring(4), "constant", optax.sgd(0.1), steps=3)


def test_plans_without_constants_are_refused():
    case = Case(graphs.ring(4))
    task = build_task(TASK, workers=4, batch_size=2)
    learner = build_policy("ssda").equip(from_optimizer(task.loss, optax.sgd(0.1))._replace(oracle=task.oracle))
    model = learning.init(learner, build_policy("full"), task.init(jax.random.key(0)), 4)
    plan = Plan(jnp.ones(()), jnp.ones(4, bool), jnp.eye(4))
    with pytest.raises(ValueError, match="these plans hold no constants"):
        learning.step(learner, task.objectives, plan, model, case.world.key)


def test_they_train_through_the_public_call():
    """In float32, with the rows of every other method, whatever the learning rate."""
    task, found = build_task(TASK, workers=4, batch_size=2), []
    for rate in (0.1, 10.0):
        result = train_policy("msda", task, graphs.ring(4), "constant", optax.sgd(rate), steps=40)
        found.append(result.model)
        rows = result.rows
        assert rows[-1]["suboptimality"] < 1e-9 < rows[0]["suboptimality"]
        assert rows[-1]["train_loss"] > 0
        assert rows[-1]["gradients"] == 40 * 4
    np.testing.assert_array_equal(*found)
    assert POLICIES["msda"].papers[0].short.startswith("Scaman")


def test_a_sweep_over_learning_rates_leaves_them_as_they_are(tmp_path):
    """They keep no optimiser, so a rate has no place to go; every other method of the sweep gets its own."""
    words = ["--policies", "admm", "full", "--dataset", "least_squares:dimension=2,samples=16", "--workers", "4"]
    words += ["--graph", "complete", "--seconds", "5", "--rows", "1", "--seeds", "1", "--learning-rates", "0.1", "0.3"]
    assert sweep.main([*words, "--no-progress", "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "results.csv").open() as file:
        found = {(row["policy"], row["learning_rate"]): row["test_loss"] for row in csv.DictReader(file)}
    assert found["admm", "0.1"] == found["admm", "0.3"]
    assert found["full", "0.1"] != found["full", "0.3"]
