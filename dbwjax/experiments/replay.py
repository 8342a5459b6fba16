"""A run folder replayed: its arrival orders drawn again, checked against the record, and trained on anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dbwjax.experiments.blocks import Block, Places
from dbwjax.experiments.budget import grids
from dbwjax.experiments.config import from_json
from dbwjax.experiments.problem import Problem, of_seeds, problems
from dbwjax.experiments.training import Training
from dbwjax.files import refused
from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.timelines import load_timeline


class Replayed(NamedTuple):
    """What the replay of one policy in one world found."""

    policy: str
    world: int
    steps: int
    same_order: bool  # durations and active sets equal the recorded ones, bit for bit
    recorded: float | None  # test loss in the last row of metrics.jsonl; None: it had diverged
    replayed: float | None  # the same now


def replay_run(folder: str | Path) -> Iterator[Replayed]:
    """Replays a finished run, policy by policy, world by world.

    Args:
      folder: RUN, as `python -m dbwjax.train` left it.

    Raises:
      ValueError: the folder holds no finished run.
    """
    path = Path(folder)
    with refused(f"{path} is not a finished run", "run python -m dbwjax.train to its end first"):
        try:
            config = from_json(json.loads((path / "config.json").read_text())["config"])
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}/config.json is not a run's; run python -m dbwjax.train first") from error
        (path / "summary.json").stat()
    recorded, rows = load_timeline(path / "timeline.npz"), read_metrics(path / "metrics.jsonl")
    last = {(row["policy"], row["world"]): row for row in rows}
    for problem in problems(of_seeds(config)):
        times = grids(problem, config)
        places = Places(problem, jax.devices()[:1], False, 1)
        for spec in config.policies:
            for which, told in enumerate(problem.told):
                world = told.values["world"]
                end = last[spec, world]
                training, loss = _again(problem, places, Block(0, spec, 0, np.array([which])), times[which], end["row"])
                account, kept = training.accounts[0], recorded[spec][str(world)]
                steps = min(len(kept["duration"]), account.steps)
                same = len(kept["duration"]) == account.steps or config.until_target
                for name in ("duration", "active"):
                    same &= np.array_equal(getattr(account, name)[:steps], kept[name][:steps])
                yield Replayed(spec, world, steps, bool(same), end["test_loss"], loss)


def _again(problem: Problem, places: Places, block: Block, grid: np.ndarray, end: int) -> tuple[Training, float | None]:
    """The training of one world, and the test loss in its row `end`."""
    computes = np.asarray(problem.alone(int(block.which[0])).graph.computes)
    training, loss = Training(places.place(block), [grid], computes), None
    while not training.done:
        for _, row in training.advance():
            loss = row["test_loss"] if row["row"] == end else loss
    return training, loss
