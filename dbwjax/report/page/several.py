"""Several runs on one page: what differs between them, policy by policy, and every seed's curve.

Runs that draw the same delays are compared world by world. Others share nothing that could be paired: the page says
"unpaired", and Welch's interval, which is wider, takes the place of the paired one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dbwjax.report.digits import interval_text
from dbwjax.report.intervals import ratio, unpaired_ratio
from dbwjax.report.page import words
from dbwjax.report.page.document import Section, document, render, source
from dbwjax.report.page.material import Material, Row
from dbwjax.report.page.seeds_section import seeds_section
from dbwjax.report.statistics import Time, crossing

if TYPE_CHECKING:
    from markupsafe import Markup


class Compared(NamedTuple):
    """One policy in another run against the same in the first."""

    policy: str
    run: str
    measure: str  # "time to target" or "iteration length"
    interval: Mapping[str, Any] | None  # INTERVAL: the first run's seconds over this one's: above 1, this is sooner
    paired: bool
    worlds: str  # how many

    @property
    def said(self) -> str:
        """What the interval allows."""
        if self.interval is None or self.interval["estimate"] is None:
            return "nothing to compare"
        if not words.has_limits(self.interval):
            return "no interval: one draw of delays"
        if self.interval["low"] == self.interval["high"] == 1:
            return "the same in every world"
        if words.holds_none("target", self.interval):
            return "cannot be told apart"
        return f"{self.run} is sooner" if self.interval["estimate"] > 1 else "the first is sooner"

    @property
    def shown(self) -> str:
        """The interval as tables print it."""
        return interval_text(self.interval)


def page_of_several(runs: Sequence[Material], date: str) -> str:
    """The HTML file that compares several runs, the first with each of the others.

    Args:
      runs: of `python -m dbwjax.train`, two or more, by names that differ.
      date: when the page is made.
    """
    sections = [_differences_section(runs), _settings_section(runs), _numbers_section(runs), seeds_section(runs)]
    lead: Markup = render("several_lead.html", date=date, runs=runs)
    return document(f"{len(runs)} runs compared", lead, [one for one in sections if one is not None])


def compare_runs(first: Material, other: Material) -> list[Compared]:
    """Every policy that both runs have, in the other against the first."""
    targets = {run.summary["target_accuracy"] for run in (first, other)}
    to_target = len(targets) == 1 and None not in targets
    found = []
    for policy in first.policies:
        if policy not in other.policies:
            continue
        for measure in ["time to target"] * to_target + ["iteration length"]:
            times = [_times(run, policy, measure) for run in (first, other)]
            found.append(_compared(first, other, policy, measure, times))
    return found


def _compared(
    first: Material, other: Material, policy: str, measure: str, times: Sequence[dict[Any, Time] | None]
) -> Compared:
    same = "learning" if measure == "time to target" else "timing"
    drew = [{world["world"]: world["hashes"] for world in run.worlds} for run in (first, other)]
    shared = [name for name, hashes in drew[0].items() if drew[1].get(name, {}).get("delays") == hashes["delays"]]
    paired = len(shared) == len(drew[0]) == len(drew[1]) or len(shared) > 1
    count = f"{len(shared)} paired" if paired else f"{len(drew[0])} and {len(drew[1])}, unpaired"
    rivals, ours = times
    if rivals is None or ours is None:
        return Compared(policy, other.name, measure, None, paired, count)
    if paired:
        # Of worlds that draw the same delays, those that learn otherwise in one of the runs are others.
        hashes = [{**drew[0][name], same: drew[0][name][same] + drew[1][name][same]} for name in shared]
        interval = ratio([rivals[name] for name in shared], [ours[name] for name in shared], hashes, same)
    else:
        interval = unpaired_ratio(
            list(rivals.values()), list(ours.values()), (list(drew[0].values()), list(drew[1].values())), same
        )
    return Compared(policy, other.name, measure, interval, paired, count)


def _times(run: Material, policy: str, measure: str) -> dict[Any, Time] | None:
    """Seconds by world; `None` where a world has none."""
    by: dict[Any, list[Row]] = {}
    for row in run.rows:
        if row["policy"] == policy:
            by.setdefault(row["world"], []).append(row)
    found = {}
    for world in (one["world"] for one in run.worlds):
        rows = sorted(by[world], key=lambda row: row["row"])
        if measure == "iteration length":
            length = rows[-1]["iteration_length"]
            if length is None:
                return None
            found[world] = Time(length)
            continue
        times = [float(row["virtual_time"]) for row in rows]
        reached = crossing(times, [row["test_accuracy"] for row in rows], run.summary["target_accuracy"])
        found[world] = Time(reached.seconds) if reached else Time(times[-1], False)
    return found


def _differences_section(runs: Sequence[Material]) -> Section:
    every = [one for other in runs[1:] for one in compare_runs(runs[0], other)]
    alone = [
        f"{policy} of {run.name}"
        for run in runs
        for policy in run.policies
        if not any(policy in other.policies for other in runs if other is not run)
    ]
    body = render("several.html", first=runs[0].name, every=every, alone=alone)
    return Section("verdict", "What differs, policy by policy", body, script=source("filter.js"))


def _settings_section(runs: Sequence[Material]) -> Section:
    """The settings in which runs differ."""
    told = [dict(run.provenance.settings) for run in runs]
    names = list(dict.fromkeys(name for own in told for name in own))
    lines = [
        (name, [own.get(name, "-") for own in told]) for name in names if len({own.get(name, "-") for own in told}) > 1
    ]
    body = render("several_settings.html", runs=runs, lines=lines)
    return Section("settings", "Differences of configuration", body)


def _numbers_section(runs: Sequence[Material]) -> Section:
    """Every policy of every run, with the columns that all runs have."""
    from dbwjax.report.page.table_section import columns_of

    columns = [columns_of(run.summary) for run in runs]
    common = [column for column in columns[0] if all(column.title in {one.title for one in own} for own in columns[1:])]
    body = render("several_numbers.html", runs=runs, columns=common)
    return Section("comparison", "All numbers", body, script=source("table.js"))
