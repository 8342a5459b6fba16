"""Sweeps in Python: `compare` in every cell of some axes, concluded together. Own tasks, rules and optimisers enter."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dbwjax import specs
from dbwjax.experiments.compare import check, compare
from dbwjax.limits import shown
from dbwjax.types import Policy

BREAKS = "breaks"
"""The column of an axis over `world=`."""


class Cells(NamedTuple):
    """What `compare_cells` found."""

    rows: list[dict[str, Any]]  # as in `results.csv`
    worlds: list[dict[str, Any]]  # as in `worlds.json`
    summary: dict[str, Any]  # as in `summary.json`, a cell for every combination

    def table(self) -> str:
        """The table of the command line, as text."""
        from dbwjax.report.table import format_table

        return format_table(self.summary)

    def plot(self, folder: str | os.PathLike, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Writes a figure for each axis and a heat map into a folder; the files."""
        from dbwjax.report.sweep_figures import write_figures

        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        return write_figures(where, self.summary, self.rows, formats)

    def report(self, path: str | os.PathLike) -> Path:
        """Writes the page that a sweep ends with to `path`, an HTML file that needs nothing else; the file."""
        from dbwjax.experiments.pages import report_in_python

        return report_in_python(path, self.rows, self.worlds, self.summary)


def compare_cells(
    policies: Mapping[str, Policy | str] | Sequence[str],
    axes: Mapping[str, Mapping[str, Any] | Sequence[Any]],
    **common: Any,
) -> Cells:
    """Runs `compare` for every combination of some of its arguments.

    Cells are never pooled. Worlds of one seed share their delays in all cells that have the same law and workers.

    Args:
      policies: as for `compare`.
      axes: by argument of `compare` (`graph`, `delays`, `optimizer`, `learning_rate`, `task`, ...) its values: SPECs
        and numbers as they are, objects (and lists, of `world`) by a name. The column of `world` is `breaks`.
      **common: all other arguments of `compare`.

    Returns:
      Rows, intervals, `.table()` and `.plot()`.

    Raises:
      ValueError: an axis without values, one that is also given in `common`, or what `compare` refuses of any cell;
        nothing has run then.
    """
    named = axes_of(axes, common)
    cells = [dict(zip(named, labels, strict=True)) for labels in itertools.product(*named.values())]
    for values in cells:  # what the last cell would refuse is refused before the first has run
        check(policies, **{name: named[name][label] for name, label in values.items()}, **common)
    rows: list[dict[str, Any]] = []
    worlds: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for values in cells:
        chosen = {name: named[name][label] for name, label in values.items()}
        cell = compare(policies, **chosen, **common)
        found = cell.summary
        rows += [renamed({"policy": row["policy"]}, values, row) for row in cell.rows]
        worlds += [renamed({}, values, world) for world in cell.worlds]
    from dbwjax.report.statistics import summarise

    specs = list(policies)
    return Cells(rows, worlds, summarise(rows, worlds, specs, found["baseline"], found["target_accuracy"]))


def axes_of(axes: Any, common: Mapping[str, Any]) -> dict[str, dict[Any, Any]]:
    """The values of every axis by their labels.

    Args:
      axes: by argument of `compare`, its values.
      common: the other arguments.

    Raises:
      ValueError: no axes, or one that `compare_cells` refuses.
    """
    known = [name for name in inspect.signature(compare).parameters if name != "policies"]
    if not isinstance(axes, Mapping):
        raise ValueError(f"axes={shown(axes)} have no names; give values by argument, as {{'graph': ['ring', 'star']}}")
    for name in [*axes, *common]:
        if name not in known:
            raise ValueError(f"compare has no argument {shown(name)}; {specs.nearest(str(name), known)}")
    named: dict[str, dict[Any, Any]] = {}
    for name, values in axes.items():
        if name in common:
            raise ValueError(f"'{name}' is an axis and given beside it; leave one out")
        if isinstance(values, str) or not isinstance(values, Mapping | Iterable):
            raise ValueError(f"axis '{name}' is {shown(values)}; give a list of values, or values by name")
        try:
            named[name] = dict(values) if isinstance(values, Mapping) else {value: value for value in values}
        except TypeError:
            raise ValueError(
                f"axis '{name}' has values without a name; give them by name, as {{'mine': ...}}"
            ) from None
        if not named[name]:
            raise ValueError(f"axis '{name}' has no values; give at least one")
    return named


def renamed(first: dict[str, Any], values: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose world is named as a sweep's: by the axes and the seed; `first` stands before them."""
    rest = {name: value for name, value in row.items() if name not in (*first, "world")}
    # `world` is the column of seeds elsewhere; an axis over what breaks has another.
    axes = {BREAKS if name == "world" else name: value for name, value in values.items()}
    return {**first, **axes, "seed": row["world"], **rest}
