"""Figures of a run, from what its folder holds: rows of metrics, the summary, timelines and the network.

Every rule keeps its colour in all figures, and the same data give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.report import run_panels, style
from dbwjax.report.distributions import draw_lengths
from dbwjax.report.network import GraphPicture, draw_graph
from dbwjax.report.run_curves import Board, Rows, bands_note, curves, few_ticks, fit, quality, target_line

FIGURES = ("summary", "accuracy", "loss", "iteration_length", "backup_workers", "network")
"""Names of the files, without suffix; a task without accuracy has no `accuracy`."""

Timelines = Mapping[str, Mapping[Any, Mapping[str, np.ndarray]]]
"""By policy and world: `length` [n] float32 s, the lengths of the iterations that ended, and other arrays."""


def write_figures(
    folder: str | Path,
    rows: Rows,
    summary: Mapping[str, Any],
    timelines: Timelines,
    graph: GraphPicture,
    formats: Sequence[str] = ("png",),
    width_mm: float | None = None,
) -> list[Path]:
    """Draws all figures of a run.

    Args:
      folder: RUN.
      rows: of `metrics.jsonl`; the policies are drawn in the order in which they first appear.
      summary: of `summary.json`, of one cell.
      timelines: the lengths of iterations, by policy and world.
      graph: who hears whom, and how slow workers are.
      formats: of `png`, `pdf` and `svg`.
      width_mm: of every figure; `None`: 180 for those of several panels, 85 for others.

    Returns:
      The files, those of `summary` first.

    Raises:
      ValueError: an unknown format, a width outside 60 to 600 mm, no rows, a summary of several cells, or a file
        cannot be written.
    """
    style.check(formats, width_mm)
    if not rows:
        raise ValueError("there are no rows to draw; run the command again")
    board = Board(rows, summary, timelines, graph)
    drawn: dict[str, Callable[[Board, float], Any]] = {
        "summary": draw_summary,
        "accuracy": _accuracy,
        "loss": _loss,
        "iteration_length": _iteration_length,
        "backup_workers": _backup_workers,
        "network": _network,
    }
    if not board.has_accuracy:
        del drawn["accuracy"]
    paths = []
    with style.house_style():
        for name, draw in drawn.items():
            width = width_mm or (style.COLUMN if name == "network" else style.PAGE)
            paths += style.save(draw(board, width), folder, name, formats)
    return paths


def draw_summary(board: Board, width: float = style.PAGE) -> Any:
    """Six panels that could stand in a paper; three, two or one beside each other as the width allows."""
    columns = 3 if width >= 150 else 2 if width >= 115 else 1
    lines = 6 // columns
    high = max(34.0, len(board.policies) * run_panels.row_height(board.policies))
    height = lines * (high + 19) + style.legend_height(width, board.policies)
    figure, grid = style.new_figure(width, height, lines, columns)
    axes = list(grid.flat)
    quality(axes[0], board, "a")
    run_panels.time_to_target(axes[1], board, "b")
    run_panels.where_time_goes(axes[2], board, "c")
    run_panels.iteration_lengths(axes[3], board, "d")
    draw_graph(axes[4], board.graph, "e")
    run_panels.at_the_end(axes[5], board, "f")
    style.legend(figure, board.policies)
    return figure


def _pair(board: Board, width: float) -> tuple[Any, list[Any]]:
    """A figure of two panels, beside each other where there is room."""
    beside = width >= 130
    height = (58 if beside else 112) + style.legend_height(width, board.policies)
    figure, axes = style.new_figure(width, height, 1 if beside else 2, 2 if beside else 1)
    return figure, list(axes.flat)


def _accuracy(board: Board, width: float) -> Any:
    """Test accuracy against virtual time and against iterations."""
    figure, axes = _pair(board, width)
    for ax, against in zip(axes, ("virtual_time", "step"), strict=True):
        drawn = curves(ax, board, against, "test_accuracy")
        fit(ax, drawn, log=False)
        style.heading(ax, "accuracy over " + ("time" if against == "virtual_time" else "iterations"), bands_note(board))
        few_ticks(ax, whole=against == "step")
        if board.target is not None:
            target_line(ax, board.target, f"target {board.target:g}", above=False)
    style.legend(figure, board.policies)
    return figure


def _loss(board: Board, width: float) -> Any:
    """Test and training loss against virtual time and against iterations."""
    from matplotlib.lines import Line2D

    figure, axes = _pair(board, width)
    for ax, against in zip(axes, ("virtual_time", "step"), strict=True):
        test = curves(ax, board, against, "test_loss")
        train = curves(ax, board, against, "train_loss", faint=True)
        fit(ax, [*test, *train])
        style.heading(ax, "loss over " + ("time" if against == "virtual_time" else "iterations"), bands_note(board))
        few_ticks(ax, whole=against == "step")
        ax.set_ylabel("loss")
    key = [
        Line2D([], [], color=style.GREY, linewidth=1.5, label="test, mean model"),
        Line2D([], [], color=style.GREY, linewidth=0.7, alpha=0.5, label="training, mean of gradients"),
    ]
    style.legend(figure, board.policies, key)
    return figure


def _iteration_length(board: Board, width: float) -> Any:
    """How long iterations last: distribution functions, and boxes with their numbers."""
    figure, (left, right) = _pair(board, width)
    draw_lengths(left, board)
    run_panels.iteration_lengths(right, board)
    style.legend(figure, board.policies)
    return figure


def _backup_workers(board: Board, width: float) -> Any:
    """Neighbours that a worker did not hear, and the share of workers that took part, over time."""
    figure, axes = _pair(board, width)
    titles = {"backup_workers": "neighbours not heard", "active_fraction": "workers that took part"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        drawn = curves(ax, board, "virtual_time", column)
        style.heading(ax, title, f"means between rows; {bands_note(board, of_test=False)}")
        fit(ax, drawn, log=False)
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        few_ticks(ax)
    style.legend(figure, board.policies)
    return figure


def _network(board: Board, width: float) -> Any:
    figure, axes = style.new_figure(width, width)
    draw_graph(axes[0, 0], board.graph)
    return figure
