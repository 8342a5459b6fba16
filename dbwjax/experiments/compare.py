"""Comparisons in Python: policies in paired worlds, without files.

`train_policy` trains one policy in one world. `compare` trains several in the same worlds, and concludes by
`report.statistics`. What is given as an object is the same in every world; SPEC strings and functions of a seed are
drawn anew in each.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax import numbers, specs
from dbwjax.experiments.blocks import Places, blocks
from dbwjax.experiments.budget import grids
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.drawn import Broken, problem_of
from dbwjax.experiments.driver import evaluate_own
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.given import Budget, Told, budget_of, optimizer_of, prepared, require_room, target_of
from dbwjax.experiments.heard import heard, models_now, train_all
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.rows import even_grid
from dbwjax.experiments.training import SINGLE_WORKERS, Training
from dbwjax.limits import shown
from dbwjax.storage.callbacks import Audience, Callbacks, listed
from dbwjax.tasks import Task
from dbwjax.types import DelayModel, Graph, Policy


class Result(NamedTuple):
    """What `train_policy` returns."""

    rows: list[dict[str, Any]]  # one per time of the grid, in the columns of `metrics.jsonl` from `row` on
    params: Any  # [N, ...] what each worker holds at the budget
    model: Any  # [...] what is evaluated there: the workers' mean, or a server's model
    duration: np.ndarray  # [T] float32 seconds of each step
    active: np.ndarray  # [T, N] bool; of events [T, E], whose update counted of `workers`
    backup_workers: np.ndarray  # [T] float32, mean over workers
    length: np.ndarray  # [n] float32 seconds of the iterations that ended by the budget
    workers: np.ndarray | None = None  # [T, E] int32, of a policy whose steps are events of a few (N: nobody)
    stopped: bool = (
        False  # before the budget; `params` are then of up to 100 iterations (3,200 events) after the last row
    )


def train_policy(
    policy: Policy | str,
    task: Task | str,
    graph: Graph | str,
    delays: DelayModel | str,
    optimizer: Any,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    rows: int = 100,
    eval_every: int | None = None,
    times: Sequence[float] | None = None,
    seed: int = 0,
    workers: int | None = None,
    learning_rate: float = 0.1,
    world: Sequence[str] | str = (),
    events: str | os.PathLike | None = None,
    wide: bool | None = None,
    target_accuracy: float | None = None,
    until_target: bool = False,
    callbacks: Callbacks | Sequence[Callbacks] | None = None,
) -> Result:
    """Trains one policy in one world, in memory.

    Two calls with the same task, graph, delays, budget and seed see the same delays, batches and initial parameters,
    whatever their policies: their difference is the policies'. A second call compiles nothing that the first has
    compiled, also with another seed or with policies and optimisers that are built anew.

    Args:
      policy: who waits for whom, or its SPEC.
      task: from `build_task` or `from_arrays`, or a data set's SPEC.
      graph: who hears whom, or a SPEC.
      delays: seconds per computation, or a SPEC.
      optimizer: an optax `GradientTransformation`, one state per worker, or a SPEC.
      seconds: the budget of virtual time; or
      steps: the budget is the time that this policy itself needs for so many iterations.
      rows: rows of metrics, evenly spaced in time.
      eval_every: with `steps`: rows at the ends of iterations `eval_every`, 2 `eval_every`, ... instead.
      times: with neither: the times of the rows, ascending; a 0 is put before them.
      seed: of delays, batches and initial parameters, and of what is given as a SPEC.
      workers: N, where everything is a SPEC.
      learning_rate: of an optimiser that is a SPEC.
      world: SPECs of what breaks (docs/world.md).
      events: a CSV of who is away when, and of partitions.
      wide: whether events of an event-driven policy are put together in wide steps, which is the same run to rounding;
        `None`: on accelerators.
      target_accuracy: of `until_target`.
      until_target: stop when the target has been reached and the next row is also at or above it.
      callbacks: functions that are called as the training goes on, and may stop it.

    Returns:
      The metrics, what each worker holds at the budget, and the history of the steps.

    Raises:
      ValueError: what is none of these, numbers that are not whole or out of range, functions that do not fit the data,
        numbers of workers that differ, a policy that does not fit the graph, or more than the memory holds.
      NotATime: a delay was negative, not a number, or beyond what float32 holds; it names worker and computation.
      Standstill: time did not pass.
      Diverged: a loss was not finite.
    """
    budget = budget_of(seconds, steps, rows, eval_every, times)
    target, audience = target_of(target_accuracy, until_target), Audience(listed(callbacks))
    seed, optimizer = numbers.seeds(seed).start, optimizer_of(optimizer, learning_rate)
    breaks = Broken(world, events)
    problem = problem_of({"policy": policy}, task, graph, delays, optimizer, [seed], workers, breaks=breaks)
    require_room(budget, problem.workers, 1, 1)
    grid = _grid(problem, budget)
    places = Places(problem, [_device()], False, 1)
    (block,) = blocks(["policy"], [problem], [1])
    roles = problem.roles("policy")
    evaluate = evaluate_own(problem, np.array([0])) if roles.computes.sum() <= SINGLE_WORKERS else None
    training = Training(places.place(block), [grid], roles, True, evaluate, wide=wide)
    if wide and training.way is None:
        raise ValueError("wide=True, and the steps of this policy are no events of single workers; leave wide= out")
    where = {"policy": policy if isinstance(policy, str) else "policy", "world": seed}
    (found,) = heard(training, [where], target, audience, stops=True)
    stopped = len(found) < len(grid)
    audience.end(where, len(found), stopped)
    own_rows = [{name: row[name] for name in row if name not in where} for row in found]
    account = training.accounts[0]
    every = training.place.own(training.held) if training.done else models_now(training)
    every = jax.tree.map(lambda leaf: np.asarray(leaf[0]), every)
    params = jax.tree.map(lambda leaf: leaf[roles.computes], every)
    model = jax.tree.map(lambda leaf: np.asarray(leaf[roles.evaluated], _wide(leaf)).mean(axis=0), every)
    events = account.workers if account.workers.size else None
    history = (account.duration, account.active, account.backup_workers, account.length, events)
    return Result(own_rows, params, model, *history, stopped)


class Comparison(NamedTuple):
    """What `compare` found."""

    rows: list[dict[str, Any]]  # as in `metrics.jsonl`, by policy, world and time
    worlds: list[dict[str, Any]]  # as in `worlds.json`
    summary: dict[str, Any]  # as in `summary.json`
    timelines: dict[str, dict[str, dict[str, np.ndarray]]]  # by policy and world, as in `timeline.npz`
    picture: Any  # of the first world's network

    def table(self) -> str:
        """The table of the command line, as text."""
        from dbwjax.report.table import format_table

        return format_table(self.summary)

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """The picture that a run ends with, as a Matplotlib figure; written to `path` (png, pdf or svg) if given."""
        from dbwjax.report import style
        from dbwjax.report.run_curves import Board
        from dbwjax.report.run_figures import draw_summary

        with style.house_style():
            figure = draw_summary(Board(self.rows, self.summary, self.timelines, self.picture))
        if path is not None:
            style.save_at(figure, path)
        return figure

    def verdict(self) -> str:
        """Who is first, by how much and how sure that is, in sentences, a line each; then what to know beforehand."""
        from dbwjax.report.page.verdict import text_of, verdict_of

        return text_of(verdict_of(self.summary, self.summary["cells"][0], self.rows, self.worlds))

    def gantt(self, policy: str, path: str | os.PathLike | None = None) -> Any:
        """Who waited for whom in the first iterations of the first world, as a Matplotlib figure.

        Args:
          policy: its name.
          path: where to write it, too (png, pdf or svg).

        Raises:
          ValueError: no such policy.
        """
        from dbwjax.report import style
        from dbwjax.report.gantt import of_first_world

        if policy not in self.timelines:
            raise ValueError(f"policy={shown(policy)} was not compared; {specs.nearest(str(policy), self.timelines)}")
        figure = of_first_world(policy, self.timelines[policy], self.picture)
        if path is not None:
            style.save_at(figure, path)
        return figure

    def report(self, path: str | os.PathLike) -> Path:
        """Writes the page that a run ends with to `path`, an HTML file that needs nothing else; the file."""
        from dbwjax.experiments.pages import report_in_python

        return report_in_python(path, self.rows, self.worlds, self.summary, self.timelines, self.picture)


def compare(
    policies: Mapping[str, Policy | str] | Sequence[str] | str,
    task: Task | str | Callable[[int], Task],
    graph: Graph | str | Callable[[int], Graph],
    delays: DelayModel | str,
    optimizer: Any = "sgd",
    *,
    seconds: float | None = None,
    steps: int | None = None,
    rows: int = 100,
    seeds: int = 10,
    seed: int = 0,
    target_accuracy: float | None = None,
    baseline: str | None = None,
    learning_rate: float = 0.1,
    workers: int | None = None,
    batch_size: int = 32,
    model: str | None = None,
    partition: str = "iid",
    world: Sequence[str] | str = (),
    events: str | os.PathLike | None = None,
    until_target: bool = False,
    callbacks: Callbacks | Sequence[Callbacks] | None = None,
    progress: bool = False,
) -> Comparison:
    """Trains policies in the same worlds to the same virtual time, and says which is faster and how sure that is.

    World i has seed `seed` + i: its own delays, batches and initial parameters. What is given as an object is the same
    in all of them; SPECs, and functions of a seed, are drawn anew in each.

    Args:
      policies: SPECs, or policies (and SPECs) by name.
      task: from `build_task` or `from_arrays`, a data set's SPEC, or a function of the seed.
      graph: who hears whom, a SPEC, or a function of the seed.
      delays: seconds per computation, or a SPEC.
      optimizer: an optax `GradientTransformation`, or a SPEC.
      seconds: virtual time of each policy; or
      steps: the time that the baseline needs for so many iterations.
      rows: rows of metrics, evenly spaced in time.
      seeds: how many worlds.
      seed: of the first.
      target_accuracy: what the time to target counts to.
      baseline: what the others are compared with; default: the last policy.
      learning_rate: of an optimiser that is a SPEC.
      workers: N, where everything is a SPEC.
      batch_size: of a task that is a SPEC.
      model: of a task that is a SPEC.
      partition: of a task that is a SPEC.
      world: SPECs of what breaks (docs/world.md).
      events: a CSV of who is away when, and of partitions.
      until_target: stop a policy when all its worlds (that are trained side by side) have reached the target.
      callbacks: functions that are called as the training goes on, and may stop a policy in a world.
      progress: whether to show how far the work is: a bar in a notebook or on a terminal.

    Returns:
      Rows, intervals, `.table()` and `.plot()`.

    Raises:
      ValueError, NotATime, Standstill: as for `train_policy`.
    """
    told = Told(
        policies,
        task,
        graph,
        delays,
        optimizer,
        seconds,
        steps,
        rows,
        seeds,
        seed,
        target_accuracy,
        baseline,
        learning_rate,
        workers,
        batch_size,
        model,
        partition,
        world,
        events,
    )
    audience, target = Audience(listed(callbacks)), target_of(target_accuracy, until_target)
    problem, config = prepared(told)
    with Progress(RunOptions(progress=progress), len(problem.policies) * len(problem.told)) as bar:
        found, timelines, stopped = train_all(problem, config, target, audience, bar)
    worlds = fingerprints(problem)
    from dbwjax.experiments.picture import picture_of
    from dbwjax.report.statistics import summarise

    picture = picture_of(problem, graph if isinstance(graph, str) else "", len(problem.told) > 1)
    has_accuracy = any(row["test_accuracy"] is not None for row in found)
    summary = summarise(found, worlds, list(config.policies), config.over, target_accuracy if has_accuracy else None)
    if problem.names is not None:
        summary["names"] = problem.names
    if stopped:
        summary["stopped"] = stopped
    return Comparison(found, worlds, summary, timelines, picture)


def check(*args: Any, **named: Any) -> None:
    """Refuses what `compare` would refuse, of its first world alone; nothing runs.

    Raises:
      ValueError: as for `compare`.
    """
    try:
        bound = inspect.signature(compare).bind(*args, **named)
    except TypeError as error:
        raise ValueError(f"compare: {error}") from error
    bound.apply_defaults()
    target_of(bound.arguments["target_accuracy"], bound.arguments["until_target"])
    listed(bound.arguments["callbacks"])
    prepared(Told(**{name: bound.arguments[name] for name in Told._fields}), 1)


def _wide(leaf: np.ndarray) -> Any:
    return np.promote_types(leaf.dtype, np.float32)


def _device() -> Any:
    return jax.devices()[0]


def _grid(problem: Problem, budget: Budget) -> np.ndarray:
    if budget.times is not None:
        return budget.times
    if budget.seconds is not None:
        return even_grid(budget.seconds, budget.rows)
    told = {"steps": budget.steps, "rows": budget.rows, "eval_every": budget.eval_every}
    return grids(problem, TrainConfig(policies=tuple(problem.policies), **told))[0]  # type: ignore[arg-type]
