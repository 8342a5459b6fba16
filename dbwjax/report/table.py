"""The table that ends a run or a sweep, from what `summary.json` holds: for the terminal, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dbwjax.report.digits import digits, interval_text, percent
from dbwjax.report.notes import cell_notes_of, notes_of

WIDTH = 150
"""Characters of a line; a single SPEC may be longer."""

_INTERVALS = ("ratio", "accuracy_difference", "iteration_ratio")
_OF_CELL = ("worlds", "distinct", "clusters", "budget_min", "budget_max", "equal_time", "resolution")
_OF_SUMMARY = ("kind", "target_accuracy", "baseline")
_PLAIN = (
    *("time_to_target", "test_accuracy", "test_loss", "iterations", "iteration_length", "gradients_per_second"),
    *("computing", "waiting", "wasted", "communicating", "drift", "active_fraction", "backup_workers", "staleness"),
    *("bytes_per_second", "heard_least", "spectral_gap", "diverged"),
)


class Column(NamedTuple):
    """A column of the table: how its number is shown, of one policy's facts."""

    title: str
    unit: str
    show: Callable[[Mapping[str, Any]], str]


def format_table(summary: Mapping[str, Any]) -> str:
    """A plain-text table: a block for each cell, a line for each policy, and below what the numbers mean.

    Args:
      summary: as `statistics.summarise` returns it.

    Returns:
      Lines of at most 150 characters without a newline at the end. What does not exist reads "-".
    """
    cells, blocks = summary["cells"], []
    for cell in cells:
        heading = heading_of(cell, cells)
        notes = [line for note in cell_notes_of(summary, cell) for line in _wrapped(note)]
        blocks.append("\n".join([*([heading] if heading else []), *_block(summary, cell), *notes]))
    closing = [line for note in notes_of(summary) for line in _wrapped(note)]
    return ("\n\n" if len(cells) > 1 else "\n").join([*blocks, "\n".join(closing)])


def to_csv(summary: Mapping[str, Any]) -> str:
    """`table.csv`: a line for each cell and policy, all digits, an empty field for what does not exist.

    Shares are between 0 and 1, times in seconds of virtual time. An interval is four columns: its estimate under its
    own name, `_low`, `_high`, and `_bound` ("at least", "at most", "none").
    """
    axes = list(dict.fromkeys(name for cell in summary["cells"] for name in cell["values"]))
    lines = [_flat(summary, cell, spec) for cell in summary["cells"] for spec in cell["policies"]]
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    # An axis may be named as a column is.
    writer.writerow([*(f"axis_{name}" if name in lines[0] else name for name in axes), *lines[0]])
    for line, values in zip(
        lines, (cell["values"] for cell in summary["cells"] for _ in cell["policies"]), strict=True
    ):
        writer.writerow([*(values.get(name) for name in axes), *line.values()])
    return content.getvalue()


def to_tex(summary: Mapping[str, Any]) -> str:
    """`table.tex`: a plain `tabular` that needs no package, with what the numbers mean as comments above it."""
    columns = columns_of(summary)
    titles = ["policy", *(_escaped(f"{column.title} {column.unit}".strip()) for column in columns)]
    lines = [f"% {note}" for note in notes_of(summary)]
    body: list[str] = []
    for cell in summary["cells"]:
        heading = heading_of(cell, summary["cells"])
        lines += [f"% {f'{heading}: ' if heading else ''}{note}" for note in cell_notes_of(summary, cell)]
        if heading:
            body += [f"\\multicolumn{{{len(columns) + 1}}}{{l}}{{\\texttt{{{_escaped(heading)}}}}} \\\\"]
        for spec, facts in cell["policies"].items():
            shown = [_escaped(column.show(facts)) for column in columns]
            body.append(" & ".join([f"\\texttt{{{_escaped(spec)}}}", *shown]) + " \\\\")
        body.append("\\hline")
    head = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\hline", " & ".join(titles) + " \\\\", "\\hline"]
    return "\n".join([*lines, *head, *body, "\\end{tabular}"]) + "\n"


