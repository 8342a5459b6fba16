"""Single iterations instead of means, and the trade-off between their length and what is learned in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dbwjax.report import distributions, style
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, render
from dbwjax.report.page.material import Material
from dbwjax.report.page.verdict import verdict_of
from dbwjax.report.page.verdict_section import WIDTH, board_of
from dbwjax.report.progress import Progress
from dbwjax.report.run_curves import Board
from dbwjax.report.table import digits, interval_text

Worlds = Mapping[str, Mapping[str, Any]]


def distributions_section(material: Material) -> Section:
    """Quantiles of iteration lengths, staleness and backup workers; the two factors of the time to target."""
    board = board_of(material)
    (cell,) = material.summary["cells"]
    progress = verdict_of(material.summary, cell, material.rows, material.worlds).progress
    kept = any(worlds for worlds in material.timelines.values())
    figures = []
    with style.house_style():
        if kept:
            alt = "Distribution of iteration lengths; the table below has its quantiles."
            figures.append(
                _figure(
                    distributions.draw_lengths,
                    board,
                    alt,
                    "lengths",
                    "Share of iterations that are at most so long, all worlds together.",
                )
            )
        others = [name for name in progress if name != board.baseline and progress[name].gain is not None]
        if others:
            alt = "Two factors of the time to target against the baseline; the table below has the numbers."
            draw = lambda ax, given: distributions.draw_trade_off(ax, given, progress)  # noqa: E731
            figures.append(
                _figure(
                    draw,
                    board,
                    alt,
                    "trade-off",
                    "To the right iterations are shorter, upwards fewer "
                    "are needed. Times to target are equal along a grey line; lines through a point are "
                    "95 % intervals, paired by world.",
                )
            )
    body = render(
        "distributions.html",
        figures=figures,
        kept=kept,
        lengths=[_lengths(name, material.timelines.get(name, {})) for name in board.policies] if kept else [],
        factors=[_factors(name, progress[name]) for name in board.policies] if others else [],
        baseline=board.baseline,
    )
    return Section("distributions", "Single iterations", body)


def _figure(draw: Any, board: Board, alt: str, key: str, caption: str) -> dict[str, Any]:
    figure, axes = style.new_figure(WIDTH, 58)
    draw(axes[0, 0], board)
    return drawing.captioned(figure, alt, key, caption)


def _lengths(name: str, worlds: Worlds) -> dict[str, Any]:
    """One policy's quantiles over all iterations of all worlds."""
    lengths = [world["length"] for world in worlds.values()]
    backups = [world["backup_workers"] for world in worlds.values()]
    return {
        "policy": name,
        "count": sum(len(one) for one in lengths),
        "lengths": _shown(distributions.quantiles(lengths)),
        "backups": _shown(distributions.quantiles(backups)),
        "staleness": _staleness(worlds),
    }


def _shown(found: list[float] | None) -> list[str]:
    return ["-"] * len(distributions.LEVELS) if found is None else [digits(value) for value in found]


def _staleness(worlds: Worlds) -> list[str]:
    """Of the mean worker and of the stalest: each worker's mean over its gradients that counted."""
    every = []
    for world in worlds.values():
        if "worker_age" not in world or "worker_counted" not in world:
            return ["-", "-"]
        age, counted = (np.asarray(world[name], np.float64) for name in ("worker_age", "worker_counted"))
        if counted.sum() > 0:
            each = age[counted > 0] / counted[counted > 0]
            every.append((age.sum() / counted.sum(), each.max()))
    return [digits(float(value)) for value in np.mean(every, axis=0)] if every else ["-", "-"]


def _factors(name: str, way: Progress) -> dict[str, Any]:
    return {
        "policy": name,
        "iterations": digits(way.iterations),
        "seconds": digits(way.seconds),
        "length": interval_text(way.length),
        "gain": interval_text(way.gain),
    }
