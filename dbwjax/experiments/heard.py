"""The policies of a comparison trained one after the other, while somebody listens and may stop them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dbwjax.engine.learner import equipped, readable
from dbwjax.experiments.blocks import Places, blocks, sizes
from dbwjax.experiments.budget import grids
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.driver import arrived, evaluate_own
from dbwjax.experiments.placing import SideBySide
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.training import SINGLE_WORKERS, Diverged, Training
from dbwjax.storage.callbacks import Audience


def train_all(
    problem: Problem, config: TrainConfig, target: float | None, audience: Audience, bar: Progress
) -> tuple[list[dict[str, Any]], dict, dict[str, int]]:
    """All policies in all worlds: rows, timelines by policy and world, and in how many worlds each was stopped."""
    times, devices = grids(problem, config), jax.devices()
    fit = sizes(problem, devices, max(map(len, times)))
    places = Places(problem, devices, fit.cut, fit.size)
    rows: list[dict[str, Any]] = []
    timelines: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    stopped: dict[str, int] = {}
    for block in blocks(config.policies, [problem], [fit.size]):
        filled = block.which[:1] if places.cut else places.filled(block.which)
        roles = problem.roles(block.spec)
        few = bool(roles.computes.sum() <= SINGLE_WORKERS)
        evaluate = evaluate_own(problem, filled) if few else None
        grid = [times[which] for which in filled]
        training = Training(
            places.place(block), grid, roles, few, evaluate, real=len(block.which), wide=config.puts_together
        )
        where = [{"policy": block.spec, **problem.told[int(which)].values} for which in block.which]
        budget = max(times_of[-1] for times_of in grid)

        def moved(spec: str = block.spec, training: Training = training, budget: float = budget) -> None:
            bar.at(spec, training.seconds, budget)

        found = heard(training, where, target, audience, moved=moved)
        rows += [row for own in found for row in own]
        for one, own, times_of, account in zip(where, found, grid, training.accounts, strict=False):
            timelines.setdefault(block.spec, {})[str(one["world"])] = account.timeline()
            early = len(own) < len(times_of)
            if early:
                stopped[block.spec] = stopped.get(block.spec, 0) + 1
            audience.end(one, len(own), early)
        bar.update(len(block.which))
    return rows, timelines, stopped


def heard(
    training: Training,
    where: Sequence[Mapping[str, Any]],
    target: float | None,
    audience: Audience,
    stops: bool = False,
    moved: Callable[[], None] = lambda: None,
) -> list[list[dict[str, Any]]]:
    """The rows of each world of a block, while whoever listens hears of them and may stop a world.

    Args:
      training: at virtual time 0.
      where: policy and world of each.
      target: ends the block when all have reached it; `None`: there is none.
      audience: hears of them.
      stops: whether a loss that is not finite in the first world ends it.
      moved: called when some steps are done.

    Raises:
      Diverged: it has.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in where]
    for one in where:
        audience.start(one)
    ended: set[int] = set()
    first = training.accounts[0]
    while not (training.done or len(ended) == len(where)):
        for sim, row in sorted(training.advance(), key=lambda item: (item[0], item[1]["row"])):
            if sim not in ended:
                found[sim].append({**where[sim], **row})
                if audience.row(found[sim][-1]):
                    ended.add(sim)
        moved()
        if stops and first.diverged < len(first.grid):
            raise Diverged(float(first.grid[first.diverged]))
        if target is not None and arrived([row for own in found for row in own], len(where), target):
            break
    return found


def models_now(training: Training) -> Any:
    """`[B, N, ...]` what each node holds after the last step, as it is read."""
    place, model = training.place, training.state.model
    assert isinstance(place, SideBySide)
    report = equipped(place.learner, place.policy).report
    stack = model.params if report is None else jax.vmap(jax.vmap(report))(model.params, model.local)
    return stack if model.mass is None else jax.vmap(readable)(stack, model.mass)
