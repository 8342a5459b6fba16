"""The tables of methods in README, docs/methods.md and docs/world.md, made from the rows of `POLICIES`.

`python -m tests.methods` writes those of docs/; `python -m tests.methods --readme` prints README's table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dbwjax import specs
from dbwjax.policies import FAMILIES, MIXINGS, POLICIES, Method, by_family
from tests.readme import ROOT

PAGE = ROOT / "docs" / "methods.md"
WORLD = ROOT / "docs" / "world.md"
ABSENCES = "<!-- absences: made by `python -m tests.methods` -->"

FIRST = {
    "dybw": "delays change from one computation to the next, and you cannot say how many to wait for",
    "fastest": "you can say how many workers to wait for (`fastest:k=6`)",
    "full": "you need a baseline; `full:barrier=neighbours` is the stronger one",
    "backup": "all workers have like data; with one that is always slow, `gap=inf`",
    "dpsgd": "messages take long: they travel while workers compute",
    "adpsgd": "nobody may wait, and stale updates do no harm",
    "sgp": "messages go one way",
    "server_backup": "you have a server, and late updates may be lost",
    "async_server": "you have a server, and stale updates do no harm",
}
"""What README shows: those that people ask for first, and when to use each; measured in docs/which-rule.md."""

ABOUT = """# Methods

Made from the methods' own rows by `python -m tests.methods`. A SPEC is `name` or `name:key=value,key=value`. The keys
below have their defaults; a value in capitals must be given. `dbwjax.citation("dybw")` is the BibTeX of a method's
papers.

"Sums to one" is what is promised of every mixing matrix. Where rows and columns do, the mean of all workers is kept.
Where rows do, a worker that is heard more often counts for more. Where columns do, the sum is kept, and push-sum's mass
makes it a mean.

## Before you compare

- **Learning rates are not alike.** One update moves the mean of N workers by 1/N of it. It moves a server
  (`async_server`, `ssp`, and the token) by the whole of it: at one `--learning-rate`, N times as far for a gradient.
  `weight=mean` takes 1/N. `server`, `k_sync` and `k_batch_*` take means of k. Tune each method's rate
  (`compare_cells`, or a sweep over `--learning-rates`) before you say that one is faster.
- **The model** that is evaluated is the mean of all workers, or the server's (the token's) own at the moment of the
  row.
- **Without a learning rate.** `dual_averaging` reads its own `alpha=`, and `admm`, `ssda`, `msda`, `mspd` and `encoded`
  take their steps from the task: `--learning-rate` and `--optimizer` do not reach them. Those five need whole
  objectives ([convex tasks](convex.md)).
- **Optimisers** are the workers': a server adds the updates that workers made of their gradients. With plain SGD that
  is the paper's rule; momentum and Adam keep their state at the worker.
- **Size of messages.** Under a finite `--bandwidth` a method's messages take as long as they are large: those of
  `choco` are smaller than parameters, those of `tracking` larger. A `Graph` given in Python has the latencies that it
  has.
- **Latency.** A server is as far from a worker as that worker's neighbours are on average. `adpsgd`, `token`, `hop`,
  `sgp` and all of the gossip family follow the links of the graph. `randomized_gossip`, `acid`, `swift`, `agp` and
  `prague` take none, and say so.
- **Links.** Servers and `prague` ignore the graph, and `sgp:graph=exponential` and `one_peer` bring their own.
- **Staleness** is counted in updates of the whole model, as the papers on asynchronous SGD count it: of `adpsgd`
  about N - 1.

Each method's file in `dbwjax/policies/` states its rule, where it was read or recalled, and every choice that is
ours. Each has a second telling in plain NumPy with an event queue, `tests/reference/`, with which it agrees to 1e-12.
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


def world_page() -> str:
    """docs/world.md, with its table of what each method does while a worker is away."""
    text = WORLD.read_text()
    before, found, _ = text.partition(ABSENCES)
    rows = [(f"`{name}`", method.absence) for methods in by_family().values() for name, method in methods.items()]
    return before + found + "\n\n" + table(("method", "while a worker is away"), rows) + "\n"


def readme() -> str:
    """README's table."""
    rows = [(f"`{name}`", POLICIES[name].summary, use) for name, use in FIRST.items()]
    return table(("rule", "what it does", "use it when"), rows)


def main(words: list[str]) -> int:
    """Writes the pages, or prints README's table."""
    if words == ["--readme"]:
        print(readme())
    else:
        PAGE.write_text(page())
        WORLD.write_text(world_page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
