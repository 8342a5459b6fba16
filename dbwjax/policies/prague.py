"""Prague: random groups average, each as soon as its members have finished what they are computing."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from dbwjax.limits import whole
from dbwjax.network.draws import words
from dbwjax.policies.events import Happening, Release, Row, events
from dbwjax.policies.gossip import require_no_latency, require_workers
from dbwjax.policies.method import Method
from dbwjax.policies.papers import PRAGUE
from dbwjax.types import Graph, Key, Policy

NEVER = np.iinfo(np.int32).max


class Groups(NamedTuple):
    """The groups that have not averaged yet, each named by the worker that made it."""

    members: Int[Array, "N G"]  # of worker i's group, i first; N: it has none
    order: Int[Array, " N"]  # when it was made, counted in groups; NEVER: it has none
    finished: Bool[Array, " N"]  # who has finished and waits for its group
    made: Int[Array, ""]  # groups so far


def prague(group: int = 4) -> Policy:
    """Partial all-reduce of random groups (Luo et al., ASPLOS 2020, arXiv 1909.08029, as recalled).

    Who finishes applies its update to its own parameters. If it belongs to a group that has not averaged yet, it serves
    the oldest such one; otherwise it makes one, of itself and `group - 1` others drawn from all workers. A group
    averages as soon as all its members have finished their *current* computation and it is the oldest group of each:
    groups that share a worker so take their turns, and none waits for ever, because the oldest of all waits for
    computations only. Then its members start their next computation. With `group=1` that is local SGD without any
    averaging, with `group=N` it is `full` on the complete graph.

    The paper's group generator, as recalled: a central one draws groups; its Group Buffer (the requester takes the
    oldest group that it belongs to) is above, its Group Division and its static schedule are not. Groups are of all
    workers: the graph does not matter. The average takes no time. It counts as `2 (group - 1)` messages, what a ring
    all-reduce of the group moves; that count is ours. With momentum or Adam the state is the worker's own and is not
    averaged.

    Args:
      group: workers that average together.

    Raises:
      ValueError: `group` below 1, and in `init` above the number of workers; in `init`, links that take time, or a
        graph with a node that never computes.
    """
    group = whole("group", group)

    def init_fn(graph: Graph) -> Groups:
        workers = len(graph.computes)
        if group > workers:
            raise ValueError(f"group={group} is more than the {workers} workers; use 1 to {workers}")
        require_workers(graph, "prague averages workers only")
        require_no_latency(graph, "prague", "its groups take no heed of links; use --latency 0")
        members = jnp.full((workers, group), workers, jnp.int32)
        none = jnp.zeros((), jnp.int32)
        return Groups(members, jnp.full(workers, NEVER, jnp.int32), jnp.zeros(workers, bool), none)

    return events(init_fn, _finish, Release(_ready, _average), stale=False)


def _finish(key: Key, graph: Graph, state: Groups, i: Array, waits: Array) -> tuple[Happening, Groups]:
    """Worker i applies its update, makes a group if it is in none, and waits."""
    del waits
    workers, group = state.members.shape
    makes = ~(state.members == i).any()
    drawn = _there(graph, jnp.concatenate([i[None], others(key, i, workers, group)]).astype(jnp.int32))
    here = makes & (jnp.arange(workers) == i)
    after = Groups(
        jnp.where(here[:, None], drawn[None], state.members),
        jnp.where(here, state.made, state.order),
        state.finished | (jnp.arange(workers) == i),
        state.made + makes,
    )
    nobody = jnp.full(group, workers, jnp.int32)
    # As many rows and sources as an average has.
    row = Row(nobody.at[0].set(i), [(i, 1.0), *[(i, 0.0)] * (group - 1)], push=1.0)
    return Happening([row], start=nobody, told=_told(0)), after


def _ready(graph: Graph, state: Groups) -> Array:
    """When each group may average, seconds from now, by the worker that made it."""
    workers = len(state.order)
    oldest = jnp.full(workers, NEVER, jnp.int32).at[state.members].min(state.order[:, None], mode="drop")
    of_members = state.members.clip(max=workers - 1)
    there = state.finished[of_members] & (oldest[of_members] == state.order[:, None])
    if graph.known is not None:
        there |= _there(graph, state.members) == workers
    return jnp.where(there.all(axis=1) & (state.order != NEVER), 0.0, jnp.inf)


def _average(key: Key, graph: Graph, state: Groups, j: Array, waits: Array) -> tuple[Happening, Groups]:
    """The group that worker j made averages, and its members start their next computations."""
    del key, waits
    workers, group = state.members.shape
    of_group, here = state.members[j], jnp.arange(workers) == j
    after = Groups(
        jnp.where(here[:, None], workers, state.members),
        jnp.where(here, NEVER, state.order),
        state.finished & ~(jnp.arange(workers)[:, None] == of_group[None]).any(axis=1),
        state.made,
    )
    if graph.known is None:
        row = Row(of_group, [(of_group[m], 1.0 / group) for m in range(group)])
        return Happening([row], start=of_group, told=_told(2 * (group - 1))), after
    members = _there(graph, of_group)
    some = members < workers
    share = some / jnp.maximum(some.sum(), 1).astype(graph.latency.dtype)
    row = Row(members, [(members[m], share[m]) for m in range(group)])
    # A member that is away and had finished begins its next computation when it is back.
    goes = jnp.where(state.finished.at[of_group].get(mode="fill", fill_value=False), of_group, workers)
    return Happening([row], start=goes, told=_told(2 * jnp.maximum(some.sum() - 1, 0))), after


def _there(graph: Graph, members: Int[Array, "*some G"]) -> Int[Array, "*some G"]:
    """Members of groups, N in place of those believed absent."""
    if graph.known is None:
        return members
    workers = graph.known.away.shape[0]
    return jnp.where(graph.known.away.at[members].get(mode="fill", fill_value=True), workers, members)


def others(key: Key, i: Array, workers: int, group: int) -> Int[Array, " G-1"]:
    """`group - 1` workers other than i, every set of them as likely as any other.

    Robert Floyd's way: of the numbers 0 to n - 1, for t from n - m to n - 1 draw one up to t, and take t in its place
    where it has been taken already.

    Args:
      key: of the event.
      i: who makes the group.
      workers: N.
      group: how many it has, i among them.
    """
    count, choices = group - 1, workers - 1
    if not count:
        return jnp.zeros(0, jnp.int32)
    bounds = jnp.arange(choices - count + 1, choices + 1, dtype=jnp.uint32)
    draws = jax.vmap(words, (None, 0, None))(key, jnp.arange(count), jnp.zeros((), jnp.int32))[0] % bounds

    def take(t: Array, taken: Array) -> Array:
        drawn, last = draws[t].astype(jnp.int32), choices - count + t
        return taken.at[t].set(jnp.where((taken == drawn).any(), last, drawn))

    taken = jax.lax.fori_loop(0, count, take, jnp.full(count, -1, jnp.int32), unroll=min(count, 8))
    return taken + (taken >= i)


def _told(messages: int | Array) -> dict[str, PyTree]:
    """For the accounts; nobody is a neighbour here, and none is waited for in vain."""
    return {
        "messages": jnp.asarray(messages, jnp.int32),
        "backups": jnp.zeros((), jnp.int32),
        "updates": jnp.asarray(False),  # no worker's parameters change while it computes, so nothing is stale
    }


def _prague(*, group: int = 4) -> Policy:
    return prague(group)


METHODS = (
    Method(
        "prague",
        _prague,
        "Prague: a finisher makes a random group, which averages when its members have finished",
        (PRAGUE,),
        family="pairwise",
        mixing="doubly",
        absence="it is drawn into no group, and leaves those that it is in, which average without it",
    ),
)
