"""The synthetic task `least_squares`: linear regression, whose minimiser is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from dbwjax import numbers
from dbwjax.limits import require_count
from dbwjax.tasks.convex import squares_objectives, squares_oracle
from dbwjax.tasks.synthetic import Zeros, at_least, counts
from dbwjax.tasks.task import Task, from_arrays
from dbwjax.types import Squares


def least_squares(
    *,
    dimension: int = 20,
    samples: int = 5040,
    heterogeneity: float = 1.0,
    noise: float = 1.0,
    condition: float = 10.0,
    workers: int,
    batch_size: int = 32,
    seed: int = 0,
) -> Task:
    """Worker i minimises `f_i(x) = |X_i x - y_i|^2 / (2 n_i)`, of `n_i` samples, through batches of them.

    A row of X is a normal vector whose covariance is diagonal with eigenvalues spread geometrically from `1 /
    condition` to 1 (the samples' own condition is a little larger). `y_i = X_i (b + heterogeneity * z_i)` plus `noise`
    times a standard normal number each; `b` and `z_i` are standard normal, and the `z_i` sum to zero. Samples are dealt
    out in shares that differ by one at most. Features and noise depend on `dimension`, `samples` and `seed` only.
    Parameters start at zero.

    What the workers minimise is the mean of their objectives, so that of two shares the smaller weighs as much.

    Args:
      dimension: d.
      samples: n, over all workers; the default is divisible by every N up to 10, and by 16.
      heterogeneity: standard deviation of what generates each worker's targets, per coordinate.
      noise: standard deviation of a target.
      condition: largest over smallest eigenvalue of the features' covariance.
      workers: N.
      batch_size: B.
      seed: of the data.

    Returns:
      A task; `evaluate` gives `test_loss`, the mean objective F over all samples, and `suboptimality`, F minus its
      minimum.

    Raises:
      ValueError: sizes below 1, `condition` below 1, `heterogeneity` or `noise` negative, any of them not finite; fewer
        samples than `dimension` for a worker; data that do not fit the memory.
    """
    dimension, samples = counts(seed, dimension=dimension, samples=samples)
    workers, batch_size = counts(seed, workers=workers, batch_size=batch_size)
    at_least(1, condition=condition)
    at_least(0, heterogeneity=heterogeneity, noise=noise)
    if samples < workers * dimension:
        raise ValueError(
            f"samples={samples} leaves some of {workers} workers with fewer than dimension={dimension}, whose least "
            f"squares would have no unique solution; use at least {workers * dimension}"
        )
    numbers.require(f"condition={condition:g}: 1 / condition", 1 / condition)
    require_count("samples", samples, lambda count: 32.0 * count * (dimension + 4), f" of {dimension} features")
    require_count("workers", workers, lambda count: 24.0 * count * dimension**2, f" and their {dimension} eigenvectors")
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(dimension)
    features = rng.standard_normal((samples, dimension)) * np.sqrt(np.geomspace(1 / condition, 1, dimension))
    error = noise * rng.standard_normal(samples)
    offsets = rng.standard_normal((workers, dimension))
    truths = truth + heterogeneity * (offsets - offsets.mean(axis=0))
    parts = np.array_split(np.arange(samples), workers)
    target = np.concatenate([features[part] @ own for part, own in zip(parts, truths, strict=True)]) + error
    weights = np.concatenate([np.full(len(part), 1 / (workers * len(part))) for part in parts])
    return _task(features, target, parts, weights, batch_size)


def _task(
    features: np.ndarray, target: np.ndarray, parts: list[np.ndarray], weights: np.ndarray, batch_size: int
) -> Task:
    """The task on these samples; `weights [n]` is what each counts for in the mean objective."""
    hessian = (features.T * weights) @ features
    best = np.linalg.solve(hessian, features.T @ (weights * target))
    lowest = float(weights @ (features @ best - target) ** 2 / 2)
    numbers.require("noise and heterogeneity: the least mean objective", lowest)
    task = from_arrays(
        squared_loss,
        Zeros(features.shape[1]),
        Squares(features, target),  # type: ignore[arg-type]  # on the host
        workers=len(parts),
        batch_size=batch_size,
        partition=parts,
        name="least_squares",
    )
    _, arrays, indices, sizes = task.batches.args  # type: ignore[attr-defined]  # a Partial
    minimiser = jnp.asarray(best)
    return task._replace(
        evaluate=Partial(_evaluate, jnp.asarray(hessian), minimiser, jnp.asarray(lowest)),
        minimiser=minimiser,
        objectives=squares_objectives(arrays.features, arrays.target, indices, sizes),
        oracle=squares_oracle,
    )


def squared_loss(params: Float[Array, " d"], batch: Squares) -> Array:
    """The mean of `(features @ params - target)^2 / 2` over a batch."""
    return ((batch.features @ params - batch.target) ** 2).mean() / 2


@jax.jit
def _evaluate(hessian: Array, best: Array, lowest: Array, params: Array) -> dict[str, Array]:
    # Not the difference of two means, which would drown in rounding near the minimum.
    above = 0.5 * (params - best) @ jnp.matmul(hessian, params - best, precision=jax.lax.Precision.HIGHEST)
    return {"test_loss": lowest + above, "suboptimality": above}
