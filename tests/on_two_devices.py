"""Runs of the command in a process with two devices, for `test_command`: worlds on devices of their own, and runs that
go on with another number of devices than they began with."""

from __future__ import annotations

import sys
from pathlib import Path

from dbwjax import train
from dbwjax.experiments import training
from dbwjax.experiments.driver import Driver
from dbwjax.report import run_figures
from tests.compiling import compile_lightly

TASK = ["--workers", "4", "--graph", "erdos_renyi:p=0.5", "--dataset", "logistic:dimension=4,samples=40"]
WORDS = [*TASK, "--policies", "backup:b=1,gap=inf", "--seconds", "60", "--rows", "6", "--no-progress"]


class Killed(BaseException):
    """Stands for a process that dies."""


def run(out: Path, devices: int, *words: str) -> None:
    """A run to its end."""
    assert train.main([*WORDS, *words, "--devices", str(devices), "--checkpoint-every", "1", "--out", str(out)]) == 0


def killed_then(out: Path, before: int, after: int, *words: str) -> None:
    """A run that is killed after its second checkpoint on so many devices, and ends on others."""
    save, saves = Driver._save, []

    def dying(self, *rest):
        save(self, *rest)
        saves.append(rest)
        if len(saves) == 2:
            self.checkpoints.close()
            raise Killed

    Driver._save = dying
    try:
        run(out, before, *words)
        raise AssertionError("it was to be killed")
    except Killed:
        pass
    finally:
        Driver._save = save
    run(out, after, *words)


def main(folder: Path) -> None:
    """All of them."""
    run_figures.write_figures = lambda path, *_, **__: [path / "summary.png"]
    training.CHUNK = 8
    run(folder / "shared", 2, "--seeds", "2")
    run(folder / "alone", 1, "--seed", "1", "--seeds", "1")
    compile_lightly(True)  # the others agree to rounding
    killed_then(folder / "one then two", 1, 2, "--seed", "1", "--seeds", "1")
    killed_then(folder / "two then one", 2, 1, "--seed", "1", "--seeds", "1")
    run(folder / "three", 1, "--seeds", "3")
    killed_then(folder / "three, one then two", 1, 2, "--seeds", "3")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
