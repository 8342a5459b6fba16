"""Panels of a run with one row a policy: time to target, where a second goes, iteration lengths, accuracy at T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dbwjax.report import scales, style
from dbwjax.report.run_curves import Board

_SMALL = 6.2
"""Points: the size of names and numbers over rows."""

_NAME, _MARK, _HALF = -0.27, 0.19, 0.18
"""Within a row of height 1: where the text is, where the mark is, and half the height of a bar."""


def row_height(policies: Sequence[str]) -> float:
    """The height of one row in mm: less where there are many."""
    return 7.0 if len(policies) <= 8 else 4.6


def time_to_target(ax: Any, board: Board, letter: str = "") -> None:
    """Panel: the baseline's time to target over each rule's, with interval; iteration lengths where nothing is learnt
    to a target."""
    to_target = board.target is not None
    column = "ratio" if to_target else "iteration_ratio"
    base = style.plain(board.baseline, 18)
    if to_target:
        title, note = f"time to accuracy {board.target:g}", "seconds" if _all_reached(board) else "seconds, or reached"
    else:
        title, note = "iteration length", "seconds (speed, not learning)"
    said = "95 % interval, paired by world" if board.worlds > 1 else "one world: no interval"
    if len(board.policies) == 1:
        said, note = "one rule: no ratio", f"right: {note}"
    else:
        note = f"right: ratio, {note}"
    style.heading(ax, title, f"{said}; {note}", letter)
    ratios = {name: board.facts[name][column] if name != board.baseline else None for name in board.policies}
    _rows(ax, board, [_seconds(board.facts[name], ratios[name], to_target) for name in board.policies])
    ax.set_xlabel(f"time of {base} / time of the rule")
    ends: list[float] = [1.0]
    for place, name in enumerate(board.policies):
        color, y = board.looks[name]["color"], place + _MARK
        ends += draw_interval(ax, y, ratios[name], color, board.markers[name])
        if name == board.baseline:
            look = {"color": color, "markerfacecolor": "white", "markersize": 4.5}
            ax.plot([1], [y], marker=board.markers[name], zorder=3, **look)
    low, high = min(ends) / 1.12, max(ends) * 1.12
    scales.log_axis(ax, "x", min(low, 0.87), max(high, 1.15), ratio=True)
    ax.axvline(1, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.5)


def _all_reached(board: Board) -> bool:
    return all(facts["time_to_target"] is not None for facts in board.facts.values())


def _seconds(facts: Mapping[str, Any], ratio: Mapping[str, Any] | None, to_target: bool) -> str:
    """What stands beside a row: the ratio, and the seconds or how many worlds reached the target."""
    seconds = facts["time_to_target"] if to_target else facts["iteration_length"]
    parts = [ratio_text(ratio)] if ratio else []
    if seconds is not None:
        parts.append(f"{seconds:.3g} s")
    elif to_target:
        reached, worlds = facts["reached"]
        parts.append(f"{reached} of {worlds}")
    else:
        parts.append("no iteration")
    if facts["diverged"]:
        parts.append(f"{facts['diverged']} diverged")
    return ", ".join(parts)


def ratio_text(interval: Mapping[str, Any]) -> str:
    """The estimate of a ratio, with its sign where it is a bound."""
    if interval["estimate"] is None:
        return "no ratio"
    sign = {"at least": "≥ ", "at most": "≤ "}.get(interval["bound"] or "", "")
    return f"{sign}{interval['estimate']:.2f}" if interval["estimate"] < 99.5 else f"{sign}{interval['estimate']:.3g}"


def draw_interval(
    ax: Any,
    place: float,
    interval: Mapping[str, Any] | None,
    color: str,
    marker: str,
    horizontal: bool = True,
    size: float = 4.5,
) -> list[float]:
    """A point with its whiskers; an arrow where it is a bound, to the side on which the truth lies.

    Args:
      ax: the axes.
      place: on the other axis.
      interval: an INTERVAL of the summary; nothing is drawn for `None` or without an estimate.
      color: of all.
      marker: of the point.
      horizontal: along x, or along y.
      size: of the point.

    Returns:
      The values that the axis must hold.
    """
    if not interval or interval["estimate"] is None:
        return []
    at, low, high = (interval[key] for key in ("estimate", "low", "high"))
    ends = [at if low is None else low, at if high is None else high]
    line = (ends, [place, place]) if horizontal else ([place, place], ends)
    point = (at, place) if horizontal else (place, at)
    ax.plot(*line, color=color, linewidth=1.3, solid_capstyle="butt", zorder=2.5)
    ax.plot(*point, color=color, marker=marker, markersize=size, markeredgecolor="white", markeredgewidth=0.5, zorder=3)
    side = {"at least": 1, "at most": -1}.get(interval["bound"] or "", 0)
    if side:
        offset = (15 * side, 0) if horizontal else (0, 15 * side)
        arrow = {"arrowstyle": "<|-", "color": color, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
        ax.annotate("", point, offset, textcoords="offset points", arrowprops=arrow, zorder=2.4)
        ends.append(at * 1.6**side)  # room for the arrow
    return [at, *ends]


def where_time_goes(ax: Any, board: Board, letter: str = "") -> None:
    """Panel: stacked shares of a worker's second that are computing, wasted, in flight and waiting."""
    from matplotlib.patches import Patch

    style.heading(ax, "where a second goes", letter=letter)
    flown = any(board.facts[name]["communicating"] for name in board.policies)
    kinds = ("computing", "wasted", *(["communicating"] if flown else []), "waiting")
    shares = [[board.facts[name][kind] for kind in kinds] for name in board.policies]
    known = [None not in row for row in shares]
    said = [
        " / ".join(f"{100 * share:.0f}" for share in row) if ok else "no iteration"
        for row, ok in zip(shares, known, strict=True)
    ]
    _rows(ax, board, said)
    for place, (name, row) in enumerate(zip(board.policies, shares, strict=True)):
        if not known[place]:
            continue
        color, start = board.looks[name]["color"], 0.0
        looks = {
            "computing": {"color": color},
            "wasted": {"facecolor": "white", "edgecolor": color, "hatch": "//////"},
            "communicating": {"facecolor": "white", "edgecolor": color, "hatch": "......"},
            "waiting": {"color": "#dcdcdc"},
        }
        for share, look in zip(row, (looks[kind] for kind in kinds), strict=True):
            ax.barh(place + _MARK, 100 * share, 2 * _HALF, left=100 * start, linewidth=0, zorder=2, **look)
            start += share
    key = [
        Patch(color="#6e6e6e", label="computing"),
        Patch(facecolor="white", edgecolor="#6e6e6e", hatch="//////", linewidth=0, label="wasted"),
        *(
            [Patch(facecolor="white", edgecolor="#6e6e6e", hatch="......", linewidth=0, label="in flight")]
            if flown
            else []
        ),
        Patch(color="#dcdcdc", label="waiting"),
    ]
    look = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0, "ncols": 4, "fontsize": _SMALL}
    # Four of them are wider than the panel unless they stand closer.
    spacing = {"handlelength": 0.9, "handletextpad": 0.3, "columnspacing": 0.5} if flown else {}
    spacing = {"handlelength": 1.1, "handletextpad": 0.4, "columnspacing": 0.9} | spacing
    ax.legend(handles=key, borderpad=0.1, **spacing, **look)
    ax.set_title(ax.get_title("left"), loc="left", pad=11)
    ax.set(xlim=(0, 100), xlabel="share of workers' time [%]", xticks=[0, 25, 50, 75, 100])


