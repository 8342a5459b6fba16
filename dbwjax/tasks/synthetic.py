"""Synthetic tasks whose minimiser is known, for measuring convergence: `quadratic` and `logistic`.

Both report how far an objective value is from the best one, and both say how much the workers' objectives disagree
(`heterogeneity`). What N workers minimise is the plain mean of their objectives.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from dbwjax import numbers
from dbwjax.limits import real, require_count, whole
from dbwjax.tasks.convex import (
    logistic_objectives,
    logistic_oracle,
    quadratic_objectives,
    quadratic_oracle,
)
from dbwjax.tasks.task import Task, from_arrays
from dbwjax.types import Key

_NEWTON_STEPS = 100
_SIGNAL = 3.0  # length of the logistic model's true weights: about four labels in five can be predicted


def quadratic(
    *,
    dimension: int = 100,
    heterogeneity: float = 1.0,
    noise: float = 1.0,
    condition: float = 10.0,
    workers: int,
    batch_size: int = 32,
    seed: int = 0,
) -> Task:
    """Worker i minimises `f_i(x) = (x - b_i)' A (x - b_i) / 2`, seen through noisy gradients.

    `A` is diagonal with eigenvalues spread geometrically from `1 / condition` to 1. The centres are `b_i = b +
    heterogeneity * z_i`, `b` and `z_i` standard normal with the `z_i` made to sum to zero, so that the minimiser of the
    mean is `b` for every N and every heterogeneity. A sample's gradient is that of `f_i` plus `noise` times a standard
    normal vector; a batch averages `batch_size` of them. Parameters start at zero.

    Args:
      dimension: d.
      heterogeneity: standard deviation of the centres, per coordinate.
      noise: standard deviation of one sample's gradient, per coordinate.
      condition: largest over smallest eigenvalue.
      workers: N.
      batch_size: B.
      seed: of the centres.

    Returns:
      A task; `evaluate` gives `test_loss`, the mean objective F, and `suboptimality`, F minus its minimum.

    Raises:
      ValueError: `dimension`, `workers`, `batch_size` or `condition` below 1, `heterogeneity` or `noise` negative, any
        of them not finite; centres that do not fit the memory.
    """
    dimension, workers, batch_size = counts(seed, dimension=dimension, workers=workers, batch_size=batch_size)
    at_least(1, condition=condition)
    at_least(0, heterogeneity=heterogeneity, noise=noise)
    require_count("dimension", dimension, lambda count: 32.0 * workers * count, f" of {workers} workers")
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(dimension)
    offsets = rng.standard_normal((workers, dimension))
    centres = centre + heterogeneity * (offsets - offsets.mean(axis=0))
    curvature = np.geomspace(1 / condition, 1, dimension)
    lowest = 0.5 * (curvature * (centres - centre) ** 2).sum(axis=1).mean()
    numbers.require(f"condition={condition:g}: 1 / condition", 1 / condition)
    numbers.require(f"heterogeneity={heterogeneity:g}: the least mean objective", float(lowest))
    diagonal, best = jnp.asarray(curvature), jnp.asarray(centre)
    return Task(
        name="quadratic",
        init=Zeros(dimension),
        loss=_quadratic_loss,
        batches=Partial(_QuadraticDraw(batch_size), diagonal, jnp.asarray(centres), jnp.asarray(float(noise))),
        evaluate=Partial(_quadratic_evaluate, diagonal, best, jnp.asarray(lowest)),
        sizes=np.ones(workers, np.int32),
        minimiser=best,
        objectives=quadratic_objectives(diagonal, jnp.asarray(centres)),
        oracle=quadratic_oracle,
    )


@dataclass(frozen=True)
class Zeros:
    """`init` of a task whose parameters start at zero."""

    dimension: int

    def __call__(self, key: Key) -> Array:  # noqa: D102
        del key
        return jnp.zeros(self.dimension)


@dataclass(frozen=True)
class _QuadraticDraw:
    batch_size: int

    def __call__(
        self, curvature: Array, centres: Array, noise: Array, key: Key, worker: Array, started: Array
    ) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.fold_in(key, worker), started)
        shape = (self.batch_size, curvature.shape[0])
        return {
            "curvature": jnp.broadcast_to(curvature, shape),
            "centre": jnp.broadcast_to(centres.at[worker].get(mode="clip"), shape),
            "noise": noise * jax.random.normal(key, shape, centres.dtype),
        }


def _quadratic_loss(params: Float[Array, " d"], batch: dict[str, Float[Array, "B d"]]) -> Array:
    """A sample's loss is `f_i(x) + noise . (x - b_i)`: its expectation is `f_i`, its gradient f_i's plus the noise."""
    away = params[None, :] - batch["centre"]
    return (0.5 * batch["curvature"] * away**2 + batch["noise"] * away).sum(axis=1).mean()


@jax.jit
def _quadratic_evaluate(curvature: Array, best: Array, lowest: Array, params: Array) -> dict[str, Array]:
    above = 0.5 * (curvature * (params - best) ** 2).sum()
    return {"test_loss": lowest + above, "suboptimality": above}


def logistic(
    *,
    dimension: int = 20,
    samples: int = 5040,
    heterogeneity: float = 0.0,
    regularisation: float = 0.01,
    workers: int,
    batch_size: int = 32,
    seed: int = 0,
) -> Task:
    """Logistic regression with an l2 term on one synthetic data set, divided among the workers.

    Features are standard normal, labels are drawn from a logistic model with weights of length 3. The data depend on
    `dimension`, `samples` and `seed` only, so N = 1, 2, 4, ... workers minimise the same function wherever N divides
    `samples`; otherwise a sample of a smaller share weighs a little more, as it does in the mean over workers.
    Parameters start at zero; the minimiser comes from Newton's method in float64.

    Args:
      dimension: d.
      samples: n, over all workers; the default is divisible by every N up to 10, and by 16.
      heterogeneity: the share of the samples that is dealt out sorted by label: 0 is iid, 1 one class for most workers.
      regularisation: l2 coefficient; the term is `regularisation / 2 * |w|^2`.
      workers: N.
      batch_size: B.
      seed: of data and division.

    Returns:
      A task; `evaluate` gives `test_loss`, the mean objective F over all samples, `suboptimality`, F minus its minimum,
      and `test_accuracy` on the same samples.

    Raises:
      ValueError: sizes below 1, fewer samples than workers, `heterogeneity` outside [0, 1], `regularisation` not above
        0 or so small that Newton's method finds no minimiser; data that do not fit the memory.
    """
    dimension, samples = counts(seed, dimension=dimension, samples=samples)
    workers, batch_size = counts(seed, workers=workers, batch_size=batch_size)
    real("heterogeneity", heterogeneity), real("regularisation", regularisation)
    if workers > samples:
        raise ValueError(f"samples={samples} leaves some of {workers} workers without one; use at least {workers}")
    if not 0 <= heterogeneity <= 1:
        raise ValueError(f"heterogeneity={heterogeneity:g} is not a share; use 0 to 1")
    if not 0 < regularisation < np.inf:
        raise ValueError(f"regularisation={regularisation:g} gives no unique minimiser; use a finite number above 0")
    numbers.require("regularisation", regularisation)
    # Features, their products in Newton's method, and its d x d system.
    require_count("dimension", dimension, lambda count: 24.0 * count * count)
    require_count("samples", samples, lambda count: 32.0 * count * (dimension + 4), f" of {dimension} features")
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(dimension)
    features = rng.standard_normal((samples, dimension))
    chances = _sigmoid(features @ (_SIGNAL * truth / np.linalg.norm(truth)))
    labels = (rng.random(samples) < chances).astype(np.int32)
    parts = _deal(labels, workers, heterogeneity, rng)
    weights = np.empty(samples)
    for part in parts:
        weights[part] = 1 / (workers * len(part))
    best = jnp.asarray(_newton(features, labels, weights, regularisation))
    loss = _LogisticLoss(float(regularisation))
    data = {"features": features, "label": labels}
    task = from_arrays(
        loss, Zeros(dimension), data, workers=workers, batch_size=batch_size, partition=parts, name="logistic"
    )
    evaluate = Partial(
        _logistic_evaluate, jax.tree.map(jnp.asarray, data), jnp.asarray(weights), jnp.asarray(regularisation), best
    )
    _, arrays, indices, sizes = task.batches.args  # type: ignore[attr-defined]  # a Partial
    objectives = logistic_objectives(arrays, indices, sizes, regularisation)
    return task._replace(evaluate=evaluate, minimiser=best, objectives=objectives, oracle=logistic_oracle)


@dataclass(frozen=True)
class _LogisticLoss:
    regularisation: float

    def __call__(self, params: Float[Array, " d"], batch: dict[str, Array]) -> Array:
        losses = _log_losses(params, batch)
        # A whole objective is padded, and weighs its samples.
        mean = batch["weight"] @ losses if "weight" in batch else losses.mean()
        return mean + 0.5 * self.regularisation * (params**2).sum()


def _log_losses(params: Array, batch: dict[str, Array]) -> Float[Array, " B"]:
    margin = (2 * batch["label"] - 1) * (batch["features"] @ params)
    return jax.nn.softplus(-margin)


@jax.jit
def _logistic_evaluate(
    data: dict[str, Array], weights: Array, regularisation: Array, best: Array, params: Array
) -> dict[str, Array]:
    losses = _log_losses(params, data)
    right = (data["features"] @ params > 0) == (data["label"] == 1)
    # Subtracted sample by sample: the difference of the two means would drown in float32's rounding near the minimum.
    above = (weights * (losses - _log_losses(best, data))).sum()
    return {
        "test_loss": (weights * losses).sum() + 0.5 * regularisation * (params**2).sum(),
        "suboptimality": above + 0.5 * regularisation * ((params - best) * (params + best)).sum(),
        "test_accuracy": (weights * right).sum(),
    }


def _deal(labels: np.ndarray, workers: int, share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Sample numbers for each worker, sizes within one of each other; a `share` of them in order of the labels."""
    order = rng.permutation(len(labels))
    ordered, free = np.split(order, [round(share * len(order))])
    ordered = ordered[np.argsort(labels[ordered], kind="stable")]
    # array_split gives its remainder to the first workers; the reversal gives that of the second to the last ones.
    pairs = zip(np.array_split(ordered, workers), reversed(np.array_split(free, workers)), strict=True)
    return [np.concatenate(pair) for pair in pairs]


