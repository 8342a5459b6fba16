"""Laws of slowness that a world adds to those of its workers: slow racks, spells of slowness, outages.

Each is a pure function of (key, worker, computation), as all delays are, from a stream of its own: it is the same under
every policy, and what one law draws does not depend on which others are there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from dbwjax.network import draws, times
from dbwjax.network.times import Law, Span
from dbwjax.types import DelayModel, Key

KILLS = 1e4
"""Kills, expected of one computation, beyond which outages are refused; the number is ours."""

LONGEST = 100_000
"""Computations of a spell on average, at most; the number is ours, and far finer than a draw."""

_STREAM = 2**31 + 2**29
"""Added to a law's number; factors of a product and clones fold other numbers into the key (`delays`, `times`)."""


class Factor(NamedTuple):
    """A law that multiplies the seconds of a computation."""

    model: DelayModel
    span: Span
    stream: int  # its own among the world's laws; 0 is that of the outages


class Outage(NamedTuple):
    """Outages that kill computations: how many a second of computing, and the seconds that each costs besides."""

    rate: float
    seconds: float


def broken(delays: DelayModel, factors: list[Factor], outage: Outage | None, spans: list[Span | None]) -> DelayModel:
    """A delay model with the world's laws upon it: the factors first, then the outages.

    Args:
      delays: the workers' own; of a `Law` with copies, each copy is a machine with draws of its own.
      factors: of the world.
      outage: of the world.
      spans: of the factors of `delays`; `None`: a model in Python, of whose times nothing is known.

    Raises:
      ValueError: times that float32 does not hold, or computations that outages all but never let end.
    """
    if not factors and outage is None:
        return delays
    every = [*spans, *(factor.span for factor in factors)]
    times.require(every)
    if outage is not None:
        _require_ends(outage, every)
    model = delays.model if isinstance(delays, Law) else delays
    model = model if isinstance(model, Partial) else Partial(model)
    kills = () if outage is None else (_real(outage.rate), _real(outage.seconds))
    models = tuple((factor.model, jnp.asarray(_STREAM + factor.stream, jnp.uint32)) for factor in factors)
    upon = Partial(_broken, model, models, kills)
    if not isinstance(delays, Law):
        return upon  # of which `inf` says that a computation never ends
    # A draw is killed less than 2^31 times: nobody would see the end of such a loop.
    after = [] if outage is None else [Span(1, 1, 1, 2.0**31 * (1 + outage.seconds / _most(every)))]
    sure = delays.sure and times.never_leave([*every, *after])
    return Law(upon, delays.workers, sure=sure, zero=delays.zero, copies=delays.copies)


def slow_racks(size: int, probability: float, factor: float, occurrence: int = 0) -> Factor:
    """Racks of `size` consecutive workers; in each computation number a rack is slow with a probability. Several such
    laws draw independently: `occurrence` counts them."""
    model = Partial(_slow_rack, jnp.asarray(size, jnp.int32), _real(probability), _real(factor))
    return Factor(model, times.of_slow(np.asarray(probability), factor), 2 + occurrence)


def slow_spells(mean: float, factor: float, shape: float) -> Factor:
    """Spells of `mean` computations, each with a level, and a gamma variable for every computation."""
    levels = max(0, math.ceil(math.log2(mean)))
    model = Partial(_in_spell, _real(1 / mean), jnp.asarray(levels, jnp.int32), _real(factor), _real(shape))
    return Factor(model, times.of_spells(factor, shape), 1)


def _broken(
    model: DelayModel,
    factors: tuple[tuple[DelayModel, Array], ...],
    kills: tuple[Array, ...],
    key: Key,
    worker: Array,
    started: Array,
) -> Array:
    own = jnp.asarray(model(key, worker, started))
    own = seconds = own if jnp.issubdtype(own.dtype, jnp.floating) else own.astype(jnp.result_type(float))
    for factor, number in factors:
        seconds = seconds * factor(jax.random.fold_in(key, number), worker, started).astype(own.dtype)
    if kills:
        rate, lost = kills
        seconds = _survived(rate, lost, seconds, jax.random.fold_in(key, np.uint32(_STREAM)), worker, started)
    # A time that is too small for its type is no time, whatever 0 may say of the law.
    return jnp.where((seconds == 0) & (own != 0), jnp.nan, seconds)


