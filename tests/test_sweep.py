"""The sweep as a user types it: the numbers of `train`, paired, resumable, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import time

import pytest

from dbwjax import build_graph, sweep, train
from dbwjax.experiments.sweep import run
from dbwjax.report.sweep_figures import _interval
from dbwjax.runtime import memory
from dbwjax.storage.metrics_log import read_metrics

SMALL = ["--dataset", "logistic", "--workers", "6", "--steps", "20", "--eval-every", "10", "--batch-size", "4"]
SMALL += ["--no-progress"]


def rows_of(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "out"
    axes = ["--graphs", "ring", "complete", "--seeds", "2", "--learning-rates", "0.1", "0.3"]
    assert sweep.main([*SMALL, *axes, "--out", str(folder)]) == 0
    return folder


def test_a_world_of_the_sweep_is_a_run_of_train(swept, tmp_path):
    words = ["--graph", "complete", "--learning-rate", "0.3", "--seed", "1", "--policies", "dybw", "full"]
    assert train.main([*SMALL, *words, "--out", str(tmp_path / "run")]) == 0
    ours = [
        row for row in rows_of(swept) if (row["graph"], row["learning_rate"], row["seed"]) == ("complete", "0.3", "1")
    ]
    theirs = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(ours) == len(theirs) == 6
    for a, b in zip(ours, theirs, strict=True):
        assert (a["policy"], int(a["step"]), int(a["gradients"])) == (b["policy"], b["step"], b["gradients"])
        assert float(a["virtual_time"]) == b["virtual_time"]
        for name in ("test_loss", "test_accuracy", "consensus_distance", "train_loss", "backup_workers"):
            if b[name] is not None:
                assert float(a[name]) == pytest.approx(b[name], rel=1e-4, abs=1e-6), name


def test_timing_only_has_the_same_seconds(swept, tmp_path):
    axes = ["--graphs", "ring", "complete", "--seeds", "2", "--timing-only"]
    assert sweep.main([*SMALL, *axes, "--out", str(tmp_path / "out")]) == 0
    timed = {(r["policy"], r["graph"], r["seed"], r["step"]): r["virtual_time"] for r in rows_of(tmp_path / "out")}
    assert len(timed) == 2 * 2 * 2 * 2
    trained = {(r["policy"], r["graph"], r["seed"], r["step"]): r["virtual_time"] for r in rows_of(swept)}
    assert all(trained[key] == seconds for key, seconds in timed.items())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["seconds"] == "mean_duration"
    assert summary["policies"]["dybw"]["paired"] == 4
    found = summary["policies"]["dybw"]["speedup"]
    assert 1 < found["low"] < found["mean"] < found["high"]
    assert (tmp_path / "out" / "mean_duration-graph.png").stat().st_size > 5000


def test_killed_and_started_again(swept, tmp_path, monkeypatch):
    axes = ["--graphs", "ring", "complete", "--seeds", "2", "--learning-rates", "0.1", "0.3"]
    words = [*SMALL, *axes, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sweep_run, "CACHE", 0)  # blocks of one, and resumed where more would fit
    run_block, done = run._run_block, []

    def dying(*arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return run_block(*arguments)

    monkeypatch.setattr(sweep_run, "_run_block", dying)
    assert sweep.main(words) == 130
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 5
    done.clear()
    monkeypatch.setattr(sweep_run, "CACHE", 1 << 30)
    monkeypatch.setattr(sweep_run, "_run_block", lambda *a: done.append(1) or run_block(*a))
    assert sweep.main(words) == 0
    assert len(done) == 16 - 5
    for a, b in zip(rows_of(tmp_path / "out"), rows_of(swept), strict=True):
        assert a["virtual_time"] == b["virtual_time"]
        assert float(a["test_loss"]) == pytest.approx(float(b["test_loss"]), rel=1e-4)
    assert sweep.main([*words, "--steps", "30"]) == 2


def test_worlds_of_any_workers_and_no_world_twice(tmp_path):
    words = ["--graphs", "ring", "erdos_renyi:p=0.9", "--graph-seeds", "3", "--set", "workers=6,12", "--timing-only"]
    assert sweep.main([*SMALL, *words, "--policies", "full", "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * 2 * (1 + 3)
    assert {row["active_fraction"] for row in rows} == {"1.0"}


def test_partitions_of_any_width(tmp_path):
    words = ["--model", "lrm", "--partition", "dirichlet:alpha=0.5", "--policies", "full", "--graph", "ring"]
    words = [*(word if word != "logistic" else "digits" for word in SMALL), *words]
    assert sweep.main([*words, "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * 3
    # One batch, though seeds give workers more or fewer samples; as `train` draws them.
    assert len(json.loads((tmp_path / "out" / "config.json").read_text())["blocks"]) == 1
    assert train.main([*words, "--seed", "1", "--out", str(tmp_path / "run")]) == 0
    for ours, theirs in zip(rows[3:], read_metrics(tmp_path / "run" / "metrics.jsonl"), strict=True):
        assert ours["virtual_time"] == str(theirs["virtual_time"])
        assert float(ours["test_loss"]) == pytest.approx(theirs["test_loss"], rel=1e-4)


def test_bfloat16(tmp_path):
    words = [word if word != "logistic" else "digits" for word in SMALL]
    assert sweep.main([*words, "--model", "lrm", "--dtype", "bfloat16", "--out", str(tmp_path / "out")]) == 0
    assert float(rows_of(tmp_path / "out")[2]["test_loss"]) < float(rows_of(tmp_path / "out")[0]["test_loss"])


def test_what_diverges_is_said_and_the_others_go_on(tmp_path, capsys):
    words = ["--dataset", "quadratic", "--learning-rates", "0.01", "1e30", "--policies", "full", "--seeds", "2"]
    assert sweep.main([*SMALL, *words, "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    last = {(row["learning_rate"], row["seed"]): row for row in rows if row["step"] == "20"}
    assert {key: row["diverged"] for key, row in last.items()} == {
        **{("0.01", seed): "False" for seed in "01"},
        **{("1e+30", seed): "True" for seed in "01"},
    }
    assert all((row["test_loss"] == "") == (row["diverged"] == "True") for row in last.values())
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["policies"]["full"]["diverged"] == 2


def test_a_thousand_random_graphs(tmp_path):
    words = ["--graphs", "erdos_renyi:p=0.5", "--graph-seeds", "1000", "--timing-only", "--workers", "10"]
    words += ["--steps", "20", "--eval-every", "20", "--policies", "dybw", "full", "--no-progress"]
    assert sweep.main([*words, "--out", str(tmp_path / "out")]) == 0
    assert len({row["virtual_time"] for row in rows_of(tmp_path / "out") if row["policy"] == "dybw"}) > 900


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0"], "--seeds 0 is out of range; use 1 or more"),
        (["--graph-seeds", "-1"], "--graph-seeds -1 is out of range"),
        (["--graphs", "ring", "ring"], "--graphs names ring twice"),
        (["--graphs", "rnig"], "unknown graph 'rnig'; did you mean 'ring'?"),
        (["--set", "wrokers=3"], "--set wrokers: unknown key; did you mean 'workers'?"),
        (["--set", "workers=3,x"], "--set workers=3,x: not all are ints"),
        (["--set", "seed=1,2"], "--set seed has an option of its own"),
        (["--set", "workers"], "--set workers is not a setting; write key=value,value"),
        (["--set", "batch_size=0"], "--batch-size 0 is out of range"),
        (["--seeds", "2", "--seed", "4294967295"], "use at most 4294967295"),
        (["--policies", "dybw", "fastest:k=99"], "k=99 is more than"),
        (["--set", "steps=10,20"], "--set steps: all of a sweep has the same; use --steps"),
        (["--timing-only", "--learning-rates", "0.1", "0.2"], "--learning-rates changes nothing with --timing-only"),
        (["--timing-only", "--set", "batch_size=1,2"], "--set batch_size changes nothing with --timing-only"),
        (["--devices", "99"], "--devices 99 is more than the"),
        (["--tensorboard"], "--tensorboard does nothing in a sweep"),
        (["--checkpoint-every", "2"], "--checkpoint-every does nothing in a sweep"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, capsys, words, said):
    assert sweep.main([*SMALL, *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dbwjax.runtime.memory.available_bytes", lambda: 100_000)
    assert sweep.main([*SMALL, "--out", str(tmp_path / "out")]) == 2
    assert "of memory and" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--graph", "random_regular:degree=4", "--workers", "1000000000"], "--workers 1000000000 needs about"),
        (["--graph", "complete", "--set", "workers=10,3000000"], "--workers 3000000 needs about"),
    ],
)
def test_graphs_that_do_not_fit_are_refused_before_any_is_built(tmp_path, capsys, words, said):
    begin = time.perf_counter()
    assert sweep.main(["--timing-only", *words, "--out", str(tmp_path / "out")]) == 2
    assert time.perf_counter() - begin < 10
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_clocks_that_do_not_fit_at_once_are_walked_in_blocks(tmp_path, capsys, monkeypatch):
    words = ["--timing-only", "--workers", "50", "--graph", "ring", "--seeds", "5", "--steps", "20", "--no-progress"]
    assert sweep.main([*words, "--out", str(tmp_path / "at once")]) == 0
    monkeypatch.setattr(memory_check, "available_bytes", lambda: 2 * 50 * 3 * run.TICK)
    assert sweep.main([*words, "--out", str(tmp_path / "in blocks")]) == 0
    assert json.loads((tmp_path / "in blocks" / "config.json").read_text())["blocks"] == [2]
    assert rows_of(tmp_path / "at once") == rows_of(tmp_path / "in blocks")
    monkeypatch.setattr(memory_check, "available_bytes", lambda: 100)
    assert sweep.main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "a clock of --workers 50 and 2 neighbours needs about" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_many_graphs_are_counted_by_one_of_them(tmp_path, capsys, monkeypatch):
    """What is allowed, and what is refused, is what all of them hold, kept and stacked."""
    words = ["--timing-only", "--workers", "30", "--graph", "random_regular:degree=4", "--graph-seeds", "500"]
    graphs = {("random_regular:degree=4", 30, seed) for seed in range(500)}
    held = 2 * sum(sum(leaf.nbytes for leaf in build_graph(*net)) for net in graphs)
    monkeypatch.setattr(memory_check, "_host_bytes", lambda: held)
    memory.require_graphs(graphs)
    monkeypatch.setattr(memory_check, "_host_bytes", lambda: held - 1)
    assert sweep.main([*words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "a sweep of 500 graphs needs about" in told
    assert "use --graph-seeds for at most 499 of them" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interval_by_hand():
    found = _interval([0.0, 1.0, 2.0])
    assert found is not None
    reach = 4.302652729911275 / 3**0.5  # Student's 0.975 quantile with two degrees of freedom, deviation 1
    for name, value in (("low", 1 - reach), ("mean", 1), ("high", 1 + reach)):
        assert found[name] == pytest.approx(2.718281828459045**value)
