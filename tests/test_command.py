"""`python -m dbwjax.train` as a person types it: what it leaves, what it refuses, and how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dbwjax import train
from dbwjax.experiments import run as experiments_run
from dbwjax.experiments import training
from dbwjax.experiments.driver import Driver
from dbwjax.experiments.training import Training
from dbwjax.report.run_figures import FIGURES
from dbwjax.storage import run_folder
from dbwjax.storage.metrics_log import COLUMNS
from dbwjax.storage.parts import Parts
from dbwjax.storage.timelines import load_timeline
from tests.readme import ROOT
from tests.run_folder import assert_same, rows

TASK = ["--workers", "4", "--graph", "complete", "--dataset", "logistic:dimension=4,samples=40", "--no-progress"]
TINY = [*TASK, "--policies", "full", "--steps", "12", "--eval-every", "4", "--seeds", "1"]
DRIFTING = "backup:b=1,gap=inf"
# Several worlds, a policy whose workers drift, and one that does not.
WORLDS = [*TASK, "--policies", DRIFTING, "full", "--seconds", "60", "--rows", "6", "--seeds", "2"]


pytestmark = pytest.mark.pages


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, request):
    if request.function is not test_what_a_run_leaves:
        request.getfixturevalue("no_figures")
    monkeypatch.setattr(training, "CHUNK", 8)  # so that these short runs have several chunks
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of `WORLDS` that nobody interrupted."""
    place = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments_run, "write_figures", lambda path, *_, **__: [path / "summary.png"])
        patch.setattr(experiments_run, "leave_page", lambda path, *_, **__: path / "report.html")
        patch.setattr(training, "CHUNK", 8)
        assert train.main([*WORLDS, "--checkpoint-every", "1", "--out", str(place)]) == 0
    return place


def command(*words, code=0, of=TINY):
    assert train.main([*of, *map(str, words)]) == code


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
        "--out",
        "mine",
        "--tensorboard",
        "--target-accuracy",
        0.8,
        "--learning-rate",
        0.5,
        "--figures",
        "png,svg",
        of=WORLDS,
    )
    run = folder / "mine"
    assert "Baseline: full. Ratio: full's time to target over the policy's" in capsys.readouterr().out
    assert set(os.listdir(run)) == {
        *("config.json", "metrics.jsonl", "summary.json", "worlds.json", "timeline.npz", "table.csv", "table.tex"),
        *("manifest.json", "checkpoint", "parts", "tensorboard", "report.html", ".lock"),
        *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
    }
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["policies"]) == [DRIFTING, "full"]
    for facts in summary["policies"].values():
        assert facts["reached"] == [2, 2]
        assert 0 < facts["time_to_target"] < 60
        for name in ("iterations", "iteration_length", "test_loss", "test_accuracy"):
            assert facts[name] > 0, name
    assert [world["world"] for world in json.loads((run / "worlds.json").read_text())] == [0, 1]
    lines = rows(run)
    found = sorted((row["policy"], row["world"], row["row"], row["virtual_time"]) for row in lines)
    assert found == [
        (spec, world, row, 10.0 * row) for spec in summary["policies"] for world in (0, 1) for row in range(7)
    ]
    assert list(lines[0])[: len(COLUMNS)] == list(COLUMNS)
    # All policies start from the same parameters.
    assert len({row["test_loss"] for row in lines if row["row"] == row["world"] == 0}) == 1
    assert max(row["drift"] for row in lines if row["policy"] == DRIFTING) > 0
    timeline = load_timeline(run / "timeline.npz")
    for spec in summary["policies"]:
        for world in (0, 1):
            kept = timeline[spec][str(world)]
            steps = len(kept["duration"])
            assert kept["active"].shape == (steps, 4)
            # Every worker is past the budget with the last step; a global iteration ends there, and none after it.
            ends = np.cumsum(kept["duration"].astype(np.float64))
            if spec == "full":
                assert ends[-2] <= 60 < ends[-1]
                own = [row for row in lines if (row["policy"], row["world"]) == (spec, world)]
                assert own[-1]["step"] == steps - 1


def test_rows_at_the_ends_of_the_baseline_s_iterations(folder):
    """One policy, a global barrier: iteration by iteration, as ever."""
    command("--steps", 10, "--out", "run")
    lines = rows(folder / "run")
    assert [row["step"] for row in lines] == [0, 4, 8, 10]
    ends = np.cumsum(
        np.concatenate([[0], load_timeline(folder / "run" / "timeline.npz")["full"]["0"]["duration"]]), dtype=float
    )
    assert [row["virtual_time"] for row in lines] == [ends[int(row["step"])] for row in lines]
    assert [row["gradients"] for row in lines] == [0, 16, 32, 40]


