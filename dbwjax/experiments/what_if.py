"""What a run's iterations would take if one worker were as fast as the median.

The clocks run again without training, each time with one worker's n-th computation taking as long as the workers'
median n-th one, in every world and until the same budget; all others draw what they drew. So the change is exact for
these worlds, and its interval is over worlds. The workers asked about are those to whom most seconds were lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dbwjax.engine import ensemble
from dbwjax.engine.batch import Batch, rows_of, take
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.budget import TICKS, grids
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.pages import WHAT_IF
from dbwjax.experiments.problem import Problem, of_seeds, problems
from dbwjax.experiments.sweep.clocks import SUMS, clocks_at_once, run_clocks
from dbwjax.report.intervals import Time, ratio
from dbwjax.report.waits import cells_of, lost_to
from dbwjax.storage import manifest
from dbwjax.types import DelayModel

TEN = 10
"""Workers that are asked about: those to whom most is lost, mean over worlds."""

NOBODY = -1
"""In the place of a worker: all are as they were."""


def ask(
    path: Path, run: str, config: TrainConfig, timelines: Mapping[str, Any], worlds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Asks of a finished run, and leaves the answer in its folder as `what_if.json`.

    Args:
      path: RUN.
      run: its identity.
      config: its configuration.
      timelines: by policy and world, with their computations.
      worlds: as in `worlds.json`.

    Raises:
      ValueError: the timelines hold no computations, or no policy's clock can run alone.
    """
    # Messages' sizes, which a bandwidth makes to times, are known only with the task.
    found = problems(of_seeds(config), clocks_only=config.bandwidth == math.inf)
    times = [np.array([grid[-1] for grid in grids(problem, config)]) for problem in found]
    answer = what_if(found, times, timelines, worlds)
    if not answer["policies"]:
        raise ValueError(
            f"{path}: nothing to ask; --what-if needs computations in timeline.npz (--timelines auto) and a policy "
            "whose clock does not read the training"
        )
    manifest.write_sealed(path / WHAT_IF, run, answer)
    manifest.list_also(path, run, WHAT_IF)
    return answer


def what_if(
    found: Sequence[Problem],
    budgets: Sequence[np.ndarray],
    timelines: Mapping[str, Any],
    worlds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The change of the mean iteration length, by policy whose clock runs alone and for each of its ten worst workers.

    Args:
      found: the worlds.
      budgets: by problem, `[B]` seconds.
      timelines: by policy and world.
      worlds: as in `worlds.json`.

    Returns:
      `policies`: by SPEC, `workers` and `worst`, intervals of the new mean iteration length over the old, as
      `intervals.ratio` has them; `worst` repairs in each world the worker to whom most is lost there.
    """
    told: dict[str, Any] = {}
    for spec, policy in found[0].policies.items():
        lost = _lost(timelines.get(spec, {}), worlds)
        if policy.reads_training or lost is None:
            continue
        whom = np.argsort(-lost.mean(axis=0), kind="stable")[:TEN]
        whom = whom[lost.mean(axis=0)[whom] > 0]
        lengths = {}
        for problem, budget in zip(found, budgets, strict=True):
            names = [one.values["world"] for one in problem.told]
            places = [next(n for n, world in enumerate(worlds) if world["world"] == name) for name in names]
            repaired = np.array([[NOBODY, int(lost[place].argmax()), *whom] for place in places])
            for place, own in zip(places, lengths_if(problem, spec, budget, repaired), strict=True):
                lengths[place] = own
        every = np.array([lengths[place] for place in range(len(worlds))])
        worst, *changes = [_change(every[:, 0], every[:, n], worlds) for n in range(1, every.shape[1])]
        told[spec] = {
            "workers": [{"worker": int(j), **change} for j, change in zip(whom, changes, strict=True)],
            "worst": worst,
        }
    return {"measure": "mean iteration length until the budget, new over old", "policies": told}


def lengths_if(problem: Problem, spec: str, budgets: np.ndarray, repaired: np.ndarray) -> np.ndarray:
    """Mean iteration lengths with one worker as fast as the median.

    Args:
      problem: B worlds.
      spec: of a policy whose clock runs alone.
      budgets: `[B]` seconds.
      repaired: `[B, C]` the worker of each case, or `NOBODY`.

    Returns:
      `[B, C]` seconds.
    """
    count, cases = repaired.shape
    which, whom = np.repeat(np.arange(count), cases), repaired.reshape(-1)
    size = clocks_at_once(problem)[1]
    found = [
        _lengths(problem, spec, budgets, which[at : at + size], whom[at : at + size])
        for at in range(0, len(which), size)
    ]
    return np.concatenate(found).reshape(count, cases)


def _lengths(problem: Problem, spec: str, budgets: np.ndarray, which: np.ndarray, whom: np.ndarray) -> np.ndarray:
    policy = problem.policies[spec]
    base = take(problem.worlds_of(spec), which)
    known = 4 * TICKS
    while True:
        some = _repaired(base, whom, medians(problem, known)[which])
        clocks = ensemble.start(policy, some, rows_of(problem.states[spec], which))
        ran = run_clocks(policy, some, clocks, budgets[which])
        started = np.asarray(ran.clocks.started)
        most = int(started[np.arange(len(whom)), whom][whom >= 0].max(initial=0)) + 1
        if most <= known:
            break
        known = 2 * most  # a repaired worker went beyond what was drawn
    sums = dict(zip(SUMS, ran.sums, strict=True))
    return sums["length"] / sums["ended"]


def medians(problem: Problem, known: int) -> np.ndarray:
    """`[B, known]` seconds: the median over the workers of their n-th computations in each world."""
    draw = partial(_drawn, workers=problem.workers, known=known)
    return np.stack(
        [np.asarray(draw(world.delays, world.key)) for world in map(problem.alone, range(len(problem.told)))]
    )


@partial(jax.jit, static_argnames=("workers", "known"))
def _drawn(delays: DelayModel, key: Any, workers: int, known: int) -> Any:
    draw = jax.vmap(jax.vmap(delays, (None, None, 0)), (None, 0, None))
    return jnp.median(draw(stream(key, Stream.DELAYS), jnp.arange(workers), jnp.arange(known)), axis=0)


def _repaired(worlds: Batch, whom: np.ndarray, seconds: np.ndarray) -> Batch:
    """Worlds in each of which one worker takes the `seconds` `[B, K]` of its n-th computation."""
    tree, axes = worlds
    delays = Partial(_as_fast, tree.delays, jnp.asarray(whom, jnp.int32), jnp.asarray(seconds))
    return Batch(tree._replace(delays=delays), axes._replace(delays=Partial(_as_fast, axes.delays, 0, 0)))


def _as_fast(delays: DelayModel, whom: Any, seconds: Any, key: Any, worker: Any, started: Any) -> Any:
    own = delays(key, worker, started)
    return jnp.where(worker == whom, seconds[jnp.minimum(started, seconds.shape[0] - 1)].astype(own.dtype), own)


def _lost(timelines: Mapping[str, Any], worlds: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """`[W, N]` seconds lost to each worker; `None` where a world's computations are not known."""
    found = []
    for world in worlds:
        timeline = timelines.get(str(world["world"]), {})
        if not len(timeline.get("span_worker", ())):
            return None
        found.append(lost_to(cells_of(timeline)))
    return np.stack(found)


def _change(old: np.ndarray, new: np.ndarray, worlds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, second = ([Time(float(seconds)) for seconds in own] for own in (new, old))
    told = ratio(first, second, [world["hashes"] for world in worlds], same="timing")
    return {name: told[name] for name in ("estimate", "low", "high", "worlds", "clusters")}
