"""The tasks of worlds: what is learned in each, how large its parameters are, and whether all of it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dbwjax.engine.learner import from_optimizer
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.extent import rows_of
from dbwjax.experiments.training import slots_of
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.runtime.memory import in_dtype, require_batch, require_workers, require_worlds, size_of
from dbwjax.tasks import Task, build_task, of_one_width

if TYPE_CHECKING:
    from dbwjax.experiments.problem import World

FREE = {"seed", "graph", "learning_rate", "delays", "latency", "bandwidth", "world", "events"}
"""What changes no shape."""


def task_of(config: TrainConfig, workers: int | None = None) -> Task:
    """The task that a configuration names.

    Raises:
      ValueError: a data set that cannot be had, or a partition that cannot be.
    """
    return build_task(
        config.dataset,
        model=config.model,
        workers=config.workers if workers is None else workers,
        partition=config.partition,
        batch_size=config.batch_size,
        seed=config.seed,
        pca=config.pca,
        data_dir=config.data_dir,
    )


def tasks_of(told: Sequence[World]) -> dict[int, Task]:
    """The task of every seed; what tasks have in common (the data) is kept once."""
    found: dict[int, Task] = {}
    for one in told:
        if one.config.seed in found:
            continue
        task = task_of(one.config)
        first = next(iter(found.values()), task)
        same = jax.tree.map(
            lambda old, new: old if np.array_equal(old, new) else new,
            (first.batches, first.evaluate),
            (task.batches, task.evaluate),
        )
        found[one.config.seed] = task._replace(batches=same[0], evaluate=same[1])
    return dict(zip(found, of_one_width(list(found.values())), strict=True))


def shapes_of(task: Task, dtype: str | None) -> Any:
    """One worker's parameters as shapes."""

    def init(key: Any) -> Any:
        return task.init(key) if dtype is None else in_dtype(task.init(key), dtype)

    return jax.eval_shape(init, jax.random.key(0))


def message_bytes(task: Task, dtype: str | None = None) -> float:
    """Bytes of a message: one worker's parameters, in a type of their own or as the task makes them."""
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes_of(task, dtype))))


def require_memory(told: Sequence[World]) -> None:
    """Estimates the memory of all worlds from the tasks of one worker, before anything else is built.

    Raises:
      ValueError: more workers, more worlds or a larger batch than fit.
    """
    held = 0.0
    alike: dict[Any, list[TrainConfig]] = {}
    for one in told:
        skip = FREE | {"workers", "partition"}
        fixed = tuple((name, value) for name, value in vars(one.config).items() if name not in skip)
        alike.setdefault(fixed, []).append(one.config)
    for configs in alike.values():
        config = max(configs, key=lambda one: one.workers)
        task = task_of(dataclasses.replace(config, partition="iid"), 1)
        model = shapes_of(task, config.dtype)
        optimizer = build_optimizer(config.optimizer, config.learning_rate, config.schedule)
        require_batch(jax.eval_shape(task.batches, jax.random.key(0), 0, 0))
        data = float(sum(leaf.nbytes for leaf in jax.tree.leaves((task.batches, task.evaluate))))
        rows = rows_of(config.rows, config.steps, config.eval_every)
        slots, learner = slots_of(size_of(model), rows + 1), from_optimizer(task.loss, optimizer)
        require_workers(config.workers, model, learner, config.graph, config.steps or 0, data, slots)
        held += len(configs) * (size_of(model) + 4.0 * task.sizes.sum())
        require_worlds(len(told), held)
