"""The verdict of a run on its page: statements, warnings, and the two drawings that show them."""

from __future__ import annotations

from typing import Any

from dbwjax.report import run_panels, style
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, render
from dbwjax.report.page.material import Material
from dbwjax.report.page.verdict import Verdict, verdict_of
from dbwjax.report.run_curves import Board

KEY = "verdict"
WIDTH = 85.0
"""mm of a drawing: two stand beside each other on a desk, one fills a phone."""


def board_of(material: Material) -> Board:
    """What the drawing functions of a run read."""
    return Board(material.rows, material.summary, material.timelines, material.picture)


def verdict_section(material: Material) -> Section:
    """Who is first, by how much, how sure, and why."""
    (cell,) = material.summary["cells"]
    found = verdict_of(material.summary, cell, material.rows, material.worlds)
    return Section(KEY, "Verdict", render("verdict.html", verdict=found, figures=_figures(material, found)))


def _figures(material: Material, found: Verdict) -> list[dict[str, Any]]:
    board = board_of(material)
    made = []
    if len(board.policies) > 1:
        what = "time to target" if board.target is not None else "iteration length"
        text = "; ".join(" ".join(_spoken(material, spec, board.target is not None)) for spec in board.policies)
        made.append(
            {
                "drawing": _drawn(
                    run_panels.time_to_target, board, f"Ratios of {what} with intervals. {text}.", "ratios"
                ),
                "caption": f"The {what} of {board.baseline}, divided by each rule's. Right of 1 the rule is "
                "quicker; a line that crosses 1 leaves it open which is.",
            }
        )
    shares = "; ".join(
        f"{spec}: " + ", ".join(f"{kind} {_percent(board.facts[spec][kind])}" for kind in _KINDS)
        for spec in board.policies
    )
    made.append(
        {
            "drawing": _drawn(run_panels.where_time_goes, board, f"Where a worker's second goes. {shares}.", "seconds"),
            "caption": "What workers do with their time, mean over workers and worlds. Wasted: gradients that nobody "
            "uses.",
        }
    )
    return made


_KINDS = ("computing", "wasted", "communicating", "waiting")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _spoken(material: Material, spec: str, to_target: bool) -> list[str]:
    from dbwjax.report.table import interval_text

    facts = material.summary["cells"][0]["policies"][spec]
    interval = facts["ratio" if to_target else "iteration_ratio"]
    return [spec, "baseline" if interval is None else interval_text(interval)]


def _drawn(draw: Any, board: Board, alt: str, key: str) -> Any:
    with style.house_style():
        height = max(26.0, len(board.policies) * run_panels.row_height(board.policies)) + 18
        figure, axes = style.new_figure(WIDTH, height)
        draw(axes[0, 0], board)
        return drawing.svg_of(figure, alt, key, 2.0)
