"""Configurations made real, for runs and sweeps alike: what the policies of a comparison share in every world.

A world is one draw of delays, batches, initial parameters, partition and random graph. Worlds that agree in every shape
are one `Problem`, stacked into one batch; a run is the case of one problem whose worlds differ by their seed alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dbwjax.engine import batch, simulate
from dbwjax.engine.batch import Batch
from dbwjax.engine.blocks import in_slices, working_bytes
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.programs import canonical
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.extent import rows_of
from dbwjax.experiments.nets import Nets, files_of, named
from dbwjax.experiments.networks import Roles, networks_of, states_of
from dbwjax.experiments.training import slots_of
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.learners.schedules import require_rates
from dbwjax.network.delays import build_delays
from dbwjax.policies import build_policies
from dbwjax.runtime.memory import (
    gradient_block,
    gradient_slices,
    in_dtype,
    require_batch,
    require_workers,
    require_worlds,
    size_of,
)
from dbwjax.tasks import Task, build_task, of_one_width
from dbwjax.tasks.probe import fault_of
from dbwjax.types import DelayModel, Graph, Learner, Policy

_FREE = {"seed", "graph", "learning_rate", "delays", "latency", "bandwidth"}  # change no shape


class World(NamedTuple):
    """What one world is told."""

    values: dict[str, Any]  # by axis, in the order of the columns
    config: TrainConfig  # (a comparison in Python has its objects instead, and reads only `values`)
    graph_seed: int


class Problem(NamedTuple):
    """Worlds of one shape, stacked."""

    told: list[World]
    worlds: Batch  # of simulate.World
    policies: dict[str, Policy]
    states: dict[str, Any]  # [B, ...] by policy: what its `init` makes of each graph
    rates: np.ndarray  # [B] learning rates
    params: Any = None  # [B, ...] one worker's initial parameters; None: the clocks alone
    learner: Learner | None = None
    evaluate: Batch | None = None
    working: int = 0  # bytes of batches and activations of one simulation
    names: list[str] | None = None  # of the first world's workers, by number; None: their numbers
    networks: Mapping[str, Batch] = MappingProxyType({})  # of graphs, by policy that brings its own

    @property
    def workers(self) -> int:
        """N."""
        return self.worlds.tree.graph.neighbours.shape[-2]

    def trained(self) -> tuple[Learner, Batch]:
        """Learner and evaluations, of a problem in which something is learned."""
        if self.learner is None or self.evaluate is None:
            raise ValueError("nothing is learned in this problem; build it with a task")
        return self.learner, self.evaluate

    def alone(self, which: int) -> simulate.World:
        """One of the worlds."""
        return batch.alone(self.worlds, which)

    def worlds_of(self, spec: str) -> Batch:
        """The worlds as a policy sees them: with its own network, if it brings one."""
        if spec not in self.networks:
            return self.worlds
        net, worlds = self.networks[spec], self.worlds
        return Batch(worlds.tree._replace(graph=net.tree), worlds.axes._replace(graph=net.axes))

    def roles(self, spec: str) -> Roles:
        """Who is who in the network of a policy; the same in every world."""
        graph = batch.alone(self.worlds_of(spec), 0).graph
        computes = np.asarray(graph.computes)
        pick = self.policies[spec].evaluated
        return Roles(computes, computes if pick is None else np.asarray(pick(graph), bool))

    @property
    def nodes(self) -> int:
        """Of the largest network."""
        return max(self.worlds_of(spec).tree.graph.neighbours.shape[-2] for spec in self.policies)


def of_seeds(config: TrainConfig) -> list[World]:
    """The worlds of a run: world i is exactly `--seed` s + i."""
    seeds = range(config.seed, config.seed + config.seeds)
    return [World({"world": seed}, dataclasses.replace(config, seed=seed, seeds=1), seed) for seed in seeds]


def problems(told: Sequence[World], clocks_only: bool = False) -> list[Problem]:
    """All worlds made real, those of one shape together; checks everything and writes nothing.

    Raises:
      ValueError: one line about the first thing that is wrong.
    """
    policies = build_policies(told[0].config.policies)
    if not clocks_only:
        _check_memory(told)
    models = [build_delays(one.config.delays, one.config.workers, one.config.seed) for one in told]
    return [
        build([told[place] for place in members], [models[place] for place in members], policies, clocks_only)
        for members in same_shapes(told, models)
    ]


def same_shapes(told: Sequence[World], models: Sequence[DelayModel]) -> list[list[int]]:
    """Worlds that can be one batch: they differ in nothing that is compiled."""
    found: dict[Any, list[int]] = {}
    for place, (world, model) in enumerate(zip(told, models, strict=True)):
        fixed = tuple((name, value) for name, value in vars(world.config).items() if name not in _FREE)
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(model))
        found.setdefault((fixed, jax.tree.structure(model), shapes), []).append(place)
    return list(found.values())


def build(
    told: list[World], models: list[DelayModel], policies: dict[str, Policy], clocks_only: bool = False
) -> Problem:
    """Worlds that agree in every shape, stacked, with what each policy's `init` makes of them.

    Args:
      told: the worlds.
      models: their delays.
      policies: by SPEC.
      clocks_only: whether nothing is learned.

    Raises:
      ValueError: a graph, law, task or policy that cannot be.
    """
    config = told[0].config
    optimizer = build_optimizer(config.optimizer, config.learning_rate, config.schedule)
    require_rates(config.schedule, {one.config.learning_rate for one in told})
    nets, names = Nets(told, None if clocks_only else 0.0), named(told)
    tasks = {} if clocks_only else _tasks(told)
    first = next(iter(tasks.values()), None)
    nets.link(told, 0.0 if first is None else message_bytes(first, config.dtype))
    drawn = [
        Drawn(world.config.seed, nets.of(world), model, tasks.get(world.config.seed))
        for world, model in zip(told, models, strict=True)
    ]
    found = assemble(told, drawn, policies, optimizer, config.dtype)
    return found._replace(
        rates=np.array([one.config.learning_rate for one in told]), names=names.get(files_of(told[0]))
    )


class Drawn(NamedTuple):
    """What one world consists of."""

    seed: int
    graph: Graph
    delays: DelayModel
    task: Task | None


def assemble(
    told: list[World], drawn: list[Drawn], policies: dict[str, Policy], optimizer: Any, dtype: str | None = None
) -> Problem:
    """Worlds stacked into a problem.

    Args:
      told: what each world is called.
      drawn: what it consists of; all of the same shapes.
      policies: by name.
      optimizer: an optax `GradientTransformation`, one state per worker.
      dtype: in which parameters are kept; `None`: as the task makes them.

    Raises:
      ValueError: a policy that a graph does not allow, or worlds of different shapes.
    """
    keys = [jax.random.key(one.seed) for one in drawn]
    drawn = _canonical(drawn)
    worlds = [
        simulate.World(one.graph, one.delays, Partial(_nothing) if one.task is None else one.task.batches, key)
        for one, key in zip(drawn, keys, strict=True)
    ]
    policies = canonical(policies)
    nets = {spec: networks_of(spec, policy, [one.graph for one in drawn]) for spec, policy in policies.items()}
    states = {spec: states_of(spec, policy, nets[spec]) for spec, policy in policies.items()}
    own = {spec: batch.stack(nets[spec]) for spec, policy in policies.items() if policy.network is not None}
    found = Problem(told, _stacked(worlds, keys), policies, states, np.zeros(len(told)), networks=own)
    return found if drawn[0].task is None else _with_task(found, drawn, optimizer, dtype, keys)


def _stacked(worlds: list[simulate.World], keys: list) -> Batch:
    """The worlds in one batch. The key is stacked also where all worlds have the same: a policy may have no state, and
    something must say how many worlds there are."""
    found = batch.stack(worlds)
    return Batch(found.tree._replace(key=jnp.stack(keys)), found.axes._replace(key=0))


def _canonical(drawn: list[Drawn]) -> list[Drawn]:
    """The same worlds, whose delays, batches and evaluations are pytrees and find the programs of their equals."""
    delays = canonical([_as_pytree(one.delays) for one in drawn])
    tasks: Any = canonical(
        [one.task and (_as_pytree(one.task.batches), _as_pytree(one.task.evaluate)) for one in drawn]
    )
    return [
        one._replace(delays=law, task=one.task and one.task._replace(batches=data[0], evaluate=data[1]))
        for one, law, data in zip(drawn, delays, tasks, strict=True)
    ]


def _as_pytree(function: Any) -> Any:
    """A callable pytree: a plain function has no leaves of its own."""
    return Partial(function) if any(leaf is function for leaf in jax.tree.leaves(function)) else function


def _with_task(found: Problem, drawn: list[Drawn], optimizer: Any, dtype: str | None, keys: list) -> Problem:
    """The problem with what is learned in it."""
    first = drawn[0].task
    assert first is not None
    params = jax.vmap(first.init)(jnp.stack([stream(key, Stream.PARAMETERS) for key in keys]))
    params = params if dtype is None else in_dtype(params, dtype)
    single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    learner = from_optimizer(first.loss, optimizer)
    sample = jax.eval_shape(first.batches, keys[0], 0, 0)
    require_batch(sample)
    size = min((leaf.shape[0] for leaf in jax.tree.leaves(sample) if leaf.ndim), default=1)
    try:
        slices = gradient_slices(size, learner, single, sample)
    except Exception as error:  # of a user's loss
        raise ValueError(f"loss has no gradient: {fault_of(error)}") from error
    if slices > 1:
        learner = from_optimizer(in_slices(first.loss, slices), optimizer)
    workers = drawn[0].graph.neighbours.shape[0]
    learner = learner._replace(block=gradient_block(workers, learner, single, sample))
    return found._replace(
        params=params,
        learner=learner,
        evaluate=batch.stack([one.task.evaluate for one in drawn if one.task is not None]),
        working=working_bytes(learner, single, sample) * (learner.block or workers),
    )


def _nothing(key: Any, worker: Any, started: Any) -> None:
    """The batches of those who do not train."""


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


def _tasks(told: list[World]) -> dict[int, Task]:
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


def _shapes(task: Task, dtype: str | None) -> Any:
    """One worker's parameters as shapes."""

    def init(key: Any) -> Any:
        return task.init(key) if dtype is None else in_dtype(task.init(key), dtype)

    return jax.eval_shape(init, jax.random.key(0))


