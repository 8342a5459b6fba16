"""Parameter servers that act on each update as it arrives: K-batch-sync, K-async, K-batch-async, asynchronous, SSP.

A step is one event: an update reaches the server, l_i seconds after worker i's finish, or (K-async, SSP) one worker
that waits is sent the model and goes on, l_j seconds after that. Of events at one instant those that send come first,
then the lowest number. An update is computed at the model that the worker started from. Servers that gather K updates
keep a draft, `draft' = draft + u/K`; at the K-th the server takes it. A worker's row is the model that it pulled last
(under K-batch-sync it is refreshed at its own finishes). With momentum or Adam the optimiser's state is each worker's
own. Messages: one for each update and each model; `backups` is 0, since it is updates that these servers choose.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from dbwjax.limits import MOST, real, shown, whole
from dbwjax.policies.events import Happening, Release, Row, events
from dbwjax.policies.method import Method
from dbwjax.policies.papers import DOWNPOUR, K_SYNC, SSP
from dbwjax.policies.presence import at_most_there, kept_up, unless_away
from dbwjax.policies.serving import require_at_most, served, travel, workers_of
from dbwjax.specs import nearest
from dbwjax.types import Graph, Key, Policy

Weight = Literal["one", "mean"]
"""What an asynchronous server adds of an update: all of it, or 1/N, the mean that a synchronous server adds."""

BOUND = 3
"""Clocks by which SSP lets a worker be ahead, by default; the number is ours."""


class Gathered(NamedTuple):
    """A server that gathers."""

    k: Int[Array, ""]  # updates for one step of the model
    arrived: Int[Array, ""]  # since the last such step


def _gathering(k: int, bounded: bool) -> Any:
    k = whole("k", k)

    def init_fn(network: Graph) -> Gathered:
        workers = workers_of(network)
        if bounded:
            require_at_most("k", k, workers)
        return Gathered(jnp.asarray(k, jnp.int32), jnp.zeros((), jnp.int32))

    return init_fn


def _arrived(
    state: Gathered, nodes: int, dtype: Any, enough: Array | None = None
) -> tuple[Array, Gathered, tuple[Row, Row], Row]:
    """Whether an update is the K-th, or as many as are `enough`; the state and the rows of draft and server after it;
    and the server's row for whoever pulls in the same event, its node to be filled in."""
    last = state.arrived + 1 == state.k if enough is None else state.arrived + 1 >= enough
    share = 1 / state.k.astype(dtype)
    draft, server = nodes - 1, nodes - 2
    kept, pushed = jnp.where(last, draft, server), jnp.where(last, share, 0)
    after = state._replace(arrived=jnp.where(last, 0, state.arrived + 1))
    rows = Row(draft, ((draft, 1.0),), share), Row(server, ((kept, 1.0),), pushed)
    return last, after, rows, Row(nodes, ((kept, 1.0),), pushed)


def _enough(network: Graph, k: Array) -> Array | None:
    """How many updates are enough where fewer than k workers are there; `None` where nothing breaks."""
    return None if network.known is None else at_most_there(network, k)


def _told(heard: Any, updates: Any, flight: Array, messages: Any) -> dict[str, Array]:
    """For the accounts; `heard` is the worker whose update arrives, or nobody."""
    return {
        "heard": jnp.asarray(heard, jnp.int32)[None],
        "updates": jnp.asarray(updates),
        "backups": jnp.zeros((), jnp.int32),
        "flight": flight,
        "messages": jnp.asarray(messages, jnp.int32),
    }


def _seconds(network: Graph, node: Array) -> Float[Array, 1]:
    """Of a message between a node, or nobody, and the server."""
    return travel(network).at[jnp.asarray(node)[None]].get(mode="clip")


def _travel(network: Graph, state: PyTree) -> Float[Array, " N"]:
    del state
    return travel(network)


def k_batch_sync(k: int) -> Policy:
    """K-batch-sync SGD (Dutta et al. 2018): the first k mini-batches at one model, whoever drew them.

    A worker that finishes draws another batch at the *same* model; at the k-th update the server adds the mean of the
    k, and everybody's computation is cancelled. `k` may be more than the workers.

    With latency a worker goes on at its finish, without an answer, until the next model is there. What it begins while
    its last update or the model is on its way is not drawn: those seconds, at most 2 l_i, are counted as the message's.
    Updates on their way at the k-th are lost, and are not among the messages.

    Raises:
      ValueError: `k` below 1.
    """

    def happen(key: Key, network: Graph, state: Gathered, i: Array, waits: Array) -> tuple[Happening, Gathered]:
        del key, waits
        seconds, nodes = travel(network), network.neighbours.shape[0]
        last, after, rows, pulled = _arrived(state, nodes, seconds.dtype)
        start = network.computes & (last | (jnp.arange(nodes) == i))
        flight = jnp.where(last, 2 * seconds, 0)
        return Happening(
            (*rows, pulled._replace(node=i)),
            start,
            after=jnp.where(last, seconds, -seconds),
            at=nodes - 2,
            told=_told(i, last, flight, 1 + jnp.where(last, network.computes.sum(), 0)),
        ), after

    return served(events(_gathering(k, bounded=False), happen, travel=_travel, stale=False), draft=True)


