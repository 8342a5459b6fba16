"""SIGKILL at twenty random instants: every resume goes on, and the end is bitwise that of a run nobody killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.compiling import light_environment
from tests.run_folder import assert_same

pytestmark = pytest.mark.slow

KILLS = 20
# Several worlds; workers that drift, so that checkpoints hold open readings; some chunks a policy.
WORDS = [
    *("--workers", "4", "--graph", "complete", "--dataset", "logistic:dimension=4,samples=40", "--seeds", "3"),
    *("--policies", "backup:b=1,gap=inf", "dybw", "full", "--seconds", "2500", "--rows", "60"),
    *("--checkpoint-every", "1"),
]


def start(folder: Path, name: str) -> subprocess.Popen:
    """The command on the run folder `name`, as a process of its own."""
    words = [*WORDS, "--no-progress", "--compile-cache", str(folder / "programs"), "--out", str(folder / name)]
    return subprocess.Popen(
        [sys.executable, "-m", "dbwjax.train", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **light_environment(), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
    )


def finish(process: subprocess.Popen) -> None:
    """Waits for the end, which must be a good one."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def test_killed_at_random_instants(tmp_path):
    finish(start(tmp_path, "whole"))
    rng = np.random.default_rng(0)
    kills, run, lives = 0, 0, []
    while kills < KILLS:
        process = start(tmp_path, f"killed{run}")
        try:
            # From the imports through training and checkpoints to the figures.
            _, said = process.communicate(timeout=rng.uniform(0.5, 8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            lives.append(run)
        else:
            assert process.returncode == 0, said
            assert_same(tmp_path / "whole", tmp_path / f"killed{run}")
            run += 1
    finish(start(tmp_path, f"killed{run}"))
    assert_same(tmp_path / "whole", tmp_path / f"killed{run}")
    print(f"{KILLS} kills over {run + 1} runs")
