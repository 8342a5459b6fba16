"""The table `DATASETS`, the image data sets behind it, and `build_task`, which the command line calls.

Images are kept as flat uint8 rows, on the host and on the device, a quarter of the size of floats; each batch is
standardised by the training set's mean and deviation per channel in the same pass that gathers it.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from dbwjax import specs
from dbwjax.files import read_arrays
from dbwjax.tasks import tfds_folder
from dbwjax.tasks.cache import cached
from dbwjax.tasks.least_squares import least_squares
from dbwjax.tasks.models import classifier
from dbwjax.tasks.pca import project
from dbwjax.tasks.synthetic import logistic, quadratic
from dbwjax.tasks.task import Task, from_arrays

IMAGES = ("mnist", "fashion_mnist", "cifar10")
"""The data sets that are read from a TFDS folder."""

_FORMAT = "1"  # of the cached arrays; another number makes them anew
_BLOCK = 4096  # images summed up at a time


class ImageData(NamedTuple):
    """An image data set in memory."""

    train_images: np.ndarray  # [n, F] uint8, F = H * W * C; after PCA [n, K] float32
    train_labels: np.ndarray  # [n] int32
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: np.ndarray  # [C] of the training pixels, float64
    deviation: np.ndarray  # [C]
    shape: np.ndarray  # (H, W, C); after PCA (K,)


def load(name: str, data_dir: str | None = None, pca: int | None = None) -> ImageData:
    """An image data set, from the package (`digits`), the cache or the TFDS folder.

    Args:
      name: `digits` or one of `IMAGES`.
      data_dir: the TFDS folder; default TFDS_DATA_DIR, else `~/tensorflow_datasets`. Not read for `digits`.
      pca: project onto this many principal components of the training images (`dbwjax.tasks.pca`).

    Raises:
      ValueError: the data set is not prepared there or damaged, or `pca` is not 1 to F.
    """
    if name == "digits":
        data = _digits()
        return data if pca is None else _projected(data, pca)
    folder = tfds_folder.find(name, data_dir)
    key = f"{name}-{tfds_folder.fingerprint(folder)}-{_FORMAT}"

    def read() -> dict[str, np.ndarray]:
        return _read(folder)._asdict()

    if pca is None:
        return ImageData(**cached(key, read))
    return ImageData(**cached(f"{key}-pca{pca}", lambda: _projected(ImageData(**cached(key, read)), pca)._asdict()))


def _digits() -> ImageData:
    """1,797 images of 8 x 8 pixels in 17 grey levels; 1,437 to train, 360 to test, by a shuffle kept in the file.

    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998, doi
    10.24432/C50P49 (CC BY 4.0), in the form in which scikit-learn ships it.
    """
    kept = read_arrays(Path(__file__).parent / "digits.npz", "install dbwjax again")
    images, labels, order = kept["images"], kept["labels"], kept["order"]
    train, test = order[:1437], order[1437:]
    return _described(images[train], labels[train], images[test], labels[test], (8, 8, 1))


def _read(folder: Path) -> ImageData:
    train, test = tfds_folder.read(folder, "train"), tfds_folder.read(folder, "test")
    flat = [images.reshape(len(images), -1) for images in (train[0], test[0])]
    return _described(flat[0], train[1], flat[1], test[1], train[0].shape[1:])


def _described(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    shape: tuple[int, ...],
) -> ImageData:
    """Adds the training pixels' mean and deviation per channel, exact: sums of integers in float64."""
    totals = np.zeros((2, shape[-1]))
    for start in range(0, len(train_images), _BLOCK):
        pixels = train_images[start : start + _BLOCK].reshape(-1, shape[-1]).astype(np.float64)
        totals += [pixels.sum(axis=0), np.square(pixels).sum(axis=0)]
    mean, square = totals / (train_images.size / shape[-1])
    labels = train_labels.astype(np.int32), test_labels.astype(np.int32)
    return ImageData(
        train_images, labels[0], test_images, labels[1], mean, np.sqrt(square - mean**2), np.array(shape, np.int64)
    )


def _projected(data: ImageData, components: int) -> ImageData:
    train, test = project(data.train_images, data.test_images, components)
    return data._replace(train_images=train, test_images=test, shape=np.array([components], np.int64))


