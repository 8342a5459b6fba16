"""The page of a plan, for the engineer who asked: answer, ranking, what would change it, data, laws, method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dbwjax.planning import laws, words
from dbwjax.planning.ranking import digits
from dbwjax.report import plan_figures, style
from dbwjax.report.page.document import Section, document
from dbwjax.report.page.drawing import svg_of

if TYPE_CHECKING:
    from markupsafe import Markup

    from dbwjax.planning.plan import Plan

_QUANTILES = 60
_QQ = 4  # machines

_ABOUT = (
    ("group", "The first group is the winner and whatever these data cannot tell from it. Each later group likewise."),
    ("over the first", "Seconds over the winner's, paired by replicate of the trace: 1.20 takes a fifth longer."),
    ("iteration", "Seconds from one iteration of a machine to its next, mean over machines and steps."),
    ("gradients", "How many gradients count in an iteration of all machines; what comes too late may not."),
    (
        "waiting, wasted",
        "Shares of a machine's time: waiting for others or for messages; computing what is thrown away.",
    ),
    ("first in", "Share of replicates of the trace in which no candidate is quicker."),
)


def page(plan: Plan) -> str:
    """The file's text."""
    from markupsafe import Markup

    lead = Markup('<p class="first">{}</p>').format(" ".join(words.answer(plan)))
    lead += _joined(Markup('<div class="warning"><p>{}</p></div>').format(one) for one in words.warnings(plan))
    with style.house_style():
        sections = [_ranking(plan), *_changes(plan), _data(plan), *_laws(plan), _method(plan)]
    return document("Whom to wait for on this cluster", lead, sections)


def _ranking(plan: Plan) -> Section:
    entries, by = plan.ranking.entries, plan.ranking.by
    what = {
        "target": f"seconds to accuracy {plan.target}, [95 %]",
        "iteration": "seconds an iteration, [95 %]",
        "gradients": "seconds for as many gradients as there are machines, [95 %]",
    }[by]
    figure = plan_figures.draw_ranking(
        [one.name for one in entries],
        [one.policy for one in entries],
        [tuple(one.seconds) for one in entries],
        [one.group for one in entries],
        what,
    )
    top = ", ".join(one.name for one in plan.ranking.top)
    alt = f"{what} of {len(entries)} candidates, the quickest on top; first group: {top}. The table has the numbers."
    shown = f" The first {plan_figures.SHOWN} of {len(entries)}." if len(entries) > plan_figures.SHOWN else ""
    note = f"Grey: the first group, which these data cannot tell apart. Lines are intervals.{shown}"
    body = _figure(figure, alt, "plan-ranking", note)
    headings, *rows = words.rows_of(plan)
    body += _table(headings, rows, "Every candidate", 3)
    body += _details("What the columns mean", _ABOUT)
    return Section("ranking", "Ranking", body)


def _changes(plan: Plan) -> list[Section]:
    lines = [words.change_text(plan, one) for one in plan.ranking.changes]
    return [Section("changes", "Would that change?", _list(lines))] if lines else []


def _data(plan: Plan) -> Section:
    data, seconds, names = plan.data, plan.times.seconds, plan.times.names
    body = _list(words.data_lines(plan))
    body += _figure(
        plan_figures.draw_machines(names, seconds),
        "Times of each machine, the slowest first; the table has the numbers.",
        "plan-machines",
        "Seconds a step of each machine, the slowest first.",
    )
    body += _figure(
        plan_figures.draw_over_time(names, seconds),
        "How slow each machine is over the steps, in multiples of its median.",
        "plan-time",
        "Over the steps: bright spells are slow ones. Bright columns are machines that are slow together.",
    )
    body += _figure(
        plan_figures.draw_correlation(names, data.correlation),
        f"Correlation between machines, {data.mean_correlation:.2f} on average.",
        "plan-correlation",
        "Correlation of two machines' (logarithmic) times in the same step. Replicates keep it.",
    )
    headings = ["machine", "mean [s]", "p50 [s]", "p95 [s]", "p99 [s]", "slow steps", "spells", "longest", "next step"]
    rows = [
        [
            one.name,
            *(digits(value) for value in one[1:5]),
            f"{100 * one.slow:.1f} %",
            str(one.spells),
            str(one.longest),
            f"{one.autocorrelation:.2f}",
        ]
        for one in data.machines
    ]
    body += _table(headings, rows, "Every machine", 1)
    about = (
        ("slow steps", "Share of steps above twice the machine's median."),
        ("spells, longest", "Runs of such steps, and the steps of the longest."),
        ("next step", "Correlation of a step's (logarithmic) time with the next one's: above 0, slowness lasts."),
    )
    return Section("data", "What was measured", body + _details("What the columns mean", about))


