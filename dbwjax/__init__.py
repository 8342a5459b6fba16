"""dbwjax: training with many workers when some of them are slow.

The names below are what a script or a notebook needs. They are imported when they are first used, so that
`import dbwjax` costs nothing. The commands are modules: `python -m dbwjax` lists them.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # what type checkers take for true; `typing` would cost more than all the rest here
if TYPE_CHECKING:
    from typing import Any

    # The same names, for type checkers and editors.
    from dbwjax.experiments.citing import citation as citation
    from dbwjax.experiments.compare import Comparison as Comparison
    from dbwjax.experiments.compare import compare as compare
    from dbwjax.experiments.compare import train_policy as train_policy
    from dbwjax.experiments.sweep.cells import Cells as Cells
    from dbwjax.experiments.sweep.cells import compare_cells as compare_cells
    from dbwjax.experiments.sweep.compare_clocks import compare_clocks as compare_clocks
    from dbwjax.learners.optimizers import build_optimizer as build_optimizer
    from dbwjax.network.delays import build_delays as build_delays
    from dbwjax.network.graphs import build_graph as build_graph
    from dbwjax.planning.measure import measure as measure
    from dbwjax.planning.plan import plan_cluster as plan_cluster
    from dbwjax.policies.gossip import gossip as gossip
    from dbwjax.policies.table import POLICIES as POLICIES
    from dbwjax.policies.table import build_policy as build_policy
    from dbwjax.storage.callbacks import Callbacks as Callbacks
    from dbwjax.tasks.datasets import build_task as build_task
    from dbwjax.tasks.task import from_arrays as from_arrays
    from dbwjax.types import Graph as Graph
    from dbwjax.types import Learner as Learner
    from dbwjax.types import Plan as Plan
    from dbwjax.types import Policy as Policy
    from dbwjax.types import WaitRule as WaitRule

__version__: str

_HOMES = {
    "Graph": "types.Graph",
    "Learner": "types.Learner",
    "Plan": "types.Plan",
    "Policy": "types.Policy",
    "WaitRule": "types.WaitRule",
    "build_graph": "network.graphs.build_graph",
    "build_delays": "network.delays.build_delays",
    "POLICIES": "policies.table.POLICIES",
    "build_policy": "policies.table.build_policy",
    "gossip": "policies.gossip.gossip",
    "build_optimizer": "learners.optimizers.build_optimizer",
    "build_task": "tasks.datasets.build_task",
    "from_arrays": "tasks.task.from_arrays",
    "train_policy": "experiments.compare.train_policy",
    "compare": "experiments.compare.compare",
    "Comparison": "experiments.compare.Comparison",
    "compare_cells": "experiments.sweep.cells.compare_cells",
    "compare_clocks": "experiments.sweep.compare_clocks.compare_clocks",
    "Cells": "experiments.sweep.cells.Cells",
    "Callbacks": "storage.callbacks.Callbacks",
    "citation": "experiments.citing.citation",
    "plan_cluster": "planning.plan.plan_cluster",
    "measure": "planning.measure.measure",
}

__all__ = [
    "POLICIES",
    "Callbacks",
    "Cells",
    "Comparison",
    "Graph",
    "Learner",
    "Plan",
    "Policy",
    "WaitRule",
    "__version__",
    "build_delays",
    "build_graph",
    "build_optimizer",
    "build_policy",
    "build_task",
    "citation",
    "compare",
    "compare_cells",
    "compare_clocks",
    "from_arrays",
    "gossip",
    "measure",
    "plan_cluster",
    "train_policy",
]


if not TYPE_CHECKING:  # or every word would be a name of type Any

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("dbwjax")
        if name not in _HOMES:
            raise AttributeError(f"module 'dbwjax' has no attribute '{name}'; it has {', '.join(__all__)}")
        module, _, attribute = _HOMES[name].rpartition(".")
        return getattr(import_module(f"dbwjax.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
