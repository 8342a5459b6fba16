"""The k-th smallest against NumPy's sort, on both of its ways."""

import jax
import numpy as np
import pytest

from dbwjax.policies import selection


@pytest.mark.parametrize("width", [1, 2, 9, selection.COUNTED, selection.COUNTED + 1])
@pytest.mark.parametrize("kind", ["distinct", "ties", "infinite"])
def test_the_kth_smallest_is_that_of_a_sort(width, kind):
    rng = np.random.default_rng(width)
    rows = rng.random((40, width)).astype(np.float32)
    if kind == "ties":
        rows = np.round(rows * 3)
    if kind == "infinite":
        rows[rng.random(rows.shape) < 0.4] = np.inf
    k = rng.integers(0, width + 1, 40)
    found = jax.jit(selection.kth_smallest)(rows, k)
    ordered = np.sort(rows, axis=1)
    expected = np.where(k > 0, ordered[np.arange(40), np.maximum(k - 1, 0)], -np.inf)
    np.testing.assert_array_equal(found, expected)
