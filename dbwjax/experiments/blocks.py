"""How the simulations of a comparison are walked: blocks of one policy in some worlds, one after another.

A block's simulations are shared among the devices (mesh axis `sims`). On a CPU each device holds as many as fit the
cache beside one another, on an accelerator all of them, or as many as fit its memory. One world alone, a world that
does not fit a device, or several processes: the workers are cut among the devices instead (mesh axis `workers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax import limits
from dbwjax.engine import batch
from dbwjax.engine.batch import Batch
from dbwjax.engine.sharding.shard import Devices
from dbwjax.experiments.placing import CutAmongDevices, Placing, SideBySide
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.training import SINGLE_WORKERS, slots_of
from dbwjax.runtime import memory, processes
from dbwjax.runtime.devices import note_padding

CACHE = 2 << 20
"""Bytes of parameters that a CPU's device runs side by side: beyond the cache a batch is slower than its simulations
alone."""


class Block(NamedTuple):
    """Some simulations of one policy; the unit that is finished or not."""

    number: int
    spec: str
    problem: int  # its place among the problems
    which: np.ndarray  # places among the problem's worlds


class Sizes(NamedTuple):
    """How a problem is cut into blocks."""

    size: int  # simulations of a full block
    most: int  # so many would fit the memory
    cut: bool  # whether a simulation's workers are cut among the devices


def sizes(problem: Problem, devices: Sequence[Any], rows: int) -> Sizes:
    """How many simulations run at once.

    Args:
      problem: the worlds.
      devices: to be used.
      rows: of the longest grid.

    Raises:
      ValueError: not even one for each device fits the memory.
    """
    count = len(problem.told)
    if processes.count() > 1 or (count == 1 and len(devices) > 1):
        return Sizes(1, 1, True)
    used = min(len(devices), count)
    stack, held, each = _bytes(problem, rows)
    on_cpu = jax.default_backend() == "cpu"
    # A CPU's devices share one memory; each has its own copy of the data.
    free = limits.available_bytes() / (used if on_cpu else 1)
    most = int((free - held) // each)
    if most < 1 and len(devices) > 1 and not on_cpu:
        return Sizes(1, 1, True)
    if most < 1:
        fits = max(int(problem.workers * (free - held) // each), 0)
        fewer = "fewer --devices, " if used > 1 else ""
        remedy = f"use {fewer}at most {fits} workers, or a smaller --model"
        limits.require_memory(held + each, f"a simulation of --workers {problem.workers}", remedy, int(free))
    wanted = max(1, int(CACHE // stack)) if on_cpu else count
    return Sizes(min(used * min(wanted, most), count), used * most, False)


def _bytes(problem: Problem, rows: int) -> tuple[float, float, float]:
    """Bytes of one simulation's stack, of the data, and of all that one simulation takes: its stack in a step and in a
    checkpoint, the gradients' batches, models that wait to be evaluated, and single workers where they are kept."""
    learner, evaluate = problem.trained()
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), problem.params)
    model = memory.size_of(one)
    stack = problem.nodes * (model + memory.size_of(jax.eval_shape(learner.init, one)))
    held = float(memory.size_of((problem.worlds.tree.batches, evaluate.tree)))
    read = memory.readings_bytes(one, slots_of(model, rows))
    own = problem.workers * model if problem.workers <= SINGLE_WORKERS else 0
    return stack, held, stack * (memory.COPIES + 1) + problem.working + read + own


def blocks(specs: Sequence[str], found: Sequence[Problem], cut: Sequence[int]) -> Iterator[Block]:
    """Every block, policy by policy; `cut` are the sizes of full blocks, by problem."""
    number = 0
    for spec in specs:
        for place, (problem, size) in enumerate(zip(found, cut, strict=True)):
            for begin in range(0, len(problem.told), size):
                yield Block(number, spec, place, np.arange(begin, min(begin + size, len(problem.told))))
                number += 1


class Places:
    """Where the blocks of one problem run.

    Args:
      problem: the worlds.
      devices: to be used.
      cut: as `Sizes.cut`.
      size: simulations of a full block.
    """

    def __init__(self, problem: Problem, devices: Sequence[Any], cut: bool, size: int):
        self.cut, self.size = cut, size
        self.devices = devices if cut else devices[: min(len(devices), size)]
        self.mesh = None if cut else batch.mesh_of(self.devices)
        worlds = batch.spread_common(problem.worlds, self.mesh)
        nets = {spec: batch.spread_common(net, self.mesh) for spec, net in problem.networks.items()}
        evaluate = batch.spread_common(problem.trained()[1], self.mesh)
        self.problem = problem._replace(worlds=worlds, networks=nets, evaluate=evaluate)
        self._said = False

    def filled(self, which: np.ndarray) -> np.ndarray:
        """A block that is shorter or does not divide repeats itself, so that nothing is compiled anew."""
        shares = 1 if self.mesh is None else self.mesh.size
        return np.resize(which, -(-self.size // shares) * shares)

    def place(self, block: Block) -> Placing:
        """Where one block runs."""
        problem, policy = self.problem, self.problem.policies[block.spec]
        learner, evaluate = problem.trained()
        which = self.filled(block.which)
        rates = None if (problem.rates == problem.rates[0]).all() else problem.rates[which]
        params = batch.rows_of(problem.params, which)
        if self.cut:
            return self._cut(block, batch.rows_of(params, 0), None if rates is None else rates[0])
        states = batch.rows_of(problem.states[block.spec], which)
        worlds: Batch = batch.take(problem.worlds_of(block.spec), which)
        evaluations = batch.take(evaluate, which)
        return SideBySide(policy, learner, worlds, evaluations, states, params, self.mesh, rates)

    def _cut(self, block: Block, params: Any, rate: float | None) -> CutAmongDevices:
        problem = self.problem
        world = batch.alone(problem.worlds_of(block.spec), int(block.which[0]))
        learner, evaluations = problem.trained()
        evaluate = batch.alone(evaluations, int(block.which[0]))
        where = Devices(world.graph, self.devices)
        if processes.is_first() and not self._said:
            note_padding(where.exchange)
            self._said = True
        policy = problem.policies[block.spec]
        world, evaluate = where.replicate((world, evaluate))
        return CutAmongDevices(policy, learner, world, evaluate, params, where, rate)
