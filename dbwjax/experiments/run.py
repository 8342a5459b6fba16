"""One call of the command: every policy trained in turn in one world, kept in a run folder that can be resumed.

Everything a person may have got wrong is checked by `build` before the folder is touched. Between chunks the state, the history
and the place in `metrics.jsonl` go into one checkpoint, so a run killed at any instant goes on from the last one and
ends with bitwise the same numbers: delays and batches are functions of the seed, and all sums are taken in order.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax import specs
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.simulate import World
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.training import History, Training, chunk_of, initial_params, make_world
from dbwjax.network import delays as laws
from dbwjax.network import facts, graphs
from dbwjax.policies import build_policy
from dbwjax.tasks import build_task
from dbwjax.types import Learner, Policy


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived, and a checkpoint was kept."""

    def __init__(self, signum: int, where: str):
        super().__init__(f"stopped at {where}; the same command goes on from there")
        self.signum = signum


class Setting(NamedTuple):
    """A configuration made real: what all policies share, and the policies by the SPEC that was typed."""

    world: World
    learner: Learner
    policies: dict[str, Policy]
    params: Any  # one worker's initial parameters
    task: Any


def build(config: TrainConfig) -> Setting:
    """Makes a configuration real and checks all of it; writes nothing.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    policies = {spec: build_policy(spec) for spec in config.policies}
    graph = specs.build(config.graph, graphs.GRAPHS, "graph", config.workers, seed=config.seed)
    delays = laws.delays(config.delays, config.workers, config.seed)
    for spec, policy in policies.items():
        try:
            policy.init(graph)
        except ValueError as error:
            raise ValueError(f"policy '{spec}': {error}") from error
    task = build_task(
        config.dataset,
        model=config.model,
        workers=config.workers,
        partition=config.partition,
        batch_size=config.batch_size,
        seed=config.seed,
        pca=config.pca,
        data_dir=config.data_dir,
    )
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(task.init, key)
    message = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    graph = graphs.with_links(graph, latency=config.latency, bandwidth=config.bandwidth, message_bytes=float(message))
    world = make_world(task, graph, delays, config.seed)
    optimizer = build_optimizer(config.optimizer, config.learning_rate)
    return Setting(world, from_optimizer(task.loss, optimizer), policies, initial_params(task, world), task)