def _survived(rate: Array, lost: Array, seconds: Array, key: Key, worker: Array, started: Array) -> Array:
    """When a computation of some seconds ends that is done again after each outage."""
    rate, lost = rate.astype(seconds.dtype), lost.astype(seconds.dtype)
    # Nobody could wait for it here; what never ends anyway stays so.
    hopeless = rate * seconds > math.log(2 * KILLS)

    def killed(carry: tuple) -> Array:
        _, worked, _ = carry
        return (worked < seconds) & ~hopeless

    def again(carry: tuple) -> tuple:
        bits, worked, before = carry
        bits, u = draws.following(key, bits, seconds.dtype)
        return bits, -jnp.log(u) / rate, before + jnp.where(worked < 0, 0, worked + lost)

    first = draws.bits_of(worker, started), -jnp.ones_like(seconds), jnp.zeros_like(seconds)
    _, _, before = jax.lax.while_loop(killed, again, first)
    return jnp.where(hopeless, jnp.where(seconds == math.inf, seconds, jnp.nan), before + seconds)


def _slow_rack(size: Array, probability: Array, factor: Array, key: Key, worker: Array, started: Array) -> Array:
    slow = draws.uniform(key, jnp.asarray(worker, jnp.int32) // size, started, factor.dtype) < probability
    return jnp.where(slow, factor, 1.0)


def _in_spell(
    chance: Array, levels: Array, factor: Array, shape: Array, key: Key, worker: Array, started: Array
) -> Array:
    begun = spell_of(chance, levels, key, worker, started)
    level = jnp.exp(draws.uniform(jax.random.fold_in(key, 1), worker, begun, factor.dtype) * jnp.log(factor))
    return level * draws.gamma(jax.random.fold_in(key, 2), worker, started, shape)


def spell_of(chance: Array, levels: Array, key: Key, worker: Array, started: Array) -> Array:
    """The computation with which the spell of computation `started` began, as a pure function.

    A spell begins with computation 0, and with each other one with probability `chance`, independently. To walk back
    one by one would take 1 / chance steps. So it is drawn from above: whether any begins in a block of `2^levels`
    computations, and of a block in which one does, in which of its halves. The distribution is the same, and the walk
    takes about `2 levels` steps and one for each block without any.
    """

    # A block of 2^level computations has one number: a heap's of the tree of all blocks.
    def drawn(level: Array, block: Array) -> Array:
        number = (jnp.uint32(1) << (31 - level).astype(jnp.uint32)) + block.astype(jnp.uint32)
        return draws.uniform(key, worker, number, chance.dtype)

    def none(level: Array) -> Array:
        """The probability that a block has no beginning."""
        return jnp.exp(2.0 ** level.astype(chance.dtype) * jnp.log1p(-chance))

    def halves(level: Array, block: Array) -> tuple[Array, Array]:
        """In which halves of a block that has any there are beginnings."""
        u, empty = drawn(level - 1, 2 * block + 1), none(level - 1)
        one = empty / (1 + empty)
        return (u < one) | (u >= 2 * one), u >= one

    def is_empty(block: Array) -> Array:
        return drawn(levels, block) < none(levels)

    def down(carry: tuple) -> tuple:
        """One level down: towards `started`, as long as there are beginnings on the way; then to the last of a block.

        `left`, `at` is the last block on the left of the way that has any.
        """
        level, block, towards, left, at = carry
        in_left, in_right = halves(level, block)
        right = jnp.where(towards, (started >> (level - 1)) & 1 == 1, in_right)
        passed = towards & right & in_left
        left, at = jnp.where(passed, level - 1, left), jnp.where(passed, 2 * block, at)
        some = jnp.where(right, in_right, in_left)
        return jnp.where(some, level - 1, left), jnp.where(some, 2 * block + right, at), towards & some, left, at

    started = jnp.asarray(started, jnp.int32)
    top = started >> levels
    before = jax.lax.while_loop(lambda block: (block >= 0) & is_empty(block), lambda block: block - 1, top - 1)
    left, at = jnp.where(before < 0, 0, levels), jnp.maximum(before, 0)  # or computation 0
    some = ~is_empty(top)
    begin = (jnp.where(some, levels, left), jnp.where(some, top, at), some, left, at)
    return jax.lax.while_loop(lambda carry: carry[0] > 0, down, begin)[1]


def _most(spans: list[Span | None]) -> float:
    """The longest time of a product of laws; of an unknown one, 1 second."""
    with np.errstate(over="ignore"):
        return float(np.prod([span.most if span else 1.0 for span in spans]))


def _require_ends(outage: Outage, spans: list[Span | None]) -> None:
    """Refuses outages that a computation, as long as the laws can draw it, survives only after too many kills."""
    if None in spans:
        return  # the clock says so of the computation
    most = _most(spans)
    exponent = outage.rate * most
    if exponent > math.log1p(KILLS):
        kills = f"{math.expm1(exponent):.3g} times" if exponent < 700 else "times without number"
        raise ValueError(
            f"rate={outage.rate:g}: a computation of {most:.4g} s, the longest that its law draws, would be killed "
            f"{kills} on average before it ends; use a rate up to {math.log1p(KILLS) / most:.2g}, or a law with a "
            "shorter tail"
        )


def _real(value: float) -> Array:
    return jnp.asarray(value, jnp.result_type(float))