def columns_of(summary: Mapping[str, Any]) -> list[Column]:
    """What is announced first stands first: time to target, or the length of an iteration where nothing was learned."""
    speed = [
        Column("iteration", "[s]", lambda facts: digits(facts["iteration_length"])),
        Column("iterations", "", lambda facts: digits(facts["iterations"])),
        Column("gradients", "[1/s]", lambda facts: digits(facts["gradients_per_second"])),
        Column("waiting", "[%]", lambda facts: percent(facts["waiting"])),
        Column("wasted", "[%]", lambda facts: percent(facts["wasted"])),
        *_told(summary, Column("in flight", "[%]", lambda facts: percent(facts["communicating"])), "communicating"),
        Column("drift", "", lambda facts: digits(facts["drift"])),
        *_told(summary, Column("stale", "", lambda facts: digits(facts["staleness"])), "staleness"),
        *_told(summary, Column("sent", "[MB/s]", _megabytes), "bytes_per_second"),
    ]
    if summary["kind"] == "timing":
        ratio = Column("iteration ratio", "[95 %]", lambda facts: interval_text(facts["iteration_ratio"]))
        return [speed[0], ratio, *speed[1:]]
    if summary["target_accuracy"] is None:
        ratio = Column("iteration ratio", "[95 %]", lambda facts: interval_text(facts["iteration_ratio"]))
        return [Column("loss", "at T", lambda facts: digits(facts["test_loss"])), speed[0], ratio, *speed[1:]]
    return [
        Column("to target", "[s]", lambda facts: digits(facts["time_to_target"])),
        Column("ratio", "[95 %]", lambda facts: interval_text(facts["ratio"])),
        Column("reached", "", lambda facts: "{} of {}".format(*facts["reached"])),
        Column("accuracy at T", "[min, median]", _accuracy),
        *speed,
    ]


def _told(summary: Mapping[str, Any], column: Column, name: str) -> list[Column]:
    """The column, where there is anything to tell."""
    every = (facts[name] for cell in summary["cells"] for facts in cell["policies"].values())
    return [column] if any(every) else []


def _megabytes(facts: Mapping[str, Any]) -> str:
    sent = facts["bytes_per_second"]
    return digits(None if sent is None else sent / 1e6)


def _block(summary: Mapping[str, Any], cell: Mapping[str, Any]) -> list[str]:
    """Header, rule and a line for each policy; a SPEC too long for its column has a line of its own above."""
    columns = columns_of(summary)
    rows = [[column.title for column in columns], [column.unit for column in columns]]
    rows += [[column.show(facts) for column in columns] for facts in cell["policies"].values()]
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    room = max(WIDTH - sum(widths) - 2 * len(widths), len("policy"))
    names = ["policy", "", *cell["policies"]]
    first = max(len(name) for name in names if len(name) <= room)
    lines = []
    for name, row in zip(names, rows, strict=True):
        if len(name) > room:
            lines.append(name)
            name = ""
        shown = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join([name.ljust(first), *shown]).rstrip())
    lines.insert(2, "-" * min(max(map(len, lines)), WIDTH))
    return lines


def heading_of(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    """The values in which cells differ."""
    values = cell["values"]
    differ = [name for name in values if any(other["values"][name] != values[name] for other in cells)]
    return ", ".join(f"{name} = {values[name]}" for name in differ)


def _wrapped(note: str) -> list[str]:
    return textwrap.wrap(note, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _accuracy(facts: Mapping[str, Any]) -> str:
    if facts["test_accuracy"] is None:
        return "-"
    shown = f"{facts['test_accuracy']:.3f}"
    single = facts["worker_accuracy"]
    return shown if single is None else f"{shown} [{single[0]:.3f}, {single[1]:.3f}]"


def _flat(summary: Mapping[str, Any], cell: Mapping[str, Any], spec: str) -> dict[str, Any]:
    facts = cell["policies"][spec]
    of_cell = {**cell, "budget_min": cell["budget"][0], "budget_max": cell["budget"][1]}
    reached, of = facts["reached"] or (None, None)
    least, median = facts["worker_accuracy"] or (None, None)
    line = {"policy": spec, **{name: facts[name] for name in _PLAIN}, "reached": reached, "reached_of": of}
    line |= {"worker_accuracy_min": least, "worker_accuracy_median": median}
    for name in _INTERVALS:
        found = facts[name] or dict.fromkeys(("estimate", "low", "high", "bound"))
        line |= {name: found["estimate"]} | {f"{name}_{part}": found[part] for part in ("low", "high", "bound")}
    line |= {name: of_cell[name] for name in _OF_CELL}
    return line | {name: summary[name] for name in _OF_SUMMARY}


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {mark: f"\\{mark}" for mark in "_$%&#{}"}


def _escaped(text: str) -> str:
    return "".join(_TEX.get(mark, mark) for mark in text)
