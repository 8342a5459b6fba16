"""Ready-made configurations, each with its command, its expected result with spread, and how long it takes.

Measured on two slow CPU cores that were not idle. A speed-up is `dybw` over `full`, of the mean iteration and to the
target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbwjax.experiments.config import TrainConfig


def quickstart() -> TrainConfig:
    """Handwritten digits that come with the package; no download.

    Command: `python -m dbwjax.train`
    """
    return TrainConfig(policies=("dybw", "fastest:k=6", "full:barrier=neighbours", "full"), seconds=240.0)


def mnist_lrm() -> TrainConfig:
    """MNIST, softmax regression, 6 workers.

    Command: `python -m dbwjax.train mnist-lrm --data-dir DIR`
    """
    return _six("mnist-lrm", "mnist", "lrm", seconds=300.0, learning_rate=0.5, target_accuracy=0.9)


def mnist_2nn() -> TrainConfig:
    """MNIST, two hidden layers of 256, 6 workers.

    Command: `python -m dbwjax.train mnist-2nn --data-dir DIR`
    """
    return _six("mnist-2nn", "mnist", "2nn", seconds=1000.0, seeds=3, learning_rate=0.4, target_accuracy=0.97)


def cifar10_lrm() -> TrainConfig:
    """CIFAR-10, softmax regression, 6 workers.

    Command: `python -m dbwjax.train cifar10-lrm --data-dir DIR`
    """
    return _six("cifar10-lrm", "cifar10", "lrm", seconds=1000.0, learning_rate=0.1, target_accuracy=0.38)


def cifar10_2nn() -> TrainConfig:
    """CIFAR-10, two hidden layers of 256, 6 workers.

    Command: `python -m dbwjax.train cifar10-2nn --data-dir DIR`
    """
    return _six("cifar10-2nn", "cifar10", "2nn", seconds=2500.0, seeds=3, learning_rate=0.1, target_accuracy=0.48)


def _six(preset: str, dataset: str, model: str, **settings: Any) -> TrainConfig:
    return TrainConfig(
        preset=preset,
        dataset=dataset,
        model=model,
        workers=6,
        graph="erdos_renyi:p=0.5",
        pca=256,
        batch_size=1024,
        **settings,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "quickstart": quickstart,
    "mnist-lrm": mnist_lrm,
    "mnist-2nn": mnist_2nn,
    "cifar10-lrm": cifar10_lrm,
    "cifar10-2nn": cifar10_2nn,
}