_ABOUT = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels that come with the package (UCI, Alpaydin and Kaynak 1998).",
    "mnist": "60,000 + 10,000 handwritten digits of 28 x 28 pixels, through TFDS (LeCun, Cortes, Burges 2010).",
    "fashion_mnist": "60,000 + 10,000 pictures of clothes of 28 x 28 pixels, through TFDS (Xiao et al. 2017).",
    "cifar10": "50,000 + 10,000 colour pictures of 32 x 32 pixels, through TFDS (Krizhevsky 2009).",
}


def _image_task(name: str) -> Callable[..., Task]:
    """The builder of one image data set's row in `DATASETS`; its arguments are those of `build_task`."""

    def build(
        *,
        model: str | None = None,
        workers: int,
        partition: str = "iid",
        batch_size: int = 32,
        seed: int = 0,
        pca: int | None = None,
        data_dir: str | None = None,
    ) -> Task:
        data = load(name, data_dir, pca)
        shape = tuple(int(side) for side in data.shape)
        classes = int(data.train_labels.max()) + 1
        learned = classifier("2nn" if model is None else model, shape, classes)
        return from_arrays(
            learned.loss,
            learned.init,
            {"image": data.train_images, "label": data.train_labels},
            workers=workers,
            batch_size=batch_size,
            partition=partition,
            test={"image": data.test_images, "label": data.test_labels},
            metrics=learned.metrics,
            seed=seed,
            preprocess=_standardiser(data) if pca is None else None,
            name=name,
        )

    build.__doc__ = _ABOUT[name]
    return build


def _standardiser(data: ImageData) -> Partial:
    """`batch -> batch` with mean 0 and deviation 1 per channel, as one multiplication and one addition per pixel."""
    pixels = data.train_images.shape[1] // len(data.mean)
    scale, shift = np.tile([1 / data.deviation, -data.mean / data.deviation], pixels).astype(np.float32)
    return Partial(_standardise, jnp.asarray(scale), jnp.asarray(shift))


def _standardise(scale: Array, shift: Array, batch: dict[str, Array]) -> dict[str, Array]:
    return {**batch, "image": batch["image"].astype(jnp.float32) * scale[None, :] + shift[None, :]}


DATASETS: dict[str, Callable[..., Task]] = {
    **{name: _image_task(name) for name in ("digits", *IMAGES)},
    "quadratic": quadratic,
    "logistic": logistic,
    "least_squares": least_squares,
}

WITHOUT_ACCURACY = ("quadratic", "least_squares")
"""The data sets in which nothing is classified."""

CONTEXT = ("model", "workers", "partition", "batch_size", "seed", "pca", "data_dir")
"""The arguments of `build_task` that reach a builder beside its SPEC; `specs.describe` leaves them out."""


def build_task(
    dataset: str,
    *,
    model: str | None = None,
    workers: int,
    partition: str = "iid",
    batch_size: int = 32,
    seed: int = 0,
    pca: int | None = None,
    data_dir: str | None = None,
) -> Task:
    """A task from the words of the command line.

    Args:
      dataset: a SPEC of `DATASETS`: an image data set, or `quadratic:noise=0.1` and the like.
      model: a row of `MODELS`; default `2nn`. Synthetic tasks have none.
      workers: N.
      partition: a SPEC of `PARTITIONS`. Synthetic tasks set their own `heterogeneity=` instead.
      batch_size: B, samples of one computation.
      seed: of the partition and of synthetic data; not of batches and parameters, which are drawn from keys.
      pca: number of principal components to learn from; default: the pixels.
      data_dir: the TFDS folder; default TFDS_DATA_DIR, else `~/tensorflow_datasets`.

    Raises:
      ValueError: unknown names, values out of range, a data set that is not prepared, a partition that leaves a worker
        without samples, or a setting that the data set has no use for.
    """
    given = (model, workers, partition, batch_size, seed, pca, data_dir)
    context = dict(zip(CONTEXT, given, strict=True))
    name, _ = specs.parse(dataset)
    takes = signature(DATASETS[name]).parameters if name in DATASETS else context
    for key, default in (("model", None), ("pca", None), ("partition", "iid")):
        if context[key] != default and key not in takes:
            raise ValueError(f"dataset '{name}' is synthetic and has no {key}; leave {key}={context[key]} out")
    return specs.build(dataset, DATASETS, "dataset", **context)
