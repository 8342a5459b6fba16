"""Pairwise gossip, one event a step (AD-PSGD: Lian et al. 2018, arXiv 1710.06952), against what an event must move.

    python -m benchmarks events

One worker finishes, averages with a partner and applies its update: two rows of the parameters are read and written,
one row of the starting points is read and one written, and one gradient is computed. That is independent of N, so the
rate at N=256 over that at N=64 shows whether anything passes over all workers. The limit is those six rows at the
speed of a copy; `gradient alone` is the same gradient of one worker, which with one sample a batch is little more.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.step import RATE, problem
from benchmarks.worlds import initial_params, make_world
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.network import delays, graphs
from dbwjax.types import Graph, Plan, Policy

CASES = (64, 256)
ROWS = 6


def pairwise(picks: np.ndarray) -> Policy:
    """AD-PSGD with given partners: `picks[event, worker]`, used again after the last. M = 1, R = 2, stale updates."""

    def init_fn(graph: Graph) -> tuple:
        return jnp.asarray(picks), jnp.zeros((), jnp.int32)

    def decide_fn(key: Any, graph: Graph, state: tuple, remaining: jax.Array, feedback: Any) -> tuple[Plan, tuple]:
        partners, event = state
        i = jnp.argmin(remaining)
        rows = jnp.stack([i, partners[event % partners.shape[0], i]])
        plan = Plan(
            duration=remaining[i],
            fresh=jnp.ones(1, bool),
            mix=jnp.full((2, 2), 0.5),
            sources=jnp.stack([rows, rows]),
            push=jnp.asarray([[1.0], [0.0]]),
            workers=i[None],
            rows=rows,
            restart=i[None],
        )
        return plan, (partners, event + 1)

    return Policy(init_fn, decide_fn, stale=True)


def measure(quick: bool) -> dict:
    """Events a second at each N, in turns with the copy and the gradient."""
    steps, batch = 20 if quick else 200, 1
    work, figures = {}, {}
    for workers in (8, 16) if quick else CASES:
        task = problem(workers, batch)
        graph = graphs.random_regular(workers, degree=4, seed=0)
        near = np.asarray(graph.neighbours)[:, 1:]
        column = np.random.default_rng(0).integers(0, near.shape[1], (1000, workers))
        policy, learner = pairwise(near[np.arange(workers), column]), from_optimizer(task.loss, optax.sgd(RATE))
        world = make_world(task, graph, delays.build_delays("shifted_exponential", workers, 0))
        one = initial_params(task, world)
        work[f"N={workers}"] = _engine(policy, learner, world, one, steps)
    row = sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    work["copy"], copied = timing.copy(64 if quick else 512)
    work["gradient alone"] = _gradient(task, one, steps)
    seconds = timing.take_turns(work, 3 if quick else 9)
    cases = [name for name in work if name.startswith("N=")]
    figures["limit: copy bandwidth [GB/s]"] = timing.rates(seconds["copy"], copied / 1e9)
    for name in cases:
        figures[name] = {
            "events a second": timing.rates(seconds[name], steps),
            "fraction of a copy of the rows moved": timing.ratios(seconds, name, "copy", steps * ROWS * row / copied),
            "fraction of the gradient alone": timing.ratios(seconds, name, "gradient alone"),
        }
    figures[f"rate at {cases[1]} over {cases[0]}"] = timing.ratios(seconds, cases[1], cases[0])
    return figures


def _engine(policy: Policy, learner: Any, world: Any, one: Any, steps: int) -> Any:
    box = [simulate.init(policy, learner, world, one)]

    def call() -> jax.Array:
        box[0], record = simulate.run(policy, learner, world, box[0], steps)
        return record.loss

    return call


def _gradient(task: Any, one: Any, steps: int) -> Any:
    batch = task.batches(jax.random.key(0), jnp.asarray(0), jnp.asarray(0))

    @jax.jit
    def many(params: Any) -> Any:
        def body(params: Any, _: None) -> tuple[Any, None]:
            return jax.tree.map(lambda p, g: p - 1e-6 * g, params, jax.grad(task.loss)(params, batch)), None

        return jax.lax.scan(body, params, None, length=steps)[0]

    return lambda: many(one)
