"""Where the seconds of a step went, and what else the clock alone says about it.

A worker computes from its restart to its finish, and waits from there to its next restart. A computation that is cut
short ends at that restart. It is *computing* if its update counted and *wasted* if it was thrown away. As much of the
wait as a message was in flight is *communicating*. The four add up to each worker's own time until its last restart.
Where workers are away, an absence is waiting, and an attempt that it cut short is wasted.

An *iteration* of a worker is a step where a step is of everybody, and otherwise from one restart to the next.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from dbwjax.engine import clock, masks, simulate
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.types import ClockState, Graph, Mixing, Plan, Policy, Tick


class Lost(NamedTuple):
    """A computation whose delay is no time."""

    worker: int
    computation: int  # of this worker, from 0
    seconds: float  # what was drawn for it


class Seconds(NamedTuple):
    """Of the computations that end in a step, by node or by entry of a numbered `restart`; 0 for the others."""

    ends: Array  # bool, whose computation ends
    used: Array  # bool, whether its update counted
    computing: Array
    wasted: Array
    waiting: Array
    communicating: Array


def tick_of(graph: Graph, plan: Plan, before: ClockState, spectrum: bool = False, reads_weights: bool = True) -> Tick:
    """What is recorded of a step.

    Args:
      graph: who hears whom.
      plan: what the policy decided.
      before: the clock before the step.
      spectrum: whether the mixing is kept.
      reads_weights: as of `simulate.received`.
    """
    nodes = graph.neighbours.shape[0]
    others = simulate.received(plan, reads_weights)
    event = clock.is_numbered(plan) and plan.workers is not None
    spent = seconds(graph, plan, before)
    common = {
        "duration": plan.duration,
        "ended": plan.ready if plan.workers is None else None,
        **{name: getattr(spent, name) for name in ("computing", "wasted", "waiting", "communicating")},
        "messages": others.sum(dtype=jnp.int32) if plan.messages is None else jnp.asarray(plan.messages, jnp.int32),
        "heard": heard(plan, nodes, numbered=event),
        "mixing": Mixing(plan.mix, plan.sources, plan.rows) if spectrum else None,
    }
    if event:
        return _event(graph, plan, before, spent, others, common)
    fresh = clock.fresh_nodes(plan, nodes)
    if plan.workers is not None:
        iterated: Any = spent.ends
    else:
        iterated = None if plan.updates is None else jnp.broadcast_to(plan.updates, (nodes,))
    active = fresh if plan.active is None else plan.active
    return Tick(
        nodes=None,
        iterated=iterated,
        active=active if plan.workers is None else spent.ends & spent.used,
        missed=_missed(graph, plan, others, jnp.arange(nodes)),
        counted=fresh,
        age=jnp.where(fresh, before.updates - before.born, 0),
        **common,
    )


def _event(graph: Graph, plan: Plan, before: ClockState, spent: Seconds, others: Array, common: dict) -> Tick:
    """Of a step in which a few compute and a few restart: entries for the one and the other."""
    workers, starts = plan.workers, plan.restart
    assert workers is not None
    assert starts is not None
    none, nobody = jnp.zeros(workers.shape[0], bool), jnp.zeros(starts.shape[0], bool)

    def late(values: Array) -> Array:
        return jnp.concatenate([jnp.zeros(workers.shape, values.dtype), values])

    age = before.updates - before.born.at[workers].get(mode="clip")
    return Tick(
        nodes=jnp.concatenate([workers, starts]).astype(jnp.int32),
        iterated=jnp.concatenate([none, spent.ends]),
        active=jnp.concatenate([none, spent.ends & spent.used]),
        missed=late(jnp.where(spent.ends, _missed(graph, plan, others, starts), 0)),
        counted=jnp.concatenate([plan.fresh, nobody]),
        age=jnp.concatenate([jnp.where(plan.fresh, age, 0), jnp.zeros(starts.shape, age.dtype)]),
        **{**common, **{name: late(common[name]) for name in ("computing", "wasted", "waiting", "communicating")}},
    )


def _missed(graph: Graph, plan: Plan, others: Array, whose: Array) -> Array:
    """`[E]` neighbours not heard by some nodes in a step; 0 where their row is not written."""
    if plan.backups is not None:
        return jnp.broadcast_to(jnp.asarray(plan.backups, jnp.int32), whose.shape)
    if plan.rows is None:
        return (graph.links.sum(axis=1, dtype=jnp.int32) - others).astype(jnp.int32)
    rows, nodes = plan.rows, graph.links.shape[0]

    def degree(some: Array) -> Array:  # of those alone: an event must not cost a pass over all links
        return graph.links.at[some].get(mode="clip").sum(axis=1, dtype=jnp.int32)

    if whose.shape[0] == nodes:
        missed = degree(rows) - others.astype(jnp.int32)
        return jnp.zeros(nodes, jnp.int32).at[rows].set(missed, mode="drop")
    same = rows[None, :] == whose[:, None]
    found = jnp.where(same, others[None, :].astype(jnp.int32), 0).sum(axis=1)
    return jnp.where(same.any(axis=1), degree(whose) - found, 0)


def heard(plan: Plan, nodes: int, numbered: bool = False) -> Array:
    """By how many others each node was heard in a step: `[N]`, or the numbers of those heard (N: nobody).

    Taking a node's parameters is hearing it, and so is taking its update.
    """
    if plan.heard is not None:
        return plan.heard if numbered else _counts(plan.heard, nodes)
    rows = jnp.arange(nodes) if plan.rows is None else plan.rows
    if plan.sources is None:
        counts = ((plan.mix != 0) & (rows[:, None] != jnp.arange(nodes)[None, :]) & (rows < nodes)[:, None]).sum(axis=0)
        return (counts + _pushed(plan, nodes)).astype(jnp.int32)
    taken = (plan.sources != rows[:, None]) & (plan.mix != 0) & (rows < nodes)[:, None]
    numbers = jnp.where(taken, plan.sources, nodes).reshape(-1)
    if not numbered or plan.workers is None:
        return _pushed(plan, nodes) + _counts(numbers, nodes)
    pushed = plan.fresh & (_others(plan, plan.workers, rows, nodes) > 0)
    return jnp.concatenate([numbers, jnp.where(pushed, plan.workers, nodes)]).astype(jnp.int32)


def _counts(numbers: Array, nodes: int) -> Array:
    return jnp.zeros(nodes, jnp.int32).at[numbers].add(1, mode="drop")


def _pushed(plan: Plan, nodes: int) -> Array:
    """`[N]` how many others took each node's update, where updates are pushed apart."""
    if plan.push is None or plan.push.ndim == 1:
        return jnp.zeros(nodes, jnp.int32)
    if plan.workers is None and plan.push.shape[0] == 1:
        return (plan.fresh & (plan.push[0] != 0)).astype(jnp.int32)  # by the one that passes it on
    workers = jnp.arange(nodes) if plan.workers is None else plan.workers
    rows = jnp.arange(nodes) if plan.rows is None else plan.rows
    counts = jnp.where(plan.fresh, _others(plan, workers, rows, nodes), 0)
    return jnp.zeros(nodes, jnp.int32).at[workers].add(counts, mode="drop")


