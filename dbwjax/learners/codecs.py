"""Codecs by SPEC: what a compressed message still says of a vector, and how many bytes it takes.

A codec works on a stack of messages, leaves `[N, ...]`, one row a worker, and gives back what the receiver decodes, of
the same shapes and of at least 32 bits (differences of bfloat16 parameters are float32). It comes in two scalings:

    unbiased      E C(x) = x,  E |C(x) - x|^2 <= omega |x|^2                     (DCD and ECD need it)
    contractive   E |C(x) - x|^2 <= (1 - delta) |x|^2                            (CHOCO needs it)

An unbiased C with bound omega makes a contractive C / (1 + omega) with delta = 1 / (1 + omega) (Koloskova, Stich,
Jaggi 2019, arXiv 1902.00340, as recalled). Leaves are coded one by one, each flattened. An entry that is not finite is
decoded as one that is not finite, so that a run that diverges is seen to.

Randomness is one 32-bit word for each entry: `fmix32`, the finaliser of MurmurHash3 (Appleby, public domain, as
recalled), of the entry's number, with a word of the leaf's key added before each of its two multiplications. Both key
words come from one Threefry hash of the message's key. An entry costs two multiplications in the pass that codes it;
Threefry for every entry took three times the training step. The words are a permutation of the numbers, so no two
entries of a leaf have the same one; they are not for cryptography.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt32

from dbwjax import specs
from dbwjax.engine.mixing import upcast
from dbwjax.limits import real, whole
from dbwjax.types import Key

BUCKET = 256
"""Entries that share a scale in `quantize`. Smaller buckets make a smaller error and more scales: with 8 bits and 256
entries the scales are 1.5 % of the message."""

_PARTS = 8  # of a bucket

Code = Callable[[UInt32[Array, "N L 2"], PyTree], PyTree]
"""`(seeds, messages) -> decoded messages`: `seeds` of `seeds_of`, L the number of leaves; leaves `[N, ...]`."""


class Codec(NamedTuple):
    """A codec: its two scalings, its size, and how much of a message it keeps."""

    contractive: Code
    unbiased: Code | None  # None: it has no unbiased form
    sent: Callable[[PyTree], float]  # bytes of one worker's message, from parameters of which shapes and types are read
    delta: float  # of the contractive form, in (0, 1]; 1 loses nothing


def build_codec(spec: str) -> Codec:
    """The codec that a SPEC of `CODECS` names, as in `quantize:bits=4`.

    >>> build_codec("quantize:bits=8").sent({"w": np.zeros((16, 32), np.float32)})
    520.0

    Raises:
      ValueError: an unknown name or key, or a value out of range.
    """
    return specs.build(spec, CODECS, "codec")


def seeds_of(keys: Key, leaves: int) -> UInt32[Array, "N L 2"]:
    """Two random words for each worker and leaf, from the workers' message keys `[N]`."""
    return jax.vmap(lambda key: jax.random.bits(key, (leaves, 2), jnp.uint32))(keys)


def words(seed: UInt32[Array, "N 2"], number: UInt32[Array, ...]) -> UInt32[Array, "N ..."]:
    """The random word of each entry: `fmix32` of its number, keyed by a leaf's seeds.

    Args:
      seed: of `seeds_of`, for one leaf.
      number: of the entries, in the flattened leaf; any shape.
    """
    first, second = (seed[:, word].reshape(-1, *[1] * number.ndim) for word in (0, 1))
    mixed = number[None] + first
    mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B) + second
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return mixed ^ (mixed >> np.uint32(16))


def identity() -> Codec:
    """Everything, as it is: entries of 32 bits (64 of float64)."""

    def code(seeds: Array, messages: PyTree) -> PyTree:
        del seeds
        return jax.tree.map(upcast, messages)

    return Codec(code, code, lambda params: _total(_width, params), 1.0)


