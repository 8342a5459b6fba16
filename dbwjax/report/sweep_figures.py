"""Figures of a sweep, from its summary: one for each axis of several values, and a heat map for the first two.

Cells are never pooled: a figure against one axis has a panel for each combination of the others. A category has points
and no line; a numeric axis has both.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dbwjax.report import scales, style
from dbwjax.report.run_panels import draw_interval, ratio_text

_MOST_PANELS = 24  # of one figure; a figure of more says how many it leaves out


class _Quantity(NamedTuple):
    """What a sweep compares: seconds to the target, or of an iteration."""

    name: str  # of the files
    seconds: str  # in FACTS
    ratio: str  # in FACTS, the baseline's seconds over the rule's
    axis: str  # the label of seconds
    short: str


_TARGET = _Quantity("time_to_target", "time_to_target", "ratio", "time to target [s]", "time to target")
_LENGTH = _Quantity(
    "iteration_length", "iteration_length", "iteration_ratio", "iteration length [s]", "iteration length"
)
QUANTITIES = (_TARGET.name, _LENGTH.name)  # their files are QUANTITY-AXIS and QUANTITY-heatmap


def write_figures(
    folder: str | Path,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Draws all figures of a sweep; none if no axis has several values.

    Args:
      folder: of the sweep.
      summary: of `summary.json`; it holds all that is drawn.
      rows: of the metrics; policies are drawn in the order of their first row.
      formats: of `png`, `pdf` and `svg`.

    Returns:
      The files: `QUANTITY-AXIS` for each axis, then `QUANTITY-heatmap`.

    Raises:
      ValueError: an unknown format, or a file cannot be written.
    """
    style.check(formats)
    with style.house_style():
        return [path for name, figure in draw(summary, rows) for path in style.save(figure, folder, name, formats)]