def _laws(plan: Plan) -> list[Section]:
    if not plan.fits:
        return []
    best, seconds = plan.fits[0], plan.times.seconds
    order = np.argsort(-seconds.mean(axis=0), kind="stable")
    some = list(dict.fromkeys(order[np.linspace(0, len(order) - 1, min(_QQ, len(order))).astype(int)].tolist()))
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    figure = plan_figures.draw_quantiles(
        [plan.times.names[machine] for machine in some],
        [np.quantile(seconds[:, machine], at) for machine in some],
        [best.of(machine).ppf(at) for machine in some],
        best.words,
    )
    rows = [
        [
            one.words,
            f"{one.aic - best.aic:,.0f}",
            f"{100 * one.gap:.0f} points",
            plan.times.names[one.worst],
            "-" if one.p_value is None else f"{digits(one.p_value)}",
        ]
        for one in plan.fits
    ]
    headings = ["law", "AIC over the best", "largest gap", "on", "p"]
    body = _figure(
        figure,
        f"Quantiles of measured times against those of the fitted {best.words} law, for {len(some)} machines.",
        "plan-laws",
        "Measured against fitted quantiles, from the slowest machine to the quickest: on the line they agree.",
    )
    body += _table(headings, rows, "Fitted laws", 1)
    used = "the trace itself, redrawn" if plan.law == "trace" else f"draws of the {plan.law} law, as asked"
    lines = [
        f"What is simulated is {used}. Laws are shown to look at: in them machines and steps are independent.",
        "Maximum likelihood, each machine with parameters of its own. The largest gap is Kolmogorov and Smirnov's "
        f"distance on the machine where it is worst; p is by {laws.REDRAWN} samples of the best law itself, fitted "
        f"anew each time, over at most {laws.MACHINES} machines and {laws.TESTED} steps. It takes steps for "
        "independent: where slowness lasts it refuses too easily.",
    ]
    return [Section("laws", "Laws", body + _list(lines))]


def _method(plan: Plan) -> Section:
    links = plan.links
    sent = f"{links.latency:g} s" + (
        f" and {links.message_bytes:g} bytes at {links.bandwidth:g} bytes a second" if links.message_bytes else ""
    )
    lines = [
        *words.sure_lines(plan),
        f"A message takes {sent}." if links.any else "Messages take no time: none was given.",
        f"Times: {plan.times.source}. Seed {plan.seed}.",
        "Barriers, late workers and drift are those of the simulated rules; nothing here ran on the cluster.",
    ]
    return Section("sure", "How sure is that, and how was it found?", _list(lines))


def _figure(figure: Any, alt: str, key: str, note: str) -> Markup:
    from markupsafe import Markup

    frame = Markup(
        '<figure><div class="scroll" tabindex="0" role="region" aria-label="{}"><div class="wide">{}</div></div>'
        "<figcaption>{}</figcaption></figure>"
    )
    return frame.format(f"Figure, scrolls sideways: {note}", svg_of(figure, alt, key), note)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str, text: int) -> Markup:
    """A table whose first so many columns are words."""
    from markupsafe import Markup

    head = _joined(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="word"') if at < text else "", one)
        for at, one in enumerate(headings)
    )
    word, number = Markup('<td class="word">{}</td>'), Markup("<td>{}</td>")
    lines = _joined(
        Markup("<tr>{}</tr>").format(_joined((word if at < text else number).format(one) for at, one in enumerate(row)))
        for row in rows
    )
    frame = Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{0}, scrolls sideways"><table>'
        "<caption>{0}</caption><thead><tr>{1}</tr></thead><tbody>{2}</tbody></table></div>"
    )
    return frame.format(caption, head, lines)


def _list(lines: Iterable[str]) -> Markup:
    from markupsafe import Markup

    return Markup("<ul>{}</ul>").format(_joined(Markup("<li>{}</li>").format(one) for one in lines))


def _details(summary: str, terms: Iterable[tuple[str, str]]) -> Markup:
    from markupsafe import Markup

    every = _joined(Markup("<dt><strong>{}</strong></dt><dd>{}</dd>").format(*one) for one in terms)
    return Markup("<details><summary>{}</summary><dl>{}</dl></details>").format(summary, every)


def _joined(parts: Iterable[Markup]) -> Markup:
    from markupsafe import Markup

    return Markup("").join(parts)
