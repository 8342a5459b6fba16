"""Every world of several runs as a thin line: a panel for each run, all with the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dbwjax.report import style
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, render
from dbwjax.report.page.material import Material

WIDTH, HEIGHT = 80.0, 52.0
_BOX = (0.12, 0.19, 0.855, 0.68)
_POINTS = 40_000
"""Of all lines of a page together."""


def seeds_section(runs: Sequence[Material]) -> Section | None:
    """Curves a seed; `None` where the runs have no measure in common."""
    columns = [
        column
        for column in ("test_accuracy", "test_loss")
        if all(any(row.get(column) is not None for row in run.rows) for run in runs)
    ]
    if not columns:
        return None
    column = columns[0]
    lines = {run.name: _lines(run, column) for run in runs}
    count = sum(len(own) for own in lines.values())
    most = int(np.clip(_POINTS // max(count, 1), 8, 120))
    values = np.concatenate([y[np.isfinite(y)] for own in lines.values() for _, _, y in own])
    if not values.size:
        return None
    ends = max(float(x[-1]) for own in lines.values() for _, x, _ in own)
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05
    panels = []
    with style.house_style():
        for place, run in enumerate(runs):
            figure = _panel(run, lines[run.name], most, column, (0, ends or 1), (low - margin, high + margin))
            alt = f"{column.replace('_', ' ')} over virtual time in {run.name}, a line for each policy and world."
            panels.append({"name": run.name, "drawing": drawing.svg_of(figure, alt, f"seeds-{place}", 2.0)})
    policies = list(dict.fromkeys(policy for run in runs for policy in run.policies))
    rules = [{"name": name, "colour": drawing.policy_colour(name)} for name in policies]
    return Section("seeds", "Curves, a line a seed", render("seeds.html", panels=panels, rules=rules))


def _lines(run: Material, column: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """`(policy, seconds, values)` of every world; what is missing is NaN."""
    by: dict[tuple[str, Any], list[Any]] = {}
    for row in run.rows:
        by.setdefault((row["policy"], row["world"]), []).append(row)
    return [
        (
            policy,
            np.array([row["virtual_time"] for row in rows], np.float64),
            np.array([np.nan if row.get(column) is None else row[column] for row in rows], np.float64),
        )
        for (policy, _), rows in by.items()
    ]


def _panel(run: Material, lines: Any, most: int, column: str, across: Any, along: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 25.4, HEIGHT / 25.4))
    ax = figure.add_axes(_BOX)
    looks = style.looks(run.policies)
    for policy, x, y in lines:
        some = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
        ax.plot(x[some], y[some], **{**looks[policy], "linewidth": 0.7, "alpha": 0.75})
    ax.set(xlim=across, ylim=along, xlabel="virtual time [s]")
    ax.set_title(f"{column.replace('_', ' ')}: {style.plain(run.name, 30)}", loc="left")
    return figure
