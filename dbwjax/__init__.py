"""dbwjax: training with many workers when some of them are slow.

The names below are what a script or a notebook needs. They are imported when they are first used, so that
`import dbwjax` costs nothing. `dbwjax.train` and `dbwjax.replay` are the commands; a script trains with
`simulate_training`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import Any

__version__ = _version("dbwjax")

_HOMES = {
    "Graph": "types.Graph",
    "Learner": "types.Learner",
    "Plan": "types.Plan",
    "Policy": "types.Policy",
    "WaitRule": "types.WaitRule",
    "build_graph": "network.graphs.build_graph",
    "build_delays": "network.delays.delays",
    "POLICIES": "policies.table.POLICIES",
    "build_policy": "policies.table.build_policy",
    "gossip": "policies.gossip.gossip",
    "build_task": "tasks.datasets.build_task",
    "from_arrays": "tasks.task.from_arrays",
    "train_policy": "experiments.training.train",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dbwjax' has no attribute '{name}'; it has {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(import_module(f"dbwjax.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
