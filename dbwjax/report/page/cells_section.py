"""A sweep on its page: a verdict for each cell, never one for all, and the sweep's figures."""

from __future__ import annotations

from dbwjax.report import style, sweep_figures, table
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, render, source
from dbwjax.report.page.material import Material
from dbwjax.report.page.verdict import Verdict, verdict_of

_MOST = 60
"""Cells whose reasons are told; of more, who leads and by how much."""


def cell_verdicts_section(material: Material) -> Section:
    """For each cell who leads, by how much, and who cannot be told apart."""
    cells = material.summary["cells"]
    found_of = [verdict_of(material.summary, *one) for one in material.cells()]
    common = [one for one in found_of[0].warnings if all(one in each.warnings for each in found_of)]
    leaders: dict[str, int] = {}
    for found in found_of:
        key = _leader(found)
        leaders[key] = leaders.get(key, 0) + 1
    headings = [table.heading_of(cell, cells) or "the only cell" for cell in cells]
    told = [{"heading": heading, "verdict": found} for heading, found in zip(headings, found_of, strict=True)]
    body = render("cells.html", cells=told, common=common, leaders=leaders, brief=len(cells) > _MOST)
    return Section("verdict", "Verdict by cell", body, script=source("filter.js"))


def _leader(found: Verdict) -> str:
    """Who is first in a cell, and how sure that is."""
    if found.first is None:
        return "nobody"
    if found.alike:
        return f"{found.first}, not told from {', '.join(found.alike)}"
    return f"{found.first}, told from every other rule" if found.sure else f"{found.first}, without an interval"


def cells_section(material: Material) -> Section | None:
    """The figures of the sweep: one for each axis, and a heat map; `None` where no axis has several values."""
    with style.house_style():
        figures = [
            {"name": name, "drawing": drawing.svg_of(figure, _alt(name), name.replace("_", "-"))}
            for name, figure in sweep_figures.draw(material.summary, material.rows)
        ]
    return Section("figures", "Figures", render("figures.html", figures=figures)) if figures else None


def _alt(name: str) -> str:
    what, _, axis = name.partition("-")
    said = "heat map over the first two axes" if axis == "heatmap" else f"against {axis.replace('_', ' ')}"
    return f"{what.replace('_', ' ').capitalize()}, {said}; the table has all numbers."
