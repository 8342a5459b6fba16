import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from dbwjax.tasks.datasets import build_task
from dbwjax.tasks.synthetic import logistic, quadratic

KEY = jax.random.key(7)


def batch(task, worker=0, started=0, key=KEY):
    return task.batches(key, jnp.asarray(worker), jnp.asarray(started))


def mean_gradient(task, params, workers, draws=1):
    """The mean over workers of the mean gradient over `draws` batches."""
    names = jnp.arange(workers).repeat(draws), jnp.tile(jnp.arange(draws), workers)
    one = lambda worker, started: jax.grad(task.loss)(params, task.batches(KEY, worker, started))  # noqa: E731
    return jax.vmap(one)(*names).mean(axis=0)


def test_quadratic_without_noise_is_its_formula(x64):
    task = quadratic(dimension=4, heterogeneity=2.0, noise=0.0, condition=8.0, workers=3, batch_size=5)
    curvature = np.diag(np.geomspace(1 / 8, 1, 4))
    centres = np.stack([np.asarray(batch(task, worker)["centre"][0]) for worker in range(3)])
    params = np.array([1.0, -2.0, 0.5, 3.0])

    def value(point):
        return np.mean([(point - centre) @ curvature @ (point - centre) / 2 for centre in centres])

    np.testing.assert_allclose(centres.mean(axis=0), task.minimiser, rtol=1e-12)
    assert not np.allclose(centres[0], centres[1])
    for worker, centre in enumerate(centres):
        away = params - centre
        np.testing.assert_allclose(task.loss(params, batch(task, worker)), away @ curvature @ away / 2, rtol=1e-12)
        gradient = jax.grad(task.loss)(params, batch(task, worker))
        np.testing.assert_allclose(gradient, curvature @ away, rtol=1e-12)
    measured = task.evaluate(jnp.asarray(params))
    np.testing.assert_allclose(measured["test_loss"], value(params), rtol=1e-12)
    np.testing.assert_allclose(measured["suboptimality"], value(params) - value(np.asarray(task.minimiser)), rtol=1e-12)


def test_quadratic_noise_is_unbiased_and_shrinks_with_the_batch():
    params = jnp.ones(10)
    variances = []
    for size in (1, 16):
        task = quadratic(dimension=10, noise=3.0, workers=1, batch_size=size)
        gradients = jax.jit(jax.vmap(lambda n, t=task: jax.grad(t.loss)(params, batch(t, 0, n))))(jnp.arange(4000))
        expected = np.geomspace(0.1, 1, 10) * (1 - np.asarray(task.minimiser))
        np.testing.assert_allclose(gradients.mean(axis=0), expected, atol=5 * 3 / np.sqrt(4000 * size))
        variances.append(float(gradients.var(axis=0).mean()))
    np.testing.assert_allclose(variances, [9.0, 9.0 / 16], rtol=0.05)


def test_quadratic_minimiser_depends_on_neither_workers_nor_heterogeneity():
    tasks = [quadratic(dimension=6, workers=n, heterogeneity=h) for n, h in ((1, 0.0), (5, 0.0), (5, 3.0))]
    for task in tasks:
        np.testing.assert_array_equal(task.minimiser, tasks[0].minimiser)
        assert abs(float(task.evaluate(task.minimiser)["suboptimality"])) == 0
    np.testing.assert_array_equal(batch(tasks[1], 0)["centre"], batch(tasks[1], 4)["centre"])


def logistic_objective(task, workers, regularisation):
    """F as plain NumPy from each worker's samples, and all samples."""
    _, arrays, indices, sizes = task.batches.args
    features, labels = (np.asarray(arrays[name], np.float64) for name in ("features", "label"))
    held = [np.asarray(indices)[worker, : int(sizes[worker])] for worker in range(workers)]

    def value(point):
        losses = np.logaddexp(0, -(2 * labels - 1) * (features @ point))
        return np.mean([losses[mine].mean() for mine in held]) + regularisation / 2 * point @ point

    return value, features, labels, held


