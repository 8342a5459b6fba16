"""Arrival orders as data: draw them without training, save them, load them, replay them.

`timeline` scans the clock alone and returns its plans; `replay` scans the learner alone over given plans, with the same
numbers as `simulate.run`. Plans also come from a file, so a run's order can be kept exactly or brought from elsewhere.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dbwjax.engine import clock
from dbwjax.engine import learner as learning
from dbwjax.engine.plans import plan_of
from dbwjax.engine.simulate import World, record
from dbwjax.files import DATA, read_arrays, replace_file
from dbwjax.types import ClockState, Learner, ModelState, Plan, Policy, StepRecord


@partial(jax.jit, static_argnames=("policy", "steps"))
def timeline(policy: Policy, world: World, state: ClockState, steps: int) -> tuple[ClockState, Plan]:
    """Runs the clock alone for `steps` steps.

    Args:
      policy: must not read training.
      world: its batches are not touched and may be `None`.
      state: from `clock.init`, or from an earlier call.
      steps: T.

    Returns:
      The clock after them, and the plans, stacked `[T, ...]`.

    Raises:
      ValueError: the policy reads training, so its clock cannot run ahead of it.
    """
    if policy.reads_training:
        raise ValueError("this policy reads training and has no timeline of its own; use simulate.run")

    def one(state: ClockState, _: None) -> tuple[ClockState, Plan]:
        plan, state = clock.tick(policy, world.graph, world.delays, world.key, state, events=world.events)
        return state, plan

    return jax.lax.scan(one, state, None, length=steps)


@partial(jax.jit, static_argnames=("learner",), donate_argnames=("state",))
def replay(learner: Learner, world: World, state: ModelState, plans: Plan) -> tuple[ModelState, StepRecord]:
    """Applies given plans to parameters: the numbers of the run that the plans came from. `state` is donated.

    Args:
      learner: what a worker does with a batch (`learner.equipped` with the policy that the plans came from).
      world: its delays are not touched and may be `None`.
      state: from `learner.init`.
      plans: stacked `[T, ...]`.

    Returns:
      The state after them, and their records, stacked `[T, ...]`.
    """

    def one(state: ModelState, plan: Plan) -> tuple[ModelState, StepRecord]:
        state, info = learning.step(learner, world.batches, plan, state, world.key)
        return state, record(world.graph, plan, info)

    return jax.lax.scan(one, state, plans)


def save(path: str | os.PathLike, plans: Plan) -> None:
    """Writes stacked plans to an `.npz` file (no pickle): one array per field, fields that are `None` left out.

    Raises:
      ValueError: the file cannot be written.
    """
    arrays: dict[str, Any] = {
        name: np.asarray(value) for name, value in plans._asdict().items() if value is not None and name != "info"
    }
    replace_file(
        Path(path),
        lambda file: np.savez_compressed(file, **arrays),
        "free some space or choose another path",
        shared=True,
    )


def load(path: str | os.PathLike, most: int = DATA) -> Plan:
    """Reads plans that `save` wrote, or that another program wrote with the same field names.

    Args:
      path: the file.
      most: bytes of all arrays together.

    Raises:
      ValueError: no such file, not an `.npz`, larger than `most`, or arrays that are no plans: of other shapes or
        kinds, not finite, numbers of nodes out of range, or weights that do not sum to one.
    """
    try:
        return plan_of(read_arrays(Path(path), "write it with timeline.save", most))
    except ValueError as error:
        where = "" if str(path) in str(error) else f"{path} is not a file of plans: "
        raise ValueError(f"{where}{error}") from error
