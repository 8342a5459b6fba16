"""Exact oracles of convex tasks: they end where the gradient is zero, and the bounds on curvature are true."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax.tasks import build_task
from dbwjax.tasks.convex import bounds, logistic_oracle

WORKERS, D, REGULARISATION = 3, 4, 0.05
SPECS = {
    "quadratic": f"quadratic:dimension={D},condition=50,noise=2",
    "logistic": f"logistic:dimension={D},samples=40,heterogeneity=0.5,regularisation={REGULARISATION}",
    "least_squares": f"least_squares:dimension={D},samples=40,condition=20",
}
WEIGHTS = (0.0, 1e-3, 0.3, 10.0, 1e4)


def task_of(name, workers=WORKERS):
    return build_task(SPECS[name], workers=workers, batch_size=2)


def derivatives(name, task, worker):
    """`x -> (gradient, Hessian)` of a worker's objective, in NumPy, from what its batches are drawn of."""
    if name == "quadratic":
        curvature, centres, _ = (np.asarray(one, float) for one in task.batches.args)
        return lambda x: (curvature * (x - centres[worker]), np.diag(curvature))
    _, data, indices, sizes = task.batches.args
    mine = np.asarray(indices)[worker, : int(sizes[worker])]
    if name == "least_squares":
        rows, target = np.asarray(data.features, float)[mine], np.asarray(data.target, float)[mine]
        hessian = rows.T @ rows / len(mine)
        return lambda x: (rows.T @ (rows @ x - target) / len(mine), hessian)
    rows, labels = np.asarray(data["features"], float)[mine], np.asarray(data["label"])[mine]

    def logistic(x):
        chance = 0.5 * (1 + np.tanh(0.5 * rows @ x))
        gradient = rows.T @ (chance - labels) / len(mine) + REGULARISATION * x
        return gradient, (rows.T * chance * (1 - chance)) @ rows / len(mine) + REGULARISATION * np.eye(D)

    return logistic


@pytest.fixture(scope="module")
def solvers():
    """By task: the task, and its compiled oracle for all workers."""
    found = {}
    with jax.enable_x64(True):
        for name in SPECS:
            task = task_of(name)

            @jax.jit
            @jax.vmap
            def solve(worker, linear, centre, weight, task=task):
                return task.oracle(task.objectives(jax.random.key(0), worker, 0), linear, centre, weight)

            found[name] = task, solve
    return found


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    weight=st.sampled_from(WEIGHTS),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
)
def test_the_gradient_is_zero_to_rounding(solvers, name, seed, weight, scale):
    """The step that Newton's method would still take is of the size of rounding."""
    task, solve = solvers[name]
    linear, centre = scale * np.random.default_rng(seed).normal(size=(2, WORKERS, D))
    found = np.asarray(solve(np.arange(WORKERS), linear, centre, np.full(WORKERS, weight)))
    for worker, x in enumerate(found):
        gradient, hessian = derivatives(name, task, worker)(x)
        slope = gradient + linear[worker] + 2 * weight * (x - centre[worker])
        left = np.linalg.solve(hessian + 2 * weight * np.eye(D), slope)
        size = np.abs(x).max() + np.abs(centre[worker]).max() * (weight > 0)
        assert np.abs(left).max() <= 1e-13 * max(size, 1e-3), (weight, scale)


def test_in_float32_too():
    for name in SPECS:
        task = task_of(name)
        rng = np.random.default_rng(0)
        for weight in WEIGHTS:
            linear, centre = rng.normal(size=(2, D)).astype(np.float32)
            x = task.oracle(task.objectives(jax.random.key(0), 1, 0), linear, centre, jnp.float32(weight))
            assert x.dtype == jnp.float32
            gradient, hessian = derivatives(name, task, 1)(np.asarray(x, float))
            slope = gradient + linear + 2 * weight * (np.asarray(x, float) - centre)
            left = np.linalg.solve(hessian + 2 * weight * np.eye(D), slope)
            assert np.abs(left).max() <= 3e-5 * np.abs(x).max(), (name, weight)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SPECS)
def test_bounds_are_true_of_every_worker_and_reached_by_some(name):
    task = task_of(name, workers=7)  # shares differ in size
    strong, smooth = (float(one) for one in task.objectives(jax.random.key(0), 0, 0)[1:])
    spectra = []
    for worker in range(7):
        for x in (np.zeros(D), np.ones(D), 100 * np.ones(D)):
            spectra.append(np.linalg.eigvalsh(derivatives(name, task, worker)(x)[1]))
    lowest, highest = np.min(spectra), np.max(spectra)
    assert strong <= lowest * (1 + 1e-12)
    assert highest <= smooth * (1 + 1e-12)
    assert highest > 0.9 * smooth  # at 0 a logistic model is as curved as its bound
    assert lowest < strong * (1.2 if name == "logistic" else 1 + 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SPECS)
