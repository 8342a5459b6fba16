"""`--list`: every word that the commands know."""

from __future__ import annotations

import textwrap
from typing import Any

from dbwjax import specs
from dbwjax.experiments.presets import PRESETS
from dbwjax.learners.optimizers import OPTIMIZERS
from dbwjax.learners.schedules import SCHEDULES

WIDTH = 100
"""Columns of the text; a SPEC is not cut."""


def listing() -> str:
    """Every word that the command knows, with keys and defaults."""
    from dbwjax.network.breakage import WORLD
    from dbwjax.network.delays import DELAYS
    from dbwjax.network.graphs import GRAPHS
    from dbwjax.network.weights import WEIGHTS
    from dbwjax.policies import FAMILIES, by_family
    from dbwjax.tasks import DATASETS, MODELS, PARTITIONS
    from dbwjax.tasks.datasets import CONTEXT

    context = (*CONTEXT, "seed", "occurrence", "learning_rate", "message_bytes")
    tables: dict[str, dict[str, Any]] = {
        "graphs": GRAPHS,
        "delays": DELAYS,
        "what breaks (--world, several)": WORLD,
        "weights": WEIGHTS,
        "data sets": DATASETS,
        "partitions": PARTITIONS,
        "optimisers": OPTIMIZERS,
        "schedules of the learning rate": SCHEDULES,
    }
    lines = ["presets", *(f"  {name:14} {_first_line(build)}" for name, build in PRESETS.items())]
    for family, methods in by_family().items():
        lines += ["", f"policies, {family}: {FAMILIES[family]}"]
        for name, method in methods.items():
            lines += [f"  {specs.describe(name, method.build)}", *_wrapped(method.summary), *_wrapped(method.paper)]
    for title, table in tables.items():
        lines += ["", title]
        for name, build in table.items():
            lines += [f"  {specs.describe(name, build, context)}", *_wrapped(_first_line(build))]
    lines += ["", "models", *(f"  {name:14} {_first_line(build)}" for name, build in MODELS.items())]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _first_line(build: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((build.__doc__ or "").partition("\n\n")[0].split())
