"""How slow the workers are: laws of compute times, and the table `DELAYS`.

A delay model is a pure function `(key, worker, started) -> seconds`, so no policy, chunk or device layout changes a
delay. The models here are `Partial`s of module-level functions: pytrees, whose parameters can be swept with `vmap`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from dbwjax import specs
from dbwjax.limits import LAST_SEED, require_count, whole
from dbwjax.network import draws
from dbwjax.types import DelayModel, Key


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Law:
    """A delay model that knows how many workers it was built for; a pytree whose leaves are those of the model."""

    model: DelayModel
    workers: int = field(metadata={"static": True})

    def __call__(self, key: Key, worker: Array, started: Array) -> Array:  # noqa: D102
        return self.model(key, worker, started)


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
    return Partial(_uniform, _real(low), _real(high))


def shifted_exponential(workers: int, *, shift: float = 0.5, rate: float = 1.0) -> DelayModel:
    """`shift` seconds and an exponential time with mean `1 / rate`."""
    if not 0 <= shift < math.inf:
        raise ValueError(f"shift={shift:g} is not a time; use 0 or more seconds")
    return Partial(_shifted_exponential, _real(shift), _positive("rate", rate))


def pareto(workers: int, *, alpha: float = 2.0, scale: float = 1.0) -> DelayModel:
    """Pareto: longer than x with probability `(scale / x)^alpha`, at least `scale` seconds."""
    return Partial(_pareto, _positive("alpha", alpha), _positive("scale", scale))


def lognormal(workers: int, *, median: float = 1.0, sigma: float = 0.5) -> DelayModel:
    """`median * exp(sigma * z)` seconds with standard normal z."""
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma={sigma:g} is not a spread; use 0 or more")
    return Partial(_lognormal, _positive("median", median), _real(sigma))


def slow_workers(workers: int, *, fraction: float = 0.1, factor: float = 5.0, seed: int = 0) -> DelayModel:
    """1 second, but `factor` for the `ceil(fraction * workers)` slow workers, drawn once by `seed`."""
    count = math.ceil(_share("fraction", fraction) * workers)
    slow = np.zeros(workers, bool)
    slow[np.random.default_rng(seed).permutation(workers)[:count]] = True
    return Partial(_slow_workers, jnp.asarray(slow), _positive("factor", factor))


def random_slow(workers: int, *, probability: float = 0.1, factor: float = 5.0) -> DelayModel:
    """1 second, but `factor` with a probability, independently in every computation."""
    return Partial(_random_slow, _real(_share("probability", probability)), _positive("factor", factor))


def markov(workers: int, *, p_slow: float = 0.05, p_recover: float = 0.2, factor: float = 5.0) -> DelayModel:
    """1 second while fast, `factor` while slow; a chain of two states per worker, over its computations.

    A fast worker is slow in its next computation with `p_slow`, a slow one fast with `p_recover`; the first
    computation is drawn from the stationary law. The state of any computation is found without those before it being
    kept: see `_is_slow`.
    """
    _share("p_slow", p_slow)
    if _share("p_recover", p_recover) == 0 and p_slow == 0:
        raise ValueError("p_slow=0 and p_recover=0 never change anything; use constant, or a probability above 0")
    return Partial(_markov, _real(p_slow), _real(p_recover), _positive("factor", factor))


def trace(workers: int, *, path: str, resample: str = "none") -> DelayModel:
    """Measured seconds from a CSV file, one column a worker, one row a computation; after the last row comes the first
    again.

    The first line may name the columns. More columns than workers are allowed; the first ones are used.

    Without `resample` the times are the same in all worlds. `resample=blocks:LENGTH` is a moving-block bootstrap
    (Kuensch 1989): computations 0 to LENGTH - 1 take LENGTH consecutive rows, the next LENGTH another such run, each
    run drawn uniformly among all of the file by the world's key. Rows stay whole, so a spell in which one worker, or
    all of them, are slow stays together; choose blocks longer than such spells. The LENGTH - 1 rows at either end of
    the file are in fewer runs than the others. `resample=blocks` alone takes the square root of the number of rows,
    rounded up; that rule is ours.

    Raises:
      ValueError: no such file, no rows, a cell that is no time, too few columns, or a worker whose times are all zero;
        a `resample` that is not one, or a block as long as the file.
    """
    table = _read_trace(Path(path), workers)
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
}


def build_delays(spec: str, workers: int, seed: int = 0) -> Law:
    """The model that a SPEC names; laws joined by `*` are multiplied, drawn independently.

    >>> model = build_delays("lognormal:median=1,sigma=0.3*slow_workers:fraction=0.2,factor=5", workers=10)

    Raises:
      ValueError: an unknown law or key, or a value out of range.
    """
    workers, seed = whole("workers", workers), whole("seed", seed, 0, LAST_SEED)
    require_count("workers", workers, lambda count: 16.0 * count)
    factors = [specs.build(part, DELAYS, "delays", workers, seed=seed) for part in specs.text_of(spec).split("*")]
    return Law(factors[0] if len(factors) == 1 else Partial(_product, tuple(factors)), workers)


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
    seconds = factors[0](key, worker, started)
    for position, factor in enumerate(factors[1:], start=1):
        # Odd tags far from those of workers, so that the factors' streams are not one another's.
        seconds = seconds * factor(jax.random.fold_in(key, 2**31 + position), worker, started)
    return seconds


def _real(value: float | np.ndarray) -> Array:
    return jnp.asarray(value, jnp.result_type(float))


def _positive(name: str, value: float) -> Array:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value:g} is out of range; use a finite number above 0")
    return _real(value)


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value:g} is out of range; use 0 to 1")
    return value


def _read_trace(file: Path, workers: int) -> np.ndarray:
    if not file.is_file():
        raise ValueError(f"{file} is not a file; give the path of a CSV of measured seconds")
    rows: list[list[float]] = []
    with open(file, newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if not any(cell.strip() for cell in row):
                continue
            if len(row) < workers:
                raise ValueError(f"{file}, line {number} has {len(row)} columns; {workers} workers need {workers}")
            if number == 1 and not _is_number(row[0]):
                continue
            rows.append([_seconds(file, number, column, cell) for column, cell in enumerate(row[:workers], start=1)])
    if not rows:
        raise ValueError(f"{file} has no rows of times; write one row a computation")
    table = np.array(rows)
    if (table.sum(axis=0) == 0).any():
        raise ValueError(f"{file}: every time of column {int(np.argmin(table.sum(axis=0))) + 1} is 0; time must pass")
    return table


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


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _seconds(file: Path, line: int, column: int, cell: str) -> float:
    value = float(cell) if _is_number(cell) else math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{file}, line {line}, column {column}: '{cell.strip()}' is not a time; use 0 or more seconds")
    return value
