"""What `train_policy` and `compare` are given, checked: policies, budgets, and the worlds of `drawn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax import numbers
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.drawn import Broken, problem_of
from dbwjax.experiments.extent import Extent, require_extent, rows_of
from dbwjax.experiments.problem import Problem
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.limits import real, shown, whole
from dbwjax.types import Policy


def policies_of(policies: Any) -> dict[str, Policy | str]:
    """Policies and SPECs by name.

    Args:
      policies: by name, or SPECs, or one SPEC.

    Raises:
      ValueError: nobody, one without a name, or one named twice.
    """
    if isinstance(policies, str):
        policies = [policies]
    if isinstance(policies, Policy) or not isinstance(policies, Mapping | Sequence | set | frozenset):
        raise ValueError(
            f"policies={shown(policies)} have no names; give SPECs, or policies by name as {{'mine': policy}}"
        )
    if not policies:
        raise ValueError("policies names nobody; give at least one")
    for name in policies:
        if not isinstance(name, str):
            raise ValueError(f"policy {shown(name)} has no name; give policies by name, as {{'mine': policy}}")
        if not isinstance(policies, Mapping) and list(policies).count(name) > 1:
            raise ValueError(f"policy '{name}' is named twice; name it once")
    return dict(policies) if isinstance(policies, Mapping) else {spec: spec for spec in policies}


def baseline_of(named: Mapping[str, Any], baseline: Any) -> str:
    """The policy that the others are compared with: the last one, unless told otherwise.

    Raises:
      ValueError: one that is not among the policies.
    """
    over = list(named)[-1] if baseline is None else baseline
    if not isinstance(over, str) or over not in named:
        raise ValueError(f"baseline={shown(over)} is not among the policies {list(named)}")
    return over


def optimizer_of(optimizer: Any, learning_rate: float) -> Any:
    """An optimiser, from its SPEC where it is one.

    Raises:
      ValueError: an unknown SPEC, or a learning rate that is none.
    """
    if not 0 < real("learning_rate", learning_rate) < float("inf"):
        raise ValueError(f"learning_rate={learning_rate:g} is out of range; use a finite number above 0")
    return build_optimizer(optimizer, learning_rate) if isinstance(optimizer, str) else optimizer


class Told(NamedTuple):
    """The arguments of `compare`."""

    policies: Any
    task: Any
    graph: Any
    delays: Any
    optimizer: Any
    seconds: float | None
    steps: int | None
    rows: int
    seeds: int
    seed: int
    target_accuracy: float | None
    baseline: str | None
    learning_rate: float
    workers: int | None
    batch_size: int
    model: str | None
    partition: str
    world: Any = ()
    events: Any = None


def prepared(told: Told, worlds: int | None = None) -> tuple[Problem, TrainConfig]:
    """The worlds (of which so many are made) and the budget that `compare` is told.

    Raises:
      ValueError: as for `compare`.
    """
    named, seeds, seed = policies_of(told.policies), whole("seeds", told.seeds), numbers.seeds(told.seed).start
    over = baseline_of(named, told.baseline)
    target_of(told.target_accuracy, False)
    drawn = numbers.seeds(seed, seeds)[:worlds]
    budget = budget_of(told.seconds, told.steps, told.rows)
    require_room(budget, 1 if told.workers is None else whole("workers", told.workers), len(named), seeds)
    words = {name: getattr(told, name) for name in ("batch_size", "model", "partition")}
    optimizer = optimizer_of(told.optimizer, told.learning_rate)
    breaks = Broken(told.world, told.events)
    problem = problem_of(named, told.task, told.graph, told.delays, optimizer, drawn, told.workers, words, breaks)
    config = TrainConfig(policies=tuple(named), baseline=over)
    return problem, dataclasses.replace(config, seconds=budget.seconds, steps=budget.steps, rows=budget.rows)


def target_of(target_accuracy: Any, until_target: Any) -> float | None:
    """The accuracy at which a policy is stopped; `None`: it is not.

    Raises:
      ValueError: a target out of range, or none to stop at.
    """
    if target_accuracy is not None and not 0 < real("target_accuracy", target_accuracy) <= 1:
        raise ValueError(f"target_accuracy={target_accuracy:g} is out of range; use more than 0 and at most 1")
    if not isinstance(until_target, bool):
        raise ValueError(f"until_target={shown(until_target)} is no truth value; use True or False")
    if until_target and target_accuracy is None:
        raise ValueError("until_target=True has no target; give target_accuracy=")
    return float(target_accuracy) if until_target else None


class Budget(NamedTuple):
    """How long, and how many rows."""

    seconds: float | None
    steps: int | None
    rows: int
    eval_every: int | None
    times: np.ndarray | None  # [R+1] seconds from 0 on


def budget_of(seconds: Any, steps: Any, rows: Any, eval_every: Any = None, times: Any = None) -> Budget:
    """The one budget that is given, as Python's own numbers.

    Raises:
      ValueError: none or two of them, or numbers that are not whole or out of range.
    """
    found = Budget(
        None if seconds is None else real("seconds", seconds),
        None if steps is None else whole("steps", steps),
        whole("rows", rows),
        None if eval_every is None else whole("eval_every", eval_every),
        None if times is None else _times(times),
    )
    if times is not None and not (seconds is None and steps is None):
        raise ValueError("times= are the budget; leave seconds= and steps= out")
    if times is None and (seconds is None) == (steps is None):
        raise ValueError(f"seconds={shown(seconds)}, steps={shown(steps)}: give one budget")
    if found.seconds is not None and not (found.seconds > 0 and numbers.holds(found.seconds)):
        raise ValueError(f"seconds={found.seconds:g} is no budget; use a finite time above 0 ({numbers.RANGE})")
    if found.eval_every is not None:
        if found.steps is None:
            raise ValueError("eval_every counts iterations; use rows with seconds")
        if found.eval_every > found.steps:
            raise ValueError(f"eval_every={eval_every} is out of range; use 1 to steps={steps}")
    return found


def require_room(budget: Budget, workers: int, policies: int, seeds: int) -> None:
    """Raises `ValueError` for more worlds, rows or steps than the memory holds."""
    rows, steps, every = budget.rows, budget.steps, budget.eval_every
    count = rows_of(rows, steps, every) if budget.times is None else len(budget.times)
    what = "rows={}" if every is None else f"eval_every={every}, {{}} rows,"
    words = {"steps": "steps={}", "rows": what, "worlds": "seeds={}"}
    require_extent(Extent(seeds, policies, workers, count, steps or 0), words)


def _times(times: Any) -> np.ndarray:
    """`[R+1]` seconds from 0 on."""
    try:
        grid = np.concatenate([[0.0], np.asarray(times, np.float64)])
    except (TypeError, ValueError):
        grid = np.zeros(0)
    if not np.isfinite(grid).all() or len(grid) < 2 or (np.diff(grid)[1:] <= 0).any() or grid[1] < 0 or grid[-1] <= 0:
        raise ValueError(f"times={shown(times)} are not ascending finite times from 0 on")
    return grid[1:] if grid[1] == 0 else grid
