"""Accuracy and loss over time or iterations: charts drawn here, of which the page shows one at a time.

All charts have their axes at the same place, so that one cursor fits them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dbwjax.report import run_curves, style
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, render, source
from dbwjax.report.page.material import Material
from dbwjax.report.page.verdict_section import board_of
from dbwjax.report.run_curves import Board

WIDTH, HEIGHT = 100.0, 62.0
"""mm of a chart."""

_BOX = (0.105, 0.155, 0.875, 0.72)
"""Left, bottom, width and height of the axes, as shares of the figure."""

_OVER = {"time": "virtual_time", "iterations": "step"}


def curves_section(material: Material) -> Section | None:
    """The charts, what they show as numbers, and their controls; `None` where nothing was learned."""
    board = board_of(_thinned(material))
    measures = {"accuracy": "test_accuracy"} if board.has_accuracy else {}
    measures |= {"loss": "test_loss"} if any(row.get("test_loss") is not None for row in material.rows) else {}
    if not measures:
        return None
    charts, places, curves = [], {}, {}
    with style.house_style():
        for measure, column in measures.items():
            for over, against in _OVER.items():
                curves[f"{measure}-{over}"] = [_values(board, name, against, column) for name in board.policies]
                for scale in ("log", "linear"):  # near the target a linear axis hides who leads
                    name = f"{measure}-{over}-{scale}"
                    drawn, places[name] = _chart(board, measure, against, scale == "log", name)
                    charts.append({"name": name, "drawing": drawn})
    rules = [
        {"name": name, "colour": drawing.policy_colour(name), "dashes": dashes}
        for name, dashes in drawing.dashes(board.policies).items()
    ]
    band = run_curves.bands_note(board)
    body = render("curves.html", charts=charts, rules=rules, measures=list(measures), band=band)
    data = {"rules": [rule["name"] for rule in rules], "curves": curves, "places": places, "worlds": board.worlds}
    return Section("curves", "Learning curves", body, data, source("curves.js"))


def _thinned(material: Material) -> Material:
    """Fewer rows, where there are more than can be seen; the last of each world stays."""
    most = int(np.clip(4000 // len(material.policies), 40, 200))
    by: dict[tuple[str, Any], list[Any]] = {}
    for row in material.rows:
        by.setdefault((row["policy"], row["world"]), []).append(row)
    kept = [
        own[place] for own in by.values() for place in np.unique(np.linspace(0, len(own) - 1, most).round().astype(int))
    ]
    return material._replace(rows=kept)


def _chart(board: Board, measure: str, against: str, log: bool, name: str) -> tuple[Any, dict[str, Any]]:
    """One chart, and where its axes are."""
    from matplotlib.figure import Figure

    column = "test_loss" if measure == "loss" else "error" if log else "test_accuracy"
    figure = Figure(figsize=(WIDTH / 25.4, HEIGHT / 25.4))
    ax = figure.add_axes(_BOX)
    drawn = run_curves.curves(ax, board, against, column)
    is_log = run_curves.fit(ax, drawn, log=log)
    run_curves.few_ticks(ax, whole=against == "step")
    if board.target is not None and measure == "accuracy":
        aim = 1 - board.target if log else board.target
        run_curves.target_line(ax, aim, f"target {board.target:g}", above=log)
    _name_rules(ax, board, against, column)
    ax.set_title(run_curves.NAMES[column], loc="left")
    ax.set_ylabel("")
    alt = f"{run_curves.NAMES[column]} against {run_curves.NAMES[against]}, {'log' if is_log else 'linear'}. "
    alt += "The values are told by the slider below."
    place = {
        "box": [_BOX[0], 1 - _BOX[1] - _BOX[3], _BOX[2], _BOX[3]],
        "x": [float(end) for end in ax.get_xlim()],
        "y": [float(end) for end in ax.get_ylim()],
        "log": is_log,
        "error": column == "error",
        "unit": "s" if against == "virtual_time" else "iterations",
    }
    return drawing.svg_of(figure, alt, name, 2.35), place


def _name_rules(ax: Any, board: Board, against: str, column: str) -> None:
    """Gives each policy's line and band an id, by the policy's place."""
    spreads = {place: run_curves.spread(board.by[name], against, column) for place, name in enumerate(board.policies)}
    drawn = {place: found for place, found in spreads.items() if found is not None}
    for place, line in zip(drawn, ax.lines, strict=False):
        line.set_gid(f"rule-{place}")
    banded = [place for place, found in drawn.items() if found.worlds > 1]
    for place, band in zip(banded, ax.collections, strict=False):
        band.set_gid(f"band-{place}")


def _values(board: Board, name: str, against: str, column: str) -> dict[str, Any] | None:
    found = run_curves.spread(board.by[name], against, column)
    if found is None:
        return None
    parts = {"x": found.x, "middle": found.middle, "low": found.low, "high": found.high}
    return {key: [_short(value) for value in values] for key, values in parts.items()}


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
