"""Many events in one wide step, with the numbers of the run event by event.

Where steps are events of a few nodes, consecutive events mostly touch different ones and do not depend on each other. A
*wave* is a wide step of events whose order does not matter: `X' = mix @ X + push @ U` with the rows of all of them. An
event goes into the first wave behind what it depends on that has room. Every event computes what it computes alone, so
the numbers are the same, but for what a compiler rounds otherwise in a wider program.

What an event depends on: who reads a node comes after the event that wrote it, and who writes a node after the one that
wrote it; who writes it may share the wave of who reads it, because a step reads before it writes. An event writes its
rows, the nodes that it restarts, and its worker. (`composition.py` is for methods in which all events share a node.)

A model that is read before event k sees all events before and none after: a reading is a barrier.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dbwjax.engine.clock import is_numbered
from dbwjax.types import Plan


class Width(NamedTuple):
    """How wide a wide step is: a matter of the number of workers alone, so that a run can be repeated."""

    updates: int  # events whose update counts
    events: int  # of those and the others together


def width_of(workers: int, releases: bool, most: int = 128) -> Width:
    """An eighth of the workers: wide enough for the machine, and narrow enough to be filled.

    Args:
      workers: those who compute.
      releases: whether some events count no update (`Policy.idles`); those take no place of an update.
      most: updates of a wide step.
    """
    updates = max(2, min(workers // 8, most))
    return Width(updates, updates + updates // 2 if releases else updates)


class Events(NamedTuple):
    """Steps that are one worker's event each, on the host; N is nobody. `[T, ...]`, of which the first `steps` are."""

    steps: int
    nodes: int  # N
    fresh: Bool[np.ndarray, " T"]  # whether the worker's update counts
    worker: Int[np.ndarray, " T"]
    at: Int[np.ndarray, " T"] | None  # the node at whose present parameters it is computed
    rows: Int[np.ndarray, "T R"]
    mix: Float[np.ndarray, "T R D"]
    sources: Int[np.ndarray, "T R D"]  # N where nothing is taken
    push: Float[np.ndarray, "T R"]  # of the update
    restart: Int[np.ndarray, "T K"]


class Wide(NamedTuple):
    """Wide steps, on the host."""

    plans: Plan  # stacked [W, ...]
    events: Int[np.ndarray, "W M"]  # the event of each update; T: nobody's
    before: Int[np.ndarray, " T"]  # the wide step before which a barrier before each event lies


def are_events(plan: Plan) -> bool:
    """Whether a step is one worker's event that names all the nodes it touches; shapes are enough."""
    named = plan.workers is not None and plan.rows is not None and plan.sources is not None
    return named and plan.push is not None and is_numbered(plan) and plan.fresh.shape[-1] == 1


def lean(plan: Plan) -> Plan:
    """A plan with the fields that change a number of the training alone."""
    kept = ("duration", "fresh", "mix", "sources", "push", "pushers", "workers", "at", "rows", "restart")
    return Plan(**{name: getattr(plan, name) for name in kept})


def events_of(plans: Plan, nodes: int, count: int | None = None) -> Events:
    """Stacked plans `[T, ...]` of events, on the host, as `Events`.

    Args:
      plans: for which `are_events` holds.
      nodes: N.
      count: how many of them count; all by default.
    """
    found: dict[str, Any] = plans._asdict()
    steps = len(found["fresh"])
    count = steps if count is None else count
    real = np.arange(steps) < count
    rows = np.where(real[:, None], found["rows"], nodes).astype(np.int32)
    fresh, taken = found["fresh"][:, 0] & real, (found["mix"] != 0) & (rows < nodes)[:, :, None]
    push = found["push"] if found["push"].ndim == 2 else found["push"][:, :, 0]
    return Events(
        count,
        nodes,
        fresh,
        found["workers"][:, 0].astype(np.int32),
        None if found["at"] is None else found["at"][:, 0].astype(np.int32),
        rows,
        found["mix"],
        np.where(taken, found["sources"], nodes).astype(np.int32),
        np.where(fresh[:, None], push, 0).astype(found["mix"].dtype),
        np.where(real[:, None], found["restart"], nodes).astype(np.int32),
    )


