"""Curves of a run over virtual time or iterations: one line a policy, and a band over worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax.report import scales, style

Rows = Sequence[Mapping[str, Any]]

NAMES = {
    "virtual_time": "virtual time [s]",
    "step": "iterations (mean over workers)",
    "error": "test error (1 - accuracy)",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "train_loss": "training loss",
    "backup_workers": "backup workers per worker",
    "active_fraction": "share of workers active",
}

LINE = "line: median of {0} worlds; band: 10 to 90 %"
_MOST_BANDS = 8
"""Policies; the bands of more cover each other."""


class Spread(NamedTuple):
    """A column over the worlds of one policy, at common times."""

    x: np.ndarray  # [n]
    low: np.ndarray  # [n] 10 % of worlds are below
    middle: np.ndarray  # [n] median
    high: np.ndarray  # [n] 90 % of worlds are below
    worlds: int


class Board:
    """The rows of a run by policy and world, and what the summary says about each policy.

    Attributes:
      policies: SPECs in the order of their first row.
      worlds: number of worlds.
      by: rows by policy and world.
      facts: of the summary's one cell, by policy.
      baseline: the SPEC that ratios are over.
      target: accuracy, or `None`.
      has_accuracy: whether any row has one.
    """

    def __init__(self, rows: Rows, summary: Mapping[str, Any], timelines: Mapping[str, Mapping], graph: Any):
        if len(summary["cells"]) != 1:
            raise ValueError(f"a run's figures show one cell, not {len(summary['cells'])}; use the figures of sweeps")
        self.by: dict[str, dict[Any, list[Mapping[str, Any]]]] = {}
        for row in rows:
            self.by.setdefault(row["policy"], {}).setdefault(row["world"], []).append(row)
        self.policies = list(self.by)
        self.worlds = len({row["world"] for row in rows})
        self.cell = summary["cells"][0]
        self.facts = self.cell["policies"]
        self.baseline, self.target = summary["baseline"], summary["target_accuracy"]
        self.timelines, self.graph = timelines, graph
        self.has_accuracy = any(row.get("test_accuracy") is not None for row in rows)
        self.looks, self.markers = style.looks(self.policies), style.markers(self.policies)

    def end(self) -> float:
        """Where time plots end: with the shortest run that reached the target, or with the longest of all, s."""
        ends = {
            name: [rows[-1]["virtual_time"] for rows in worlds.values() if rows] for name, worlds in self.by.items()
        }
        reached = [min(ends[name]) for name in self.policies if (self.facts[name]["reached"] or [0])[0]]
        return min(reached) if reached else max(max(times) for times in ends.values())


def spread(worlds: Mapping[Any, Rows], against: str, column: str) -> Spread | None:
    """The median of worlds and 10 to 90 % of them, interpolated on common values of `against`.

    From the row in which a world diverges it counts as the worst: its error and loss as infinite, its accuracy as
    minus infinite. Rows without a value are passed over. `None`: no row has one.
    """
    series = [made for made in (_series(rows, against, column) for rows in worlds.values()) if len(made[0])]
    if not series:
        return None
    if all(len(x) == len(series[0][0]) and (x == series[0][0]).all() for x, _ in series):
        grid = series[0][0]
    else:
        first, last = max(x[0] for x, _ in series), min(x[-1] for x, _ in series)
        grid = np.linspace(first, max(first, last), max(max(len(x) for x, _ in series), 2))
    stacked = np.stack([_at(grid, x, y) for x, y in series])
    # Infinite values only need an order here.
    huge = np.finfo(np.float64).max / 4
    found = np.quantile(np.clip(stacked, -huge, huge), [0.1, 0.5, 0.9], axis=0)
    low, middle, high = np.where(np.abs(found) > huge / 1e3, np.copysign(np.inf, found), found)
    return Spread(grid, low, middle, high, len(series))


def _series(rows: Rows, against: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    worst = -np.inf if column == "test_accuracy" else np.inf
    of_test = column == "error" or column.startswith("test_")
    x, y = [], []
    for row in rows:
        value = row.get("test_accuracy" if column == "error" else column)
        if value is None and not (of_test and row.get("diverged")):
            continue
        x.append(row[against])
        y.append(worst if value is None else 1 - value if column == "error" else value)
    return np.array(x, np.float64), np.array(y, np.float64)


def _at(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`y` at `grid`, linear between rows; after the last finite value, infinite if the next one is."""
    finite = np.isfinite(y)
    if finite.all():
        return np.interp(grid, x, y)
    if not finite.any():
        return np.full(len(grid), y[0])
    first_lost = int(np.argmin(finite))
    if first_lost == 0:
        return np.full(len(grid), y[0])
    inside = np.interp(grid, x[:first_lost], y[:first_lost])
    return np.where(grid > x[first_lost - 1], y[first_lost], inside)


