from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dbwjax.tasks import from_arrays

KEY = jax.random.key(3)
COUNT = 23
TRAIN = {"x": np.arange(COUNT, dtype=np.float32)[:, None] * np.ones(2, np.float32), "label": np.arange(COUNT) % 3}


def loss(params, batch):
    return ((batch["x"] @ params - batch["label"]) ** 2).mean()


def init(key):
    return jax.random.normal(key, (2,))


def make(**settings):
    return from_arrays(loss, init, **{"train": TRAIN, "workers": 4, "batch_size": 5, **settings})


def draw(task, worker=0, started=0, key=KEY):
    return task.batches(key, jnp.asarray(worker), jnp.asarray(started))


def many(task, worker, draws=400):
    return jax.vmap(task.batches, (None, None, 0))(KEY, jnp.asarray(worker), jnp.arange(draws))


def test_batches_hold_the_workers_own_samples_only_and_all_of_them_evenly():
    parts = [np.arange(0, 3), np.arange(3, 13), np.arange(13, 14), np.arange(14, 23)]
    task = make(partition=parts)
    assert task.sizes.tolist() == [3, 10, 1, 9]
    for worker, part in enumerate(parts):
        drawn = many(task, worker)
        assert drawn["x"].shape == (400, 5, 2)
        rows = np.asarray(drawn["x"][..., 0]).astype(int)
        np.testing.assert_array_equal(drawn["label"], rows % 3)
        counts = np.bincount(rows.ravel(), minlength=COUNT)
        assert set(np.flatnonzero(counts)) == set(part)
        expected = rows.size / len(part)
        assert np.abs(counts[part] - expected).max() < 5 * np.sqrt(expected)


def test_drawn_with_replacement():
    rows = np.asarray(many(make(partition=[np.arange(6)], workers=1, batch_size=4), 0)["x"][..., 0])
    distinct = np.mean([len(set(row)) for row in rows])
    assert distinct == pytest.approx(6 * (1 - (5 / 6) ** 4), abs=0.15)


def test_batches_are_a_pure_function_of_key_worker_and_computation():
    task = make(batch_size=50)
    first = draw(task, 1, 2)["x"]
    np.testing.assert_array_equal(first, draw(make(batch_size=50), 1, 2)["x"])
    np.testing.assert_array_equal(
        first, jax.vmap(task.batches, (None, 0, 0))(KEY, jnp.arange(4), jnp.full(4, 2))["x"][1]
    )
    for other in (draw(task, 1, 3), draw(task, 1, 2, jax.random.key(4))):
        assert not np.array_equal(first, other["x"])


def test_a_node_that_is_no_worker_may_be_drawn_for():
    assert np.isfinite(draw(make(), 9)["x"]).all()


def test_two_builds_of_one_task_are_traced_once():
    traces = []

    @jax.jit
    def use(batches, evaluate, params):
        traces.append(1)
        return batches(KEY, 0, 0)["x"].sum() + evaluate(params)["test_loss"]

    for seed in (0, 1):
        task = make(seed=seed)
        use(task.batches, task.evaluate, jnp.ones(2))
    assert len(traces) == 1
    use(make(batch_size=6).batches, task.evaluate, jnp.ones(2))
    assert len(traces) == 2


