"""Clocks alone in Python: which rule is quick, over thousands of worlds at once. Nothing is learned."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dbwjax import numbers
from dbwjax.engine.batch import mesh_of
from dbwjax.experiments.blocks import blocks
from dbwjax.experiments.budget import grids
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.drawn import Broken, built_of, drawn_of, joined, slots_of
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.given import baseline_of, budget_of, policies_of, require_room
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.sweep.cells import Cells, axes_of, renamed
from dbwjax.experiments.sweep.clocks import clock_rows, clocks_at_once, require_clocks_end
from dbwjax.experiments.sweep.config import is_random
from dbwjax.limits import whole
from dbwjax.network.graphs import build_graph
from dbwjax.types import DelayModel, Graph, Policy

GIVEN = "given"
"""What a single object is called in the rows, where a SPEC stands otherwise."""


def compare_clocks(
    policies: Mapping[str, Policy | str] | Sequence[str] | str,
    graph: Graph | str | Callable[[int], Graph] | Mapping[str, Any] | Sequence[str],
    delays: DelayModel | str | Mapping[str, Any] | Sequence[str],
    *,
    workers: int | Sequence[int],
    seconds: float | None = None,
    steps: int | None = None,
    seeds: int = 10,
    seed: int = 0,
    baseline: str | None = None,
    world: Sequence[str] | str = (),
    events: str | os.PathLike | None = None,
    progress: bool = False,
) -> Cells:
    """Runs the clocks of policies in the same worlds, and says whose iterations are shorter and how sure that is.

    No data, no parameters: this ranks speed, not learning. Up to 1,024 worlds are one program, so a thousand random
    graphs take seconds. World i has seed `seed` + i: its own delays and, from a SPEC or a function, its own graph.

    Args:
      policies: SPECs, or policies (and SPECs) by name.
      graph: who hears whom: a SPEC, a graph or a function of the seed; or several: SPECs in a list, or any by name.
      delays: seconds per computation: a SPEC or a law; or several, as of `graph`.
      workers: N; or several in a list.
      seconds: virtual time of each policy; or
      steps: the time that the baseline needs for so many iterations.
      seeds: how many worlds in each cell.
      seed: of the first.
      baseline: what the others are compared with; default: the last policy.
      world: SPECs of what breaks (docs/world.md).
      events: a CSV of who is away when, and of partitions.
      progress: whether to show how far the work is.

    Returns:
      One row for each policy and world, intervals, `.table()` and `.plot()`. Every combination of graph, delays and
      workers is a cell; cells are never pooled.

    Raises:
      ValueError: what is none of these, a policy that reads training, or more than the memory holds.
      NotATime: a delay was negative, not a number, or beyond what float32 holds; it names worker and computation.
      Standstill: time did not pass.
    """
    named, budget = policies_of(policies), budget_of(seconds, steps, 1)
    over, drawn = baseline_of(named, baseline), numbers.seeds(numbers.seeds(seed).start, whole("seeds", seeds))
    axes = axes_of({"graph": _several(graph), "delays": _several(delays), "workers": _several(workers)}, {})
    cells = [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]
    for count in axes["workers"].values():
        require_room(budget, whole("workers", count), len(named), seeds * len(cells))
    built = built_of(named)
    for name, policy in built.items():
        if policy.reads_training:
            raise ValueError(f"policy '{name}' reads training, which clocks alone do not have; use compare")
    values = [tuple(axes[name][label] for name, label in cell.items()) for cell in cells]
    problems = _problems(built, values, drawn, Broken(world, events))
    config = TrainConfig(policies=tuple(named), baseline=over, seconds=budget.seconds, steps=budget.steps, rows=1)
    rows = _run(problems, cells, config, progress)
    worlds = [
        renamed({}, cell, world) for cell, one in zip(cells, problems, strict=True) for world in fingerprints(one)
    ]
    from dbwjax.report.statistics import summarise

    return Cells(rows, worlds, summarise(rows, worlds, list(named), over, None))


def _problems(policies: dict[str, Policy], cells: list[tuple], seeds: Sequence[int], breaks: Broken) -> list[Problem]:
    """The worlds of every cell (graph, delays and workers); those of as many workers in lists of one width."""
    nets = [_once(graph, workers) for graph, _, workers in cells]
    drawn = [
        drawn_of(None, net, delays, None, seeds, workers, clocks_only=True, breaks=breaks, files=(graph, delays))
        for net, (graph, delays, workers) in zip(nets, cells, strict=True)
    ]
    widest: dict[int, int] = {}
    for (*_, workers), own in zip(cells, drawn, strict=True):
        widest[workers] = max(widest.get(workers, 0), slots_of(own))
    return [
        joined(policies, own, None, (graph, delays), widest[workers])
        for (graph, delays, workers), own in zip(cells, drawn, strict=True)
    ]


def _once(graph: Any, workers: int) -> Any:
    """A graph that is the same with every seed, built once; any other as it is given."""
    return build_graph(graph, workers) if isinstance(graph, str) and not is_random(graph) else graph


def _run(
    problems: list[Problem], cells: list[dict[str, Any]], config: TrainConfig, progress: bool
) -> list[dict[str, Any]]:
    """The rows of all policies in all worlds."""
    times, devices = [grids(one, config) for one in problems], jax.devices()
    sizes = [clocks_at_once(one).size for one in problems]
    every = list(blocks(config.policies, problems, sizes))
    require_clocks_end(problems, every, sizes, times, devices)
    meshes = [mesh_of(devices[: min(len(devices), size)]) for size in sizes]
    rows: list[dict[str, Any]] = []
    with Progress(RunOptions(progress=progress), sum(len(block.which) for block in every)) as bar:
        for block in every:
            place = block.problem
            bar.at(block.spec)
            budgets = np.array([grid[-1] for grid in times[place]])
            found = clock_rows(problems[place], block, budgets, sizes[place], meshes[place])
            rows += [renamed({"policy": block.spec}, cells[place], row) for row in found]
            bar.update(len(block.which))
    return rows


def _several(given: Any) -> Any:
    """The values of an axis: what is given, or the one value that it is."""
    if isinstance(given, Mapping | range) or type(given) in (list, tuple):
        return given
    return {given if isinstance(given, str | int) else GIVEN: given}
