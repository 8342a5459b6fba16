"""Ready-made configurations, each with its command, its expected result with spread, and how long it takes.

The times are of two slow CPU cores; the spreads are over seeds 0, 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

from dbwjax.experiments.config import TrainConfig


def quickstart() -> TrainConfig:
    """Handwritten digits that come with the package; no download.

    Command: `python -m dbwjax.train`

    EXPECTED: to be measured
    """
    return TrainConfig()


def mnist_lrm() -> TrainConfig:
    """MNIST, softmax regression, 6 workers: the setting of arXiv 2102.06280, section 5.

    Command: `python -m dbwjax.train mnist-lrm --data-dir DIR`

    EXPECTED: to be measured
    """
    return _paper("mnist-lrm", "mnist", "lrm", steps=500, learning_rate=0.5, target_accuracy=0.9)


def mnist_2nn() -> TrainConfig:
    """MNIST, two hidden layers of 256, 6 workers: the setting of arXiv 2102.06280, section 5.

    Command: `python -m dbwjax.train mnist-2nn --data-dir DIR`

    EXPECTED: to be measured
    """
    return _paper("mnist-2nn", "mnist", "2nn", steps=1000, learning_rate=0.4, target_accuracy=0.97)


def cifar10_lrm() -> TrainConfig:
    """CIFAR-10, softmax regression, 6 workers: the setting of arXiv 2102.06280, section 5.

    Command: `python -m dbwjax.train cifar10-lrm --data-dir DIR`

    EXPECTED: to be measured
    """
    return _paper("cifar10-lrm", "cifar10", "lrm", steps=500, learning_rate=0.1, target_accuracy=0.38)


def cifar10_2nn() -> TrainConfig:
    """CIFAR-10, two hidden layers of 256, 6 workers: the setting of arXiv 2102.06280, section 5.

    Command: `python -m dbwjax.train cifar10-2nn --data-dir DIR`

    EXPECTED: to be measured
    """
    return _paper("cifar10-2nn", "cifar10", "2nn", steps=1000, learning_rate=0.1, target_accuracy=0.48)


def _paper(preset: str, dataset: str, model: str, **settings: float) -> TrainConfig:
    return TrainConfig(
        preset=preset,
        dataset=dataset,
        model=model,
        workers=6,
        graph="erdos_renyi:p=0.5",
        pca=256,
        batch_size=1024,
        **settings,  # type: ignore[arg-type]
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "quickstart": quickstart,
    "mnist-lrm": mnist_lrm,
    "mnist-2nn": mnist_2nn,
    "cifar10-lrm": cifar10_lrm,
    "cifar10-2nn": cifar10_2nn,
}
