"""What `train_policy` and `compare` are given, made into worlds: objects, SPECs, and functions of a seed.

What is given as an object is the same in every world; SPECs and functions of a seed are drawn anew in each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax import numbers
from dbwjax.engine.batch import alone
from dbwjax.engine.programs import canonical
from dbwjax.experiments import probe
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.extent import Extent, require_extent, rows_of
from dbwjax.experiments.problem import Drawn, Problem, World, assemble, message_bytes
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.limits import real, shown, whole
from dbwjax.network.delays import build_delays
from dbwjax.network.graphs import build_graph, pad
from dbwjax.network.node_names import names_of
from dbwjax.policies import build_policies
from dbwjax.tasks import Task, build_task, of_one_width
from dbwjax.tasks.probe import fault_of, require_task
from dbwjax.types import DelayModel, Graph, Policy


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


def optimizer_of(optimizer: Any, learning_rate: float) -> Any:
    """An optimiser, from its SPEC where it is one.

    Raises:
      ValueError: an unknown SPEC, or a learning rate that is none.
    """
    if not 0 < real("learning_rate", learning_rate) < float("inf"):
        raise ValueError(f"learning_rate={learning_rate:g} is out of range; use a finite number above 0")
    return build_optimizer(optimizer, learning_rate) if isinstance(optimizer, str) else optimizer


def problem_of(
    policies: Mapping[str, Policy | str],
    task: Any,
    graph: Any,
    delays: Any,
    optimizer: Any,
    seeds: Sequence[int],
    workers: int | None,
    words: Mapping[str, Any] | None = None,
) -> Problem:
    """Worlds from objects, SPECs and functions of a seed.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    specs_given = [one for one in policies.values() if isinstance(one, str)]
    made = build_policies(specs_given)
    built = {name: made[one] if isinstance(one, str) else one for name, one in policies.items()}
    for name, one in built.items():
        probe.require_policy_kind(name, one)
    count = _workers(task, graph, workers)

    def drawn(seed: int) -> Drawn:
        law = build_delays(delays, _known(count), seed) if isinstance(delays, str) else delays
        # Functions that are made anew in every world are one function, or worlds would not be one batch.
        what = canonical(_task(task, count, seed, words or {}))
        if count is not None and not isinstance(task, Task) and len(what.sizes) != count:
            raise ValueError(f"the task is of {len(what.sizes)} workers, not of {count}; build it with workers={count}")
        net = _graph(graph, count, seed, message_bytes(what))
        _same_workers(what, net, law)
        return Drawn(seed, net, law, what)

    found = [drawn(seed) for seed in seeds]
    first = found[0]
    probe.require_delays(first.delays)
    assert first.task is not None
    probe.require_optimizer(optimizer, require_task(first.task))
    tasks = of_one_width([one.task for one in found if one.task is not None])
    slots = max(one.graph.neighbours.shape[1] for one in found)
    found = [
        one._replace(task=task, graph=one.graph if one.graph.neighbours.shape[1] == slots else pad(one.graph, slots))
        for one, task in zip(found, tasks, strict=True)
    ]
    told = [World({"world": seed}, TrainConfig(), seed) for seed in seeds]
    problem = assemble(told, found, built, optimizer)
    for name, policy in problem.policies.items():
        state = jax.tree.map(lambda leaf: leaf[0], problem.states[name])
        probe.require_decision(name, policy, alone(problem.worlds_of(name), 0).graph, state)
    graph_file, trace = (one if isinstance(one, str) else "" for one in (graph, delays))
    return problem._replace(names=names_of(graph_file, trace, problem.workers))


def _graph(graph: Any, workers: int | None, seed: int, message: float) -> Graph:
    """A world's graph.

    Raises:
      ValueError: what is no graph, no SPEC and no function that gives one.
    """
    net = _of_seed("graph", graph, seed) if callable(graph) else graph
    if isinstance(net, str):
        return build_graph(net, _known(workers), seed, message)
    if not isinstance(net, Graph):
        raise ValueError(
            f"graph={shown(net)} is no graph; use a SPEC, as 'ring', or network.graphs.from_adjacency(matrix)"
        )
    probe.require_graph_arrays(net)
    return net if all(isinstance(part, jax.Array) for part in jax.tree.leaves(net)) else jax.tree.map(jnp.asarray, net)


def _task(task: Any, workers: int | None, seed: int, words: Mapping[str, Any]) -> Task:
    """A world's task.

    Raises:
      ValueError: what is no task, no SPEC and no function that gives one.
    """
    what = task if isinstance(task, Task | str) or not callable(task) else _of_seed("task", task, seed)
    if isinstance(what, str):
        return build_task(what, workers=_known(workers), seed=seed, **words)
    if not isinstance(what, Task):
        raise ValueError(f"task={shown(what)} is no task; use a SPEC, as 'digits', or from_arrays(...)")
    return what


def _of_seed(name: str, function: Any, seed: int) -> Any:
    """What a user's function makes of a seed.

    Raises:
      ValueError: it fails.
    """
    try:
        return function(seed)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{name}(seed) fails for seed {seed}: {fault_of(error)}") from error


def _known(workers: int | None) -> int:
    if workers is None:
        raise ValueError("nothing says how many workers there are; give workers=")
    return workers


def _workers(task: Any, graph: Any, workers: int | None) -> int | None:
    """N, from whatever says it.

    Raises:
      ValueError: `workers` is no whole number, or differs from what an object says.
    """
    told = None if workers is None else whole("workers", workers)
    if isinstance(task, Task):
        count = int(np.size(task.sizes))
    elif isinstance(graph, Graph):
        count = int(np.sum(np.asarray(graph.computes)))
    else:
        return told
    if told not in (None, count):
        raise ValueError(f"workers={told}, and what is given is of {count} workers; leave workers= out")
    return count


def _same_workers(task: Task, graph: Graph, delays: DelayModel) -> None:
    """Raises `ValueError` unless task, graph and delays are of the same number of workers."""
    counts = {"task": len(task.sizes), "graph": int(np.asarray(graph.computes).sum())}
    told = getattr(delays, "workers", None)
    if told is not None:
        counts["delays"] = told
    if len(set(counts.values())) > 1:
        said = ", ".join(f"the {name} is of {count}" for name, count in counts.items())
        raise ValueError(f"numbers of workers differ ({said}); build all of them with the same workers=")


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


def prepared(told: Told, worlds: int | None = None) -> tuple[Problem, TrainConfig]:
    """The worlds (of which so many are made) and the budget that `compare` is told.

    Raises:
      ValueError: as for `compare`.
    """
    named, seeds, seed = policies_of(told.policies), whole("seeds", told.seeds), numbers.seeds(told.seed).start
    over = list(named)[-1] if told.baseline is None else told.baseline
    if not isinstance(over, str) or over not in named:
        raise ValueError(f"baseline={shown(over)} is not among the policies {list(named)}")
    target_of(told.target_accuracy, False)
    drawn = numbers.seeds(seed, seeds)[:worlds]
    budget = budget_of(told.seconds, told.steps, told.rows)
    require_room(budget, 1 if told.workers is None else whole("workers", told.workers), len(named), seeds)
    words = {name: getattr(told, name) for name in ("batch_size", "model", "partition")}
    optimizer = optimizer_of(told.optimizer, told.learning_rate)
    problem = problem_of(named, told.task, told.graph, told.delays, optimizer, drawn, told.workers, words)
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
