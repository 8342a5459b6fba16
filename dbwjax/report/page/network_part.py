"""The network, its links as wide as they were heard and its nodes lit when they are active: a part of the waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dbwjax.report import style
from dbwjax.report.network import EDGE, draw_graph, pairs_of, positions_of
from dbwjax.report.page import drawing
from dbwjax.report.page.document import render
from dbwjax.report.page.material import Material
from dbwjax.report.page.shortening import shortened
from dbwjax.report.waits import Cells, established

if TYPE_CHECKING:
    from markupsafe import Markup

STEPS = 200
"""Steps of the slider: the first ones."""

_LINES, _WIDTHS = 2_000, 5
"""Pairs that are drawn, the most frequent, and widths that are told apart."""

_SIDE = 100.0
"""mm of the picture."""

_EDGES = {"left": 0.05, "right": 0.95, "bottom": 0.02, "top": 0.86}


def links_of(picture: Any) -> np.ndarray | None:
    """`[P, 2]` who hears whom in a picture; `None`: not known."""
    return None if picture is None else pairs_of(picture)


def heard_in(cells: Cells, timeline: Mapping[str, Any], pairs: np.ndarray) -> tuple[np.ndarray, str]:
    """How often i heard j, `[N, N]`, and how that is known.

    Where iterations end for everybody at once, two neighbours that are both active hear each other. Elsewhere a
    timeline does not say who was heard; whose finish ended a wait was.
    """
    count = cells.workers
    found = np.zeros((count, count))
    if cells.ends is not None and np.asarray(timeline["active"]).shape[1] == count:
        active = np.asarray(timeline["active"], np.float32)
        i, j = pairs[:, 0], pairs[:, 1]
        found[i, j] = np.einsum("tp,tp->p", active[:, i], active[:, j])
        return found, "iterations in which both ends were active"
    some = cells.cause >= 0
    np.add.at(found, (cells.worker[some], cells.cause[some]), 1)
    return found, "waits of the one that the other's finish ended"


def network(material: Material, found: Mapping[str, tuple[str, Cells]]) -> dict[str, Any] | None:
    """The picture, its controls, and what the script needs; `None` where the network is not known."""
    picture = material.picture
    if picture is None or any(cells.workers != len(picture.neighbours) for _, cells in found.values()):
        return None
    places = positions_of(picture)
    svg, side = _drawn(picture), _SIDE * 72 / 25.4
    if places is None:
        return {"body": render("network.html", svg=svg, policies=[], slider=False, picture=picture), "data": None}
    inside, pairs = _inside(places, side), pairs_of(picture)
    shown, data, groups = [], [], []
    for place, (spec, (world, cells)) in enumerate(found.items()):
        timeline = material.timelines[spec][world]
        heard, how = heard_in(cells, timeline, pairs)
        data.append(_steps(spec, cells, timeline, picture))
        shown.append({"name": spec, "how": how, "most": most_heard(heard)})
        groups.append(_lines(heard, inside, place))
    body = render("network.html", svg=_with_lines(svg, groups), policies=shown, slider=True, picture=picture)
    return {"body": body, "data": {"policies": data, "places": inside}}


def most_heard(heard: np.ndarray) -> str:
    """Which two heard each other most."""
    both = np.triu(heard + heard.T, 1)
    if not both.any():
        return "nobody was"
    i, j = np.unravel_index(int(np.argmax(both)), both.shape)
    return f"workers {i} and {j} most, {both[i, j]:,.0f} times"


def _lines(heard: np.ndarray, inside: list[list[float]], place: int) -> str:
    """The pairs that heard each other, in five widths: a path each."""
    both = np.triu(heard + heard.T, 1)
    pairs = np.argwhere(both > 0)
    counts = both[tuple(pairs.T)]
    some = np.argsort(-counts, kind="stable")[:_LINES]
    width = np.ceil(_WIDTHS * counts[some] / counts.max(initial=1)).astype(int)
    paths = []
    for level in range(1, _WIDTHS + 1):
        ends = [(inside[i], inside[j]) for i, j in pairs[some[width == level]]]
        path = "".join(f"M{a[0]:g} {a[1]:g}L{b[0]:g} {b[1]:g}" for a, b in ends)
        paths.append(f'<path d="{path}" stroke-width="{level}"/>' if path else "")
    hidden = ' display="none"' if place else ""
    return f'<g class="heard" data-policy="{place}" fill="none"{hidden}>{"".join(paths)}</g>'


def _with_lines(svg: Markup, groups: list[str]) -> Markup:
    """The lines under everything else: of the first policy, until another is chosen."""
    from markupsafe import Markup

    text = str(svg)
    begin = text.index(">") + 1
    return Markup(text[:begin] + "".join(groups) + text[begin:])


def _drawn(picture: Any) -> Markup:
    from matplotlib.figure import Figure

    with style.house_style():
        figure = Figure(figsize=(_SIDE / 25.4, _SIDE / 25.4))
        # A cell of a grid says how many panels a heading is wrapped for.
        ax = figure.add_subplot(figure.add_gridspec(1, 1, **_EDGES)[0])
        draw_graph(ax, picture, bar=False)
        ax.set_aspect("auto")
        alt = f"The network: {len(picture.neighbours)} workers"
        if picture.seconds is not None:
            slow = int(np.argmax(picture.seconds))
            alt += f"; the slowest is worker {slow}, {picture.seconds[slow]:.3g} s a computation"
        return shortened(drawing.svg_of(figure, alt, "network"))


def _inside(places: np.ndarray, side: float) -> list[list[float]]:
    """Where nodes lie in the SVG."""
    left, bottom = _EDGES["left"] * side, _EDGES["bottom"] * side
    wide, high = _EDGES["right"] * side - left, _EDGES["top"] * side - bottom
    x = left + wide * (places[:, 0] + EDGE) / (2 * EDGE)
    y = side - bottom - high * (places[:, 1] + EDGE) / (2 * EDGE)
    return [[round(float(a), 1), round(float(b), 1)] for a, b in zip(x, y, strict=True)]


def _steps(spec: str, cells: Cells, timeline: Mapping[str, Any], picture: Any) -> dict[str, Any]:
    """Who is active in each of the first steps, and when it ends; of DTUR also how many links are established."""
    active = np.asarray(timeline["active"])[:STEPS]
    if "workers" in timeline:
        nodes = np.asarray(timeline["workers"])[:STEPS]
        who = [
            sorted({int(i) for i in row[used] if i < cells.workers}) for row, used in zip(nodes, active, strict=True)
        ]
    else:
        who = [np.flatnonzero(row[: cells.workers]).tolist() for row in active]
    ends = np.cumsum(np.asarray(timeline["duration"], np.float64))[: len(who)]
    told: dict[str, Any] = {"active": who, "ends": [float(f"{end:.5g}") for end in ends]}
    if style.rule_of(spec) == "dybw" and len(picture.spanning):
        links = established(np.asarray(timeline["active"], bool)[:STEPS], np.asarray(picture.spanning))
        told |= {"established": links.sum(axis=1).tolist(), "links": links.shape[1]}
    return told
