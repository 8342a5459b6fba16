"""The realised spectral gap: how fast the mixing that really took place brings workers together.

A window is as many steps in a row as there are nodes. Between two rows of metrics at most one is looked at, because
events are many and a spectrum takes longer than they do. The gap of a window is `1 - sigma^(1/length)`, sigma being the
second largest singular value of the product of its mixing matrices: what is left of a disagreement after the window, at
worst, per step. For symmetric mixing with the same matrix in every step it is the matrix's spectral gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

MOST = 256
"""Nodes up to which it is computed: the matrices of a window are multiplied on the host."""

BLOCK = 1 << 20
"""Numbers of matrices that are written out at a time."""


class Spectrum:
    """Windows of one simulation.

    Args:
      nodes: N; beyond `MOST` nothing is kept.

    Attributes:
      steps: of the window so far; 0: none is open.
      row: of the last window that was looked at.
      product: `[N, N]` of its mixing matrices, the last one leftmost; float64.
    """

    def __init__(self, nodes: int):
        self.nodes = nodes if 1 < nodes <= MOST else 0
        self.steps, self.row, self.product = 0, -1, np.eye(self.nodes)

    def add(self, mixing: Any, rows: np.ndarray) -> Iterator[tuple[int, float]]:
        """Adds the steps of a chunk.

        Args:
          mixing: of each.
          rows: of metrics, that each counts to.

        Yields:
          Each step that ends a window, and the window's gap.
        """
        if not self.nodes:
            return
        count = len(rows)
        together = max(1, BLOCK // self.nodes**2)
        begin = -together
        for step in range(count):
            if self.steps == 0 and rows[step] <= self.row:
                continue
            if mixing.rows is not None:
                self._write(mixing, step)
            else:
                if step >= begin + together:
                    begin = step
                    matrices = _dense(mixing, begin, min(together, count - begin), self.nodes)
                self.product = matrices[step - begin] @ self.product
            self.steps += 1
            if self.steps == self.nodes:
                yield step, gap_of(self.product, self.steps)
                self.steps, self.row, self.product = 0, int(rows[step]), np.eye(self.nodes)

    def _write(self, mixing: Any, step: int) -> None:
        """A step that writes a few rows."""
        rows = mixing.rows[step]
        real = rows < self.nodes
        weights = mixing.mix[step][real].astype(np.float64)
        if mixing.sources is None:
            written = weights @ self.product
        else:
            written = np.einsum("rd,rdn->rn", weights, self.product[mixing.sources[step][real]])
        self.product[rows[real]] = written


def gap_of(product: np.ndarray, length: int) -> float:
    """`1 - sigma_2^(1/length)` of a product of so many matrices."""
    second = float(np.linalg.svd(product, compute_uv=False)[1])
    return 1.0 - second ** (1.0 / length)


def _dense(mixing: Any, first: int, count: int, nodes: int) -> np.ndarray:
    """`[count, N, N]` float64, the matrices of so many steps."""
    weights = np.asarray(mixing.mix[first : first + count], np.float64)
    if mixing.sources is None:
        return weights
    step, row = np.ogrid[:count, :nodes]
    place = (step[..., None] * nodes + row[..., None]) * nodes + mixing.sources[first : first + count]
    return np.bincount(place.ravel(), weights.ravel(), count * nodes * nodes).reshape(count, nodes, nodes)
