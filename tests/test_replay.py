"""`python -m dbwjax.replay`: a run computed once more, and compared with what it left."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from dbwjax import replay, train
from dbwjax.experiments import run as experiment
from dbwjax.storage import manifest
from dbwjax.storage.parts import Parts

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
        patch.setattr(experiment, "write_figures", lambda path, *_, **__: [path / "summary.png"])
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
        assert "in the recorded order" in line
        now, recorded = line.split("test loss at the end ")[1].rstrip(")").split(" (recorded ")
        assert now == recorded


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_nothing_is_written(finished):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = state()
    assert replay.main([str(finished)]) == 0
    assert state() == before


def forged(folder, rows=None, arrays=None, environment=None):
    """Numbers that are others, under checksums that are computed again: what only a replay can find."""
    config, run = manifest.read_config(folder, "")
    if environment is not None:
        parts = Parts(folder / "parts", run)
        kept = {number: (parts.rows(number), parts.timelines(number)) for number in (0, 1)}
        run = manifest.write_config(folder, config | {"environment": config["environment"] | environment})
        for number, (own, timelines) in kept.items():
            Parts(folder / "parts", run).keep(number, own, timelines)
        manifest.write_manifest(folder, run, ["metrics.jsonl", "timeline.npz"])
    parts = Parts(folder / "parts", run)
    own, timelines = parts.rows(1), parts.timelines(1)
    for change, what in ((rows, own), (arrays, timelines)):
        if change is not None:
            change(what)
    parts.keep(1, own, timelines)


def longer(arrays, by=None):
    arrays["1/duration"] = (
        np.nextafter(arrays["1/duration"], np.float32(9)) if by is None else arrays["1/duration"] * by
    )


def worse(rows):
    row = next(row for row in rows if row["world"] == 1 and row["row"] == 1)
    row["test_loss"] = float(np.nextafter(row["test_loss"], 9))


def active(arrays):
    arrays["1/active"][3, 2] ^= True


ELSEWHERE = {"jax": "0.0.1"}


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"arrays": longer}, 3, "another duration"),
        ({"arrays": active}, 3, "another active"),
        ({"rows": worse}, 3, "another test_loss"),
        ({"rows": lambda rows: rows.pop()}, 3, "another number of rows"),
        ({"environment": ELSEWHERE}, 0, ""),
        ({"environment": ELSEWHERE, "arrays": longer}, 0, ""),
        ({"environment": ELSEWHERE, "rows": worse}, 0, ""),
        (
            {"environment": ELSEWHERE, "arrays": lambda arrays: longer(arrays, np.float32(1.00001))},
            3,
            "another duration from step 0",
        ),
    ],
)
def test_what_disagrees_ends_with_3(copy, capsys, changes, code, said):
    forged(copy, **changes)
    assert replay.main([str(copy)]) == code
    lines = capsys.readouterr()
    apart = [line for line in lines.out.splitlines() if "NOT AS RECORDED" in line]
    assert len(apart) == (code == 3)
    if code:
        assert apart[0].startswith("backup:b=1, world 1: ")
        assert said in apart[0]
        assert lines.err == "error: 1 of 4 are not as recorded, the first backup:b=1, world 1\n"


def flipped(path):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def reconfigured(**changes):
    def change(run):
        config, _ = manifest.read_config(run, "")
        manifest.write_config(run, config | {"config": config["config"] | changes})

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *[
            (lambda run, name=name: flipped(run / name), name)
            for name in ("config.json", "metrics.jsonl", "summary.json", "worlds.json", "timeline.npz", "table.csv")
        ],
        *[
            (lambda run, name=name: flipped(run / name), name)
            for name in ("manifest.json", "parts/1.npz", "parts/1.json")
        ],
        (lambda run: (run / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda run: (run / "summary.json").unlink(), "is not a finished run"),
        (lambda run: (run / "config.json").unlink(), "no config.json"),
        (lambda run: shutil.rmtree(run), "is not a finished run"),
        (lambda run: shutil.copy(run / "parts" / "0.json", run / "parts" / "1.json"), "is of block 0"),
        (reconfigured(workers=0), "--workers 0 is out of range"),
        (reconfigured(seed=-1), "--seed -1 is out of range"),
        (reconfigured(policies=["dybw", "dybw"]), "named twice"),
        (reconfigured(workers="four"), "fields of another type: workers"),
        (reconfigured(seed=5), "belongs to another run"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_one_line(copy, capsys, change, said):
    change(copy)
    assert replay.main([str(copy)]) == 2
    lines = capsys.readouterr()
    assert said in lines.err
    assert lines.err.count("\n") == 1
    assert "NOT AS RECORDED" not in lines.out


def test_figures_may_be_thrown_away_and_a_checkpoint_too(copy):
    shutil.rmtree(copy / "checkpoint")
    for name in ("table.tex", "metrics.jsonl"):
        (copy / name).unlink()
    assert replay.main([str(copy)]) == 0


def test_a_loss_that_is_not_finite_ends_with_3(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "write_figures", lambda path, *_, **__: [path / "summary.png"])
    words = ["--policies", "backup:b=1", "--learning-rate", "1e38", "--graph", "complete"]
    assert train.main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["policies"]["backup:b=1"]["diverged"] == 2
    assert replay.main([str(tmp_path / "run")]) == 3
    assert "the loss is not finite at" in capsys.readouterr().out


def test_a_sweep_is_no_run(tmp_path, capsys):
    manifest.write_config(tmp_path, {"sweep": {}, "blocks": []})
    (tmp_path / "summary.json").write_text("{}")
    assert replay.main([str(tmp_path)]) == 2
    assert "is not a run of python -m dbwjax.train" in capsys.readouterr().err
