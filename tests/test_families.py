"""One method of each family through the command: killed in the middle of every one of them and started again, it ends
with the bits of the run that was not; it replays; its rows add up."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from dbwjax.cli import replay, sweep, train
from dbwjax.experiments import run as experiments_run
from dbwjax.experiments import training
from dbwjax.experiments.driver import Driver
from dbwjax.storage.timelines import load_timeline
from tests.run_folder import assert_same, rows

pytestmark = pytest.mark.timeout(1500)  # the first test waits for a run of every method

POLICIES = (
    *("server_backup:b=1", "k_async:k=2", "k_batch_sync:k=4", "ssp:bound=1", "dbw", "adpsgd", "acid", "token"),
    *("sgp:graph=one_peer", "agp", "hop:b=1,gap=3", "prague:group=2", "dsgd_aau", "local_sgd:h=2", "full"),
    "msda",
)
SECONDS, WORKERS, ROWS = 8, 4, 4
WORDS = [
    *("--workers", str(WORKERS), "--graph", "ring", "--dataset", "logistic:dimension=4,samples=64"),
    *("--batch-size", "4", "--learning-rate", "0.1", "--latency", "0", "--seconds", str(SECONDS), "--rows", str(ROWS)),
    *("--seeds", "2", "--policies", *POLICIES, "--no-progress"),
]


class Killed(BaseException):
    """As by SIGKILL."""


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """So that every method is cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHUNK", 3)
        patch.setattr(training, "EVENTS", 1)
        patch.setattr(experiments_run, "write_figures", lambda path, *_, **__: [path / "summary.png"])
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / "whole"
    assert train.main([*WORDS, "--out", str(folder)]) == 0
    return folder


def test_killed_in_every_method_and_resumed(whole, tmp_path, monkeypatch):
    """At its first checkpoint; then it keeps none but the last, as the run that was not killed."""
    save, seen = Driver._save, set()

    def dying(self, block, training, rows):
        if block.number not in seen:
            save(self, block, training, rows)
            assert not training.done
            seen.add(block.number)
            self.checkpoints.close()
            raise Killed
        if training.done:
            save(self, block, training, rows)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_save", dying)
        for _ in range(100):
            try:
                assert train.main([*WORDS, "--checkpoint-every", "1", "--out", str(out)]) == 0
                break
            except Killed:
                continue
    assert len(seen) >= len(POLICIES)
    assert_same(whole, out)
    assert {row["policy"] for row in rows(out)} == set(POLICIES)


def test_they_replay(whole, capsys):
    assert replay.main([str(whole)]) == 0
    assert "NOT AS RECORDED" not in capsys.readouterr().out


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_add_up(whole, policy):
    """Seconds are those of the workers, shares are shares, and single workers' sums are the rows'."""
    timeline = load_timeline(whole / "timeline.npz")[policy]
    for world in (0, 1):
        own = [row for row in rows(whole) if (row["policy"], row["world"]) == (policy, world)]
        assert [row["virtual_time"] for row in own] == np.linspace(0, SECONDS, ROWS + 1).tolist()
        last, arrays = own[-1], timeline[str(world)]
        spent = sum(last[name] for name in ("computing", "wasted", "waiting", "communicating"))
        assert 0.1 * WORKERS * SECONDS < spent <= WORKERS * SECONDS * (1 + 1e-5)
        for name in ("computing", "wasted", "waiting", "communicating"):
            np.testing.assert_allclose(arrays[f"worker_{name}"].sum(), last[name], rtol=1e-6, atol=1e-9)
        assert arrays["worker_counted"].sum() == last["gradients"] > 0
        gaps = [np.nan if row["spectral_gap"] is None else row["spectral_gap"] for row in own]
        np.testing.assert_allclose(arrays["row_spectral_gap"], gaps, rtol=1e-12)
        assert np.isnan(gaps).all() or policy.split(":")[0] not in OWN_NODES
        assert not np.isnan(gaps[2:]).any() or policy not in ("adpsgd", "agp")  # the others have few steps
        one = 4 * 4  # bytes of the model
        assert arrays["row_messages"].sum() * one == last["bytes_sent"]
        assert last["bytes_sent"] > 0 or policy == "token"  # it may stay where it is
        assert last["communicating"] == 0  # there is no latency
        assert 0 <= last["heard_least"] <= 1
        assert [row["gradients"] for row in own] == sorted(row["gradients"] for row in own)
        losses = [row["test_loss"] for row in own]
        assert losses[-1] < losses[0]
        events = "workers" in arrays
        assert events == (policy.split(":")[0] in EVENTS)
        if events:
            assert arrays["workers"].shape == arrays["active"].shape == arrays["age"].shape
            assert arrays["active"].sum() >= last["gradients"]


