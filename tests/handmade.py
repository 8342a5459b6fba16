"""Small policies of other families, written by hand: they prove that the engine already carries what later methods
need.

`pairwise` and `asynchronous_server` and `bounded_staleness` compute at stale copies with M = 1, `server` writes other
rows than it computes, `push_sum` moves mass, `loudest` reads training, `pairwise` also restarts by node number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.types import Graph, Plan, Policy


def pairwise(picks: np.ndarray, numbered: bool = False) -> Policy:
    """AD-PSGD with given partners: `picks[event, worker]`. M = 1, R = 2, stale updates."""

    def init_fn(graph: Graph) -> tuple:
        return jnp.asarray(picks), jnp.zeros((), jnp.int32)

    def decide_fn(key: Any, graph: Graph, state: tuple, remaining: jax.Array, feedback: Any) -> tuple[Plan, tuple]:
        partners, event = state
        i = jnp.argmin(remaining)
        j = partners[event, i]
        rows = jnp.stack([i, j])
        restart = i[None] if numbered else jnp.arange(remaining.shape[0]) == i
        plan = Plan(
            duration=remaining[i],
            fresh=jnp.ones(1, bool),
            mix=jnp.full((2, 2), 0.5),
            sources=jnp.stack([rows, rows]),
            push=jnp.asarray([[1.0], [0.0]]),
            workers=i[None],
            rows=rows,
            restart=restart,
        )
        return plan, (partners, event + 1)

    return Policy(init_fn, decide_fn, stale=True)


def server(backups: int) -> Policy:
    """A synchronous server, the last node: everybody takes the server and the mean of the first `N - b` updates."""

    def init_fn(graph: Graph) -> None:
        return None

    def decide_fn(key: Any, graph: Graph, state: None, remaining: jax.Array, feedback: Any) -> tuple[Plan, None]:
        nodes = remaining.shape[0]
        workers = jnp.arange(nodes - 1)
        end = jnp.sort(remaining)[nodes - 2 - backups]
        fresh = remaining[:-1] <= end
        takes = jnp.zeros((nodes, nodes)).at[:, -1].set(1.0)
        mean = jnp.broadcast_to((fresh / fresh.sum())[None, :], (nodes, nodes - 1))
        return Plan(end, fresh, takes, push=mean, workers=workers), None

    return Policy(init_fn, decide_fn)


def asynchronous_server() -> Policy:
    """Push on finish, pull, go on: M = 1, R = 2 (the server and the worker), stale updates."""

    def init_fn(graph: Graph) -> None:
        return None

    def decide_fn(key: Any, graph: Graph, state: None, remaining: jax.Array, feedback: Any) -> tuple[Plan, None]:
        last = remaining.shape[0] - 1
        i = jnp.argmin(remaining)
        rows = jnp.stack([i, jnp.asarray(last)])
        plan = Plan(
            duration=remaining[i],
            fresh=jnp.ones(1, bool),
            mix=jnp.ones((2, 1)),
            sources=jnp.full((2, 1), last),
            push=jnp.ones((2, 1)),
            workers=i[None],
            rows=rows,
            restart=i[None],
        )
        return plan, None

    return Policy(init_fn, decide_fn, stale=True)


class Waiting(NamedTuple):
    """Clocks of the workers and who waits to be released."""

    clock: jax.Array
    waits: jax.Array
    bound: jax.Array


def bounded_staleness(bound: int) -> Policy:
    """SSP: whoever finished clock c goes on iff `c - min clock <= bound`; the others are released later, and pull
    then."""

    def init_fn(graph: Graph) -> Waiting:
        workers = graph.neighbours.shape[0] - 1
        return Waiting(jnp.zeros(workers, jnp.int32), jnp.zeros(workers, bool), jnp.asarray(bound))

    def decide_fn(key: Any, graph: Graph, state: Waiting, remaining: jax.Array, feedback: Any) -> tuple[Plan, Waiting]:
        nodes = remaining.shape[0]
        busy = jnp.where(state.waits, jnp.inf, remaining[:-1])
        i = jnp.argmin(busy)
        clock = state.clock.at[i].add(1)
        waits = state.waits.at[i].set(True)
        released = waits & (clock - clock.min() <= state.bound)
        # Only the released rows and the server's are written; N is padding.
        rows = jnp.concatenate([jnp.where(released, jnp.arange(nodes - 1), nodes), jnp.asarray([nodes - 1])])
        plan = Plan(
            duration=busy[i],
            fresh=jnp.ones(1, bool),
            mix=jnp.ones((nodes, 1)),
            sources=jnp.full((nodes, 1), nodes - 1),
            push=jnp.ones((nodes, 1)),
            workers=i[None],
            rows=rows,
            restart=jnp.concatenate([released, jnp.zeros(1, bool)]),
        )
        return plan, Waiting(clock, waits & ~released, state.bound)

    return Policy(init_fn, decide_fn, stale=True)


def push_sum(columns: np.ndarray) -> Policy:
    """SGP on a fixed column-stochastic matrix, everybody waiting for everybody: mass moves."""

    def init_fn(graph: Graph) -> jax.Array:
        return jnp.asarray(columns)

    def decide_fn(key: Any, graph: Graph, state: jax.Array, remaining: jax.Array, feedback: Any) -> tuple:
        return Plan(remaining.max(), jnp.ones(remaining.shape, bool), state), state

    return Policy(init_fn, decide_fn, pushsum=True)


def loudest() -> Policy:
    """Reads training: nobody mixes, and the worker with the largest loss of the last step sits the next one out."""

    def init_fn(graph: Graph) -> None:
        return None

    def decide_fn(key: Any, graph: Graph, state: None, remaining: jax.Array, feedback: Any) -> tuple[Plan, None]:
        nodes = remaining.shape[0]
        quiet = jnp.arange(nodes) != jnp.argmax(feedback.loss)
        fresh = quiet | ~feedback.fresh.any()
        return Plan(remaining.max(), fresh, jnp.eye(nodes)), None

    return Policy(init_fn, decide_fn, reads_training=True)
