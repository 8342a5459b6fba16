"""Synchronous parameter servers: the server waits for the first k updates, adds their mean, and everybody pulls.

    mix = everybody takes the server      push = 1/k of each of the first k      X' = mix @ X + push @ U

`server` is k = N, `server_backup` is k = N - b under its usual name, `k_sync` names k. Servers that do not make
everybody wait are in `server_events.py`. With plain SGD the mean of the updates is the paper's step; with momentum or
Adam the optimiser's state is each worker's own, and the server adds what the workers made of their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from dbwjax.limits import whole
from dbwjax.policies.method import Method
from dbwjax.policies.papers import K_SYNC, SYNCHRONOUS_SGD
from dbwjax.policies.presence import at_most_there, end_not_before
from dbwjax.policies.serving import first_of, pulled, require_at_most, served, travel, workers_of
from dbwjax.types import Graph, Key, Plan, Policy


def synchronous(count: Callable[[int], int]) -> Policy:
    """A server that waits for the first so many of the workers' updates.

    Worker i's update reaches the server l_i seconds after its finish, the model reaches worker i l_i seconds after the
    iteration's end, and whoever is late is cancelled by it. The first computations start at time 0 from the common
    model, with no message. Of updates that arrive at one instant those of the lowest numbers count; exactly k do.

    Messages: the model to every worker, and an update from each that finishes before the model is there, counted or in
    vain.

    Args:
      count: k of the number of workers; checks it.
    """

    def init_fn(network: Graph) -> Int[Array, ""]:
        return jnp.asarray(count(workers_of(network)), jnp.int32)

    def decide_fn(key: Key, network: Graph, k: Array, remaining: Array, feedback: Any) -> tuple[Plan, Array]:
        del key, feedback
        seconds, computes = travel(network), network.computes
        k, asked = at_most_there(network, k), k
        fresh, end = first_of(remaining + seconds, k)
        end = end_not_before(network, end)
        ready = end + seconds
        plan = Plan(
            duration=end,
            ready=ready,
            **pulled(network, fresh, k),
            messages=computes.sum() + (computes & (remaining <= ready)).sum(),
        )
        return plan, asked

    return served(Policy(init_fn, decide_fn))


def server() -> Policy:
    """A synchronous server: all updates are waited for (bulk-synchronous SGD)."""
    return synchronous(lambda workers: workers)


def server_backup(b: int = 1) -> Policy:
    """Static backup workers (Chen et al. 2016, arXiv 1604.00981): the updates of the b slowest are thrown away.

    Raises:
      ValueError: `b` below 0; in `init`, no worker left to wait for.
    """
    b = whole("b", b, 0)

    def count(workers: int) -> int:
        if b >= workers:
            raise ValueError(f"b={b} leaves none of the {workers} workers to wait for; use 0 to {workers - 1}")
        return workers - b

    return synchronous(count)


def k_sync(k: int) -> Policy:
    """K-sync SGD (Dutta et al. 2018, arXiv 1803.01113): the first k of the workers count, the others are cancelled.

    Raises:
      ValueError: `k` below 1; in `init`, more than the workers.
    """
    k = whole("k", k)

    def count(workers: int) -> int:
        require_at_most("k", k, workers)
        return k

    return synchronous(count)


def _server() -> Policy:
    return server()


def _server_backup(*, b: int = 1) -> Policy:
    return server_backup(b)


def _k_sync(*, k: int) -> Policy:
    return k_sync(k)


METHODS = (
    Method(
        "server",
        _server,
        "a parameter server that waits for everybody",
        (SYNCHRONOUS_SGD,),
        family="server",
        mixing="row",
        absence="the server waits for it until its absence is known, then for those that are there; back again, it "
        "hands in what it had begun",
    ),
    Method(
        "server_backup",
        _server_backup,
        "a parameter server that throws away the updates of the b slowest workers",
        (SYNCHRONOUS_SGD,),
        family="server",
        mixing="row",
        absence="the server waits for N - b updates, or for all that are there where those are fewer",
    ),
    Method(
        "k_sync",
        _k_sync,
        "the server takes the first k workers' updates and cancels the others",
        (K_SYNC,),
        family="server",
        mixing="row",
        absence="the server waits for k updates, or for all that are there where those are fewer",
    ),
)
