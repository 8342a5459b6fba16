"""A finished run computed once more from its `config.json`, block by block, and compared with what it left.

Where the environment is the same, every number must be the same bit for bit: each iteration's duration, who was active,
and every row of metrics. Elsewhere durations must agree to 1e-6; losses are reported.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dbwjax.experiments.blocks import Block, Places, blocks, sizes
from dbwjax.experiments.budget import grids, require_ends
from dbwjax.experiments.claim import environment
from dbwjax.experiments.config import RunOptions, TrainConfig, extent_of, from_json, require_fit, validate
from dbwjax.experiments.driver import Computation, agreed_sizes
from dbwjax.experiments.inputs import inputs, require_same
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.files import refused
from dbwjax.runtime.devices import choose, cores_or
from dbwjax.storage.manifest import read_config, require_whole
from dbwjax.storage.parts import Parts

CLOSE = 1e-6
"""Largest relative difference of durations in another environment."""

_REMEDY = "run python -m dbwjax.train to its end first"


class Disagrees(RuntimeError):
    """What was computed again is not what the run left, or is not finite."""

    exit_code = 3


class Replayed(NamedTuple):
    """What the replay of one policy in one world found."""

    policy: str
    world: int
    steps: int
    recorded: float | None  # test loss in the last row that was kept; None: it had diverged
    replayed: float | None  # the same now
    trouble: str | None  # why it does not agree; None: it does

    def __str__(self) -> str:
        now, before = ("not finite" if loss is None else f"{loss:.6f}" for loss in (self.replayed, self.recorded))
        order = "in the recorded order" if self.trouble is None else f"NOT AS RECORDED: {self.trouble}"
        return (
            f"{self.policy}, world {self.world}: {self.steps} steps {order}; "
            f"test loss at the end {now} (recorded {before})"
        )


def replay_run(folder: str | Path) -> Iterator[Replayed]:
    """Replays a finished run, policy by policy, world by world.

    Args:
      folder: RUN, as `python -m dbwjax.train` left it.

    Raises:
      ValueError: the folder holds no finished run, a file in it has changed, its configuration is one that `train`
        refuses, or an input holds something else now.
    """
    path = Path(folder)
    kept, run = _kept(path)
    try:
        config = _here(from_json(kept["config"]))
        validate(config, RunOptions())
        require_fit(extent_of(config), config)
    except ValueError as error:
        raise ValueError(f"{path}/config.json: {error}") from error
    require_whole(path, run)
    require_same(kept.get("inputs"), inputs([config]), str(path), "or run it anew")
    again = _Again(path, run, config, kept)
    for block in again.every:
        yield from again.compare(block)


def require_agreement(found: list[Replayed]) -> None:
    """Raises `Disagrees` where something does not agree, or is not finite."""
    apart = [f"{one.policy}, world {one.world}" for one in found if one.trouble is not None]
    if apart:
        raise Disagrees(f"{len(apart)} of {len(found)} are not as recorded, the first {apart[0]}")


def _here(config: TrainConfig) -> TrainConfig:
    """Data that lay elsewhere on another machine are looked for where they usually lie; their hash must be the same."""
    if config.data_dir is None or Path(config.data_dir).is_dir():
        return config
    return dataclasses.replace(config, data_dir=None)


def _kept(path: Path) -> tuple[dict[str, Any], str]:
    with refused(f"{path} is not a finished run", _REMEDY):
        found = read_config(path, _REMEDY)
        if found is not None:
            (path / "summary.json").lstat()
    if found is None:
        raise ValueError(f"{path} is not a finished run (no config.json); {_REMEDY}")
    if "config" not in found[0]:
        raise ValueError(f"{path} is not a run of python -m dbwjax.train; name one")
    return found


class _Again:
    """The run made once more, on this machine."""

    def __init__(self, path: Path, run: str, config: TrainConfig, kept: dict[str, Any]):
        told = kept.get("environment")
        then = told.get("devices") if isinstance(told, dict) else None
        devices = cores_or(None) if config.seeds > 1 else choose(None)
        if isinstance(then, str) and re.fullmatch("[1-9][0-9]{0,8}", then):
            devices = devices[: int(then)]
        self.same = environment(len(devices)) == told
        found = problems(of_seeds(config))
        times = [grids(problem, config) for problem in found]
        fits = [sizes(one, devices, max(map(len, grid))) for one, grid in zip(found, times, strict=True)]
        cut = agreed_sizes(kept["blocks"], fits, "replay it on a larger machine")
        places = [Places(one, devices, fit.cut, size) for one, fit, size in zip(found, fits, cut, strict=True)]
        self.config, self.found, self.parts = config, found, Parts(path / "parts", run)
        self.computation = Computation(config, found, times, places)
        self.every = list(blocks(config.policies, found, cut))
        require_ends(found, places, self.every, times)
        for block in self.every:
            trouble = self.parts.trouble(block.number)
            if trouble is not None:
                raise ValueError(f"{trouble}; start the run's command again to compute that block again")

    def compare(self, block: Block) -> Iterator[Replayed]:
        """Computes a block, and compares each of its worlds with what was kept."""
        rows, timelines = self.computation.compute(block)
        before, recorded = self.parts.rows(block.number), self.parts.timelines(block.number)
        for which in block.which:
            world = self.found[block.problem].told[int(which)].values["world"]
            now, then = ([row for row in some if row["world"] == world] for some in (rows, before))
            ours, theirs = (
                {name.partition("/")[2]: array for name, array in some.items() if name.partition("/")[0] == str(world)}
                for some in (timelines or {}, recorded)
            )
            trouble = self._order(ours, theirs) or self._rows(now, then)
            losses = [some[-1]["test_loss"] if some else None for some in (then, now)]
            yield Replayed(block.spec, world, len(ours["duration"]), losses[0], losses[1], trouble)

    def _order(self, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> str | None:
        """Where two timelines differ."""
        if ours.keys() != theirs.keys():
            return "other arrays"
        if self.same:
            odd = [name for name in ours if not np.array_equal(ours[name], theirs[name], equal_nan=True)]
            return f"another {' and '.join(odd)}" if odd else None
        # Where a target ends it, losses that round otherwise may end it a chunk sooner or later.
        steps = min(len(ours["duration"]), len(theirs["duration"]))
        if not self.config.until_target and len(ours["duration"]) != len(theirs["duration"]):
            return f"{len(theirs['duration'])} iterations were recorded"
        near = np.isclose(ours["duration"][:steps], theirs["duration"][:steps], rtol=CLOSE, atol=0)
        return None if near.all() else f"another duration from step {int(np.argmin(near))} on"

    def _rows(self, now: list[dict[str, Any]], then: list[dict[str, Any]]) -> str | None:
        """Where rows of metrics differ; elsewhere only what is not finite."""
        if self.same:
            ours, theirs = ([{**row, "wall_time": None} for row in some] for some in (now, then))
            odd = [
                name for one, other in zip(ours, theirs, strict=False) for name in one if one[name] != other.get(name)
            ]
            if odd or len(ours) != len(theirs):
                return f"another {odd[0]}" if odd else "another number of rows"
        lost = [row for row in now if row["diverged"] or not math.isfinite(row["test_loss"])]
        return f"the loss is not finite at {lost[0]['virtual_time']:.6g} s" if lost else None
