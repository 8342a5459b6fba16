"""Schedules of the learning rate: multipliers of a base rate that a sweep may change."""

from __future__ import annotations

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax import specs
from dbwjax.engine import learner as learning
from dbwjax.engine.learner import from_optimizer
from dbwjax.learners import OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule, scheduled, with_rates
from dbwjax.network.graphs import build_graph
from dbwjax.policies import build_policy
from dbwjax.types import Plan

TYPED = {
    "constant": "constant",
    "cosine": "cosine:steps=40,alpha=0.1",
    "step": "step:every=7,factor=0.5",
    "warmup": "warmup:steps=10",
    "warmup_cosine": "warmup_cosine:warmup=10,steps=40,alpha=0.1",
}


def told(spec, n):
    """What each multiplier is, by its formula."""

    def cosine(n, steps, alpha):
        return alpha + (1 - alpha) * (1 + math.cos(math.pi * min(n, steps) / steps)) / 2

    return {
        "constant": lambda: 1.0,
        "cosine": lambda: cosine(n, 40, 0.1),
        "step": lambda: 0.5 ** (n // 7),
        "warmup": lambda: min(n, 10) / 10,
        "warmup_cosine": lambda: n / 10 if n < 10 else cosine(n - 10, 30, 0.1),
    }[spec]()


def test_every_schedule_of_the_table_is_tested():
    assert set(TYPED) == set(SCHEDULES)


@pytest.mark.parametrize("name", TYPED)
def test_multipliers_are_what_their_formulas_say(x64, name):
    schedule = build_schedule(TYPED[name])
    counts = range(100)
    expected = [told(name, n) for n in counts]
    np.testing.assert_allclose([float(schedule(n)) for n in counts], expected, rtol=1e-12, atol=1e-15)
    mapped = jax.jit(jax.vmap(lambda n: jnp.asarray(schedule(n))))(jnp.arange(100, dtype=jnp.int32))
    np.testing.assert_allclose(mapped, expected, rtol=1e-12, atol=1e-15)


@given(every=st.integers(1, 10_000), count=st.integers(0, 2**24))
@settings(deadline=None, max_examples=200)
def test_the_stairs_of_step_are_where_they_should_be(every, count):
    """Also in float32, in which the division by `every` is rounded."""
    schedule = build_schedule(f"step:every={every},factor=0.999999")
    stair = count // every
    before = float(schedule(jnp.int32(stair * every)))
    assert float(schedule(jnp.int32(count))) == before
    if stair:
        assert float(schedule(jnp.int32(stair * every - 1))) != before or stair > 1000  # 0.999999 ** 1000 is resolved


@pytest.mark.parametrize(
    "spec", ["warmup:steps=10*step:every=7,factor=0.5", " warmup:steps=10 * step: every=7, factor=.5"]
)
def test_schedules_are_multiplied(spec):
    schedule = build_schedule(spec)
    for n in range(30):
        assert float(schedule(n)) == pytest.approx(told("warmup", n) * told("step", n), rel=1e-6)


def test_constant_changes_nothing():
    """Neither the program nor the object."""
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    assert scheduled(optimizer, build_schedule("constant")) is optimizer
    assert build_schedule("constant")(3) == 1.0

    def program(optimizer):
        params = jnp.zeros(3)
        return str(jax.make_jaxpr(optimizer.update)(params, optimizer.init(params), params))

    assert program(build_optimizer("sgd", 0.1)) == program(optimizer)
    assert program(build_optimizer("sgd", 0.1, "cosine:steps=9")) != program(optimizer)


GRADIENTS = np.random.default_rng(0).normal(size=(25, 4, 5))


def trained(optimizer, dtype, rates=None, size=None):
    """Parameters of four workers after 25 updates."""
    params = jnp.zeros((4, 5), dtype)
    state = jax.vmap(optimizer.init)(params)
    if rates is not None:
        state = with_rates(state, rates)
    step = jax.jit(jax.vmap(optimizer.update))
    for gradient in GRADIENTS[:size]:
        updates, state = step(jnp.asarray(gradient, dtype), state, params)
        params = params + updates
    return params, state


OPTAX = {
    "sgd": lambda rate: optax.sgd(rate),
    "momentum:beta=0.8": lambda rate: optax.sgd(rate, momentum=0.8),
    "adam": lambda rate: optax.adam(rate),
}


@pytest.mark.parametrize("name", [name for name in TYPED if name != "constant"])
@pytest.mark.parametrize("spec", OPTAX)
def test_an_optimiser_on_a_schedule_is_optax_s_own(x64, spec, name):
    """Optax's optimiser on optax's schedule with the base rate as its initial value, written by hand."""
    base = 0.3
    by_hand = {
        "cosine": lambda: optax.cosine_decay_schedule(base, 40, 0.1),
        "step": lambda: optax.exponential_decay(base, 7.0, 0.5, staircase=True),
        "warmup": lambda: optax.linear_schedule(0.0, base, 10.0),
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, base, 10.0, 40.0, 0.1 * base),
    }[name]()
    params, state = trained(build_optimizer(spec, base, TYPED[name]), jnp.float64)
    expected, _ = trained(OPTAX[spec](by_hand), jnp.float64)
    np.testing.assert_allclose(params, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(state.count, [25] * 4)
    np.testing.assert_array_equal(state.hyperparams["learning_rate"], [base] * 4)  # the base stays what it was


@pytest.mark.optimised
@pytest.mark.parametrize("schedule", TYPED.values())
@pytest.mark.parametrize("spec", OPTIMIZERS)
def test_swept_rates_multiply_the_schedule(spec, schedule):
    """To the last bit what an optimiser built at that rate does, each worker at its own; in one program."""
    rates = [0.3, 0.1, 0.02, 1.0]
    together, _ = trained(build_optimizer(spec, 99.0, schedule), jnp.float32, rates)
    for worker, rate in enumerate(rates):
        alone, _ = trained(build_optimizer(spec, rate, schedule), jnp.float32)
        np.testing.assert_array_equal(together[worker], alone[worker])


@pytest.mark.parametrize("schedule", [TYPED["constant"], TYPED["cosine"]])
def test_rates_of_a_batch_of_simulations(schedule):
    """One rate a simulation, broadcast over its workers, in buffers of its own: states are donated."""
    optimizer = build_optimizer("momentum", 0.1, schedule)
    local = jax.vmap(jax.vmap(optimizer.init))(jnp.zeros((2, 3, 5)))
    changed = with_rates(local, np.array([0.5, 0.25]))
    rate = changed.hyperparams["learning_rate"]
    np.testing.assert_array_equal(rate, [[0.5] * 3, [0.25] * 3])
    assert rate.dtype == jnp.float32
    assert jax.tree.structure(changed) == jax.tree.structure(local)
    np.testing.assert_array_equal(local.hyperparams["learning_rate"], np.full((2, 3), np.float32(0.1)))
    np.testing.assert_array_equal(with_rates(local, 0.5).hyperparams["learning_rate"], np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match=r"rates of shape \(3,\) do not fit states of shape \(2, 3\)"):
        with_rates(local, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("spec", OPTIMIZERS)
def test_a_schedule_leaves_types_and_shapes_alone(spec, dtype):
    """The state is a fixed point of its shapes, and the same with and without a schedule."""
    optimizer, plain = (build_optimizer(spec, 0.1, schedule) for schedule in ("warmup:steps=3", "constant"))
    params = jnp.zeros(3, dtype)
    state = optimizer.init(params)
    updates, after = optimizer.update(params, state, params)
    _, expected = plain.update(params, plain.init(params), params)
    assert updates.dtype == jnp.dtype(dtype)

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert shapes(state) == shapes(after) == shapes(expected)
    assert state.hyperparams["learning_rate"].dtype == jnp.dtype(dtype)


def test_float32_rates_are_rounded_as_optax_rounds_them():
    rate, schedule = np.float32(0.1), build_schedule("step:every=1,factor=0.7")
    params, _ = trained(build_optimizer("sgd", 0.1, "step:every=1,factor=0.7"), jnp.float32, size=2)
    first = np.zeros((4, 5), np.float32) - rate * np.float32(GRADIENTS[0])
    second = first - rate * np.float32(schedule(1)) * np.float32(GRADIENTS[1])
    np.testing.assert_allclose(params, second, rtol=3e-7)


def test_updates_that_did_not_count_do_not_age_a_worker():
    """The count is of a worker's own updates: the engine keeps the state of those who were late."""
    learner = from_optimizer(lambda params, batch: (params * batch).sum(), build_optimizer("sgd", 1.0, "step:every=1"))
    policy, graph = build_policy("full"), build_graph("complete", 3)
    state = learning.init(learner, policy, jnp.zeros(2), 3)
    plan = Plan(jnp.ones(()), jnp.array([True, False, True]), jnp.eye(3))
    fresh = [[True, False, True], [True, True, False], [True, True, True]]
    moves = []
    for who in fresh:
        before = state.params
        here = plan._replace(fresh=jnp.array(who))
        state, _ = learning.step(learner, lambda key, worker, started: jnp.ones(2), here, state, jax.random.key(0))
        moves.append(-(state.params - before)[:, 0])
    np.testing.assert_array_equal(state.local.count, [3, 2, 2])
    expected = [[1, 0, 1], [0.1, 1, 0], [0.01, 0.1, 0.1]]
    np.testing.assert_allclose(moves, expected, rtol=1e-4)
    assert graph.neighbours.shape[0] == 3


def test_own_schedules_and_optimisers_are_taken():
    own = optax.chain(optax.clip(0.5), optax.inject_hyperparams(optax.adamw)(learning_rate=0.1, weight_decay=0.0))
    built = scheduled(own, build_schedule("step:every=2"))
    stairs = optax.exponential_decay(0.1, 2, 0.1, staircase=True)
    expected = optax.chain(optax.clip(0.5), optax.adamw(stairs, weight_decay=0.0))
    np.testing.assert_allclose(trained(built, jnp.float32)[0], trained(expected, jnp.float32)[0], rtol=1e-5)
    half = build_optimizer("sgd", 0.2, optax.constant_schedule(0.5))
    np.testing.assert_array_equal(trained(half, jnp.float32)[0], trained(build_optimizer("sgd", 0.1), jnp.float32)[0])
    state = jax.vmap(built.init)(jnp.zeros((4, 5)))
    np.testing.assert_array_equal(with_rates(state, [1, 2, 3, 4])[1].hyperparams["learning_rate"], [1, 2, 3, 4])


def test_optimisers_without_a_rate_in_their_state_are_refused():
    cosine = build_schedule("cosine:steps=9")
    with pytest.raises(ValueError, match="keeps no learning rate in its state; use build_optimizer"):
        scheduled(optax.sgd(0.1), cosine).init(jnp.zeros(3))
    with pytest.raises(ValueError, match="keeps no learning rate"):
        with_rates(optax.sgd(0.1).init(jnp.zeros(3)), 0.1)
    twice = optax.inject_hyperparams(optax.sgd)(learning_rate=cosine)
    with pytest.raises(ValueError, match="a schedule of its own"):
        scheduled(twice, cosine).init(jnp.zeros(3))
    with pytest.raises(ValueError, match="a schedule of its own"):
        with_rates(twice.init(jnp.zeros(3)), 0.1)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("cosin:steps=3", "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("cosine", "needs steps="),
        ("cosine:steps=0", "schedule 'cosine:steps=0': steps=0 is out of range; use 1 or more"),
        ("cosine:steps=1.5", "is not a whole number"),
        ("cosine:steps=5,alpha=1.5", "alpha=1.5 is not a share of the base rate; use 0 to 1"),
        ("cosine:steps=5,learning_rate=1", "unknown key 'learning_rate'"),
        ("step:every=0", "every=0 is out of range"),
        ("step:every=3,factor=0", "factor=0 is not a factor"),
        ("step:every=3,factor=inf", "factor=inf is not a factor"),
        ("step:every=3,factor=-1", "factor=-1 is not a factor"),
        ("warmup:steps=-1", "steps=-1 is out of range"),
        ("warmup:steps=3,start=2", "start=2 is not a share"),
        ("warmup_cosine:warmup=10,steps=10", "leaves no update after warmup=10; use 11 or more"),
        ("warmup_cosine:warmup=0,steps=10", "warmup=0 is out of range"),
        ("constant:rate=1", "it has none"),
        ("warmup:steps=3*", "names nothing"),
        ("", "names nothing"),
    ],
)
def test_schedules_that_cannot_be(spec, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        build_optimizer("sgd", 0.1, spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SCHEDULES)
def test_keys_and_words_are_read_from_the_signature(name):
    builder = SCHEDULES[name]
    assert specs.describe(name, builder).startswith(name)
    assert inspect.getdoc(builder)
    assert all(parameter.annotation in (int, float) for parameter in specs.keys(builder).values())
