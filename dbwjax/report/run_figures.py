"""Figures of a run, from what its folder holds: rows of metrics, timelines and the graph.

Every policy keeps its colour in all panels, and the legend stands below them, where it covers nothing. The same data
give the same bytes. Matplotlib is imported when the first figure is drawn, and pyplot's global state is not touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.files import replace_file
from dbwjax.report.network import GraphPicture, draw_graph
from dbwjax.report.statistics import summary
from dbwjax.storage.timelines import Timelines

Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's colours, which people of all colour vision tell apart; their yellow, too pale on white, is left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
_DASHED = (0, (4, 2))
_MISSING = {"duration": "no iteration yet", "time_to_target": "target not reached"}
_DOT: dict[str, Any] = {"marker": "o", "markersize": 5, "markeredgecolor": "white", "zorder": 3}
_GREY = "#6e6e6e"
_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": f"cycler('color', {list(_COLOURS)})",
    "figure.dpi": 160,
    "savefig.dpi": 160,
    "legend.frameon": False,
}
_NAMES = {
    "virtual_time": "virtual time [s]",
    "step": "iterations",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "consensus_distance": "consensus distance",
}


def write_figures(
    folder: str | Path, rows: Rows, timelines: Timelines, graph: GraphPicture, target_accuracy: float | None
) -> list[Path]:
    """Draws all figures of a run.

    Args:
      folder: RUN.
      rows: of `metrics.jsonl`; the policies are drawn in the order in which they first appear.
      timelines: each policy's durations and backup workers.
      graph: who hears whom.
      target_accuracy: drawn as a line; `None` for tasks without accuracy, which also have no `accuracy.png`.

    Returns:
      The files, `summary.png` first.

    Raises:
      ValueError: a file cannot be written.
    """
    board = _Board(rows, timelines, graph, target_accuracy)
    drawn: dict[str, Callable[[], Any]] = {
        "summary.png": board.summary,
        "accuracy.png": board.accuracy,
        "loss.png": board.loss,
        "durations.png": board.durations,
        "backup_workers.png": board.backup_workers,
        "graph.png": board.graph_alone,
    }
    if not board.has_accuracy:
        del drawn["accuracy.png"]
    with house_style():
        for name, draw in drawn.items():
            save_figure(draw(), Path(folder) / name)
    return [Path(folder) / name for name in drawn]


class _Board:
    """The data of a run and one method per figure."""

    def __init__(self, rows: Rows, timelines: Timelines, graph: GraphPicture, target: float | None):
        self.policies = list(dict.fromkeys(row["policy"] for row in rows))
        self.rows = {name: [row for row in rows if row["policy"] == name] for name in self.policies}
        self.timelines, self.graph, self.target = timelines, graph, target
        self.facts = summary(rows, self.policies, target)
        self.has_accuracy = any(row.get("test_accuracy") is not None for row in rows)
        self.style: dict[str, dict[str, Any]] = {
            name: {
                "color": _COLOURS[i % len(_COLOURS)],
                "linestyle": _DASHES[i // len(_COLOURS) % len(_DASHES)],
                # Thinner towards the last, so that a line that lies on another leaves its edges to be seen.
                "linewidth": 2.2 - 0.9 * i / max(1, len(self.policies) - 1),
            }
            for i, name in enumerate(self.policies)
        }

    def summary(self) -> Any:
        """Six panels that could stand in a paper."""
        figure, axes = new_figure(9.6, 5.9, 2, 3)
        (quality, loss, durations), (backups, graph, last) = axes
        if self.has_accuracy:
            self._accuracy(quality, "virtual_time")
        else:
            self._curves(quality, "virtual_time", "test_loss")
        self._curves(loss, "step", "test_loss")
        self._duration_shares(durations)
        self._backups(backups, "step")
        draw_graph(graph, self.graph)
        if len(self.policies) > 1:
            self._speedups(last)
        else:
            self._curves(last, "virtual_time", "consensus_distance")
        for letter, ax in zip("abcdef", axes.flat, strict=True):
            ax.set_title(f"({letter}) {ax.get_title('left')}")
        return self._with_legend(figure)

    def accuracy(self) -> Any:
        """Test accuracy against virtual time and against iterations."""
        figure, axes = new_figure(9, 3.8, 1, 2)
        self._accuracy(axes[0, 0], "virtual_time")
        self._accuracy(axes[0, 1], "step")
        return self._with_legend(figure)

    def loss(self) -> Any:
        """Test and training loss against virtual time and against iterations."""
        figure, axes = new_figure(9, 3.8, 1, 2)
        for ax, against in zip(axes[0], ("virtual_time", "step"), strict=True):
            self._curves(ax, against, "test_loss", also="train_loss")
            ax.set(title=f"loss against {_NAMES[against].removesuffix(' [s]')}", ylabel="loss")
        return self._with_legend(
            figure, {"test, mean model": {}, "training, mean of workers": {"alpha": 0.45, "linewidth": 0.9}}
        )

    def durations(self) -> Any:
        """How long iterations last."""
        figure, axes = new_figure(6, 4, 1, 1)
        self._duration_shares(axes[0, 0])
        return self._with_legend(figure)

    def backup_workers(self) -> Any:
        """Backup workers against virtual time and against iterations."""
        figure, axes = new_figure(9, 3.8, 1, 2)
        self._backups(axes[0, 0], "virtual_time")
        self._backups(axes[0, 1], "step")
        return self._with_legend(figure)

    def graph_alone(self) -> Any:
        """The graph with its spanning path or tree."""
        figure, axes = new_figure(5, 5.2, 1, 1)
        draw_graph(axes[0, 0], self.graph, scale=1.6)
        return figure

    def _curves(self, ax: Any, against: str, column: str, also: str | None = None) -> None:
        seen: list[float] = []
        for name in self.policies:
            x = _column(self.rows[name], against)
            for y_column, look in ((also, {"alpha": 0.45, "linewidth": 0.9}), (column, {})):
                if y_column is not None:
                    y = _column(self.rows[name], y_column)
                    seen.extend(y[np.isfinite(y)])
                    # A line of one point is invisible; so is one whose neighbours are missing.
                    marker = "o" if np.isfinite(y).sum() < 3 else None
                    ax.plot(x, y, marker=marker, markersize=4, clip_on=marker is None, **{**self.style[name], **look})
        if seen and min(seen) > 0 and max(seen) / min(seen) > 10**1.5:
            ax.set_yscale("log")
        ax.set(xlabel=_NAMES[against], ylabel=_NAMES[column], title=_NAMES[column])
        _from_zero(ax)

    def _accuracy(self, ax: Any, against: str) -> None:
        self._curves(ax, against, "test_accuracy")
        if self.target is None:
            return
        ax.set_title(f"dashed: target {self.target:g}", loc="right", fontsize=8, color=_GREY)
        ax.axhline(self.target, color=_GREY, linewidth=0.8, linestyle=_DASHED, zorder=1.5)
        bottom = ax.get_ylim()[0]
        for name in self.policies:
            reached = [row for row in self.rows[name] if (row.get("test_accuracy") or -1) >= self.target]
            if reached:
                x, y, colour = reached[0][against], reached[0]["test_accuracy"], self.style[name]["color"]
                ax.plot([x, x], [bottom, y], color=colour, linewidth=0.9, linestyle=(0, (1, 1.5)))
                ax.plot([x], [y], color=colour, **_DOT)
        ax.set_ylim(bottom=bottom)

    def _duration_shares(self, ax: Any) -> None:
        """Empirical distribution functions; a dot at the mean."""
        longest, shortest = 0.0, np.inf
        for name in self.policies:
            seconds = np.sort(np.asarray(self.timelines[name]["duration"], np.float64))
            if not seconds.size:
                continue
            ax.ecdf(seconds, **self.style[name])
            mean = seconds.mean()
            at = np.searchsorted(seconds, mean, side="right") / seconds.size
            ax.plot([mean], [at], color=self.style[name]["color"], **_DOT)
            longest, shortest = max(longest, seconds[-1]), min(shortest, seconds[0])
        ax.set(xlabel="iteration duration [s]", ylabel="share of iterations", title="iteration duration (dot: mean)")
        if shortest > 0 and longest / shortest > 100:
            ax.set_xscale("log")
        else:
            _from_zero(ax)
        ax.set_ylim(0, 1.03)

    def _backups(self, ax: Any, against: str) -> None:
        widest = 1
        for name in self.policies:
            timeline = self.timelines[name]
            steps = len(timeline["duration"])
            window = max(1, steps // 60)
            widest = max(widest, window)
            ends = np.cumsum(timeline["duration"], dtype=np.float64)
            x = _window_means(ends if against == "virtual_time" else np.arange(1.0, steps + 1), window)
            y = _window_means(np.asarray(timeline["backup_workers"], np.float64), window)
            ax.plot(x, y, marker="o" if len(x) < 3 else None, markersize=4, **self.style[name])
        smoothed = f" (means of {widest} iterations)" if widest > 1 else ""
        ax.set(xlabel=_NAMES[against], ylabel="backup workers per worker", title=f"backup workers{smoothed}")
        _from_zero(ax)
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))

    def _speedups(self, ax: Any) -> None:
        speedup = self.facts["speedup"]
        kinds = {"duration": "duration"}
        if any(by["time_to_target"] for by in speedup.values()):
            kinds["time_to_target"] = "to target"
        height = 0.8 / len(kinds)
        for place, name in enumerate(self.policies):
            for slot, (kind, meaning) in enumerate(kinds.items()):
                y = place + (slot - (len(kinds) - 1) / 2) * height
                value = speedup[name][kind]
                look = {"alpha": 0.45} if kind == "duration" and len(kinds) > 1 else {}
                ax.barh(y, value or 0, height * 0.9, color=self.style[name]["color"], **look)
                shown = _MISSING[kind] if value is None else f"{value:.2f}x {meaning}"
                size = 7.5 if len(self.policies) <= 5 else 6.5
                under = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                offset = {"xytext": (3, 0), "textcoords": "offset points"}
                ax.annotate(shown, (value or 0, y), va="center", fontsize=size, bbox=under, **offset)
        ax.axvline(1, color=_GREY, linewidth=0.8, linestyle=_DASHED, zorder=0)
        ax.set(yticks=[], xlabel="times faster", title=f"speed-up over {_short(self.policies[-1], 18)}")
        _from_zero(ax)
        ax.set_xlim(right=1.6 * max(1, ax.dataLim.x1))
        ax.invert_yaxis()
        ax.grid(False)
        ax.spines["left"].set_visible(False)

    def _with_legend(self, figure: Any, kinds: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
        from matplotlib.lines import Line2D

        labels = _distinct(self.policies)
        handles: list[Any] = [
            Line2D([], [], label=label, **self.style[name]) for name, label in zip(self.policies, labels, strict=True)
        ]
        handles += [Line2D([], [], label=label, color=_GREY, **look) for label, look in (kinds or {}).items()]
        longest = max(len(handle.get_label()) for handle in handles)
        columns = int(figure.get_figwidth() * 14 // (longest + 6))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=max(1, min(columns, len(handles))), fontsize=8.5
        )
        return figure


def _from_zero(ax: Any) -> None:
    """A linear axis from 0, with few enough ticks that long numbers do not touch."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=ax.get_xlabel() == _NAMES["step"]))
    ax.set_xlim(left=0)


