import subprocess
import sys
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dbwjax.tasks.models import _convolve, _max_pool, build_model, classifier


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("lrm", (28, 28, 1), 784 * 10 + 10),
        ("2nn", (28, 28, 1), 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
        ("2nn", (50,), 50 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
        ("cnn", (8, 8, 1), 9 * 32 + 32 + 64 + 9 * 32 * 64 + 64 + 128 + 2 * 2 * 64 * 128 + 128 + 128 * 10 + 10),
        ("cnn", (9, 7, 3), 27 * 32 + 32 + 64 + 9 * 32 * 64 + 64 + 128 + 2 * 1 * 64 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_parameters_and_logits(name, shape, parameters):
    model = build_model(name, shape, 10)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert size(params) == parameters
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    images = jax.ShapeDtypeStruct((3, int(np.prod(shape))), jnp.float32)
    assert jax.eval_shape(model.apply, params, images).shape == (3, 10)


def test_2nn_is_two_relu_layers():
    model = build_model("2nn", (6,), 4)
    params = model.init(jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    value = images
    layers = [jax.tree.map(np.asarray, params[name]) for name in sorted(params)]
    for depth, layer in enumerate(layers):
        value = value @ layer["kernel"] + layer["bias"]
        value = np.maximum(value, 0) if depth < 2 else value
    np.testing.assert_allclose(model.apply(params, images), value, rtol=1e-4, atol=1e-5)


def test_convolution_is_lax_convolution():
    images = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    expected = lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    np.testing.assert_allclose(_convolve(images, kernel), expected, rtol=1e-4, atol=1e-4)


def test_pooling_takes_the_largest_of_four_and_drops_odd_edges():
    images = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    expected = np.stack(
        [[images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(3)] for i in (0, 1)]
    )
    np.testing.assert_array_equal(_max_pool(jnp.asarray(images)), expected.transpose(2, 0, 1, 3))


def test_loss_and_accuracy_are_the_textbook_ones():
    learned = classifier("lrm", (6,), 4)
    params = learned.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    batch = {"image": rng.standard_normal((9, 6)).astype(np.float32), "label": rng.integers(0, 4, 9).astype(np.int32)}
    logits = np.asarray(batch["image"], np.float64) @ np.asarray(params["kernel"], np.float64)
    logits += np.asarray(params["bias"])
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(9), batch["label"]]
    np.testing.assert_allclose(learned.loss(params, batch), losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(learned.metrics(params, batch)["accuracy"], (logits.argmax(1) == batch["label"]).mean())


def test_mapped_over_workers_as_one_by_one():
    learned = classifier("cnn", (4, 4, 1), 10)
    params = jax.jit(jax.vmap(learned.init))(jax.random.split(jax.random.key(0), 2))
    batch = {"image": jax.random.normal(jax.random.key(1), (2, 4, 16)), "label": jnp.arange(8).reshape(2, 4)}
    gradient = jax.jit(jax.grad(learned.loss))
    stacked = jax.jit(jax.vmap(jax.grad(learned.loss)))(params, batch)
    alone = [gradient(*jax.tree.map(itemgetter(worker), (params, batch))) for worker in range(2)]
    one_by_one = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), stacked, one_by_one)


def test_the_same_words_give_the_same_functions():
    assert classifier("2nn", (8, 8, 1), 10) is classifier("2nn", (8, 8, 1), 10)
    assert build_model("2nn", (8, 8, 1), 10).apply is build_model("2nn", (8, 8, 1), 10).apply


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("2n", (8, 8, 1), "unknown model '2n'; did you mean '2nn'"),
        ("cnn", (64,), "not inputs of shape \\(64,\\); use lrm or 2nn"),
        ("cnn", (3, 8, 1), "at least 4 x 4 pixels"),
        ("lrm:width=3", (8, 8, 1), "unknown key 'width'"),
    ],
)
def test_models_that_do_not_fit(name, shape, message):
    with pytest.raises(ValueError, match=message) as error:
        build_model(name, shape, 10)
    assert "\n" not in str(error.value)


def test_importing_the_room_imports_no_heavy_library():
    heavy = {"flax", "optax", "tensorflow_datasets", "PIL", "scipy.linalg", "sklearn"}
    code = (
        f"import jax, sys; before = set(sys.modules); import dbwjax.tasks; print({heavy} & (set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
