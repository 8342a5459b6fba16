"""What the time grid, more worlds and a second call cost, on the quickstart's task.

    python -m benchmarks grid

- A run on a grid of times against the same run with as many evaluations by iteration: the same worlds, as many steps,
  the mean model measured at each chunk's end (`stacked.measure`). Alone, and with five worlds side by side; under a
  global barrier, and with workers that drift apart.
- The whole command, cold, with five worlds and with one, and its training alone, warm; as the command shares worlds
  among the cores.
- A second `train_policy` call, with another seed and everything built anew, against the same steps and evaluations.
- The quickstart as the README types it, cold. Installed packages are there; no program is compiled yet.

Every ratio is of two neighbours in time, by wall seconds and by CPU seconds of all cores (`cpu`: less disturbed by
other work). The limit stands beside it.
"""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks import stacked, timing
from dbwjax.engine import ensemble
from dbwjax.engine.batch import Axes, Batch, alone
from dbwjax.experiments.blocks import Places, blocks, sizes
from dbwjax.experiments.budget import grids, iteration_ends
from dbwjax.experiments.compare import train_policy
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.driver import evaluate_own
from dbwjax.experiments.presets import quickstart
from dbwjax.experiments.problem import Problem, of_seeds, problems
from dbwjax.experiments.training import Training
from dbwjax.experiments.world_tasks import task_of
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network.delays import build_delays
from dbwjax.network.graphs import build_graph
from dbwjax.runtime.devices import cores_or
from dbwjax.types import ModelState

POLICIES = ("dybw", "full:barrier=neighbours")
WORLDS, STEPS, ROWS, PAIRS = 5, 400, 100, 5
GRID, COLD, WARM, SECOND, QUICKSTART = 1.05, 2.5, 3.5, 1.1, 60.0
"""Limits: of the ratios, and seconds."""

Clocks = tuple[float, float]


def now() -> Clocks:
    """Wall seconds, and CPU seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def turns(sides: dict[str, Callable[[], Callable[[], object]]], rounds: int, warm: bool = True) -> dict[str, list]:
    """Wall and CPU seconds of each side in each round; a side prepares (not timed) and gives what is timed.

    Args:
      sides: by name.
      rounds: how often each is timed.
      warm: whether each runs once before.
    """
    found: dict[str, list[Clocks]] = {name: [] for name in sides}
    for number in range(rounds + warm):
        for name, prepare in sides.items():
            run = prepare()
            begin = now()
            run()
            if number >= warm:
                found[name].append(tuple(b - a for a, b in zip(begin, now(), strict=True)))  # type: ignore[arg-type]
    return found


def over(found: dict[str, list], name: str, base: str, limit: float) -> dict[str, Any]:
    """`name / base` round by round, and the limit."""
    pairs = list(zip(found[name], found[base], strict=True))
    by = {clock: timing.spread([a[i] / b[i] for a, b in pairs]) for i, clock in enumerate(("wall", "cpu"))}
    return {"limit": limit, **by}


def problem_of(config: TrainConfig) -> Problem:
    """The worlds of a configuration, which are of one shape."""
    (found,) = problems(of_seeds(config))
    return found


def on_grid(problem: Problem, places: Places, spec: str, times: list[np.ndarray], own: bool) -> Callable[[], object]:
    """A function that trains a policy in all worlds of a block after another, to rows on a grid."""
    walked = list(blocks([spec], [problem], [places.size]))
    roles = problem.roles(spec)

    def run() -> None:
        for block in walked:
            filled = places.filled(block.which)
            evaluate = evaluate_own(problem, filled) if own else None
            grid = [times[which] for which in filled]
            training = Training(places.place(block), grid, roles, own, evaluate, real=len(block.which))
            while not training.done:
                training.advance()

    return run


def by_iteration(problem: Problem, places: Places, spec: str, steps: int, rows: int) -> Callable[[], object]:
    """A function that trains a policy in one block of worlds, and measures the mean model after each `steps / rows`."""
    (block,) = blocks([spec], [problem], [places.size])
    place: Any = places.place(block)
    state, chunk = place.init(), steps // rows
    graphs = place.worlds._replace(tree=place.worlds.tree.graph, axes=place.worlds.axes.graph)

    def run() -> None:
        nonlocal state
        for _ in range(rows):
            state, record = ensemble.run_batch(place.policy, place.learner, place.worlds, state, chunk)
            jax.device_get((record, measured(graphs, place.evaluations, state.model)))

    return run


def measured(graphs: Batch, evaluations: Batch, models: ModelState) -> dict[str, jax.Array]:
    """Figures of each world's mean model."""
    return _measured(graphs.tree, evaluations.tree, models, Axes((graphs.axes, evaluations.axes, 0)))


