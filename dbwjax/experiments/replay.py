"""A run folder replayed: its arrival order drawn again, checked against the record, and applied to parameters anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dbwjax.engine import clock
from dbwjax.engine import learner as learning
from dbwjax.engine.timeline import replay, timeline
from dbwjax.experiments.config import from_json
from dbwjax.experiments.metrics import measure
from dbwjax.experiments.problem import Problem, build
from dbwjax.files import refused
from dbwjax.storage.timelines import load_timeline
from dbwjax.types import Policy


class Replayed(NamedTuple):
    """What the replay of one policy found."""

    policy: str
    steps: int
    same_order: bool  # durations and active sets equal the recorded ones, bit for bit
    recorded: float  # final test loss in summary.json
    replayed: float  # final test loss now


def replay_run(folder: str | Path) -> Iterator[Replayed]:
    """Replays the policies of a finished run, in their order.

    Args:
      folder: RUN, as `python -m dbwjax.train` left it.

    Raises:
      ValueError: the folder holds no finished run, or a policy whose clock cannot run ahead of training.
    """
    path = Path(folder)
    with refused(f"{path} is not a finished run", "run python -m dbwjax.train to its end first"):
        config = from_json(json.loads((path / "config.json").read_text())["config"])
        summary = json.loads((path / "summary.json").read_text())
    recorded = load_timeline(path / "timeline.npz")
    setting = build(config)
    for spec, policy in setting.policies.items():
        yield _replay(spec, policy, setting, config.steps, recorded[spec], summary["policies"][spec])


def _replay(
    spec: str, policy: Policy, setting: Problem, steps: int, recorded: dict[str, np.ndarray], facts: dict
) -> Replayed:
    world = setting.world
    start = clock.init(policy, world.graph, world.delays, world.key)
    _, plans = timeline(policy, world, start, steps)
    nodes = world.graph.neighbours.shape[0]
    model = learning.init(setting.learner, policy, setting.params, nodes)
    model, records = replay(setting.learner, world, model, plans)
    same = all(
        np.array_equal(np.asarray(now), recorded[name])
        for name, now in (("duration", records.duration), ("active", records.active))
    )
    figures = jax.device_get(measure(world.graph, setting.task.evaluate, model))
    return Replayed(spec, steps, same, facts["final_test_loss"], float(figures["test_loss"]))
