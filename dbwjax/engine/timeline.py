"""Arrival orders as data: draw them without training, save them, load them, replay them.

`timeline` scans the clock alone and returns its plans; `replay` scans the learner alone over given plans, with the same
numbers as `simulate.run`. Plans also come from a file, so a run's order can be kept exactly or brought from elsewhere.
"""

from __future__ import annotations

import os
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dbwjax.engine import clock
from dbwjax.engine import learner as learning
from dbwjax.engine.simulate import World, record
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
        plan, state = clock.tick(policy, world.graph, world.delays, world.key, state)
        return state, plan

    return jax.lax.scan(one, state, None, length=steps)


@partial(jax.jit, static_argnames=("learner",), donate_argnames=("state",))
def replay(learner: Learner, world: World, state: ModelState, plans: Plan) -> tuple[ModelState, StepRecord]:
    """Applies given plans to parameters: the numbers of the run that the plans came from. `state` is donated.

    Args:
      learner: what a worker does with a batch.
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
    target = Path(path)
    partial_file = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in plans._asdict().items() if value is not None}
    try:
        with open(partial_file, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(partial_file, target)
    except OSError as error:
        partial_file.unlink(missing_ok=True)
        raise ValueError(
            f"{target} cannot be written: {error.strerror}; free some space or choose another path"
        ) from error


def load(path: str | os.PathLike) -> Plan:
    """Reads plans that `save` wrote, or that another program wrote with the same field names.

    Raises:
      ValueError: no such file, not an `.npz` of plans, or fields that do not belong together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; write it with timeline.save") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a readable file of plans ({error}); write it again with timeline.save"
        ) from error
    unknown = sorted(set(arrays) - set(Plan._fields))
    missing = sorted({"duration", "fresh", "mix"} - set(arrays))
    if unknown or missing:
        raise ValueError(
            f"{path} is not a file of plans: unknown {unknown}, missing {missing}; fields are {Plan._fields}"
        )
    lengths = {name: value.shape[0] if value.ndim else None for name, value in arrays.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(f"{path}: fields differ in their number of steps: {lengths}; stack every field to [T, ...]")
    return Plan(**arrays)