def draw(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The figures by name; `style.house_style` must hold until each is written."""
    cells = summary["cells"]
    what = _TARGET if summary["kind"] == "learning" and summary["target_accuracy"] is not None else _LENGTH
    policies = list(dict.fromkeys(row["policy"] for row in rows)) or list(cells[0]["policies"])
    values = {axis: list(dict.fromkeys(cell["values"][axis] for cell in cells)) for axis in cells[0]["values"]}
    wide = [axis for axis, found in values.items() if len(found) > 1]
    for axis in wide:
        others = [one for one in wide if one != axis]
        yield f"{what.name}-{axis}", _against(summary, what, policies, axis, values[axis], others)
    if len(wide) > 1 and len(policies) > 1:
        yield f"{what.name}-heatmap", _heat_maps(summary, what, policies, wide, values)


def _by_others(cells: Sequence[Mapping], others: Sequence[str]) -> dict[tuple, list[Mapping]]:
    """Cells by their values of the other axes, which have one panel each."""
    found: dict[tuple, list[Mapping]] = {}
    for cell in cells:
        found.setdefault(tuple(cell["values"][axis] for axis in others), []).append(cell)
    return found


def _named(others: Sequence[str], values: Sequence[Any]) -> str:
    return "\n".join(f"{_words(axis)}: {style.plain(value, 40)}" for axis, value in zip(others, values, strict=True))


def _words(axis: str) -> str:
    return style.plain(axis.replace("_", " "), 30)


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _note(summary: Mapping[str, Any], what: _Quantity) -> str:
    worlds = {cell["clusters"] for cell in summary["cells"]}
    alone = max(worlds) == 1
    said = "one world: no interval" if alone else "95 % intervals, paired by world; arrows: bounds"
    return said if what is _TARGET else f"{said}\nranks speed, not learning"


def _against(
    summary: Mapping[str, Any],
    what: _Quantity,
    policies: Sequence[str],
    axis: str,
    values: list,
    others: Sequence[str],
) -> Any:
    """A figure against one axis: a panel for each combination of the others; seconds beside ratios."""
    panels = _by_others(summary["cells"], others)
    shown = list(panels.items())[:_MOST_PANELS]
    rivals = [name for name in policies if name != summary["baseline"]]
    numeric = _is_numeric(values)
    height = 48.0 if numeric else 10 + len(values) * max(9.0, 3.2 * len(policies))
    columns = 2 if rivals else 1
    head = 4.0 * len(others) + 12
    total = len(shown) * (height + head) + style.legend_height(style.PAGE, policies)
    figure, axes = style.new_figure(style.PAGE if rivals else 110, total, len(shown), columns)
    for line, (where, cells) in zip(axes, shown, strict=True):
        by_value = {cell["values"][axis]: cell for cell in cells}
        _seconds(line[0], by_value, what, policies, axis, values)
        style.heading(line[0], what.short, _named(others, where))
        if rivals:
            _ratios(line[1], by_value, what, policies, summary["baseline"], axis, values)
            base = style.plain(summary["baseline"], 24)
            style.heading(line[1], f"{what.short}: {base} / rule", _note(summary, what))
    if len(shown) < len(panels):
        figure.suptitle(f"{len(shown)} of {len(panels)} combinations; all are in summary.json", fontsize=7)
    style.legend(figure, policies, lines=numeric, points=True)
    return figure


def _places(values: list, numeric: bool, number: int, of: int) -> list[float]:
    """Where one policy's points are on the axis: beside each other, so that whiskers do not cover each other."""
    if numeric:
        low, high = min(values), max(values)
        aside = 0.012 * (number - (of - 1) / 2)
        if _spans_decades(values):
            return [value * (high / low) ** aside for value in values]
        return [value + (high - low) * aside for value in values]
    step = min(0.6 / max(of, 1), 0.16)
    return [place + step * (number - (of - 1) / 2) for place in range(len(values))]


def _seconds(ax: Any, cells: Mapping, what: _Quantity, policies: Sequence[str], axis: str, values: list) -> None:
    """Mean seconds; a world that did not reach the target leaves a word and not a point."""
    numeric = _is_numeric(values)
    looks, markers = style.looks(policies), style.markers(policies)
    seen = []
    for number, name in enumerate(policies):
        places = _places(values, numeric, number, len(policies))
        found = [cells[value]["policies"][name][what.seconds] if value in cells else None for value in values]
        seen += [seconds for seconds in found if seconds is not None]
        heights = [math.nan if seconds is None else seconds for seconds in found]
        look = {"marker": markers[name], "markersize": 4, "markeredgecolor": "white", "markeredgewidth": 0.5}
        if numeric:
            ax.plot(places, heights, **looks[name], **look)
        else:
            ax.plot(heights, places, **looks[name] | {"linestyle": "none"}, **look)
            for place, value, seconds in zip(places, values, found, strict=True):
                if seconds is None:
                    why = _why(cells.get(value), name, what)
                    where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
                    ax.annotate(why, (0, place), (3, 0), fontsize=5.6, color=looks[name]["color"], **where)
    _value_axis(ax, "y" if numeric else "x", seen, what.axis)
    _axis_of(ax, axis, values, numeric)
    if numeric:
        _missing(ax, cells, what, policies, values)


def _missing(ax: Any, cells: Mapping, what: _Quantity, policies: Sequence[str], values: list) -> None:
    """A cross at the top for each policy without seconds at a numeric value, and below the axes what it means."""
    looks = style.looks(policies)
    at_top = {"transform": ax.get_xaxis_transform(), "clip_on": False, "linestyle": "none", "marker": "x"}
    lost = 0
    for value in values:
        gone = [name for name in policies if value in cells and cells[value]["policies"][name][what.seconds] is None]
        lost += len(gone)
        for number, name in enumerate(gone):
            ax.plot([value], [0.97 - 0.05 * number], color=looks[name]["color"], markersize=3.5, **at_top)
    if lost:
        said = "x: not reached in all worlds" if what is _TARGET else "x: no iteration"
        look = {"fontsize": 6.2, "color": style.GREY, "ha": "right", "va": "bottom"}
        ax.text(1, 1.01, said, transform=ax.transAxes, **look)


def _ratios(
    ax: Any, cells: Mapping, what: _Quantity, policies: Sequence[str], baseline: str, axis: str, values: list
) -> None:
    """The baseline's seconds over each rule's, with intervals; the dashed line is the baseline."""
    numeric = _is_numeric(values)
    looks, markers = style.looks(policies), style.markers(policies)
    ends = [1.0]
    for number, name in enumerate(policies):
        if name == baseline:
            continue
        places = _places(values, numeric, number, len(policies))
        found = [cells[value]["policies"][name][what.ratio] if value in cells else None for value in values]
        for place, interval in zip(places, found, strict=True):
            color = looks[name]["color"]
            ends += draw_interval(ax, place, interval, color, markers[name], horizontal=not numeric, size=4)
        if numeric:
            heights = [math.nan if not one or one["estimate"] is None else one["estimate"] for one in found]
            ax.plot(places, heights, **looks[name] | {"linewidth": 0.9})
        for place, value, interval in zip(places, values, found, strict=True):
            if not numeric and (not interval or interval["estimate"] is None):
                why = _why(cells.get(value), name, what)
                where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
                ax.annotate(why, (1, place), (-2, 0), ha="right", fontsize=5.6, color=looks[name]["color"], **where)
    low, high = min(min(ends) / 1.1, 0.87), max(max(ends) * 1.1, 1.15)
    scales.log_axis(ax, "y" if numeric else "x", low, high, ratio=True)
    line = ax.axhline if numeric else ax.axvline
    line(1, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.5)
    (ax.set_ylabel if numeric else ax.set_xlabel)("ratio (> 1: the rule is faster)")
    _axis_of(ax, axis, values, numeric, named=False)


def _value_axis(ax: Any, which: str, seen: Sequence[float], label: str) -> None:
    if seen and min(seen) > 0 and max(seen) / min(seen) > 20:
        scales.log_axis(ax, which, min(seen) / 1.3, max(seen) * 1.3)
    else:
        ax.set(**{f"{which}lim": (0, 1.1 * max(seen, default=1) or 1)})
    ax.set(**{f"{which}label": label})


def _spans_decades(values: list) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 8


def _axis_of(ax: Any, axis: str, values: list, numeric: bool, named: bool = True) -> None:
    """The swept axis: horizontal where it is numeric, one line a category otherwise."""
    if not numeric:
        names = [_wrapped(value) for value in values] if named else [""] * len(values)
        ax.set_yticks(range(len(values)), names, fontsize=6.2)
        ax.set_ylim(len(values) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        return
    ax.set_xlabel(_words(axis))
    if _spans_decades(values):
        scales.log_axis(ax, "x", min(values) / 1.15, max(values) * 1.15)
    if len(values) <= 6:
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()


def _why(cell: Mapping[str, Any] | None, name: str, what: _Quantity) -> str:
    """Why there is no number."""
    if cell is None:
        return "not run"
    facts = cell["policies"][name]
    if facts["diverged"]:
        return f"{facts['diverged']} of {cell['worlds']} diverged"
    if what is _TARGET and facts["reached"]:
        return f"reached {facts['reached'][0]} of {facts['reached'][1]}"
    return "no iteration" if facts["iteration_length"] is None else "no ratio"


def _heat_maps(
    summary: Mapping[str, Any], what: _Quantity, policies: Sequence[str], wide: Sequence[str], values: Mapping
) -> Any:
    """A heat map over the first two axes for each rule and each combination of further axes."""
    across, down, *others = wide
    rivals = [name for name in policies if name != summary["baseline"]]
    maps = [(name, where, cells) for where, cells in _by_others(summary["cells"], others).items() for name in rivals]
    shown = maps[:_MOST_PANELS]
    known = [cell["policies"][name][what.ratio] for name in rivals for cell in summary["cells"]]
    logs = [abs(math.log(one["estimate"])) for one in known if one and one["estimate"]]
    farthest = math.exp(max([math.log(1.25), *logs]))
    columns = min(len(shown), max(1, int(150 // max(26, 18 * len(values[across])))))
    lines = -(-len(shown) // columns)
    height = lines * (13 * len(values[down]) + 26 + 4 * len(others)) + 8
    width = min(style.PAGE, max(style.COLUMN, 45 + columns * 24 * len(values[across])))
    figure, axes = style.new_figure(width, height, lines, columns)
    image = None
    for ax, (name, where, cells) in zip(axes.flat, shown, strict=False):
        found = {(cell["values"][down], cell["values"][across]): cell for cell in cells}
        image = _heat_map(ax, found, name, what, values[across], values[down], farthest)
        style.heading(ax, style.plain(name, 26), _named(others, where))
        ax.set(xlabel=_words(across), ylabel=_words(down) if ax.get_subplotspec().is_first_col() else "")
    for ax in list(axes.flat)[len(shown) :]:
        ax.set_axis_off()
    bar = figure.colorbar(image, ax=axes, aspect=30, pad=0.02, fraction=0.05)
    ticks = scales.ratio_ticks(1 / farthest, farthest)
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    bar.outline.set_linewidth(0.5)
    bar.set_label(f"{what.short}: {style.plain(summary['baseline'], 24)} / rule\n(> 1: the rule is faster)")
    if len(shown) < len(maps):
        figure.suptitle(f"{len(shown)} of {len(maps)} maps; all are in summary.json", fontsize=7)
    return figure


def _heat_map(ax: Any, found: Mapping, name: str, what: _Quantity, across: list, down: list, farthest: float) -> Any:
    """One map: the ratio, its interval and its number of worlds in each cell; or why there is none."""
    import numpy as np
    from matplotlib.colors import LogNorm

    grid = np.full((len(down), len(across)), np.nan)
    for line, column in np.ndindex(grid.shape):
        interval = found[key]["policies"][name][what.ratio] if (key := (down[line], across[column])) in found else None
        if interval and interval["estimate"] is not None:
            grid[line, column] = interval["estimate"]
    image = ax.imshow(grid, cmap="RdBu", norm=LogNorm(1 / farthest, farthest), aspect="auto")
    ax.set_facecolor("#f2f2f2")
    maps = style.columns_of(ax)
    cell = (ax.figure.get_figwidth() * 25.4 - 58 - 4 * maps) / maps / len(across)  # mm
    room = max(8, int(cell / 1.15))  # characters below it
    shades = image.to_rgba(grid)
    for line, column in np.ndindex(grid.shape):
        cell = found.get((down[line], across[column]))
        if np.isnan(grid[line, column]):
            ax.text(column, line, textwrap.fill(_why(cell, name, what), 10), **_text(5.6, "black"))
            continue
        interval, color = (
            found[down[line], across[column]]["policies"][name][what.ratio],
            style.ink_on(shades[line, column]),
        )
        ax.text(column, line - 0.2, ratio_text(interval), **_text(7.5, color))
        ax.text(column, line + 0.2, _small_print(interval), linespacing=1.15, **_text(5.4, color))
    ax.set_xticks(range(len(across)), [_wrapped(value, room) for value in across], fontsize=6)
    names = [_wrapped(value) for value in down] if ax.get_subplotspec().is_first_col() else [""] * len(down)
    ax.set_yticks(range(len(down)), names, fontsize=6)
    ax.tick_params(length=0)
    ax.grid(False)
    return image


def _text(size: float, color: str) -> dict[str, Any]:
    return {"fontsize": size, "color": color, "ha": "center", "va": "center"}


def _small_print(interval: Mapping[str, Any]) -> str:
    """The limits that there are, and the number of worlds (of clusters, where those are fewer)."""
    low, high = interval["low"], interval["high"]
    worlds, clusters = interval["worlds"], interval["clusters"]
    n = f"n = {worlds}" if worlds == clusters else f"n = {worlds} in {clusters}"
    if low is None or high is None:
        known = f"from {low:.2f}" if low is not None else f"up to {high:.2f}" if high is not None else ""
        return f"{known}\n{n}".strip()
    return f"{low:.2f} to {high:.2f}\n{n}"


def _wrapped(value: Any, width: int = 20) -> str:
    """A category in a few short lines."""
    parts = str(value).replace("*", "*\r").replace(":", ":\r", 1).split("\r")
    return "\n".join(style.plain(part, width) for part in parts)