def _newton(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, regularisation: float) -> np.ndarray:
    """The minimiser of the weighted, regularised logistic loss, to a Newton decrement of 1e-20 of the objective."""
    signs = 2 * labels - 1

    def objective(point: np.ndarray) -> float:
        losses = np.logaddexp(0, -signs * (features @ point))
        return float(weights @ losses + 0.5 * regularisation * point @ point)

    point = np.zeros(features.shape[1])
    for _ in range(_NEWTON_STEPS):
        chances = _sigmoid(features @ point)
        gradient = features.T @ (weights * (chances - labels)) + regularisation * point
        curvature = (features.T * (weights * chances * (1 - chances))) @ features
        step = np.linalg.solve(curvature + regularisation * np.eye(len(point)), gradient)
        decrement = gradient @ step
        if decrement <= 1e-20:
            return point
        length, here = 1.0, objective(point)
        # The last term forgives rounding, which near the minimum is larger than any decrease.
        while length > 1e-8 and objective(point - length * step) > here - 1e-4 * length * decrement + 1e-14:
            length /= 2
        point = point - length * step
    raise ValueError(f"regularisation={regularisation:g} is too small for Newton's method to end; use a larger one")


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))


def counts(seed: int, **given: int) -> tuple[int, ...]:
    """Settings that are whole numbers from 1 on; the seed is checked, too."""
    numbers.seeds(seed)
    return tuple(whole(name, value) for name, value in given.items())


def at_least(least: int, **settings: float) -> None:
    """Raises `ValueError` for a setting below `least`, or one that is not finite."""
    for name, value in settings.items():
        if not least <= real(name, value) < np.inf:
            raise ValueError(f"{name}={value:g} is out of range; use a finite number, {least} or more")
        numbers.require(name, value)
