"""Worlds from what Python is given: objects, SPECs, and functions of a seed.

What is given as an object is the same in every world; SPECs and functions of a seed are drawn anew in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.engine.batch import alone
from dbwjax.engine.programs import canonical
from dbwjax.experiments import probe
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import Drawn, Problem, World, assemble
from dbwjax.experiments.world_tasks import message_bytes
from dbwjax.limits import shown, whole
from dbwjax.network.breakage import broken, build_events
from dbwjax.network.delays import build_delays
from dbwjax.network.graphs import build_graph, pad
from dbwjax.network.node_names import names_of
from dbwjax.policies import build_policies
from dbwjax.tasks import Task, build_task, of_one_width
from dbwjax.tasks.probe import fault_of, require_task
from dbwjax.types import DelayModel, Graph, Policy


class Broken(NamedTuple):
    """What breaks, as Python is given it."""

    world: Any = ()  # SPECs, or one
    events: Any = None  # path of a CSV


CALM = Broken()
"""Nothing breaks."""


def problem_of(
    policies: Mapping[str, Policy | str],
    task: Any,
    graph: Any,
    delays: Any,
    optimizer: Any,
    seeds: Sequence[int],
    workers: int | None,
    words: Mapping[str, Any] | None = None,
    breaks: Broken = CALM,
) -> Problem:
    """Worlds from objects, SPECs and functions of a seed.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    built = built_of(policies)
    drawn = drawn_of(task, graph, delays, optimizer, seeds, workers, words, breaks=breaks)
    return joined(built, drawn, optimizer, (graph, delays))


def built_of(policies: Mapping[str, Policy | str]) -> dict[str, Policy]:
    """Policies by name, of which some are SPECs.

    Raises:
      ValueError: one that is none.
    """
    made = build_policies([one for one in policies.values() if isinstance(one, str)])
    built = {name: made[one] if isinstance(one, str) else one for name, one in policies.items()}
    for name, one in built.items():
        probe.require_policy_kind(name, one)
    return built


def drawn_of(
    task: Any,
    graph: Any,
    delays: Any,
    optimizer: Any,
    seeds: Sequence[int],
    workers: int | None,
    words: Mapping[str, Any] | None = None,
    clocks_only: bool = False,
    breaks: Broken = CALM,
    files: tuple[Any, Any] | None = None,
) -> list[Drawn]:
    """What each world consists of; with `clocks_only` what its clock reads, and neither task nor optimiser is.

    `files` are graph and delays as they were given, where `graph` has been built since.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    count = _workers(task, graph, workers)

    def drawn(seed: int) -> Drawn:
        law = build_delays(delays, _known(count), seed) if isinstance(delays, str) else delays
        # Functions that are made anew in every world are one function, or worlds would not be one batch.
        what = None if clocks_only else canonical(_task(task, count, seed, words or {}))
        if what is not None and count is not None and not isinstance(task, Task) and len(what.sizes) != count:
            raise ValueError(f"the task is of {len(what.sizes)} workers, not of {count}; build it with workers={count}")
        net = _graph(graph, count, seed, None if what is None else message_bytes(what))
        _same_workers(what, net, law)
        return Drawn(seed, net, law, what)

    found = [drawn(seed) for seed in seeds]
    first = found[0]
    probe.require_delays(first.delays)
    found = _broken(found, breaks, files or (graph, delays))
    first = found[0]
    if first.task is None:
        return found
    probe.require_optimizer(optimizer, require_task(first.task))
    tasks = of_one_width([one.task for one in found if one.task is not None])
    return [one._replace(task=task) for one, task in zip(found, tasks, strict=True)]


def _broken(drawn: list[Drawn], breaks: Broken, files: tuple[Any, Any]) -> list[Drawn]:
    """The worlds with what breaks in them.

    Raises:
      ValueError: what `breakage` refuses.
    """
    count = int(np.asarray(drawn[0].graph.computes).sum())
    names = names_of(*_files(files), count) if breaks.events is not None else None
    events = build_events(breaks.world, count, breaks.events, names)
    return [one._replace(delays=broken(one.delays, breaks.world, count), events=events) for one in drawn]


def _files(files: tuple[Any, Any]) -> tuple[str, str]:
    """Graph and delays where they are SPECs, which may name files."""
    graph, delays = (one if isinstance(one, str) else "" for one in files)
    return graph, delays


def slots_of(drawn: Sequence[Drawn]) -> int:
    """The width of the widest graph's neighbour lists."""
    return max(one.graph.neighbours.shape[1] for one in drawn)


def joined(
    policies: dict[str, Policy], drawn: Sequence[Drawn], optimizer: Any, files: tuple[Any, Any], slots: int = 0
) -> Problem:
    """Worlds as one problem.

    Args:
      policies: by name.
      drawn: what each world consists of.
      optimizer: an optax `GradientTransformation`; clocks alone read none.
      files: graph and delays as they were given: the files of SPECs name workers.
      slots: neighbour lists are at least so wide; problems of one shape share their programs.

    Raises:
      ValueError: a policy that a graph does not allow, or files that name other workers.
    """
    slots = max(slots, slots_of(drawn))
    graphs = {id(one.graph): one.graph for one in drawn}  # worlds that share a graph go on sharing it
    padded = {which: net if net.neighbours.shape[1] == slots else pad(net, slots) for which, net in graphs.items()}
    wide = [one._replace(graph=padded[id(one.graph)]) for one in drawn]
    told = [World({"world": one.seed}, TrainConfig(), one.seed) for one in wide]
    problem = assemble(told, wide, policies, optimizer)
    for name, policy in problem.policies.items():
        state = jax.tree.map(lambda leaf: leaf[0], problem.states[name])
        probe.require_decision(name, policy, alone(problem.worlds_of(name), 0).graph, state)
    return problem._replace(names=names_of(*_files(files), problem.workers))


def _graph(graph: Any, workers: int | None, seed: int, message: float | None) -> Graph:
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


def _same_workers(task: Task | None, graph: Graph, delays: DelayModel) -> None:
    """Raises `ValueError` unless task, graph and delays are of the same number of workers."""
    counts = {} if task is None else {"task": len(task.sizes)}
    counts["graph"] = int(np.asarray(graph.computes).sum())
    told = getattr(delays, "workers", None)
    if told is not None:
        counts["delays"] = told
    if len(set(counts.values())) > 1:
        said = ", ".join(f"the {name} is of {count}" for name, count in counts.items())
        raise ValueError(f"numbers of workers differ ({said}); build all of them with the same workers=")
