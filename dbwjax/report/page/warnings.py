"""What must be known before a number is quoted, in words that cannot be missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dbwjax.report.digits import digits
from dbwjax.report.notes import adds_more, is_coarse, is_idealised
from dbwjax.report.page import words


def warnings_of(summary: Mapping[str, Any], cell: Mapping[str, Any], kind: str) -> list[Markup]:
    """What a reader must know before a number of this cell is quoted."""
    facts, found = cell["policies"], []
    if kind == "timing":
        found.append(Markup("Clocks alone ran: this ranks <strong>speed, not learning</strong>."))
    elif kind in ("accuracy", "loss") and summary["target_accuracy"] is None:
        what = "There was no target" if kind == "accuracy" else "This task has no accuracy, so there is no target"
        found.append(Markup("{}: rules are compared by what they reached at equal time.").format(what))
    elif kind == "none":
        found.append(Markup("Rules ended at different times and reached no common target: nothing can be ranked."))
    if cell["distinct"] == 1:
        which = "One world was run" if cell["worlds"] == 1 else "All worlds draw the same, so they count as one"
        found.append(Markup("{}: no interval, and another world may rank the rules otherwise.").format(which))
    elif cell["clusters"] == 1:
        found.append(Markup("All worlds share their delays: no interval, and other delays may rank otherwise."))
    if summary["target_accuracy"] is not None:
        found += _target_warnings(summary, cell)
    lost = [
        Markup("{} in {}").format(words.code(spec), told["diverged"])
        for spec, told in facts.items()
        if told["diverged"]
    ]
    if lost:
        found.append(
            Markup("Diverged, of {} worlds: {}. A mean without them is not shown.").format(
                cell["distinct"], Markup("; ").join(lost)
            )
        )
    for spec in filter(is_idealised, facts):
        found.append(
            Markup("{} counts gradients before they are ready, which no cluster can do.").format(words.code(spec))
        )
    stronger = [spec for spec in facts if adds_more(spec)]
    if stronger and len(stronger) < len(facts):
        found.append(
            Markup(
                "One learning rate is not one step: an update of {} moves the model by more than 1/N of it, as the "
                "others' do. Tune each rate before you conclude."
            ).format(words.listed(stronger))
        )
    return found


def _target_warnings(summary: Mapping[str, Any], cell: Mapping[str, Any]) -> list[Markup]:
    aim = words.aim(summary, cell)
    short = [
        Markup("{} in {} of {}").format(words.code(spec), told["reached"][1] - told["reached"][0], told["reached"][1])
        for spec, told in cell["policies"].items()
        if told["reached"][0] < told["reached"][1]
    ]
    found = []
    if short:
        found.append(
            Markup(
                "Target {} <strong>not reached</strong>, of worlds: {}. They count as at least the time until the "
                "rows end, so a ratio with them is a bound."
            ).format(aim, Markup("; ").join(short))
        )
    if cell["shortest"] == 0:
        found.append(Markup("The target is met at time 0 in some world, where no ratio exists: use a higher target."))
    elif cell["shortest"] is not None and is_coarse(cell):
        found.append(
            Markup("Coarse: the shortest time to target is {} s and rows are up to {} s apart: use more rows.").format(
                digits(cell["shortest"]), digits(cell["resolution"])
            )
        )
    return found
