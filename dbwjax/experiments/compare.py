"""Comparisons in Python: policies in paired worlds, without files.

`train_policy` trains one policy in one world. `compare` trains several in the same worlds, and concludes by
`report.statistics`. What is given as an object is the same in every world; SPEC strings and functions of a seed are
drawn anew in each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax.engine.programs import canonical
from dbwjax.experiments.accounting import even_grid
from dbwjax.experiments.blocks import Places, blocks, sizes
from dbwjax.experiments.budget import grids
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.driver import evaluate_own
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.problem import Drawn, Problem, World, assemble, message_bytes
from dbwjax.experiments.training import SINGLE_WORKERS, Diverged, Training
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network.delays import build_delays
from dbwjax.network.graphs import build_graph, pad
from dbwjax.network.node_names import names_of
from dbwjax.policies import build_policy
from dbwjax.tasks import Task, build_task, of_one_width
from dbwjax.types import DelayModel, Graph, Policy


class Result(NamedTuple):
    """What `train_policy` returns."""

    rows: list[dict[str, Any]]  # one per time of the grid, in the columns of `metrics.jsonl` from `row` on
    params: Any  # [N, ...] what each worker holds at the budget
    duration: np.ndarray  # [T] float32 seconds of each step
    active: np.ndarray  # [T, N] bool
    backup_workers: np.ndarray  # [T] float32, mean over workers
    length: np.ndarray  # [n] float32 seconds of the iterations that ended by the budget


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
      optimizer: an optax `GradientTransformation`, one state per worker.
      seconds: the budget of virtual time; or
      steps: the budget is the time that this policy itself needs for so many iterations.
      rows: rows of metrics, evenly spaced in time.
      eval_every: with `steps`: rows at the ends of iterations `eval_every`, 2 `eval_every`, ... instead.
      times: with neither: the times of the rows, ascending; a 0 is put before them.
      seed: of delays, batches and initial parameters, and of what is given as a SPEC.
      workers: N, where everything is a SPEC.

    Returns:
      The metrics, what each worker holds at the budget, and the history of the steps.

    Raises:
      ValueError: numbers out of range, numbers of workers that differ, or a policy that does not fit the graph.
      Diverged: a loss was not finite.
    """
    problem = _problem({"policy": policy}, task, graph, delays, optimizer, [seed], workers)
    grid = _grid(problem, seconds, steps, rows, eval_every, times)
    places = Places(problem, [_device()], False, 1)
    (block,) = blocks(["policy"], [problem], [1])
    computes = np.asarray(problem.alone(0).graph.computes)
    evaluate = evaluate_own(problem, np.array([0])) if computes.sum() <= SINGLE_WORKERS else None
    training, found = Training(places.place(block), [grid], computes, True, evaluate), []
    account = training.accounts[0]
    while not training.done:
        found += [row for _, row in training.advance()]
        if account.diverged < len(grid):
            raise Diverged(float(grid[account.diverged]))
    params = jax.tree.map(lambda leaf: leaf[0], training.place.own(training.held))
    return Result(found, params, account.duration, account.active, account.backup_workers, account.length)


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
                where = Path(path)
                style.save(figure, where.parent, where.stem, (where.suffix.removeprefix(".") or "png",))
        return figure


