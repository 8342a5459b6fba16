"""Waiting rules with one end for everybody: `full`, `fastest`, `deadline`. (DTUR has a file of its own, `dtur.py`.)

A rule looks at one iteration's arrival times and says who is active and when the iteration ends. Settings that change
no shape are arrays in its state, so that a sweep over them is a `vmap`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from dbwjax.types import Graph, Key, WaitRule


def full() -> WaitRule:
    """Everybody waits for everybody (cb-Full, arXiv 2102.06280, section 5): the slowest worker ends the iteration."""

    def init_fn(graph: Graph) -> None:
        del graph

    def cut_fn(key: Key, graph: Graph, state: None, arrival: Array) -> tuple[Array, Array, None]:
        del key, graph
        return jnp.ones(arrival.shape, bool), arrival.max(), state

    return WaitRule(init_fn, cut_fn)


def fastest(k: int) -> WaitRule:
    """The iteration ends for everybody when `k` of the N workers have arrived; ties at that time are active too.

    Raises:
      ValueError: `k` below 1, and in `init` above N.
    """
    if k < 1:
        raise ValueError(f"k={k} waits for nobody; use 1 or more")

    def init_fn(graph: Graph) -> Array:
        workers = graph.neighbours.shape[0]
        if k > workers:
            raise ValueError(f"k={k} is more than the {workers} workers; use 1 to {workers}")
        return jnp.asarray(k)

    def cut_fn(key: Key, graph: Graph, state: Array, arrival: Array) -> tuple[Array, Array, Array]:
        del key, graph
        end = jnp.sort(arrival)[state - 1]
        return arrival <= end, end, state

    return WaitRule(init_fn, cut_fn)


def deadline(seconds: float) -> WaitRule:
    """The iteration ends after `seconds`, or before if everybody has arrived; `inf` is `full`.

    Raises:
      ValueError: `seconds` not above zero.
    """
    if not seconds > 0:
        raise ValueError(f"seconds={seconds:g} lets no time pass; use a number above 0 (inf waits for everybody)")

    def init_fn(graph: Graph) -> Array:
        del graph
        return jnp.asarray(seconds, jnp.result_type(float))

    def cut_fn(key: Key, graph: Graph, state: Array, arrival: Array) -> tuple[Array, Array, Array]:
        del key, graph
        end = jnp.minimum(arrival.max(), state)
        return arrival <= end, end, state

    return WaitRule(init_fn, cut_fn)