def test_the_baseline_gives_all_the_same_time(folder):
    words = ["--policies", "fastest:k=3", "--seeds", 2, "--baseline", "fastest:k=3"]
    command(*words, "--out", "run")
    lines = rows(folder / "run")
    for world in (0, 1):
        by = {
            spec: [row for row in lines if (row["policy"], row["world"]) == (spec, world)]
            for spec in ("full", "fastest:k=3")
        }
        assert [row["virtual_time"] for row in by["full"]] == [row["virtual_time"] for row in by["fastest:k=3"]]
        assert [row["step"] for row in by["fastest:k=3"]] == [0, 4, 8, 12]
        assert by["full"][-1]["step"] < 12
    assert len({row["virtual_time"] for row in lines if row["row"] == 3}) == 2  # each world has its own budget


def test_policies_share_delays_batches_and_parameters(folder):
    command("--policies", "fastest:k=4", "deadline:seconds=inf", "--out", "same")
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
    assert "figures: " in capsys.readouterr().out


def test_until_target_ends_with_the_row_after_the_target(folder, monkeypatch):
    words = [
        "--until-target",
        "--target-accuracy",
        0.8,
        "--learning-rate",
        0.5,
        "--seconds",
        300,
        "--rows",
        150,
        "--checkpoint-every",
        1,
    ]
    command(*words, "--out", "run", of=[*TASK, "--policies", "full", "--seeds", "2"])
    lines = rows(folder / "run")
    for world in (0, 1):
        own = [row["test_accuracy"] for row in lines if row["world"] == world]
        assert own[0] < 0.8 <= own[-1]
        assert 4 < len(own) < 75
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["policies"]["full"]["reached"] == [2, 2]

    def dying(*_):
        raise Killed

    with monkeypatch.context() as patch:  # after the last checkpoint
        patch.setattr(Parts, "keep", dying)
        with pytest.raises(Killed):
            command(*words, "--out", "killed", of=[*TASK, "--policies", "full", "--seeds", "2"])
    command(*words, "--out", "killed", of=[*TASK, "--policies", "full", "--seeds", "2"])
    assert_same(folder / "run", folder / "killed")


def test_a_task_without_accuracy(folder, capsys):
    words = ["--workers", "4", "--dataset", "quadratic:dimension=5", "--policies", "full", "--seeds", "1"]
    command("--out", "run", of=[*words, "--steps", "4", "--eval-every", "2", "--no-progress"])
    facts = json.loads((folder / "run" / "summary.json").read_text())["policies"]["full"]
    assert facts["test_loss"] > 0
    assert (facts["test_accuracy"], facts["time_to_target"]) == (None, None)


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
    (["--policies", "fastest:k=0"], "k=0 is out of range"),
    (["--policies", "fastest:k=two"], "is not a whole number"),
    (["--policies", "backup:b=-1"], "b=-1"),
    (["--policies", "backup:barrier=global"], "every worker's own finish would still be waited for"),
    (["--policies", "full:barrier=neighbours,late=drop"], "late=drop has no meaning"),
    (["--policies", "full:weights=metropolitan"], "did you mean 'metropolis'"),
    (["--policies", "deadline:seconds=0"], "lets no time pass"),
    (["--policies", "deadline:seconds=nan"], "NaN"),
    (["--policies", "dybw:flood_latency=-1"], "flood_latency=-1"),
    (["--graph", "rings"], "did you mean 'ring'"),
    (["--graph", "grid:rows=3"], "use one of 1, 2, 5, 10"),
    (["--graph", "from_file:path=none.csv"], "none.csv cannot be read"),
    (["--delays", "expo"], "unknown delays 'expo'"),
    (["--delays", "constant:seconds=-1"], "seconds=-1 is out of range"),
    (["--delays", "trace:path=none.csv"], "none.csv cannot be read"),
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
    (["--steps", "400", "--eval-every", "500"], "use 1 to steps=400"),
    (["--eval-every", "5"], "--eval-every counts the baseline's iterations; use --rows with --seconds"),
    (["--steps", "5", "--seconds", "5"], "give one budget"),
    (["--baseline", "fastest:k=5"], "is not among the policies"),
    (["--schedule", "cosin:steps=5"], "did you mean 'cosine'"),
    (["--schedule", "cosine"], "needs steps="),
    (["--schedule", "step:every=0"], "every=0 is out of range"),
    (["--figures", "gif"], "unknown 'gif'"),
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


def stopped(monkeypatch, *words, saves=2, of=WORLDS):
    """The command, killed after so many checkpoints."""
    save, seen = Driver._save, []

    def dying(self, *rest):
        save(self, *rest)
        seen.append(rest)
        if len(seen) == saves:
            self.checkpoints.close()
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_save", dying)
        with pytest.raises(Killed):
            command("--checkpoint-every", 1, *words, of=of)