@partial(jax.jit, static_argnames="axes")
def _measured(graphs: Any, evaluations: Any, models: ModelState, axes: Axes) -> dict[str, jax.Array]:
    if models.started.shape[0] > 1:
        return jax.vmap(stacked.measure, in_axes=axes.tree)(graphs, evaluations, models)
    single = (alone(Batch(tree, axis), 0) for tree, axis in zip((graphs, evaluations), axes.tree[:2], strict=True))
    return stacked.measure(*single, jax.tree.map(lambda leaf: leaf[0], models))


def grid_over_iterations(config: TrainConfig, worlds: int, steps: int, rows: int, rounds: int) -> dict[str, Any]:
    """Each policy's run on a grid over the run by iteration."""
    figures = {}
    for spec in config.policies:
        problem = problem_of(dataclasses.replace(config, policies=(spec,), seeds=worlds))
        places = Places(problem, jax.devices()[:1], False, worlds)
        ends = iteration_ends(problem, spec, steps)[:, -1]
        times = [np.linspace(0.0, end, rows + 1) for end in ends]
        found = turns(
            {
                "grid": lambda problem=problem, places=places, spec=spec, times=times: on_grid(  # type: ignore[misc]
                    problem, places, spec, times, own=False
                ),
                "iterations": lambda problem=problem, places=places, spec=spec: by_iteration(  # type: ignore[misc]
                    problem, places, spec, steps, rows
                ),
            },
            rounds,
        )
        figures[spec] = over(found, "grid", "iterations", GRID)
    return figures


def command(*words: str) -> Callable[[], object]:
    """The command in a process of its own, with a folder of its own."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "dbwjax.train", "--out", f"{folder}/run", *words]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


def warm(config: TrainConfig, devices: Any) -> Callable[[], object]:
    """A function that trains all policies as the command does."""
    problem = problem_of(config)
    times = grids(problem, config)
    fit = sizes(problem, devices, max(map(len, times)))
    places = Places(problem, devices, fit.cut, fit.size)
    runs = [on_grid(problem, places, spec, times, own=True) for spec in config.policies]
    return lambda: [run() for run in runs]


def second_call(config: TrainConfig, steps: int, rows: int, rounds: int) -> dict[str, Any]:
    """A call whose programs are compiled, over the same steps and evaluations by iteration."""
    config = dataclasses.replace(config, policies=("dybw",), seeds=1)
    task = task_of(config)
    problem = problem_of(config)
    places, seeds = Places(problem, jax.devices()[:1], False, 1), iter(range(100))

    def call() -> Callable[[], object]:
        def run() -> None:
            law, graph = build_delays(config.delays, 10, 0), build_graph(config.graph, 10, 0)
            optimizer = build_optimizer("sgd", config.learning_rate)
            train_policy("dybw", task, graph, law, optimizer, steps=steps, rows=rows, seed=next(seeds))

        return run

    found = turns({"call": call, "steps": lambda: by_iteration(problem, places, "dybw", steps, rows)}, rounds)
    return over(found, "call", "steps", SECOND)


def measure(quick: bool) -> dict[str, Any]:
    """All of it."""
    cores = cores_or(None)
    steps, rows, rounds = (20, 5, 1) if quick else (STEPS, ROWS, PAIRS)
    small: dict[str, Any] = {"seconds": 5.0, "rows": 5, "policies": ("dybw",), "model": "lrm", "baseline": None}
    config = dataclasses.replace(quickstart(), **(small if quick else {}))
    compared = config if quick else dataclasses.replace(config, policies=POLICIES, baseline=None)
    words = ("--seconds", "5", "--rows", "5", "--policies", "dybw", "--model", "lrm") if quick else ()
    figures: dict[str, Any] = {
        f"grid over iterations, {name}": grid_over_iterations(compared, count, steps, rows, rounds)
        for name, count in (("alone", 1), (f"{WORLDS} worlds", WORLDS))
    }
    one, several = (dataclasses.replace(config, seeds=count) for count in (1, WORLDS))
    trained = {"1": warm(one, cores[:1]), "5": warm(several, cores)}
    found = turns({name: lambda run=run: run for name, run in trained.items()}, 1 if quick else 3)  # type: ignore[misc]
    figures["5 worlds over 1, training alone, warm"] = over(found, "5", "1", WARM)
    figures["second train_policy call over its steps"] = second_call(config, steps, rows, rounds)
    lines = {count: command("--seeds", count, *words) for count in ("1", "5")}
    found = turns({name: lambda run=run: run for name, run in lines.items()}, 1 if quick else 3, warm=False)  # type: ignore[misc]
    figures["5 worlds over 1, the command, cold"] = over(found, "5", "1", COLD)
    found = turns({"quickstart": lambda: command(*words)}, 1 if quick else 3, warm=False)
    both = {
        clock: timing.spread([one[i] for one in found["quickstart"]]) for i, clock in enumerate(("wall [s]", "cpu [s]"))
    }
    figures["the quickstart, cold"] = {"limit [s]": QUICKSTART, **both}
    return figures
