"""What each policy makes of the worlds: its network, the size of its messages, what it computes on; and who is who."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax.engine import batch, breaking
from dbwjax.engine.learner import equipped, from_optimizer
from dbwjax.tasks import Task
from dbwjax.tasks.probe import fault_of
from dbwjax.types import Batches, Events, Graph, Learner, Policy


class Roles(NamedTuple):
    """Of every node."""

    computes: np.ndarray  # [N] bool, the workers
    evaluated: np.ndarray  # [N] bool, whose mean is the model


def networks_of(spec: str, policy: Policy, graphs: list[Graph]) -> list[Graph]:
    """The network of a policy in each world, from the workers' graphs.

    Raises:
      ValueError: the policy refuses a graph.
    """
    return graphs if policy.network is None else _once(spec, "network(graph)", policy.network, graphs)


def bytes_sent(policy: Policy, learner: Learner, params: Any) -> float:
    """Bytes of a message: one worker's parameters (or their shapes), or what the method sends in their place."""
    combine = equipped(learner, policy).combine
    if combine is not None and combine.sent is not None:
        return float(combine.sent(params))
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)))


def sizes_of(policies: dict[str, Policy], task: Task, optimizer: Any, shapes: Any) -> dict[str, float]:
    """By policy, the bytes of its messages, from the shapes of one worker's parameters.

    Raises:
      ValueError: a method that the task does not suit.
    """
    learner, found = from_optimizer(task.loss, optimizer)._replace(oracle=task.oracle), {}
    for spec, policy in policies.items():
        if policy.whole is not None and task.objectives is None:
            raise ValueError(
                f"policy '{spec}' computes on each worker's whole objective, and task '{task.name}' does not tell it; "
                "use a convex task that does, as --dataset quadratic, logistic or least_squares"
            )
        try:
            found[spec] = bytes_sent(policy, learner, shapes)
        except ValueError as error:
            raise ValueError(f"policy '{spec}': {error}") from error
    return found


def wholes_of(spec: str, policy: Policy, tasks: list[Task]) -> list[Batches] | None:
    """What a policy that computes on whole objectives computes on, in each world; `None`: batches.

    Raises:
      ValueError: the policy refuses them.
    """
    if policy.whole is None:
        return None
    whole = policy.whole
    return _once(spec, "whole(objectives)", lambda task: whole(task.objectives, len(task.sizes)), tasks)


def require_unbroken(policies: dict[str, Policy], nets: dict[str, list[Graph]], events: Events | None) -> None:
    """Refuses a method that cannot live in a world that breaks.

    Raises:
      ValueError: one line that names it.
    """
    if events is None:
        return
    for spec, policy in policies.items():
        try:
            breaking.require_fit(policy, nets[spec][0], events)
        except ValueError as error:
            raise ValueError(f"policy '{spec}': {error}") from error


def states_of(spec: str, policy: Policy, graphs: list[Graph]) -> Any:
    """What a policy's `init` makes of each world's graph, leaves `[B, ...]`.

    Raises:
      ValueError: the policy refuses a graph.
    """
    return batch.stack_all(_once(spec, "init(graph)", policy.init, graphs))


def _once(spec: str, words: str, function: Callable[[Any], Any], graphs: list[Any]) -> list[Any]:
    """`function` of every graph (or task); it runs once for each that is another object."""
    found: dict[int, Any] = {}
    try:
        for graph in graphs:
            if id(graph) not in found:
                found[id(graph)] = function(graph)
    except ValueError as error:
        raise ValueError(f"policy '{spec}': {error}") from error
    except Exception as error:  # of a user's rule
        raise ValueError(f"policy '{spec}': {words} fails: {fault_of(error)}") from error
    return [found[id(graph)] for graph in graphs]