def test_damaged_run_folders_are_one_line(folder, capsys, monkeypatch):
    stopped(monkeypatch, "--out", "run", of=TINY, saves=1)
    run = folder / "run"
    for state in run.glob("checkpoint/*/state"):
        for part in state.rglob("*"):
            if part.is_file() and part.stat().st_size > 100:
                part.write_bytes(part.read_bytes()[:50])
    capsys.readouterr()
    said = refused(capsys, *TINY, "--out", "run")
    assert "is damaged" in said
    assert "--overwrite" in said
    shutil.rmtree(run / "checkpoint")
    command("--out", "run")
    capsys.readouterr()
    (run / "parts" / "0.json").write_text('{"rows": [')
    command("--out", "run")
    assert "0.json is corrupt" in capsys.readouterr().err
    for config in ('{"config": ', '{"config": {"seed": 0}}', (run / "config.json").read_text().replace("blocks", "b")):
        (run / "config.json").write_text(config)
        assert "--overwrite" in refused(capsys, *TINY, "--out", "run")
    command("--out", "run", "--overwrite")


def test_a_second_process_waits_outside(folder, capsys):
    with run_folder.RunFolder.open("run"):
        assert "is in use by process" in refused(capsys, *TINY, "--out", "run")
    command("--out", "run")


def test_a_loss_that_is_not_finite(folder, capsys):
    words = ["--learning-rate", "1e38", "--checkpoint-every", "1", "--out", "wild"]
    for _ in range(2):
        command(*words, code=3)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        for part in ("policy 'full'", "a loss is not finite at", "smaller learning rate"):
            assert part in said


def test_one_world_of_several_that_diverges_is_in_the_rows(folder, capsys):
    command("--learning-rate", "1e38", "--seeds", 2, "--out", "wild")
    for world in (0, 1):
        own = [row for row in rows(folder / "wild") if row["world"] == world]
        assert [row["row"] for row in own] == [0, 1, 2, 3]
        assert own[-1]["diverged"] is True
        assert own[-1]["test_loss"] is None
    assert json.loads((folder / "wild" / "summary.json").read_text())["policies"]["full"]["diverged"] == 2


@pytest.mark.parametrize("saves", [1, 3, 6])
def test_killed_and_resumed_is_uninterrupted(folder, whole, monkeypatch, saves):
    """In the first block with readings open, in both of them, and after the last checkpoint."""
    stopped(monkeypatch, "--out", "run", saves=saves)
    with open(folder / "run" / "metrics.jsonl", "ab") as log:
        log.write(b'{"policy": "bac')  # cut by the kill
    command("--out", "run", of=WORLDS)
    assert_same(whole, folder / "run")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_and_resumed_is_uninterrupted(folder, whole, monkeypatch, capsys, signum, code):
    advance, calls = Training.advance, []

    def interrupted(self):
        calls.append(self)
        if len(calls) == 2:
            os.kill(os.getpid(), signum)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", interrupted)
        command("--out", "run", code=code, of=WORLDS)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"error: stopped by {signum.name} at " in said
    assert f"s of policy '{DRIFTING}'; the same command goes on from there" in said
    assert len(calls) == 2
    command("--out", "run", of=WORLDS)
    assert_same(whole, folder / "run")


@pytest.mark.optimised
def test_worlds_are_those_of_their_seeds_alone(folder):
    """Side by side on one device: the clock to the last bit, what is learned to rounding."""
    whole = folder / "whole"
    command("--out", whole, of=WORLDS)
    command("--seed", 1, "--seeds", 1, "--out", "alone", of=WORLDS)
    exact = ("policy", "world", "row", "virtual_time", "step", "drift", "gradients", "computing", "wasted", "waiting")
    ours = [row for row in rows(whole) if row["world"] == 1]
    theirs = rows(folder / "alone")
    assert [[row[name] for name in exact] for row in ours] == [[row[name] for name in exact] for row in theirs]
    for name in ("test_loss", "test_accuracy", "train_loss", "consensus_distance"):
        np.testing.assert_allclose(
            [row[name] or 0 for row in ours], [row[name] or 0 for row in theirs], rtol=1e-5, atol=1e-6, err_msg=name
        )
    both, alone = (load_timeline(run / "timeline.npz") for run in (whole, folder / "alone"))
    for policy, worlds in alone.items():
        for name, array in worlds["1"].items():
            np.testing.assert_array_equal(array, both[policy]["1"][name], err_msg=f"{policy} {name}")


def test_on_two_devices(folder):
    words = [sys.executable, "-m", "tests.on_two_devices", str(folder)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    # World 1 of --seeds 2 is --seed 1, to the last bit, where each has a device of its own.
    alone = rows(folder / "alone")
    assert [row for row in rows(folder / "shared") if row["world"] == 1] == alone
    both = load_timeline(folder / "shared" / "timeline.npz")[DRIFTING]
    for name, array in load_timeline(folder / "alone" / "timeline.npz")[DRIFTING]["1"].items():
        np.testing.assert_array_equal(array, both["1"][name], err_msg=name)


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
