"""Worlds that break, from what is typed to what comes of it: times that can be worked out by hand.

Computations take a second and messages no time, so that under `full` an iteration takes a second unless something
breaks. The absences are those of one file or a few words; the engine's own tests look at every method.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from dbwjax import build_graph, build_task, compare_clocks, train_policy
from dbwjax.cli import replay, report, train
from tests.run_folder import rows

N = 4


def trained(**given):
    task = build_task("quadratic:dimension=2", workers=N, seed=0)
    words = {"seconds": 12.0, "rows": 12, "learning_rate": 0.1, **given}
    return train_policy("full", task, build_graph("complete", N), "constant", "sgd", **words)


def ends(found, budget=12.0):
    """When iterations end, up to the budget."""
    times = np.cumsum(found.duration.astype(np.float64))
    return times[times <= budget].tolist()


def test_a_crash_costs_the_patience():
    """Worker 3 is gone at 2.5 s, in iteration 3; the others wait for it until they know of it, and go on without."""
    found = trained(world="crash:worker=3,at=2.5,patience=2")
    assert ends(found) == [1, 2, 4.5, *np.arange(5.5, 12)]
    assert found.active[:2].all()
    assert (found.active[2:10] == [True, True, True, False]).all()
    told = trained(world=["crash:worker=3,at=2.5,patience=0"])
    assert ends(told) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    gradients = [row["gradients"] for row in found.rows]
    assert gradients[-1] == 2 * 4 + 8 * 3


def test_a_worker_that_leaves_and_one_that_joins_late(tmp_path):
    """Worker 0 is away from 3.4 to 6.25 s and says so: its computation is done again from then on, until 7.25 s. Worker
    1 is there from 1.5 s on, and its first computation is done at 2.5 s: iteration 2 waits for it."""
    path = tmp_path / "e.csv"
    path.write_text("event,worker,at_ms,until_ms\nleave,0,3400,6250\njoin,1,1500,\n")
    found = trained(events=path)
    assert ends(found) == [1, 2.5, 3.5, 4.5, 5.5, 7.25, 8.25, 9.25, 10.25, 11.25]
    np.testing.assert_array_equal(found.active[:10, 1], [False] + [True] * 9)
    np.testing.assert_array_equal(found.active[:10, 0], [True] * 2 + [False] * 3 + [True] * 5)


def test_a_partition_parts_and_heals():
    """All hear all, so that after every iteration all have the same parameters, but while a partition lasts."""
    found = trained(world="partition:at=4.5,until=8.5")
    distance = np.array([row["consensus_distance"] for row in found.rows])
    assert ends(found) == [*range(1, 13)]
    assert (distance[:5] < 1e-6).all()
    assert (distance[5:9] > 1e-4).all()
    assert (distance[9:] < 1e-6).all()


def test_lost_messages_cost_no_time_and_part_the_workers():
    calm, lossy = trained(), trained(world="loss:probability=0.5")
    np.testing.assert_array_equal(calm.duration, lossy.duration)
    assert calm.rows[-1]["consensus_distance"] < 1e-6
    assert lossy.rows[-1]["consensus_distance"] > 1e-4
    assert lossy.rows[-1]["test_loss"] == pytest.approx(calm.rows[-1]["test_loss"], rel=0.5)


def test_clocks_alone_break_too():
    found = compare_clocks("full", "complete", "constant", workers=N, steps=10, seeds=1, world="crash:worker=3,at=2.5")
    calm = compare_clocks("full", "complete", "constant", workers=N, steps=10, seeds=1)
    assert calm.rows[0]["iteration_length"] == 1
    assert found.rows[0]["gradients"] < calm.rows[0]["gradients"]
    assert found.worlds[0]["hashes"]["timing"] != calm.worlds[0]["hashes"]["timing"]


def test_the_command_keeps_it_and_replays_it(tmp_path, monkeypatch, capsys, no_figures):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.csv").write_text("event,worker,at,until\nleave,1,3.5,6.5\n")
    words = ["--workers", "4", "--graph", "complete", "--dataset", "quadratic:dimension=2", "--delays", "constant"]
    broken = ["--world", "crash:worker=3,at=2.5,patience=2", "loss:probability=0.1", "--events", "e.csv"]
    more = ["--policies", "full", "--seconds", "12", "--rows", "12", "--seeds", "2", "--no-progress", "--out", "run"]
    assert train.main([*words, *broken, *more]) == 0
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["config"]["world"] == broken[1:3]
    assert kept["config"]["events"] == "e.csv"
    assert "e.csv" in kept["inputs"]
    last = [row for row in rows(tmp_path / "run") if row["row"] == 12]
    assert {row["step"] for row in last} == {10.0}  # ends at 1, 2, 4.5, 5.5, 7.5, ..., 11.5, the last one at 12.5
    capsys.readouterr()
    assert replay.main(["run"]) == 0
    assert train.main([*words, *broken[:2], *more]) == 2  # another world than the folder's
    said = capsys.readouterr().err
    assert "world: ['crash:worker=3,at=2.5,patience=2', 'loss:probability=0.1'] in the run folder" in said
    assert report.main(["run", "--out", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "What breaks in these worlds" in page
    assert "crash:worker=3,at=2.5,patience=2" in page
    (tmp_path / "e.csv").write_text("event,worker,at,until\nleave,1,3.5,7.5\n")
    assert replay.main(["run"]) == 2
    assert "e.csv has changed since run was begun" in capsys.readouterr().err
