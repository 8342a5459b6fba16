"""Traces of measured seconds, resampled in blocks of rows."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax import build_delays

ROWS, WORKERS = 40, 3


@pytest.fixture
def file(tmp_path):
    """Row r, worker w: r + w / 10 seconds, so that a time tells its row and its worker."""
    path = tmp_path / "trace.csv"
    rows = (",".join(f"{row + worker / 10 + 1:.1f}" for worker in range(WORKERS)) for row in range(ROWS))
    path.write_text("\n".join(["a,b,c", *rows]))
    return path


@functools.partial(jax.jit, static_argnames=("draws", "workers"))
def table(model, key, draws, workers=WORKERS, first=0):
    each = jax.vmap(jax.vmap(model, (None, 0, None)), (None, None, 0))
    return each(key, jnp.arange(workers), first + jnp.arange(draws))


def rows_of(seconds):
    """The rows of the file [draws] that were taken, after a check that all workers took the same."""
    row = np.floor(np.asarray(seconds, np.float64) + 1e-4).astype(int) - 1
    np.testing.assert_array_equal(row, row[:, :1] + np.zeros((1, WORKERS), int))
    np.testing.assert_allclose(seconds - row - 1, np.arange(WORKERS)[None] / 10 + np.zeros((len(row), 1)), atol=1e-4)
    return row[:, 0]


@pytest.mark.parametrize("length", [1, 7, ROWS - 1])
def test_blocks_are_runs_of_whole_rows(file, length):
    model = build_delays(f"trace:path={file},resample=blocks:{length}", WORKERS)
    rows = rows_of(table(model, jax.random.key(0), 30 * length)).reshape(30, length)
    np.testing.assert_array_equal(rows - rows[:, :1], np.arange(length)[None] + np.zeros((30, 1), int))
    assert rows.min() >= 0
    assert rows.max() < ROWS
    assert len(np.unique(rows[:, 0])) > 1


def test_every_block_is_as_likely_as_any_other(file):
    length, blocks = 5, 7200
    model = build_delays(f"trace:path={file},resample=blocks:{length}", WORKERS)
    first = rows_of(table(model, jax.random.key(1), blocks * length))[::length]
    places = ROWS - length + 1
    counts = np.bincount(first, minlength=places)
    assert len(counts) == places
    expected = blocks / places
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < places - 1 + 5 * math.sqrt(2 * (places - 1))
    # Neighbouring blocks are drawn independently.
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4 / math.sqrt(blocks)


def test_the_mean_is_the_files(file):
    model = build_delays(f"trace:path={file},resample=blocks:4", WORKERS)
    seconds = np.asarray(table(model, jax.random.key(2), 20_000), np.float64)
    expected = np.arange(1, ROWS + 1)[:, None] + np.arange(WORKERS)[None] / 10
    # 5,000 independent blocks; rows near the ends are in fewer of them, which is symmetric here.
    error = expected[:, 0].std() / math.sqrt(5000)
    np.testing.assert_allclose(seconds.mean(axis=0), expected.mean(axis=0), atol=4 * error)


def test_a_world_is_a_resampling_and_without_it_all_worlds_are_the_file(file):
    plain = build_delays(f"trace:path={file}", WORKERS)
    drawn = build_delays(f"trace:path={file},resample=blocks:6", WORKERS)
    again = build_delays(f"trace:path={file},resample=blocks:6", WORKERS, seed=9)
    keys = [jax.random.key(seed) for seed in range(3)]
    one, other, third = (np.asarray(table(drawn, key, 120)) for key in keys)
    np.testing.assert_array_equal(one, table(again, keys[0], 120))  # the world's key alone matters
    assert (one != other).any()
    assert (other != third).any()
    for key in keys:
        np.testing.assert_array_equal(table(plain, key, ROWS), table(plain, keys[0], ROWS))
    none = build_delays(f"trace:path={file},resample=none", WORKERS)
    np.testing.assert_array_equal(table(none, keys[0], 120), table(plain, keys[0], 120))


def test_a_draw_depends_on_its_number_alone_however_large(file):
    model = build_delays(f"trace:path={file},resample=blocks:6", WORKERS)
    key, far = jax.random.key(0), 2**31 - 100
    late = np.asarray(table(model, key, 90, first=far))
    rows_of(late)
    for n in (0, 5, 6, 89):
        np.testing.assert_allclose(model(key, jnp.asarray(1), jnp.asarray(far + n)), late[n, 1], rtol=1e-6)


def test_factors_of_a_product_are_resampled_apart(file):
    spec = f"trace:path={file},resample=blocks:1"
    seconds = np.asarray(table(build_delays(f"{spec}*{spec}", WORKERS), jax.random.key(3), 400), np.float64)[:, 0]
    assert (np.abs(np.sqrt(seconds) - np.round(np.sqrt(seconds))) > 1e-3).any()  # not the same row twice


@pytest.mark.parametrize(("rows", "length"), [(2, 1), (3, 2), (9, 3), (10, 4), (100, 10), (101, 11)])
def test_blocks_alone_are_the_square_root_of_the_rows_long(tmp_path, rows, length):
    file = tmp_path / "trace.csv"
    file.write_text("\n".join(str(row + 1) for row in range(rows)))
    key = jax.random.key(0)
    found, expected = (
        table(build_delays(f"trace:path={file},resample={words}", 1), key, 300, workers=1)
        for words in ("blocks", f"blocks:{length}")
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("resample", "message"),
    [
        ("bootstrap", "is not a choice; use none, blocks or blocks:LENGTH"),
        ("blocks:", "is not a choice"),
        ("blocks:x", "is not a choice"),
        ("blocks:-2", "is not a choice"),
        ("blocks:1.5", "is not a choice"),
        ("none:3", "is not a choice"),
        ("blocks:0", "blocks of 0 of the 40 rows"),
        ("blocks:40", "use 1 to 39"),
        ("blocks:41", "use 1 to 39"),
    ],
)
def test_a_resampling_that_is_none(file, resample, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        build_delays(f"trace:path={file},resample={resample}", WORKERS)
    assert f"resample={resample}" in str(caught.value)
    assert message in str(caught.value)


def test_a_single_row_cannot_be_resampled(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text("1,2\n")
    with pytest.raises(ValueError, match=r"has a single row, so every draw is the same; leave resample= out$"):
        build_delays(f"trace:path={file},resample=blocks", 2)