def test_small_integers_stay_small_and_preprocess_sees_only_the_batch():
    train = {"x": np.arange(COUNT * 2, dtype=np.uint8).reshape(COUNT, 2), "label": TRAIN["label"]}
    double = Partial(lambda scale, batch: {**batch, "x": batch["x"] * scale}, jnp.asarray(2.0))
    task = make(train=train, preprocess=double)
    assert [leaf.dtype for leaf in jax.tree.leaves(task.batches) if leaf.shape == (COUNT, 2)] == [np.uint8]
    rows = np.asarray(draw(task)["x"])
    assert rows.dtype == np.float32
    assert (rows % 4 == [0, 2]).all()
    params = jnp.array([0.5, -0.25])
    expected = ((2.0 * train["x"] @ np.array([0.5, -0.25]) - train["label"]) ** 2).mean()
    np.testing.assert_allclose(task.evaluate(params)["test_loss"], expected, rtol=1e-5)
    with_function = make(train=train, preprocess=lambda batch: {**batch, "x": 2.0 * batch["x"]})
    np.testing.assert_array_equal(draw(with_function)["x"], rows)


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1700])
def test_evaluation_is_exact_whatever_the_number_of_blocks(count):
    rng = np.random.default_rng(count)
    test = {"x": rng.standard_normal((count, 2)).astype(np.float32), "label": rng.integers(0, 3, count)}
    task = make(test=test, metrics=lambda params, batch: {"positive": (batch["x"] @ params > 0).mean()})
    params = np.array([0.3, -0.7], np.float32)
    outputs = test["x"].astype(float) @ params.astype(float)
    measured = task.evaluate(jnp.asarray(params))
    assert set(measured) == {"test_loss", "test_positive"}
    np.testing.assert_allclose(measured["test_loss"], ((outputs - test["label"]) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(measured["test_positive"], (outputs > 0).mean(), rtol=1e-5)
    both = jax.vmap(task.evaluate)(jnp.stack([params, 2 * params]))
    np.testing.assert_allclose(both["test_loss"][0], measured["test_loss"], rtol=1e-5)


def test_sums_are_float32_whatever_is_returned():
    """Of 10,000 samples 9,300 are right; in bfloat16 the sum over blocks would say 0.9375."""
    right = np.arange(10_000) % 100 < 93
    test = {"x": right[:, None] * np.ones(2, np.float32), "label": np.zeros(10_000, int)}

    def share(params, batch):
        return batch["x"][:, 0].mean().astype(jnp.bfloat16)

    narrow = make(test=test, metrics=lambda params, batch: {"accuracy": share(params, batch), "ones": jnp.int8(1)})
    narrow = narrow.evaluate(jnp.ones(2))
    assert {value.dtype for value in narrow.values()} == {jnp.dtype("float32")}
    # Each block's mean is rounded by the metric itself: 0.93 is 0.9297 in bfloat16.
    assert float(narrow["test_accuracy"]) == pytest.approx(0.93, abs=5e-4)
    assert float(narrow["test_ones"]) == pytest.approx(1)
    loss_too = from_arrays(share, init, TRAIN, workers=4, batch_size=5, test=test).evaluate(jnp.ones(2))
    assert float(loss_too["test_loss"]) == pytest.approx(0.93, abs=5e-4)


def test_without_a_test_set_the_training_samples_are_measured():
    expected = ((TRAIN["x"] @ np.ones(2) - TRAIN["label"]) ** 2).mean()
    np.testing.assert_allclose(make().evaluate(jnp.ones(2))["test_loss"], expected, rtol=1e-5)


def test_labels_are_needed_by_class_partitions_only():
    bare = {"x": TRAIN["x"]}
    make = partial(from_arrays, lambda params, batch: jnp.mean(batch["x"] @ params), init, workers=4, batch_size=5)
    assert make(train=bare).sizes.sum() == COUNT
    with pytest.raises(ValueError, match="'shards' divides by class; pass labels="):
        make(train=bare, partition="shards")
    targets = {"x": TRAIN["x"], "label": np.linspace(0, 1, COUNT)}
    assert make(train=targets).sizes.sum() == COUNT
    with pytest.raises(ValueError, match="are not classes"):
        make(train=targets, partition="shards")
    assert make(train=bare, partition="shards", labels=TRAIN["label"]).sizes.sum() == COUNT
    assert make(train=TRAIN, partition="shards").sizes.sum() == COUNT


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 is out of range; use 1 or more"),
        ({"workers": 0}, "workers=0 is out of range; use 1 or more"),
        ({"workers": 24}, "workers=24 is more than the 23 samples"),
        ({"train": {}}, "train must be arrays"),
        ({"train": {"x": np.float32(1)}}, "train must be arrays"),
        ({"train": {"x": np.ones((3, 2)), "y": np.ones(4)}}, "arrays of 3 and 4 samples"),
        ({"train": {"x": np.ones((0, 2))}}, "train has no samples"),
        ({"test": {"x": np.ones((0, 2)), "label": np.ones(0)}}, "test has no samples"),
        ({"test": {"x": np.ones((3, 2))}}, "test must look like train"),
        ({"test": {"x": np.ones((3, 5)), "label": np.ones(3, int)}}, "test must look like train"),
        ({"labels": np.zeros(5, int)}, r"labels of shape \(5,\) do not name one class for each of 23"),
        ({"partition": "dirichlet:alpha=-1"}, "alpha=-1"),
        ({"partition": [np.arange(3)]}, "for 1 workers, not for 4"),
        ({"partition": [np.arange(3), [], [1], [2]]}, "gives worker 1 no list of sample numbers"),
        ({"partition": [[0], [1], [2], [23]]}, "worker 3 a sample that is not there; use 0 to 22"),
        ({"partition": [[0], [-1], [2], [3]]}, "worker 1 a sample that is not there"),
    ],
)
def test_what_cannot_be_a_task(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        make(**settings)
    assert "\n" not in str(error.value)
