"""Methods for data that differ from worker to worker: one label a worker against IID data, and what a step costs.

    python -m benchmarks heterogeneous               measures
    python -m benchmarks.heterogeneous --write       puts the tables into docs/heterogeneous-data.md

Ten workers on a ring, softmax regression on digits, exponential times, equal virtual time: what is evaluated is the
model after the last iteration that has ended for everybody by then. Each method's step size is the one of `STEPS` of
the best mean accuracy on worlds that are not reported. Differences from `full` are paired by world, with Student's 95 %
interval. A step's time is measured in turns with `full`'s: 2nn, 64 workers, batches of 32.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import results, timing
from benchmarks.rule_table import FILE, show_or_write
from benchmarks.step import RATE, problem
from benchmarks.worlds import initial_params, make_world
from dbwjax import build_task
from dbwjax.engine import simulate
from dbwjax.engine.learner import equipped, from_optimizer
from dbwjax.learners import build_optimizer, with_rates
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.tasks.datasets import load

WORKERS, SECONDS = 10, 120.0
LAW = "shifted_exponential:shift=0.5,rate=1"
BASE = "full"
METHODS = (BASE, "tracking", "d2", "qgm", "dpsgd", "dual_averaging")
STEPS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Learning rates; of dual averaging, its alpha."""
CHOOSING, JUDGING = range(10, 15), range(10)
"""Seeds of the worlds that choose the step sizes, and of those that are reported."""
STEP_METHODS = (BASE, "tracking", "d2", "qgm")
STEPS_TIMED = 4
SHORTEST = 1.6
"""Seconds of an iteration: each method's mean is more."""
SEEN = ("mean model", "worst worker")
PAGE = Path(__file__).parents[1] / "docs" / "heterogeneous-data.md"


def one_label(seed: int) -> Any:
    """Worker k holds the images of digit k, and nothing else."""
    labels = load("digits").train_labels
    order = np.random.default_rng(seed).permutation(len(labels))
    return _task(seed, [order[labels[order] == label] for label in range(WORKERS)])


def iid(seed: int) -> Any:
    """All workers have like data."""
    return _task(seed, "iid")


def _task(seed: int, partition: Any) -> Any:
    return build_task("digits", model="lrm", workers=WORKERS, batch_size=32, partition=partition, seed=seed)


@partial(jax.jit, static_argnames=("policy", "learner", "iterations"))
def at_the_end(policy: Any, learner: Any, world: Any, states: Any, evaluate: Any, seconds: Any, iterations: int) -> Any:
    """Of S states: accuracy of the mean model and of the worst worker when the time is up, and iterations done."""

    def one(state: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            state, time, done = carry
            after, record = simulate.scan(policy, learner, world, state, 1)
            goes = time + record.duration[0] <= seconds
            kept = jax.tree.map(partial(jnp.where, goes), after, state)
            return (kept, jnp.where(goes, time + record.duration[0], time), done + goes), None

        start = (state, jnp.zeros(()), jnp.zeros((), jnp.int32))
        (state, _, done), _ = jax.lax.scan(body, start, None, length=iterations)
        report, params = equipped(learner, policy).report, state.model.params
        params = params if report is None else jax.vmap(report)(params, state.model.local)
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), params)
        own = jax.lax.map(evaluate, params)["test_accuracy"]
        return evaluate(mean)["test_accuracy"], own.min(), done

    return jax.lax.map(one, states)


def ends(task_of: Any, seeds: Sequence[int], seconds: float) -> dict[str, np.ndarray]:
    """By method, `[worlds, step sizes, 3]`: accuracy of the mean model and of the worst worker, iterations."""
    first = task_of(seeds[0])
    learner = from_optimizer(first.loss, build_optimizer("sgd", 0.1))
    found: dict[str, list] = {method: [] for method in METHODS}
    for seed in seeds:
        task = task_of(seed)
        world = make_world(task, graphs.ring(WORKERS), delays.build_delays(LAW, WORKERS, seed), seed)
        params = initial_params(task, world)
        for method in METHODS:
            policy = _policy(method)
            begun = simulate.init(policy, learner, world, params)
            made = [_with_step(method, begun, step) for step in STEPS]
            states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
            given, most = (policy, learner, world, states, first.evaluate, seconds), int(seconds / SHORTEST)
            seen = at_the_end(*given, iterations=most)
            if int(seen[2].max()) == most:
                raise RuntimeError(f"{method}, world {seed}: the time was not up after {most} iterations")
            found[method].append(np.stack([np.asarray(one, float) for one in seen], axis=1))
    return {method: np.stack(rows) for method, rows in found.items()}


_policy = functools.cache(build_policy)


def _with_step(method: str, state: Any, step: float) -> Any:
    """The state at another learning rate; dual averaging has an alpha in its place."""
    if method == "dual_averaging":
        own = state.clock.policy._replace(alpha=jnp.asarray(step, jnp.float32))
        return state._replace(clock=state.clock._replace(policy=own))
    return state._replace(model=state.model._replace(local=with_rates(state.model.local, step)))