def quantize(*, bits: int = 8) -> Codec:
    """Stochastic rounding to `s = 2^(bits-1) - 1` levels a sign, in buckets of `BUCKET` entries with a scale each.

        C(x)_i = step * sign(x_i) * ceil(y_i - u_i),   y_i = |x_i| / step,
        step = max over the bucket of |x| / s,   u_i uniform on [0, 1): up with the probability y_i - floor(y_i)

    QSGD (Alistarh et al. 2017, arXiv 1610.02132, as recalled) with the largest magnitude in place of the norm. The
    bound: in a bucket of d entries the expected squared error is `step^2 sum f_i (1 - f_i)`, f_i the fractional part of
    y_i, and `|x|^2 = step^2 (s^2 + sum y_i^2)`, both sums over all but the largest entry, whose level is exact. For any
    omega, `f (1 - f) - omega y^2` is greatest at `y = 1 / (2 (1 + omega))`, where it is `1 / (4 (1 + omega))`. So the
    error is at most `omega |x|^2` if `(d - 1) / (4 (1 + omega)) = omega s^2`, and x with all others at that y attains
    it. omega is 0.0039 with 8 bits and d = 256, 0.75 with 4 bits, 7.5 with 2. The contractive form is C / (1 + omega).

    A message is `bits` bits an entry and a scale a bucket (32 bits; 64 of float64), each leaf filled up to whole bytes.
    Buckets whose step is below the smallest normal number are decoded as 0.

    Args:
      bits: of an entry, its sign included.

    Raises:
      ValueError: `bits` not a whole number from 2 to 16.
    """
    bits = whole("bits", bits, 2, 16)
    levels = 2 ** (bits - 1) - 1

    def size_of(leaf: Array) -> float:
        return math.ceil(leaf.size * bits / 8) + math.ceil(leaf.size / BUCKET) * _itemsize(leaf)

    def code(scaled: bool, seeds: Array, messages: PyTree) -> PyTree:
        return _by_leaf(lambda seed, leaf: _quantized(seed, leaf, levels, scaled), seeds, messages)

    return Codec(
        partial(code, True),
        partial(code, False),
        lambda params: _total(size_of, params),
        1 / (1 + noise(levels, BUCKET)),
    )


def top_k(*, fraction: float = 0.1) -> Codec:
    """The largest magnitudes of each leaf; the others are decoded as 0. Of equal ones the earliest are kept.

    `k = ceil(fraction * P)` of a leaf's P entries, so `delta = k / P` at least. It is biased, and has no
    unbiased form. A message is k values (32 bits; 64 of float64) and k numbers of entries of `ceil(log2 P)` bits, each
    leaf filled up to whole bytes.

    Args:
      fraction: of the entries, above 0, at most 1.

    Raises:
      ValueError: `fraction` out of range.
    """
    share = _fraction(fraction)

    def size_of(leaf: Array) -> float:
        k = kept(share, leaf.size)
        return k * _itemsize(leaf) + math.ceil(k * math.ceil(math.log2(leaf.size)) / 8)

    def code(seeds: Array, messages: PyTree) -> PyTree:
        return _by_leaf(lambda seed, leaf: _largest(leaf, kept(share, _entries(leaf))), seeds, messages)

    return Codec(code, None, lambda params: _total(size_of, params), share)


def random_k(*, fraction: float = 0.1) -> Codec:
    """Entries of each leaf chosen at random, `k = ceil(fraction * P)` of P; the others are decoded as 0.

    Unbiased: those chosen are multiplied by P / k, and omega = P / k - 1. Contractive: they are not, and delta = k / P.
    The choice is the k smallest random words of the leaf. Receivers share the key and make it themselves, so a message
    is k values (32 bits; 64 of float64) without their numbers.

    Args:
      fraction: of the entries, above 0, at most 1.

    Raises:
      ValueError: `fraction` out of range.
    """
    share = _fraction(fraction)

    def code(scaled: bool, seeds: Array, messages: PyTree) -> PyTree:
        def of_leaf(seed: Array, leaf: Array) -> Array:
            k = kept(share, _entries(leaf))
            return _chosen(seed, leaf, k, 1.0 if scaled else _entries(leaf) / k)

        return _by_leaf(of_leaf, seeds, messages)

    return Codec(
        partial(code, True),
        partial(code, False),
        lambda params: _total(lambda leaf: kept(share, leaf.size) * _itemsize(leaf), params),
        share,
    )


