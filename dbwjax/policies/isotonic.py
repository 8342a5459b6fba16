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
    places = jnp.arange(values.shape[1])
    from_here = places[None, :, None] <= places[None, None, :]  # [1, a, b]
    sums = jnp.cumsum(jnp.where(from_here, (values * weights)[:, None, :], 0), axis=2)
    totals = jnp.cumsum(jnp.where(from_here, weights[:, None, :], 0), axis=2)
    means = jnp.where(from_here, sums / jnp.where(from_here, totals, 1), jnp.inf)
    least = jax.lax.cummin(means, axis=2, reverse=True)  # over b from i on
    return jnp.where(from_here, least, -jnp.inf).max(axis=1)  # over a up to i


def _below(table: Array) -> Array:
    """The largest entry among those that must not be above each: to its left and further down."""
    return jax.lax.cummax(jax.lax.cummax(table, axis=1), axis=0, reverse=True)


def _above(table: Array) -> Array:
    """The smallest entry among those that must not be below each: to its right and further up."""
    return jax.lax.cummin(jax.lax.cummin(table, axis=1, reverse=True), axis=0)
