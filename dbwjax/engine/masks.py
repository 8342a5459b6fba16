"""What a step carries in a world that breaks: a plan from which everything is taken that does not arrive.

Between two nodes nothing is carried where one of them is away when the step ends, whether or not that is known; where a
partition is between them; or where what the link carries in the step is lost. Loss is by link and step, in both
directions together. Nobody waits longer for a message that is lost than for one that arrives.

What does not arrive stays where the row is: a row takes its weight from itself, so rows sum to one as before, and under
symmetric masks symmetric weights stay symmetric. Under push-sum it stays with the sender, which learns of the loss:
columns sum to one as before, and nothing of the sums of x and of mass is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dbwjax.network import draws
from dbwjax.types import Events, Key, Plan

Between = Callable[[Array, Array], Array]
"""`(one, other) -> bool`, of node numbers of shapes that broadcast."""


class Carries(NamedTuple):
    """What is carried in a step. Nodes beyond the workers are one machine, which is never away."""

    gone: Bool[Array, " N"]  # who is away when the step ends
    away: Bool[Array, " N"]  # whom the step was decided without
    parted: Between  # whether a partition is between two nodes
    loss: Float[Array, ""]
    key: Key  # of the step's losses
    workers: int  # how many nodes are workers
    housed: Callable[[Array, int], Array] | None = None  # as of `Policy`

    def machine(self, node: Array) -> Array:
        """The number of the worker, or of the first further node, whose machine a node is on; -1: on none."""
        if self.housed is None:
            return jnp.minimum(node, self.workers)
        return jnp.where(node < self.workers, node, self.housed(node, self.workers))

    def __call__(self, one: Array, other: Array) -> Array:
        """Whether anything is carried between two nodes."""
        first, second = jnp.broadcast_arrays(self.machine(one), self.machine(other))
        lower, higher = jnp.minimum(first, second), jnp.maximum(first, second)
        bits = draws.words(self.key, lower, higher)[0] >> jnp.uint32(8)
        lost = bits.astype(self.loss.dtype) * 2.0**-24 < self.loss
        last = self.gone.shape[0] - 1
        here, there = jnp.clip(lower, 0, last), jnp.clip(higher, 0, last)
        away = self.gone | self.away
        arrives = ~(away[here] | away[there]) & ~self.parted(here, there) & ~lost
        return arrives | (lower == higher) | (lower < 0)


def step_key(losses: Key, step: Array) -> Key:
    """The key of a step's losses: one hash."""
    if jax.random.key_data(losses).shape != (2,):
        return jax.random.fold_in(losses, step)
    bits = jnp.stack(draws.words(losses, step, jnp.zeros((), jnp.int32)))
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(losses))


def parted(events: Events, time: Float[Array, ""]) -> Between:
    """Whether a partition is between two nodes at a time; `events` are `relative` and `fitted`."""
    lasts = (events.cut_from <= time) & (time < events.cut_until)

    def between(one: Array, other: Array) -> Array:
        apart = events.side[:, one] != events.side[:, other]
        return (apart & lasts.reshape(-1, *[1] * (apart.ndim - 1))).any(axis=0)

    return between


def masked(plan: Plan, carries: Carries, nodes: int, pushsum: bool = False) -> Plan:
    """The plan without what is not carried, and without those that it was decided without.

    Args:
      plan: of one step, any form.
      carries: between which nodes anything is carried.
      nodes: N.
      pushsum: whether columns sum to one, and not rows.
    """
    own = jnp.arange(nodes) if plan.rows is None else plan.rows
    rows = jnp.minimum(own, nodes - 1)[:, None]
    sources = jnp.arange(nodes)[None] if plan.sources is None else plan.sources
    arrives = carries(rows, sources) | (own[:, None] >= nodes)
    mix, taken = _columns(plan, arrives, nodes) if pushsum else _rows(plan, carries, arrives, rows)
    push = _pushed(plan, carries, rows, arrives, pushsum)
    away = carries.away
    fresh = plan.fresh & ~(away if plan.workers is None else away.at[plan.workers].get(mode="fill", fill_value=False))
    if push is not None and push.ndim == 2:  # what reaches nobody does not count
        assert plan.push is not None
        fresh = fresh & ((push != 0).any(axis=0) | ~(plan.push != 0).any(axis=0))
    return plan._replace(
        mix=mix,
        sources=taken,
        push=push,
        fresh=fresh,
        restart=_restarts(plan, away),
        active=None if plan.active is None else plan.active & ~away,
        received=None,
        heard=_heard(plan, carries, nodes, pushsum),
    )


def _rows(plan: Plan, carries: Carries, arrives: Array, rows: Array) -> tuple[Array, Array | None]:
    """`mix` and `sources` of which each row takes from itself what does not arrive (or from its first source, where
    that is beside it: its own message)."""
    if plan.sources is not None:
        first, own = plan.sources[:, :1], rows.astype(plan.sources.dtype)
        beside = (carries.machine(first) == carries.machine(rows)) & (carries.machine(rows) >= 0)
        return plan.mix, jnp.where(arrives, plan.sources, jnp.where(beside, first, own))
    lost = jnp.where(arrives, 0, plan.mix).sum(axis=1, keepdims=True)
    diagonal = jnp.arange(plan.mix.shape[1])[None] == rows
    return jnp.where(arrives, plan.mix, 0) + jnp.where(diagonal, lost, 0), None


