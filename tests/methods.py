"""The tables of methods in README and in docs/methods.md, made from the rows of `POLICIES`.

`python -m tests.methods` writes docs/methods.md; `python -m tests.methods --readme` prints README's table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dbwjax import specs
from dbwjax.policies import FAMILIES, MIXINGS, POLICIES, Method, by_family
from tests.readme import ROOT

PAGE = ROOT / "docs" / "methods.md"

FIRST = ("dybw", "full", "backup", "dpsgd", "server_backup", "async_server", "ssp", "adpsgd", "sgp")
"""What README shows: those that people ask for first, where there are such."""

ABOUT = """# Methods

Made from the methods' own rows by `python -m tests.methods`. A SPEC is `name` or `name:key=value,key=value`. The keys
below have their defaults; a value in capitals must be given. `dbwjax.citation("dybw")` is the BibTeX of a method's
papers.

"Sums to one" is what is promised of every mixing matrix. Where rows and columns do, the mean of all workers is kept.
Where rows do, a worker that is heard more often counts for more. Where columns do, the sum is kept, and push-sum's mass
makes it a mean.
"""


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def page() -> str:
    """docs/methods.md."""
    parts = [ABOUT]
    for family, methods in by_family().items():
        rows = [row(name, method) for name, method in methods.items()]
        head = ("SPEC", "what it does", "sums to one", "paper")
        parts.append(f"## {family.capitalize()}: {FAMILIES[family]}\n\n{table(head, rows)}\n")
    return "\n".join(parts)


def row(name: str, method: Method) -> tuple[str, str, str, str]:
    """A method's cells in docs/methods.md."""
    return f"`{specs.describe(name, method.build)}`", method.summary, MIXINGS[method.mixing], method.paper


def readme() -> str:
    """README's table."""
    rows = [(f"`{name}`", POLICIES[name].summary, POLICIES[name].paper) for name in FIRST if name in POLICIES]
    return table(("SPEC", "what it does", "paper"), rows)


def main(words: list[str]) -> int:
    """Writes the page, or prints README's table."""
    if words == ["--readme"]:
        print(readme())
    else:
        PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
