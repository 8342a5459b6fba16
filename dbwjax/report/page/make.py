"""A page from material: its head, and the sections of a run or a sweep in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbwjax.report import table
from dbwjax.report.page import drawing
from dbwjax.report.page.cells_section import cell_verdicts_section, cells_section
from dbwjax.report.page.curves_section import curves_section
from dbwjax.report.page.distributions_section import distributions_section
from dbwjax.report.page.document import Section, document, render
from dbwjax.report.page.material import Material
from dbwjax.report.page.method_section import method_section
from dbwjax.report.page.table_section import table_section
from dbwjax.report.page.verdict_section import verdict_section
from dbwjax.report.page.waits_section import waits_section

if TYPE_CHECKING:
    from markupsafe import Markup

Maker = Callable[[Material], Section | None]
"""Makes one section; `None` where the material has nothing for it."""

OF_RUN: Sequence[Maker] = (
    verdict_section,
    table_section,
    curves_section,
    waits_section,
    distributions_section,
    method_section,
)
"""The sections of a run, from top to bottom."""

OF_SWEEP: Sequence[Maker] = (cell_verdicts_section, table_section, cells_section, method_section)
"""The sections of a sweep."""


def page_of(material: Material, makers: Sequence[Maker] | None = None) -> str:
    """The HTML file of one run or sweep.

    Args:
      material: its numbers.
      makers: of its sections; `None`: those of its kind.
    """
    chosen = (OF_SWEEP if material.is_sweep else OF_RUN) if makers is None else makers
    sections = [made for made in (make(material) for make in chosen) if made is not None]
    return document(title_of(material), lead_of(material), sections)


def title_of(material: Material) -> str:
    """What was compared: `4 waiting rules, 3 worlds: quickstart`."""
    count = len(material.policies)
    rules = f"{count} waiting rule{'s' * (count > 1)}"
    if material.is_sweep:
        cells = len(material.summary["cells"])
        return f"{material.name}: {rules} in {cells} cell{'s' * (cells > 1)}"
    worlds = material.summary["cells"][0]["distinct"]
    return f"{material.name}: {rules} in {worlds} world{'s' * (worlds > 1)}"


def lead_of(material: Material) -> Markup:
    """Date, the command that gives the same numbers, versions, and the tables as files."""
    told = material.provenance
    files = [
        ("table.csv", "text/csv", table.to_csv(material.summary)),
        ("table.tex", "application/x-tex", table.to_tex(material.summary)),
    ]
    files += [("config.json", "application/json", told.config)] if told.config else []
    downloads = [(name, drawing.link_of(kind, text), len(text)) for name, kind, text in files]
    return render("lead.html", date=material.date, told=told, downloads=downloads)
