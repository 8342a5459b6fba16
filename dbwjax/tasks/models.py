"""The models of the image tasks, in Flax: the table `MODELS`. A user's own model needs no row here, see `from_arrays`.

A model is a pair of pure functions over one worker's parameters; the engine maps them over workers. Images arrive as
flat rows `[B, F]`, which is how they are stored; only the convolutional net gives them their shape back. Flax is
imported when a model is built, not with this module.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dbwjax import specs
from dbwjax.types import Key


class Model(NamedTuple):
    """A pair of pure functions: one worker's parameters, and what they make of images."""

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array], Array]  # (params, images [B, F]) -> logits [B, classes]


class Classifier(NamedTuple):
    """A model with its loss and its metrics over a batch `{"image": [B, F], "label": [B]}`."""

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, PyTree], Array]  # mean cross entropy, ()
    metrics: Callable[[PyTree, PyTree], dict[str, Array]]  # {"accuracy": ()}


def lrm(input_shape: tuple[int, ...], classes: int) -> Any:
    """Softmax regression: one linear layer, a convex loss."""
    from flax import linen as nn

    return nn.Dense(classes)


def two_layers(input_shape: tuple[int, ...], classes: int) -> Any:
    """Two hidden layers of 256 with ReLU."""
    from flax import linen as nn

    return nn.Sequential([nn.Dense(256), nn.relu, nn.Dense(256), nn.relu, nn.Dense(classes)])


def cnn(input_shape: tuple[int, ...], classes: int) -> Any:
    """Two 3x3 convolutions (32, 64 channels), each with group norm, ReLU and 2x2 max pooling; then 128 hidden units.

    Group norm has no running statistics, so that a worker's parameters are all of its state.

    Raises:
      ValueError: the input is not an image of at least 4 by 4 pixels.
    """
    from flax import linen as nn

    if len(input_shape) != 3 or min(input_shape[:2]) < 4:
        raise ValueError(
            f"it convolves images of at least 4 x 4 pixels, not inputs of shape {input_shape}; "
            "use lrm or 2nn (or no PCA)"
        )

    layers: list[Callable[[Array], Array]] = [lambda x: x.reshape(x.shape[0], *input_shape)]
    for channels in (32, 64):
        convolution = nn.Conv(channels, (3, 3), conv_general_dilated=_convolve)
        layers += [convolution, nn.GroupNorm(num_groups=8), nn.relu, _max_pool]
    layers += [lambda x: x.reshape(x.shape[0], -1), nn.Dense(128), nn.relu, nn.Dense(classes)]
    return nn.Sequential(layers)


MODELS: dict[str, Callable[..., Any]] = {"lrm": lrm, "2nn": two_layers, "cnn": cnn}


@functools.cache
def build_model(name: str, input_shape: tuple[int, ...], classes: int) -> Model:
    """The model that `name` stands for in `MODELS`; the same functions for the same arguments, so that jit traces once.

    Args:
      name: a row of `MODELS`.
      input_shape: of one input; `(H, W, C)` for images, `(F,)` for features.
      classes: how many logits.

    Raises:
      ValueError: an unknown name, or a model that does not fit the input.
    """
    module = specs.build(name, MODELS, "model", input_shape, classes)
    features = math.prod(input_shape)

    def init_fn(key: Key) -> PyTree:
        return module.init(key, jnp.zeros((1, features), jnp.float32))["params"]

    def apply_fn(params: PyTree, images: Float[Array, "B F"]) -> Float[Array, "B classes"]:
        return module.apply({"params": params}, images)

    return Model(init_fn, apply_fn)


@functools.cache
def classifier(name: str, input_shape: tuple[int, ...], classes: int) -> Classifier:
    """`build_model` with mean cross entropy as its loss and accuracy as its metric. Raises the same errors."""
    from optax import losses

    model = build_model(name, input_shape, classes)

    def loss_fn(params: PyTree, batch: dict[str, Array]) -> Array:
        logits = model.apply(params, batch["image"])
        return losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def metrics_fn(params: PyTree, batch: dict[str, Array]) -> dict[str, Array]:
        hits = model.apply(params, batch["image"]).argmax(axis=-1) == batch["label"]
        return {"accuracy": hits.mean(dtype=jnp.float32)}

    # One program for all layers: run layer by layer they are some twenty, and take 1.4 to 1.7 times as long to compile.
    return Classifier(jax.jit(model.init), loss_fn, metrics_fn)


def _convolve(images: Array, kernel: Array, *args: Any, **settings: Any) -> Array:
    """A 3 x 3, stride-1, same-padded convolution as one matrix product, in the place of `lax.conv_general_dilated`.

    Mapped over workers, each with a kernel of its own, a convolution becomes a grouped one, which takes two to three
    times as long on a CPU as the batched matrix product that this becomes.
    """
    del args, settings  # of nn.Conv's settings only those in the docstring are used here
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    flat = kernel.reshape(-1, kernel.shape[-1])
    return jax.lax.dot_general(jnp.concatenate(shifted, axis=-1), flat, (((3,), (0,)), ((), ())))


def _max_pool(images: Array) -> Array:
    """The largest of every 2 x 2 pixels; by reshaping, because the gradient of a windowed maximum is slow on CPU."""
    count, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
