"""Runs of the command in a process with two devices, for `test_command`: worlds on devices of their own. Runs that
go on with another number of devices than they began with are in `eight_devices/test_elastic.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from dbwjax import train
from dbwjax.experiments import training
from dbwjax.report import run_figures

TASK = ["--workers", "4", "--graph", "erdos_renyi:p=0.5", "--dataset", "logistic:dimension=4,samples=40"]
WORDS = [*TASK, "--policies", "backup:b=1,gap=inf", "--seconds", "60", "--rows", "6", "--no-progress"]


def run(out: Path, devices: int, *words: str) -> None:
    """A run to its end."""
    assert train.main([*WORDS, *words, "--devices", str(devices), "--checkpoint-every", "1", "--out", str(out)]) == 0


def main(folder: Path) -> None:
    """All of them."""
    run_figures.write_figures = lambda path, *_, **__: [path / "summary.png"]
    training.CHUNK = 8
    run(folder / "shared", 2, "--seeds", "2")
    run(folder / "alone", 1, "--seed", "1", "--seeds", "1")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
