"""Gradient tracking, D2 and quasi-global momentum: their papers' recursions, what they promise, what they refuse."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from benchmarks import heterogeneous
from benchmarks.rule_table import FILE, updated
from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.simulate import World
from dbwjax.experiments.networks import bytes_sent
from dbwjax.learners import build_optimizer, with_rates
from dbwjax.learners.tracking import corrected, quasi_global, tracked
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.policies.heterogeneous import d2
from dbwjax.types import Combine
from tests.cases import LEARNER, NINE, RATE, STEPS, P, nine, policy_of
from tests.reference import tracking as reference

OF_GRAPHS = ("ring", "random", "slow links")
EQUIPPED = {"tracking": tracked, "d2": corrected, "qgm": quasi_global}


@functools.partial(jax.jit, static_argnames=("policy", "learner", "steps"))
def seen(policy, learner, steps, world, policy_state, params):
    """Durations, ends of the workers' iterations after each step's origin, and the model's states; `[T, ...]`."""
    state = simulate.init(policy._replace(init=lambda graph: policy_state), learner, world, params)

    def one(state, _):
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock)
        model, _ = learning.step(learning.equipped(learner, policy), world.batches, plan, state.model, world.key)
        ready = jnp.full_like(state.clock.remaining, plan.duration) if plan.ready is None else plan.ready
        return state._replace(clock=ticking, model=model), (plan.duration, ready, model.params, model.local)

    return jax.lax.scan(one, state, None, length=steps)[1]


def course(case, spec, learner=LEARNER, steps=STEPS, params=None):
    """A case under a policy: ends of steps, the workers' own ends, parameters and local states after each step."""
    policy = policy_of(spec) if isinstance(spec, str) else spec
    params = jnp.zeros(P) if params is None else params
    state = policy.init(case.world.graph)
    duration, ready, x, local = jax.device_get(seen(policy, learner, steps, case.world, state, params))
    ends = np.cumsum(duration)
    return ends, (ends - duration)[:, None] + ready, x, local


def gradient_of(case):
    return lambda i, k, x: -case.update(i, k, x) / RATE


def assert_times(case, records, ends, own):
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12)
    np.testing.assert_allclose(own, [record.ends for record in records], rtol=1e-12)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


BARRIERS = [("global", graph) for graph in OF_GRAPHS] + [("neighbours", "slow links")]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("barrier", "graph"), BARRIERS)
@pytest.mark.parametrize("method", EQUIPPED)
def test_it_is_the_recursion_of_its_paper(method, barrier, graph):
    case = nine(graph)
    ends, own, x, local = course(case, f"{method}:barrier={barrier}")
    records = reference.times_of_full(barrier, case.delay, case.neighbours, STEPS, case.latency)
    assert_times(case, records, ends, own)
    given = (RATE, gradient_of(case), np.zeros((NINE, P)), STEPS)
    mixing = reference.metropolis_matrix(case.neighbours, lazy=method == "d2")
    if method == "qgm":
        same(x, reference.run_quasi_global(0.9, mixing, *given))
    elif method == "d2":
        same(x, reference.run_d2(mixing, *given))
        same(local.drift.mean(axis=1), 0)
    else:
        found, trackers, gradients = reference.run_tracking(mixing, *given)
        same(x, found)
        same(local.tracker, trackers)
        same(local.gradient, gradients)
        same(local.tracker.mean(axis=1), local.gradient.mean(axis=1))  # known of the method
    assert np.abs(x[-1] - x[-1].mean(axis=0)).max() > 1e-3, "workers that agree would show nothing"


