"""Side-by-side timing: the things compared take turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Figure = dict[str, float]


def take_turns(
    work: dict[str, Callable[[], object]], rounds: int = 9, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function in each round, after one call of each to warm up.

    Args:
      work: functions that return arrays of JAX; the time includes waiting for them.
      rounds: how often each is timed.
      clock: wall time, or `time.process_time` for seconds of all cores together.
    """
    for call in work.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            begin = clock()
            jax.block_until_ready(call())
            seconds[name].append(clock() - begin)
    return seconds


def spread(values: Sequence[float]) -> Figure:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(seconds: dict[str, list[float]], name: str, base: str, units: float = 1.0) -> Figure:
    """`units * base / name` round by round: median, least and greatest."""
    return spread([units * b / a for a, b in zip(seconds[name], seconds[base], strict=True)])


def rates(seconds: Sequence[float], units: float) -> Figure:
    """`units` a second in each round: median, least and greatest."""
    return spread([units / taken for taken in seconds])


def matrix_product(size: int = 2048) -> tuple[Callable[[], jax.Array], float]:
    """The machine's limit for arithmetic: a float32 matrix product, and its floating-point operations."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    return lambda: product(matrix), 2.0 * size**3


def copy(megabytes: int = 512) -> tuple[Callable[[], jax.Array], float]:
    """The machine's limit for memory traffic: a copy out of the caches, and the bytes it reads and writes."""
    array = jnp.ones(megabytes * 1_000_000 // 4, jnp.float32)
    shift = jax.jit(lambda a: a + 1)
    return lambda: shift(array), 2.0 * array.nbytes
