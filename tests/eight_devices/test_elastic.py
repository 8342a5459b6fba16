"""A run on any number of devices: the command's numbers, and checkpoints that fit another number of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dbwjax import train
from dbwjax.experiments import driver
from dbwjax.experiments import training as trainings
from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.timelines import load_timeline

pytestmark = pytest.mark.usefixtures("no_figures")

WORDS = [
    *("--dataset", "logistic", "--workers", "10", "--seconds", "90", "--rows", "9", "--batch-size", "4"),
    *("--policies", "backup:b=1,gap=inf", "--seeds", "1", "--checkpoint-every", "1", "--no-progress"),
]


class Killed(BaseException):
    """Stands for a process that dies."""


def metrics(folder):
    return [{**row, "wall_time": 0} for row in read_metrics(folder / "metrics.jsonl")]


EXACT = (
    *("policy", "world", "row", "step", "drift", "virtual_time", "gradients", "computing", "waiting", "backup_workers"),
)
NEAR = (
    *("test_loss", "test_accuracy", "consensus_distance", "worker_accuracy_min", "worker_accuracy_median"),
    *("train_loss", "suboptimality"),
)


def same(ours, theirs):
    """The same clock to the last bit; what is learned to rounding, since sums over workers are cut otherwise."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            if name in EXACT or value is None:
                assert a[name] == value, name
            else:
                assert a[name] == pytest.approx(value, rel=1e-5 if name in NEAR else 1e-6, abs=1e-6), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert train.main([*WORDS, "--devices", "1", "--out", str(folder)]) == 0
    return folder


def killed_and_resumed(folder, monkeypatch, words, before, after):
    """Killed at its second checkpoint on some devices, and finished on others; the chunks that were left."""
    saves, chunks = [], []

    def dying(self, *arguments):
        saved(self, *arguments)
        saves.append(1)
        if len(saves) == 2:
            self.checkpoints.close()
            raise Killed

    saved, advance = driver.Driver._save, trainings.Training.advance
    monkeypatch.setattr(trainings, "CHUNK", 20)
    monkeypatch.setattr(driver.Driver, "_save", dying)
    with pytest.raises(Killed):
        train.main([*words, "--devices", str(before), "--out", str(folder)])
    monkeypatch.setattr(driver.Driver, "_save", saved)
    monkeypatch.setattr(trainings.Training, "advance", lambda self: chunks.append(1) or advance(self))
    assert train.main([*words, "--devices", str(after), "--out", str(folder)]) == 0
    return len(chunks)


@pytest.mark.parametrize("path", [(8, 1), (1, 8), (8, 2), (3, 8)])
def test_killed_on_some_devices_and_resumed_on_others(alone, tmp_path, monkeypatch, path, capsys):
    folder = tmp_path / "run"
    assert killed_and_resumed(folder, monkeypatch, WORDS, *path) == 1  # of three
    assert f"'devices': '{path[1]}'" in capsys.readouterr().err
    same(metrics(folder), metrics(alone))
    name = "backup:b=1,gap=inf"
    ours, theirs = (load_timeline(one / "timeline.npz")[name]["0"] for one in (folder, alone))
    for name in ("duration", "active", "backup_workers", "length"):
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.fixture(scope="module")
def three_alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three") / "run"
    assert train.main([*WORDS, "--seeds", "3", "--devices", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("path", [(2, 1), (1, 2)], ids=["fewer", "more"])
def test_several_worlds_go_on_with_another_number_of_copies(three_alone, tmp_path, monkeypatch, path):
    """Three worlds on two devices are four simulations, on one three. No row is there twice."""
    assert killed_and_resumed(tmp_path / "run", monkeypatch, [*WORDS, "--seeds", "3"], *path) == 1
    one, other = (
        sorted(metrics(folder), key=lambda row: (row["world"], row["row"]))
        for folder in (tmp_path / "run", three_alone)
    )
    same(one, other)


def test_all_devices_are_used_unless_told_otherwise(alone, tmp_path, capsys):
    assert train.main([*WORDS, "--out", str(tmp_path / "run")]) == 0
    assert (
        "note: 10 workers on 8 devices are padded to 16 rows; --devices 5 needs no padding" in capsys.readouterr().err
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["environment"]["devices"] == "8"
    same(metrics(tmp_path / "run"), metrics(alone))


@pytest.mark.parametrize(
    ("count", "said"),
    [
        ("9", "--devices 9 is more than the 8 that are here; use 1 to 8"),
        ("0", "--devices 0 is out of range; use 1 or more"),
    ],
)
def test_devices_that_are_not_there(tmp_path, capsys, count, said):
    assert train.main([*WORDS, "--devices", count, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
