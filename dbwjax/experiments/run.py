"""One call of the command: every policy trained in turn in one world, kept in a run folder that can be resumed.

Everything a person may have got wrong is checked by `build` before the folder is touched. Between chunks the state, the history
and the place in `metrics.jsonl` go into one checkpoint, so a run killed at any instant goes on from the last one and
ends with bitwise the same numbers: delays and batches are functions of the seed, and all sums are taken in order.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np

from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.simulate import World
from dbwjax.experiments import records
from dbwjax.experiments.checkpoint import Checkpoints
from dbwjax.experiments.config import RunOptions, TrainConfig, differences
from dbwjax.experiments.training import Diverged, History, Training, chunk_of, initial_params, make_world
from dbwjax.types import Learner, Policy


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived; a checkpoint was kept."""

    def __init__(self, signum: int, where: str):
        super().__init__(f"stopped at {where}; the same command goes on from there")
        self.signum = signum


class Setting(NamedTuple):
    """A configuration made real: what all policies share, and the policies by the SPEC that was typed."""

    world: World
    learner: Learner
    policies: dict[str, Policy]
    params: Any
    task: Any
