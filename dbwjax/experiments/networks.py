"""The networks that policies bring along, what their `init` makes of them, and who is who among the nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dbwjax.engine import batch
from dbwjax.tasks.probe import fault_of
from dbwjax.types import Graph, Policy


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


def states_of(spec: str, policy: Policy, graphs: list[Graph]) -> Any:
    """What a policy's `init` makes of each world's graph, leaves `[B, ...]`.

    Raises:
      ValueError: the policy refuses a graph.
    """
    return batch.stack_all(_once(spec, "init(graph)", policy.init, graphs))


def _once(spec: str, words: str, function: Callable[[Graph], Any], graphs: list[Graph]) -> list[Any]:
    """`function` of every graph; it runs once for each that is another object."""
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