@pytest.mark.parametrize("workers", [4, 7])
def test_logistic_minimiser_is_that_of_the_mean_over_workers(x64, workers):
    task = logistic(dimension=3, samples=101, heterogeneity=0.5, regularisation=0.1, workers=workers, batch_size=4)
    value, features, labels, held = logistic_objective(task, workers, 0.1)
    found = minimize(value, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(task.minimiser, found.x, atol=1e-6)
    assert sorted(np.concatenate(held)) == list(range(101))
    point = np.array([0.3, -1.0, 2.0])
    measured = task.evaluate(jnp.asarray(point))
    np.testing.assert_allclose(measured["test_loss"], value(point), rtol=1e-12)
    np.testing.assert_allclose(measured["suboptimality"], value(point) - value(np.asarray(task.minimiser)), rtol=1e-9)
    right = (features @ point > 0) == (labels == 1)
    np.testing.assert_allclose(measured["test_accuracy"], np.mean([right[mine].mean() for mine in held]), rtol=1e-12)


def test_logistic_loss_over_all_samples_is_the_objective():
    task = logistic(dimension=3, samples=60, workers=1, batch_size=4)
    _, arrays, *_ = task.batches.args
    point = jnp.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(task.loss(point, arrays), task.evaluate(point)["test_loss"], rtol=1e-5)


def test_logistic_batches_are_unbiased():
    task = logistic(dimension=3, samples=60, heterogeneity=1.0, workers=4, batch_size=8)
    drawn = jax.jit(lambda params: mean_gradient(task, params, workers=4, draws=2000))(jnp.ones(3))
    _, arrays, *_ = task.batches.args
    np.testing.assert_allclose(drawn, jax.grad(task.loss)(jnp.ones(3), arrays), atol=0.02)


def test_logistic_objective_is_the_same_for_every_number_of_workers():
    tasks = [logistic(workers=n, heterogeneity=h) for n, h in ((1, 0.0), (2, 0.0), (16, 0.0), (16, 1.0))]
    for task in tasks[1:]:
        np.testing.assert_allclose(task.minimiser, tasks[0].minimiser, atol=1e-6)


def test_logistic_suboptimality_resolves_far_below_float32_of_the_loss():
    task = logistic(workers=1)
    near = task.minimiser + 1e-4 * jnp.ones(20)
    _, arrays, *_ = task.batches.args
    features = np.asarray(arrays["features"], np.float64)
    chances = 1 / (1 + np.exp(-features @ np.asarray(task.minimiser, np.float64)))
    hessian = (features.T * chances * (1 - chances)) @ features / len(features) + 0.01 * np.eye(20)
    step = np.asarray(near - task.minimiser, np.float64)
    np.testing.assert_allclose(task.evaluate(near)["suboptimality"], step @ hessian @ step / 2, rtol=0.2, atol=2e-9)
    assert abs(float(task.evaluate(task.minimiser)["suboptimality"])) < 1e-12


def test_heterogeneity_sorts_labels():
    def spread(share):
        task = logistic(workers=10, samples=1000, heterogeneity=share)
        _, _, labels, held = logistic_objective(task, 10, 0.01)
        assert np.ptp([len(mine) for mine in held]) <= 1
        return np.std([labels[mine].mean() for mine in held])

    assert spread(0.0) < 0.1 < spread(0.5) < spread(1.0)
    assert spread(1.0) > 0.4


@pytest.mark.parametrize("spec", ["quadratic:dimension=5", "logistic:dimension=5,samples=40"])
def test_batches_are_a_pure_function_of_key_worker_and_computation(spec):
    task = build_task(spec, workers=3, batch_size=4)
    changing = "noise" if spec.startswith("quadratic") else "features"
    first = batch(task, 1, 2)[changing]
    np.testing.assert_array_equal(first, jax.jit(task.batches)(KEY, 1, 2)[changing])
    for other in (batch(task, 2, 2), batch(task, 1, 3), batch(task, 1, 2, jax.random.key(8))):
        assert not np.array_equal(first, other[changing])
    assert {leaf.shape[0] for leaf in jax.tree.leaves(batch(task))} == {4}


def test_sgd_reaches_the_minimiser():
    task = quadratic(dimension=5, heterogeneity=1.0, noise=0.0, condition=2.0, workers=4)
    params = task.init(KEY)
    gradient = jax.jit(lambda params: mean_gradient(task, params, 4))
    for _ in range(30):
        params = params - 1.2 * gradient(params)
    np.testing.assert_allclose(params, task.minimiser, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("quadratic:dimension=0", "dimension=0 is out of range"),
        ("quadratic:noise=-1", "noise=-1 is out of range; use a finite number, 0 or more"),
        ("quadratic:noise=inf", "noise=inf is out of range"),
        ("quadratic:condition=0.5", "condition=0.5 is out of range"),
        ("quadratic:heterogeneity=nan", "not a number"),
        ("quadratic:samples=3", "unknown key 'samples'"),
        ("logistic:heterogeneity=1.5", "heterogeneity=1.5 is not a share; use 0 to 1"),
        ("logistic:regularisation=0", "regularisation=0 gives no unique minimiser"),
        ("logistic:samples=2", "samples=2 leaves some of 3 workers without one"),
    ],
)
def test_settings_out_of_range(spec, message):
    with pytest.raises(ValueError, match=message) as error:
        build_task(spec, workers=3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", [{"model": "2nn"}, {"pca": 3}, {"partition": "dirichlet:alpha=1"}])
def test_what_a_synthetic_task_has_no_use_for(setting):
    name = next(iter(setting))
    with pytest.raises(ValueError, match=f"dataset 'quadratic' is synthetic and has no {name}; leave {name}="):
        build_task("quadratic", workers=3, **setting)
