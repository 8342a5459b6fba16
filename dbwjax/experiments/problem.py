"""Configurations made real, for runs and sweeps alike: what the policies of a comparison share in every world.

A world is one draw of delays, batches, initial parameters, partition and random graph. Worlds that agree in every shape
are one `Problem`, stacked into one batch; a run is the case of one problem whose worlds differ by their seed alone.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
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
from dbwjax.experiments.nets import Nets, files_of, named
from dbwjax.experiments.networks import Roles, networks_of, require_unbroken, sizes_of, states_of, wholes_of
from dbwjax.experiments.world_tasks import FREE, message_bytes, require_memory, shapes_of, tasks_of
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.learners.schedules import require_rates
from dbwjax.network.absences import padded
from dbwjax.network.breakage import broken, build_events
from dbwjax.network.delays import build_delays
from dbwjax.policies import build_policies
from dbwjax.runtime.memory import (
    gradient_block,
    gradient_slices,
    in_dtype,
    require_batch,
)
from dbwjax.tasks import Task
from dbwjax.tasks.probe import fault_of
from dbwjax.types import DelayModel, Events, Graph, Learner, Policy


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
    networks: Mapping[str, Batch] = MappingProxyType({})  # of graphs, by policy whose graphs are not the worlds'
    wholes: Mapping[str, Batch] = MappingProxyType({})  # of batches, by policy that computes on whole objectives

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
        """The worlds as a policy sees them: with its own network, messages and data, if it brings any."""
        tree, axes = self.worlds
        if spec in self.networks:
            net = self.networks[spec]
            tree, axes = tree._replace(graph=net.tree), axes._replace(graph=net.axes)
        if spec in self.wholes:
            data = self.wholes[spec]
            tree, axes = tree._replace(batches=data.tree), axes._replace(batches=data.axes)
        return Batch(tree, axes)

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
        require_memory(told)
    models, events = [], []
    names: dict[Any, list[str]] = {}
    for one in told:
        config = one.config
        law = build_delays(config.delays, config.workers, config.seed)
        models.append(broken(law, config.world, config.workers))
        if config.events is not None and not names:
            names = named(told)
        events.append(build_events(config.world, config.workers, config.events, names.get(files_of(one))))
    stood = list(zip(models, padded(events), strict=True))
    return [
        build([told[place] for place in members], [stood[place] for place in members], policies, clocks_only)
        for members in same_shapes(told, stood)
    ]


def same_shapes(told: Sequence[World], models: Sequence[Any]) -> list[list[int]]:
    """Worlds that can be one batch: they differ in nothing that is compiled. `models`: their delays and events."""
    found: dict[Any, list[int]] = {}
    for place, (world, model) in enumerate(zip(told, models, strict=True)):
        fixed = tuple((name, value) for name, value in vars(world.config).items() if name not in FREE)
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(model))
        found.setdefault((fixed, jax.tree.structure(model), shapes), []).append(place)
    return list(found.values())


def build(
    told: list[World],
    models: list[tuple[DelayModel, Events | None]],
    policies: dict[str, Policy],
    clocks_only: bool = False,
) -> Problem:
    """Worlds that agree in every shape, stacked, with what each policy's `init` makes of them.

    Args:
      told: the worlds.
      models: their delays, and what breaks.
      policies: by SPEC.
      clocks_only: whether nothing is learned.

    Raises:
      ValueError: a graph, law, task or policy that cannot be.
    """
    config = told[0].config
    optimizer = build_optimizer(config.optimizer, config.learning_rate, config.schedule)
    require_rates(config.schedule, {one.config.learning_rate for one in told})
    nets, names = Nets(told, None if clocks_only else 0.0), named(told)
    tasks = {} if clocks_only else tasks_of(told)
    first = next(iter(tasks.values()), None)
    size = 0.0 if first is None else message_bytes(first, config.dtype)
    drawn = [
        Drawn(world.config.seed, nets.of(world, size), model, tasks.get(world.config.seed), events)
        for world, (model, events) in zip(told, models, strict=True)
    ]

    def linked(size: float) -> list[Graph]:
        return [nets.of(world, size) for world in told]

    found = assemble(told, drawn, policies, optimizer, config.dtype, linked)
    return found._replace(
        rates=np.array([one.config.learning_rate for one in told]), names=names.get(files_of(told[0]))
    )


class Drawn(NamedTuple):
    """What one world consists of."""

    seed: int
    graph: Graph
    delays: DelayModel
    task: Task | None
    events: Events | None = None


def assemble(
    told: list[World],
    drawn: list[Drawn],
    policies: dict[str, Policy],
    optimizer: Any,
    dtype: str | None = None,
    linked: Callable[[float], list[Graph]] | None = None,
) -> Problem:
    """Worlds stacked into a problem.

    Args:
      told: what each world is called.
      drawn: what it consists of; all of the same shapes.
      policies: by name.
      optimizer: an optax `GradientTransformation`, one state per worker.
      dtype: in which parameters are kept; `None`: as the task makes them.
      linked: the worlds' graphs for messages of so many bytes; `None`: those drawn, for all sizes.

    Raises:
      ValueError: a policy that a graph or a task does not allow, or worlds of different shapes.
    """
    keys = [jax.random.key(one.seed) for one in drawn]
    drawn = _canonical(drawn)
    worlds = [
        simulate.World(
            one.graph, one.delays, Partial(_nothing) if one.task is None else one.task.batches, key, one.events
        )
        for one, key in zip(drawn, keys, strict=True)
    ]
    policies = canonical(policies)
    bare = _of_size(drawn, policies, optimizer, dtype, linked)
    nets = {spec: networks_of(spec, policy, bare[spec]) for spec, policy in policies.items()}
    require_unbroken(policies, nets, drawn[0].events)
    states = {spec: states_of(spec, policy, nets[spec]) for spec, policy in policies.items()}
    shared = [one.graph for one in drawn]
    own = {spec: batch.stack(net) for spec, net in nets.items() if any(map(operator.is_not, net, shared))}
    tasks = [one.task for one in drawn if one.task is not None]
    wholes = {spec: wholes_of(spec, policy, tasks) for spec, policy in policies.items()} if tasks else {}
    data = {spec: batch.stack(what) for spec, what in wholes.items() if what is not None}
    found = Problem(told, _stacked(worlds, keys), policies, states, np.zeros(len(told)), networks=own, wholes=data)
    return found if drawn[0].task is None else _with_task(found, drawn, optimizer, dtype, keys)


def _of_size(
    drawn: list[Drawn], policies: dict[str, Policy], optimizer: Any, dtype: str | None, linked: Any
) -> dict[str, list[Graph]]:
    """By policy, the workers' graphs with links as slow as its messages are large."""
    shared, first = [one.graph for one in drawn], drawn[0].task
    if first is None:
        return dict.fromkeys(policies, shared)
    sizes = sizes_of(policies, first, optimizer, shapes_of(first, dtype))
    own = {size: linked(size) for size in set(sizes.values()) - {message_bytes(first, dtype)}} if linked else {}
    return {spec: own.get(size, shared) for spec, size in sizes.items()}


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
    learner = learner._replace(block=gradient_block(workers, learner, single, sample), oracle=first.oracle)
    return found._replace(
        params=params,
        learner=learner,
        evaluate=batch.stack([one.task.evaluate for one in drawn if one.task is not None]),
        working=working_bytes(learner, single, sample) * (learner.block or workers),
    )


def _nothing(key: Any, worker: Any, started: Any) -> None:
    """The batches of those who do not train."""
