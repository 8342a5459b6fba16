"""Principal components of the training images, for tasks with few features (`--pca`). Host side, NumPy and SciPy."""

from __future__ import annotations

import numpy as np

_BLOCK = 2000  # rows turned to floats at a time


def project(train: np.ndarray, test: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in the first `components` principal components of the training set.

    Pixels are centred by the training means, projected, and divided by one common number, such that the mean variance
    of the training features is 1 (no whitening: the first features stay the largest). The covariance is summed in
    float64 from float32 block products. A component points the way in which its largest entry is positive.

    Args:
      train: [n, F] uint8.
      test: [m, F] uint8.
      components: K.

    Returns:
      [n, K] and [m, K] float32.

    Raises:
      ValueError: `components` not in 1 to F, or training images that are all the same.
    """
    from scipy.linalg import eigh

    features = train.shape[1]
    if not 1 <= components <= features:
        raise ValueError(f"pca={components} components of {features} features cannot be had; use 1 to {features}")
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = np.zeros((features, features))
    for start in range(0, len(train), _BLOCK):
        block = train[start : start + _BLOCK].astype(np.float32) - mean
        covariance += block.T @ block
    covariance /= len(train)
    variances, axes = eigh(covariance, subset_by_index=(features - components, features - 1), driver="evr")
    variances, axes = variances[::-1], axes[:, ::-1]
    if not variances[0] > 0:
        raise ValueError("pca has nothing to find: all training images are the same")
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * (np.sign(axes[largest, np.arange(components)]) / np.sqrt(variances.mean()))
    return _apply(train, mean, axes), _apply(test, mean, axes)


def _apply(images: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    axes = axes.astype(np.float32)
    projected = np.empty((len(images), axes.shape[1]), np.float32)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        projected[block] = (images[block].astype(np.float32) - mean) @ axes
    return projected