def lengths(board: Board, name: str) -> np.ndarray:
    """The lengths of all iterations of a policy that ended, of all worlds, s, ascending."""
    parts = [np.asarray(world["length"], np.float64) for world in board.timelines.get(name, {}).values()]
    return np.sort(np.concatenate([np.zeros(0), *parts]))


def iteration_lengths(ax: Any, board: Board, letter: str = "") -> None:
    """Panel: how long iterations last, as boxes with the median and the 95th percentile."""
    style.heading(ax, "iteration length", "box: middle half; line: 5 to 95 %; right: median | 95th percentile", letter)
    found = [lengths(board, name) for name in board.policies]
    marks = [np.quantile(seconds, [0.05, 0.25, 0.5, 0.75, 0.95]) if seconds.size else None for seconds in found]
    _rows(ax, board, ["no iteration ended" if five is None else f"{five[2]:.3g} | {five[4]:.3g}" for five in marks])
    ax.set_xlabel("iteration length [s]")
    ends: list[float] = []
    for place, (name, five) in enumerate(zip(board.policies, marks, strict=True)):
        if five is None:
            continue
        least, low, middle, high, most = five
        color, y = board.looks[name]["color"], place + _MARK
        ax.plot([least, most], [y, y], color=color, linewidth=1.0, zorder=2)
        ax.barh(y, high - low, 2 * _HALF, left=low, facecolor="white", edgecolor=color, linewidth=1.0, zorder=2.2)
        ax.plot([middle, middle], [y - _HALF, y + _HALF], color=color, linewidth=2.2, solid_capstyle="butt", zorder=2.4)
        ax.plot([most], [y], marker=board.markers[name], color=color, markersize=4, zorder=3, clip_on=False)
        ends += [least, most]
    if ends and min(ends) > 0 and max(ends) / min(ends) > 20:
        scales.log_axis(ax, "x", min(ends) / 1.2, max(ends) * 1.2)
    else:
        ax.set_xlim(0, 1.05 * max(ends, default=1) or 1)


