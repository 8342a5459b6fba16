"""Whole objectives of convex tasks, and the exact minimisers (`Oracle`) that dual and proximal methods need.

Each task has a pair: `*_objectives` makes the `Objective` of every worker, from arrays that are arguments of the
compiled program, and `*_oracle` minimises `f(x) + <linear, x> + weight |x - centre|^2`. Data of an objective are a
batch on which the task's loss is the worker's whole objective. Parameters are one array `[d]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from dbwjax.types import Key, Objective, Squares

NEWTON_STEPS = 60
"""Steps of Newton's method at most. With linear terms up to 1,000 times a gradient and l2 coefficients down to 1e-6 it
took 16 at most in float64; in float32, with a tenth of such terms, 8."""

HALVINGS = 30
"""Halvings of one step at most."""

_ENOUGH = (
    1.25  # The last step is taken where the decrement is this power of the rounding error; it squares what is left
)


def bounds(strong: float, smooth: float) -> tuple[Array, Array]:
    """Strong convexity and smoothness in the default float type, rounded to the safe side."""
    kind = np.dtype(jnp.result_type(float))
    low, high = kind.type(strong), kind.type(smooth)
    low = np.nextafter(low, kind.type(0)) if float(low) > strong else low
    high = np.nextafter(high, kind.type(np.inf)) if float(high) < smooth else high
    return jnp.asarray(low), jnp.asarray(high)


def quadratic_objectives(curvature: Float[Array, " d"], centres: Float[Array, "N d"]) -> Partial:
    """`f_i(x) = (x - b_i)' A (x - b_i) / 2` of the task `quadratic`: what its batches see through noise.

    Args:
      curvature: diagonal of A.
      centres: b_i of each worker.
    """
    values = np.asarray(curvature, np.float64)
    return Partial(_quadratic, curvature, centres, *bounds(values.min(), values.max()))


def _quadratic(
    curvature: Array, centres: Array, strong: Array, smooth: Array, key: Key, worker: Array, started: Array
) -> Objective:
    del key, started
    centre = centres.at[worker].get(mode="clip")
    data = {"curvature": curvature[None], "centre": centre[None], "noise": jnp.zeros_like(centre)[None]}
    return Objective(data, strong, smooth)


def quadratic_oracle(objective: Objective, linear: Array, centre: Array, weight: Array) -> Array:
    """In closed form: A is diagonal."""
    curvature, middle = objective.data["curvature"][0], objective.data["centre"][0]
    return (curvature * middle - linear + 2 * weight * centre) / (curvature + 2 * weight)


def squares_objectives(
    features: Float[Array, "n d"], target: Float[Array, " n"], indices: Array, sizes: Array
) -> Partial:
    """`f_i(x) = |X_i x - y_i|^2 / (2 n_i)` of the task `least_squares`, with the spectra of all `X_i' X_i / n_i`.

    Args:
      features: X, of all samples.
      target: y.
      indices: `[N, S]` samples of each worker, padded.
      sizes: `[N]` how many of them each worker has.
    """
    rows, aims = np.asarray(features, np.float64), np.asarray(target, np.float64)
    parts = [np.asarray(row)[:size] for row, size in zip(indices, np.asarray(sizes), strict=True)]
    spectra = [np.linalg.eigh(rows[part].T @ rows[part] / len(part)) for part in parts]
    pulls = [
        vectors.T @ (rows[part].T @ aims[part]) / len(part) for (_, vectors), part in zip(spectra, parts, strict=True)
    ]
    values = np.stack([found[0] for found in spectra])
    solved = (
        jnp.asarray(values, features.dtype),
        jnp.asarray(np.stack([found[1] for found in spectra]), features.dtype),
        jnp.asarray(np.stack(pulls), features.dtype),
    )
    return Partial(_squares, features, target, indices, sizes, solved, *bounds(values.min(), values.max()))


def _squares(
    features: Array,
    target: Array,
    indices: Array,
    sizes: Array,
    solved: tuple[Array, Array, Array],
    strong: Array,
    smooth: Array,
    key: Key,
    worker: Array,
    started: Array,
) -> Objective:
    del key, started
    worker = jnp.minimum(worker, sizes.shape[0] - 1)
    held, size = indices[worker], sizes[worker]
    # Rows beyond the worker's are zero, and the others weigh more: the mean over all is the mean over the worker's own.
    scale = jnp.where(jnp.arange(held.shape[0]) < size, jnp.sqrt(held.shape[0] / size.astype(features.dtype)), 0)
    own = jax.tree.map(lambda leaf: leaf[worker], solved)
    return Objective(Squares(features[held] * scale[:, None], target[held] * scale, own), strong, smooth)


def squares_oracle(objective: Objective, linear: Array, centre: Array, weight: Array) -> Array:
    """In the eigenvectors of `X_i' X_i / n_i`, where it is a division."""
    values, vectors, pull = objective.data.solved
    given = jnp.matmul(2 * weight * centre - linear, vectors, precision=jax.lax.Precision.HIGHEST)
    return jnp.matmul(vectors, (pull + given) / (values + 2 * weight), precision=jax.lax.Precision.HIGHEST)


def logistic_objectives(data: dict[str, Array], indices: Array, sizes: Array, regularisation: float) -> Partial:
    """`f_i` of the task `logistic`: the mean log loss over a worker's samples and the l2 term.

    Its curvature is at most a quarter of the largest eigenvalue of any worker's `X_i' X_i / n_i`, and the l2 term's.

    Args:
      data: `features [n, d]` and `label [n]` of all samples.
      indices: `[N, S]` samples of each worker, padded.
      sizes: `[N]` how many of them each worker has.
      regularisation: coefficient of the l2 term.
    """
    rows = np.asarray(data["features"], np.float64)
    parts = [rows[np.asarray(row)[:size]] for row, size in zip(indices, np.asarray(sizes), strict=True)]
    largest = max(float(np.linalg.norm(part, 2)) ** 2 / len(part) for part in parts)
    limits = bounds(regularisation, regularisation + largest / 4)
    return Partial(_logistic, data, indices, sizes, *limits)


def _logistic(
    data: dict[str, Array],
    indices: Array,
    sizes: Array,
    strong: Array,
    smooth: Array,
    key: Key,
    worker: Array,
    started: Array,
) -> Objective:
    del key, started
    worker = jnp.minimum(worker, sizes.shape[0] - 1)
    held, size = indices[worker], sizes[worker]
    kind = data["features"].dtype
    weight = jnp.where(jnp.arange(held.shape[0]) < size, 1 / size.astype(kind), 0)
    return Objective({**jax.tree.map(lambda leaf: leaf[held], data), "weight": weight.astype(kind)}, strong, smooth)


def logistic_oracle(objective: Objective, linear: Array, centre: Array, weight: Array) -> Array:
    """Newton's method with steps that are halved until the objective falls enough (Armijo's rule).

    The objective is strongly convex (its l2 term's coefficient is `strong`), so this converges from everywhere. It
    starts at `centre`, or at 0 where the weight is 0, and ends at rounding, after `NEWTON_STEPS` at the latest.
    """
    features, share = objective.data["features"], objective.data["weight"]
    signed = features * (2 * objective.data["label"] - 1).astype(features.dtype)[:, None]
    ridge, exact = objective.strong + 2 * weight, jax.lax.Precision.HIGHEST
    enough = jnp.finfo(features.dtype).eps ** _ENOUGH

    def product(matrix: Array, vector: Array) -> Array:
        return jnp.matmul(matrix, vector, precision=exact)

    def one(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        point, steps, _ = carry
        margin = product(signed, point)
        slack = jax.nn.sigmoid(-margin)
        pull = objective.strong * point + linear + 2 * weight * (point - centre)
        gradient = pull - product(share * slack, signed)
        curvature = product((signed * (share * slack * (1 - slack))[:, None]).T, signed)
        factor = jax.scipy.linalg.cho_factor(curvature + ridge * jnp.eye(point.shape[0], dtype=point.dtype))
        step = -jax.scipy.linalg.cho_solve(factor, gradient)
        decrement = -gradient @ step
        turn, slope, bend = product(signed, step), pull @ step, ridge * (step @ step)
        loss = share @ jax.nn.softplus(-margin)
        rounding = 8 * jnp.finfo(point.dtype).eps * (loss + jnp.abs(slope) + decrement)

        def rises(length: Array) -> Array:
            change = share @ jax.nn.softplus(-margin - length * turn) - loss
            change += length * slope + length**2 / 2 * bend
            return (change > rounding - 1e-4 * length * decrement) & (length > 0.5**HALVINGS)

        length = jax.lax.while_loop(rises, lambda length: length / 2, jnp.ones((), point.dtype))
        # Below this the gradient is its terms' rounding.
        terms = objective.strong**2 * (point @ point) + linear @ linear + 4 * weight**2 * ((point - centre) ** 2).sum()
        noise = (4 * jnp.finfo(point.dtype).eps) ** 2 * terms / ridge
        return point + length * step, steps + 1, jnp.where(decrement > jnp.maximum(enough, noise), decrement, 0)

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[1] < NEWTON_STEPS) & (carry[2] > 0)

    start = jnp.where(weight > 0, centre, 0).astype(features.dtype)
    begin = (start, jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, features.dtype))
    return jax.lax.while_loop(goes_on, one, begin)[0]
