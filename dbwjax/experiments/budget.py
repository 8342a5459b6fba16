"""The virtual times of a comparison: one grid for all policies of a world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dbwjax.engine import ensemble
from dbwjax.engine.batch import rows_of, take
from dbwjax.engine.programs import canonical
from dbwjax.experiments import training
from dbwjax.experiments.blocks import Block, Places
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.extent import require_end
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.rows import even_grid, grid_at
from dbwjax.experiments.timing import Standstill, require_times
from dbwjax.experiments.training import Stalled

CLOCKS = 1024
"""Clocks that run side by side."""

TICKS = 100
"""Steps of a clock alone in one call of the device."""


def grids(problem: Problem, config: TrainConfig) -> list[np.ndarray]:
    """`[R+1]` seconds for every world, from 0 to its budget.

    With `seconds` the budget is the same everywhere. With `steps` it is the time that the baseline needs for so many
    iterations in that world: until its slowest worker has done them.

    Raises:
      ValueError: `steps` with a baseline that reads training.
      Stalled: an iteration of the baseline never ends.
    """
    if config.seconds is not None:
        return [even_grid(config.seconds, config.rows)] * len(problem.told)
    ends = iteration_ends(problem, config.over, config.steps or 1)
    if config.eval_every is not None:
        return [grid_at(own, config.eval_every) for own in ends]
    return [even_grid(float(own[-1]), config.rows) for own in ends]


def iteration_ends(problem: Problem, spec: str, steps: int) -> np.ndarray:
    """`[B, steps]` seconds when each iteration of a policy has ended for everybody; float64, from the clocks alone.

    Raises:
      ValueError: a policy that reads training.
      NotATime: a delay is negative, not a number, or beyond what float32 holds.
      Standstill: the iterations take no time.
      Stalled: an iteration never ends.
    """
    policy = problem.policies[spec]
    if policy.reads_training:
        raise ValueError(f"--steps counts iterations of '{spec}', whose clock reads training; use --seconds")
    policy, found = canonical(policy), []  # a policy that is built anew compiles nothing
    for begin in range(0, len(problem.told), CLOCKS):
        which = np.arange(begin, min(begin + CLOCKS, len(problem.told)))
        some = take(problem.worlds_of(spec), which)
        clocks, parts, done = ensemble.start(policy, some, rows_of(problem.states[spec], which)), [], 0
        while done < steps:
            count = min(TICKS, steps - done)
            before = clocks
            clocks, record, _ = ensemble.clock_batch(policy, some, before, count, fields=("duration",))
            parts.append(np.asarray(record.duration, np.float64))
            require_times(policy, some, before, parts[-1])
            done += count
        found.append(np.concatenate(parts, axis=1))
    durations = np.concatenate(found)
    if not np.isfinite(durations).all():
        step = int(np.flatnonzero(~np.isfinite(durations).all(axis=0))[0])
        raise Stalled(step, float("inf"))
    ends = np.cumsum(durations, axis=1)
    if (ends[:, -1] == 0).any():
        raise Standstill(steps, 0.0)
    return ends


def require_ends(
    found: Sequence[Problem], places: Sequence[Places], every: Sequence[Block], times: Sequence[list[np.ndarray]]
) -> None:
    """Refuses budgets that would take more steps than can be counted or kept, by each policy's first steps in its first
    block; the program that runs them is the one that training begins with.

    Args:
      found: the problems.
      places: by problem, where its blocks run.
      every: all blocks.
      times: by problem, the grid of each of its worlds.

    Raises:
      ValueError: one line.
    """
    seen = set()
    for block in every:
        problem = found[block.problem]
        if (block.problem, block.spec) in seen or problem.policies[block.spec].reads_training:
            continue
        seen.add((block.problem, block.spec))
        place = places[block.problem].place(block)
        ticks = place.look_ahead(place.start(), training.chunk_of(place, problem.workers))
        budgets = np.array([times[block.problem][which][-1] for which in block.which])
        what = f"a budget of {budgets.max():g} s under policy '{block.spec}'"
        drifts = ticks.ended is not None
        require_end(ticks.duration[: len(budgets)], budgets, problem.workers, drifts, what, history=True)
