"""The sweep as a user types it: the numbers of `train`, paired, resumable, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import time

import jax
import pytest

from dbwjax import build_graph, limits, sweep, train
from dbwjax.experiments import blocks, driver
from dbwjax.experiments import config as configs
from dbwjax.experiments.sweep import clocks
from dbwjax.runtime import memory
from dbwjax.storage.metrics_log import read_metrics

BASE = ["--dataset", "logistic", "--workers", "6", "--batch-size", "4", "--no-progress"]
ALONE = [*BASE, "--seconds", "20", "--rows", "4"]
SMALL = [*ALONE, "--policies", "dybw", "full"]
CLOCKS = ["--timing-only", "--workers", "6", "--no-progress", "--seconds", "20", "--policies", "dybw", "full"]
AXES = ["--graphs", "ring", "complete", "--seeds", "2", "--learning-rates", "0.1", "0.3"]


def rows_of(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(autouse=True)
def few_figures(request):
    """Two tests look at some."""
    if request.function is not test_a_graph_file_of_any_name:
        request.getfixturevalue("no_figures")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "out"
    assert sweep.main([*SMALL, *AXES, "--out", str(folder)]) == 0
    return folder


def assert_the_same(ours, theirs):
    """A row of `results.csv` and one of `metrics.jsonl`: times and counts to the last bit, measures to rounding."""
    assert ours["policy"] == theirs["policy"]
    for name in ("row", "virtual_time", "step", "drift", "gradients", "computing", "wasted", "waiting"):
        assert float(ours[name]) == theirs[name], name
    for name in ("test_loss", "test_accuracy", "consensus_distance", "train_loss", "worker_accuracy_min"):
        if theirs[name] is None:
            assert ours[name] == "", name
        else:
            assert float(ours[name]) == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_a_world_of_the_sweep_is_a_run_of_train(swept, tmp_path):
    words = ["--graph", "complete", "--learning-rate", "0.3", "--seed", "1", "--seeds", "1"]
    assert train.main([*SMALL, *words, "--out", str(tmp_path / "run")]) == 0
    world = ("complete", "0.3", "1")
    ours = [row for row in rows_of(swept) if (row["graph"], row["learning_rate"], row["seed"]) == world]
    theirs = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(ours) == len(theirs) == 2 * 5
    for a, b in zip(ours, theirs, strict=True):
        assert_the_same(a, b)


def test_axes_are_cells_and_seeds_are_their_worlds(swept):
    cells = summary_of(swept)["cells"]
    assert [tuple(cell["values"].values()) for cell in cells] == [
        (graph, "shifted_exponential:shift=0.5,rate=1", rate) for graph in ("ring", "complete") for rate in (0.1, 0.3)
    ]
    assert {(cell["worlds"], cell["distinct"], cell["clusters"]) for cell in cells} == {(2, 2, 2)}
    assert (swept / "time_to_target-heatmap.png").stat().st_size > 5000


TIMED = ["dybw", "dybw:late=drop", "backup:b=1,gap=inf", "full:barrier=neighbours", "full"]


@pytest.mark.parametrize("budget", [["--steps", "17"], ["--seconds", "21.5"]])
def test_a_clock_alone_counts_what_a_training_counts(tmp_path, budget):
    words = [*budget, "--seeds", "2", "--policies", *TIMED, "--baseline", TIMED[2], "--no-progress"]
    words += ["--workers", "8", "--delays", "shifted_exponential * slow_workers:fraction=0.1,factor=5"]
    learned = ["--dataset", "logistic", "--batch-size", "4", "--rows", "1"]
    assert sweep.main([*words, "--timing-only", "--out", str(tmp_path / "timed")]) == 0
    assert sweep.main([*words, *learned, "--out", str(tmp_path / "trained")]) == 0
    ours, theirs = rows_of(tmp_path / "timed"), [row for row in rows_of(tmp_path / "trained") if row["row"] == "1"]
    assert len(ours) == len(theirs) == 2 * len(TIMED)
    for a, b in zip(ours, theirs, strict=True):
        # The budget in steps is the end of an iteration of the baseline, which counts.
        for name in ("policy", "seed", "virtual_time", "step", "drift", "gradients"):
            assert a[name] == b[name], (name, a)
        for name in ("computing", "wasted", "waiting", "iteration_length", "active_fraction", "backup_workers"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-5, abs=1e-6), (name, a)
    assert max(int(row["drift"]) for row in ours) > 3
    found = summary_of(tmp_path / "timed")
    assert (found["kind"], found["target_accuracy"]) == ("timing", None)
    assert "rank speed, not learning" in found["rule"]


def test_killed_and_started_again(swept, tmp_path, monkeypatch):
    words = [*SMALL, *AXES, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(blocks, "CACHE", 0)  # blocks of one, and resumed where more would fit
    block, done = driver.Driver._block, []

    def dying(self, *arguments, **named):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return block(self, *arguments, **named)

    monkeypatch.setattr(driver.Driver, "_block", dying)
    assert sweep.main(words) == 130
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 5
    done.clear()
    monkeypatch.setattr(blocks, "CACHE", 1 << 30)
    monkeypatch.setattr(driver.Driver, "_block", lambda *a, **named: done.append(1) or block(*a, **named))
    assert sweep.main(words) == 0
    assert len(done) == 16 - 5
    for a, b in zip(rows_of(tmp_path / "out"), rows_of(swept), strict=True):
        assert (a["virtual_time"], a["step"], a["gradients"]) == (b["virtual_time"], b["step"], b["gradients"])
        assert float(a["test_loss"]) == pytest.approx(float(b["test_loss"]), rel=1e-4)
    assert sweep.main([*words, "--seconds", "30"]) == 2


def test_worlds_of_any_workers_and_no_world_twice(tmp_path):
    words = ["--graphs", "ring", "erdos_renyi:p=0.9", "--graph-seeds", "3", "--set", "workers=6,12"]
    clocks_alone = [word for word in CLOCKS if word not in ("--workers", "6")]
    assert sweep.main([*clocks_alone, *words, "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    rows = [row for row in rows_of(tmp_path / "out") if row["policy"] == "full"]
    assert len(rows) == 2 * 2 * (1 + 3)
    assert {row["active_fraction"] for row in rows} == {"1.0"}
    cells = {
        (cell["values"]["graph"], cell["values"]["workers"]): cell for cell in summary_of(tmp_path / "out")["cells"]
    }
    assert len(cells) == 4
    for (graph, _), cell in cells.items():
        # Graphs that share delays are one cluster: as many as there are seeds, whichever way is wider.
        assert cell["worlds"] == (2 if graph == "ring" else 6)
        assert cell["clusters"] == 2


def test_worlds_that_draw_the_same_count_once_and_laws_are_never_pooled(tmp_path):
    (tmp_path / "trace.csv").write_text("\n".join(",".join(str(1 + (i + j) % 3) for j in range(6)) for i in range(4)))
    words = ["--delays", f"trace:path={tmp_path / 'trace.csv'}", "shifted_exponential", "--graph", "ring"]
    assert sweep.main([*CLOCKS, *words, "--seeds", "4", "--out", str(tmp_path / "out")]) == 0
    found = summary_of(tmp_path / "out")["cells"]
    assert [(cell["worlds"], cell["distinct"]) for cell in found] == [(4, 1), (4, 4)]
    assert found[0]["policies"]["dybw"]["iteration_ratio"]["low"] is None


def test_a_graph_file_of_any_name(tmp_path):
    """Dollars and underscores are no formulas to the figures that come after all work."""
    path = tmp_path / "g$\\nosuch$_2.csv"
    path.write_text("".join(f"{i},{(i + 1) % 6}\n" for i in range(6)))
    words = ["--graphs", f"from_file:path={path}", "ring", "erdos_renyi", "--graph-seeds", "2", "--seeds", "2"]
    assert sweep.main([*CLOCKS, *words, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "iteration_length-graph.png").stat().st_size > 5000
    ours, ring = (rows_of(tmp_path / "out")[i : i + 2] for i in (0, 2))
    assert [row["step"] for row in ours] == [row["step"] for row in ring]
    assert {row["graph_seed"] for row in (*ours, *ring)} == {"0"}  # a file draws nothing


def test_partitions_of_any_width(tmp_path):
    words = ["--model", "lrm", "--partition", "dirichlet:alpha=0.5", "--policies", "full", "--graph", "ring"]
    words = [*(word if word != "logistic" else "digits" for word in ALONE), *words]
    assert sweep.main([*words, "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * 5
    # One batch, though seeds give workers more or fewer samples; as `train` draws them.
    assert len(json.loads((tmp_path / "out" / "config.json").read_text())["blocks"]) == 1
    assert train.main([*words, "--seed", "1", "--seeds", "1", "--out", str(tmp_path / "run")]) == 0
    ours = [row for row in rows if row["seed"] == "1"]
    for a, b in zip(ours, read_metrics(tmp_path / "run" / "metrics.jsonl"), strict=True):
        assert_the_same(a, b)


def test_what_diverges_is_said_and_the_others_go_on(tmp_path, capsys):
    words = ["--dataset", "quadratic", "--learning-rates", "0.01", "1e30", "--policies", "full", "--seeds", "2"]
    assert sweep.main([*ALONE, *words, "--out", str(tmp_path / "out")]) == 0
    last = {(row["learning_rate"], row["seed"]): row for row in rows_of(tmp_path / "out") if row["row"] == "4"}
    assert {key: row["diverged"] for key, row in last.items()} == {
        **{("0.01", seed): "False" for seed in "01"},
        **{("1e+30", seed): "True" for seed in "01"},
    }
    assert all((row["test_loss"] == "") == (row["diverged"] == "True") for row in last.values())
    assert [cell["policies"]["full"]["diverged"] for cell in summary_of(tmp_path / "out")["cells"]] == [0, 2]


def test_a_thousand_random_graphs(tmp_path):
    words = ["--graphs", "erdos_renyi:p=0.5", "--graph-seeds", "1000", "--timing-only", "--workers", "10"]
    words += ["--steps", "20", "--seeds", "1", "--policies", "dybw", "full", "--no-progress"]
    assert sweep.main([*words, "--out", str(tmp_path / "out")]) == 0
    assert len({row["computing"] for row in rows_of(tmp_path / "out") if row["policy"] == "dybw"}) > 100
    (cell,) = summary_of(tmp_path / "out")["cells"]
    assert (cell["worlds"], cell["clusters"]) == (1000, 1)  # all of them share their delays


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
        (["--set", "pca=0"], "--pca 0 is out of range"),
        (["--seeds", "2", "--seed", "4294967295"], "--seeds 2 is out of range; use seeds up to 4294967295"),
        (["--policies", "fastest:k=99"], "k=99 is more than"),
        (["--steps", "10"], "--seconds and --steps are both given"),
        (["--set", "steps=10,20"], "--set steps: all of a sweep has the same; use --steps"),
        (["--timing-only", "--learning-rates", "0.1", "0.2"], "--learning-rates changes nothing with --timing-only"),
        (["--timing-only", "--set", "batch_size=1,2"], "--set batch_size changes nothing with --timing-only"),
        (["--devices", "99"], "--devices 99 is more than the"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, capsys, words, said):
    base = CLOCKS if "--timing-only" in words else SMALL
    assert sweep.main([*base, *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dbwjax.limits.available_bytes", lambda: 100_000)
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
    begin = time.process_time()
    assert sweep.main(["--timing-only", *words, "--out", str(tmp_path / "out")]) == 2
    assert time.process_time() - begin < 10
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_clocks_that_do_not_fit_at_once_are_walked_in_blocks(tmp_path, capsys, monkeypatch):
    words = ["--timing-only", "--workers", "50", "--graph", "ring", "--seeds", "5", "--steps", "20", "--no-progress"]
    words += ["--policies", "dybw"]
    assert sweep.main([*words, "--out", str(tmp_path / "at once")]) == 0
    monkeypatch.setattr(limits, "available_bytes", lambda: 2 * 50 * 3 * clocks.TICK)
    assert sweep.main([*words, "--out", str(tmp_path / "in blocks")]) == 0
    assert json.loads((tmp_path / "in blocks" / "config.json").read_text())["blocks"] == [2]
    assert rows_of(tmp_path / "at once") == rows_of(tmp_path / "in blocks")
    monkeypatch.setattr(limits, "available_bytes", lambda: 100)
    assert sweep.main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "a clock of --workers 50 and 2 neighbours needs about" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_many_graphs_are_counted_by_one_of_them(tmp_path, capsys, monkeypatch):
    """What is allowed, and what is refused, is what all of them hold, kept and stacked."""
    words = ["--timing-only", "--workers", "30", "--graph", "random_regular:degree=4", "--graph-seeds", "500"]
    graphs = {("random_regular:degree=4", 30, seed) for seed in range(500)}
    held = 2 * sum(sum(leaf.nbytes for leaf in jax.tree.leaves(build_graph(*net))) for net in graphs)
    monkeypatch.setattr(limits, "host_bytes", lambda: held)
    memory.require_graphs(graphs)
    monkeypatch.setattr(limits, "host_bytes", lambda: held - 1)
    monkeypatch.setattr(configs, "require_fit", lambda *counts: None)  # which would refuse so many worlds first
    assert sweep.main([*words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "a sweep of 500 graphs needs about" in told
    assert "use --graph-seeds for at most 499 of them" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
