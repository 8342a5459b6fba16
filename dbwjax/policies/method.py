"""What a method tells about itself: one row of the table `POLICIES`.

Each method's file ends in its own rows, `METHODS = (Method(...), ...)`; `table.py` joins them. A builder's keyword-only
parameters are the keys of its SPEC. Rules that have only one barrier by nature still take `barrier=`, to refuse the
other with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from jaxtyping import PyTree

from dbwjax import specs
from dbwjax.limits import shown
from dbwjax.network.weights import WEIGHTS, Weights, metropolis
from dbwjax.policies.papers import Paper
from dbwjax.types import Graph, Policy

Barrier = Literal["global", "neighbours"]

Mixing = Literal["doubly", "row", "column"]
"""Which sums of a mixing matrix are one: rows and columns (with symmetric weights), rows only, or columns only."""


FAMILIES = {
    "gossip": "neighbours average once in an iteration",
    "neighbours": "each worker mixes with its neighbours at its own pace",
    "pairwise": "one or two workers at a time",
    "directed": "messages of one direction, with push-sum",
    "server": "workers push to a server, and pull from it",
}
"""Who moves parameters to whom, in the order of tables."""

MIXINGS: dict[Mixing, str] = {"doubly": "rows and columns", "row": "rows", "column": "columns"}
"""What sums to one, in words."""


class Method(NamedTuple):
    """One row of the table."""

    name: str
    build: Callable[..., Policy]  # keyword-only parameters: the keys of the SPEC
    summary: str  # one line
    papers: tuple[Paper, ...]
    family: str  # one of FAMILIES
    mixing: Mixing
    absence: str  # one line: what becomes of the method while a worker is away, and whether it can go on
    idealised: Mapping[str, str] = {}  # settings, as typed, that no cluster could realise, and why
    notes: Callable[[Graph, PyTree], list[str]] | None = None  # (graph, state) -> what a user should know of the two

    @property
    def paper(self) -> str:
        """The papers in a line."""
        return "; ".join(paper.short for paper in self.papers)

    @property
    def bibtex(self) -> str:
        """A BibTeX entry for each of the papers."""
        return "\n\n".join(paper.bibtex for paper in self.papers)


def build_weights(weights: Weights | str | None) -> Weights:
    """Mixing weights: those given, those that a name stands for (a SPEC's `weights=`), or Metropolis.

    Raises:
      ValueError: an unknown name, or what is no weights.
    """
    if weights is None:
        return metropolis()
    if isinstance(weights, str):
        return specs.build(weights, WEIGHTS, "weights")
    if not isinstance(weights, Weights):
        called = f"; call it, as in {weights.__name__}()" if hasattr(weights, "__name__") else ""
        raise ValueError(f"weights={shown(weights)} are no weights{called}; names are {', '.join(WEIGHTS)}")
    return weights


def only_global(barrier: Barrier) -> None:
    """Raises `ValueError` unless the barrier is the global one."""
    if barrier != "global":
        raise ValueError(
            "barrier=neighbours does not fit: this rule ends the iteration for everybody; leave barrier= out"
        )
