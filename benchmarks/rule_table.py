"""The tables of `docs/which-rule.md`, from the part `which_rule` of a result file.

python -m benchmarks.which_rule               prints them
python -m benchmarks.which_rule --write       puts them into docs/which-rule.md
... FILE                                      of another result file than results/cpu-2-cores.json
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import results
from dbwjax.report.digits import interval_text

PAGE = Path(__file__).parents[1] / "docs" / "which-rule.md"
FILE = results.FOLDER / "cpu-2-cores.json"
MISSING = "Not measured yet: `python -m benchmarks which_rule`, then `python -m benchmarks.which_rule --write`."
_PLACE = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", flags=re.DOTALL)


def tables(file: str | Path = FILE) -> str:
    """The tables in Markdown; `MISSING` where the file has no such part.

    Raises:
      ValueError: not a result file.
    """
    entry = results.load(file)["parts"].get("which_rule")
    if entry is None:
        return MISSING
    settings = {name: found for name, found in entry["figures"].items() if name not in ("pairs", "speed-up")}
    worlds = 2 if entry["quick"] else 10
    said = f"Measured {entry['date']}, commit {entry['commit']}, {worlds} worlds a setting" + ", quick" * entry["quick"]
    return "\n\n".join(
        [
            f"{said}.",
            "\n".join(f"{number}. {name}" for number, name in enumerate(settings, 1)),
            "`full`'s time to the target over the rule's, with its 95 % interval; above 1 the rule is faster. Behind, "
            "in how many worlds the target was reached, where not in all.",
            _table(settings, lambda facts: _ratio(facts, worlds)),
            "The second rule's time to the target over the first's, in the same worlds; above 1 the first is faster.",
            _pairs(entry["figures"]["pairs"], worlds),
            "Seconds to the target: geometric mean over worlds, where all reached it.",
            _table(settings, lambda facts: number(facts["time to target"], ".1f")),
            "Test accuracy of the mean model when the time is up.",
            _table(settings, lambda facts: number(facts["accuracy at T"], ".3f")),
            "Mean seconds of an iteration.",
            _table(settings, lambda facts: number(facts["iteration length"], ".2f")),
            _speed_up(entry["figures"]["speed-up"]),
        ]
    )


def updated(page: str, file: str | Path = FILE, made: Callable[[str | Path], str] = tables) -> str:
    """The page with the tables of a result file in their place.

    Raises:
      ValueError: the page has no single place for them.
    """
    found, places = _PLACE.subn(lambda at: f"{at[1]}{made(file)}\n{at[2]}", page)
    if places != 1:
        raise ValueError(f"the page has {places} places for the tables; mark one by <!-- table --> and <!-- /table -->")
    return found


def _table(settings: dict[str, Any], show: Any) -> str:
    rules = list(next(iter(settings.values())))
    cells = [[f"`{rule}`", *(show(found[rule]) for found in settings.values())] for rule in rules]
    return lines(["rule", *map(str, range(1, len(settings) + 1))], cells)


def _pairs(found: dict[str, Any], worlds: int) -> str:
    cells = [
        [" over ".join(f"`{rule}`" for rule in pair.split(" over ")), *(_ratio(facts, worlds) for facts in of.values())]
        for pair, of in found.items()
    ]
    return lines(["pair", *map(str, range(1, len(cells[0])))], cells)


def _speed_up(found: dict[str, Any]) -> str:
    counts = next(iter(found.values()))["workers"]
    cells = [
        [
            f"`{rule}`",
            *(f"{steps:.0f}, {time:.0f} s" for steps, time in zip(of["iterations"], of["seconds"], strict=True)),
            f"{of['slope of iterations']:.2f}",
            f"{of['slope of seconds']:.2f}",
        ]
        for rule, of in found.items()
    ]
    titles = ["rule", *(f"N = {count}" for count in counts), "slope, iterations", "slope, seconds"]
    about = (
        "Iterations and seconds to a fixed suboptimality on N workers, and the slopes of their logarithms over that of "
        "N; a linear speed-up has -1."
    )
    return f"{about}\n\n{lines(titles, cells)}"


def lines(titles: list[str], cells: list[list[str]]) -> str:
    """A table in Markdown."""
    rows = [titles, ["---"] * len(titles), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _ratio(facts: dict[str, Any], worlds: int) -> str:
    if facts["bound"] is None and facts["ratio"] is None:
        shown = "-"
    else:
        shown = interval_text({"estimate": facts["ratio"], **{name: facts[name] for name in ("low", "high", "bound")}})
    return shown if facts["reached"] == worlds else f"{shown} ({facts['reached']} of {worlds})"


def number(value: float | None, form: str) -> str:
    """A number, or "-"."""
    return "-" if value is None else f"{value:{form}}"


def main(words: list[str]) -> int:
    """Prints the tables, or writes them into the page."""
    return show_or_write(words, tables, PAGE)


def show_or_write(words: list[str], made: Callable[[str | Path], str], page: Path) -> int:
    """`main` of a page's tables."""
    write = "--write" in words
    files = [word for word in words if word != "--write"]
    try:
        if len(files) > 1:
            raise ValueError(f"'{files[1]}' is one word too many; give one result file")
        file = Path(files[0]) if files else FILE
        if not write:
            print(made(file))
            return 0
        page.write_text(updated(page.read_text(), file, made))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