def _column(rows: Rows, name: str) -> np.ndarray:
    """Float64, NaN where a row has no value."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)


def _window_means(values: np.ndarray, window: int) -> np.ndarray:
    """Means of consecutive windows; the last one may be shorter."""
    starts = np.arange(0, len(values), window)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values))) if len(values) else values


def _short(name: str, width: int) -> str:
    """The two ends of a name that is too long; a dollar sign is not mathematics."""
    shown = name if len(name) <= width else f"{name[: width // 2]}…{name[-(width - width // 2 - 1) :]}"
    return shown.replace("$", r"\$")


def _distinct(names: Sequence[str]) -> list[str]:
    """Names short enough for a legend, numbered where that makes them equal."""
    short = [_short(name, 60) for name in names]
    return [f"{i + 1}: {name}" if short.count(name) > 1 else name for i, name in enumerate(short)]


def new_figure(width: float, height: float, rows: int, columns: int) -> tuple[Any, Any]:
    """A figure of its own, outside pyplot's list, with `[rows, columns]` axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def house_style() -> contextlib.AbstractContextManager:
    """Matplotlib's settings while figures of the house are drawn."""
    from matplotlib import rc_context

    return rc_context(_RC)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG whole."""
    # Without this entry the bytes name no matplotlib version.
    replace_file(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))