CODECS: dict[str, Callable[..., Codec]] = {
    "identity": identity,
    "quantize": quantize,
    "top_k": top_k,
    "random_k": random_k,
}


def noise(levels: int, entries: int) -> float:
    """omega of `quantize` in a bucket: `omega (1 + omega) = (entries - 1) / (4 levels^2)`."""
    return (math.sqrt(1 + (entries - 1) / levels**2) - 1) / 2


def kept(fraction: float, entries: int) -> int:
    """How many of a leaf's entries `top_k` and `random_k` keep.

    >>> kept(0.1, 10), kept(0.1, 11), kept(0.07, 100)
    (1, 2, 7)
    """
    # Not one more where the product is whole but for its rounding.
    return min(entries, max(1, math.ceil(fraction * entries - 1e-6)))


def _fraction(fraction: float) -> float:
    if not 0 < real("fraction", fraction) <= 1:
        raise ValueError(f"fraction={fraction:g} is no share of the entries; use one above 0, at most 1")
    return float(fraction)


def _entries(leaf: Array) -> int:
    """P of `leaf [N, ...]`."""
    return math.prod(leaf.shape[1:])


def _itemsize(leaf: Array) -> int:
    return max(jnp.dtype(leaf.dtype).itemsize, 4)


def _width(leaf: Array) -> float:
    return leaf.size * _itemsize(leaf)


def _total(size_of: Callable[[Array], float], params: PyTree) -> float:
    return float(sum(size_of(leaf) for leaf in jax.tree.leaves(params) if leaf.size))


