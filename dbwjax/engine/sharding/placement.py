"""Where the rows of the stack are: the few operations of a step that depend on it.

The learner is written once. What it asks of a `Placement` is trivial where one device holds all rows (`Whole`) and
communication where each holds a part (`parallel.Part`). Vectors over nodes (`started`, `mass`, a plan's fields) are
whole on every device; only the stacks of parameters, optimiser states and starting points are cut.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine.mixing import apply_plan, weighted, write_rows
from dbwjax.types import Plan, StepRecord


class Placement(Protocol):
    """What a step asks. `n` rows of the stack are here; `L` are everywhere, `L >= N`."""

    def numbers(self, nodes: int) -> Array:
        """`[n]` the node in each row here."""

    def mine(self, vector: Array) -> Array:
        """`[N, ...]` by node to `[n, ...]` by row here."""

    def mine_once(self, vector: Array) -> Array:
        """As `mine`, but 0 in rows that only pad, so that no node counts twice."""

    def of_nodes(self, vector: Array | None, nodes: Array | None) -> Any:
        """Entries of `vector [N]` for some nodes (`None`: for the rows here)."""

    def local(self, nodes: Array) -> Array:
        """`[K]` where nodes lie among the rows here; `n` for those that do not."""

    def take(self, tree: PyTree, nodes: Array | None) -> PyTree:
        """Rows of some nodes, `[K, ...]` on every device; `None`: the rows here, as they are."""

    def put(self, tree: PyTree, nodes: Array | None, rows: PyTree) -> PyTree:
        """`tree` with `rows [K, ...]` written where their nodes are here; `None`: `rows` itself."""

    def everyone(self, tree: PyTree) -> PyTree:
        """`[n, ...]` by row here to `[N, ...]` by node on every device; for small things."""

    def apply(self, plan: Plan, params: PyTree, updates: PyTree) -> PyTree:
        """The rows here after the step, as `mixing.apply_plan` says."""

    def mixed(self, plan: Plan, tree: PyTree) -> PyTree:
        """`mix @ tree` for the rows here, at least float32, of a plan that writes all rows."""

    def total(self, tree: PyTree) -> PyTree:
        """The sum over devices of what each has of rows here."""

    def checked(self, plan: Plan, record: StepRecord) -> StepRecord:
        """The record, `unreachable` where the plan reads a row that the placement does not move."""


class Whole:
    """All rows on one device."""

    def numbers(self, nodes: int) -> Array:  # noqa: D102
        return jnp.arange(nodes)

    def mine(self, vector: Array) -> Array:  # noqa: D102
        return vector

    def mine_once(self, vector: Array) -> Array:  # noqa: D102
        return vector

    def of_nodes(self, vector: Array | None, nodes: Array | None) -> Any:  # noqa: D102
        return vector if vector is None or nodes is None else vector[nodes]

    def local(self, nodes: Array) -> Array:  # noqa: D102
        return nodes

    def take(self, tree: PyTree, nodes: Array | None) -> PyTree:  # noqa: D102
        return tree if nodes is None else jax.tree.map(lambda leaf: leaf[nodes], tree)

    def put(self, tree: PyTree, nodes: Array | None, rows: PyTree) -> PyTree:  # noqa: D102
        return write_rows(nodes, tree, rows)

    def everyone(self, tree: PyTree) -> PyTree:  # noqa: D102
        return tree

    def apply(self, plan: Plan, params: PyTree, updates: PyTree) -> PyTree:  # noqa: D102
        return apply_plan(plan, params, updates)

    def mixed(self, plan: Plan, tree: PyTree) -> PyTree:  # noqa: D102
        return jax.tree.map(lambda leaf: weighted(plan.mix, plan.sources, leaf), tree)

    def total(self, tree: PyTree) -> PyTree:  # noqa: D102
        return tree

    def checked(self, plan: Plan, record: StepRecord) -> StepRecord:  # noqa: D102
        return record


WHOLE = Whole()
