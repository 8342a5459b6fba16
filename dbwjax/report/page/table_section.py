"""The table of a page: the terminal's columns and digits, sortable by every one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dbwjax.report import table
from dbwjax.report.digits import digits, interval_text
from dbwjax.report.notes import cell_notes_of, notes_of
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, render, source
from dbwjax.report.page.material import Material

Facts = Mapping[str, Any]


class _Shown(NamedTuple):
    title: str
    unit: str
    about: str
    show: Callable[[Facts], str]
    value: Callable[[Facts], float | None]  # by which rows are sorted


def table_section(material: Material) -> Section:
    """A line for each policy (and cell of a sweep), a button in each heading, and what the numbers mean below."""
    cells = material.summary["cells"]
    columns = columns_of(material.summary)
    axes = [name for name in cells[0]["values"] if len({str(cell["values"][name]) for cell in cells}) > 1]
    lines = [
        {
            "axes": [cell["values"][name] for name in axes],
            "policy": spec,
            "colour": drawing.policy_colour(spec),
            "baseline": spec == material.summary["baseline"],
            "shown": [(column.show(facts), column.value(facts)) for column in columns],
        }
        for cell in cells
        for spec, facts in cell["policies"].items()
    ]
    notes = notes_of(material.summary)
    if len(cells) == 1:
        notes = [*cell_notes_of(material.summary, cells[0]), *notes]
    body = render("table.html", columns=columns, axes=axes, lines=lines, notes=notes)
    return Section("comparison", "All numbers", body, script=source("table.js"))


def columns_of(summary: Mapping[str, Any]) -> list[_Shown]:
    """The terminal's columns, and beside them what only a page has room for."""
    columns = table.columns_of(summary)
    titles = [column.title for column in columns]
    if summary["target_accuracy"] is not None:
        more = [
            table.Column("loss", "at T", lambda facts: digits(facts["test_loss"])),
            table.Column("iteration ratio", "[95 %]", lambda facts: interval_text(facts["iteration_ratio"])),
        ]
        place = titles.index("accuracy at T") + 1
        columns = [*columns[:place], more[0], columns[place], more[1], *columns[place + 1 :]]
    return [
        _Shown(column.title, column.unit, _ABOUT[column.title], column.show, _VALUES[column.title])
        for column in columns
    ]


def _estimate(name: str) -> Callable[[Facts], float | None]:
    return lambda facts: None if facts[name] is None else facts[name]["estimate"]


def _fact(name: str) -> Callable[[Facts], float | None]:
    return lambda facts: facts[name]


_VALUES: dict[str, Callable[[Facts], float | None]] = {
    "to target": _fact("time_to_target"),
    "ratio": _estimate("ratio"),
    "reached": lambda facts: facts["reached"][0],
    "accuracy at T": _fact("test_accuracy"),
    "loss": _fact("test_loss"),
    "iteration": _fact("iteration_length"),
    "iteration ratio": _estimate("iteration_ratio"),
    "iterations": _fact("iterations"),
    "gradients": _fact("gradients_per_second"),
    "waiting": _fact("waiting"),
    "wasted": _fact("wasted"),
    "in flight": _fact("communicating"),
    "drift": _fact("drift"),
    "stale": _fact("staleness"),
    "sent": _fact("bytes_per_second"),
}

_ABOUT = {
    "to target": "virtual seconds until the test accuracy passes the target, geometric mean over worlds",
    "ratio": "the baseline's time to target over this rule's; above 1 this rule is sooner",
    "reached": "worlds in which the target was reached",
    "accuracy at T": "test accuracy of the mean model at the end; in brackets the worst and the median single worker",
    "loss": "test loss of the mean model at the end",
    "iteration": "mean virtual seconds of an iteration",
    "iteration ratio": "the baseline's iteration length over this rule's; above 1 iterations are shorter",
    "iterations": "iterations until the end, mean over workers",
    "gradients": "gradients that were used, a second, all workers together",
    "waiting": "share of workers' time that they wait",
    "wasted": "share of workers' time spent on gradients that nobody uses",
    "in flight": "share of workers' time that messages are under way",
    "drift": "largest difference between the iterations of two workers at one time",
    "stale": "updates of the model between the start of a gradient and its use, mean",
    "sent": "megabytes a second, all workers together",
}