def at_the_end(ax: Any, board: Board, letter: str = "") -> None:
    """Panel: accuracy (or test loss) at equal time, worlds as dots; the spread over single workers where known."""
    column = "test_accuracy" if board.has_accuracy else "test_loss"
    what = "accuracy" if board.has_accuracy else "test loss"
    low, high = board.cell["budget"]
    when = f"{low:.4g} s" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} s"
    if not board.cell["equal_time"]:
        style.heading(ax, f"{what} at equal time", letter=letter)
        style.empty(ax, "no equal time:\nrules stopped\nat the target")
        return
    spread_known = any(facts["worker_accuracy"] for facts in board.facts.values())
    with_interval = board.worlds > 1 and board.has_accuracy and len(board.policies) > 1
    said = ["dots: worlds, mean" if board.worlds > 1 else "one world: no interval"]
    if with_interval:
        said[0] += f"; bar: 95 % interval of difference to {style.plain(board.baseline, 16)}"
    if spread_known:
        said.append("below: worst, median worker")
    style.heading(ax, f"{what} after {when}", "; ".join(said), letter)
    _rows(ax, board, [_at_end_text(board.facts[name], column) for name in board.policies])
    ax.set_xlabel(f"test {what.removeprefix('test ')}")
    seen = [value for place, name in enumerate(board.policies) for value in _end_row(ax, board, place, name, column)]
    if not seen:
        return
    if not board.has_accuracy and min(seen) > 0 and max(seen) / min(seen) > 20:
        scales.log_axis(ax, "x", min(seen) / 1.2, max(seen) * 1.2)
        return
    margin = 0.06 * (max(seen) - min(seen)) or 0.02
    ax.set_xlim(min(seen) - margin, max(seen) + margin)
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(4))


def _end_row(ax: Any, board: Board, place: int, name: str, column: str) -> list[float]:
    """Draws one policy's worlds, mean, interval and single workers; returns the values drawn."""
    facts, color = board.facts[name], board.looks[name]["color"]
    worlds = [rows[-1].get(column) for rows in board.by[name].values()]
    seen = [value for value in worlds if value is not None]
    y, under = place + _MARK - 0.07, place + _MARK + 0.15
    if board.worlds > 1:
        ax.plot(seen, [y] * len(seen), ".", color=color, markersize=3.6, alpha=0.55, markeredgewidth=0, zorder=2)
    mean, interval = facts[column], facts["accuracy_difference"]
    if mean is not None:
        if board.has_accuracy and interval and interval["low"] is not None and interval["high"] is not None:
            ends = [mean + interval[key] - interval["estimate"] for key in ("low", "high")]
            ax.plot(ends, [y, y], color=color, linewidth=1.3, zorder=2.5)
            seen += ends
        look = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 3}
        ax.plot([mean], [y], color=color, marker=board.markers[name], **look)
        seen.append(mean)
    if facts["worker_accuracy"]:
        ax.plot(facts["worker_accuracy"], [under, under], color=color, alpha=0.35, linewidth=2, solid_capstyle="butt")
        seen += facts["worker_accuracy"]
    return seen


def _at_end_text(facts: Mapping[str, Any], column: str) -> str:
    shown = "-" if facts[column] is None else format(facts[column], ".3f" if column == "test_accuracy" else ".3g")
    return f"{shown}, {facts['diverged']} diverged" if facts["diverged"] else shown


def _rows(ax: Any, board: Board, said: Sequence[str]) -> None:
    """One row a policy, the first on top: its SPEC and what is said of it in a line above its mark."""
    count = len(board.policies)
    size = _SMALL if count <= 8 else 5.6
    room = int(0.87 * ax.figure.get_figwidth() * 25.4 / style.columns_of(ax) / (0.205 * size))  # characters
    where: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "va": "center",
        "fontsize": size,
        "annotation_clip": False,
    }
    where["bbox"] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.2}
    for place, (name, numbers) in enumerate(zip(board.policies, said, strict=True)):
        shown = style.labels(board.policies, max(10, room - len(numbers) - 2))[name]
        for at, text, side in ((0, shown, "left"), (1, numbers, "right")):
            ax.annotate(text, (at, place + _NAME), ha=side, **where).set_in_layout(False)
    ax.set(yticks=[], ylim=(count - 0.45, -0.55))
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)


def _columns(ax: Any) -> int:
    return ax.get_subplotspec().get_gridspec().ncols