def k_async(k: int) -> Policy:
    """K-async SGD (Dutta et al. 2018): k *different* workers wait for the update; the others run on, at stale models.

    A worker whose update has arrived waits; at the k-th the server adds the mean of the k, and sends the model to those
    k alone.

    Raises:
      ValueError: `k` below 1; in `init`, more than the workers.
    """

    def happen(key: Key, network: Graph, state: Gathered, i: Array, waits: Array) -> tuple[Happening, Gathered]:
        del key, waits
        nodes = network.neighbours.shape[0]
        last, after, rows, pulled = _arrived(state, nodes, network.latency.dtype, _enough(network, state.k))
        goes = jnp.where(last, i, nodes)
        seconds = _seconds(network, goes)
        told = _told(i, last, 2 * seconds, 1 + last)
        return Happening((*rows, pulled._replace(node=goes)), goes, after=seconds, told=told), after

    def ready(network: Graph, state: Gathered) -> Array:
        # Nothing has arrived since the last update, so whoever waits waited for that one.
        free = state.arrived == 0
        if network.known is not None:  # or all wait that are there
            free |= state.arrived >= at_most_there(network, state.k)
        return unless_away(network, jnp.where(free, jnp.zeros_like(network.latency[:, 0]), jnp.inf))

    def go_on(key: Key, network: Graph, state: Gathered, j: Array, waits: Array) -> tuple[Happening, Gathered]:
        del key, waits
        nodes = network.neighbours.shape[0]
        idle, seconds = Row(nodes, ((nodes - 2, 1.0),)), _seconds(network, j)
        if network.known is None:
            rows = idle, idle, Row(j, ((nodes - 2, 1.0),))
            return Happening(rows, j, after=seconds, told=_told(nodes, False, 2 * seconds, 1)), state
        fewer = state.arrived > 0  # the server makes its step of those that have arrived
        model = jnp.where(fewer, nodes - 1, nodes - 2)
        rows = idle, Row(jnp.where(fewer, nodes - 2, nodes), ((model, 1.0),)), Row(j, ((model, 1.0),))
        told = _told(nodes, fewer, 2 * seconds, 1)
        return Happening(rows, j, after=seconds, told=told), state._replace(arrived=jnp.zeros_like(state.arrived))

    return served(events(_gathering(k, bounded=True), happen, Release(ready, go_on), _travel, stale=False), draft=True)


def k_batch_async(k: int) -> Policy:
    """K-batch-async SGD (Dutta et al. 2018): a step of the model at every k-th update, and nobody waits.

    A worker whose update has arrived is sent the model as it is and goes on. `k` may be more than the workers.

    Raises:
      ValueError: `k` below 1.
    """

    def happen(key: Key, network: Graph, state: Gathered, i: Array, waits: Array) -> tuple[Happening, Gathered]:
        del key, waits
        last, after, rows, pulled = _arrived(state, network.neighbours.shape[0], network.latency.dtype)
        seconds = _seconds(network, i)
        told = _told(i, last, 2 * seconds, 2)
        return Happening((*rows, pulled._replace(node=i)), i, after=seconds, told=told), after

    return served(events(_gathering(k, bounded=False), happen, travel=_travel, stale=False), draft=True)


def async_server(weight: Weight = "one") -> Policy:
    """An asynchronous server (Downpour SGD, Dean et al. 2012, without its partial pushes): nobody waits.

        server' = server + u      worker i pulls it and goes on

    Args:
      weight: `one` adds an update as it is; `mean` adds 1/N of it.

    Raises:
      ValueError: another weight.
    """
    whole_update = _is_one(weight)

    def init_fn(network: Graph) -> Float[Array, ""]:
        return _share(network, whole_update)

    def happen(key: Key, network: Graph, share: Array, i: Array, waits: Array) -> tuple[Happening, Array]:
        del key, waits
        server, seconds = network.neighbours.shape[0] - 1, _seconds(network, i)
        rows = Row(server, ((server, 1.0),), share), Row(i, ((server, 1.0),), share)
        return Happening(rows, i, after=seconds, told=_told(i, True, 2 * seconds, 2)), share

    return served(events(init_fn, happen, travel=_travel, stale=False))


class Clocks(NamedTuple):
    """How far the workers are."""

    clock: Int[Array, " N"]  # computations finished, as the server knows it
    bound: Int[Array, ""]
    share: Float[Array, ""]  # of an update, that is added


