"""The verdict of a run on its page: statements, warnings, and the two drawings that show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from dbwjax.report import run_panels, style
from dbwjax.report.digits import interval_text
from dbwjax.report.page import drawing, words
from dbwjax.report.page.document import Section, render
from dbwjax.report.page.material import Material
from dbwjax.report.page.verdict import verdict_of
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
    if material.provenance.breaks:
        found = found._replace(warnings=[*found.warnings, _broken(material.provenance.breaks)])
    return Section(KEY, "Verdict", render("verdict.html", verdict=found, figures=_figures(material)))


def _broken(breaks: Sequence[tuple[str, str]]) -> Markup:
    """That these worlds break, and what the model is then."""
    what = Markup(", ").join(words.code(word) for word, _ in breaks)
    return Markup(
        "These worlds <strong>break</strong>, the same under every rule: {}. The model is the mean of all workers, "
        "with what one that is away last held."
    ).format(what)


def _figures(material: Material) -> list[dict[str, Any]]:
    board = board_of(material)
    made = []
    if len(board.policies) > 1:
        what = "time to target" if board.target is not None else "iteration length"
        text = "; ".join(" ".join(_spoken(board, spec)) for spec in board.policies)
        caption = (
            f"The {what} of {board.baseline}, divided by each rule's. Right of 1 the rule is quicker; a line that "
        )
        caption += "crosses 1 leaves it open which is."
        made.append(_drawn(run_panels.time_to_target, board, f"Ratios of {what}. {text}.", "ratios", caption))
    shares = "; ".join(
        f"{spec}: {', '.join(f'{kind} {_percent(board.facts[spec][kind])}' for kind in _KINDS)}"
        for spec in board.policies
    )
    caption = "What workers do with their time, mean over workers and worlds. Wasted: gradients that nobody uses."
    alt = f"Where a worker's second goes. {shares}."
    return [*made, _drawn(run_panels.where_time_goes, board, alt, "seconds", caption)]


_KINDS = ("computing", "wasted", "communicating", "waiting")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _spoken(board: Board, spec: str) -> list[str]:
    interval = board.facts[spec]["iteration_ratio" if board.target is None else "ratio"]
    return [spec, "baseline" if interval is None else interval_text(interval)]


def _drawn(draw: Any, board: Board, alt: str, key: str, caption: str) -> dict[str, Any]:
    with style.house_style():
        height = max(26.0, len(board.policies) * run_panels.row_height(board.policies)) + 18
        figure, axes = style.new_figure(WIDTH, height)
        draw(axes[0, 0], board)
        return drawing.captioned(figure, alt, key, caption)
