"""Random numbers for one computation of one worker: one hash each.

Every draw is a pure function of (key, worker, started), by Threefry-2x32 with the two numbers as its counter (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), which is what `jax.random` computes with. Folding both numbers
into the key and drawing from that are three hashes, and JAX compiles a hash for CPUs as a loop; written out, the whole
draw is one fused pass. An exponential delay, for a thousand graphs of ten workers on a CPU: 37 ns by `jax.random`, 5 ns
so.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from dbwjax.types import Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


@jax.jit
def words(key: Key, worker: Array, started: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """64 random bits.

    Args:
      key: one stream's key. Of a generator other than Threefry the bits are drawn by `jax.random`.
      worker, started: which computation; whole numbers, scalars.
    """
    if jax.random.key_data(key).shape != (2,):
        both = jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, worker), started), (2,), jnp.uint32)
        return both[0], both[1]
    first, second = jax.random.key_data(key)
    keys = (first, second, first ^ second ^ _PARITY)
    x, y = jnp.asarray(worker).astype(jnp.uint32) + first, jnp.asarray(started).astype(jnp.uint32) + second
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x = x + y
            y = ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn))) ^ x
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def finest() -> float:
    """The smallest step between two draws of `uniform` in the default float type, and the least draw above 0."""
    return 2.0**-52 if jnp.result_type(float) == jnp.float64 else 2.0**-23


def uniform(key: Key, worker: Array, started: Array, dtype: jnp.dtype) -> Array:
    """Uniform on `[0, 1)`: multiples of 2^-23 in float32, of 2^-52 in float64."""
    x, y = words(key, worker, started)
    if jnp.dtype(dtype) == jnp.float64:
        high = x.astype(jnp.uint64) << np.uint64(20) | y.astype(jnp.uint64) >> np.uint64(12)
        return jax.lax.bitcast_convert_type(high | np.uint64(0x3FF0000000000000), jnp.float64) - 1
    return (jax.lax.bitcast_convert_type(x >> np.uint32(9) | np.uint32(0x3F800000), jnp.float32) - 1).astype(dtype)


def exponential(key: Key, worker: Array, started: Array, dtype: jnp.dtype) -> Array:
    """Exponential with mean 1. `1 - u` is exact and never 0, so its logarithm is as good as `log1p(-u)`, and faster."""
    return -jnp.log(1 - uniform(key, worker, started, dtype))


def normal(key: Key, worker: Array, started: Array, dtype: jnp.dtype) -> Array:
    """Standard normal, by the inverse of its distribution function."""
    # The middle of the cell, so that neither end is infinite.
    half = 2.0**-53 if jnp.dtype(dtype) == jnp.float64 else 2.0**-24
    return math.sqrt(2) * jax.scipy.special.erfinv(2 * (uniform(key, worker, started, dtype) + half) - 1)


def gamma(key: Key, worker: Array, started: Array, shape: Array) -> Array:
    """Gamma with mean 1 and `shape` 1 or more (its variance is 1 / shape), in the type of `shape`.

    Exact, by rejection (Marsaglia and Tsang 2000, "A simple method for generating gamma variables"): a normal number
    and a uniform one a try, both from one hash, and at most 1.06 tries on average. A try that is refused is followed
    by the hash of its own 64 bits, so the draw is a pure function however many tries it takes.
    """
    d = shape - 1 / 3
    c = 1 / jnp.sqrt(9 * d)

    def again(carry: tuple) -> tuple:
        bits = words(key, *carry[0])
        z, u = math.sqrt(2) * jax.scipy.special.erfinv(2 * _middle(bits[0], d.dtype) - 1), _middle(bits[1], d.dtype)
        v = (1 + c * z) ** 3
        fits = jnp.log(u) < z * z / 2 + d - d * v + d * jnp.log(jnp.maximum(v, jnp.finfo(d.dtype).tiny))
        return bits, v, fits & (v > 0)

    begin = bits_of(worker, started), jnp.zeros_like(d), jnp.zeros((), bool)
    return jax.lax.while_loop(lambda carry: ~carry[2], again, begin)[1] * (d / shape)


def bits_of(worker: Array, started: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """Where a computation's draws begin, of which nobody knows how many there will be; `following` gives the first."""
    return jnp.asarray(worker).astype(jnp.uint32), jnp.asarray(started).astype(jnp.uint32)


def following(key: Key, bits: tuple[Array, Array], dtype: jnp.dtype) -> tuple[tuple[Array, Array], Array]:
    """The draw after the one with these bits: the hash of them, and uniform on `(0, 1)`."""
    bits = words(key, *bits)
    return bits, _middle(bits[0], dtype)


def _middle(word: Array, dtype: jnp.dtype) -> Array:
    """Uniform from 32 bits, the middle of a cell: neither 0 nor 1. Of 2^-23 in float32, of 2^-32 in float64."""
    if jnp.dtype(dtype) == jnp.float64:
        return (word.astype(jnp.float64) + 0.5) * 2.0**-32
    return ((word >> np.uint32(9)).astype(jnp.float32) + 0.5) * 2.0**-23
