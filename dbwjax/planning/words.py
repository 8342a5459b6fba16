"""A plan in words: the answer first, then the table, what would change it, and how sure it is."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from dbwjax.planning.ranking import Change, Entry, Interval, digits
from dbwjax.planning.replicates import ROWS

if TYPE_CHECKING:
    from dbwjax.planning.plan import Plan

WIDTH = 110

MEASURES = {
    "iteration": "an iteration takes",
    "gradients": "as many gradients as there are machines take",
}


def answer(plan: Plan) -> list[str]:
    """The answer: what to use, and, in a second sentence, what comes to the same."""
    best, by = plan.best, plan.ranking.by
    if by == "target":
        what = f"it reaches accuracy {plan.target:g} in {seconds(best.seconds)}"
    else:
        what = f"{MEASURES[by]} {seconds(best.seconds)}"
    found = [f"Use {best.name}: {what}{_gain(plan)}."]
    others = plan.ranking.top[1:]
    if others:
        shown = [one.name for one in others[:4]]
        rest = f" and {len(others) - 4} more" if len(others) > 4 else ""
        found.append(f"These data cannot tell it from {', '.join(shown)}{rest}.")
    return found


def _gain(plan: Plan) -> str:
    if plan.reference.name == plan.best.name:
        return ", and nothing that was considered is quicker"
    whom = "waiting for all" if plan.reference.policy in ("full", "server") else "the slowest"
    word = "sooner" if plan.ranking.by == "target" else "shorter"
    return f", {times(plan.gain)} {word} than {whom} ({plan.reference.name})"


def seconds(interval: Interval) -> str:
    """`0.61 s [0.58, 0.64]`; without an upper limit `at least 0.61 s`."""
    if interval.high is None:
        return f"at least {digits(interval.estimate)} s"
    return f"{digits(interval.estimate)} s [{digits(interval.low)}, {digits(interval.high)}]"


def times(interval: Interval) -> str:
    """`1.80 times [1.60, 2.00]`."""
    if interval.high is None:
        return f"at least {digits(interval.estimate)} times"
    return f"{digits(interval.estimate)} times [{digits(interval.low)}, {digits(interval.high)}]"


def text(plan: Plan) -> str:
    """All of it for a terminal."""
    parts = [_wrapped(" ".join(answer(plan))), *map(_wrapped, warnings(plan)), "\n".join(_rows(plan))]
    changes = [change_text(plan, one) for one in plan.ranking.changes]
    if changes:
        parts.append("\n".join(["Would that change?", *(_wrapped(one, "  ") for one in changes)]))
    parts.append("\n".join(["The data", *(_wrapped(one, "  ") for one in data_lines(plan))]))
    parts.append("\n".join(["How sure is that?", *(_wrapped(one, "  ") for one in sure_lines(plan))]))
    return "\n\n".join(parts)


def warnings(plan: Plan) -> list[str]:
    """What must not be missed, a sentence each."""
    found = []
    if plan.ranking.by == "iteration":
        found.append(
            "This ranks the length of iterations alone, not what is learned in one: a rule that waits for nobody is "
            "always short. Leave --timing-only out to rank the time to an accuracy."
        )
    if plan.ranking.by == "gradients":
        found.append(
            "This ranks how fast gradients come, not how well they mix: two rules are taken to learn as much from a "
            "gradient. Leave --timing-only out to rank the time to an accuracy."
        )
    if plan.training is not None and plan.training.stand_in:
        found.append(
            "Learning was measured on a STAND-IN, softmax regression of handwritten digits, not on your task: "
            "name yours with --task and --model."
        )
    if plan.data.blocks < 20:
        found.append(
            f"The trace is made of {plan.data.blocks:.0f} independent spells only ({plan.data.rows} steps, "
            f"{plan.data.block} of them alike): measure longer before you trust the limits."
        )
    if plan.times.dropped:
        found.append(f"{plan.times.dropped} steps with a gap were left out; the steps around them count as neighbours.")
    return found


def change_text(plan: Plan, change: Change) -> str:
    """One scenario."""
    best = plan.best
    sure = f"quickest in {100 * change.first:.0f} % of the replicates"
    said = {
        "one more straggler": f"One more straggler ({plan.times.names[plan.data.typical]} at the slowest machine's "
        "pace, at least half its own)",
        "slowest machine repaired": f"Slowest machine repaired ({plan.times.names[plan.data.slowest]} with the times "
        f"of {plan.times.names[plan.data.typical]})",
        "twice the latency": "Twice the latency",
    }[change.scenario]
    gain = change.gain
    effect = f"{best.name} would be {times(gain)} quicker than now"
    if gain.estimate < 1:
        slower = Interval(1 / gain.estimate, gain.high and 1 / gain.high, gain.low and 1 / gain.low)
        effect = f"{best.name} would be {times(slower)} slower than now"
    if abs(gain.estimate - 1) < 0.005:
        effect = f"{best.name} would be as quick as now"
    if (change.policy, change.graph) == (best.policy, best.graph):
        return f"{said}: no, still {best.name}, {sure}; {effect}."
    rival = f"{change.policy} on {change.graph}"
    if change.ours.low is not None and change.ours.low > 1:
        return f"{said}: yes, {rival} ({sure}); {best.name} would need {times(change.ours)} as long; {effect}."
    return f"{said}: perhaps, {rival} would be ahead, but not for sure ({sure}); {effect}."


def data_lines(plan: Plan) -> list[str]:
    """What the trace looks like."""
    data, names = plan.data, plan.times.names
    slow, typical = data.machines[data.slowest], data.machines[data.typical]
    pace = digits(slow.mean / typical.mean)
    spells = max(data.machines, key=lambda one: one.longest)
    lines = [
        f"{len(names)} machines, {data.rows} steps. {slow.name} is the slowest: {digits(slow.mean)} s a step on "
        f"average ({pace} times {typical.name}), {digits(slow.p95)} s at the 95th percentile.",
        f"Between two machines the correlation is {data.mean_correlation:.2f} on average; the longest spell above "
        f"twice a machine's median is {spells.longest} steps ({spells.name}).",
    ]
    if not plan.fits:
        return lines
    fit = plan.fits[0]
    fits = "nothing speaks against it" if fit.fits else "it does not fit"
    used = "the trace itself is used" if plan.law == "trace" else f"draws of the {plan.law} law are used, as asked"
    lines.append(
        f"Of the fitted laws the {fit.words} is nearest: off by at most {100 * fit.gap:.0f} points, {fits} "
        f"(p = {digits(fit.p_value)}); {used}."
    )
    return lines


def sure_lines(plan: Plan) -> list[str]:
    """Where the intervals come from, and what they do not hold."""
    data = plan.data
    rows = min(data.rows, ROWS)
    together = "step by step" if data.block == 1 or plan.law != "trace" else f"in blocks of {data.block} steps"
    lines = [
        f"[95 %]: the trace was redrawn {plan.replicates} times, {together}, all machines together, {rows} steps each, "
        "and every candidate saw the same replicates. Limits hold what another trace of this length might have said. "
        "They do not hold that the cluster changes.",
    ]
    if plan.training is not None:
        lines.append(
            f"Learning: {plan.training.worlds} replicates, each with a training of its own ({plan.training.task}); "
            "limits are for one more replicate, so they are rather too wide. In what would change, a rule is taken to "
            "need as many iterations as now."
        )
    lines.append("Each machine's n-th computation takes the n-th row of a replicate, whichever rule lets it begin.")
    return lines


def cells(plan: Plan, entry: Entry) -> list[str]:
    """A candidate's row, as text."""
    total = sum(entry.shares) or 1.0
    _, wasted, waiting, communicating = entry.shares
    reached = (
        "" if entry.reached is None or entry.reached[0] == entry.reached[1] else " ({} of {})".format(*entry.reached)
    )
    first = entry.over_best if entry.name != plan.best.name else None
    return [
        str(entry.group),
        entry.policy,
        entry.graph,
        seconds(entry.seconds).replace(" s", "") + reached,
        "-" if first is None else times(first).replace(" times", ""),
        str(entry.iteration),
        f"{entry.gradients:.1f}",
        f"{100 * (waiting + communicating) / total:.0f} %",
        f"{100 * wasted / total:.0f} %",
        f"{100 * entry.first:.0f} %",
    ]


def headings(plan: Plan) -> list[str]:
    """Of `cells`."""
    by = plan.ranking.by
    ranked = (
        f"to {plan.target:g} [s]"
        if by == "target"
        else {"iteration": "iteration [s]", "gradients": "N gradients [s]"}[by]
    )
    return [
        "group",
        "rule",
        "topology",
        ranked,
        "over the first",
        "iteration [s]",
        "gradients",
        "waiting",
        "wasted",
        "first in",
    ]


def _rows(plan: Plan) -> list[str]:
    rows = [headings(plan), *(cells(plan, one) for one in plan.ranking.entries)]
    if plan.ranking.by == "iteration":
        rows = [[*row[:5], *row[6:]] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _wrapped(line: str, indent: str = "") -> str:
    return textwrap.fill(line, WIDTH, initial_indent=indent, subsequent_indent=indent)
