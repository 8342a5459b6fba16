"""The realised spectral gap: of constant mixing it is the matrix's, of random windows NumPy's, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest

from dbwjax.experiments.spectrum import MOST, Spectrum, gap_of
from dbwjax.network import graphs
from dbwjax.network.properties import spectral_gap
from dbwjax.network.weights import dense, metropolis
from dbwjax.types import Mixing

N, STEPS = 6, 40
RNG = np.random.default_rng(0)


def found(mixing, rows, cuts=(STEPS,)):
    """The gaps by step, the steps being handed over in pieces."""
    spectrum, first, seen = Spectrum(N), 0, {}
    for last in cuts:
        piece = Mixing(*(None if leaf is None else leaf[first:last] for leaf in mixing))
        seen |= {first + step: gap for step, gap in spectrum.add(piece, rows[first:last])}
        first = last
    return seen


def test_of_one_symmetric_matrix_it_is_the_gap_of_that():
    graph = graphs.ring(N)
    matrix = np.asarray(dense(metropolis().apply(None, graph, graph.links), graph))
    mixing = Mixing(np.broadcast_to(matrix, (STEPS, N, N)), None, None)
    gaps = found(mixing, np.arange(STEPS))
    assert list(gaps) == [5, 11, 17, 23, 29, 35]
    assert list(gaps.values()) == pytest.approx([spectral_gap(matrix.astype(float))] * 6, rel=1e-5)


def padded():
    sources = RNG.integers(0, N, (STEPS, N, 3))
    weights = RNG.random((STEPS, N, 3))
    return Mixing(weights / weights.sum(axis=2, keepdims=True), sources, None)


def events():
    """Two rows of each step, some of them nobody's."""
    rows = np.stack([RNG.permutation(N + 1)[:2] for _ in range(STEPS)])
    return Mixing(np.full((STEPS, 2, 2), 0.5), np.stack([np.minimum(rows, N - 1)] * 2, axis=1), rows)


def matrix_of(mixing, step):
    matrix = np.eye(N)
    rows = np.arange(N) if mixing.rows is None else mixing.rows[step]
    for place, row in enumerate(rows):
        if row < N:
            matrix[row] = 0
            for weight, source in zip(mixing.mix[step, place], mixing.sources[step, place], strict=True):
                matrix[row, source] += weight
    return matrix


@pytest.mark.parametrize("make", [padded, events])
def test_windows_are_products_one_between_two_rows_whatever_the_chunks(make):
    mixing, rows = make(), np.repeat(np.arange(4), 10)
    gaps = found(mixing, rows)
    # Windows begin with the first step of a row that is not looked at yet: 0, 10, 20 and 30.
    assert list(gaps) == [5, 15, 25, 35]
    for step, gap in gaps.items():
        product = np.eye(N)
        for k in range(step - N + 1, step + 1):
            product = matrix_of(mixing, k) @ product
        assert gap == pytest.approx(1 - np.linalg.svd(product)[1][1] ** (1 / N), rel=1e-12)
    for cuts in ((3, 4, 17, STEPS), tuple(range(1, STEPS + 1))):
        assert found(mixing, rows, cuts) == pytest.approx(gaps, rel=1e-12)


def test_who_is_alone_or_too_many_has_none():
    for nodes in (1, MOST + 1):
        mixing = Mixing(np.ones((2, nodes, 1)), np.zeros((2, nodes, 1), int), None)
        assert list(Spectrum(nodes).add(mixing, np.arange(2))) == []
    assert gap_of(np.full((4, 4), 0.25), 4) == pytest.approx(1, abs=1e-3)
