"""`python -m dbwjax.train` as a person types it: what it leaves, what it refuses, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dbwjax import train
from dbwjax.experiments.training import Training
from dbwjax.storage import run_folder
from dbwjax.storage.metrics_log import COLUMNS
from dbwjax.storage.timelines import load_timeline
from tests.run_folder import assert_same, rows

TINY = [
    "--workers",
    "4",
    "--model",
    "lrm",
    "--graph",
    "complete",
    "--steps",
    "12",
    "--eval-every",
    "4",
    "--no-progress",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, request):
    if request.function is not test_what_a_run_leaves:  # `test_plots.py` looks at figures
        monkeypatch.setattr(plots, "write_figures", lambda path, *_: [path / "summary.png"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path


def command(*words, code=0):
    assert train.main([*TINY, *map(str, words)]) == code


def refused(capsys, *words, code=2):
    """The one line that the command prints, having written nothing."""
    before = sorted(os.listdir())
    assert train.main(list(map(str, words))) == code
    said = capsys.readouterr()
    assert sorted(os.listdir()) == before
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    return said.err


def test_what_a_run_leaves(folder, capsys):
    command(
        "--policies",
        "dybw",
        "fastest:k=3,late=carry",
        "full",
        "--out",
        "mine",
        "--tensorboard",
        "--target-accuracy",
        0.5,
    )
    run = folder / "mine"
    table = capsys.readouterr().out
    assert "speed-ups are over full" in table
    assert set(os.listdir(run)) == {
        *("config.json", "metrics.jsonl", "summary.json", "timeline.npz", "checkpoint", "tensorboard", ".lock"),
        *("summary.png", "accuracy.png", "loss.png", "durations.png", "backup_workers.png", "graph.png"),
    }
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary) == ["target_accuracy", "policies", "speedup"]
    assert list(summary["policies"]) == list(summary["speedup"]) == ["dybw", "fastest:k=3,late=carry", "full"]
    for facts in summary["policies"].values():
        assert list(facts) == [
            *("steps", "virtual_time", "wall_time", "mean_duration", "final_test_loss", "final_test_accuracy"),
            *("time_to_target", "active_fraction", "backup_workers"),
        ]
        assert facts["steps"] == 12
    assert summary["speedup"]["full"]["duration"] == 1.0
    assert summary["speedup"]["dybw"]["duration"] > 1
    assert summary["policies"]["full"]["active_fraction"] == 1
    lines = rows(run)
    assert [(row["policy"], row["step"]) for row in lines] == [
        (policy, step) for policy in summary["policies"] for step in (0, 4, 8, 12)
    ]
    assert list(lines[0]) == list(COLUMNS)
    # All start from the same parameters.
    assert len({row["test_loss"] for row in lines if row["step"] == 0}) == 1
    timeline = load_timeline(run / "timeline.npz")
    for policy, facts in summary["policies"].items():
        assert timeline[policy]["active"].shape == (12, 4)
        assert timeline[policy]["duration"].astype(np.float64).sum() == pytest.approx(facts["virtual_time"], rel=1e-12)


def test_policies_share_delays_batches_and_parameters(folder):
    command("--policies", "full", "fastest:k=4", "deadline:seconds=inf", "--out", "same")
    by_policy: dict = {}
    for row in rows(folder / "same"):
        by_policy.setdefault(row.pop("policy"), []).append(row)
    first, *others = by_policy.values()
    assert others == [first, first]


def test_a_finished_run_is_not_trained_again_and_a_seed_matters(folder, monkeypatch, capsys):
    command("--out", "a")
    kept = (folder / "a" / "metrics.jsonl").read_bytes()
    command("--out", "b", "--seed", 1)
    assert [row["test_loss"] for row in rows(folder / "a")] != [row["test_loss"] for row in rows(folder / "b")]
    monkeypatch.setattr(Training, "advance", lambda *_: pytest.fail("trained again"))
    capsys.readouterr()
    command("--out", "a")
    assert (folder / "a" / "metrics.jsonl").read_bytes() == kept
    assert "speed-ups are over full" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", ["quadratic:dimension=5", "logistic:dimension=4,samples=40"])
def test_synthetic_tasks_have_no_model(folder, dataset):
    words = ["--workers", "4", "--dataset", dataset, "--steps", "4", "--eval-every", "2", "--no-progress"]
    assert train.main([*words, "--out", "synthetic"]) == 0
    summary = json.loads((folder / "synthetic" / "summary.json").read_text())
    assert summary["policies"]["dybw"]["final_test_loss"] is not None


@pytest.mark.parametrize(
    ("words", "expected"), [(["--list"], "small_world:degree=4,p=0.1"), (["mnist-2nn", "--print-config"], '"pca": 256')]
)
def test_questions_write_nothing(folder, capsys, words, expected):
    assert train.main(words) == 0
    assert expected in capsys.readouterr().out
    assert not os.listdir()


BAD = [
    (["quickstrat"], "did you mean 'quickstart'"),
    (["quickstart", "more"], "one word too many"),
    (["--polices", "full"], "did you mean '--policies'"),
    (["--policies", "fulll"], "did you mean 'full'"),
    (["--policies", "full", "full"], "named twice"),
    (["--policies", "dybw:lat=carry"], "did you mean 'late'"),
    (["--policies", "dybw:late=never"], "is not a choice"),
    (["--policies", "dybw:barrier=neighbours"], "this rule ends the iteration for everybody"),
    (["--policies", "fastest"], "needs k="),
    (["--policies", "fastest:k=11"], "use 1 to 10"),
    (["--policies", "fastest:k=0"], "k=0 waits for nobody"),
    (["--policies", "fastest:k=two"], "is not a whole number"),
    (["--policies", "backup:b=9", "--graph", "complete"], "use 0 to 8"),
    (["--policies", "backup:b=-1"], "b=-1"),
    (["--policies", "backup:barrier=global"], "every worker's own finish would still be waited for"),
    (["--policies", "full:barrier=neighbours,late=carry"], "late=carry has no meaning"),
    (["--policies", "full:weights=metropolitan"], "did you mean 'metropolis'"),
    (["--policies", "deadline:seconds=0"], "lets no time pass"),
    (["--policies", "deadline:seconds=nan"], "NaN"),
    (["--policies", "dybw:flood_latency=-1"], "flood_latency=-1"),
    (["--graph", "rings"], "did you mean 'ring'"),
    (["--graph", "grid:rows=3"], "use one of 1, 2, 5, 10"),
    (["--graph", "from_file:path=none.csv"], "none.csv is not a file"),
    (["--delays", "expo"], "unknown delays 'expo'"),
    (["--delays", "constant:seconds=-1"], "seconds=-1 is out of range"),
    (["--delays", "trace:path=none.csv"], "none.csv is not a file"),
    (["--dataset", "digit"], "did you mean 'digits'"),
    (["--model", "3nn"], "did you mean"),
    (["--dataset", "quadratic", "--model", "lrm"], "is synthetic and has no model"),
    (["--partition", "dirichlet:alpha=0"], "alpha=0"),
    (["--partition", "dirichlet:alpha=0.001", "--workers", "60"], "without samples"),
    (["--workers", "2000", "--graph", "ring"], "2000"),
    (["--pca", "65"], "65"),
    (["--pca", "0"], "--pca 0 is out of range"),
    (["--optimizer", "sdg"], "did you mean 'sgd'"),
    (["--optimizer", "momentum:beta=1"], "beta=1"),
    (["--workers", "0"], "--workers 0 is out of range"),
    (["--steps", "-5"], "--steps -5 is out of range"),
    (["--steps", "1.5"], "1.5 is not a whole number"),
    (["--batch-size", "0"], "--batch-size 0"),
    (["--learning-rate", "0"], "--learning-rate 0"),
    (["--learning-rate", "nan"], "nan is not a number"),
    (["--learning-rate", "inf"], "--learning-rate inf"),
    (["--learning-rate", "fast"], "fast is not a number"),
    (["--target-accuracy", "1.1"], "--target-accuracy 1.1"),
    (["--eval-every", "500"], "at most steps=400"),
    (["--eval-every", "0"], "--eval-every 0"),
    (["--seed", "-1"], "--seed -1"),
    (["--latency", "-0.1"], "--latency -0.1"),
    (["--bandwidth", "0"], "--bandwidth 0"),
    (["--checkpoint-every", "0"], "--checkpoint-every 0"),
    (["--policies"], "expected"),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(capsys, words, expected):
    assert expected in refused(capsys, *words)


def test_bad_files_are_one_line(folder, capsys):
    (folder / "pieces.csv").write_text("0,1\n2,3\n")
    (folder / "short.csv").write_text("1,2,3\n")
    (folder / "negative.csv").write_text(",".join(["-1"] * 10) + "\n")
    assert "cannot reach" in refused(capsys, "--graph", "from_file:path=pieces.csv", "--workers", 4)
    assert "10 workers need 10" in refused(capsys, "--delays", "trace:path=short.csv")
    assert "'-1' is not a time" in refused(capsys, "--delays", "trace:path=negative.csv")


def test_data_that_are_not_prepared_are_refused_at_once(folder, capsys):
    begin = time.perf_counter()
    said = refused(capsys, "mnist-lrm", "--data-dir", folder / "nothing")
    assert time.perf_counter() - begin < 5  # a network time-out would take minutes
    assert "is not prepared in" in said
    assert "--data-dir" in said


def test_places_that_cannot_hold_a_run(folder, capsys):
    (folder / "file").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("mine")
    for place in ("file", "file/below", "full"):
        assert "use another --out" in refused(capsys, *TINY, "--out", place)
        assert "use another --out" in refused(capsys, *TINY, "--out", place, "--overwrite")
    assert (folder / "full" / "thesis.tex").read_text() == "mine"


def test_another_run_s_folder_is_left_alone_until_overwritten(folder, capsys):
    command("--out", "run")
    kept = (folder / "run" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    said = refused(capsys, *TINY, "--out", "run", "--seed", 7, "--learning-rate", 0.2)
    for part in ("seed: 0 in the run folder, 7 now", "learning_rate: 0.1", "--overwrite", "--out"):
        assert part in said
    assert (folder / "run" / "metrics.jsonl").read_bytes() == kept
    command("--out", "run", "--seed", 7, "--overwrite")
    assert (folder / "run" / "metrics.jsonl").read_bytes() != kept


def test_damaged_run_folders_are_one_line(folder, capsys):
    command("--out", "run")
    run = folder / "run"
    for state in run.glob("checkpoint/*/state"):
        for part in state.rglob("*"):
            if part.is_file() and part.stat().st_size > 100:
                part.write_bytes(part.read_bytes()[:50])
    capsys.readouterr()
    assert "--overwrite" in refused(capsys, *TINY, "--out", "run")
    (run / "config.json").write_text('{"config": ')
    assert "--overwrite" in refused(capsys, *TINY, "--out", "run")
    (run / "config.json").write_text('{"config": {"seed": 0}}')
    assert "--overwrite" in refused(capsys, *TINY, "--out", "run")
    command("--out", "run", "--overwrite")


def test_a_second_process_waits_outside(folder, capsys):
    with run_folder.RunFolder.open("run"):
        assert "is in use by process" in refused(capsys, *TINY, "--out", "run")
    command("--out", "run")


def test_a_loss_that_is_not_finite(folder, capsys):
    words = ["--learning-rate", "1e38", "--policies", "full", "--checkpoint-every", "1", "--out", "wild"]
    for _ in range(2):
        command(*words, code=3)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        for part in ("policy 'full'", "worker", "is not finite at step", "smaller learning rate"):
            assert part in said


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_and_resumed_is_uninterrupted(folder, monkeypatch, capsys, signum, code):
    command("--out", "whole")
    advance, calls = Training.advance, []

    def interrupted(self, steps):
        calls.append(steps)
        if len(calls) == 4:
            os.kill(os.getpid(), signum)
        advance(self, steps)

    monkeypatch.setattr(Training, "advance", interrupted)
    capsys.readouterr()
    command("--out", "parts", code=code)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "stopped by SIG" in said
    assert "at step 4 of policy 'full'" in said
    monkeypatch.setattr(Training, "advance", advance)
    command("--out", "parts")
    assert_same(folder / "whole", folder / "parts")


def test_as_a_process(folder):
    """No traceback, no warning and the exit code, when a shell starts it."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    start = [sys.executable, "-m", "dbwjax.train"]
    done = subprocess.run([*start, *TINY, "--out", "run"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "figures: " in done.stdout
    wrong = subprocess.run([*start, "--workers", "0"], capture_output=True, text=True, env=environment)
    assert wrong.returncode == 2
    assert wrong.stderr == "error: --workers 0 is out of range; use 1 or more\n"


def test_the_device_is_named(folder):
    command("--out", "run")
    assert (
        json.loads((folder / "run" / "config.json").read_text())["environment"]["device"]
        == jax.devices()[0].device_kind
    )
