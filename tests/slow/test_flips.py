"""Random bits flipped and files cut off, anywhere in a run folder and in a sweep folder: the right number or one line.

All in this process, with programs that are compiled once.
"""

from __future__ import annotations

import csv
import random
import shutil

import pytest

from dbwjax import files, replay, sweep, train
from dbwjax.experiments import run as experiment
from dbwjax.experiments import training
from dbwjax.report import sweep_figures
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.metrics_log import read_metrics

pytestmark = pytest.mark.slow

EACH = 200
TASK = ["--workers", "4", "--dataset", "logistic:dimension=4,samples=40", "--seconds", "40", "--rows", "2"]
TASK += ["--policies", "dybw", "full", "--no-progress", "--checkpoint-every", "1"]
RUN = [*TASK, "--graph", "complete", "--seeds", "1"]
SWEEP = [*TASK, "--graphs", "complete", "ring", "--seeds", "1"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "write_figures", lambda path, *_, **__: [path / "summary.png"])
        patch.setattr(sweep_figures, "write_figures", lambda *_, **__: [])
        patch.setattr(training, "CHUNK", 8)
        yield


def run_numbers(folder):
    rows = [{**row, "wall_time": None} for row in read_metrics(folder / "metrics.jsonl")]
    arrays = {name: array.tobytes() for name, array in files.read_arrays(folder / "timeline.npz", "").items()}
    return rows, arrays, (folder / "summary.json").read_bytes(), (folder / "worlds.json").read_bytes()


def sweep_numbers(folder):
    with open(folder / "results.csv", newline="") as file:
        rows = [{**row, "wall_time": None} for row in csv.DictReader(file)]
    return rows, (folder / "summary.json").read_bytes(), (folder / "worlds.json").read_bytes()


def stopped(main, words, folder):
    """Ends at the second checkpoint of the second policy's first block."""
    save, seen = Checkpoints.save, []

    def dying(checkpoints, step, state, meta):
        save(checkpoints, step, state, meta)
        seen.append(meta["rows"][0]["policy"])
        if seen.count("full") == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying)
        assert main([*words, "--out", str(folder)]) == 130


def damage(folder, chance):
    """One bit flipped, or one file cut off; what was done."""
    top = chance.choice(sorted(folder.iterdir()))  # evenly, though a checkpoint is many files
    below = [path for path in (top, *top.rglob("*")) if path.is_file() and path.stat().st_size]
    path = chance.choice(sorted(below))
    content = path.read_bytes()
    place = chance.randrange(len(content))
    if chance.random() < 0.7:
        bit = chance.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        return f"bit {bit} of byte {place} of {path.relative_to(folder)}"
    path.write_bytes(content[:place])
    return f"{path.relative_to(folder)} cut off at {place}"


def trials(whole, where, count, again, truth, capsys, seed):
    """So many damages: how many were refused, and those that ended in anything but the truth or one line."""
    chance, refused, odd = random.Random(seed), 0, []
    for _ in range(count):
        folder = shutil.copytree(whole, where / "folder")
        what = damage(folder, chance)
        try:
            code, found = again(folder)
        except Exception as error:  # a traceback is no line
            code, found = None, repr(error)
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if not line.startswith("note: ")]
        refused += code == 2
        if not (code == 0 and found == truth and not errors) and not (code == 2 and len(errors) == 1):
            odd.append((what, code, errors, found if code is None else ""))
        shutil.rmtree(folder)
    return refused, odd


def finishing(main, words, numbers):
    def again(folder):
        code = main([*words, "--out", str(folder)])
        return code, numbers(folder) if code == 0 else None

    return again


def test_a_run(tmp_path, capsys):
    assert train.main([*RUN, "--out", str(tmp_path / "whole")]) == 0
    stopped(train.main, RUN, tmp_path / "stopped")
    capsys.readouterr()
    assert replay.main([str(tmp_path / "whole")]) == 0
    said = capsys.readouterr().out

    def replayed(folder):
        return replay.main([str(folder)]), said  # agreement is its own exit code

    truth = run_numbers(tmp_path / "whole")
    finish = finishing(train.main, RUN, run_numbers)
    counts = []
    for seed, (name, again, expected, count) in enumerate(
        [
            ("stopped", finish, truth, EACH // 2),
            ("whole", finish, truth, EACH // 4),
            ("whole", replayed, said, EACH // 4),
        ]
    ):
        refused, odd = trials(tmp_path / name, tmp_path / "trial", count, again, expected, capsys, seed)
        assert not odd
        counts.append((name, count, refused))
    print("run:", counts)
    assert 0 < sum(refused for *_, refused in counts) < EACH


def test_a_sweep(tmp_path, capsys):
    assert sweep.main([*SWEEP, "--out", str(tmp_path / "whole")]) == 0
    stopped(sweep.main, SWEEP, tmp_path / "stopped")
    truth, finish = sweep_numbers(tmp_path / "whole"), finishing(sweep.main, SWEEP, sweep_numbers)
    capsys.readouterr()
    counts = []
    for seed, name in enumerate(("stopped", "whole")):
        refused, odd = trials(tmp_path / name, tmp_path / "trial", EACH // 2, finish, truth, capsys, 10 + seed)
        assert not odd
        counts.append((name, EACH // 2, refused))
    print("sweep:", counts)
    assert 0 < sum(refused for *_, refused in counts) < EACH
