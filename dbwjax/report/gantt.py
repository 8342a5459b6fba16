"""The Gantt chart of a comparison: a row a worker, when it computed and when it waited.

One drawing for page, paper and notebook. Bars of one kind are one line with gaps, so that thousands of them stay a
small file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dbwjax.report import style
from dbwjax.report.network import GraphPicture, pairs_of
from dbwjax.report.views import EDGE, View, views
from dbwjax.report.waits import Cells, cells_of

COLOURS = {"computing": "#0072b2", "waiting": "#b9bec6", "wasted": "#c4500c", "communicating": "#7a4fb0"}
"""Of the four states, as in the page's light theme."""

SAID = {
    "computing": "computing",
    "wasted": "computing, thrown away",
    "waiting": "waiting",
    "communicating": "message in flight",
}
"""The same in words."""

_ARROWS = 60
"""At most so many arrows from cause to waiter: the longest waits."""

_ROW = 4.2
"""Millimetres of a row where there are few."""


class Layout(NamedTuple):
    """Where a view's times and workers lie on the axes."""

    origin: np.ndarray  # [W] x of the beginning of each stretch
    width: float  # x of the last one's end
    row: dict[int, int]  # y of each worker's row, from 0 at the top


def layout(view: View) -> Layout:
    """The stretches end to end with a small gap between them, the rows from 0 down."""
    length = view.windows[:, 1] - view.windows[:, 0]
    gap = 0.012 * float(length.sum()) if len(length) > 1 else 0.0
    origin = np.concatenate([[0.0], np.cumsum(length + gap)[:-1]])
    return Layout(origin, float(origin[-1] + length[-1]), {int(worker): y for y, worker in enumerate(view.rows)})


def height_mm(view: View) -> float:
    """Of the rows of a view, enough for their names where there are at most 26."""
    rows = max(len(view.rows), 3)
    return _ROW * rows if rows <= 26 else min(200.0, max(110.0, 1.6 * rows))


def is_turned(view: View) -> bool:
    """Whether the names of stretches are too many to stand beside each other."""
    return len(view.windows) > 8


def draw_gantt(
    ax: Any, cells: Cells, view: View, *, arrows: bool = True, threshold: bool = False, note: str = "", letter: str = ""
) -> None:
    """Draws a view on Matplotlib axes.

    Args:
      ax: the axes; bars are as thick as the layout of its figure leaves room, so draw what else takes room before.
      cells: of one policy in one world.
      view: which of them, from `views`.
      arrows: from the finish that ended a wait to the waiter: of the longest waits among the rows shown.
      threshold: whether a line marks the end of each iteration, DTUR's threshold.
      note: in small print, before the view's own.
      letter: of the panel.
    """
    style.heading(ax, view.title, "; ".join(filter(None, [note, view.note])), letter)
    draw_bars(ax, cells, view, arrows=arrows, threshold=threshold)


def draw_bars(ax: Any, cells: Cells, view: View, *, arrows: bool = True, threshold: bool = False) -> None:
    """As `draw_gantt`, without a heading."""
    place = layout(view)
    _frame(ax, view, place)
    if ax.figure.get_layout_engine() is not None:
        ax.figure.draw_without_rendering()
    thick = 0.78 * ax.get_position().height * ax.figure.get_figheight() * 72 / max(len(view.rows), 1)  # points
    look: dict[str, Any] = {"linewidth": thick, "solid_capstyle": "butt", "dash_capstyle": "butt", "zorder": 2}
    found = bars_of(cells, view, place)
    for name, bars in found.items():
        if not len(bars):
            continue
        x, y = _with_gaps(bars)
        ax.plot(x, y, gid=f"bars-{name}", color=COLOURS[name], **look)
        if name == "wasted":  # told apart without colour, too
            ax.plot(x, y, dashes=(0.9 / thick, 1.6 / thick), color="white", **look)
    _draw_seams(ax, cells, view, place)
    if threshold and cells.ends is not None:
        _draw_thresholds(ax, cells, view, place)
    if arrows:
        _draw_arrows(ax, cells, view, place)


