"""Hop: queues of updates by iteration, backup workers, token queues, bounded staleness, skipping of iterations.

A worker's update queue is a row of *mailboxes*, nodes of their own that never compute: node `N + i S + (k mod S)` holds
the message `x_i + u_i` of worker i's iteration k. `S = gap + 1 + staleness` of them are enough, because nobody who
still needs message `k - S` can be more than `gap` iterations behind. A message that has been sent is where its receiver
finds it, latency later, however long it is not looked at.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from dbwjax.limits import require_count, whole
from dbwjax.network.properties import neighbour_lists
from dbwjax.policies.events import Happening, Release, Row, events
from dbwjax.policies.gossip import require_graph
from dbwjax.policies.method import Method
from dbwjax.policies.neighbours import GAP, LARGEST_GAP, backups_of
from dbwjax.policies.papers import HOP
from dbwjax.policies.partners import with_nodes
from dbwjax.policies.selection import kth_smallest
from dbwjax.types import Graph, Key, Policy

_FAR = np.iinfo(np.int32).max


class Sizes(NamedTuple):
    """Settings on which shapes depend."""

    gap: int
    staleness: int

    @property
    def boxes(self) -> int:
        """S, mailboxes of a worker."""
        return self.gap + 1 + self.staleness


class HopState(NamedTuple):
    """Where the workers are (N of them here), and what they have sent."""

    iteration: Int[Array, " N"]  # which each computes, or has finished and not gone on from
    answered: Int[Array, " N"]  # the last of which it has sent a message or a notice; -1: none
    sent: Float[Array, "N S"]  # when, of the last S, by iteration mod S; seconds from now, 0 or less
    message: Bool[Array, "N S"]  # whether that was a message
    near: Int[Array, "N T"]  # whose tokens each needs: those it hears and those that hear it, padded with itself
    hearers: Int[Array, " N"]  # how many hear each
    backups: Int[Array, ""]  # b
    skip: Int[Array, ""]  # 0: never


class Inbox(NamedTuple):
    """What a worker that goes on has before it."""

    due: Float[Array, ""]  # when it goes on, seconds from now
    arrival: Float[Array, " D"]  # of what it waited for, by slot
    needed: Int[Array, ""]  # how many of those it waited for
    flight: Float[Array, ""]  # seconds of its wait in which the last of those was on its way


def hop(b: int = 1, gap: int = GAP, staleness: int = 0, skip: int = 0) -> Policy:
    """Hop (Luo et al. 2019, arXiv 1902.01064, as recalled), whole. Adapt, then combine.

    Worker j finishes iteration k, sends `x_j + u_j` with the tag k to those who hear it, and goes on when

    - of its iteration k the messages of `|N_j| - b_j` neighbours are there, `b_j = min(b, |N_j| - 1)`, and
    - every neighbour has started iteration `k + 1 - gap`: a token for every edge and iteration, which takes no time.

    It then takes the plain mean of its own message and of the first `|N_j| - b_j` of tag k; the others of that tag are
    thrown away, also where they have come by then. (`backup` is the same rule on the clock, but mixes every message
    that is in, with Metropolis weights of the whole graph.) `b=0` is `full:barrier=neighbours,weights=uniform`.

    With `staleness=s` a neighbour is waited for only until a message of tag `k - s` (at first, 0) or later is there,
    and j takes of *every* neighbour its newest message of a tag t in `k - s .. k` that is there, with the weight
    `t - (k - s) + 1`; its own weighs `s + 1`; the sum is normalised.

    With `skip=m` a worker that has ended iteration k, may go on, and is more than m iterations behind the furthest of
    its neighbours, jumps to that one's iteration, or as far as tokens go (`gap` ahead of the last of its neighbours).
    It takes the plain mean of its own message and of every neighbour's newest one that is there, of a tag from
    `k - staleness` to the iteration before the one it jumps to. It sends no messages for those it skips. The paper has
    skipping, its threshold and the renewal of the parameters; the exact rule above is ours, and so is this: of skipped
    iterations it sends *notices*, which take the latency of a message, and count for those who wait as a message from
    which nothing is taken. Without them workers could wait for ever, whatever b: the neighbours of one may all have
    skipped its iteration. With them of every iteration a message or a notice is sent, so the worker that is furthest
    behind can always go on once it has finished.

    Neighbours, in either direction of a link, are never more than `gap` iterations apart, others at most `gap` times
    their distance. Tokens are needed from those it hears and from those that hear it; with links of both directions,
    as in the paper, these are the same. The paper also discusses sending before adapting (as `dpsgd`); here the message
    holds the update. With momentum or Adam the state is the worker's own.

    Each worker has `gap + 1 + staleness` mailboxes of the size of its parameters (and, in memory, of its optimiser's
    state, which mailboxes do not use).

    Args:
      b: slowest neighbours that nobody waits for.
      gap: most iterations by which a worker may be ahead of a neighbour.
      staleness: s, how old a message may be, in iterations.
      skip: m, from how far behind a worker jumps; 0: never.

    Raises:
      ValueError: `b`, `staleness` or `skip` below 0; `gap` below 1, below `staleness` or above `LARGEST_GAP`; a skip
        that can never happen (`gap` or more, or with neither backup workers nor staleness); in `network`, a graph that
        `require_graph` refuses, or mailboxes that do not fit the memory.
    """
    b, staleness, skip = whole("b", b, 0), whole("staleness", staleness, 0), whole("skip", skip, 0)
    gap = whole("gap", gap, 1, LARGEST_GAP)
    _require_settings(b, gap, staleness, skip)
    sizes = Sizes(gap, staleness)
    release = Release(partial(_ready, sizes), partial(_go_on, sizes))

    def housed(node: Array, workers: int) -> Array:
        return (node - workers) // sizes.boxes

    init, network = partial(_init, sizes, b, skip), partial(_network, sizes)
    return events(init, partial(_finish, sizes), release, passed=_passed, stale=False, network=network, housed=housed)


def _require_settings(b: int, gap: int, staleness: int, skip: int) -> None:
    """Raises `ValueError` for settings that contradict one another."""
    if gap < staleness:
        raise ValueError(
            f"gap={gap} is below staleness={staleness}, so that nobody could be as late as that; use a gap of "
            f"{staleness} or more"
        )
    if skip and not (b or staleness):
        raise ValueError(
            f"skip={skip} with b=0 and staleness=0 never happens, since everybody waits for all neighbours; use b=1 or "
            "staleness=1, or skip=0"
        )
    if skip >= gap:
        raise ValueError(
            f"skip={skip} with gap={gap} never happens, since nobody is further behind than the gap; use a skip of "
            f"{gap - 1} or less (0: never)"
        )


def _network(sizes: Sizes, graph: Graph) -> Graph:
    """The workers and their mailboxes."""
    require_graph(graph, "row")
    workers, slots = graph.neighbours.shape
    what = f" of {workers} workers with {sizes.boxes} mailboxes each"
    require_count("gap", sizes.gap, lambda count: 16.0 * workers * slots * (count + 2 + sizes.staleness), what)
    return with_nodes(graph, workers * sizes.boxes)


def _init(sizes: Sizes, b: int, skip: int, graph: Graph) -> HopState:
    workers = _workers(graph, sizes)
    if np.asarray(graph.computes).sum() != workers:
        raise ValueError("hop needs its mailboxes in the graph; give the graph of its network (simulate.networked)")
    near, hearers = _near(graph, workers)
    none = jnp.zeros(workers, jnp.int32)
    sent = jnp.zeros((workers, sizes.boxes), jnp.result_type(float))
    message = jnp.zeros((workers, sizes.boxes), bool)
    return HopState(none, none - 1, sent, message, near, hearers, jnp.asarray(b), jnp.asarray(skip))


def _finish(
    sizes: Sizes, key: Key, graph: Graph, state: HopState, i: Array, waits: Array
) -> tuple[Happening, HopState]:
    """Worker i puts its message into its mailbox, and waits."""
    del key, waits
    workers, k = _workers(graph, sizes), state.iteration[i]
    mine = jnp.arange(workers) == i
    box = mine[:, None] & (jnp.arange(sizes.boxes) == k % sizes.boxes)[None]
    after = state._replace(
        answered=jnp.where(mine, k, state.answered),
        sent=jnp.where(box, jnp.inf, state.sent),  # now: `_passed` makes it 0
        message=state.message | box,
    )
    rest = [(i, 0.0)] * (graph.neighbours.shape[1] - 1)
    row = Row(workers + i * sizes.boxes + k % sizes.boxes, [(i, 1.0), *rest], push=1.0)
    nobody = graph.computes.shape[0]
    none = jnp.full(graph.neighbours.shape[1], nobody)
    told = _told(none, 0, state.hearers[i], jnp.zeros((), state.sent.dtype))
    return Happening([row], start=nobody, told=told), after


def _ready(sizes: Sizes, graph: Graph, state: HopState) -> Array:
    """When each worker may go on if it waits, seconds from now."""
    workers = _workers(graph, sizes)
    arrival, needed = _arrivals(graph, state, jnp.arange(workers), sizes.staleness)
    around = _around(graph, state, state.near)
    tokens = around.min(axis=1) >= state.iteration + 1 - sizes.gap
    when = jnp.where(tokens, jnp.maximum(kth_smallest(arrival, needed), 0), jnp.inf)
    when = when if graph.known is None else jnp.where(graph.known.away[:workers], jnp.inf, when)
    return jnp.concatenate([when, jnp.full(workers * sizes.boxes, jnp.inf, when.dtype)])


def _go_on(sizes: Sizes, key: Key, graph: Graph, state: HopState, j: Array, waits: Array) -> tuple[Happening, HopState]:
    """Worker j combines what it has, and starts its next iteration."""
    del key, waits
    workers, k = _workers(graph, sizes), state.iteration[j]
    around = _around(graph, state, state.near[j])
    if graph.known is not None:
        around = jnp.where(around == _FAR, k, around)
    behind = (state.skip > 0) & (around.max() - k > state.skip)
    target = jnp.where(behind, jnp.minimum(around.max(), around.min() + sizes.gap), k + 1)
    if graph.known is not None:  # only an absence puts a worker so far behind all of its neighbours
        others = jnp.where((state.near[j] == j) | graph.known.away[state.near[j]], _FAR, around).min()
        target = jnp.where((others < _FAR) & (others - k > sizes.gap), others, target)
    jumps = target > k + 1
    inbox = _inbox(graph, state, j, sizes.staleness)
    newest = _newest(graph, state, j, inbox, (k - sizes.staleness, target - 1))
    if not sizes.staleness:  # of tag k no more than those waited for
        newest = jnp.where(jumps | _first(inbox.arrival, inbox.needed), newest, -1)
    heard = newest >= 0
    weights = jnp.where(heard, jnp.where(jumps, 1, newest - (k - sizes.staleness) + 1), 0)
    weights = weights.at[0].set(jnp.where(jumps, 1, sizes.staleness + 1)).astype(state.sent.dtype)
    weights = weights / weights.sum()
    sender = jnp.where(heard, graph.neighbours[j], j)
    sources = workers + sender * sizes.boxes + jnp.where(heard, newest, k) % sizes.boxes
    row = Row(j, [(sources[s], weights[s]) for s in range(sources.shape[0])])

    told = _told(
        jnp.where(heard, graph.neighbours[j], graph.computes.shape[0]),
        (graph.links[j] & ~heard).sum(),
        0,
        inbox.flight,
    )
    return Happening([row], start=j, told=told), _moved(state, j, target)


def _around(graph: Graph, state: HopState, near: Array) -> Array:
    """The iterations of those whose tokens are needed; of those believed absent `_FAR`: theirs are not."""
    iteration = state.iteration[near]
    return iteration if graph.known is None else jnp.where(graph.known.away[near], _FAR, iteration)


def _moved(state: HopState, j: Array, target: Array) -> HopState:
    """The state when worker j starts an iteration, with a notice for each of those that it skips."""
    workers, boxes = state.sent.shape
    mine, following = jnp.arange(workers) == j, state.iteration[j] + 1
    tags = following + (jnp.arange(boxes) - following) % boxes  # of what comes next into each mailbox
    skipped = mine[:, None] & (tags < target)[None]
    return state._replace(
        iteration=jnp.where(mine, target, state.iteration),
        answered=jnp.where(mine, target - 1, state.answered),
        sent=jnp.where(skipped, jnp.inf, state.sent),  # now, as in `_finish`
        message=state.message & ~skipped,
    )


def _passed(state: HopState, seconds: Array) -> HopState:
    return state._replace(sent=jnp.where(jnp.isposinf(state.sent), 0, state.sent - seconds))


def _workers(graph: Graph, sizes: Sizes) -> int:
    """N, of a graph with mailboxes."""
    return graph.computes.shape[0] // (1 + sizes.boxes)


def _near(graph: Graph, workers: int) -> tuple[Array, Array]:
    """Whose tokens each worker needs, `[N, T]`, and how many hear it; on the host.

    T is at least D, so that padded graphs of one shape give states of one shape.
    """
    lists = neighbour_lists(graph)[:workers]
    around = [{i, *map(int, near)} for i, near in enumerate(lists)]
    hearers = np.zeros(workers, np.int32)
    for i, near in enumerate(lists):
        for j in near:
            around[int(j)].add(i)
            hearers[j] += 1
    width = max([graph.neighbours.shape[1], *map(len, around)])
    table = [sorted(some) + [i] * (width - len(some)) for i, some in enumerate(around)]
    return jnp.asarray(np.array(table), jnp.int32), jnp.asarray(hearers)


def _arrivals(graph: Graph, state: HopState, who: Array, staleness: int) -> tuple[Array, Array]:
    """When what each of some workers `[K]` waits for is there, `[K, D]` by slot, and of how many, `[K]`.

    Iterations are answered in order, and messages of a link do not overtake one another: the first of a window of tags
    is the first to be there.
    """
    senders, links = graph.neighbours[who], graph.links[who]
    tag = jnp.maximum(state.iteration[who] - staleness, 0)[:, None]
    sent = state.sent[senders, tag % state.sent.shape[1]]
    known = links & (state.answered[senders] >= tag)
    needed = links.sum(axis=1) - backups_of(graph, state.backups)[who]
    return jnp.where(known, sent + graph.latency[who], jnp.inf), needed


def _inbox(graph: Graph, state: HopState, j: Array, staleness: int) -> Inbox:
    """What worker j, which may go on, has before it."""
    (arrival,), (needed,) = _arrivals(graph, state, j[None], staleness)
    last = kth_smallest(arrival, needed)  # as for `_ready`, to the last bit
    finished = state.sent[j, state.iteration[j] % state.sent.shape[1]]
    set_out = jnp.where(arrival == last, arrival - graph.latency[j], jnp.inf).min()
    flight = jnp.where(jnp.isfinite(last), jnp.maximum(last - jnp.maximum(finished, set_out), 0), 0)
    return Inbox(jnp.maximum(last, 0), arrival, needed, flight)


def _first(arrival: Array, needed: Array) -> Array:
    """The first so many of some arrivals `[D]`, at equal times those in lower slots."""
    slot, one, other = jnp.arange(arrival.shape[0]), arrival[:, None], arrival[None]
    earlier = (other < one) | ((other == one) & (slot[None] < slot[:, None]))
    return earlier.sum(axis=1) < needed


def _newest(graph: Graph, state: HopState, j: Array, inbox: Inbox, window: tuple[Array, Array]) -> Array:
    """The tag of each neighbour's newest message to worker j that is there, `[D]` by slot, of tags in a window (both
    ends included); -1: none."""
    boxes = state.sent.shape[1]
    senders = graph.neighbours[j]
    answered = state.answered[senders][:, None]
    tags = answered - (answered - jnp.arange(boxes)[None]) % boxes  # what each mailbox holds; below 0: nothing yet
    there = state.sent[senders] + graph.latency[j][:, None] <= inbox.due
    fits = (tags >= jnp.maximum(window[0], 0)) & (tags <= window[1]) & state.message[senders] & there
    return jnp.where(fits & graph.links[j][:, None], tags, -1).max(axis=1)


def _told(heard: Array, backups: PyTree, messages: PyTree, flight: Array) -> dict[str, Array]:
    """For the accounts; alike in finishes and releases."""
    return {
        "heard": heard.astype(jnp.int32),
        "backups": jnp.asarray(backups, jnp.int32),
        "messages": jnp.asarray(messages, jnp.int32),
        "flight": flight[None],
        "updates": jnp.asarray(False),  # no worker's parameters change while it computes, so nothing is stale
    }


def _hop(*, b: int = 1, gap: int = GAP, staleness: int = 0, skip: int = 0) -> Policy:
    return hop(b, gap, staleness, skip)


METHODS = (
    Method(
        "hop",
        _hop,
        "Hop: queues of messages by iteration, b backup workers, a bounded gap, staleness, skipping",
        (HOP,),
        family="neighbours",
        mixing="row",
        absence="nobody waits for its messages or tokens; back again, it jumps to the last of its neighbours where it "
        "is more than gap behind",
    ),
)
