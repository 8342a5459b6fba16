"""The worlds of a sweep made real and sorted into groups of one shape, each stacked into one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dbwjax.engine import batch, simulate
from dbwjax.engine.batch import Batch
from dbwjax.engine.blocks import working_bytes
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.sweep.config import SweepConfig, World
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.runtime.memory import gradient_block, in_dtype
from dbwjax.tasks import Task, build_task, of_one_width
from dbwjax.types import Graph, Learner, Policy

_FREE = {"seed", "graph", "learning_rate", "delays", "latency", "bandwidth"}  # change no shape


class Group(NamedTuple):
    """Worlds of one shape, stacked."""

    workers: int
    members: list[int]  # their places among all worlds
    worlds: Batch  # of simulate.World
    states: dict[str, Any]  # [B, ...] by policy: what its `init` makes of each graph
    params: Any  # [B, ...]; None: timing only
    rates: np.ndarray  # [B]
    working: int  # bytes of batches and activations of one simulation
    learner: Learner | None
    evaluate: Batch | None


def same_shapes(everything: list[World]) -> list[list[int]]:
    """Worlds that can be one batch: they differ in nothing that is compiled."""
    found: dict[Any, list[int]] = {}
    for place, world in enumerate(everything):
        fixed = tuple((name, value) for name, value in vars(world.config).items() if name not in _FREE)
        law = laws.delays(world.config.delays, world.config.workers, world.config.seed)
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(law))
        found.setdefault((fixed, jax.tree.structure(law), shapes), []).append(place)
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
    told = made[0].config
    tasks = {} if config.timing_only else _tasks(made)
    first = next(iter(tasks.values()), None)
    nets = _Nets(made, 0.0 if first is None else _message(first, told.dtype))
    keys = [jax.random.key(one.config.seed) for one in made]
    stacked = []
    for one, key in zip(made, keys, strict=True):
        law = laws.delays(one.config.delays, one.config.workers, one.config.seed)
        batches = Partial(_nothing) if config.timing_only else tasks[one.config.seed].batches
        stacked.append(simulate.World(nets.of(one), law, batches, key))
    states = {spec: _states(spec, policy, nets, made) for spec, policy in policies.items()}
    rates = np.array([one.config.learning_rate for one in made])
    worlds = batch.stack(stacked)
    if first is None:
        return Group(told.workers, members, worlds, states, None, rates, 0, None, None)
    params = jax.vmap(first.init)(jnp.stack([stream(key, Stream.PARAMETERS) for key in keys]))
    learner = from_optimizer(first.loss, build_optimizer(told.optimizer, float(rates[0])))
    params = in_dtype(params, told.dtype)
    single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    drawn = jax.eval_shape(first.batches, keys[0], 0, 0)
    learner = learner._replace(block=gradient_block(told.workers, learner.gradient, single, drawn))
    working = working_bytes(learner.gradient, single, drawn) * (learner.block or told.workers)
    evaluate = batch.stack([tasks[one.config.seed].evaluate for one in made])
    return Group(told.workers, members, worlds, states, params, rates, working, learner, evaluate)


class _Nets:
    """The graphs of worlds, each built once and padded to one width; worlds that share one share its arrays.

    Args:
      made: the worlds.
      size: bytes of a message.
    """

    def __init__(self, made: list[World], size: float):
        bare = {
            key: graphs.build_graph(*key)
            for key in dict.fromkeys((one.config.graph, one.config.workers, one.graph_seed) for one in made)
        }
        slots = max(net.neighbours.shape[1] for net in bare.values())
        bare = {key: graphs.pad(net, slots) for key, net in bare.items()}
        self._linked = {
            key: graphs.with_links(bare[key[:3]], latency=key[3], bandwidth=key[4], message_bytes=size)
            for key in dict.fromkeys(map(self.key, made))
        }

    @staticmethod
    def key(world: World) -> tuple:
        """What a graph with its links depends on."""
        told = world.config
        return told.graph, told.workers, world.graph_seed, told.latency, told.bandwidth

    def of(self, world: World) -> Graph:
        """A world's graph."""
        return self._linked[self.key(world)]

    def each(self, function: Callable[[Graph], Any]) -> dict[tuple, Any]:
        """A function of every graph, by `key`."""
        return {key: function(net) for key, net in self._linked.items()}


def _states(spec: str, policy: Policy, nets: _Nets, made: list[World]) -> Any:
    try:
        found = nets.each(policy.init)
    except ValueError as error:
        raise ValueError(f"policy '{spec}': {error}") from error
    return batch.stack_all([found[nets.key(world)] for world in made])


def _nothing(key: Any, worker: Any, started: Any) -> None:
    """The batches of those who do not train."""


def _tasks(made: list[World]) -> dict[int, Task]:
    """The task of every seed; what tasks have in common (the data) is kept once."""
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
    return dict(zip(found, of_one_width(list(found.values())), strict=True))


def _message(task: Task, dtype: str) -> float:
    shapes = jax.tree.leaves(jax.eval_shape(lambda key: in_dtype(task.init(key), dtype), jax.random.key(0)))
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in shapes))
