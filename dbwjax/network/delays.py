"""How slow the workers are: laws of compute times, and the table `DELAYS`.

A delay model is a pure function `(key, worker, started) -> seconds`, so no policy, chunk or device layout changes a
delay. The models here are `Partial`s of module-level functions: pytrees, whose parameters can be swept with `vmap`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from dbwjax import numbers, specs
from dbwjax.limits import require_count, whole
from dbwjax.network import clones, draws, times
from dbwjax.network.clones import copies_of as copies_of
from dbwjax.network.tables import Header, Unit
from dbwjax.network.times import Law, Span
from dbwjax.network.trace_files import Columns, read_trace
from dbwjax.types import DelayModel, Key


def draw_key(key: Key, worker: Array, started: Array) -> Key:
    """The key of one computation, for laws of your own that draw with `jax.random`."""
    return jax.random.fold_in(jax.random.fold_in(key, worker), started)


def constant(workers: int, *, seconds: float = 1.0) -> DelayModel:
    """Always `seconds`."""
    return Partial(_constant, _positive("seconds", seconds))


def uniform(workers: int, *, low: float = 0.5, high: float = 1.5) -> DelayModel:
    """Uniform on `[low, high)` seconds."""
    if not 0 <= low <= high < math.inf or high == 0:
        raise ValueError(f"low={low:g}, high={high:g} is not a range of times; use 0 <= low <= high and high above 0")
    return Partial(_uniform, _real(numbers.require("low", low)), _real(numbers.require("high", high)))


def shifted_exponential(workers: int, *, shift: float = 0.5, rate: float = 1.0) -> DelayModel:
    """`shift` seconds and an exponential time with mean `1 / rate`."""
    if not 0 <= shift < math.inf:
        raise ValueError(f"shift={shift:g} is not a time; use 0 or more seconds")
    numbers.require(f"rate={rate:g}: 1 / rate", 1 / numbers.positive("rate", rate))
    return Partial(_shifted_exponential, _real(numbers.require("shift", shift)), _real(rate))


def pareto(workers: int, *, alpha: float = 2.0, scale: float = 1.0) -> DelayModel:
    """Pareto: longer than x with probability `(scale / x)^alpha`, at least `scale` seconds."""
    return Partial(_pareto, _positive("alpha", alpha), _positive("scale", scale))


def lognormal(workers: int, *, median: float = 1.0, sigma: float = 0.5) -> DelayModel:
    """`median * exp(sigma * z)` seconds with standard normal z."""
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma={sigma:g} is not a spread; use 0 or more")
    return Partial(_lognormal, _positive("median", median), _real(numbers.require("sigma", sigma)))


def slow_workers(
    workers: int, *, fraction: float = 0.1, factor: float = 5.0, seed: int = 0, occurrence: int = 0
) -> DelayModel:
    """1 second, but `factor` for the `ceil(fraction * workers)` slow workers, drawn once by `seed`.

    In a product each occurrence of this law, 0, 1, ..., draws who is slow from a stream of its own.
    """
    count = math.ceil(_share("fraction", fraction) * workers)
    slow = np.zeros(workers, bool)
    stream = np.random.SeedSequence(seed, spawn_key=(occurrence,) if occurrence else ())
    slow[np.random.default_rng(stream).permutation(workers)[:count]] = True
    return Partial(_slow_workers, jnp.asarray(slow), _positive("factor", factor))


def random_slow(workers: int, *, probability: float = 0.1, factor: float = 5.0) -> DelayModel:
    """1 second, but `factor` with a probability, independently in every computation."""
    return Partial(_random_slow, _real(_probability("probability", probability)), _positive("factor", factor))


def markov(workers: int, *, p_slow: float = 0.05, p_recover: float = 0.2, factor: float = 5.0) -> DelayModel:
    """1 second while fast, `factor` while slow; a chain of two states per worker, over its computations.

    A fast worker is slow in its next computation with `p_slow`, a slow one fast with `p_recover`; the first
    computation is drawn from the stationary law. The state of any computation is found without those before it being
    kept: see `_is_slow`.
    """
    _probability("p_slow", p_slow)
    if _probability("p_recover", p_recover) == 0 and p_slow == 0:
        raise ValueError("p_slow=0 and p_recover=0 never change anything; use constant, or a probability above 0")
    return Partial(_markov, _real(p_slow), _real(p_recover), _positive("factor", factor))


def trace(
    workers: int,
    *,
    path: str,
    resample: str = "none",
    header: Header = "auto",
    columns: Columns = "match",
    unit: Unit = "auto",
) -> DelayModel:
    """Measured seconds from a CSV file; after the last computation comes the first again.

    Wide: a column a worker, a row a computation. Long: rows of `step,worker,seconds`, under that header. A header's
    names are numbered in natural order and matched with those of a graph's file; `columns=order` takes columns as they
    stand, `columns=first` the first N of more. A name's ending is the unit of its times (`w0_ms`), or `unit=` says it.

    Without `resample` the times are the same in all worlds. `resample=blocks:LENGTH` is a moving-block bootstrap
    (Kuensch 1989): computations 0 to LENGTH - 1 take LENGTH consecutive rows, the next LENGTH another such run, each
    run drawn uniformly among all of the file by the world's key. Rows stay whole, so a spell in which one worker, or
    all of them, are slow stays together; choose blocks longer than such spells. The LENGTH - 1 rows at either end of
    the file are in fewer runs than the others. `resample=blocks` alone takes the square root of the number of rows,
    rounded up; that rule is ours.

    Raises:
      ValueError: as `read_trace`; a `resample` that is not one, or a block as long as the file.
    """
    table = read_trace(workers, path=path, header=header, columns=columns, unit=unit).seconds
    if resample == "none":
        return Partial(_trace, _real(table))
    return Partial(_resampled, _real(table), jnp.asarray(_block_length(resample, path, len(table)), jnp.int32))


DELAYS: dict[str, Callable[..., DelayModel]] = {
    "constant": constant,
    "uniform": uniform,
    "shifted_exponential": shifted_exponential,
    "pareto": pareto,
    "lognormal": lognormal,
    "slow_workers": slow_workers,
    "random_slow": random_slow,
    "markov": markov,
    "trace": trace,
    "cloned": clones.cloned,
}


def build_delays(spec: str, workers: int, seed: int = 0) -> Law:
    """The model that a SPEC names; laws joined by `*` are multiplied, drawn independently; `cloned:copies=` goes first.

    >>> model = build_delays("lognormal:median=1,sigma=0.3*slow_workers:fraction=0.2,factor=5", workers=10)

    Raises:
      ValueError: an unknown law or key, a value out of range, a seed outside 0 to 2^32 - 1, or settings that make times
        which float32 does not hold.
    """
    workers, seed = whole("workers", workers), numbers.seeds(seed).start
    require_count("workers", workers, lambda count: 16.0 * count)
    factors, seen = [], Counter[str]()
    copies, parts = clones.split(spec, specs.text_of(spec).split("*"))
    for part in parts:
        name, _ = specs.parse(part)
        factors.append(specs.build(part, DELAYS, "delays", workers, seed=seed, occurrence=seen[name]))
        seen[name] += 1
    spans = [_span(factor) for factor in factors]
    try:
        times.require(spans)
        times.require_passing([factor.args[0] for factor in factors if getattr(factor, "func", None) is _trace])
    except ValueError as error:
        raise ValueError(f"delays '{spec}': {error}") from None
    laws = [_law(workers, factor, span) for factor, span in zip(factors, spans, strict=True)]
    if len(laws) == 1:
        law = laws[0]
    elif times.never_leave(spans):
        law = Law(Partial(_product, tuple(factors)), workers, sure=True)
    else:
        law = Law(Partial(_checked_product, tuple(laws)), workers, zero=any(law.zero for law in laws))
    return replace(law, copies=copies)


def spans_of(delays: DelayModel) -> list[Span | None]:
    """The times of the factors of a law; `None`: of a model that is not built here nothing is known."""
    model: Any = delays.model if isinstance(delays, Law) else delays
    factors: Any = (model,)
    if getattr(model, "func", None) in (_product, _checked_product):
        factors = model.args[0]
    return [_span(one.model if isinstance(one, Law) else one) for one in factors]


def _law(workers: int, model: DelayModel, span: Span | None) -> Law:
    return Law(model, workers, times.never_leave([span]), span is None or span.zero)


def _constant(seconds: Array, key: Key, worker: Array, started: Array) -> Array:
    return seconds


def _uniform(low: Array, high: Array, key: Key, worker: Array, started: Array) -> Array:
    return low + (high - low) * draws.uniform(key, worker, started, low.dtype)


def _shifted_exponential(shift: Array, rate: Array, key: Key, worker: Array, started: Array) -> Array:
    return shift + draws.exponential(key, worker, started, shift.dtype) / rate


def _pareto(alpha: Array, scale: Array, key: Key, worker: Array, started: Array) -> Array:
    return scale * jnp.exp(draws.exponential(key, worker, started, scale.dtype) / alpha)


def _lognormal(median: Array, sigma: Array, key: Key, worker: Array, started: Array) -> Array:
    return median * jnp.exp(sigma * draws.normal(key, worker, started, median.dtype))


def _slow_workers(slow: Array, factor: Array, key: Key, worker: Array, started: Array) -> Array:
    # Nodes beyond the workers (a server) are drawn for too and never read.
    return jnp.where(slow.at[worker].get(mode="clip"), factor, 1.0)


def _random_slow(probability: Array, factor: Array, key: Key, worker: Array, started: Array) -> Array:
    slow = draws.uniform(key, worker, started, factor.dtype) < probability
    return jnp.where(slow, factor, 1.0)


def _markov(p_slow: Array, p_recover: Array, factor: Array, key: Key, worker: Array, started: Array) -> Array:
    return jnp.where(_is_slow(p_slow, p_recover, key, worker, started), factor, 1.0)


def _is_slow(p_slow: Array, p_recover: Array, key: Key, worker: Array, started: Array) -> Array:
    """The chain's state at computation `started`, as a pure function.

    Computation n uses one uniform u_n for both states: fast becomes slow iff `u < p_slow`, slow stays slow iff `u < 1
    - p_recover`. Where both agree the past is forgotten, so walking back to the last such n (or to the stationary draw
    at 0) is enough. Between them a step either keeps the state or swaps it; the parity of swaps is carried along.
    """
    low, high = jnp.minimum(p_slow, 1 - p_recover), jnp.maximum(p_slow, 1 - p_recover)
    swaps = p_slow > 1 - p_recover

    def u(n: Array) -> Array:
        return draws.uniform(key, worker, n, p_slow.dtype)

    def undecided(carry: tuple[Array, Array]) -> Array:
        n, _ = carry
        return (n > 0) & (u(n) >= low) & (u(n) < high)

    def back(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        n, odd = carry
        return n - 1, odd ^ swaps

    n, odd = jax.lax.while_loop(undecided, back, (jnp.asarray(started, jnp.int32), jnp.zeros((), bool)))
    stationary = p_slow / (p_slow + p_recover)
    return (u(n) < jnp.where(n > 0, low, stationary)) ^ odd


def _trace(table: Array, key: Key, worker: Array, started: Array) -> Array:
    return table[started % table.shape[0], jnp.minimum(worker, table.shape[1] - 1)]


def _resampled(table: Array, length: Array, key: Key, worker: Array, started: Array) -> Array:
    # One draw for a block, whoever asks: all workers read the same rows.
    word, _ = draws.words(key, jnp.uint32(0), started // length)
    first = (word % (table.shape[0] - length + 1).astype(jnp.uint32)).astype(jnp.int32)
    return table[first + started % length, jnp.minimum(worker, table.shape[1] - 1)]


def _product(factors: tuple[DelayModel, ...], key: Key, worker: Array, started: Array) -> Array:
    first, *others = _each(factors, key, worker, started)
    return math.prod(others, start=first)


def _checked_product(laws: tuple[Law, ...], key: Key, worker: Array, started: Array) -> Array:
    """`_product`, NaN where a factor is no time, or the product is 0 though no factor is."""
    each = [times.checked(law, one) for law, one in zip(laws, _each(laws, key, worker, started), strict=True)]
    seconds = math.prod(each[1:], start=each[0])
    lost = seconds == 0
    for one in each:
        lost &= one != 0
    return jnp.where(lost, jnp.nan, seconds)


def _each(factors: tuple[DelayModel, ...], key: Key, worker: Array, started: Array) -> Iterator[Array]:
    """The draws of the factors of a product, each from a stream of its own."""
    for position, factor in enumerate(factors):
        # Odd tags far from those of workers, so that the factors' streams are not one another's.
        yield factor(jax.random.fold_in(key, 2**31 + position) if position else key, worker, started)


def _span(model: Any) -> Span | None:
    """The times of a law; `None`: not one of those here."""
    found = _SPANS.get(getattr(model, "func", None))
    if found is None:
        return None
    with np.errstate(over="ignore"):
        return found(*(np.asarray(leaf, np.float64) for leaf in model.args))


_SPANS: dict[Any, Callable[..., Span]] = {
    _constant: lambda seconds: times.fixed(seconds, seconds),
    _uniform: times.of_uniform,
    _shifted_exponential: times.of_exponential,
    _pareto: times.of_pareto,
    _lognormal: times.of_lognormal,
    _slow_workers: times.of_slow,
    _random_slow: times.of_slow,
    _markov: lambda p_slow, p_recover, factor: times.of_slow(p_slow, factor),
    _trace: times.of_table,
    _resampled: lambda table, length: times.of_table(table),
}


def _real(value: float | np.ndarray) -> Array:
    return jnp.asarray(value, jnp.result_type(float))


def _positive(name: str, value: float) -> Array:
    return _real(numbers.positive(name, value))


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value:g} is out of range; use 0 to 1")
    return numbers.require(name, value)


def _probability(name: str, value: float) -> float:
    if 0 < _share(name, value) < draws.finest():
        raise ValueError(f"{name}={value:g} is finer than a draw; use 0, or {draws.finest():.2g} to 1")
    return value


def _block_length(resample: str, path: str, rows: int) -> int:
    kind, colon, text = resample.partition(":")
    if kind != "blocks" or (colon and not (text.isascii() and text.isdigit())):
        raise ValueError(f"resample={resample} is not a choice; use none, blocks or blocks:LENGTH, as in blocks:50")
    if rows == 1:
        raise ValueError(
            f"resample={resample}: {path} has a single row, so every draw is the same; leave resample= out"
        )
    length = int(text) if colon else min(math.isqrt(rows - 1) + 1, rows - 1)
    if not 1 <= length < rows:
        raise ValueError(f"resample={resample}: blocks of {length} of the {rows} rows in {path}; use 1 to {rows - 1}")
    return length
