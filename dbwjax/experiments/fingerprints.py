"""Which worlds draw the same: hashes of what they draw, so that no world counts twice.

`delays` are the first 64 of every worker, `graph` is who hears whom and how late, `timing` both and what breaks.
`learning` adds the initial parameters and the first batches of up to 8 workers. Where each worker's delays are all the
same, `delays` has the seed in it: such worlds share no random draw of delays, and must not be one cluster for it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.engine.batch import rows_of
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.experiments.problem import Problem

DRAWN, FEW = 64, 8
"""Computations of a worker whose delays, and workers whose batches are looked at."""


def fingerprints(problem: Problem) -> list[dict[str, Any]]:
    """One object a world: its axis values and its hashes, as `worlds.json` holds them."""
    found = []
    for which, told in enumerate(problem.told):
        world = problem.alone(which)
        drawn = drawn_delays(world)
        delays = _hash(drawn)
        graph = _hash((world.graph.neighbours, world.graph.links, world.graph.latency))
        timing = _hash([np.frombuffer((delays + graph).encode(), np.uint8), *jax.tree.leaves(world.events)])
        learning = timing
        if problem.params is not None:
            params = rows_of(problem.params, which)
            learning = _hash((np.frombuffer(timing.encode(), np.uint8), params, _batches(world, problem.workers)))
        if (drawn == drawn[:, :1]).all():
            # Nothing is drawn from one computation to the next, so worlds share a law here, but no draws.
            delays = _hash((drawn, jax.random.key_data(world.key)))
        hashes = {"graph": graph, "delays": delays, "timing": timing, "learning": learning}
        found.append({**told.values, "hashes": hashes})
    return found


def drawn_delays(world: World) -> np.ndarray:
    """`[N, 64]` seconds of every worker's first computations."""
    return np.asarray(_delays(world._replace(batches=None)))  # type: ignore[arg-type]


@jax.jit
def _delays(world: World) -> Any:
    nodes = world.graph.neighbours.shape[0]
    draw = jax.vmap(jax.vmap(world.delays, (None, None, 0)), (None, 0, None))
    return draw(stream(world.key, Stream.DELAYS), jnp.arange(nodes), jnp.arange(DRAWN))


def _batches(world: World, workers: int) -> list[Any]:
    """The first two batches of some workers."""
    key = stream(world.key, Stream.BATCHES)
    some = range(0, workers, -(-workers // FEW))
    return [jax.device_get(_batch(world.batches, key, worker, started)) for worker in some for started in (0, 1)]


@jax.jit
def _batch(batches: Any, key: Any, worker: Any, started: Any) -> Any:
    return batches(key, worker, started)


def _hash(tree: Any) -> str:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]
