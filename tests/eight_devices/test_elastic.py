"""A run on any number of devices: the command's numbers, and checkpoints that fit another number of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dbwjax import train
from dbwjax.experiments import run as running
from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.timelines import load_timeline

WORDS = [
    *("--dataset", "logistic", "--workers", "10", "--steps", "40", "--eval-every", "10", "--batch-size", "4"),
    *("--policies", "dybw", "--checkpoint-every", "1", "--no-progress"),
]


class Killed(BaseException):
    """Stands for a process that dies."""


def metrics(folder):
    return [{**row, "wall_time": 0} for row in read_metrics(folder / "metrics.jsonl")]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in ("policy", "step", "virtual_time", "backup_workers", "active_fraction", "gradients"):
            assert a[name] == b[name], name
        for name in ("test_loss", "test_accuracy", "consensus_distance"):
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-7), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert train.main([*WORDS, "--devices", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("path", [(4, 1), (1, 4), (4, 2), (2, 8), (8, 3), (3, 8)])
def test_killed_on_some_devices_and_resumed_on_others(alone, tmp_path, monkeypatch, path, capsys):
    before, after = path
    folder, saves = tmp_path / "run", []

    def dying(self, index, training):
        saved(self, index, training)
        saves.append(training.step)
        if len(saves) == 2:
            self.checkpoints.close()
            raise Killed

    saved = running._Run._save
    monkeypatch.setattr(running._Run, "_save", dying)
    with pytest.raises(Killed):
        train.main([*WORDS, "--devices", str(before), "--out", str(folder)])
    monkeypatch.setattr(running._Run, "_save", saved)
    assert train.main([*WORDS, "--devices", str(after), "--out", str(folder)]) == 0
    assert f"'devices': '{after}'" in capsys.readouterr().err
    same(metrics(folder), metrics(alone))
    ours, theirs = (load_timeline(one / "timeline.npz")["dybw"] for one in (folder, alone))
    for name in ("duration", "active", "backup_workers"):
        np.testing.assert_array_equal(ours[name], theirs[name])


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
