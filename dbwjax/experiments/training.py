"""Training one policy from beginning to end, without files: what the command line and a notebook have in common.

`Training` advances a simulation in chunks on the device and keeps on the host what the device cannot: absolute virtual
time in float64, and the history of durations and active sets. `train` is the whole thing in one call.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.sharding.shard import Devices, first_rows, stacks_of
from dbwjax.engine.simulate import SimState, World
from dbwjax.experiments.metrics import measure
from dbwjax.types import DelayModel, Graph, Learner, Policy

LONGEST_CHUNK = 100
"""Steps in one call of the device, at most: the host reports and may keep a checkpoint between calls."""


class Diverged(RuntimeError):
    """A loss that counted was not finite."""

    exit_code = 3

    def __init__(self, step: int, worker: int | None):
        who = "the mean model's test loss" if worker is None else f"worker {worker}'s loss"
        super().__init__(f"{who} is not finite at step {step}; use a smaller learning rate")


class Stalled(RuntimeError):
    """An iteration that never ends: everybody waits for somebody who never arrives."""

    exit_code = 3

    def __init__(self, step: int, duration: float):
        super().__init__(
            f"the iteration at step {step} never ends (duration {duration}); check the delays and the policy"
        )


class UnreachableRow(RuntimeError):
    """A plan reads a row that is not moved between these devices."""

    exit_code = 3

    def __init__(self, step: int):
        super().__init__(
            f"the policy reads a node that is no neighbour in the graph, at step {step}; several devices move "
            "neighbours' rows only: use --devices 1, or link the two nodes"
        )


class History(NamedTuple):
    """One entry per step done."""

    duration: np.ndarray  # [T] float32 seconds
    active: np.ndarray  # [T, N] bool
    backup_workers: np.ndarray  # [T] float32, mean over workers
    loss: np.ndarray  # [T] float32, mean over the updates that counted
    gradients: np.ndarray  # [T] int32, updates that counted

    @classmethod
    def empty(cls, nodes: int) -> History:
        """A history of no steps."""
        none = np.zeros(0, np.float32)
        return cls(none, np.zeros((0, nodes), bool), none, none, np.zeros(0, np.int32))


class Training:
    """A policy being trained.

    Args:
      policy, learner, world, params: as for `simulate.init`.
      evaluate: a task's `evaluate`.
      devices: cuts the workers among several devices; `world` and `evaluate` must then be theirs (`Devices.replicate`).

    Attributes:
      state: the simulation on the device.
      history: what each step did, on the host.
      step: steps done.
      virtual_time: seconds, float64.
      wall_time: seconds spent in `advance`.
      evaluated: the step of the last row.
    """

    def __init__(
        self,
        policy: Policy,
        learner: Learner,
        world: World,
        params: Any,
        evaluate: Any,
        devices: Devices | None = None,
    ):
        self.policy, self.learner, self.world, self.evaluate = policy, learner, world, evaluate
        self.devices = devices
        self.counts = None if devices is None else devices.counts(world.graph)
        self.state: SimState = (devices or simulate).init(policy, learner, world, params)
        self.history = History.empty(world.graph.neighbours.shape[0])
        self.virtual_time = 0.0
        self.wall_time = 0.0
        self.evaluated = 0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history.duration)

    def advance(self, steps: int) -> None:
        """Runs `steps` steps on the device.

        Raises:
          Diverged: a counted loss was not finite; the training cannot go on.
          Stalled: a duration was not finite.
          UnreachableRow: the plan does not fit several devices.
        """
        begin = time.perf_counter()
        self.state, records = (self.devices or simulate).run(self.policy, self.learner, self.world, self.state, steps)
        records = jax.device_get(records)
        self.wall_time += time.perf_counter() - begin
        endless = np.flatnonzero(~np.isfinite(records.duration))
        if endless.size:
            raise Stalled(self.step + int(endless[0]), float(records.duration[endless[0]]))
        astray = np.flatnonzero(records.broken == -2)
        if astray.size:
            raise UnreachableRow(self.step + int(astray[0]))
        broken = np.flatnonzero(records.broken >= 0)
        if broken.size:
            raise Diverged(self.step + int(broken[0]), int(records.broken[broken[0]]))
        # Addition in order, so that the sum does not depend on how the steps were cut into chunks.
        for duration in records.duration.astype(np.float64):
            self.virtual_time += float(duration)
        new = [getattr(records, name) for name in History._fields]
        self.history = History(*(np.concatenate(pair) for pair in zip(self.history, new, strict=True)))

    def measure(self) -> dict[str, float | int | None]:
        """One row of metrics, in the columns of `metrics.jsonl` (without the policy's name).

        Averages are over the steps since the last row.

        Raises:
          Diverged: the mean model's test loss is not finite.
        """
        model = self.state.model if self.devices is None else self.devices.by_row(self.state.model)
        measured = measure(self.world.graph, self.evaluate, model, self.counts)
        figures = {name: float(value) for name, value in measured.items()}
        if not np.isfinite(figures["test_loss"]):
            raise Diverged(self.step, None)
        since = slice(self.evaluated, self.step)
        self.evaluated = self.step
        moved = since.stop > since.start

        def average(values: np.ndarray) -> float | None:
            return float(np.mean(values[since], dtype=np.float64)) if moved else None

        return {
            "step": self.step,
            "virtual_time": self.virtual_time,
            "wall_time": self.wall_time,
            "train_loss": average(self.history.loss),
            "test_loss": figures.pop("test_loss"),
            "test_accuracy": figures.pop("test_accuracy", None),
            "consensus_distance": figures.pop("consensus_distance"),
            "active_fraction": average(self.history.active.mean(axis=1)),
            "backup_workers": average(self.history.backup_workers),
            "gradients": int(self.history.gradients.sum()),
            **figures,
        }

    @property
    def order(self) -> list[int] | None:
        """The worker in each row of the stacks, where they are cut among devices; `None`: worker i in row i."""
        return None if self.devices is None else self.devices.order.tolist()

    def like(self, order: list[int] | None) -> SimState:
        """What a checkpoint holds whose stacks have their rows in `order`, and where to read it to."""
        if order == self.order:
            return self.state
        rows = self.world.graph.neighbours.shape[0] if order is None else len(order)

        def stack(leaf: jax.Array) -> jax.ShapeDtypeStruct:
            sharding = leaf.sharding if self.devices is None else self.devices.to_read(rows)
            return jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype, sharding=sharding)

        return self.state._replace(model=stacks_of(self.state.model, stack))

    def reshard(self, state: SimState, order: list[int] | None) -> SimState:
        """A state read as `like(order)`, with its rows where this training has them."""
        if order == self.order:
            return state
        nodes = self.world.graph.neighbours.shape[0]
        first = first_rows(np.arange(nodes) if order is None else np.asarray(order), nodes)
        if self.devices is not None:
            return state._replace(model=self.devices.adopt(state.model, first))
        return state._replace(model=stacks_of(state.model, lambda leaf: leaf[first]))

    def restore(self, state: SimState, history: History, virtual_time: float, wall_time: float, evaluated: int) -> None:
        """Puts the training where a checkpoint left it; `evaluated` is the step of its last row."""
        self.state, self.history = state, history
        self.virtual_time, self.wall_time, self.evaluated = virtual_time, wall_time, evaluated


class Result(NamedTuple):
    """What `train` returns."""

    rows: list[dict]  # metrics, one row per evaluation, as in `metrics.jsonl`
    history: History
    params: Any  # [N, ...] each worker's parameters at the end


def make_world(task: Any, graph: Graph, delays: DelayModel, seed: int = 0) -> World:
    """The world that all policies of a comparison share."""
    return World(graph, delays, task.batches, jax.random.key(seed))


def initial_params(task: Any, world: World) -> Any:
    """One worker's parameters, the same for all workers and policies of a seed."""
    return task.init(stream(world.key, Stream.PARAMETERS))


def chunk_of(eval_every: int) -> int:
    """Steps per device call: a divisor of `eval_every` near `LONGEST_CHUNK`, or all of it when it has none.

    >>> chunk_of(50), chunk_of(500), chunk_of(101)
    (50, 100, 101)
    """
    divisors = [size for size in range(LONGEST_CHUNK // 4, LONGEST_CHUNK + 1) if eval_every % size == 0]
    return max(divisors, default=eval_every)


def train(
    policy: Policy,
    task: Any,
    graph: Graph,
    delays: DelayModel,
    optimizer: Any,
    *,
    steps: int,
    eval_every: int = 50,
    seed: int = 0,
) -> Result:
    """Trains one policy in memory.

    Two calls with the same task, graph, delays and seed see the same delays, batches and initial parameters, whatever
    their policies: their difference is the policies'.

    Args:
      policy: who waits for whom.
      task: from `build_task` or `from_arrays`.
      graph: who hears whom.
      delays: seconds per computation.
      optimizer: an optax `GradientTransformation`, one state per worker.
      steps: T.
      eval_every: steps between rows of metrics.
      seed: of delays, batches and initial parameters.

    Returns:
      The metrics, the history of the steps and the final parameters.

    Raises:
      ValueError: numbers out of range, or a policy that does not fit the graph.
      Diverged: a loss was not finite.
    """
    for name, value in (("steps", steps), ("eval_every", eval_every)):
        if value < 1:
            raise ValueError(f"{name}={value} is not a number of steps; use 1 or more")
    world = make_world(task, graph, delays, seed)
    learner = from_optimizer(task.loss, optimizer)
    training = Training(policy, learner, world, initial_params(task, world), task.evaluate)
    rows = [training.measure()]
    while training.step < steps:
        until = min(training.step + eval_every, steps)
        while training.step < until:
            training.advance(min(chunk_of(eval_every), until - training.step))
        rows.append(training.measure())
    return Result(rows, training.history, training.state.model.params)
