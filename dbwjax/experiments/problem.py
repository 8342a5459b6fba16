"""A configuration made real: what all policies of a run share, and on which devices it is."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax

from dbwjax.engine.blocks import in_slices
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.sharding.shard import Devices
from dbwjax.engine.simulate import World
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.training import initial_params, make_world
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.runtime import processes
from dbwjax.runtime.devices import choose, note_padding
from dbwjax.runtime.memory import gradient_block, gradient_slices, in_dtype, require_workers
from dbwjax.tasks import Task, build_task
from dbwjax.types import Learner, Policy


class Problem(NamedTuple):
    """A configuration made real: what all policies share, and the policies by the SPEC that was typed."""

    world: World
    learner: Learner
    policies: dict[str, Policy]
    params: Any  # one worker's initial parameters
    task: Task
    devices: Devices | None = None  # where the workers are cut among several


def build(config: TrainConfig) -> Problem:
    """Makes a configuration real and checks all of it; writes nothing.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    policies = {spec: build_policy(spec) for spec in config.policies}
    optimizer = build_optimizer(config.optimizer, config.learning_rate)
    if config.workers > _SURELY_FIT:
        _check_memory(config, optimizer)
    graph = graphs.build_graph(config.graph, config.workers, config.seed)
    delays = laws.delays(config.delays, config.workers, config.seed)
    for spec, policy in policies.items():
        try:
            policy.init(graph)
        except ValueError as error:
            raise ValueError(f"policy '{spec}': {error}") from error
    task = _task(config, config.workers)
    one = _shapes(task, config)
    message = float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one)))
    graph = graphs.with_links(graph, latency=config.latency, bandwidth=config.bandwidth, message_bytes=message)
    world = make_world(task, graph, delays, config.seed)
    learner = from_optimizer(task.loss, optimizer)
    batch = jax.eval_shape(task.batches, jax.random.key(0), 0, 0)
    slices = gradient_slices(config.batch_size, learner.gradient, one, batch)
    if slices > 1:
        learner = from_optimizer(in_slices(task.loss, slices), optimizer)
    learner = learner._replace(block=gradient_block(config.workers, learner.gradient, one, batch))
    return Problem(world, learner, policies, in_dtype(initial_params(task, world), config.dtype), task)


_SURELY_FIT = 256
"""Workers; of more the memory is estimated before anything is built for them."""


def _task(config: TrainConfig, workers: int) -> Task:
    return build_task(
        config.dataset,
        model=config.model,
        workers=workers,
        partition=config.partition,
        batch_size=config.batch_size,
        seed=config.seed,
        pca=config.pca,
        data_dir=config.data_dir,
    )


def _shapes(task: Task, config: TrainConfig) -> Any:
    """One worker's parameters as shapes."""
    return jax.eval_shape(lambda key: in_dtype(task.init(key), config.dtype), jax.random.key(0))


def _check_memory(config: TrainConfig, optimizer: Any) -> None:
    """Estimates a run's memory from the task of one worker.

    Raises:
      ValueError: more workers than fit.
    """
    task = _task(dataclasses.replace(config, partition="iid"), 1)
    data = float(sum(leaf.nbytes for leaf in jax.tree.leaves((task.batches, task.evaluate))))
    learner = from_optimizer(task.loss, optimizer)
    require_workers(config.workers, _shapes(task, config), learner, config.graph, config.steps, data)


def place(setting: Problem, count: int | None) -> Problem:
    """The setting on the devices that are here, or on `count` of them.

    Raises:
      ValueError: more devices asked than there are.
    """
    chosen = choose(count)
    if len(chosen) == 1 and processes.count() == 1:
        return setting
    devices = Devices(setting.world.graph, chosen)
    if processes.is_first():
        note_padding(devices.exchange)
    world, task = setting.world, setting.task
    everywhere = devices.replicate(world)
    return setting._replace(
        world=everywhere, task=task._replace(evaluate=devices.replicate(task.evaluate)), devices=devices
    )
