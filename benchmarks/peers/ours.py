"""dbwjax: the engine with its policy `dpsgd`, on the job's batches instead of drawn ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from benchmarks.peers import job
from benchmarks.peers.plain_jax import loss_of
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.simulate import World
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy


def drawn(images: Any, labels: Any, draws: Any, key: Any, worker: Any, started: Any) -> tuple:
    """The job's batch of a computation."""
    which = draws[started % draws.shape[0], worker]
    return images[which], labels[which]


def build(data: dict, rate: float) -> job.Advance:
    """The engine's state and its compiled run."""
    workers = len(data["neighbours"])
    adjacency = np.zeros((workers, workers), bool)
    adjacency[np.arange(workers)[:, None], data["neighbours"]] = True
    np.fill_diagonal(adjacency, False)
    batches = Partial(drawn, *(jnp.asarray(data[name]) for name in ("images", "labels", "draws")))
    delay = delays.build_delays("shifted_exponential", workers, 0)
    world = World(graphs.from_adjacency(adjacency), delay, batches, jax.random.key(0))
    policy, learner = build_policy("dpsgd"), from_optimizer(loss_of, optax.sgd(rate))
    one = [jnp.asarray(leaf) for leaf in job.parameters(data)]
    state = simulate.init(policy, learner, world, one)

    def advance(first: int, steps: int) -> float:
        nonlocal state
        state, record = simulate.run(policy, learner, world, state, steps)
        jax.block_until_ready(state)
        return float(record.loss[-1].mean())

    return advance


if __name__ == "__main__":
    job.main(build)