def message_bytes(task: Task, dtype: str | None = None) -> float:
    """Bytes of a message: one worker's parameters, in a type of their own or as the task makes them."""
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_shapes(task, dtype))))


def _check_memory(told: Sequence[World]) -> None:
    """Estimates the memory of all worlds from the tasks of one worker, before anything else is built.

    Raises:
      ValueError: more workers, more worlds or a larger batch than fit.
    """
    held = 0.0
    alike: dict[Any, list[TrainConfig]] = {}
    for one in told:
        skip = _FREE | {"workers", "partition"}
        fixed = tuple((name, value) for name, value in vars(one.config).items() if name not in skip)
        alike.setdefault(fixed, []).append(one.config)
    for configs in alike.values():
        config = max(configs, key=lambda one: one.workers)
        task = task_of(dataclasses.replace(config, partition="iid"), 1)
        model = _shapes(task, config.dtype)
        optimizer = build_optimizer(config.optimizer, config.learning_rate, config.schedule)
        require_batch(jax.eval_shape(task.batches, jax.random.key(0), 0, 0))
        data = float(sum(leaf.nbytes for leaf in jax.tree.leaves((task.batches, task.evaluate))))
        rows = rows_of(config.rows, config.steps, config.eval_every)
        slots, learner = slots_of(size_of(model), rows + 1), from_optimizer(task.loss, optimizer)
        require_workers(config.workers, model, learner, config.graph, config.steps or 0, data, slots)
        held += len(configs) * (size_of(model) + 4.0 * task.sizes.sum())
        require_worlds(len(told), held)