def test_the_loss_of_an_objective_s_data_is_the_objective(name):
    """Also where shares differ in size; and the mean over workers is what `evaluate` measures."""
    task, x = task_of(name, workers=7), jnp.linspace(-1, 1, D)
    values, key = [], jax.random.key(0)
    for worker in range(7):
        objective = task.objectives(key, worker, 5)
        values.append(float(task.loss(x, objective.data)))
        gradient, _ = derivatives(name, task, worker)(np.asarray(x))
        np.testing.assert_allclose(jax.grad(task.loss)(x, objective.data), gradient, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.mean(values), task.evaluate(x)["test_loss"], rtol=1e-12)
    beyond = task.objectives(key, 9, 0)  # a server's number
    jax.tree.map(np.testing.assert_array_equal, beyond, task.objectives(key, 6, 0))


def test_bounds_are_rounded_to_the_safe_side():
    low, high = bounds(0.1, 0.7)
    assert 0.1 - 1e-7 < float(low) <= 0.1
    assert 0.7 <= float(high) < 0.7 + 1e-6
    assert [float(one) for one in bounds(0.25, 2.0)] == [0.25, 2.0]


@pytest.mark.usefixtures("x64")
def test_newton_s_method_ends_from_far_away():
    """Labels that a line separates, hardly any l2 term, and a push a thousand times the gradient."""
    task = build_task("logistic:dimension=2,samples=30,heterogeneity=1,regularisation=1e-6", workers=3, batch_size=2)
    objective = task.objectives(jax.random.key(0), 0, 0)
    x = logistic_oracle(objective, jnp.full(2, 1e3), jnp.zeros(2), jnp.asarray(0.0))
    slope = jax.grad(task.loss)(x, objective.data) + 1e3
    assert float(jnp.abs(slope).max()) < 1e-9


# The data set


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("workers", [4, 7])
def test_least_squares_minimiser_is_that_of_the_mean_over_workers(workers):
    task = task_of("least_squares", workers)
    best = np.asarray(task.minimiser)
    slopes, curvatures = zip(*(derivatives("least_squares", task, i)(best) for i in range(workers)), strict=True)
    assert np.abs(np.mean(slopes, axis=0)).max() < 1e-13
    assert np.abs(slopes).max() > 0.1
    np.testing.assert_allclose(task.evaluate(task.minimiser)["suboptimality"], 0, atol=1e-15)
    x = np.linspace(-1, 2, D)
    above = (x - best) @ np.mean(curvatures, axis=0) @ (x - best) / 2
    np.testing.assert_allclose(task.evaluate(jnp.asarray(x))["suboptimality"], above, rtol=1e-12)
    assert task.sizes.sum() == 40
    assert np.ptp(task.sizes) <= 1


def test_least_squares_batches_are_rows_of_the_worker():
    task = task_of("least_squares")
    _, data, indices, sizes = task.batches.args
    mine = np.asarray(data.features)[np.asarray(indices)[2, : int(sizes[2])]]
    batch = task.batches(jax.random.key(1), 2, 5)
    assert batch.features.shape == (2, D)
    assert all((mine == row).all(axis=1).any() for row in np.asarray(batch.features))


@pytest.mark.usefixtures("x64")
def test_least_squares_settings_do_what_they_say():
    def built(workers=4, **given):
        words = ",".join(f"{name}={value}" for name, value in given.items())
        return build_task(f"least_squares:dimension=5,samples=20000,{words}", workers=workers, batch_size=1)

    _, data, *_ = built(condition=100).batches.args
    spread = np.linalg.eigvalsh(np.cov(np.asarray(data.features).T))
    np.testing.assert_allclose(spread, np.geomspace(0.01, 1, 5), rtol=0.05)
    alike, apart = built(heterogeneity=0), built(heterogeneity=2)
    np.testing.assert_allclose(alike.evaluate(alike.minimiser)["test_loss"], 0.5, rtol=0.05)  # the noise alone
    assert float(apart.evaluate(apart.minimiser)["test_loss"]) > 1
    exact = built(noise=0, heterogeneity=0)
    assert float(exact.evaluate(exact.minimiser)["test_loss"]) < 1e-25
    one, four = built(1, heterogeneity=0), built(4, heterogeneity=0)
    np.testing.assert_array_equal(one.batches.args[1].target, four.batches.args[1].target)
    np.testing.assert_allclose(one.minimiser, four.minimiser, rtol=1e-10)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("least_squares:samples=79", "samples=79 leaves some of 4 workers with fewer than dimension=20"),
        ("least_squares:condition=0.5", "condition=0.5 is out of range; use a finite number, 1 or more"),
        ("least_squares:noise=-1", "noise=-1 is out of range"),
        ("least_squares:heterogeneity=inf", "heterogeneity=inf is out of range"),
        ("least_squares:dimension=0", "dimension=0"),
        ("least_squares:dimension=1000000,samples=4000000", "dimension=1000000"),
        ("least_squares:sample=3", "did you mean 'samples'"),
    ],
)
def test_bad_settings_are_one_line(spec, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        build_task(spec, workers=4, batch_size=2)
    assert "\n" not in str(raised.value)
