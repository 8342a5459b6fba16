"""Times of computations: which ones a law can give, and what is no time.

A time is 0 seconds or more. A law of a SPEC must keep within float32's range (`numbers`), too: a time that was drawn as
infinity or as 0 because it is too large or too small is no time. Of most laws it is known when they are built that none
of their draws can leave the range; their draws are not looked at. Those of the others, and of delay models written in
Python, are: what is no time becomes NaN, the clock hands it on as the duration of the step, and the host says which
computation of which worker it was (`engine.ledger.lost`).

A delay model in Python may say `inf`: this computation never ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dbwjax import numbers
from dbwjax.network import draws
from dbwjax.types import DelayModel, Key

_ROWS = 1_000_000
"""Rows, at most, over which a product of traces is looked through."""

_CLONES = np.uint32(3 << 30)
"""A machine's draws come from the key folded with this and its number; the first machine's from the key itself."""

_ROUNDED = 1e-6  # parameters are float32 when they are looked at


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Law:
    """A delay model that knows how many workers it was built for; a pytree whose leaves are those of the model.

    Attributes:
      model: draws the seconds.
      workers: N.
      sure: whether every draw is a time that float32 holds, 0 included.
      zero: whether 0 seconds may be drawn.
      copies: machines on which each computation runs; the first result counts.
    """

    model: DelayModel
    workers: int = field(metadata={"static": True})
    sure: bool = field(default=False, metadata={"static": True})
    zero: bool = field(default=True, metadata={"static": True})
    copies: int = field(default=1, metadata={"static": True})

    def __call__(self, key: Key, worker: Array, started: Array) -> Array:  # noqa: D102
        seconds = self.model(key, worker, started)
        if self.copies == 1:
            return seconds

        def of_copy(tag: Array) -> Array:
            return self.model(jax.random.fold_in(key, tag), worker, started)

        others = jax.vmap(of_copy)(_CLONES + jnp.arange(1, self.copies, dtype=jnp.uint32))
        return jnp.minimum(seconds, others.min())  # NaN, which is no time, stays NaN


class Span(NamedTuple):
    """The times of a law, seconds above 0. What its settings fix lies from `low` to `high`; draws from `least` to
    `most`."""

    low: float
    high: float
    least: float
    most: float
    zero: bool = False  # whether 0 may be drawn, too


def fixed(low: float, high: float) -> Span:
    """The times of a law of which the settings fix all, in any order."""
    return Span(min(low, high), max(low, high), min(low, high), max(low, high))


def of_uniform(low: float, high: float) -> Span:
    """Uniform on `[low, high)`."""
    return Span(low or high, high, low or high * draws.finest(), high, zero=low == 0)


def of_exponential(shift: float, rate: float) -> Span:
    """A shift and an exponential time."""
    shortest, longest = draws.finest() / rate, -math.log(draws.finest()) / rate
    return Span(shift or 1 / rate, shift + 1 / rate, shift or shortest, shift + longest, zero=shift == 0)


def of_pareto(alpha: float, scale: float) -> Span:
    """Pareto, as it is computed."""
    longest = np.exp(-math.log(draws.finest()) / alpha)
    return Span(scale, scale, scale, max(scale, 1) * longest)


def of_lognormal(median: float, sigma: float) -> Span:
    """Log-normal, as it is computed."""
    furthest = np.exp(-NormalDist().inv_cdf(draws.finest() / 2) * sigma)
    return Span(median, median, min(median, 1) / furthest, max(median, 1) * furthest)


def of_slow(slow: np.ndarray, factor: float) -> Span:
    """1 second, or `factor` for those who are slow, or with a probability."""
    return fixed(factor if np.min(slow) == 1 else 1.0, factor if np.max(slow) > 0 else 1.0)


def of_spells(factor: float, shape: float) -> Span:
    """Levels from 1 to `factor`, and a gamma variable with mean 1 as `draws.gamma` makes it."""
    d = shape - 1 / 3
    furthest = 6.5 / math.sqrt(9 * d)  # of a normal number from 32 bits, times c
    # A draw v is kept where d log v > log u - z^2 / 2 - d, and z^2 / 2 < 4.5 d where 0 < v < 1.
    kept = math.exp(-33 * math.log(2) / d - 5.5)
    least = d / shape * max(kept, max(1 - furthest, 0.0) ** 3)
    return Span(1.0, factor, least, factor * d / shape * (1 + furthest) ** 3)


def of_table(table: np.ndarray) -> Span:
    """A table of measured times, some of them above 0."""
    above = table[table > 0]
    return fixed(above.min(), above.max())._replace(zero=above.size < table.size)


def require(spans: Sequence[Span | None]) -> None:
    """Checks what the settings of a product of laws fix.

    Args:
      spans: of the factors, in order; `None`: nothing is known.

    Raises:
      ValueError: a product of the first factors that float32 does not hold.
    """
    low = high = 1.0
    for span in spans:
        low, high = (low * span.low, high * span.high) if span else (low, high)
        for seconds in (low, high):
            if not _held(seconds):
                what = "too small" if seconds < 1 else "too large"
                raise ValueError(
                    f"its settings make times of {seconds:.6g} seconds, {what} for float32; use {numbers.RANGE}"
                )


def require_passing(tables: Sequence[Array]) -> None:
    """Checks that time passes for every worker under a product of traces, each `[rows, N]` seconds.

    Raises:
      ValueError: all products of a worker's times are 0.
    """
    rows = math.lcm(*map(len, tables)) if tables else 0
    if rows > _ROWS:  # then the clock itself says that it stands still
        return
    for worker in range(tables[0].shape[1] if len(tables) > 1 else 0):
        columns = [np.asarray(table)[:, worker] > 0 for table in tables]
        if not np.logical_and.reduce([np.resize(column, rows) for column in columns]).any():
            raise ValueError(f"the traces give worker {worker} nothing but 0 seconds; time must pass")


def never_leave(spans: Sequence[Span | None]) -> bool:
    """Whether no draw of a law, or of a product of laws, can leave float32's range."""
    least = most = 1.0
    for span in spans:
        least, most = (least * span.least, most * span.most) if span else (0.0, math.inf)
        if not (_held(least) and _held(most)):
            return False
    return True


def is_sure(delays: DelayModel) -> bool:
    """Whether nobody needs to look at the draws of a delay model."""
    return isinstance(delays, Law) and delays.sure


def checked(delays: DelayModel, seconds: Array) -> Array:
    """Draws of a delay model, NaN where they are no times; of one that is sure, as they are."""
    if is_sure(delays):
        return seconds
    if not isinstance(delays, Law):
        return jnp.where(seconds >= 0, seconds, jnp.nan)
    above = seconds >= 0 if delays.zero else seconds > 0
    return jnp.where(above & (seconds < math.inf), seconds, jnp.nan)


def _held(seconds: Any) -> bool:
    return bool(numbers.LEAST * (1 - _ROUNDED) <= seconds <= numbers.MOST * (1 + _ROUNDED))