def _draw_seams(ax: Any, cells: Cells, view: View, place: Layout) -> None:
    """Where one computation follows another without a wait."""
    some = view.cells[
        (cells.released[view.cells] <= cells.finish[view.cells]) & np.isin(cells.worker[view.cells], view.rows)
    ]
    found = [(at(view, place, float(cells.released[cell])), place.row[int(cells.worker[cell])]) for cell in some]
    seams = np.array([(x, y) for x, y in found if x is not None and 0 < x < place.width]).reshape(-1, 2)
    if len(seams):
        x, y, none = seams[:, 0], seams[:, 1], np.full(len(seams), np.nan)
        ax.plot(
            *(np.stack([x, x, none], 1).ravel(), np.stack([y - 0.39, y + 0.39, none], 1).ravel()),
            **{"color": "white", "linewidth": 0.5, "zorder": 3, "gid": "seams"},
        )


def bars_of(cells: Cells, view: View, place: Layout) -> dict[str, np.ndarray]:
    """`[n, 3]` x of the two ends and y of the bars of each state, cut to the stretches shown."""
    which = view.cells[np.isin(cells.worker[view.cells], view.rows)]
    y = np.array([place.row[int(worker)] for worker in cells.worker[which]], float)
    start, finish, released = cells.start[which], cells.finish[which], cells.released[which]
    sent, used = released - cells.flight[which], cells.used[which]
    parts = {
        "computing": (start, finish, used),
        "wasted": (start, finish, ~used),
        "waiting": (finish, sent, sent > finish),
        "communicating": (sent, released, released > sent),
    }
    found = {}
    for name, (begin, end, there) in parts.items():
        pieces = []
        for (low, high), origin in zip(view.windows, place.origin, strict=True):
            a, b = np.maximum(begin, low), np.minimum(end, high)
            some = there & (b - a > EDGE * (high - low))
            pieces.append(np.stack([a[some] - low + origin, b[some] - low + origin, y[some]], axis=1))
        bars = np.concatenate(pieces)
        found[name] = bars[np.lexsort((bars[:, 0], bars[:, 2]))]
    return found


def at(view: View, place: Layout, time: float) -> float | None:
    """The x of a time; `None` where it is not shown."""
    for (low, high), origin in zip(view.windows, place.origin, strict=True):
        if low <= time <= high:
            return float(time - low + origin)
    return None