def setting(task_of: Any, choosing: range, judging: range, seconds: float) -> dict[str, Any]:
    """By method: its step size, accuracy at the end, of the worst worker too, and the differences from `full`."""
    found: dict[str, Any] = {}
    tried, judged = {}, {}
    for method, seen in ends(task_of, [*choosing, *judging], seconds).items():
        tried[method], judged[method] = seen[: len(choosing)], seen[len(choosing) :]
    best = {method: int(one[..., 0].mean(axis=0).argmax()) for method, one in tried.items()}
    for method in METHODS:
        figures: dict[str, Any] = {"step size": STEPS[best[method]]}
        figures["iterations"] = float(judged[method][:, best[method], 2].mean())
        for column, name in enumerate(SEEN):
            ours, rivals = (judged[one][:, best[one], column] for one in (method, BASE))
            figures[name] = round(float(ours.mean()), 4)
            if method != BASE:
                figures[f"{name}, less {BASE}"] = _interval(ours - rivals)
        figures["chosen among"] = [round(float(one), 4) for one in tried[method][..., 0].mean(axis=0)]
        found[method] = figures
        print("   ", method, figures, flush=True)
    return found


def _interval(gaps: np.ndarray) -> list[float]:
    """Student's 95 % interval of a mean: low, mean, high."""
    from scipy.stats import t

    reach = t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return [round(float(gaps.mean() + side * reach), 4) for side in (-1, 0, 1)]


def step_times(workers: int, rounds: int) -> dict[str, Any]:
    """Each method's step over `full`'s, in turns: median, least and greatest."""
    task = problem(workers, 32)
    graph = graphs.random_regular(workers, degree=min(4, workers - 1), seed=0)
    work = {name: _steps(name, task, graph, workers) for name in STEP_METHODS}
    seconds = timing.take_turns(work, rounds)
    found = {f"{name} over {BASE}": timing.ratios(seconds, BASE, name) for name in STEP_METHODS if name != BASE}
    return {"milliseconds of full": timing.spread([1e3 * one / STEPS_TIMED for one in seconds[BASE]]), **found}


def _steps(name: str, task: Any, graph: Any, workers: int) -> Any:
    world = make_world(task, graph, delays.build_delays("shifted_exponential", workers, 0))
    policy, learner = build_policy(name), from_optimizer(task.loss, optax.sgd(RATE))
    box = [simulate.init(policy, learner, world, initial_params(task, world))]

    def call() -> Any:
        box[0], record = simulate.run(policy, learner, world, box[0], STEPS_TIMED)
        return record.loss

    return call


def measure(quick: bool) -> dict[str, Any]:
    """The settings, and the times of a step."""
    seconds, choosing, judging = (20.0, range(2, 4), range(2)) if quick else (SECONDS, CHOOSING, JUDGING)
    found: dict[str, Any] = {"time of a step": step_times(*((8, 3) if quick else (64, 5)))}
    print(found["time of a step"], flush=True)
    for name, task_of in (("one label a worker", one_label), ("IID", iid)):
        print(name, flush=True)
        found[name] = setting(task_of, choosing, judging, seconds)
    return found


def tables(file: str | Path = FILE) -> str:
    """The tables in Markdown.

    Raises:
      ValueError: not a result file.
    """
    entry = results.load(file)["parts"].get("heterogeneous")
    if entry is None:
        return (
            "Not measured yet: `python -m benchmarks heterogeneous`, then `python -m benchmarks.heterogeneous --write`."
        )
    parts = [f"Measured {entry['date']}, commit {entry['commit']}{', quick' * entry['quick']}, {len(JUDGING)} worlds."]
    for name in ("one label a worker", "IID"):
        rows = [_row(method, figures) for method, figures in entry["figures"][name].items()]
        head = [
            "method",
            "step size",
            "iterations",
            *(f"{one}{less}" for one in SEEN for less in ("", f", less {BASE}")),
        ]
        parts.append(f"{name[0].upper()}{name[1:]}:\n\n{_table(head, rows)}")
    times = entry["figures"]["time of a step"]
    rows = [[f"`{name.split()[0]}`", _spread(times[name])] for name in times if "over" in name]
    return "\n\n".join([*parts, f"Time of a step:\n\n{_table(['method', f'over that of {BASE}'], rows)}"])


def _row(method: str, figures: dict[str, Any]) -> list[str]:
    cells = [f"`{method}`", f"{figures['step size']:g}", f"{figures['iterations']:.0f}"]
    for name in SEEN:
        gap = figures.get(f"{name}, less {BASE}")
        cells += [f"{figures[name]:.3f}", "-" if gap is None else f"{gap[1]:+.3f} [{gap[0]:+.3f}, {gap[2]:+.3f}]"]
    return cells


def _spread(figure: dict[str, float]) -> str:
    return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    sys.exit(show_or_write(sys.argv[1:], tables, PAGE))
