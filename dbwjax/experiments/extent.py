"""How large a comparison would be, estimated from its words before anything is built or written.

What is counted is certain to be needed, so that nothing is refused that would fit: worlds, rows and steps as they are
kept on the host. What a step needs on the device is estimated by `runtime.memory` and `blocks.sizes`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dbwjax import limits

if TYPE_CHECKING:
    import numpy as np

WORLD = 20_000
"""Bytes of a world on the host beside its parameters: graph, law, partition and policies' states of ten workers, as
small arrays (measured, quickstart: 100,000, some of them for a moment)."""

WORKER = 2_000
"""Bytes of a worker's place in a graph while it is built, and in the clock; a rough guess."""

ROW = 2_000
"""Bytes of a row of metrics as Python holds it."""

STEP = 40
"""Bytes of a step, beside a byte for each worker: three float32, and the baseline's times in float64."""

SPAN = 21
"""Bytes of a computation that is remembered (`spans.SPANS`)."""

MOST_SPANS = 1_000_000
"""Computations that are remembered of one policy in one world, unless all are wanted."""

KEPT_SPANS = {"auto": MOST_SPANS, "all": 2**62, "off": 0}
"""What `--timelines` may say, and how many computations are remembered then."""


class Extent(NamedTuple):
    """What is counted."""

    worlds: int
    policies: int
    workers: int
    rows: int  # of each policy in each world
    steps: int = 0  # of the baseline; 0: nobody knows them before the clocks have run

    def bytes(self) -> float:
        """Bytes on the host, at least."""
        kept = self.worlds * self.policies * self.rows * ROW + self.rows * (80 + 4 * self.workers)
        return float(
            self.workers * WORKER + kept + self.worlds * (WORLD + self.steps * STEP) + self.steps * self.workers
        )


def rows_of(rows: int, steps: int | None, every: int | None) -> int:
    """How many rows a policy gets in a world.

    >>> rows_of(100, None, None), rows_of(100, 10, 4)
    (100, 3)
    """
    return rows if every is None or steps is None else -(-steps // every)


def require_extent(extent: Extent, words: dict[str, str]) -> None:
    """Refuses a comparison that does not fit the host's memory, by the first of its counts that does not. (Of workers
    the graphs and `runtime.memory` say how many fit.)

    Args:
      extent: the counts.
      words: by `steps`, `rows` and `worlds`, what to call so many of them, as in `--rows {}`.

    Raises:
      ValueError: one line with the largest count that fits.
    """
    have = limits.host_bytes()
    so_far = extent._replace(worlds=1, rows=1, steps=0)
    if so_far.bytes() > have:  # which is said by those who know what a worker needs
        return
    for field in ("steps", "rows", "worlds"):
        count = getattr(extent, field)
        so_far = so_far._replace(**{field: count})
        if so_far.bytes() > have:
            fits = limits.largest(partial(_bytes_with, so_far, field), have, count)
            limits.require_memory(so_far.bytes(), words[field].format(count), f"use at most {fits}", have)


def _bytes_with(extent: Extent, field: str, count: int) -> float:
    return extent._replace(**{field: count}).bytes()


def require_end(
    duration: np.ndarray,
    budget: np.ndarray,
    workers: int,
    drifting: bool,
    what: str,
    history: bool,
    spans: int = MOST_SPANS,
) -> None:
    """Refuses a budget of seconds that would take more steps than can be counted or kept.

    Args:
      duration: `[B, T]` seconds of a policy's first steps in some worlds.
      budget: `[B]` seconds.
      workers: N.
      drifting: whether each worker's iterations have times of their own.
      what: names the budget and the policy.
      history: whether steps are kept.
      spans: how many computations of a world are remembered one by one.

    Raises:
      ValueError: one line.
    """
    passed = duration.astype("float64").sum(axis=1)
    if not all(0 < seconds < math.inf for seconds in passed):  # which is said where it happens
        return
    steps = float((budget / passed).max()) * duration.shape[1]
    remedy = f"use at most {limits.MOST * float(passed.min()) / duration.shape[1]:.3g} seconds"
    if steps > limits.MOST:
        raise ValueError(f"{what} takes about {steps:.3g} steps, and {limits.MOST} can be counted; {remedy}")
    if history:
        each = len(budget) * (STEP + workers * (5 if drifting else 1) + SPAN * workers * (spans > MOST_SPANS))
        have = limits.host_bytes()
        remedy = f"use at most {float(budget.max()) * have / (steps * each):.3g} seconds"
        limits.require_memory(steps * each, f"{what} takes about {steps:.3g} steps, which", remedy, have)
