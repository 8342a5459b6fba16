"""`--list`: every word that the commands know."""

from __future__ import annotations

from typing import Any

from dbwjax import specs
from dbwjax.experiments.presets import PRESETS
from dbwjax.learners.optimizers import OPTIMIZERS
from dbwjax.learners.schedules import SCHEDULES


def listing() -> str:
    """Every word that the command knows, with keys and defaults."""
    from dbwjax.network.delays import DELAYS
    from dbwjax.network.graphs import GRAPHS
    from dbwjax.network.weights import WEIGHTS
    from dbwjax.policies import POLICIES
    from dbwjax.tasks import DATASETS, MODELS, PARTITIONS
    from dbwjax.tasks.datasets import CONTEXT

    context = (*CONTEXT, "seed", "occurrence", "learning_rate", "message_bytes")
    tables: dict[str, dict[str, Any]] = {
        "policies": {name: method.build for name, method in POLICIES.items()},
        "graphs": GRAPHS,
        "delays": DELAYS,
        "weights": WEIGHTS,
        "data sets": DATASETS,
        "partitions": PARTITIONS,
        "optimisers": OPTIMIZERS,
        "schedules of the learning rate": SCHEDULES,
    }
    about = {name: f"{method.summary} ({method.paper})" for name, method in POLICIES.items()}
    lines = ["presets", *(f"  {name:14} {_first_line(build)}" for name, build in PRESETS.items())]
    for title, table in tables.items():
        lines += ["", title]
        for name, build in table.items():
            lines += [f"  {specs.describe(name, build, context)}", f"      {about.get(name) or _first_line(build)}"]
    lines += ["", "models", *(f"  {name:14} {_first_line(build)}" for name, build in MODELS.items())]
    return "\n".join(lines)


def _first_line(build: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((build.__doc__ or "").partition("\n\n")[0].split())
