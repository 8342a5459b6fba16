"""When each worker computed and when it waited, computation by computation: what a Gantt chart is drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np

SPANS = {
    **{"span_worker": np.int32, "span_step": np.int32, "span_used": bool},
    **{"span_computing": np.float32, "span_waiting": np.float32, "span_communicating": np.float32},
}
"""What is remembered of the computations whose worker had gone on by the budget, in that order, arrays `[S]`: the
worker and the step in which it went on (both from 0), whether the update counted, and the seconds of the computation,
of the wait that followed, and of that wait's part in which the message waited for was in flight (not in
`span_waiting`). A worker's spans follow each other without a gap from time 0 on, so its times are their sums."""


def spans_of(ticks: Any, inside: np.ndarray, steps: int, most: int) -> dict[str, np.ndarray]:
    """The computations that end in some steps, each with its wait.

    Args:
      ticks: the steps' `Tick`, leaves `[C, ...]` on the host.
      inside: `[C, E]` which entries are before the budget.
      steps: how many steps came before.
      most: how many there is room for.
    """
    names = ("computing", "wasted", "waiting", "communicating")
    seconds = {name: np.asarray(getattr(ticks, name)) for name in names}
    step, entry = (found[:most] for found in np.nonzero(inside & (sum(seconds.values()) > 0)))  # type: ignore[operator]
    each = {name: values[step, entry] for name, values in seconds.items()}
    return {
        "span_worker": entry if ticks.nodes is None else ticks.nodes[step, entry],
        "span_step": steps + step,
        "span_used": each["computing"] > 0,
        "span_computing": each["computing"] + each["wasted"],
        "span_waiting": each["waiting"],
        "span_communicating": each["communicating"],
    }