OWN_NODES = {"server_backup", "k_async", "k_batch_sync", "ssp", "dbw", "acid", "token", "hop"}
EVENTS = {"k_async", "ssp", "adpsgd", "acid", "token", "agp", "hop", "prague"}


CLOCKS = [policy for policy in POLICIES if policy != "dbw"]
"""`dbw` reads training and has no clock of its own."""


@pytest.fixture(scope="module")
def clocks(tmp_path_factory):
    """The last row of each policy and world, by the clocks alone."""
    folder = tmp_path_factory.mktemp("families") / "clocks"
    words = ["--workers", str(WORKERS), "--graphs", "ring", "--seconds", str(SECONDS), "--seeds", "2", "--timing-only"]
    assert sweep.main([*words, "--policies", *CLOCKS, "--no-progress", "--out", str(folder)]) == 0
    with open(folder / "results.csv") as file:
        return {(row["policy"], int(row["seed"])): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("policy", CLOCKS)
def test_the_clock_alone_says_the_same(whole, clocks, policy):
    for world in (0, 1):
        trained = [row for row in rows(whole) if (row["policy"], row["world"]) == (policy, world)][-1]
        alone = clocks[policy, world]
        for name in ("virtual_time", "step", "drift", "gradients", "iteration_length"):
            assert float(alone[name]) == pytest.approx(trained[name], rel=1e-5), name
        for name in ("computing", "wasted", "waiting", "communicating"):
            assert float(alone[name]) == pytest.approx(trained[name], rel=1e-5, abs=1e-5), name


NARROW = ("k_async:k=2", "dbw", "sgp:graph=one_peer", "hop:b=1,gap=3", "subgradient:radius=0.5")
"""One for each seam that touches the type of parameters: an accumulator, a statistic, mass, mailboxes, a combine."""


def test_in_bfloat16_the_clock_is_the_same_and_the_loss_is_near(whole, tmp_path):
    """Those in float32 are there but for one method."""
    found = {}
    for dtype, policies in (("float32", [one for one in NARROW if one not in POLICIES]), ("bfloat16", NARROW)):
        words = [word for word in WORDS if word not in POLICIES]
        place = words.index("--policies") + 1
        words[place:place] = policies
        assert train.main([*words, "--dtype", dtype, "--out", str(tmp_path / dtype)]) == 0
        every = [*rows(tmp_path / dtype), *(rows(whole) if dtype == "float32" else ())]
        chosen = (row for row in every if row["policy"] in NARROW)
        found[dtype] = sorted((row["policy"], row["world"], row["row"], row) for row in chosen)
    assert len(found["bfloat16"]) == len(NARROW) * 2 * (ROWS + 1)
    for (*of, wide), (*also, narrow) in zip(found["float32"], found["bfloat16"], strict=True):
        assert of == also
        if wide["policy"] != "dbw":  # whose clock reads gradients, which are of that type
            for name in ("step", "gradients", "computing", "wasted", "waiting", "staleness"):
                assert narrow[name] == wide[name], (wide["policy"], name)
        assert narrow["test_loss"] == pytest.approx(wide["test_loss"], rel=0.02)
        assert narrow["bytes_sent"] == pytest.approx(wide["bytes_sent"] / 2) or wide["policy"] == "dbw"
