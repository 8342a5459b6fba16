"""The tables and paragraphs of `docs/all-methods.md`, from what is kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import all_methods_kept as kept
from benchmarks import rule_table
from benchmarks.all_methods_figures import Cell, cells, ranking, shares
from benchmarks.all_methods_settings import BASELINE, BEYOND, FIXED, MNIST, ORACLES, RATES, Scale, method_of, rows_of
from benchmarks.all_methods_words import WHY
from benchmarks.rule_table import lines
from dbwjax.policies import POLICIES
from dbwjax.report.digits import digits, interval_text
from dbwjax.report.intervals import LEVEL

PAGE = Path(__file__).parents[1] / "docs" / "all-methods.md"
LABEL = 0.9
"""Accuracy that nobody reaches without the label that worker 0 alone holds: a tenth of the test samples have it."""


def updated(page: str, folder: Path = kept.FOLDER) -> str:
    """The page with the tables of a folder in their place."""
    return rule_table.updated(page, folder, lambda where: generated(Path(where)))


def generated(folder: Path = kept.FOLDER, scale: Scale | None = None, images: Scale = MNIST) -> str:
    """All that is made of results."""
    scale, every = scale or Scale(), rows_of()
    found = cells(every, scale, folder)
    order = ranking(found)
    if BASELINE not in order:
        return f"Not measured yet: `python -m benchmarks.all_methods` (the row `{BASELINE}` is the first to measure)."
    parts = [
        _measured(every, order, scale, folder),
        "### All settings",
        _overview(found, order),
        *(part for cell in found for part in _setting(cell)),
        "### Each method",
        *(_paragraph(spec, found, order) for spec in order),
        *_images(order, images, folder),
    ]
    return "\n\n".join(parts)


def _measured(every: Sequence[str], order: Sequence[str], scale: Scale, folder: Path) -> str:
    entries = [kept.facts(folder, spec, part, scale) for spec in order for part in ("tuning", "test")]
    commits = sorted({entry["commit"] for entry in entries})
    missing = [f"`{spec}`" for spec in every if spec not in order]
    oracles = [f"`{name}`" for name in POLICIES if name in ORACLES]
    said = [
        f"{len(order)} rows, measured {min(entry['date'] for entry in entries)} to "
        f"{max(entry['date'] for entry in entries)}, commits {', '.join(commits)}, in "
        f"{math.fsum(entry['cpu_seconds'] for entry in entries) / 60:.0f} minutes of CPU."
    ]
    if missing:
        said.append(f"Not measured yet: {', '.join(missing)}.")
    if oracles:
        said.append(f"Not run, because they need an exact oracle (see `docs/convex.md`): {', '.join(oracles)}.")
    return " ".join(said)


def _overview(found: Sequence[Cell], order: Sequence[str]) -> str:
    groups = [(cell.fastest(), cell.most_accurate()) for cell in found]
    body = []
    for place, spec in enumerate(order, 1):
        own = [
            _marked(_ratio(cell, spec), spec in fast, spec in right)
            for cell, (fast, right) in zip(found, groups, strict=True)
        ]
        body.append([str(place), f"`{spec}`", *own])
    numbers = [str(number) for number in range(1, len(found) + 1)]
    legend = "\n".join(f"{number}. {_title(cell)}" for number, cell in zip(numbers, found, strict=True))
    about = (
        f"`{BASELINE}`'s time to the target over the row's, with its {100 * LEVEL:.0f} % interval; above 1 the row is "
        "faster. In brackets, in how many worlds the target was reached, where not in all. **Bold**: no row is faster, "
        "at the simultaneous level. ^: no row is more accurate at the end, at that level."
    )
    return f"{legend}\n\n{about}\n\n{lines(['', 'row', *numbers], body)}"


def _title(cell: Cell) -> str:
    data = "IID" if cell.data == "iid" else "the slow worker alone holds a label"
    return f"{data}, {cell.law} delays, target {cell.scale.target(cell.data):g}"


def _marked(text: str, fast: bool, right: bool) -> str:
    return (f"**{text}**" if fast else text) + ("^" if right else "")


def _ratio(cell: Cell, spec: str) -> str:
    reached = sum(time.reached for time in cell.times(spec))
    shown = "1" if spec == BASELINE else interval_text(cell.ratio(spec, over=BASELINE))
    return shown if reached == len(cell.draws) else f"{shown} ({reached} of {len(cell.draws)})"


def _setting(cell: Cell) -> list[str]:
    """The table of one setting."""
    alone, many = cell.data != "iid", len(cell.draws)
    body = []
    for spec in cell.order:
        test, spent = cell.test[spec], shares(cell.test[spec])
        late = [sum(time.reached for time in cell.times(spec, LABEL))] if alone else []
        gap = "-" if spec == BASELINE else _signed(cell.ahead(spec, over=BASELINE))
        body.append(
            [
                f"`{spec}`",
                _rate(cell.rates[spec]),
                _seconds(cell.times(spec)),
                f"{math.fsum(cell.accuracies(spec)) / many:.3f}",
                gap,
                *(f"{count} of {many}" for count in late),
                *_at_fixed(cell, spec),
                f"{100 * spent['wasted']:.0f}",
                f"{100 * spent['waiting']:.0f}",
                digits(spent["bytes_sent"] / 1e6),
                f"{spent['step']:.0f}",
                f"{spent['gradients']:.0f}",
            ]
        )
        assert len(test) == many
    titles = [
        "row",
        "rate",
        f"s to {cell.scale.target(cell.data):g}",
        f"accuracy at {cell.scale.seconds:g} s",
        f"less `{BASELINE}`'s",
        *([f"reached {LABEL:g}"] if alone else []),
        f"s at rate {FIXED:g}",
        f"accuracy at rate {FIXED:g}",
        "% wasted",
        "% waiting",
        "MB sent",
        "iterations",
        "gradients",
    ]
    return [f"### {_title(cell)[0].upper()}{_title(cell)[1:]}", lines(titles, body)]


def _rate(rate: float) -> str:
    return f"{rate:g}" + (" (edge)" if rate in (RATES[0], RATES[-1]) else "")


def _seconds(times: Sequence) -> str:
    """The geometric mean; "more than" where a world did not reach it, and in how many it was."""
    reached = sum(time.reached for time in times)
    mean = math.exp(math.fsum(math.log(time.seconds) for time in times) / len(times))
    if reached == len(times):
        return f"{mean:.1f}"
    return f"> {math.floor(10 * mean + 1e-9) / 10:.1f} ({reached} of {len(times)})"


def _signed(interval: dict) -> str:
    if interval["estimate"] is None:
        return "-"
    return f"{interval['estimate']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def _at_fixed(cell: Cell, spec: str) -> list[str]:
    other = cell._replace(test=cell.fixed)
    return [_seconds(other.times(spec)), f"{math.fsum(other.accuracies(spec)) / len(cell.draws):.3f}"]


def _paragraph(spec: str, found: Sequence[Cell], order: Sequence[str]) -> str:
    """A method in a paragraph: what the tables say of it, and why."""
    method = POLICIES[method_of(spec)]
    places = [cell.order.index(spec) + 1 for cell in found]
    spent = [shares(cell.test[spec]) for cell in found]
    wasted, waiting = (
        (min(one[name] for one in spent), max(one[name] for one in spent)) for name in ("wasted", "waiting")
    )
    said = [
        f"**`{spec}`** ({method.family}; {method.summary}).",
        f"Place {_span(places)} of {len(order)}.",
        _against(spec, found, len(order)),
        _learned(spec, found),
        _rates(spec, found),
        f"Of all worker seconds {_percent(wasted)} are wasted and {_percent(waiting)} waited.",
    ]
    return " ".join([*(one for one in said if one), *([WHY[spec]] if spec in WHY else [])])


def _rates(spec: str, found: Sequence[Cell]) -> str:
    """Which rates were chosen, and what an edge of the grid hides."""
    each = sorted({cell.rates[spec] for cell in found})
    rates = f"Rate {each[0]:g}" if len(each) == 1 else f"Rates from {each[0]:g} to {each[-1]:g}"
    edge = [cell for cell in found if cell.rates[spec] in BEYOND]
    if not edge:
        return f"{rates}."
    tried = [cell.outward[spec] for cell in edge if spec in cell.outward]
    said = f"{rates}, at the grid's edge in {len(edge)} of {len(found)} settings"
    if len(tried) < len(edge):
        return f"{said}."
    if not any(tried):
        return f"{said}; the next rate outward did no better in the tuning worlds."
    better = f"in {sum(tried)} of them the next rate outward did better in the tuning worlds"
    return f"{said}; {better}, so it is shown below its best."


def _against(spec: str, found: Sequence[Cell], rows: int) -> str:
    if spec == BASELINE:
        return "The row over which ratios are taken."
    counts = Counter(cell.against(spec, (rows - 1) * len(found)) for cell in found)
    words = {
        "faster": "faster than `{}` in",
        "slower": "slower in",
        "equal": "not told apart from it in",
        "none": "without a ratio in",
    }
    parts = [f"{text.format(BASELINE)} {counts[name]}" for name, text in words.items() if counts[name]]
    if not counts["faster"]:
        parts[0] = (
            parts[0].replace("from it", f"from `{BASELINE}`").replace("slower in", f"slower than `{BASELINE}` in")
        )
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]} of {len(found)} settings, at the simultaneous level."


def _learned(spec: str, found: Sequence[Cell]) -> str:
    """Whether the label that worker 0 alone holds was learned."""
    alone = [cell for cell in found if cell.data != "iid"]
    reached = sum(time.reached for cell in alone for time in cell.times(spec, LABEL))
    worlds = sum(len(cell.draws) for cell in alone)
    best = max(math.fsum(cell.accuracies(spec)) / len(cell.draws) for cell in alone)
    if not reached:
        return f"With the slow worker's label it reaches {LABEL:g} in no world (mean accuracy at most {best:.3f})."
    return f"With the slow worker's label it reaches {LABEL:g} in {reached} of {worlds} worlds."


def _percent(ends: tuple[float, float]) -> str:
    low, high = (f"{100 * end:.0f}" for end in ends)
    return f"{low} %" if low == high else f"{low} to {high} %"


def _span(places: Sequence[int]) -> str:
    return f"{min(places)}" if min(places) == max(places) else f"{min(places)} to {max(places)}"


def _images(order: Sequence[str], scale: Scale, folder: Path) -> list[str]:
    best = list(order[: scale.best])
    found = cells(best, scale, folder)
    measured = [spec for spec in best if spec in found[0].test]
    if not measured:
        return ["### MNIST", "Not measured yet: the command leaves MNIST out where it is not prepared."]
    missing = [f"`{spec}`" for spec in best if spec not in measured]
    body = [
        [
            f"`{spec}`",
            *(
                text
                for cell in found
                for text in (
                    _rate(cell.rates[spec]),
                    _seconds(cell.times(spec)),
                    f"{math.fsum(cell.accuracies(spec)) / len(cell.draws):.3f}",
                )
            ),
        ]
        for spec in sorted(measured, key=ranking(found).index)
    ]
    titles = [
        f"{name}, {'IID' if cell.data == 'iid' else 'one label'}"
        for cell in found
        for name in ("rate", f"s to {scale.target(cell.data):g}", f"accuracy at {scale.seconds:g} s")
    ]
    about = (
        f"The best {scale.best} rows on digits, on MNIST ({scale.pca} principal components, two hidden layers of 256, "
        f"{scale.laws[0]} delays, {scale.tests:,} test images, {scale.rows} rows in {scale.seconds:g} s, "
        f"{scale.worlds} worlds, rates from {scale.tuning} tuning worlds). "
        "Means over the worlds, without intervals: they show that these rows learn another task, and rank nothing."
        + (f" Not measured yet: {', '.join(missing)}." if missing else "")
    )
    return ["### MNIST", about, lines(["row", *titles], body)]
