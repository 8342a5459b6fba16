"""What a reader must know before quoting a number, in sentences: of a whole summary, and of each cell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dbwjax.report.digits import digits
from dbwjax.report.network import numbered

_COARSE = 0.1
"""Rows further apart than this share of the shortest time to target are called coarse."""


def notes_of(summary: Mapping[str, Any]) -> list[str]:
    """What holds for all cells."""
    over, target = summary["baseline"], summary["target_accuracy"]
    specs_shown = list(dict.fromkeys(spec for cell in summary["cells"] for spec in cell["policies"]))
    what = "mean iteration length" if target is None else "time to target"
    notes = []
    if len(specs_shown) > 1:
        notes.append(
            f"Baseline: {over}. Ratio: {over}'s {what} over the policy's, paired by world, geometric mean; above 1 "
            "the policy is faster. [95 %]: Student's interval over clusters."
        )
    if target is not None:
        targets = dict.fromkeys(cell["values"].get("target_accuracy", target) for cell in summary["cells"])
        aim = " or ".join(f"{each:g}" for each in targets)
        notes.append(f"Target: test accuracy {aim}; {summary['rule']}. All times are virtual.")
    if any(facts["worker_accuracy"] for cell in summary["cells"] for facts in cell["policies"].values()):
        notes.append(
            "Accuracy is that of the mean model (of a server, its own); [min, median] over single workers. "
            "All are means over worlds."
        )
    if any(facts["staleness"] for cell in summary["cells"] for facts in cell["policies"].values()):
        notes.append("Stale: updates of the model between the start of a gradient and its use, mean.")
    if summary["kind"] == "timing":
        notes.append("Clocks alone: this ranks speed, not learning.")
    elif target is None:
        notes.append("No target: iteration lengths rank speed, not learning.")
    if summary.get("stopped"):
        named = "; ".join(f"{spec} in {worlds}" for spec, worlds in summary["stopped"].items())
        notes.append(f"Stopped early, in worlds: {named}. Their rows end there, before the budget.")
    if summary.get("names"):
        notes.append(f"Workers: {numbered(summary['names'], 400)}.")
    if any(map(adds_more, specs_shown)) and not all(map(adds_more, specs_shown)):
        named = ", ".join(filter(adds_more, specs_shown))
        notes.append(
            f"One learning rate is not one step: an update moves the model of {named} by the whole of it (k_...: by "
            "1/k), and the mean of N workers by 1/N. Tune each rate before you conclude (docs/methods.md)."
        )
    for spec in filter(is_idealised, specs_shown):
        notes.append(f"Idealised: {spec} counts gradients before they are ready, which no cluster can do.")
    return notes


def cell_notes_of(summary: Mapping[str, Any], cell: Mapping[str, Any]) -> list[str]:
    """Budget, worlds, and what a reader must know before quoting a number of this cell."""
    notes = [f"{_budget(cell)} {_worlds(cell)}"]
    target = cell["values"].get("target_accuracy", summary["target_accuracy"])
    if summary["target_accuracy"] is not None:
        notes += _target_notes(cell, target)
    diverged = [f"{spec} in {facts['diverged']}" for spec, facts in cell["policies"].items() if facts["diverged"]]
    if diverged:
        notes.append(
            f"Diverged, of {cell['distinct']} worlds: {', '.join(diverged)}; a mean without them is not shown."
        )
    return notes


def budget_of(cell: Mapping[str, Any]) -> str:
    """The virtual time of a cell: `60.0 s`, or its range over worlds."""
    least, most = (digits(end) for end in cell["budget"])
    return f"{least} s" if least == most else f"{least} to {most} s, by world"


def _budget(cell: Mapping[str, Any]) -> str:
    times = f"T = {budget_of(cell)}"
    if cell["equal_time"]:
        return f"{times}, the same for all policies."
    return f"{times} at most: policies ended at different times, so nothing is compared at T."


def _worlds(cell: Mapping[str, Any]) -> str:
    drawn, distinct, clusters = cell["worlds"], cell["distinct"], cell["clusters"]
    counts = f"Worlds: {drawn} drawn, {distinct} distinct, {clusters} cluster{'s' * (clusters != 1)} by shared delays."
    if distinct == 1:
        alike = "One world" if drawn == 1 else "All worlds draw the same"
        return f"{counts} {alike}: no interval, and another world may rank otherwise."
    if clusters == 1:
        return f"{counts} All worlds share their delays: no interval, and other delays may rank otherwise."
    return counts


def _target_notes(cell: Mapping[str, Any], target: float) -> list[str]:
    notes = []
    short = [
        f"{spec} in {of - reached} of {of}"
        for spec, (reached, of) in ((spec, facts["reached"]) for spec, facts in cell["policies"].items())
        if reached < of
    ]
    if short:
        notes.append(
            f"Target {target:g} not reached, of worlds: {'; '.join(short)}. These count as at least the time until the "
            "rows end, so a ratio with them is a bound; there is none where both fell short."
        )
    shortest = cell["shortest"]
    if shortest == 0:
        notes.append("The target is met at time 0 in some world, where no ratio exists; use a higher target.")
    elif is_coarse(cell):
        apart = f"rows are up to {digits(cell['resolution'])} s apart; use more rows."
        notes.append(f"Coarse: the shortest time to target is {digits(shortest)} s, {apart}")
    return notes


def is_coarse(cell: Mapping[str, Any]) -> bool:
    """Whether rows are too far apart for the shortest time to target."""
    return bool(cell["shortest"]) and cell["resolution"] > _COARSE * cell["shortest"]


_SERVERS = ("async_server", "ssp", "token", "k_async", "k_batch_async", "k_batch_sync")


def adds_more(spec: str) -> bool:
    """Whether one update moves the model by more than 1/N of it."""
    name, *settings = re.split(r"[:,\s]+", spec)
    return name in _SERVERS and "weight=mean" not in settings


def is_idealised(spec: str) -> bool:
    """Whether a policy uses gradients before they are ready."""
    return "late=apply" in re.split(r"[:,\s]+", spec)
