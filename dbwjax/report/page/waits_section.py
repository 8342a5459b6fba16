"""Who waited for whom: a Gantt chart of every policy's first world, seconds lost to each worker, and the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dbwjax.report import gantt, style, views
from dbwjax.report.page import drawing, lost_part, network_part
from dbwjax.report.page.document import Section, render, source
from dbwjax.report.page.material import Material
from dbwjax.report.page.shortening import shortened
from dbwjax.report.views import View
from dbwjax.report.waits import Cells, cells_of

if TYPE_CHECKING:
    from markupsafe import Markup

MOST = 6_000
"""Cells of all views of a page, so that it stays a small file."""

_WIDTH = 180.0
_MARGIN = (11.0, 2.0, 9.0, 2.0)
"""mm left, right, below and above the rows."""

_TURNED = 5.0
"""mm more below, where the names of stretches are turned."""


def waits_section(material: Material) -> Section | None:
    """The charts and what is told of a cell, a range and each worker; says so where no computations were kept."""
    key, title = "waits", "Who waited for whom"
    pairs = network_part.links_of(material.picture)
    found = cells_by_policy(material, pairs)
    if not found:
        return Section(key, title, render("waits_missing.html"))
    most = min(views.MOST, MOST // (3 * len(found) + (material.iterations is not None)))
    shown = [_policy(spec, cells, material, most) for spec, (_, cells) in found.items()]
    told: dict[str, Any] = {"policies": [{"name": one["name"], "views": one["data"]} for one in shown]}
    lost = lost_part.lost(material, found)
    network = network_part.network(material, found)
    if network is not None:
        told["network"] = network["data"]
    body = render(
        "waits.html",
        world=next(iter(found.values()))[0],
        worlds=len(material.worlds),
        policies=shown,
        states=[(name, gantt.SAID[name]) for name in gantt.SAID],
        missing=[spec for spec in material.policies if spec not in found],
        partial=[spec for spec, (_, cells) in found.items() if not cells.complete],
        lost=lost,
        network=network,
        names=[] if material.picture is None or not material.picture.names else list(material.picture.names),
    )
    script = f"{source('gantt.js')}\n{source('network.js')}"
    return Section(key, title, body, told, script, source("waits.css"))


def cells_by_policy(material: Material, pairs: np.ndarray | None) -> dict[str, tuple[str, Cells]]:
    """By policy that kept its computations: the first world's name, and its cells."""
    found = {}
    for spec in material.policies:
        for world, timeline in material.timelines.get(spec, {}).items():
            if len(timeline.get("span_worker", ())):
                found[spec] = (str(world), cells_of(timeline, pairs))
            break
    return found


def _policy(spec: str, cells: Cells, material: Material, most: int) -> dict[str, Any]:
    """The charts of one policy, and what the script needs of them."""
    chosen = views.views(cells, most)
    if material.iterations is not None:
        chosen = [views.asked(cells, *material.iterations, most), *chosen]
    threshold = style.rule_of(spec) == "dybw"
    charts, data = [], []
    place = material.policies.index(spec)
    for view in chosen:
        svg, box = _chart(cells, view, threshold, f"gantt-{place}-{view.key}", spec)
        charts.append({"view": view, "svg": svg, "key": f"{place}-{view.key}"})
        data.append(_data(cells, view, box))
    return {
        "name": spec,
        "place": place,
        "charts": charts,
        "data": data,
        "threshold": threshold,
        "steps": cells.ends is not None,
    }


def _chart(cells: Cells, view: View, threshold: bool, key: str, spec: str) -> tuple[Markup, list[float]]:
    """A view as SVG, and where its axes lie in it: left, top, width, height."""
    from matplotlib.figure import Figure

    left, right, below, above = _MARGIN
    below += _TURNED if gantt.is_turned(view) else 0.0
    rows = gantt.height_mm(view)
    wide, high = _WIDTH, rows + below + above
    with style.house_style():
        figure = Figure(figsize=(wide / 25.4, high / 25.4))
        ax = figure.add_axes((left / wide, below / high, (wide - left - right) / wide, rows / high))
        gantt.draw_bars(ax, cells, view, threshold=threshold)
        waits = sum(cells.waited[view.cells])
        alt = (
            f"Gantt chart of {spec}, {view.title}: {len(view.rows)} workers, {len(view.cells):,} computations; "
            f"{waits:.3g} of {sum((cells.released - cells.start)[view.cells]):.3g} worker-seconds are waiting"
        )
        svg = drawing.svg_of(figure, alt, key)
    scale = 72 / 25.4
    return _themed(svg), [round(value * scale, 2) for value in (left, above, wide - left - right, rows)]


def _themed(svg: Markup) -> Markup:
    """The states in the page's colours."""
    from markupsafe import Markup

    text = str(svg)
    for name, colour in gantt.COLOURS.items():
        for written in {drawing.policy_colour("dybw") if colour == "#0072b2" else colour, colour}:
            text = text.replace(f"stroke: {written}", f"stroke: var(--{name})")
    return shortened(Markup(text))


def _data(cells: Cells, view: View, box: list[float]) -> dict[str, Any]:
    """What the script needs to find a cell, to say what it was, and to draw the arrow to its cause."""
    place = gantt.layout(view)
    which = view.cells[np.lexsort((cells.start[view.cells], cells.worker[view.cells]))]
    where = {int(cell): n for n, cell in enumerate(which)}
    digits = max(0, 4 - int(np.floor(np.log10(max(float(np.median(cells.released - cells.start)), 1e-9)))))
    label = cells.step if cells.ends is not None else cells.number

    def rounded(values: np.ndarray) -> list[float]:
        return [round(float(value), digits) for value in values]

    return {
        "key": view.key,
        "box": box,
        "width": rounded(np.array([place.width]))[0],
        "rows": view.rows.tolist(),
        "windows": [rounded(window) for window in view.windows],
        "origin": rounded(place.origin),
        "worker": cells.worker[which].tolist(),
        "iteration": label[which].tolist(),
        "start": rounded(cells.start[which]),
        "computing": rounded((cells.finish - cells.start)[which]),
        "waiting": rounded((cells.waited - cells.flight)[which]),
        "flight": rounded(cells.flight[which]),
        "used": cells.used[which].astype(int).tolist(),
        "cause": cells.cause[which].tolist(),
        "from": [where.get(int(cell), -1) for cell in cells.cause_cell[which]],
    }