def waves(events: Events, barrier: Bool[np.ndarray, " T"], width: Width) -> Wide:
    """Events as waves.

    Args:
      events: in their order.
      barrier: before which of them all earlier ones must be done.
      width: of a wave.
    """
    count, total, most = events.steps, len(events.fresh), width.updates
    every, before = scheduled(events, barrier, width)
    place, fresh = every[:count], events.fresh[:count]
    # In a wave, events with an update come first: only they take a place of an update.
    order = np.lexsort((~fresh, place))
    waves_here = int(place.max(initial=-1)) + 1
    slot = np.arange(count) - np.searchsorted(place[order], np.arange(waves_here))[place[order]]
    table = np.full((waves_here, width.events), total)
    table[place[order], slot] = order

    def of(leaf: np.ndarray, padding: Any, table: np.ndarray = table) -> np.ndarray:
        return padded(leaf, padding)[table].reshape(waves_here, -1, *leaf.shape[2:])

    updates = np.where(of(events.fresh, False, table[:, :most]), table[:, :most], total)
    pushers = np.minimum(np.repeat(np.arange(width.events), events.rows.shape[1]), most - 1).astype(np.int32)
    plan: dict[str, Any] = {
        "duration": np.zeros(waves_here, events.mix.dtype),
        "fresh": updates < total,
        "mix": of(events.mix, 0),
        "sources": of(np.minimum(events.sources, events.nodes - 1), 0),
        "push": of(events.push, 0),
        "pushers": np.broadcast_to(pushers, (waves_here, len(pushers))),
        # Whose update does not count is nobody here, or its local state would be written over.
        "workers": of(events.worker, events.nodes, updates),
        "at": None if events.at is None else of(events.at, 0, updates),
        "rows": of(events.rows, events.nodes),
        "restart": of(events.restart, events.nodes),
    }
    return Wide(Plan(**plan), updates, before)


def padded(leaf: np.ndarray, padding: Any) -> np.ndarray:
    """`[T, ...]` with an entry T of nobody."""
    return np.concatenate([leaf, np.full_like(leaf[:1], padding)])


def scheduled(events: Events, barrier: np.ndarray, width: Width) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " T"]]:
    """The wave of each event, and the wave before which a barrier before it lies."""
    steps = len(events.fresh)
    reads = [events.sources.reshape(steps, -1)]
    if events.at is not None:
        reads.append(np.where(events.fresh, events.at, events.nodes)[:, None].astype(np.int32))
    worker = np.where(events.fresh, events.worker, events.nodes)[:, None].astype(np.int32)
    written = np.concatenate([events.rows, events.restart, worker], axis=1)
    given = written, np.concatenate(reads, axis=1), events.fresh, barrier
    with jax.default_device(host()):
        place, before = _scheduled(given, events.nodes, width)
        return np.asarray(place), np.asarray(before)


def host() -> Any:
    """Where a loop over events runs best: the CPU, if JAX has it, beside an accelerator too."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


class _State(NamedTuple):
    wrote: Array  # [N+1] last wave that wrote each node; -1: none
    read: Array  # [N+1] last wave that read it
    updates: Array  # [T+1] updates in each wave
    events: Array  # [T+1] events in each wave
    open: Array  # [2] first wave with room for another event, and for an update
    floor: Array  # the wave of the last barrier
    top: Array  # waves so far


@partial(jax.jit, static_argnames=("nodes", "width"))
def _scheduled(events: tuple[Array, Array, Array, Array], nodes: int, width: Width) -> tuple[Array, Array]:
    """As `scheduled`, of the nodes that each event writes and reads, whether its update counts, and the barriers."""

    def full(state: _State, wave: Array, fresh: Array) -> Array:
        return (state.events[wave] >= width.events) | (fresh & (state.updates[wave] >= width.updates))

    def one(state: _State, event: tuple[Array, Array, Array, Array]) -> tuple[_State, tuple[Array, Array]]:
        written, read, fresh, stops = event
        floor = jnp.where(stops, state.top, state.floor)
        known = written < nodes
        after = jnp.maximum(state.wrote[written] + 1, state.read[written])
        earliest = jnp.maximum(floor, jnp.where(known, after, 0).max())
        earliest = jnp.maximum(earliest, jnp.where(read < nodes, state.wrote[read] + 1, 0).max())
        kind = fresh.astype(jnp.int32)
        begin = jnp.maximum(earliest, state.open[kind])
        wave = jax.lax.while_loop(lambda wave: full(state, wave, fresh), lambda wave: wave + 1, begin)
        state = state._replace(
            wrote=state.wrote.at[written].set(wave),
            read=state.read.at[read].max(wave),
            updates=state.updates.at[wave].add(kind),
            events=state.events.at[wave].add(1),
            floor=floor,
            top=jnp.maximum(state.top, wave + 1),
        )
        here = state.open[kind]
        state = state._replace(open=state.open.at[kind].add(full(state, here, fresh).astype(jnp.int32)))
        return state, (wave, floor)

    none = jnp.full(nodes + 1, -1, jnp.int32)
    zeros, zero = jnp.zeros(events[3].shape[0] + 1, jnp.int32), jnp.zeros((), jnp.int32)
    start = _State(none, none, zeros, zeros, jnp.zeros(2, jnp.int32), zero, zero)
    return jax.lax.scan(one, start, events)[1]
