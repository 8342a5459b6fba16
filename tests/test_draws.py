"""Random numbers of one hash: JAX's own Threefry, bit for bit, and the laws that they should have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from dbwjax.network import draws
from dbwjax.network.bitmask import WORD, count_flagged, flagged, rows_as_words

KEY = jax.random.key(7)
WORKERS, STARTED = (grid.reshape(-1) for grid in np.mgrid[0:200, 0:500])


def drawn(law, dtype=jnp.float32, key=KEY):
    return np.asarray(jax.vmap(lambda w, s: law(key, w, s, dtype))(WORKERS, STARTED))


def test_words_are_those_of_jax():
    ours = jax.vmap(lambda w, s: jnp.stack(draws.words(KEY, w, s)))(WORKERS, STARTED)
    counters = np.stack([WORKERS, STARTED]).astype(np.uint32)
    np.testing.assert_array_equal(ours.T, threefry_2x32(jax.random.key_data(KEY), counters.reshape(-1)).reshape(2, -1))


def test_large_counters_do_not_collide():
    pairs = [(0, 0), (1, 0), (0, 1), (2**31 - 1, 0), (0, 2**31 - 1)]
    found = {tuple(int(word) for word in draws.words(KEY, jnp.int32(w), jnp.int32(s))) for w, s in pairs}
    assert len(found) == len(pairs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("law", "true"), [(draws.uniform, stats.uniform), (draws.exponential, stats.expon), (draws.normal, stats.norm)]
)
def test_laws(x64, law, true, dtype):
    values = drawn(law, dtype)
    assert values.dtype == dtype
    assert np.isfinite(values).all()
    assert stats.kstest(values, true.cdf).pvalue > 0.01
    # Neither along the workers nor along the computations does one draw tell the next.
    grid = values.reshape(200, 500)
    for a, b in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
        assert abs(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1]) < 4 / a.size**0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ends_of_the_range_are_finite(x64, monkeypatch, dtype):
    for word in (0, 2**32 - 1):
        monkeypatch.setattr(draws, "words", lambda *_, word=word: (jnp.uint32(word), jnp.uint32(word)))
        assert 0 <= draws.uniform(KEY, 0, 0, dtype) < 1
        assert 0 <= draws.exponential(KEY, 0, 0, dtype) < 40
        assert abs(draws.normal(KEY, 0, 0, dtype)) < 9


def test_another_generator():
    key = jax.random.key(0, impl="rbg")
    values = np.array([draws.uniform(key, w, s, jnp.float32) for w in range(10) for s in range(10)])
    assert len(np.unique(values)) == 100
    assert stats.kstest(values, stats.uniform.cdf).pvalue > 0.001


@pytest.mark.parametrize("count", [1, 7, WORD, WORD + 1, 100])
def test_flagged(count):
    rng = np.random.default_rng(count)
    for share in (0, 0.5, 1):
        flags, nodes = rng.random(count) < share, rng.integers(0, count, (5, 9))
        np.testing.assert_array_equal(flagged(jnp.asarray(flags), jnp.asarray(nodes)), flags[nodes])


@pytest.mark.parametrize("count", [1, 7, WORD, WORD + 1])
def test_flagged_nodes_of_a_row_are_counted(count):
    rng = np.random.default_rng(count)
    flags, nodes = rng.random(count) < 0.5, np.array([rng.permutation(count) for _ in range(count)])
    kept = rng.random(nodes.shape) < 0.7
    rows = rows_as_words(nodes, kept)
    if count > WORD:
        assert rows is None
    else:
        np.testing.assert_array_equal(count_flagged(jnp.asarray(flags), rows), (kept & flags[nodes]).sum(axis=1))
