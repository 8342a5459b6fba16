"""The distributed (projected) subgradient method: agreement with a heap-queue reference, norms, what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import learner as learning
from dbwjax.engine import simulate
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.policies.subgradient import projected, subgradient
from dbwjax.types import Combine, Plan
from tests.cases import GRAPHS, LEARNER, NINE, PAIR, PAIR_LEARNER, RATE, STEPS, Case, P, assert_agree, nine, policy_of
from tests.reference import sporadic

NODES, RADIUS = NINE, 0.4


def simulated(case, policy, learner=LEARNER, params=None):
    """Ends and parameters after each step, as a run of the library makes them (with the policy's learner)."""
    state = simulate.init(policy, learner, case.world, jnp.zeros(P) if params is None else params)
    ends, x = [0.0], []
    for _ in range(STEPS):
        state, record = simulate.run(policy, learner, case.world, state, 1)
        ends.append(ends[-1] + float(record.duration[0]))
        x.append(jax.device_get(state.model.params))
    return ends[1:], x


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("barrier", ["global", "neighbours"])
def test_without_a_radius_it_is_the_reference(barrier, graph):
    case = nine(graph)
    given = {"neighbours": case.neighbours, "latency": case.latency, **case.common}
    records = sporadic.run_subgradient(np.inf, barrier, **given)
    course = case.simulate(policy_of(f"subgradient:barrier={barrier}"))
    assert_agree(course, records)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", ["ring", "random", "slow links"])
@pytest.mark.parametrize("barrier", ["global", "neighbours"])
def test_with_a_radius_it_is_the_reference(barrier, graph):
    case = nine(graph)
    given = {"neighbours": case.neighbours, "latency": case.latency, **case.common}
    records = sporadic.run_subgradient(RADIUS, barrier, **given)
    ends, x = simulated(case, policy_of(f"subgradient:radius={RADIUS},barrier={barrier}"))
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    norms = np.linalg.norm(np.array(x), axis=2)
    assert (norms <= RADIUS * (1 + 1e-15)).all()
    share = (norms > RADIUS * (1 - 1e-12)).mean()
    assert 0.05 < share < 0.95, "the test needs workers inside and on the edge"


@pytest.mark.usefixtures("x64")
def test_with_ties_it_is_the_reference():
    case = nine("random", "constant:seconds=0.5")
    records = sporadic.run_subgradient(np.inf, "neighbours", neighbours=case.neighbours, **case.common)
    course = case.simulate(policy_of("subgradient:barrier=neighbours"))
    np.testing.assert_allclose(course.x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(course.ends, [record.time for record in records])


@pytest.mark.usefixtures("x64")
def test_its_clock_and_first_step_are_those_of_dpsgd():
    case = nine("slow links")
    seen, expected = (case.simulate(policy_of(spec)) for spec in ("subgradient:barrier=neighbours", "dpsgd"))
    np.testing.assert_array_equal(seen.own, expected.own)
    np.testing.assert_array_equal(seen.x[0], expected.x[0])
    assert (seen.x[1] != expected.x[1]).any()


@pytest.mark.usefixtures("x64")
def test_a_radius_that_is_never_reached_changes_nothing():
    case = nine("random")
    _, x = simulated(case, policy_of("subgradient:radius=1e6,barrier=neighbours"))
    expected = case.simulate(policy_of("subgradient:barrier=neighbours")).x
    np.testing.assert_allclose(x, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.usefixtures("x64")
def test_one_worker_is_sgd_with_falling_steps():
    case = Case(graphs.path(1), seed=2)
    course, x = case.simulate(policy_of("subgradient")), np.zeros(P)
    for k in range(STEPS):
        x = x + case.update(0, k, x) / np.sqrt(k + 1)
        np.testing.assert_allclose(course.x[k, 0], x, rtol=1e-12)
    np.testing.assert_allclose(course.ends, np.cumsum(case.seconds[0, :STEPS]), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_all_parameters_of_a_worker_are_one_vector():
    """Two leaves of different shapes, of float32 and float64."""
    case, radius = nine("random"), 0.25
    params = {**PAIR, "bias": jnp.ones((), jnp.float32)}
    _, x = simulated(case, subgradient(radius), PAIR_LEARNER, params)
    norms = np.array([np.sqrt((one["x"] ** 2).sum(axis=1) + one["bias"].astype(float) ** 2) for one in x])
    assert (norms <= radius * (1 + 1e-7)).all()
    assert (norms > radius * (1 - 1e-6)).any()
    assert (norms < radius * 0.9).any() or norms.max() > 0
    assert x[-1]["bias"].dtype == np.float32
    alone = np.array([abs(one["bias"]) for one in x])
    assert (alone < radius * 0.99).any()  # a projection of each leaf would leave it on the edge


def test_in_float32_the_norm_is_kept_to_rounding():
    case = Case(graphs.pad(GRAPHS["random"](), NINE), 1)
    _, x = simulated(case, subgradient(RADIUS))
    norms = np.linalg.norm(np.array(x).astype(float), axis=2)
    assert (norms <= RADIUS * (1 + 1e-6)).all()
    assert np.isfinite(norms).all()


def test_zero_parameters_stay():
    learner = projected(LEARNER, 1.0)
    zero = jnp.zeros((2, P))
    moved, _ = learner.combine.apply(lambda tree: tree, None, zero, zero, (), None)
    np.testing.assert_array_equal(moved, zero)


MORE = LEARNER._replace(combine=Combine(lambda mix, keys, x, u, local, constants: (mix(x), local), False))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("subgradient:radius=0"), "radius=0 leaves no ball; use a number above 0"),
        (lambda: build_policy("subgradient:radius=-1"), "radius=-1 leaves no ball"),
        (lambda: build_policy("subgradient:radius=1e-40"), "radius=1e-40"),
        (lambda: build_policy("subgradient:barrier=no"), "is not a choice"),
        (lambda: build_policy("subgradient:weights=lasy"), "did you mean 'lazy'"),
        (lambda: projected(MORE, 1.0), "radius= projects plain parameters, and this learner mixes more"),
        (
            lambda: build_policy("subgradient").init(graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1).astype(bool))),
            "not the other way round",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("push", [jnp.ones((NODES, NODES)), jnp.ones((1, NODES))])
def test_a_learner_that_mixes_more_takes_its_own_update(push):
    """The engine hands over each worker's update weighed by the plan's vector; another push has no meaning there."""
    case = Case(graphs.ring(NODES), 1)
    model = learning.init(MORE, policy_of("dpsgd"), jnp.zeros(P), NODES)
    plan = Plan(jnp.ones(()), jnp.ones(NODES, bool), jnp.eye(NODES), push=push)
    with pytest.raises(ValueError, match="needs a policy under which each takes its own update"):
        learning.step(MORE, case.world.batches, plan, model, case.world.key)


def test_the_engine_weighs_what_it_hands_over():
    case = Case(graphs.ring(NODES), 1)
    adding = Combine(
        lambda mix, keys, params, updates, local, constants: (jax.tree.map(jnp.add, mix(params), updates), local), False
    )
    found = []
    for learner in (LEARNER, LEARNER._replace(combine=adding)):
        model = learning.init(learner, policy_of("dpsgd"), jnp.ones(P), NODES)
        push = 1 + jnp.arange(float(NODES))
        plan = Plan(jnp.ones(()), jnp.arange(NODES) != 3, jnp.eye(NODES), push=push)
        found.append(np.asarray(learning.step(learner, case.world.batches, plan, model, case.world.key)[0].params))
    np.testing.assert_allclose(*found, rtol=1e-6)
    np.testing.assert_array_equal(found[0][3], 1)
    assert RATE > 0