def ssp(bound: float = BOUND, weight: Weight = "one") -> Policy:
    """Stale-synchronous parallel (Ho et al. 2013, as recalled): nobody is too far ahead of the slowest.

    A worker's clock is the number of its updates that have arrived. With clock c it goes on iff `c - min clock <=
    bound`, and is sent the model when it does; so it sees all updates of clocks up to `c - bound - 1`. As those that
    wait are sent the newest model, they may see more; a worker reads the model once a computation and keeps no cache.

    Args:
      bound: a whole number from 0; 0 is a synchronous server, `inf` an asynchronous one.
      weight: `one` adds an update as it is; `mean` adds 1/N of it.

    Raises:
      ValueError: another bound or weight.
    """
    bound, whole_update = real("bound", bound), _is_one(weight)
    if bound != math.inf and not (0 <= bound <= MOST and bound == int(bound)):
        raise ValueError(f"bound={bound:g} is not a number of clocks; use a whole number from 0, or inf (no bound)")

    def init_fn(network: Graph) -> Clocks:
        workers_of(network)
        clock = jnp.zeros(network.neighbours.shape[0], jnp.int32)
        return Clocks(clock, jnp.asarray(min(bound, MOST), jnp.int32), _share(network, whole_update))

    def may(network: Graph, state: Clocks) -> Bool[Array, " N"]:
        slowest = jnp.where(network.computes, state.clock, MOST).min()
        return state.clock - slowest <= state.bound

    def happen(key: Key, network: Graph, state: Clocks, i: Array, waits: Array) -> tuple[Happening, Clocks]:
        del key, waits
        nodes = network.neighbours.shape[0]
        server, own = nodes - 1, jnp.arange(nodes) == i
        after = state._replace(clock=kept_up(network, state.clock) + own)
        goes = jnp.where((may(network, after) & own).any(), i, nodes)
        seconds = _seconds(network, goes)
        rows = Row(server, ((server, 1.0),), state.share), Row(goes, ((server, 1.0),), state.share)
        told = _told(i, True, 2 * seconds, 1 + (goes < nodes))
        return Happening(rows, goes, after=seconds, told=told), after

    def ready(network: Graph, state: Clocks) -> Array:
        return unless_away(network, jnp.where(may(network, state), jnp.zeros_like(network.latency[:, 0]), jnp.inf))

    def go_on(key: Key, network: Graph, state: Clocks, j: Array, waits: Array) -> tuple[Happening, Clocks]:
        del key, waits
        nodes = network.neighbours.shape[0]
        seconds = _seconds(network, j)
        rows = Row(nodes, ((nodes - 1, 1.0),)), Row(j, ((nodes - 1, 1.0),))
        return Happening(rows, j, after=seconds, told=_told(nodes, False, 2 * seconds, 1)), state

    return served(events(init_fn, happen, Release(ready, go_on), _travel, stale=False))


def _is_one(weight: str) -> bool:
    if weight not in ("one", "mean"):
        raise ValueError(f"unknown weight={shown(weight)}; {nearest(str(weight), ('one', 'mean'))}")
    return weight == "one"


def _share(network: Graph, whole_update: bool) -> Float[Array, ""]:
    workers = workers_of(network)
    return jnp.asarray(1.0 if whole_update else 1 / workers, network.latency.dtype)


def _k_batch_sync(*, k: int) -> Policy:
    return k_batch_sync(k)


def _k_async(*, k: int) -> Policy:
    return k_async(k)


def _k_batch_async(*, k: int) -> Policy:
    return k_batch_async(k)


def _async_server(*, weight: Weight = "one") -> Policy:
    return async_server(weight)


def _ssp(*, bound: float = BOUND, weight: Weight = "one") -> Policy:
    return ssp(bound, weight)


METHODS = (
    Method(
        "k_batch_sync",
        _k_batch_sync,
        "the server takes the first k mini-batches at one model, whoever computed them",
        (K_SYNC,),
        family="server",
        mixing="row",
        absence="the k updates come from those that are there",
    ),
    Method(
        "k_async",
        _k_async,
        "k workers wait for the server's next step, the others compute on at stale models",
        (K_SYNC,),
        family="server",
        mixing="row",
        absence="the server makes its step when k have arrived, or all that are there, each weighing 1/k",
    ),
    Method(
        "k_batch_async",
        _k_batch_async,
        "nobody waits, and the server makes a step of every k updates",
        (K_SYNC,),
        family="server",
        mixing="row",
        absence="the k updates come from those that are there",
    ),
    Method(
        "async_server",
        _async_server,
        "nobody waits, and the server adds each update as it arrives",
        (DOWNPOUR,),
        family="server",
        mixing="row",
        absence="the server adds what comes from those that are there; back again, it hands in what it had begun",
    ),
    Method(
        "ssp",
        _ssp,
        "an asynchronous server, but nobody is more than bound clocks ahead of the slowest",
        (SSP,),
        family="server",
        mixing="row",
        absence="nobody waits for its clock; back again, it counts on from the slowest of those that were there",
    ),
)