def compare(
    policies: Mapping[str, Policy | str] | Sequence[str],
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
      batch_size, model, partition: of a task that is a SPEC.

    Returns:
      Rows, intervals, `.table()` and `.plot()`.

    Raises:
      ValueError: numbers out of range, numbers of workers that differ, or a policy that does not fit a graph.
    """
    if seeds < 1:
        raise ValueError(f"seeds={seeds} is no number of worlds; use 1 or more")
    named = dict(policies) if isinstance(policies, Mapping) else {spec: spec for spec in policies}
    if not named:
        raise ValueError("policies names nobody; give at least one")
    over = list(named)[-1] if baseline is None else baseline
    if over not in named:
        raise ValueError(f"baseline '{over}' is not among the policies {list(named)}")
    if isinstance(optimizer, str):
        optimizer = build_optimizer(optimizer, learning_rate)
    words = {"batch_size": batch_size, "model": model, "partition": partition}
    problem = _problem(named, task, graph, delays, optimizer, range(seed, seed + seeds), workers, words)
    _one_budget(seconds, steps)
    config = TrainConfig(policies=tuple(named), baseline=over, seconds=seconds, steps=steps, rows=rows)
    found, timelines = _run(problem, config)
    worlds = fingerprints(problem)
    from dbwjax.experiments.picture import picture_of
    from dbwjax.report.statistics import summarise

    picture = picture_of(problem, graph if isinstance(graph, str) else "")
    has_accuracy = any(row["test_accuracy"] is not None for row in found)
    summary = summarise(found, worlds, list(named), over, target_accuracy if has_accuracy else None)
    if problem.names is not None:
        summary["names"] = problem.names
    return Comparison(found, worlds, summary, timelines, picture)


def _run(problem: Problem, config: TrainConfig) -> tuple[list[dict[str, Any]], dict]:
    """All policies in all worlds: rows, and timelines by policy and world."""
    times, devices = grids(problem, config), jax.devices()
    fit = sizes(problem, devices, max(map(len, times)))
    places = Places(problem, devices, fit.cut, fit.size)
    rows: list[dict[str, Any]] = []
    timelines: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for block in blocks(config.policies, [problem], [fit.size]):
        filled = block.which[:1] if places.cut else places.filled(block.which)
        computes = np.asarray(problem.alone(int(filled[0])).graph.computes)
        few = bool(computes.sum() <= SINGLE_WORKERS)
        evaluate = evaluate_own(problem, filled) if few else None
        grid = [times[which] for which in filled]
        training = Training(places.place(block), grid, computes, few, evaluate, real=len(block.which))
        values = [problem.told[int(which)].values for which in block.which]
        found: list[tuple[int, dict[str, Any]]] = []
        while not training.done:
            found += [(sim, {"policy": block.spec, **values[sim], **row}) for sim, row in training.advance()]
        rows += [row for _, row in sorted(found, key=lambda item: (item[0], item[1]["row"]))]
        for value, account in zip(values, training.accounts, strict=False):
            kept = {name: getattr(account, name) for name in ("duration", "active", "backup_workers", "length")}
            timelines.setdefault(block.spec, {})[str(value["world"])] = kept
    return rows, timelines


def _device() -> Any:
    return jax.devices()[0]


def _one_budget(seconds: float | None, steps: int | None) -> None:
    if (seconds is None) == (steps is None):
        raise ValueError(f"seconds={seconds}, steps={steps}: give one budget")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"seconds={seconds:g} is no budget; use a finite time above 0")
    if steps is not None and steps < 1:
        raise ValueError(f"steps={steps} is not a number of iterations; use 1 or more")


def _grid(
    problem: Problem,
    seconds: float | None,
    steps: int | None,
    rows: int,
    eval_every: int | None,
    times: Sequence[float] | None,
) -> np.ndarray:
    if rows < 1:
        raise ValueError(f"rows={rows} is not a number of rows; use 1 or more")
    if times is not None:
        if seconds is not None or steps is not None:
            raise ValueError("times= are the budget; leave seconds= and steps= out")
        grid = np.concatenate([[0.0], np.asarray(times, np.float64)])
        if not np.isfinite(grid).all() or len(grid) < 2 or (np.diff(grid)[1:] <= 0).any() or grid[1] < 0:
            raise ValueError(f"times={times} are not ascending finite times from 0 on")
        return grid[1:] if grid[1] == 0 else grid
    _one_budget(seconds, steps)
    if eval_every is not None:
        if steps is None:
            raise ValueError("eval_every counts iterations; use rows with seconds")
        if not 1 <= eval_every <= steps:
            raise ValueError(f"eval_every={eval_every} is out of range; use 1 to steps={steps}")
    if seconds is not None:
        return even_grid(seconds, rows)
    policies = tuple(problem.policies)
    config = TrainConfig(policies=policies, seconds=None, steps=steps, rows=rows, eval_every=eval_every)
    return grids(problem, config)[0]


def _problem(
    policies: Mapping[str, Policy | str],
    task: Any,
    graph: Any,
    delays: Any,
    optimizer: Any,
    seeds: Sequence[int],
    workers: int | None,
    words: Mapping[str, Any] | None = None,
) -> Problem:
    """Worlds from objects, SPECs and functions of a seed."""
    count = _workers(task, graph, workers)
    built = {name: build_policy(one) if isinstance(one, str) else one for name, one in policies.items()}
    names = names_of(graph if isinstance(graph, str) else "", delays if isinstance(delays, str) else "", count)

    def drawn(seed: int) -> Drawn:
        law = build_delays(delays, count, seed) if isinstance(delays, str) else delays
        what = build_task(task, workers=count, seed=seed, **(words or {})) if isinstance(task, str) else task
        # Functions that are made anew in every world are one function, or worlds would not be one batch.
        what = canonical(what if isinstance(what, Task) else what(seed))
        net = build_graph(graph, count, seed, message_bytes(what)) if isinstance(graph, str) else graph
        net = net if isinstance(net, Graph) else net(seed)
        _same_workers(what, net, law)
        return Drawn(seed, net, law, what)

    found = [drawn(seed) for seed in seeds]
    tasks = of_one_width([one.task for one in found if one.task is not None])
    slots = max(one.graph.neighbours.shape[1] for one in found)
    found = [
        one._replace(task=task, graph=one.graph if one.graph.neighbours.shape[1] == slots else pad(one.graph, slots))
        for one, task in zip(found, tasks, strict=True)
    ]
    told = [World({"world": seed}, TrainConfig(), seed) for seed in seeds]
    return assemble(told, found, built, optimizer)._replace(names=names)


def _workers(task: Any, graph: Any, workers: int | None) -> int:
    """N, from whatever says it."""
    if isinstance(task, Task):
        return len(task.sizes)
    if isinstance(graph, Graph):
        return int(np.asarray(graph.computes).sum())
    if workers is None:
        raise ValueError("nothing says how many workers there are; give workers=")
    return workers


def _same_workers(task: Task, graph: Graph, delays: DelayModel) -> None:
    """Raises `ValueError` unless task, graph and delays are of the same number of workers."""
    counts = {"task": len(task.sizes), "graph": int(np.asarray(graph.computes).sum())}
    told = getattr(delays, "workers", None)
    if told is not None:
        counts["delays"] = told
    if len(set(counts.values())) > 1:
        said = ", ".join(f"the {name} is of {count}" for name, count in counts.items())
        raise ValueError(f"numbers of workers differ ({said}); build all of them with the same workers=")
