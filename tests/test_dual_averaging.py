"""Dual averaging: its paper's recursion, the mean that is reported, one worker with a constant gradient, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import simulate
from dbwjax.engine.learner import equipped, from_optimizer
from dbwjax.experiments.networks import bytes_sent
from dbwjax.learners import build_optimizer, with_rates
from dbwjax.learners.averaging import dual_averaged
from dbwjax.network import graphs
from dbwjax.policies import POLICIES, build_policy
from dbwjax.policies.table import notes
from dbwjax.types import Combine
from tests.cases import LEARNER, NINE, STEPS, Case, P, nine, policy_of
from tests.reference import tracking as reference
from tests.test_tracking import assert_times, course, gradient_of, same


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("barrier", "graph"),
    [("neighbours", "ring"), ("neighbours", "random"), *((b, "slow links") for b in ("neighbours", "global"))],
)
def test_it_is_the_recursion_of_its_paper(barrier, graph):
    case = nine(graph)
    ends, own, x, local = course(case, f"dual_averaging:alpha=0.7,barrier={barrier}")
    assert_times(case, reference.times_of_dpsgd(barrier, case.delay, case.neighbours, STEPS, case.latency), ends, own)
    mixing = reference.metropolis_matrix(case.neighbours)
    found, means = reference.run_dual(0.7, mixing, gradient_of(case), np.zeros((NINE, P)), STEPS)
    same(x, found)
    same(local.mean, means)
    report = equipped(LEARNER, policy_of("dual_averaging")).report
    np.testing.assert_array_equal(report(x, local), local.mean)
    assert np.abs(local.mean[-1] - x[-1]).max() > 1e-3, "a mean that is the last would show nothing"


@pytest.mark.usefixtures("x64")
def test_one_worker_with_a_constant_gradient_goes_as_the_root_of_its_steps():
    case, start, slope = Case(graphs.path(1), 2), np.array([1.0, -2.0, 0.5]), np.array([0.3, 1.0, -4.0])
    learner = LEARNER._replace(gradient=lambda x, local, batch: (jnp.asarray(slope), (slope * x).sum(), None))
    _, _, x, local = course(case, "dual_averaging:alpha=0.25", learner, params=jnp.asarray(start))
    roots = np.sqrt(1 + np.arange(STEPS))[:, None]
    same(x[:, 0], start - 0.25 * roots * slope)
    same(local.mean[-1, 0], start - 0.25 * roots.mean() * slope)


@pytest.mark.usefixtures("x64")
def test_neither_rate_nor_optimiser_is_read():
    case = nine("random")
    loss = lambda x, batch: 0.5 * ((x - batch["target"] + batch["noise"]) ** 2).sum()  # noqa: E731
    courses = [
        course(case, "dual_averaging", from_optimizer(loss, build_optimizer(name, rate)), 5)[2]
        for name, rate in (("sgd", 0.1), ("adam", 3.0))
    ]
    np.testing.assert_array_equal(*courses)
    (said,) = notes("dual_averaging:alpha=2", case.world.graph)
    assert said == (
        "dual_averaging:alpha=2: steps are alpha=2 over sqrt(t); the learning rate and the optimiser are not used"
    )
    assert "not the learning rate" in POLICIES["dual_averaging"].summary


def test_a_sweep_over_rates_goes_through_it():
    learner = dual_averaged(from_optimizer(lambda x, batch: x.sum(), build_optimizer("sgd", 0.1)))
    with_rates(jax.vmap(learner.init)(jnp.ones((3, 2))), jnp.full(3, 0.5))


def test_in_bfloat16_sums_and_means_are_float32():
    case = Case(graphs.pad(graphs.ring(NINE), NINE), 1)
    _, _, x, local = course(case, "dual_averaging", params=jnp.zeros(P, jnp.bfloat16))
    assert x.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in (local.start, local.dual, local.mean)} == {np.dtype("float32")}
    wide = course(case, "dual_averaging")[2]
    np.testing.assert_allclose(x[-1].astype(float), wide[-1], atol=0.05)
    assert bytes_sent(policy_of("dual_averaging"), LEARNER, jnp.zeros(10, jnp.bfloat16)) == 40
    assert bytes_sent(policy_of("dual_averaging"), LEARNER, jnp.zeros(10)) == 40


MORE = LEARNER._replace(combine=Combine(lambda mix, keys, x, u, local, constants: (mix(x), local), False))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("dual_averaging:alpha=0"), "alpha=0 is no size of steps; use a finite number above 0"),
        (lambda: build_policy("dual_averaging:alpha=inf"), "alpha=inf is no size of steps"),
        (lambda: build_policy("dual_averaging:alpha=1e-60"), "alpha=1e-60"),
        (lambda: build_policy("dual_averaging:alpha=x"), "alpha"),
        (lambda: build_policy("dual_averaging:weights=uniform").init(graphs.star(5)), "the same both ways"),
        (lambda: dual_averaged(MORE), "dual averaging mixes and reports in its own way"),
        (lambda: dual_averaged(LEARNER._replace(report=lambda x, local: x)), "give a plain learner"),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_plan_without_alpha_is_refused():
    case = Case(graphs.ring(NINE), 1)
    policy = policy_of("dpsgd")._replace(equip=dual_averaged)
    state = simulate.init(policy, LEARNER, case.world, jnp.zeros(P))
    with pytest.raises(ValueError, match=r"constants are \[alpha\]; use the policy dual_averaging"):
        simulate.run(policy, LEARNER, case.world, state, 1)
