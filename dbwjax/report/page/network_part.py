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
from dbwjax.report.waits import Cells, established

if TYPE_CHECKING:
    from markupsafe import Markup

STEPS = 200
"""Steps of the slider: the first ones."""

_LARGEST = 100
"""Workers up to which every policy has a picture of its own."""

_SIDE = 100.0
_BOX = (0.0, 0.0, 0.9, 0.9)


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
    """Pictures, their controls, and what the script needs; `None` where the network is not known."""
    picture = material.picture
    if picture is None or any(cells.workers != len(picture.neighbours) for _, cells in found.values()):
        return None
    places, shown, data = positions_of(picture), [], []
    each = places is not None and len(places) <= _LARGEST
    for place, (spec, (world, cells)) in enumerate(found.items()):
        timeline = material.timelines[spec][world]
        heard, how = heard_in(cells, timeline, pairs_of(picture)) if each else (None, "")
        if each or place == 0:
            shown.append({"name": spec, "how": how, "svg": _drawn(picture, heard, spec, f"network-{place}")})
        data.append(_steps(spec, cells, timeline, picture) if places is not None else None)
    side = _SIDE * 72 / 25.4
    data_of = {"policies": data, "places": _inside(places, side) if places is not None else None, "each": each}
    body = render(
        "network.html", policies=shown, each=each, slider=places is not None, speeds=picture.seconds is not None
    )
    return {"body": body, "data": data_of}


def _drawn(picture: Any, heard: np.ndarray | None, spec: str, key: str) -> Markup:
    from matplotlib.figure import Figure

    with style.house_style():
        figure = Figure(figsize=(_SIDE / 25.4, _SIDE / 25.4))
        ax = figure.add_axes(_BOX, subplotspec=figure.add_gridspec(1, 1)[0])
        draw_graph(ax, picture, bar=False, heard=heard)
        alt = f"The network: {len(picture.neighbours)} workers"
        if heard is not None and heard.any():
            i, j = np.unravel_index(int(np.argmax(heard)), heard.shape)
            alt += f"; under {spec} worker {i} heard worker {j} most often, {heard[i, j]:.0f} times"
        if picture.seconds is not None:
            slow = int(np.argmax(picture.seconds))
            alt += f"; the slowest is worker {slow}, {picture.seconds[slow]:.3g} s a computation"
        return drawing.svg_of(figure, alt, key)


def _inside(places: np.ndarray, side: float) -> list[list[float]]:
    """Where nodes lie in the SVG."""
    left, bottom, wide, high = (share * side for share in _BOX)
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
