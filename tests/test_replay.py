"""`python -m dbwjax.replay`: a run folder's order is drawn again, checked, and trained on anew."""

from __future__ import annotations

import numpy as np
import pytest

from dbwjax import replay, train
from dbwjax.storage.timelines import load_timeline, save_timeline

WORDS = ["--workers", "4", "--model", "lrm", "--steps", "6", "--eval-every", "3", "--no-progress"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay") / "run"
    assert (
        train.main([*WORDS, "--policies", "dybw:late=carry", "backup:b=1", "--graph", "complete", "--out", str(folder)])
        == 0
    )
    return folder


def test_a_finished_run_replays_exactly(finished, capsys):
    assert replay.main([str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["dybw", "backup"]
    for line in lines:
        assert "the recorded order" in line
        now, recorded = line.split("final test loss ")[1].rstrip(")").split(" (recorded ")
        assert float(now) == pytest.approx(float(recorded), abs=2e-6)


def test_another_order_is_noticed(finished, tmp_path, capsys):
    for name in ("config.json", "summary.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    recorded = load_timeline(finished / "timeline.npz")
    recorded["backup:b=1"]["duration"] = np.nextafter(recorded["backup:b=1"]["duration"], np.float32(9))
    save_timeline(tmp_path / "timeline.npz", recorded)
    assert replay.main([str(tmp_path)]) == 1
    assert "backup:b=1: 6 steps in ANOTHER ORDER" in capsys.readouterr().out


def test_a_folder_without_a_finished_run(tmp_path, capsys):
    assert replay.main([str(tmp_path)]) == 2
    assert "is not a finished run" in capsys.readouterr().err
