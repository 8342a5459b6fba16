"""The clocks of a sweep alone: which rule is quick, not which learns.

A simulation's one row is dated at its budget and counts, for every worker, the iterations that ended by then.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.engine import ensemble
from dbwjax.engine.batch import rows_of, spread, take
from dbwjax.experiments.accounting import mean
from dbwjax.experiments.blocks import Block, Sizes
from dbwjax.experiments.budget import CLOCKS, TICKS
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.training import Stalled
from dbwjax.runtime import memory

TICK = 32
"""Bytes of a clock for each worker and slot; `backup` needs most, 30 (what the compiler says, 5,000 workers)."""


def clocks_at_once(problem: Problem) -> Sizes:
    """How many clocks run side by side.

    Raises:
      ValueError: not even one fits the memory.
    """
    count, slots = len(problem.told), problem.worlds.tree.graph.neighbours.shape[-1]
    each, free = TICK * problem.workers * slots, memory.available_bytes()
    most = min(int(free // each), CLOCKS)
    if most < 1:
        what = f"a clock of --workers {problem.workers} and {slots - 1} neighbours"
        fits = memory.largest(lambda workers: TICK * workers * min(slots, workers), free, problem.workers)
        memory.require_memory(each, what, f"use at most {fits} workers", free)
    return Sizes(min(most, count), most, False)


def clock_rows(problem: Problem, block: Block, budgets: np.ndarray, size: int, mesh: Any) -> list[dict[str, Any]]:
    """One row for each simulation of a block.

    Args:
      problem: the worlds.
      block: which of them, under which policy.
      budgets: `[B]` seconds of each of the problem's worlds.
      size: simulations of a full block.
      mesh: the devices that share them.
    """
    shares = 1 if mesh is None else mesh.size
    filled = np.resize(block.which, -(-size // shares) * shares)
    some = spread(take(problem.worlds, filled), mesh)
    policy, budget = problem.policies[block.spec], budgets[filled]
    clocks = ensemble.start(some, rows_of(problem.states[block.spec], filled), mesh)
    sums, origin, steps = np.zeros((len(_NAMES), len(filled))), np.zeros(len(filled)), 0
    while True:
        clocks, record = ensemble.clock_batch(policy, some, clocks, TICKS, mesh, jnp.asarray(budget - origin))
        found = jax.device_get(record)
        if np.isnan(found.duration).any():
            raise Stalled(steps, float("nan"))
        sums += _sums(found)
        origin = np.minimum(origin + found.duration.astype(np.float64).sum(axis=1), 2 * budget + 1)
        steps += TICKS
        if (found.ended[:, -1] == 0).all():
            break
    rows = [_row(dict(zip(_NAMES, sums[:, i], strict=True)), budget[i], problem.workers) for i in range(len(filled))]
    told = problem.told
    return [
        {"policy": block.spec, **told[int(which)].values, **row} for which, row in zip(block.which, rows, strict=False)
    ]


_NAMES = ("active", "gradients", "missed", "steps", "ended", "length", "computing", "wasted", "waiting")


def _sums(found: ensemble.ClockRecord) -> np.ndarray:
    """Totals over the steps of a chunk, `[9, B]`, in the order of `_NAMES`."""
    counts = found.ended > 0
    missed = np.where(counts, found.backup_workers, 0)
    kept = (found.active, found.gradients, missed, counts, found.ended, found.length, *found[6:9])
    return np.stack([np.asarray(one, np.float64).sum(axis=1) for one in kept])


def _row(found: dict[str, float], budget: float, workers: int) -> dict[str, Any]:
    return {
        "row": 1,
        "virtual_time": float(budget),
        "step": found["ended"] / workers,
        "active_fraction": mean(found["active"], found["ended"]),
        "backup_workers": mean(found["missed"], found["steps"]),
        "gradients": int(found["gradients"]),
        "computing": found["computing"],
        "wasted": found["wasted"],
        "waiting": found["waiting"],
        "iteration_length": mean(found["length"], found["ended"]),
    }