def _columns(plan: Plan, arrives: Array, nodes: int) -> tuple[Array, Array | None]:
    """`mix` and `sources` of which each sender keeps what does not arrive. Its own row must be among those written, and
    its slot 0 be the row itself; a row of another node that gets nothing is left as it is by the weight of itself."""
    mix, rows = jnp.where(arrives, plan.mix, 0), plan.rows
    if plan.sources is None:
        return mix + jnp.diag(1 - mix.sum(axis=0)), None
    own = jnp.arange(nodes) if rows is None else rows
    written = jnp.where(own < nodes, 1, 0)
    sums = jnp.zeros(nodes, mix.dtype).at[plan.sources].add(mix * written[:, None])
    if rows is not None:
        sums = jnp.where(jnp.zeros(nodes, bool).at[rows].set(True, mode="drop"), sums, 1)
    kept = (1 - sums).at[own].get(mode="clip") * written
    sources = jnp.where(arrives, plan.sources, jnp.minimum(own, nodes - 1)[:, None].astype(plan.sources.dtype))
    return mix.at[:, 0].add(kept), sources


def _pushed(plan: Plan, carries: Carries, rows: Array, taken: Array, pushsum: bool) -> Array | None:
    """`push` of which no row takes an update that does not reach it: directly, or by way of the server.

    Args:
      plan, carries: as for `masked`.
      rows: `[R, 1]` node of each.
      taken: which sources arrive. Where the server's model does not, its updates do not either.
      pushsum: whether the sender keeps its update.
    """
    if plan.push is None or (plan.push.ndim == 1 and plan.pushers is None):
        return plan.push
    whose = jnp.arange(carries.gone.shape[0]) if plan.workers is None else plan.workers
    if plan.push.ndim == 1:
        assert plan.pushers is not None
        return jnp.where(carries(rows[:, 0], whose[plan.pushers]), plan.push, 0)
    sources = jnp.arange(plan.mix.shape[1])[None] if plan.sources is None else plan.sources
    served = (plan.mix != 0) & (carries.machine(sources) == carries.workers)
    receiver = jnp.where(served.any(axis=1, keepdims=True), carries.workers, rows)
    arrives = carries(receiver, whose[None]) & ~(served & ~taken).any(axis=1, keepdims=True)
    push = jnp.where(arrives, plan.push, 0)
    if not pushsum:
        return push
    lost = jnp.where(arrives, 0, jnp.broadcast_to(plan.push, arrives.shape)).sum(axis=0)
    return push + jnp.where(rows == whose[None], lost[None], 0)


def _restarts(plan: Plan, away: Array) -> Array:
    """`restart` of everybody, or of a mask, without those believed absent: their computations go on when they are back.
    Where a policy names one by its number, its next computation begins at its return."""
    if plan.restart is None:
        return ~away
    return plan.restart & ~away if plan.restart.dtype == bool else plan.restart


def _heard(plan: Plan, carries: Carries, nodes: int, pushsum: bool) -> Array | None:
    """`heard` without what did not reach the server; under push-sum counted from the mixing."""
    if plan.heard is None or pushsum:
        return None
    if carries.housed is not None or nodes == carries.workers:
        return plan.heard
    return jnp.where(carries(jnp.asarray(carries.workers), plan.heard), plan.heard, nodes)


def faults(plan: Plan, nodes: int, sums: str) -> tuple[Array, Array]:
    """The first row of a step's mixing whose weights do not sum to one, or column.

    Args:
      plan: of the step.
      nodes: N.
      sums: which are promised: `row`, `column`, or `doubly` for both.

    Returns:
      Its node, from 0 for rows and N more for columns, -1 where there is none; and the sum.
    """
    rows = jnp.arange(nodes) if plan.rows is None else plan.rows
    written = jnp.zeros(nodes, bool).at[rows].set(True, mode="drop")
    weights = jnp.where((rows < nodes)[:, None], plan.mix, 0)
    sources = jnp.broadcast_to(jnp.arange(nodes) if plan.sources is None else plan.sources, weights.shape)

    def totals(values: Array) -> tuple[Array, Array]:
        along = jnp.ones(nodes, values.dtype).at[rows].set(values.sum(axis=1), mode="drop")
        return along, jnp.where(written, 0, 1).astype(values.dtype).at[sources].add(values)

    kept = {"row": (0,), "column": (1,), "doubly": (0, 1)}[sums]
    total, large = totals(weights), totals(jnp.abs(weights))
    odd, found = [], []
    for place in (0, 1):
        slack = 64 * jnp.finfo(weights.dtype).eps * (1 + large[place])
        off = ~(jnp.abs(total[place] - 1) <= slack)  # NaN is off
        odd.append(off if place in kept else jnp.zeros_like(off))
        found.append(total[place])
    off, value = jnp.concatenate(odd), jnp.concatenate(found)
    first = jnp.argmax(off)
    return jnp.where(off.any(), first, -1).astype(jnp.int32), value[first]