def curves(ax: Any, board: Board, against: str, column: str, faint: bool = False) -> list[Spread]:
    """Draws every policy's median line and band; those of infinite values end at the axes' edge.

    Args:
      ax: the axes.
      board: what is drawn.
      against: the column on the x axis.
      column: the column on the y axis; `error` is 1 - `test_accuracy`.
      faint: thin and pale lines without bands, behind others.
    """
    spreads = {name: spread(board.by[name], against, column) for name in board.policies}
    drawn = {name: found for name, found in spreads.items() if found is not None}
    finite = np.concatenate([np.zeros(0), *(part[np.isfinite(part)] for one in drawn.values() for part in one[1:4])])
    beyond = 1e3 * np.abs(finite).max() if finite.size else 1.0  # where bands of infinite values go: over the edge
    for name, found in drawn.items():
        look = dict(board.looks[name])
        middle = np.where(np.isfinite(found.middle), found.middle, np.nan)
        if faint:
            look |= {"alpha": 0.5, "linewidth": 0.7, "zorder": 1.8}
        elif found.worlds > 1 and len(board.policies) <= _MOST_BANDS:
            edges = np.clip([found.low, found.high], -beyond, beyond)
            some = np.isfinite(found.low) | np.isfinite(found.high)
            ax.fill_between(found.x, *edges, where=some, color=look["color"], alpha=0.14, linewidth=0)
        # A line of few points is hard to see, and one of a single point is not there.
        marker = board.markers[name] if np.isfinite(middle).sum() < 3 else None
        ax.plot(found.x, middle, marker=marker, markersize=3.5, clip_on=marker is None, **look)
    ax.set(xlabel=NAMES[against], ylabel=NAMES.get(column, column.replace("_", " ")))
    if against == "virtual_time":
        ax.set_xlim(0, board.end() or 1)
    else:
        ax.set_xlim(0, max([found.x[-1] for found in drawn.values()], default=1) or 1)
    return list(drawn.values())


def fit(ax: Any, drawn: Sequence[Spread], log: bool | None = None) -> bool:
    """Sets the y axis to the finite values inside the x axis.

    Args:
      ax: the axes.
      drawn: as `curves` returned it.
      log: whether the axis is logarithmic; `None`: where positive values span more than a factor of 30.

    Returns:
      Whether the axis is logarithmic.
    """
    end = ax.get_xlim()[1]
    parts = [values[found.x <= end] for found in drawn for values in (found.low, found.middle, found.high)]
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if not values.size:
        return False
    if log is None:
        log = positive.size == values.size and positive.max() / positive.min() > 30
    if log and positive.size:
        low, high = positive.min() / 1.15, positive.max() * 1.15
        scales.log_axis(ax, "y", low, high)
    else:
        log = False
        margin = 0.04 * (values.max() - values.min()) or 0.05 * abs(values.max()) or 0.05
        ax.set_ylim(values.min() - margin, values.max() + margin)
    return log


def bands_note(board: Board, of_test: bool = True) -> str:
    """How the lines and bands of `curves` are to be read; `of_test`: of values that a diverged world lacks."""
    if board.worlds == 1:
        return "one world: no band"
    if len(board.policies) > _MOST_BANDS:
        return f"line: median of {board.worlds} worlds"
    lost = of_test and any(board.facts[name]["diverged"] for name in board.policies)
    return LINE.format(board.worlds) + ("; diverged worlds count as the worst" if lost else "")


def quality(ax: Any, board: Board, letter: str = "") -> None:
    """Panel: test error against virtual time on a log axis; the test loss of tasks without accuracy."""
    column = "error" if board.has_accuracy else "test_loss"
    drawn = curves(ax, board, "virtual_time", column)
    style.heading(
        ax, "test error over time" if board.has_accuracy else "test loss over time", bands_note(board), letter
    )
    if not drawn:
        style.empty(ax, "no test values")
        return
    fit(ax, drawn, log=True if board.has_accuracy else None)
    few_ticks(ax)
    if board.target is not None and board.has_accuracy:
        target_line(ax, 1 - board.target, f"target: accuracy {board.target:g}")


def target_line(ax: Any, level: float, said: str, above: bool = True) -> None:
    """A dashed line at the target, inside the axis's range, and its name at the right end above or below it."""
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and level > 0:
        scales.log_axis(ax, "y", min(low, level / 1.3), max(high, level * 1.3))
    else:
        ax.set_ylim(min(low, level - 0.05 * (high - low)), max(high, level + 0.05 * (high - low)))
    ax.axhline(level, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1.5)
    under = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.4}
    look = {
        "fontsize": 6.2,
        "color": style.GREY,
        "ha": "right",
        "va": "bottom" if above else "top",
        "bbox": under,
        "zorder": 4,
    }
    ax.annotate(
        said,
        (1, level),
        (-1, 2 if above else -2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        **look,
    )


def few_ticks(ax: Any, whole: bool = False) -> None:
    """Few enough numbers on the x axis that long ones do not touch."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole))
