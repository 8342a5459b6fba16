"""Rows of metrics as far as a clock knows them, and the grids of times on which they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def clock_row(
    number: int, seconds: float, iterations: np.ndarray, here: Mapping[str, float], so_far: Mapping[str, float]
) -> dict[str, Any]:
    """A row as far as a clock knows it, in the columns of `metrics.jsonl`.

    Args:
      number: of the row.
      seconds: its time.
      iterations: `[N]` that each worker has ended by then.
      here: sums since the row before, as far as `SUMS` names them.
      so_far: sums since the beginning.
    """
    return {
        "row": number,
        "virtual_time": seconds,
        "step": float(iterations.mean()),
        "drift": int(iterations.max() - iterations.min()),
        "active_fraction": mean(here["active"], here["ended"]),
        "backup_workers": mean(here["missed"], here["ended"]),
        "gradients": int(so_far["gradients"]),
        "computing": so_far["computing"],
        "wasted": so_far["wasted"],
        "waiting": so_far["waiting"],
        "communicating": so_far["communicating"],
        "staleness": mean(here["age"], here["gradients"]),
        "iteration_length": mean(so_far["length"], so_far["ended"]),
    }


def mean(total: float, count: float) -> float | None:
    """`total / count`; nothing has no mean, and one that is not finite is none.

    >>> mean(3.0, 2), mean(0.0, 0)
    (1.5, None)
    """
    return float(total / count) if count and np.isfinite(total) else None


def even_grid(seconds: float, rows: int) -> np.ndarray:
    """`[rows + 1]` times from 0 to `seconds`, evenly spaced.

    >>> even_grid(10.0, 4).tolist()
    [0.0, 2.5, 5.0, 7.5, 10.0]
    """
    return np.linspace(0.0, seconds, rows + 1)


def grid_at(ends: np.ndarray, every: int) -> np.ndarray:
    """Times at the ends of the iterations `every`, 2 `every`, ... and of the last.

    Args:
      ends: `[T]` seconds, when each iteration of the baseline ends.
      every: iterations.
    """
    numbers = np.unique(np.append(np.arange(every, len(ends) + 1, every), len(ends)))
    return np.concatenate([[0.0], ends[numbers - 1]])