def _others(plan: Plan, workers: Array, rows: Array, nodes: int) -> Array:
    """`[M]` how many rows of other nodes take each worker's update."""
    if plan.push is None or plan.push.ndim == 1:
        return jnp.zeros(workers.shape, jnp.int32)
    takes = (plan.push != 0) & (rows[:, None] != workers[None, :]) & (rows < nodes)[:, None]
    return takes.sum(axis=0, dtype=jnp.int32)


def seconds(graph: Graph, plan: Plan, before: ClockState) -> Seconds:
    """Where the time of the computations went that end in a step."""
    nodes = graph.neighbours.shape[0]
    fresh = before.counted | clock.fresh_nodes(plan, nodes)
    remaining, begun, computes, idle = before.remaining, before.begun, graph.computes, plan.idle
    cut = before.cut
    if clock.is_numbered(plan) and plan.workers is not None:
        who = plan.restart
        of = [
            None if each is None else each.at[who].get(mode="clip")
            for each in (fresh, remaining, begun, computes, idle)
        ]
        fresh, remaining, begun, computes, idle = of  # type: ignore[assignment]
        cut = None if cut is None else cut.at[:, who].get(mode="clip")
        ends = (who < nodes) & computes  # type: ignore[operator]
    else:
        ends = clock.restarts(plan, nodes) & computes
    begun_at_all = ends if idle is None else ends & ~idle
    ready = plan.duration if plan.ready is None else plan.ready
    spent = jnp.minimum(remaining, ready) - begun
    rest = jnp.maximum(ready - remaining, 0)
    if cut is not None:
        absent = jnp.minimum(cut[0], spent)
        tried = jnp.minimum(cut[1], spent - absent)
        spent, rest = spent - absent - tried, rest + absent
    if idle is not None:
        rest = jnp.where(idle, ready - begun, rest)
    waits = jnp.where(ends, rest, 0)
    flown = jnp.zeros_like(waits) if plan.flight is None else jnp.minimum(jnp.where(ends, plan.flight, 0), waits)
    return Seconds(
        ends=begun_at_all,
        used=fresh,
        computing=jnp.where(begun_at_all & fresh, spent, 0),
        wasted=jnp.where(begun_at_all & ~fresh, spent, 0)
        if cut is None
        else jnp.where(begun_at_all, tried + jnp.where(fresh, 0, spent), 0),
        waiting=waits - flown,
        communicating=flown,
    )


