"""A table of means made monotone in both directions: weighted isotonic regression, traceable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SWEEPS = 10
"""Of Dykstra's alternating projections. What they leave undone the envelopes of `monotone` make up for."""

_UNSEEN = 1e-6
"""The weight of an entry of which nothing is known, beside 1 for one sample."""


def monotone(means: Float[Array, "H K"], counts: Float[Array, "H K"]) -> Float[Array, "H K"]:
    """The table nearest to `means` that grows along its rows and falls down its columns.

    Nearest in squares weighted by `counts`, by `SWEEPS` of Dykstra's projections (Dykstra 1983; isotonic regression in
    each direction as `max over a of min over b of mean(a..b)`), and then the mean of the largest entry that must not be
    above and the smallest that must not be below, which is monotone exactly. An entry of which nothing is known is the
    least that those known allow.

    Args:
      means: anything where `counts` is 0.
      counts: samples behind each entry, at least one of them above 0.
    """
    seen = counts > 0
    below = _below(jnp.where(seen, means, -jnp.inf))  # the largest known that an entry must reach
    start = jnp.where(seen, means, jnp.where(jnp.isfinite(below), below, jnp.where(seen, means, jnp.inf).min()))
    weights = jnp.where(seen, counts, _UNSEEN)

    def sweep(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, along, down = carry
        y = growing(x + along, weights)
        along = x + along - y
        z = growing((y + down)[::-1].T, weights[::-1].T).T[::-1]
        return z, along, y + down - z

    none = jnp.zeros_like(start)
    fitted, _, _ = jax.lax.fori_loop(0, SWEEPS, sweep, (start, none, none))
    return (_below(fitted) + _above(fitted)) / 2


def growing(values: Float[Array, "R K"], weights: Float[Array, "R K"]) -> Float[Array, "R K"]:
    """Isotonic regression of each row: the nearest numbers that do not fall, in weighted squares; weights above 0."""
    rows, places = values.shape[0], jnp.arange(values.shape[1])

    def means(carry: tuple[Array, Array], column: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        """Of the entries from a to b, for all a, one b after another."""
        (sums, totals), (b, value, weight) = carry, column
        begun = (places <= b)[None, :]
        sums = sums + jnp.where(begun, (value * weight)[:, None], 0)
        totals = totals + jnp.where(begun, weight[:, None], 0)
        return (sums, totals), jnp.where(begun, sums / jnp.where(begun, totals, 1), jnp.inf)

    def fit(least: Array, column: tuple[Array, Array]) -> tuple[Array, Array]:
        """The largest, over a up to i, of the least over b from i on."""
        i, mean = column
        least = jnp.minimum(least, mean)
        return least, jnp.where((places <= i)[None, :], least, -jnp.inf).max(axis=1)

    none = jnp.zeros((rows, places.shape[0]), values.dtype)
    _, table = jax.lax.scan(means, (none, none), (places, values.T, weights.T))
    _, fitted = jax.lax.scan(fit, none + jnp.inf, (places, table), reverse=True)
    return fitted.T


def _below(table: Array) -> Array:
    """The largest entry among those that must not be above each: to its left and further down."""
    return jax.lax.cummax(jax.lax.cummax(table, axis=1), axis=0, reverse=True)


def _above(table: Array) -> Array:
    """The smallest entry among those that must not be below each: to its right and further up."""
    return jax.lax.cummin(jax.lax.cummin(table, axis=1, reverse=True), axis=0)
