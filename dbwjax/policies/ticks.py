"""Poisson clocks: methods whose workers average at random times, whether or not anybody has finished.

Every worker has a clock that ticks `rate` times per mean computation. All clocks together are one Poisson clock, and
each of its ticks is that of a worker drawn at random. The time to the next tick is drawn anew at every step, which
changes nothing about its law: what is left of an exponential time is as long as a new one. Whichever comes first, the
tick or the next finish, is the step.

A policy does not know the law of the computations, so "mean computation" is the running mean, in seconds, of all that
have begun anywhere in the network. In the long run there are `rate` ticks per completed computation, whoever is fast or
slow. This reading is ours. Those under way are counted with the time that they are going to take: the mean is a unit of
time, which nobody acts upon. Of the completed ones alone it would be too short for long, because short ones are over
first: with exponential times, ten workers and rate 1 there were 6.0 ticks a computation after 20 computations and 1.27
after 500, and so it is 1.05 and 1.01 (means over 60 runs). By Wald's equation the expected sum of the times begun is,
at any instant, their expected number times the mean. Where some workers are slower, ticks are too few at first: three
of ten being five times slower, 0.76 after 20 and 0.96 after 500. A computation that never ends is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from dbwjax import numbers
from dbwjax.limits import real
from dbwjax.network import draws
from dbwjax.policies.events import EventState, Happening, events
from dbwjax.policies.partners import is_node
from dbwjax.policies.selection import first_least
from dbwjax.types import Graph, Key, Plan, Policy


class Ticker(NamedTuple):
    """What the clocks are set by."""

    rate: Float[Array, ""]  # ticks per worker and mean computation
    mean: Float[Array, ""]  # seconds of the computations begun so far
    begun: Int[Array, ""]  # how many those are
    begins: Bool[Array, " N"]  # whose computation begins with the coming step, so that all of it remains


class TickState(NamedTuple):
    """The method's own state, and the clocks."""

    events: EventState
    ticker: Ticker


class Event(NamedTuple):
    """A tick, or a finish."""

    node: Int[Array, ""]  # whose
    tick: Bool[Array, ""]
    now: Float[Array, ""]  # seconds since the last step
    mean: Float[Array, ""]  # seconds of the computations begun before it


Happen = Callable[[Key, Graph, PyTree, Event], tuple[Happening, PyTree]]


def require_rate(rate: Any) -> float:
    """A rate of ticks.

    Raises:
      ValueError: it is not above 0, or not a number that float32 holds.
    """
    if not 0 < real("rate", rate) < float("inf"):
        raise ValueError(f"rate={rate:g} is not a rate of ticks; use a number above 0 (1: a tick per computation)")
    return numbers.require("rate", float(rate))


def ticking(init: Callable[[Graph], PyTree], happen: Happen, rate: float, **facts: Any) -> Policy:
    """A policy whose steps are ticks and finishes. Nobody waits; no gradient is computed at a tick.

    Args:
      init: `(graph) -> state`, on the host; checks the graph.
      happen: `(key, graph, state, event) -> (Happening, state)`, with the same shapes for both. Who starts, and whether
        the update counts, follows from the event. `key` is of this event; counters `(0, 1)` and `(0, 2)` of `draws` are
        taken.
      rate: ticks per worker and mean computation.
      facts: of the `Policy`.

    Each plan's `info` tells what was drawn: `unit`, the time to the next tick in mean times between ticks, whether or
    not it came first; `tick`, whether it did; `node`, whose event the step is; and the method's own.
    """

    def init_fn(graph: Graph) -> TickState:
        zero, nodes = jnp.zeros((), jnp.result_type(float)), graph.neighbours.shape[0]
        clock = Ticker(zero + rate, zero, jnp.zeros((), jnp.int32), jnp.ones(nodes, bool))
        return TickState(EventState(init(graph), jnp.zeros(nodes, bool)), clock)

    def decide_fn(key: Key, graph: Graph, state: TickState, remaining: Array, feedback: Any) -> tuple[Plan, TickState]:
        nodes = remaining.shape[0]
        event, unit, ticker = _next(key, graph, state.ticker, remaining)

        def one(key: Key, graph: Graph, own: PyTree, i: Array, waits: Array) -> tuple[Happening, PyTree]:
            del i, waits
            found, own = happen(key, graph, own, event)
            info = {"unit": unit, "tick": event.tick, "node": event.node, **found.told.get("info", {})}
            start = jnp.where(event.tick, nodes, event.node)
            return found._replace(start=start, fresh=~event.tick, told={**found.told, "info": info}), own

        # The event is the first there is, whether it is a tick or a finish.
        first = jnp.where(is_node(event.node, nodes), event.now, jnp.inf)
        plan, after = events(init, one).decide(key, graph, state.events, first, feedback)
        return plan, TickState(after._replace(waits=state.events.waits), ticker)

    return Policy(init_fn, decide_fn, **{"stale": True, "idles": True, **facts})


def _next(key: Key, graph: Graph, ticker: Ticker, remaining: Array) -> tuple[Event, Array, Ticker]:
    """The next event, the time to the next tick in mean times between ticks, and the clocks after the event."""
    dtype, zero = remaining.dtype, jnp.zeros((), jnp.int32)
    workers = graph.computes.sum()
    begun = ticker.begins & jnp.isfinite(remaining)
    count = ticker.begun + begun.sum(dtype=jnp.int32)
    # A running mean, not a sum over a count: float32 loses seconds added to a large sum.
    off = jnp.where(begun, remaining - ticker.mean, 0).sum()
    mean = ticker.mean + off / jnp.maximum(count, 1)

    unit = draws.exponential(key, zero, zero + 1, dtype)
    ticks = (count > 0) & (workers > 1)  # whoever is alone has nobody to average with
    wait = jnp.where(ticks, unit * mean / (workers * ticker.rate), jnp.inf)
    drawn = jnp.floor(draws.uniform(key, zero, zero + 2, dtype) * workers).astype(jnp.int32)
    if graph.known is not None:  # of those that are there
        drawn = jnp.argmax(jnp.cumsum(graph.computes) > drawn).astype(jnp.int32)
    finisher, finish = first_least(remaining)
    tick = wait < finish
    event = Event(jnp.where(tick, drawn, finisher), tick, jnp.minimum(wait, finish), mean)
    begins = is_node(finisher, remaining.shape[0]) & ~tick
    return event, unit, Ticker(ticker.rate, mean, count, begins)
