"""Codecs: means and errors over many draws, the bytes of an encoding that is written out, what is not finite."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.learners import codecs
from dbwjax.learners.codecs import BUCKET, CODECS, build_codec, kept, noise, seeds_of, words

DRAWS = 100_000
SPECS = (
    "identity",
    *(f"quantize:bits={bits}" for bits in (2, 3, 4, 8, 16)),
    *(f"{name}:fraction={fraction}" for name in ("top_k", "random_k") for fraction in (0.1, 0.5, 1)),
)
UNBIASED = [spec for spec in SPECS if not spec.startswith("top_k")]


def coded(code, messages, key=0):
    """What a tree of messages is decoded as; each row has a key of its own."""
    leaves = jax.tree.leaves(messages)
    keys = jax.random.split(jax.random.key(key), leaves[0].shape[0])
    return jax.jit(lambda keys, messages: code(seeds_of(keys, len(leaves)), messages))(keys, messages)


def bound(spec):
    """omega of the unbiased form."""
    return 1 / build_codec(spec).delta - 1


def vector(entries, seed=0):
    """Magnitudes of several orders, and zeros."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=entries) * np.exp(rng.normal(size=entries))
    x[:: max(7, entries // 4)] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("spec", UNBIASED)
def test_the_mean_is_the_message_and_the_error_is_bounded(spec):
    x = vector(40)
    many = np.asarray(coded(build_codec(spec).unbiased, jnp.broadcast_to(x, (DRAWS, 40)))).astype(float)
    spread = many.std(axis=0) + 1e-6 * np.abs(x).max()
    assert (np.abs(many.mean(axis=0) - x) <= 5 * spread / math.sqrt(DRAWS) + 2e-7 * np.abs(x).max()).all()
    error = ((many - x) ** 2).sum(axis=1).mean()
    assert error <= bound(spec) * (x.astype(float) ** 2).sum() * 1.02 + 1e-9
    if spec not in ("identity", "random_k:fraction=1"):
        assert error > 0
        assert (many.std(axis=0)[x != 0] > 0).sum() >= 30
    if spec.startswith("random_k") and spec != "random_k:fraction=1":  # there it is no bound, but the error
        assert error == pytest.approx(bound(spec) * (x.astype(float) ** 2).sum(), rel=0.02)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_bound_of_quantize_is_attained(bits):
    levels = 2 ** (bits - 1) - 1
    omega = noise(levels, BUCKET)
    # One entry at the top, the others at the part of a step that costs most.
    x = np.full(BUCKET, 1 / (2 * (1 + omega)) / levels, np.float32)
    x[17] = 1
    many = np.asarray(coded(build_codec(f"quantize:bits={bits}").unbiased, jnp.broadcast_to(x, (4000, BUCKET))))
    error = ((many.astype(float) - x) ** 2).sum(axis=1).mean() / (x.astype(float) ** 2).sum()
    assert error == pytest.approx(omega, rel=0.02)
    for seed in range(20):  # and not exceeded
        x = vector(BUCKET, seed)
        many = np.asarray(coded(build_codec(f"quantize:bits={bits}").unbiased, jnp.broadcast_to(x, (500, BUCKET))))
        assert ((many.astype(float) - x) ** 2).sum(axis=1).mean() <= 1.02 * omega * (x.astype(float) ** 2).sum()


@pytest.mark.parametrize("spec", SPECS)
def test_the_contractive_form_contracts(spec):
    codec = build_codec(spec)
    for entries in (3, 40, 700):
        x = np.stack([vector(entries, seed) for seed in range(4)])
        many = np.asarray(coded(codec.contractive, jnp.asarray(np.repeat(x, 400, axis=0)))).astype(float)
        error = ((many - np.repeat(x, 400, axis=0)) ** 2).sum(axis=1).reshape(4, 400).mean(axis=1)
        assert (error <= (1 - codec.delta) * (x.astype(float) ** 2).sum(axis=1) * 1.05 + 1e-9).all()


def test_words_are_uniform_and_those_of_different_entries_leaves_and_workers_are_independent():
    numbers = jnp.arange(64, dtype=jnp.uint32)
    keys = jax.random.split(jax.random.key(3), 6_000)
    both = seeds_of(keys, 2)
    tables = [np.asarray(words(both[:, leaf], numbers)) for leaf in (0, 1)]
    uniform = np.concatenate(tables, axis=1) / 2**32
    count = np.stack(
        [np.bincount((table >> shift & 255).ravel(), minlength=256) for table in tables for shift in (0, 24)]
    )
    expected = tables[0].size / 256
    chi = ((count - expected) ** 2 / expected).sum(axis=1)
    assert (np.abs(chi - 255) < 5 * math.sqrt(2 * 255)).all()
    # 128 columns: every pair of entries, within a leaf and across two; and of entries across the rows of workers.
    correlation = np.corrcoef(uniform, rowvar=False)[np.triu_indices(128, 1)]
    assert np.abs(correlation).max() < 5.5 / math.sqrt(len(keys))
    for lag in (1, 2, 7):
        pairs = np.corrcoef(uniform[lag:].ravel(), uniform[:-lag].ravel())[0, 1]
        assert abs(pairs) < 5 / math.sqrt(uniform[lag:].size)
    # One worker's long leaf: no entry is another's neighbour's shadow, and all words differ.
    long = np.asarray(words(both[:1, 0], jnp.arange(1 << 20, dtype=jnp.uint32)))[0]
    assert len(np.unique(long)) == len(long)
    for lag in (1, 2, 256):
        assert abs(np.corrcoef(long[lag:] / 2**32, long[:-lag] / 2**32)[0, 1]) < 5 / math.sqrt(len(long))


def test_the_finaliser_is_that_of_murmurhash3():
    """With no key: reference values of fmix32."""

    def fmix32(h):
        h ^= h >> 16
        h = h * 0x85EBCA6B % 2**32
        h ^= h >> 13
        h = h * 0xC2B2AE35 % 2**32
        return h ^ h >> 16

    numbers = np.array([0, 1, 2, 1000, 2**31, 2**32 - 1], np.uint32)
    found = np.asarray(words(jnp.zeros((1, 2), jnp.uint32), jnp.asarray(numbers)))[0]
    np.testing.assert_array_equal(found, [fmix32(int(number)) for number in numbers])


def packed(numbers, bits):
    """Whole numbers from 0 on, `bits` bits each, as bytes; the last one is filled up."""
    total = sum(int(number) << (bits * place) for place, number in enumerate(numbers))
    return total.to_bytes(math.ceil(len(numbers) * bits / 8), "little")


def unpacked(data, count, bits):
    total = int.from_bytes(data, "little")
    return np.array([total >> (bits * place) & ((1 << bits) - 1) for place in range(count)])


TREE = {"w": (33, 40), "bias": (7,), "scalar": (), "long": (512,)}


@pytest.mark.parametrize("bits", [2, 5, 8, 16])
def test_bytes_of_quantize_are_those_of_an_encoding(bits):
    codec, levels = build_codec(f"quantize:bits={bits}"), 2 ** (bits - 1) - 1
    tree = {name: vector(math.prod(shape), 1).reshape(1, *shape) for name, shape in TREE.items()}
    tree["scalar"] = np.full(1, 0.3, np.float32)
    decoded, size = coded(codec.unbiased, tree), 0
    for name, shape in TREE.items():
        entries, found = math.prod(shape), np.asarray(decoded[name]).ravel()
        buckets = [slice(begin, begin + BUCKET) for begin in range(0, entries, BUCKET)]
        steps = np.array([np.abs(tree[name].ravel()[one]).max() for one in buckets], np.float32) / np.float32(levels)
        step = np.repeat(steps, BUCKET)[:entries]
        signed = np.rint(found / step).astype(int)
        assert np.abs(signed).max() == levels
        message = packed(signed + levels, bits) + steps.tobytes()
        size += len(message)
        cut = len(message) - steps.nbytes
        again = unpacked(message[:cut], entries, bits) - levels
        scales = np.repeat(np.frombuffer(message[cut:], np.float32), BUCKET)[:entries]
        np.testing.assert_allclose(again.astype(np.float32) * scales, found, rtol=2e-7)
    assert codec.sent({name: np.zeros(shape, np.float32) for name, shape in TREE.items()}) == size


@pytest.mark.parametrize("spec", ["identity", "top_k:fraction=0.1", "random_k:fraction=0.3", "top_k:fraction=1"])
def test_bytes_of_the_others_are_those_of_an_encoding(spec):
    codec, size = build_codec(spec), 0
    name, _, setting = spec.partition(":fraction=")
    tree = {leaf: vector(math.prod(shape), 2).reshape(1, *shape) + np.float32(1e-3) for leaf, shape in TREE.items()}
    decoded = coded(codec.contractive, tree)
    keys = jax.random.split(jax.random.key(0), 1)
    for place, leaf in enumerate(sorted(TREE)):
        entries, found = math.prod(TREE[leaf]), np.asarray(decoded[leaf]).ravel()
        if name == "identity":
            where, message = np.arange(entries), found.tobytes()
        elif name == "random_k":  # receivers know which: they have the key
            drawn = np.asarray(words(seeds_of(keys, len(TREE))[:, place], jnp.arange(entries, dtype=jnp.uint32)))[0]
            where = np.sort(np.argsort(drawn)[: kept(float(setting), entries)])
            message = found[where].tobytes()
        else:
            where = np.flatnonzero(found)
            message = packed(where, math.ceil(math.log2(entries))) + found[where].tobytes()
        size += len(message)
        again = np.zeros(entries, np.float32)
        again[where] = np.frombuffer(message[len(message) - 4 * len(where) :], np.float32)
        np.testing.assert_array_equal(again, found)
    assert codec.sent({leaf: np.zeros(shape, np.float32) for leaf, shape in TREE.items()}) == size


def test_top_k_keeps_the_largest_and_of_equal_ones_the_earliest():
    codec = build_codec("top_k:fraction=0.5")
    x = jnp.asarray([[1.0, -3.0, 2.0, 0.5], [2.0, -2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 5.0], [-1.0, 4.0, -1.0, 1.0]])
    expected = [[0, -3, 2, 0], [2, -2, 0, 0], [0, 0, 0, 5], [-1, 4, 0, 0]]
    np.testing.assert_array_equal(coded(codec.contractive, x), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("spec", ["identity", "quantize:bits=4", "top_k:fraction=0.3", "random_k:fraction=0.3"])
def test_any_tree_any_shape_any_type(spec, dtype, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    codec = build_codec(spec)
    tree = {"a": jnp.ones((3, 5, 2, 60), dtype), "b": [jnp.full(3, -2.0, dtype), jnp.zeros((3, 0), dtype)]}
    tree["zeros"] = jnp.zeros((3, 300), dtype)
    wide = jnp.promote_types(dtype, jnp.float32)
    for code in (codec.contractive, codec.unbiased):
        if code is None:
            continue
        found = coded(code, tree)
        assert jax.tree.structure(found) == jax.tree.structure(tree)
        for one, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
            assert one.shape == leaf.shape
            assert leaf.size == 0 or one.dtype == wide
            assert np.isfinite(np.asarray(one)).all()
        assert (np.asarray(found["zeros"]) == 0).all()
        np.testing.assert_allclose(found["b"][0], -2, rtol=1e-6)  # alone in its leaf
    size = codec.sent(jax.tree.map(lambda leaf: leaf[0], tree))
    assert size == codec.sent(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], wide), tree))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(spec, bad):
    codec, x = build_codec(spec), np.tile(vector(300), (2, 1))
    x[0, [3, 150, 299]] = bad
    for code in filter(None, (codec.contractive, codec.unbiased)):
        found = np.asarray(coded(code, jnp.asarray(x)))
        assert not np.isfinite(found[0, [3, 150, 299]]).any()
        assert np.isfinite(found[1]).all(), "another worker's message is another matter"


def test_numbers_at_the_ends_of_float32():
    codec = build_codec("quantize:bits=8")
    for scale in (3e38, 1e-30, 2e-36):
        x = vector(256) / np.abs(vector(256)).max() * np.float32(scale)
        found = np.asarray(coded(codec.unbiased, jnp.asarray(x)[None]))[0].astype(float)
        assert np.abs(found - x).max() <= scale / 127 * 1.001
    assert (np.asarray(coded(codec.unbiased, jnp.full((1, 9), 1e-39))) == 0).all()


def test_noise_falls_with_bits_as_documented():
    assert [round(noise(2 ** (bits - 1) - 1, 256), 4) for bits in (8, 4, 2)] == [0.0039, 0.7454, 7.5]
    assert codecs.build_codec("quantize").delta == codecs.build_codec("quantize:bits=8").delta > 0.996


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("quantize:bits=1", "bits=1 is out of range; use 2 to 16"),
        ("quantize:bits=17", "bits=17 is out of range; use 2 to 16"),
        ("quantize:bits=2.5", "bits=2.5"),
        ("top_k:fraction=0", "fraction=0 is no share of the entries; use one above 0, at most 1"),
        ("random_k:fraction=1.5", "fraction=1.5 is no share"),
        ("random_k:fraction=-1", "fraction=-1 is no share"),
        ("quantise", "did you mean 'quantize'"),
        ("topk:fraction=0.1", "did you mean 'top_k'"),
        ("identity:bits=8", "unknown key 'bits'"),
    ],
)
def test_what_does_not_fit_is_one_line(spec, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        build_codec(spec)
    assert "\n" not in str(raised.value)


def test_every_codec_is_tested():
    assert {spec.split(":")[0] for spec in SPECS} == set(CODECS)