def _with_gaps(bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    none = np.full(len(bars), np.nan)
    return np.stack([bars[:, 0], bars[:, 1], none], axis=1).ravel(), np.stack([bars[:, 2], bars[:, 2], none], 1).ravel()


def _draw_thresholds(ax: Any, cells: Cells, view: View, place: Layout) -> None:
    assert cells.ends is not None
    found = [at(view, place, float(end)) for end in cells.ends]
    x = np.unique([x for x in found if x is not None])
    none = np.full(len(x), np.nan)
    low, high = np.full(len(x), -0.6), np.full(len(x), len(view.rows) - 0.4)
    look = {"color": "black", "linewidth": 0.7, "linestyle": (0, (3, 1.5)), "zorder": 4, "gid": "thresholds"}
    ax.plot(np.stack([x, x, none], 1).ravel(), np.stack([low, high, none], 1).ravel(), **look)


def _draw_arrows(ax: Any, cells: Cells, view: View, place: Layout) -> None:
    """For each of the longest waits a line from the cause's finish, a dot, to the waiter, a head."""
    some = view.cells[(cells.cause[view.cells] >= 0) & np.isin(cells.cause[view.cells], view.rows)]
    some = some[np.argsort(-cells.waited[some], kind="stable")]
    lines: list[tuple[float, float, float]] = []
    for cell in some:
        begin = at(view, place, float(cells.finish[cells.cause_cell[cell]]))
        if begin is not None and len(lines) < _ARROWS:
            lines.append((begin, place.row[int(cells.cause[cell])], place.row[int(cells.worker[cell])]))
    if not lines:
        return
    x, down, up = (np.array(values) for values in zip(*lines, strict=True))
    none = np.full(len(x), np.nan)
    look = {"color": "black", "linewidth": 0.6, "zorder": 5}
    ax.plot(np.stack([x, x, none], 1).ravel(), np.stack([down, up, none], 1).ravel(), gid="arrows", **look)
    size = ax.get_position().size * ax.figure.get_size_inches() * 72
    unit = np.array([place.width / size[0], len(view.rows) / size[1]])  # of the axes, in a point
    turn = np.where(up > down, 1.0, -1.0)[:, None, None]
    heads = np.stack([x, up], 1)[:, None] + turn * unit * np.array([[-1.6, -1.4], [1.6, -1.4], [0, 1.4]])
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    dots = np.unique(np.stack([x, down], 1), axis=0)[:, None] + unit * 1.4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    for shapes in (heads, dots):
        _draw_shapes(ax, shapes)


def _draw_shapes(ax: Any, shapes: np.ndarray) -> None:
    """Polygons `[n, corners, 2]` as one path."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    count, corners = shapes.shape[:2]
    closed = np.concatenate([shapes, shapes[:, :1]], axis=1).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, *([Path.LINETO] * (corners - 1)), Path.CLOSEPOLY], count)
    ax.add_patch(PathPatch(Path(closed, codes), facecolor="black", linewidth=0, zorder=5, clip_on=False, gid="heads"))


def _frame(ax: Any, view: View, place: Layout) -> None:
    from matplotlib.ticker import MaxNLocator

    rows = len(view.rows)
    ax.set(xlim=(0, place.width), ylim=(rows - 0.4, -0.6), ylabel="worker")
    few = np.arange(rows) if rows <= 26 else np.unique(np.linspace(0, rows - 1, 20).astype(int))
    ax.set_yticks(few, [str(view.rows[y]) for y in few])
    ax.grid(False)
    ax.tick_params(axis="y", length=0)
    if len(view.windows) == 1:
        low = float(view.windows[0, 0])
        ticks = [t for t in MaxNLocator(8).tick_values(low, low + place.width) if 0 <= t - low <= place.width]
        ax.set_xticks([t - low for t in ticks], [f"{t:g}" for t in ticks])
        ax.set_xlabel("virtual time [s]")
        return
    marked = [f"{mark}" if mark else f"{low:.3g} s" for mark, (low, _) in zip(view.marks, view.windows, strict=True)]
    ax.set_xticks(place.origin, marked)
    ax.tick_params(axis="x", labelrotation=45 if is_turned(view) else 0)
    whole = float((view.windows[:, 1] - view.windows[:, 0]).sum())
    ax.set_xlabel(
        ("iterations" if view.marks[0] else "stretches that begin at") + f", end to end; {whole:.3g} s in all"
    )


def figure(cells: Cells, view: View, width_mm: float = style.PAGE, threshold: bool = False, note: str = "") -> Any:
    """A figure of one view, with its key; to be drawn under `style.house_style()`.

    Args:
      cells: of one policy in one world.
      view: which of them.
      width_mm: of the figure.
      threshold: as for `draw_gantt`.
      note: as for `draw_gantt`.
    """
    made, axes = style.new_figure(width_mm, height_mm(view) + 24)
    _key(made, cells, view, threshold, width_mm)
    draw_gantt(axes[0, 0], cells, view, threshold=threshold, note=note)
    return made


def _key(made: Any, cells: Cells, view: View, threshold: bool, width_mm: float) -> None:
    """What the colours mean, below the panel."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    there = {name for name, bars in bars_of(cells, view, layout(view)).items() if len(bars)}
    handles: list[Any] = [
        _striped() if name == "wasted" else Patch(color=COLOURS[name], label=SAID[name])
        for name in SAID
        if name in there
    ]
    if threshold:
        handles.append(Line2D([], [], color="black", linewidth=0.7, linestyle=(0, (3, 1.5)), label="threshold"))
    arrow: dict[str, Any] = {"color": "black", "linewidth": 0.6, "marker": ">", "markersize": 2.8, "markevery": [1]}
    handles.append(Line2D([0, 1], [0, 0], label="from cause to waiter", **arrow))
    columns = len(handles) if width_mm >= 150 else 2
    made.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.4, columnspacing=1.2)


def _striped() -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=COLOURS["wasted"], edgecolor="white", hatch="|||||", linewidth=0, label=SAID["wasted"])


def of_first_world(policy: str, worlds: Mapping[str, Mapping[str, Any]], graph: GraphPicture | None) -> Any:
    """The figure of a policy's first iterations in its first world.

    Args:
      policy: its SPEC or name.
      worlds: its timelines by world.
      graph: who hears whom; `None`: not known.

    Raises:
      ValueError: no computations were kept.
    """
    world = next(iter(worlds))
    cells = cells_of(worlds[world], None if graph is None else pairs_of(graph))
    with style.house_style():
        return figure(
            cells, views(cells)[0], threshold=style.rule_of(policy) == "dybw", note=f"{policy}, world {world}"
        )