def _by_leaf(code: Callable[[Array, Array], Array], seeds: Array, messages: PyTree) -> PyTree:
    leaves, kind = jax.tree.flatten(messages)
    coded = [code(seeds[:, i], upcast(leaf)) if leaf.size else leaf for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(kind, coded)


def _quantized(seed: Array, leaf: Array, levels: int, scaled: bool) -> Array:
    """`quantize` of `leaf [N, ...]`."""
    entries = _entries(leaf)
    size = min(entries, BUCKET)
    count = -(-entries // size)
    flat = leaf.reshape(leaf.shape[0], entries)
    if count * size != entries:
        flat = jnp.pad(flat, ((0, 0), (0, count * size - entries)))
    buckets = flat.reshape(leaf.shape[0], count, size)
    step = _magnitude(buckets) / levels
    # NaN fails the comparison, and 0 * NaN is NaN.
    inverse = jnp.where(step >= jnp.finfo(leaf.dtype).tiny, 1 / step, 0)
    shape = (count, size)
    number = jax.lax.broadcasted_iota(jnp.uint32, shape, 0) * np.uint32(size)
    number = number + jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
    exact = jnp.abs(buckets) * inverse
    # One expression, and `exact` read once: floor(y) + [u < y - floor(y)] reads it twice, and a compiler that makes it
    # twice with different roundings (127 and one below) has both the lower level and no reason to go up.
    # The largest entry may be a rounding above its level.
    level = jnp.minimum(jnp.ceil(exact - _uniform(words(seed, number), leaf.dtype)), levels)
    shrunk = step / (1 + noise(levels, size)) if scaled else step
    decoded = jnp.sign(buckets) * level * shrunk
    return decoded.reshape(leaf.shape[0], count * size)[:, :entries].reshape(leaf.shape)


def _magnitude(buckets: Float[Array, "N C D"]) -> Float[Array, "N C 1"]:
    """The largest magnitude of each bucket; NaN where one is.

    Of the bits, which are in the order of magnitudes with NaN above all. Eight parts of a bucket are compared entry by
    entry first: that is one vectorised pass on a CPU, where a plain reduction takes one and a half to five times as
    long.
    """
    signed = jnp.int64 if buckets.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(jnp.abs(buckets), signed)
    if buckets.shape[2] % _PARTS == 0:
        parts = bits.reshape(*bits.shape[:2], _PARTS, -1)
        bits = functools.reduce(jnp.maximum, [parts[:, :, part] for part in range(_PARTS)])
    return jax.lax.bitcast_convert_type(bits.max(axis=2, keepdims=True), buckets.dtype)


def _uniform(word: UInt32[Array, ...], dtype: jnp.dtype) -> Float[Array, ...]:
    """On [0, 1): multiples of 2^-24 in float32 (all of which it holds), of 2^-32 in float64."""
    if jnp.dtype(dtype) == jnp.float64:
        return word.astype(dtype) * 2.0**-32
    # Of int32, because processors have no vector instruction for uint32.
    return (word >> np.uint32(8)).astype(jnp.int32).astype(dtype) * np.asarray(2.0**-24, dtype)


def _chosen(seed: Array, leaf: Array, k: int, factor: float) -> Array:
    """`random_k` of `leaf [N, ...]`; those chosen are multiplied by `factor`."""
    entries = _entries(leaf)
    flat = leaf.reshape(leaf.shape[0], entries)
    drawn = words(seed, jax.lax.iota(jnp.uint32, entries))
    limit = _kth_smallest(drawn, k)
    return _keep(flat, drawn <= limit, factor).reshape(leaf.shape)


def _largest(leaf: Array, k: int) -> Array:
    """`top_k` of `leaf [N, ...]`."""
    entries = _entries(leaf)
    flat = leaf.reshape(leaf.shape[0], entries)
    unsigned = jnp.uint64 if leaf.dtype == jnp.float64 else jnp.uint32
    # The bits of magnitudes are in their order, NaN above all; inverted, the largest come first.
    rank = ~jax.lax.bitcast_convert_type(jnp.abs(flat), unsigned)
    limit = _kth_smallest(rank, k)
    before, tied = rank < limit, rank == limit
    left = k - before.sum(axis=1, keepdims=True, dtype=jnp.int32)
    # Which of equal ones matters only where there are more than may be kept, and they are not 0.
    number = jnp.where(tied, jax.lax.iota(jnp.uint32, entries), np.uint32(entries))
    matters = (tied.sum(axis=1, keepdims=True) > left) & (limit != ~jnp.zeros((), unsigned))
    last = jax.lax.cond(
        matters.any(),
        lambda: _kth_smallest(number, left),
        lambda: jnp.full((leaf.shape[0], 1), entries, jnp.uint32),
    )
    return _keep(flat, before | (tied & (number <= last)), 1.0).reshape(leaf.shape)


def _keep(flat: Array, mask: Array, factor: float) -> Array:
    """Not selected but multiplied: what is not finite must be seen even where it is not kept."""
    return flat * jnp.where(mask, np.asarray(factor, flat.dtype), 0)


def _kth_smallest(values: Array, k: int | Array) -> Array:
    """The k-th smallest of each row of whole numbers `[N, P]`, as `[N, 1]`: a bisection, one pass a bit.

    A sort of a large leaf takes many times as long on a CPU.
    """
    bits = jnp.iinfo(values.dtype).bits
    one = np.asarray(1, values.dtype)

    def halve(number: Array, found: Array) -> Array:
        bit = one << (bits - 1 - number).astype(values.dtype)
        fewer = (values < (found | bit)).sum(axis=1, keepdims=True, dtype=jnp.int32) < k
        return jnp.where(fewer, found | bit, found)

    return jax.lax.fori_loop(0, bits, halve, jnp.zeros((values.shape[0], 1), values.dtype))
