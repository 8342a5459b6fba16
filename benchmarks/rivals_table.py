"""The tables of `docs/rivals.md`, from the part `rivals` of a result file.

python -m benchmarks.rivals               prints them
python -m benchmarks.rivals --write       puts them into docs/rivals.md
... FILE                                  of another result file than results/cpu-2-cores.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import results, rule_table
from dbwjax.report.table import interval_text

PAGE = Path(__file__).parents[1] / "docs" / "rivals.md"
FILE = results.FOLDER / "cpu-2-cores.json"
MISSING = "Not measured yet: `python -m benchmarks rivals`, then `python -m benchmarks.rivals --write`."
HEAD = (
    *("method", "rate", "to target [s]", "dybw's time over its", "reached", "accuracy at T", "gradients [1/s]"),
    *("stale", "sent [MB/s]", "wasted [%]", "waiting [%]"),
)


def tables(file: str | Path = FILE) -> str:
    """The tables in Markdown; `MISSING` where the file has no such part.

    Raises:
      ValueError: not a result file.
    """
    entry = results.load(file)["parts"].get("rivals")
    if entry is None:
        return MISSING
    worlds = 2 if entry["quick"] else 10
    said = f"Measured {entry['date']}, commit {entry['commit']}, {worlds} worlds a setting" + ", quick" * entry["quick"]
    parts = [f"{said}."]
    for name, found in entry["figures"].items():
        ranked = sorted(found.items(), key=_rank)
        parts += [f"### {name.capitalize()}", rule_table.lines(list(HEAD), [_cells(*one, worlds) for one in ranked])]
    return "\n\n".join(parts)


def _rank(item: tuple[str, Any]) -> tuple[float, float]:
    time, accuracy = item[1]["time to target"], item[1]["accuracy at T"]
    return (float("inf") if time is None else time, -(accuracy or 0.0))


def _cells(name: str, facts: dict[str, Any], worlds: int) -> list[str]:
    ratio = None if facts["estimate"] is None else {key: facts[key] for key in ("estimate", "low", "high", "bound")}
    at_end = "*" if facts["at the end of the rates"] else ""
    sent = facts["bytes_per_second"]
    shares = [None if facts[kind] is None else 100 * facts[kind] for kind in ("wasted", "waiting")]
    return [
        f"`{name}`",
        f"{facts['learning rate']:g}{at_end}",
        rule_table.number(facts["time to target"], ".1f"),
        interval_text(ratio),
        f"{facts['reached']} of {worlds}",
        rule_table.number(facts["accuracy at T"], ".3f"),
        rule_table.number(facts["gradients_per_second"], ".2f"),
        rule_table.number(facts["staleness"], ".1f"),
        rule_table.number(None if sent is None else sent / 1e6, ".3f"),
        *(rule_table.number(share, ".0f") for share in shares),
    ]


def main(words: list[str]) -> int:
    """Prints the tables, or writes them into the page."""
    return rule_table.show_or_write(words, tables, PAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
