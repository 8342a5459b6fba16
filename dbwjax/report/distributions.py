"""How single iterations spread, and what a time to target is made of: length of iterations and progress in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dbwjax.report import run_panels, scales, style
from dbwjax.report.progress import Progress
from dbwjax.report.run_curves import Board, few_ticks

LEVELS = (0.5, 0.95, 0.99)
"""Quantiles that are told."""


def draw_lengths(ax: Any, board: Board) -> None:
    """Panel: distribution functions of iteration lengths, of all worlds together."""
    ends: list[float] = []
    for name in board.policies:
        seconds = run_panels.lengths(board, name)
        if not seconds.size:
            continue
        # So many points are more than can be seen; the last is the longest iteration.
        shown = seconds if seconds.size <= 4000 else np.quantile(seconds, np.linspace(0, 1, 4000))
        ax.ecdf(shown, **board.looks[name])
        marks = np.quantile(seconds, [0.5, 0.95])
        look = {"color": board.looks[name]["color"], "markersize": 4.5, "markeredgecolor": "white", "zorder": 3}
        ax.plot(marks, [0.5, 0.95], board.markers[name], linestyle="none", **look)
        ends += [seconds[0], np.quantile(seconds, 0.995)]
    style.heading(ax, "iteration length", "marks: median and 95th percentile; the axis ends at 99.5 %")
    ax.set(xlabel="iteration length [s]", ylabel="share of iterations", ylim=(0, 1.02))
    if ends and min(ends) > 0 and max(ends) / min(ends) > 20:
        scales.log_axis(ax, "x", min(ends), max(ends) * 1.05)
    elif ends:
        ax.set_xlim(0, 1.05 * max(ends))
        few_ticks(ax)


def quantiles(values: Sequence[np.ndarray]) -> list[float] | None:
    """The `LEVELS` of all values together; `None`: there are none."""
    parts = [np.asarray(part, np.float64).reshape(-1) for part in values]
    found = np.concatenate([np.zeros(0), *parts])
    found = found[np.isfinite(found)]
    return [float(value) for value in np.quantile(found, LEVELS)] if found.size else None


def draw_trade_off(ax: Any, board: Board, progress: Mapping[str, Progress]) -> list[str]:
    """Panel: shorter iterations to the right, fewer of them upwards, against the baseline; diagonals of equal time.

    Args:
      ax: the axes.
      board: the run.
      progress: of every policy, against the board's baseline.

    Returns:
      The policies that are drawn: those that reached the target in every world.
    """
    drawn, ends = [board.baseline], [1.0, 0.8, 1.25]
    sides: list[float] = [1.0, 0.8, 1.25]
    for name, way in progress.items():
        if way.length is None or way.gain is None or way.length["estimate"] is None or way.gain["estimate"] is None:
            continue
        drawn.append(name)
        own = (board.looks[name]["color"], board.markers[name])
        ends += run_panels.draw_interval(ax, way.gain["estimate"], way.length, *own)
        sides += run_panels.draw_interval(ax, way.length["estimate"], way.gain, *own, horizontal=False)
    look = {"color": board.looks[board.baseline]["color"], "markerfacecolor": "white", "markersize": 5}
    ax.plot([1], [1], marker=board.markers[board.baseline], zorder=3, **look)
    scales.log_axis(ax, "x", min(ends) / 1.15, max(ends) * 1.25, ratio=True)
    scales.log_axis(ax, "y", min(sides) / 1.15, max(sides) * 1.25, ratio=True)
    _diagonals(ax)
    base = style.plain(board.baseline, 20)
    style.heading(ax, "why: the two factors of the time to target", f"1 is {base}; grey: equal time to target")
    ax.set(xlabel="iterations are so many times shorter", ylabel="progress per iteration")
    return [name for name in board.policies if name in drawn]


def _diagonals(ax: Any) -> None:
    """Where length times progress is the same, so that the target is reached so many times sooner."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for times in scales.ratio_ticks(left * low, right * high):
        wide = 1.0 if times == 1 else 0.6
        x = np.array([left, right])
        ax.plot(
            x, times / x, color="#9a9a9a", linewidth=wide, linestyle=(0, (4, 2)), zorder=0.5, scalex=False, scaley=False
        )
        at = min(right, times / low)  # where it leaves the panel, below or at the right
        y = times / at
        if low <= y <= high:
            inside = {"fontsize": 6, "color": style.GREY, "ha": "right", "va": "bottom", "clip_on": True}
            ax.annotate(f"{times:.3g} x", (at, y), (-2, 2), textcoords="offset points", **inside)