@pytest.mark.usefixtures("x64")
def test_without_momentum_quasi_global_is_full():
    case = nine("random")
    _, _, x, _ = course(case, "qgm:beta=0")
    np.testing.assert_allclose(x, case.simulate(policy_of("full")).x, rtol=1e-13, atol=1e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", EQUIPPED)
def test_barriers_change_times_alone(method):
    case = nine("slow links")
    (late, _, first, _), (soon, _, second, _) = (
        course(case, f"{method}:barrier={barrier}") for barrier in ("global", "neighbours")
    )
    same(first, second)
    assert soon[-1] < late[-1]


# Data that differ: the optimum of the mean, which D-PSGD and `full` miss by a bias of the order of the step.

HET, WIDE = 10, 4
RING = graphs.ring(HET)


def curved_sample(curvature, target, key, worker, started):
    return {"curvature": curvature[worker], "target": target[worker]}


def curved_gradient(x, local, batch):
    error = batch["curvature"] * (x - batch["target"])
    return error, 0.5 * (error * (x - batch["target"])).sum(), None


CURVED = LEARNER._replace(gradient=curved_gradient)


class Curved:
    """Quadratics of different curvatures and centres, without noise."""

    def __init__(self, graph, nodes=HET, dtype=float):
        rng = np.random.default_rng(7)
        curvature, target = rng.uniform(0.2, 1.5, (nodes, WIDE)), rng.normal(size=(nodes, WIDE))
        self.best = (curvature * target).sum(axis=0) / curvature.sum(axis=0)
        batches = Partial(curved_sample, jnp.asarray(curvature, dtype), jnp.asarray(target, dtype))
        law = laws.build_delays("shifted_exponential:shift=0.2,rate=1", nodes, 0)
        self.world = World(graph, law, batches, jax.random.key(0))

    def error(self, spec, steps=3000, learner=CURVED, dtype=float):
        x = course(self, spec, learner, steps, jnp.zeros(WIDE, dtype))[2]
        return float(np.abs(x[-1].astype(float) - self.best).max())


@pytest.mark.usefixtures("x64")
def test_tracking_and_d2_reach_the_optimum_where_the_others_do_not():
    task = Curved(RING)
    error = {spec: task.error(spec) for spec in ("tracking", "d2", "dpsgd", "full", "qgm")}
    assert error["tracking"] < 1e-14, error
    assert error["d2"] < 1e-11, error  # it adds up the rounding of 3,000 mixings
    # Momentum of the mixed step does not take away the bias of a constant rate.
    assert min(error["dpsgd"], error["full"], error["qgm"]) > 0.1, error


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", ["momentum:beta=0.8", "adam"])
def test_other_optimisers_are_fed_or_corrected(optimizer):
    """Momentum is linear, so both methods stay exact; Adam's update is no gradient, and only tracking's input is."""
    task = Curved(RING)
    inner = build_optimizer(optimizer, 0.02)
    given = from_optimizer(lambda x, batch: 0.5 * (batch["curvature"] * (x - batch["target"]) ** 2).sum(), inner)
    error = {spec: task.error(spec, learner=given) for spec in ("tracking", "d2", "full")}
    assert error["full"] > 0.01, error
    if optimizer.startswith("momentum"):
        assert max(error["tracking"], error["d2"]) < 1e-11, error
    else:
        assert error["tracking"] < error["full"] / 3, error


@pytest.mark.usefixtures("x64")
def test_a_schedule_falls_for_the_tracker_too():
    """Both stay exact under rates that fall."""
    task = Curved(RING)
    inner = build_optimizer("sgd", 0.1, "step:every=1000,factor=0.5")
    given = from_optimizer(lambda x, batch: 0.5 * (batch["curvature"] * (x - batch["target"]) ** 2).sum(), inner)
    error = {spec: task.error(spec, learner=given) for spec in ("tracking", "d2", "full")}
    assert max(error["tracking"], error["d2"]) < 1e-6 < 0.05 < error["full"], error


# Workers that take no part.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("late", ["drop", "carry"])
@pytest.mark.parametrize("method", EQUIPPED)
def test_who_takes_no_part_keeps_all_and_the_means_stay(method, late):
    """Under a rule by which few take part: the mean of y is that of the last gradients, the mean of d is zero."""
    case = nine("random")
    policy = policy_of(f"fastest:k=4,late={late}")._replace(equip=EQUIPPED[method])
    _, _, x, local = course(case, policy)
    still = (np.diff(x, axis=0, prepend=np.zeros((1, NINE, P))) == 0).all(axis=2)
    assert (still.sum(axis=1) == NINE - 4).all()
    for leaf in jax.tree.leaves(local):
        moved = np.diff(leaf, axis=0, prepend=np.zeros_like(leaf[:1])) != 0
        assert not moved[still].any(), "somebody's state changed who took no part"
    if method == "tracking":
        same(local.tracker.mean(axis=1), local.gradient.mean(axis=1))
    if method == "d2":
        same(local.drift.mean(axis=1), 0)


# Types.


@pytest.mark.parametrize("method", EQUIPPED)
def test_in_bfloat16_what_corrects_is_float32(method):
    """Rounding moves the workers, and no bias builds up: the error stays that of parameters of 8 bits."""
    case = Curved(RING, dtype=jnp.bfloat16)
    _, _, x, local = course(case, method, CURVED, 1500, jnp.zeros(WIDE, jnp.bfloat16))
    assert x.dtype == jnp.bfloat16
    kinds = {leaf.dtype for leaf in jax.tree.leaves(local)}
    assert kinds == ({np.dtype("float32")} if method != "qgm" else {np.dtype("float32"), x.dtype})
    error = np.abs(x[-1].astype(float).mean(axis=0) - case.best).max()
    assert error < (0.05 if method != "qgm" else 0.5), error


def test_bytes_are_those_of_what_is_sent():
    wide, narrow = jnp.zeros(100), jnp.zeros(100, jnp.bfloat16)
    for spec, sizes in {"tracking": (800, 600), "d2": (400, 200), "qgm": (400, 200)}.items():
        assert tuple(bytes_sent(policy_of(spec), LEARNER, one) for one in (wide, narrow)) == sizes


@pytest.mark.parametrize("method", EQUIPPED)
def test_a_sweep_over_rates_finds_them(method):
    learner = EQUIPPED[method](from_optimizer(lambda x, batch: x.sum(), build_optimizer("sgd", 0.1)))
    local = jax.vmap(learner.init)(jnp.ones((3, 2)))
    found = with_rates(local, jnp.full(3, 0.5))
    assert [float(rate) for rate in found.own.hyperparams["learning_rate"]] == [0.5] * 3


def test_a_learner_that_reports_still_does():
    inner = LEARNER._replace(
        init=lambda x: 2 * x, report=lambda x, local: x + local, gradient=lambda x, o, b: (o, 0, b)
    )
    for equip in EQUIPPED.values():
        learner = equip(inner)
        local = learner.init(jnp.ones(2))
        assert learner.report(jnp.ones(2), local).tolist() == [3, 3]
        assert learner.gradient(jnp.ones(2), local, None)[0].tolist() == [2, 2]


# What is refused.

TORUS = graphs.build_graph("torus:rows=2", 10)
MORE = LEARNER._replace(combine=Combine(lambda mix, keys, x, u, local, constants: (mix(x), local), True))


@pytest.mark.parametrize(
    ("graph", "weights", "value"),
    [
        (TORUS, "metropolis", None),
        (graphs.ring(8), "metropolis", "-0.3333"),
        (graphs.ring(2500), "metropolis", "-0.3333"),
        (graphs.ring(8), "best_constant", None),
    ],
)
def test_d2_refuses_what_would_diverge(graph, weights, value):
    if value is None and weights == "metropolis":
        value = f"{np.linalg.eigvalsh(reference.metropolis_matrix(neighbours_of(graph)))[0]:.4f}"
    with pytest.raises(ValueError, match=r"d2 diverges where the smallest eigenvalue .* use weights=lazy$") as raised:
        build_policy(f"d2:weights={weights}").init(graph)
    assert value is None or f"here it is {value};" in str(raised.value)
    assert "\n" not in str(raised.value)
    build_policy("d2").init(graph)  # lazy


def test_what_d2_refuses_does_diverge(monkeypatch, x64):
    """Past the check, on the graph that it refuses; and on the odd ring that it accepts it converges."""
    monkeypatch.setattr("dbwjax.policies.heterogeneous.D2_EDGE", -1.0)
    task = Curved(TORUS)
    assert task.error(d2("metropolis"), 400) > 1e12
    monkeypatch.undo()
    assert Curved(graphs.ring(9), 9).error(d2("metropolis")) < 1e-10


def neighbours_of(graph):
    lists, links = np.asarray(graph.neighbours), np.asarray(graph.links)
    return [[int(j) for j in row[mask]] for row, mask in zip(lists, links, strict=True)]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("qgm:beta=1"), "beta=1 is not a momentum; use 0 to less than 1"),
        (lambda: build_policy("qgm:beta=-0.1"), "beta=-0.1 is not a momentum"),
        (lambda: build_policy("qgm:beta=0.99999999"), "is 1 in float32; use at most"),
        (lambda: build_policy("tracking:late=drop"), "late"),
        (
            lambda: build_policy("tracking:weights=uniform").init(graphs.star(5)),
            "tracking needs weights that are the same",
        ),
        (lambda: build_policy("d2:weights=uniform").init(graphs.star(5)), "use weights=metropolis"),
        (lambda: tracked(MORE), "gradient tracking mixes in its own way"),
        (lambda: corrected(MORE), "D2 mixes in its own way"),
        (lambda: quasi_global(MORE), "quasi-global momentum mixes in its own way"),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_uniform_weights_are_fine_where_they_are_the_same_both_ways():
    build_policy("tracking:weights=uniform").init(graphs.ring(5))


def test_another_order_is_refused():
    case = Curved(RING, dtype=jnp.float32)
    policy = policy_of("dpsgd")._replace(equip=tracked)
    with pytest.raises(ValueError, match="adapts before it mixes"):
        course(case, policy, CURVED, 1, jnp.zeros(WIDE, jnp.float32))


def test_the_page_has_the_tables_that_were_measured():
    page = heterogeneous.PAGE.read_text()
    assert updated(page, FILE, heterogeneous.tables) == page
