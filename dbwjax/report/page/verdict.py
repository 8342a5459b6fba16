"""The verdict in words: who is first, by how much, how sure that is, and why; nothing beyond what the intervals allow.

A statement of a difference is made only where its 95 % interval excludes no difference. Whoever cannot be told from
the first is named as such. Bounds are called bounds, one world is called one world.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from dbwjax.report.digits import digits, interval_text, percent
from dbwjax.report.intervals import difference, inverse
from dbwjax.report.notes import budget_of
from dbwjax.report.page import words
from dbwjax.report.page.warnings import warnings_of
from dbwjax.report.progress import Progress, progress_of
from dbwjax.report.statistics import Row, summarise

Facts = Mapping[str, Any]


class Verdict(NamedTuple):
    """What one cell allows to be said."""

    kind: str  # "target", "accuracy", "loss" or "timing": by what rules are ranked; "none": by nothing
    first: str | None  # the SPEC that leads, None: nobody does
    statements: list[Markup]  # the first says who leads
    warnings: list[Markup]
    alike: list[str]  # SPECs that cannot be told from the first
    sure: bool  # whether the first is told from every other by an interval
    progress: Mapping[str, Progress]  # against the baseline; empty where not every world of it reached the target


def verdict_of(
    summary: Mapping[str, Any], cell: Mapping[str, Any], rows: Sequence[Row], worlds: Sequence[Mapping[str, Any]]
) -> Verdict:
    """The verdict on one cell.

    Args:
      summary: as `summarise` returned it.
      cell: one of its cells.
      rows: of this cell alone.
      worlds: of this cell alone, as in `worlds.json`.
    """
    told = _Told(summary, cell, rows, worlds)
    kind = told.kind()
    first = told.first(kind)
    progress = told.progress() if kind == "target" else {}
    sure = False
    if first is None:
        said, alike = [told.nobody(kind)], list[str]()
    elif len(told.facts) == 1:
        said, alike = [told.alone(kind, first)], []
    else:
        against = told.against(kind, first)
        alike = [spec for spec, interval in against.items() if words.holds_none(kind, interval)]
        sure = all(words.has_limits(interval) for interval in against.values()) and not alike
        said = [*told.leads(kind, first, against, alike), *told.why(first, alike, progress, against)]
    return Verdict(kind, first, said, warnings_of(summary, cell, kind), alike, sure, progress)


def text_of(verdict: Verdict) -> str:
    """A verdict as plain text, a line for each sentence; warnings begin with "Note: "."""
    warned = [f"Note: {line.striptags()}" for line in verdict.warnings]
    return "\n".join([*(line.striptags() for line in verdict.statements), *warned])


class _Told:
    """One cell, and the words that are made of it."""

    def __init__(
        self, summary: Mapping[str, Any], cell: Mapping[str, Any], rows: Sequence[Row], worlds: Sequence[Mapping]
    ):
        self.summary, self.cell, self.rows, self.worlds = summary, cell, rows, worlds
        self.facts: Mapping[str, Facts] = cell["policies"]
        self.baseline, self.aim = summary["baseline"], words.aim(summary, cell)

    def kind(self) -> str:
        """By what the rules of this cell can be ranked."""
        if self.summary["kind"] == "timing":
            return "timing"
        if self.aim is not None and any(told["reached"][0] for told in self.facts.values()):
            return "target"
        if not self.cell["equal_time"]:
            return "none"
        if any(told["test_accuracy"] is not None for told in self.facts.values()):
            return "accuracy"
        return "loss" if any(told["test_loss"] is not None for told in self.facts.values()) else "none"

    def first(self, kind: str) -> str | None:
        """Who leads; `None` where nobody reached the target in every world, or nothing ranks."""
        column = {"target": "time_to_target", "accuracy": "test_accuracy", "loss": "test_loss"}.get(kind)
        column = "iteration_length" if kind == "timing" else column
        known = {spec: told[column] for spec, told in self.facts.items() if column and told[column] is not None}
        if not known or (kind == "target" and self.cell["shortest"] == 0):
            return None
        return (max if kind == "accuracy" else min)(known, key=lambda spec: known[spec])

    def against(self, kind: str, first: str) -> dict[str, Mapping[str, Any] | None]:
        """The first against every other: how many times sooner it is, or by how much its measure is greater."""
        others = [spec for spec in self.facts if spec != first]
        if kind == "loss":
            return {spec: self._loss_difference(spec, first) for spec in others}
        facts = self._over(first)
        column = {"target": "ratio", "accuracy": "accuracy_difference", "timing": "iteration_ratio"}[kind]
        turn = words.negative if kind == "accuracy" else inverse
        return {spec: turn(facts[spec][column]) for spec in others}

    def _over(self, baseline: str) -> Mapping[str, Facts]:
        """The facts of this cell with another baseline."""
        if baseline == self.baseline:
            return self.facts
        specs, target = list(self.facts), self.summary["target_accuracy"]
        return summarise(self.rows, self.worlds, specs, baseline, target)["cells"][0]["policies"]

    def _loss_difference(self, spec: str, first: str) -> Mapping[str, Any] | None:
        """A rule's loss at the end less the first's, paired by world."""
        ends: dict[tuple, Row] = {}
        names = [name for name in self.worlds[0] if name != "hashes"]
        for row in self.rows:
            key = (row["policy"], *(row[name] for name in names))
            if key not in ends or row["row"] > ends[key]["row"]:
                ends[key] = row
        mine, its = (
            [ends[(one, *(world[name] for name in names))].get("test_loss") for world in self.worlds]
            for one in (first, spec)
        )
        known = [[value for value in own if value is not None and math.isfinite(value)] for own in (mine, its)]
        if any(len(own) < len(self.worlds) for own in known):
            return None
        return difference(known[0], known[1], [world["hashes"] for world in self.worlds])

    def progress(self) -> dict[str, Progress]:
        """Iterations to the target and seconds of each, against the baseline."""
        axes = [name for name in self.worlds[0] if name != "hashes"]
        names = [tuple(world[name] for name in axes) for world in self.worlds]
        rows = [{**row, "world": tuple(row[name] for name in axes)} for row in self.rows]
        hashes = [world["hashes"] for world in self.worlds]
        return progress_of(rows, hashes, names, list(self.facts), self.baseline, float(self.aim or 0))

    def worlds_said(self) -> str:
        """In how many worlds."""
        count = self.cell["distinct"]
        if count == 1:
            return "in the one world that was run"
        shared = self.cell["clusters"]
        return f"in {count} worlds" + ("" if shared == count else f" ({shared} draws of delays)")

    def nobody(self, kind: str) -> Markup:
        """Why no rule leads."""
        if kind == "target" and self.cell["shortest"] == 0:
            return Markup("No rule can be called first: the target {} is met before training begins.").format(self.aim)
        if kind == "target":
            most = max(told["reached"][0] for told in self.facts.values())
            best = [spec for spec, told in self.facts.items() if told["reached"][0] == most]
            of = next(iter(self.facts.values()))["reached"][1]
            return Markup("No rule reached {} in every world. {} did so in most: {} of {}.").format(
                self.aim, words.listed(best), most, of
            )
        return Markup("No rule can be called first.")

    def alone(self, kind: str, first: str) -> Markup:
        """What one policy did, with nobody to compare it with."""
        return Markup("{}. No other rule was run, so nothing is compared.").format(self._did(kind, first))

    def _did(self, kind: str, spec: str) -> Markup:
        """`fastest:k=6` reaches 0.95 in 82 s."""
        told, end = self.facts[spec], budget_of(self.cell)
        if kind == "target":
            return Markup("{} reaches {} in <strong>{} s</strong>").format(
                words.code(spec), self.aim, digits(told["time_to_target"])
            )
        if kind == "timing":
            return Markup("An iteration of {} takes <strong>{} s</strong>").format(
                words.code(spec), digits(told["iteration_length"])
            )
        column = "test_accuracy" if kind == "accuracy" else "test_loss"
        shown = f"{told[column]:.3f}" if kind == "accuracy" else digits(told[column])
        return Markup("After {}, {} is at test {} <strong>{}</strong>").format(
            end, words.code(spec), column.removeprefix("test_"), shown
        )

    def leads(
        self, kind: str, first: str, against: Mapping[str, Mapping[str, Any] | None], alike: Sequence[str]
    ) -> list[Markup]:
        """Who leads, by how much over the baseline (or over the next, where the baseline leads), and who is alike."""
        rival = self.baseline if first != self.baseline else self._next(kind, first)
        role = " (the baseline)" if first == self.baseline else ""
        said = [Markup("{}{}: {}.").format(self._did(kind, first), role, self._by(kind, against[rival], rival))]
        if kind in ("accuracy", "loss") and self.aim is not None:
            said.insert(0, Markup("No rule reached {} within {}.").format(self.aim, budget_of(self.cell)))
        others = [spec for spec in alike if spec != rival]
        if others:
            whose = (
                "the intervals of their ratios include" if len(others) > 1 else "the interval of their ratio includes"
            )
            none = "1"
            if kind in ("accuracy", "loss"):
                whose, none = whose.replace("ratio", "difference"), "0"
            said.append(
                Markup("{} <strong>cannot be told</strong> from {}: {} {}.").format(
                    words.listed(others), words.code(first), whose, none
                )
            )
        return said

    def _next(self, kind: str, first: str) -> str:
        """Who comes after the first."""
        column = {"target": "time_to_target", "accuracy": "test_accuracy", "loss": "test_loss"}.get(
            kind, "iteration_length"
        )
        sign = -1 if kind == "accuracy" else 1
        others = [spec for spec in self.facts if spec != first]
        return min(others, key=lambda spec: (self.facts[spec][column] is None, sign * (self.facts[spec][column] or 0)))

    def _by(self, kind: str, interval: Mapping[str, Any] | None, rival: str) -> Markup:
        """1.62 times [1.46, 1.79] sooner than `full` in 10 worlds."""
        where = self.worlds_said()
        if interval is None or interval["estimate"] is None:
            what = "ratio" if kind in ("target", "timing") else "difference"
            return Markup("there is no {} to {}, which has no such value in every world").format(
                what, words.code(rival)
            )
        shown = words.interval_text(kind, interval)
        unsure = interval["low"] is None and interval["high"] is None
        if words.holds_none(kind, interval):
            none = 1 if kind in ("target", "timing") else 0
            return Markup("it <strong>cannot be told</strong> from {}: {} {}, an interval that includes {}").format(
                words.code(rival), shown, where, none
            )
        word = {"target": "sooner than", "timing": "shorter than those of"}.get(kind)
        if word is None:
            word = "more than" if kind == "accuracy" else "less than"
            text = Markup("{} {} {} {}").format(shown, word, words.code(rival), where)
        else:
            text = Markup("<strong>{}</strong> {} {} {}").format(shown, word, words.code(rival), where)
        if unsure:
            text += Markup(" (no interval)")
        if interval["bound"]:
            text += Markup(" (a bound: {} did not reach it in every world)").format(words.code(rival))
        return text

    def why(
        self,
        first: str,
        alike: Sequence[str],
        progress: Mapping[str, Progress],
        against: Mapping[str, Mapping[str, Any] | None],
    ) -> list[Markup]:
        """Where the numbers say it: length of iterations, progress in each, and what workers do with their time."""
        said = []
        way = progress.get(first)
        if way and way.length and way.gain and way.length["estimate"] and way.gain["estimate"]:
            said.append(
                Markup("Why: until the target, an iteration of {} is {} one of {}, and {}.").format(
                    words.code(first), words.length(way.length), words.code(self.baseline), self._need(way.gain)
                )
            )
        shares = self._shares(first)
        if shares:
            said.append(shares)
        quickest = self._quickest(first, alike, against)
        if quickest:
            said.append(quickest)
        return said

    def _need(self, gain: Mapping[str, Any]) -> Markup:
        """How many iterations the first needs, of the baseline's."""
        if words.holds_none("target", gain):
            return Markup("the numbers of iterations that they need cannot be told apart ({})").format(
                interval_text(gain)
            )
        if gain["estimate"] >= 1:
            return Markup("{} needs {} as many of them").format(
                words.code(self.baseline), words.interval_text("target", gain)
            )
        return Markup("it needs {} as many of them").format(words.interval_text("target", inverse(gain) or gain))

    def _shares(self, first: str) -> Markup | None:
        rival = self.baseline if self.baseline != first else None
        names = [first, *([rival] if rival else [])]
        if any(self.facts[name]["waiting"] is None for name in names):
            return None
        parts = [
            Markup("{} wait {} % of their time{}").format(
                words.code(name),
                percent(self.facts[name]["waiting"]),
                f" and waste {percent(self.facts[name]['wasted'])} %" if self.facts[name]["wasted"] else "",
            )
            for name in names
        ]
        return Markup("Workers of {}.").format(Markup(", those of ").join(parts))

    def _quickest(
        self, first: str, alike: Sequence[str], against: Mapping[str, Mapping[str, Any] | None]
    ) -> Markup | None:
        """Shortest iterations are not the soonest target."""
        known = {spec: told["iteration_length"] for spec, told in self.facts.items() if told["iteration_length"]}
        if self.summary["kind"] == "timing" or not known:
            return None
        quick = min(known, key=lambda spec: known[spec])
        if quick == first or quick in alike or against.get(quick) is None:
            return None
        shorter = self._over(first)[quick]["iteration_ratio"]
        if shorter is None or shorter["low"] is None or shorter["low"] <= 1:
            return None
        return Markup(
            "{} has the shortest iterations ({} s, {} times shorter than {}) but learns less in each."
        ).format(words.code(quick), digits(known[quick]), interval_text(shorter), words.code(first))
