"""A configuration made real: what all policies of a run share, and on which devices it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from dbwjax.engine.layout import Exchange
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.parallel import Devices
from dbwjax.engine.simulate import World
from dbwjax.experiments import hosts
from dbwjax.experiments.config import TrainConfig, build_optimizer
from dbwjax.experiments.training import initial_params, make_world
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.tasks import Task, build_task
from dbwjax.types import Learner, Policy


class Setting(NamedTuple):
    """A configuration made real: what all policies share, and the policies by the SPEC that was typed."""

    world: World
    learner: Learner
    policies: dict[str, Policy]
    params: Any  # one worker's initial parameters
    task: Task
    devices: Devices | None = None  # where the workers are cut among several


def build(config: TrainConfig) -> Setting:
    """Makes a configuration real and checks all of it; writes nothing.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    policies = {spec: build_policy(spec) for spec in config.policies}
    optimizer = build_optimizer(config.optimizer, config.learning_rate)
    graph = graphs.build_graph(config.graph, config.workers, config.seed)
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
    shapes = jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)))
    message = float(sum(leaf.size * leaf.dtype.itemsize for leaf in shapes))
    graph = graphs.with_links(graph, latency=config.latency, bandwidth=config.bandwidth, message_bytes=message)
    world = make_world(task, graph, delays, config.seed)
    return Setting(world, from_optimizer(task.loss, optimizer), policies, initial_params(task, world), task)


def place(setting: Setting, count: int | None) -> Setting:
    """The setting on the devices that are here, or on `count` of them.

    Raises:
      ValueError: more devices asked than there are.
    """
    chosen = choose(count)
    if len(chosen) == 1 and hosts.count() == 1:
        return setting
    devices = Devices(setting.world.graph, chosen)
    if hosts.is_first():
        note_padding(devices.exchange)
    world, task = setting.world, setting.task
    everywhere = devices.replicate(world)
    return setting._replace(
        world=everywhere, task=task._replace(evaluate=devices.replicate(task.evaluate)), devices=devices
    )


def choose(count: int | None) -> Sequence[Any]:
    """The devices to use: all that are here, or `count` of them, the same number of each process.

    Raises:
      ValueError: more than there are, or a number that the processes cannot share.
    """
    everything, processes = jax.devices(), hosts.count()
    if count is None:
        return everything
    if count > len(everything):
        remedy = "; on a CPU, start with JAX_NUM_CPU_DEVICES set" if jax.default_backend() == "cpu" else ""
        raise ValueError(
            f"--devices {count} is more than the {len(everything)} that are here; use 1 to {len(everything)}{remedy}"
        )
    if count % processes:
        raise ValueError(f"--devices {count} cannot be shared by {processes} processes; use a multiple of {processes}")
    each = count // processes
    return [one for process in range(processes) for one in _of_process(everything, process)[:each]]


def _of_process(devices: Sequence[Any], process: int) -> list[Any]:
    return [one for one in devices if one.process_index == process]


def note_padding(exchange: Exchange) -> None:
    """Says on stderr that the workers do not divide among the devices, where they do not."""
    rows = exchange.devices * exchange.height
    if rows == exchange.nodes:
        return
    fits = [count for count in range(1, exchange.devices) if exchange.nodes % count == 0]
    print(
        f"note: {exchange.nodes} workers on {exchange.devices} devices are padded to {rows} rows; "
        f"--devices {max(fits)} needs no padding",
        file=sys.stderr,
    )
