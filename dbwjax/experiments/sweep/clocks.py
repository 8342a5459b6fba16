"""The clocks of a sweep alone: which rule is quick, not which learns.

A simulation's one row is dated at its budget and counts, for every worker, the iterations that ended by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax import limits
from dbwjax.engine import ensemble
from dbwjax.engine.batch import Batch, mesh_of, rows_of, spread, take
from dbwjax.experiments.blocks import Block, Sizes
from dbwjax.experiments.budget import CLOCKS, TICKS
from dbwjax.experiments.extent import require_end
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.rows import clock_row
from dbwjax.experiments.timing import Standstill, patience, require_ends, require_times
from dbwjax.experiments.training import Stalled
from dbwjax.network.delays import copies_of
from dbwjax.types import ClockState, Policy

TICK = 32
"""Bytes of a clock for each worker and slot; `backup` needs most, 30 (what the compiler says, 5,000 workers)."""


def clocks_at_once(problem: Problem) -> Sizes:
    """How many clocks run side by side.

    Raises:
      ValueError: not even one fits the memory.
    """
    count, slots = len(problem.told), problem.worlds.tree.graph.neighbours.shape[-1]
    each, free = TICK * problem.workers * slots, limits.available_bytes()
    most = min(int(free // each), CLOCKS)
    if most < 1:
        what = f"a clock of --workers {problem.workers} and {slots - 1} neighbours"
        fits = limits.largest(lambda workers: TICK * workers * min(slots, workers), free, problem.workers)
        limits.require_memory(each, what, f"use at most {fits} workers", free)
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
    filled, some, clocks = _start(problem, block, size, mesh)
    budget = budgets[filled]
    ran = run_clocks(problem.policies[block.spec], some, clocks, budget, mesh)
    sums, iterations = ran.sums, ran.iterations
    computes = np.broadcast_to(np.asarray(some.tree.graph.computes), iterations.shape)
    rows = []
    for i, which in enumerate(block.which):
        so_far = dict(zip(SUMS, sums[:, i], strict=True))
        so_far["wasted"] += (copies_of(some.tree.delays) - 1) * (so_far["computing"] + so_far["wasted"])
        said = clock_row(1, float(budget[i]), iterations[i][computes[i]], so_far, so_far)
        rows.append({"policy": block.spec, **problem.told[int(which)].values, **said})
    return rows


class Ran(NamedTuple):
    """What clocks did until their budgets."""

    sums: np.ndarray  # [fields, B] of `SUMS`, over workers
    iterations: np.ndarray  # [B, N] that ended
    clocks: ClockState  # after them; some have gone beyond their budget


def run_clocks(policy: Policy, some: Batch, clocks: ClockState, budget: np.ndarray, mesh: Any = None) -> Ran:
    """Runs clocks side by side until each is past its budget.

    Args:
      policy: of all of them.
      some: their worlds.
      clocks: at time 0.
      budget: `[B]` seconds.
      mesh: the devices that share them.

    Raises:
      NotATime, Standstill, Stalled: as for training.
    """
    sums, steps = np.zeros((len(SUMS), len(budget))), 0
    iterations = np.zeros(clocks.started.shape, int)
    origin, past, still = np.zeros(len(budget)), np.zeros(len(budget), bool), np.zeros(len(budget), int)
    while not past.all():
        left = np.where(past, -1.0, budget - origin)
        before = clocks
        clocks, record, counts = ensemble.clock_batch(policy, some, before, TICKS, mesh, left)
        record, counts = jax.device_get((record, counts))
        _require_times(policy, some, before, record, past, steps)
        require_ends(clocks, origin, record.duration, budget, steps)
        sums += [np.asarray(getattr(record, name), np.float64).sum(axis=1) for name in SUMS]
        iterations += counts
        earlier = origin
        origin = np.cumsum(np.column_stack([origin, record.duration.astype(np.float64)]), axis=1)[:, -1]
        past |= record.past[:, -1]
        steps += TICKS
        still = np.where(past | (origin > earlier), 0, still + TICKS)
        if still.max() > patience(iterations.shape[1]):
            raise Standstill(int(still.max()), float(origin[still.argmax()]))
    return Ran(sums, iterations, clocks)


def _start(problem: Problem, block: Block, size: int, mesh: Any) -> tuple[np.ndarray, Batch, ClockState]:
    """A block filled up by repeating itself: which worlds, the worlds, and their clocks at time 0."""
    shares = 1 if mesh is None else mesh.size
    filled = np.resize(block.which, -(-size // shares) * shares)
    some = spread(take(problem.worlds_of(block.spec), filled), mesh)
    return (
        filled,
        some,
        ensemble.start(problem.policies[block.spec], some, rows_of(problem.states[block.spec], filled), mesh),
    )


def require_clocks_end(
    found: Sequence[Problem],
    every: Sequence[Block],
    sizes: Sequence[int],
    times: Sequence[list[np.ndarray]],
    devices: Sequence[Any],
) -> None:
    """Refuses budgets that would take more steps than can be counted, by the first steps of each policy.

    Args:
      found: the problems.
      every: all blocks.
      sizes: by problem, simulations of a full block.
      times: by problem, the grid of each of its worlds.
      devices: to be used.

    Raises:
      ValueError: one line.
    """
    seen = set()
    for block in every:
        if (block.problem, block.spec) in seen:
            continue
        seen.add((block.problem, block.spec))
        problem, size = found[block.problem], sizes[block.problem]
        mesh = mesh_of(devices[: min(len(devices), size)])
        filled, some, clocks = _start(problem, block, size, mesh)
        budget = np.array([times[block.problem][which][-1] for which in filled])
        policy = problem.policies[block.spec]
        _, record, _ = ensemble.clock_batch(policy, some, clocks, TICKS, mesh, budget)
        what = f"a budget of {budget.max():g} s under policy '{block.spec}'"
        require_end(np.asarray(record.duration), budget, problem.workers, False, what, history=False)


SUMS = (
    *("ended", "active", "missed", "gradients", "length"),
    *("computing", "wasted", "waiting", "communicating", "age", "messages"),
)
"""Of `ensemble.ClockRecord`, what is added up."""


def _require_times(
    policy: Policy, some: Batch, clocks: Any, found: ensemble.ClockRecord, past: np.ndarray, steps: int
) -> None:
    """Raises `NotATime` or `Stalled` where a time is not a number before its simulation is past the budget."""
    running = ~np.column_stack([past, found.past[:, :-1]])
    require_times(policy, some, clocks, np.asarray(found.duration), running)
    odd = (np.isnan(found.duration) & running).any(axis=0)
    if odd.any():
        raise Stalled(steps + int(odd.argmax()), float("nan"))
