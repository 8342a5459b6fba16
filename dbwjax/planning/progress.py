"""How soon candidates learn: a short training of each under the trace's own delays, in the same replicates.

What this assumes: the order on this task, at this accuracy, is that on the user's. It does not assume that an iteration
of one rule is worth one of another, nor that late or drifting workers cost nothing: they train as they come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax.experiments.compare import compare
from dbwjax.network.assembly import pad
from dbwjax.network.graphs import build_graph
from dbwjax.network.times import Law
from dbwjax.planning.replicates import PADDED, Clocks, Links
from dbwjax.report.intervals import Time
from dbwjax.report.statistics import crossing
from dbwjax.types import Graph

ROWS = 50
"""Times at which accuracy is read."""


class Training(NamedTuple):
    """What is trained, and for how long."""

    task: Any = "digits"
    model: str | None = "lrm"
    optimizer: Any = "sgd"
    learning_rate: float = 0.1
    batch_size: int = 32
    target_accuracy: float | None = None
    steps: int = 100  # iterations of the middle candidate
    worlds: int = 5  # replicates that are trained in

    @property
    def stand_in(self) -> bool:
        """Whether nobody said what is to be trained."""
        return self.task == "digits" and self.model == "lrm"


def train(
    training: Training,
    graphs: Sequence[str],
    policies: Sequence[str],
    clocks: dict[tuple[str, str], Clocks],
    law: Law,
    links: Links,
    seed: int,
    done: Callable[[str], None],
) -> tuple[dict[tuple[str, str], list[Time]], float]:
    """Trains every candidate for the same virtual time.

    Returns:
      The times to the target of each, by replicate, and the target. Without one in `training` it is 95 % of the
      accuracy that the middle candidate ends with.

    Raises:
      ValueError: a task that does not fit, has no accuracy, or is learned by nobody.
    """
    lengths = sorted(float(one.length[0].mean()) for one in clocks.values())
    seconds = training.steps * lengths[len(lengths) // 2]
    width = max((build_graph(spec, law.workers, seed).neighbours.shape[1] for spec in graphs), default=0)
    curves: dict[tuple[str, str], list[tuple[list[float], list[float]]]] = {}
    for spec in graphs:
        found = compare(
            list(policies),
            training.task,
            _drawn(spec, law.workers, width, links),
            law,
            training.optimizer,
            seconds=seconds,
            rows=ROWS,
            seeds=training.worlds,
            seed=seed,
            learning_rate=training.learning_rate,
            workers=law.workers if isinstance(training.task, str) else None,
            batch_size=training.batch_size,
            model=training.model if isinstance(training.task, str) else None,
        )
        for row in sorted(found.rows, key=lambda row: (row["world"], row["row"])):
            if row["test_accuracy"] is None:
                raise ValueError("the task has no accuracy to reach; use --timing-only (timing_only=True)")
            own = curves.setdefault((row["policy"], spec), [])
            if row["row"] == 0:
                own.append(([], []))
            own[-1][0].append(row["virtual_time"])
            own[-1][1].append(row["test_accuracy"])
        done(spec)
    ends = sorted(float(np.mean([values[-1] for _, values in own])) for own in curves.values())
    target = training.target_accuracy
    if target is None:
        target = math.floor(95 * ends[len(ends) // 2]) / 100
    return {key: [_time(*curve, target) for curve in own] for key, own in curves.items()}, target


def _drawn(spec: str, machines: int, width: int, links: Links) -> Callable[[int], Graph]:
    """The graph of a replicate, as wide as the others where that costs little: they share one program then."""

    def draw(seed: int) -> Graph:
        graph = build_graph(spec, machines, seed)
        more = width if graph.neighbours.shape[1] <= width <= PADDED else graph.neighbours.shape[1]
        return links.of(pad(graph, more))

    return draw


def _time(times: list[float], values: list[float], target: float) -> Time:
    found = crossing(times, values, target)
    # At time 0 nothing has been learned: a target that is met there is no target.
    if found is not None and found.seconds <= 0:
        raise ValueError(f"the target {target:g} is reached before anything is learned; give a higher target")
    return Time(found.seconds) if found else Time(times[-1], False)
