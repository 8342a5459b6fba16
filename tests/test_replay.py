"""`python -m dbwjax.replay`: a run folder's order is drawn again, checked, and trained on anew."""

from __future__ import annotations

import numpy as np
import pytest

from dbwjax import replay, train
from dbwjax.experiments import run
from dbwjax.storage.timelines import load_timeline, save_timeline

pytestmark = pytest.mark.optimised

WORDS = [
    *("--workers", "4", "--dataset", "logistic:dimension=4,samples=40", "--steps", "6", "--eval-every", "3"),
    *("--seeds", "2", "--no-progress"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay") / "run"
    policies = ["--policies", "dybw:late=carry", "backup:b=1", "--baseline", "dybw:late=carry"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_figures", lambda path, *_, **__: [path / "summary.png"])
        assert train.main([*WORDS, *policies, "--graph", "complete", "--out", str(folder)]) == 0
    return folder


def test_a_finished_run_replays_exactly(finished, capsys):
    assert replay.main([str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    policies = ("dybw:late=carry", "backup:b=1")
    assert [line.partition(": ")[0] for line in lines] == [
        f"{one}, world {world}" for one in policies for world in (0, 1)
    ]
    for line in lines:
        assert "the recorded order" in line
        now, recorded = line.split("test loss at the end ")[1].rstrip(")").split(" (recorded ")
        assert float(now) == pytest.approx(float(recorded), abs=2e-6)


def test_another_order_is_noticed(finished, tmp_path, capsys):
    for name in ("config.json", "summary.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    recorded = load_timeline(finished / "timeline.npz")
    one = recorded["backup:b=1"]["1"]
    one["duration"] = np.nextafter(one["duration"], np.float32(9))
    save_timeline(tmp_path / "timeline.npz", recorded)
    assert replay.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in said if "ANOTHER ORDER" in line] == ["backup:b=1, world 1"]


def test_a_folder_without_a_finished_run(tmp_path, capsys):
    assert replay.main([str(tmp_path)]) == 2
    assert "is not a finished run" in capsys.readouterr().err