def lost(policy: Policy, world: World, state: ClockState, steps: int, feedback: PyTree = None) -> Lost | None:
    """The first computation whose delay is no time (see `network.times`); on the host, one step after another.

    Args:
      policy, world, state, feedback: as for `look_ahead`.
      steps: how many to look through.

    Returns:
      The computation; `None`: there is none.
    """
    lean = world._replace(batches=None)  # type: ignore[arg-type]
    for _ in range(steps + 1):
        odd = np.isnan(np.asarray(state.remaining))
        if odd.any():
            worker = int(odd.argmax())
            started = int(np.asarray(state.started)[worker])
            key = stream(world.key, Stream.DELAYS)
            return Lost(worker, started, float(world.delays(key, jnp.asarray(worker), jnp.asarray(started))))
        _, state = _tick(policy, lean, state, feedback)
    return None


@partial(jax.jit, static_argnames=("policy",))
def _tick(policy: Policy, world: World, state: ClockState, feedback: PyTree) -> tuple[Plan, ClockState]:
    return clock.tick(policy, world.graph, world.delays, world.key, state, feedback, world.events)


def look_ahead(
    policy: Policy, world: World, state: ClockState, steps: int, feedback: PyTree = None, spectrum: bool = False
) -> tuple[ClockState, Tick]:
    """Runs the clock alone for `steps` steps, and says what it did; for programs to be compiled.

    Args:
      policy: one that reads training can look one step ahead only.
      world: its batches are not touched and may be `None`.
      state: the clock.
      steps: T.
      feedback: the learner's last `StepInfo`, for a policy that reads training.
      spectrum: whether the mixing of each step is kept.

    Returns:
      The clock after them, and the ticks, stacked `[T, ...]`.
    """
    if policy.reads_training and steps > 1:
        raise ValueError("a policy that reads training can look one step ahead only")

    def one(before: ClockState, _: None) -> tuple[ClockState, Tick | Packed]:
        plan, after = clock.tick(policy, world.graph, world.delays, world.key, before, feedback, world.events)
        tick = tick_of(world.graph, plan, before, spectrum)
        if policy.debug is not None:
            tick = tick._replace(fault=masks.faults(plan, world.graph.neighbours.shape[0], policy.debug))
        return after, tick if tick.nodes is None else _packed(tick)

    state, found = jax.lax.scan(one, state, None, length=steps)
    return state, _unpacked(found) if isinstance(found, Packed) else found


class Packed(NamedTuple):
    """The tick of an event with its entries in two arrays: to write down a dozen costs more than the event."""

    reals: Array  # [4, E]
    numbers: Array  # [6, E]
    rest: Tick


_REALS = ("computing", "wasted", "waiting", "communicating")
_NUMBERS = {"nodes": int, "missed": int, "age": int, "iterated": bool, "active": bool, "counted": bool}


def _packed(tick: Tick) -> Packed:
    reals = jnp.stack([getattr(tick, name) for name in _REALS])
    numbers = jnp.stack([getattr(tick, name).astype(jnp.int32) for name in _NUMBERS])
    return Packed(reals, numbers, tick._replace(**dict.fromkeys((*_REALS, *_NUMBERS))))  # type: ignore[arg-type]


def _unpacked(found: Packed) -> Tick:
    """`[T, ...]`."""
    reals: dict[str, Any] = {name: found.reals[:, place] for place, name in enumerate(_REALS)}
    numbers: dict[str, Any] = {
        name: found.numbers[:, place].astype(bool) if kind is bool else found.numbers[:, place]
        for place, (name, kind) in enumerate(_NUMBERS.items())
    }
    return found.rest._replace(**reals, **numbers)
