"""The worlds of a sweep made real and sorted into groups of one shape, each stacked into one batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.engine import batch, simulate
from dbwjax.engine.batch import Batch
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.config import build_optimizer
from dbwjax.experiments.memory_check import in_dtype
from dbwjax.experiments.sweep_config import SweepConfig, World
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.tasks import Task, build_task
from dbwjax.types import Learner, Policy

_FREE = {"seed", "graph", "learning_rate", "delays", "latency", "bandwidth"}  # change no shape


class Group(NamedTuple):
    """Worlds of one shape, stacked."""

    workers: int
    members: list[int]  # their places among all worlds
    worlds: Batch  # of simulate.World
    states: dict[str, Any]  # [B, ...] by policy: what its `init` makes of each graph
    params: Any  # [B, ...]; None: timing only
    rates: np.ndarray  # [B]
    learner: Learner | None
    evaluate: Batch | None


def same_shapes(everything: list[World]) -> list[list[int]]:
    """Worlds that can be one batch: they differ in nothing that is compiled."""
    found: dict[Any, list[int]] = {}
    for place, world in enumerate(everything):
        fixed = tuple((name, value) for name, value in vars(world.config).items() if name not in _FREE)
        law = laws.delays(world.config.delays, world.config.workers, world.config.seed)
        # Other partitions give workers more or fewer samples in every seed, and tables of another width.
        table = None if world.config.partition == "iid" else world.config.seed
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(law))
        found.setdefault((fixed, jax.tree.structure(law), shapes, table), []).append(place)
    return list(found.values())


def build_group(config: SweepConfig, everything: list[World], members: list[int], policies: dict[str, Policy]) -> Group:
    """Worlds that agree in every shape, stacked, with what each policy's `init` makes of them.

    Args:
      config: the sweep.
      everything: all worlds.
      members: places of the group's worlds among them.
      policies: by SPEC.

    Raises:
      ValueError: a graph, law, task or policy that cannot be.
    """
    made = [everything[place] for place in members]
    nets = [graphs.build_graph(one.config.graph, one.config.workers, one.graph_seed) for one in made]
    slots = max(net.neighbours.shape[1] for net in nets)
    tasks = [None] * len(made) if config.timing_only else _tasks(made)
    stacked, keys = [], [jax.random.key(one.config.seed) for one in made]
    for one, net, task, key in zip(made, nets, tasks, keys, strict=True):
        told = one.config
        size = 0.0 if task is None else _message(task, told.dtype)
        linked = graphs.with_links(
            graphs.pad(net, slots), latency=told.latency, bandwidth=told.bandwidth, message_bytes=size
        )
        delays = laws.delays(told.delays, told.workers, told.seed)
        stacked.append(simulate.World(linked, delays, _nothing if task is None else task.batches, key))
    states = {spec: _states(spec, policy, stacked) for spec, policy in policies.items()}
    rates = np.array([one.config.learning_rate for one in made])
    first = tasks[0]
    if first is None:
        return Group(made[0].config.workers, members, batch.stack(stacked), states, None, rates, None, None)
    params = jax.vmap(first.init)(jnp.stack([stream(key, Stream.PARAMETERS) for key in keys]))
    params = in_dtype(params, made[0].config.dtype)
    learner = from_optimizer(first.loss, build_optimizer(made[0].config.optimizer, float(rates[0])))
    evaluate = batch.stack([task.evaluate for task in tasks if task is not None])
    return Group(made[0].config.workers, members, batch.stack(stacked), states, params, rates, learner, evaluate)


def _states(spec: str, policy: Policy, made: list[simulate.World]) -> Any:
    try:
        return batch.stack_all([policy.init(world.graph) for world in made])
    except ValueError as error:
        raise ValueError(f"policy '{spec}': {error}") from error


def _nothing(key: Any, worker: Any, started: Any) -> None:
    """The batches of those who do not train."""


def _tasks(made: list[World]) -> list[Any]:
    """One task a seed; what tasks have in common (the data) is kept once."""
    found: dict[int, Task] = {}
    for one in made:
        told = one.config
        if told.seed in found:
            continue
        task = build_task(
            told.dataset,
            model=told.model,
            workers=told.workers,
            partition=told.partition,
            batch_size=told.batch_size,
            seed=told.seed,
            pca=told.pca,
            data_dir=told.data_dir,
        )
        first = next(iter(found.values()), task)
        same = jax.tree.map(
            lambda old, new: old if np.array_equal(old, new) else new,
            (first.batches, first.evaluate),
            (task.batches, task.evaluate),
        )
        found[told.seed] = task._replace(batches=same[0], evaluate=same[1])
    return [found[one.config.seed] for one in made]


def _message(task: Task, dtype: str) -> float:
    shapes = jax.tree.leaves(jax.eval_shape(lambda key: in_dtype(task.init(key), dtype), jax.random.key(0)))
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in shapes))
