"""W&B and TensorBoard behind the one writer of metrics: every row once, whatever is killed, and never a run's end."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import types

import pytest

from dbwjax import sweep, train
from dbwjax.experiments import blocks
from dbwjax.storage import wandb_tracker
from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.parts import Parts
from dbwjax.storage.wandb_tracker import check_wandb

SECRET = "0123456789abcdef0123456789abcdef01234567"
RUN = ["--dataset", "quadratic", "--workers", "4", "--batch-size", "2", "--seconds", "4", "--rows", "3", "--seeds", "2"]
RUN += ["--policies", "full", "--no-progress"]  # in blocks of one
CLOCKS = ["--timing-only", "--workers", "4", "--seconds", "4", "--seeds", "2", "--policies", "dybw", "full"]
CLOCKS += ["--graphs", "ring", "star", "--at-once", "3", "--no-progress"]


@pytest.fixture(autouse=True)
def small(no_figures, monkeypatch):
    monkeypatch.setattr(blocks, "CACHE", 0)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """W&B without a network, and with nothing of the person who tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {"MODE": "offline", "API_KEY": SECRET, "DIR": "", "CONFIG_DIR": str(tmp_path / "wandb")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    import wandb

    wandb.teardown()  # it reads its surroundings once
    yield wandb
    wandb.teardown()


def records_of(path):
    """The records of a file of W&B: LevelDB's log behind seven bytes, in blocks of 32 KiB; parts of a long record are
    first (2), middle (3) and last (4), a short one is whole (1)."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if (1 << 15) - place % (1 << 15) < 7:  # no header fits the rest of a block
            place += (1 << 15) - place % (1 << 15)
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def written(folder):
    """What W&B's own files hold: by W&B run its records."""
    paths = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.stem for path in paths}) == len(paths), "a W&B run has been written twice"
    return {path.stem: list(records_of(path)) for path in paths}


def rows_of(folder):
    """`(policy, world values, steps, rows)` of every W&B run."""
    for records in written(folder).values():
        (run,) = (record.run for record in records if record.HasField("run"))
        told = {item.key: json.loads(item.value_json) for item in run.config.update}
        steps, rows = [], []
        for record in records:
            if record.HasField("history"):
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                steps.append(record.history.step.num)
                rows.append({name: value for name, value in row.items() if not name.startswith("_")})
        yield run, told, steps, rows, records


def test_offline_every_policy_in_every_world_is_a_run_of_its_rows(offline, tmp_path):
    out = tmp_path / "out"
    assert train.main([*RUN, "--out", str(out), "--wandb", "slow workers"]) == 0
    lines = {}
    for line in read_metrics(out / "metrics.jsonl"):
        lines.setdefault((line["policy"], line["world"]), []).append(line)
    found = list(rows_of(out))
    assert {(told["policy"], told["world"]) for _, told, *_ in found} == set(lines)
    for run, told, steps, rows, records in found:
        own = lines[told["policy"], told["world"]]
        assert (run.project, run.display_name) == ("slow workers", f"{told['policy']}, world {told['world']}")
        assert {name: told[name] for name in ("dataset", "workers", "seconds")} == {
            "dataset": "quadratic",
            "workers": 4,
            "seconds": 4,
        }
        assert steps == [0, 1, 2, 3]
        keys = ("virtual_time", "step", "test_loss", "gradients", "waiting")
        assert [{name: row[name] for name in keys} for row in rows] == [
            {name: line[name] for name in keys} for line in own
        ]
        axes = {
            record.metric.name or record.metric.glob_name: record.metric
            for record in records
            if record.HasField("metric")
        }
        assert axes["*"].step_metric == "virtual_time"
    assert len((out / "wandb" / "finished").read_text().split()) == 2
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert SECRET.encode() not in everything
    # The same command again finds all of them finished.
    before = sorted((out / "wandb").iterdir())
    assert train.main([*RUN, "--out", str(out), "--wandb", "slow workers"]) == 0
    assert sorted((out / "wandb").iterdir()) == before


@pytest.mark.parametrize("at", [1, 2], ids=["in the first block", "in the last"])
def test_a_killed_and_resumed_run_logs_no_row_twice(offline, tmp_path, monkeypatch, at):
    keep, kept = Parts.keep, []

    def dying(self, *arguments):
        kept.append(1)
        if len(kept) == at:
            raise KeyboardInterrupt
        keep(self, *arguments)

    out = tmp_path / "out"
    words = [*RUN, "--out", str(out), "--wandb"]
    monkeypatch.setattr(wandb_tracker.Wandb, "__exit__", lambda self, *exception: None)  # as one that is killed
    monkeypatch.setattr(Parts, "keep", dying)
    assert train.main(words) == 130
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    offline.teardown()
    assert train.main(words) == 0
    found = list(rows_of(out))
    assert len(found) == 2
    assert all(steps == [0, 1, 2, 3] for _, _, steps, *_ in found)


def test_numbers_are_those_of_a_run_that_nobody_tracks(offline, tmp_path):
    pytest.importorskip("tensorboardX")
    assert train.main([*RUN, "--out", str(tmp_path / "plain")]) == 0
    assert train.main([*RUN, "--out", str(tmp_path / "tracked"), "--wandb", "--tensorboard"]) == 0
    plain, tracked = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("plain", "tracked"))
    assert [{**row, "wall_time": 0} for row in plain] == [{**row, "wall_time": 0} for row in tracked]
    for name in ("summary.json", "config.json", "worlds.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "tracked" / name).read_bytes()
    # And it begins anew together with its run.
    assert train.main([*RUN, "--out", str(tmp_path / "tracked"), "--overwrite"]) == 0
    assert not (tmp_path / "tracked" / "wandb").exists()
    assert not (tmp_path / "tracked" / "tensorboard").exists()


@pytest.mark.parametrize("extra", [[], ["--shard", "1/2"]], ids=["whole", "a shard"])
def test_a_sweep_tells_of_each_world_by_its_axes(offline, tmp_path, extra):
    assert sweep.main([*CLOCKS, *extra, "--out", str(tmp_path / "out"), "--wandb"]) == 0
    (folder,) = {path.parent.parent for path in tmp_path.rglob("wandb/finished")}
    found = [(told["policy"], told["graph"], told["seed"]) for _, told, *_ in rows_of(folder)]
    parts = [json.loads(path.read_text())["rows"] for path in (folder / "parts").glob("*.json")]
    assert sorted(found) == sorted((row["policy"], row["graph"], row["seed"]) for rows in parts for row in rows)
    assert len(found) == (4 if extra else 8)


def test_tensorboard_of_a_sweep_has_a_run_for_each_world(tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    assert sweep.main([*CLOCKS, "--out", str(tmp_path / "out"), "--tensorboard"]) == 0
    folders = {
        path.parent.relative_to(tmp_path / "out" / "tensorboard").as_posix() for path in tmp_path.rglob("events*")
    }
    assert len(folders) == 8
    assert any("graph star" in name and "seed 1" in name and name.startswith("dybw/") for name in folders)
    shutil.rmtree(tmp_path / "out")
    assert sweep.main([*CLOCKS, "--out", str(tmp_path / "out"), "--tensorboard", "--shard", "1/2"]) == 2
    assert "give it to --join, not to --shard" in capsys.readouterr().err


class Server:
    """Stands for `wandb` and the server behind it, which outlives the processes that write to it."""

    def __init__(self, monkeypatch, fails=""):
        self.runs, self.fails, self.calls = {}, fails, 0
        module = types.SimpleNamespace(init=self.init, setup=self.setup, login=self.login)
        module.Settings = type("Settings", (), {"model_fields": ("silent",), "__init__": lambda self, **named: None})
        monkeypatch.setitem(sys.modules, "wandb", module)

    def setup(self, settings=None):
        return types.SimpleNamespace(settings=types.SimpleNamespace(mode="online", api_key=None))

    def trouble(self, what):
        self.calls += 1
        if what == self.fails:
            raise ConnectionError("the network\nis gone")

    def login(self, prompt, timeout):
        self.trouble("login")
        return True

    def init(self, id, **named):
        self.trouble("init")
        history = self.runs.setdefault(id, [])

        def log(row, step):
            self.trouble("log")
            history.append(step)

        return types.SimpleNamespace(
            log=log,
            starting_step=history[-1] + 1 if history else 0,
            define_metric=lambda *names, **named: None,
            finish=lambda exit_code=0: self.trouble("finish"),
            summary={},
        )


def test_online_the_server_says_which_rows_it_has(tmp_path, monkeypatch):
    server = Server(monkeypatch)
    out = tmp_path / "out"
    keep = Parts.keep
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "keep", lambda self, *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train.main([*RUN, "--out", str(out), "--wandb"]) == 130
    assert Parts.keep is keep
    (history,) = server.runs.values()
    assert history == [0, 1, 2, 3]
    del history[2:]  # which it was not sent any more
    assert train.main([*RUN, "--out", str(out), "--wandb"]) == 0
    assert list(server.runs.values()) == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("fails", ["login", "init", "log", "finish"])
def test_a_tracker_that_fails_is_one_note(tmp_path, monkeypatch, capsys, fails):
    server = Server(monkeypatch, fails)
    assert train.main([*RUN, "--out", str(tmp_path / "out"), "--wandb"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "W&B" in line]
    if fails == "login":  # no answer is no refusal
        assert (notes, len(server.runs)) == ([], 2)
        return
    assert notes == ["note: W&B: the network; nothing more is written there, and the run goes on without it"]
    assert len(read_metrics(tmp_path / "out" / "metrics.jsonl")) == 8
    assert (tmp_path / "out" / "manifest.json").exists()
    assert server.calls <= 1 + 1 + 4 + 1


def test_a_full_disk_under_tensorboard_is_one_note(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboardX")

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboardX.SummaryWriter", full)
    assert train.main([*RUN, "--out", str(tmp_path / "out"), "--tensorboard"]) == 0
    assert "note: TensorBoard: " in capsys.readouterr().err
    assert (tmp_path / "out" / "manifest.json").exists()


def test_what_keeps_wandb_from_writing_is_said_before_anything_runs(offline, tmp_path, monkeypatch, capsys):
    def refused(*words):
        assert train.main([*RUN, *words, "--out", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "'a/b' names no project" in refused("--wandb", "a/b")
    assert "--wandb mnist-2nn would be a project" in refused("--wandb", "mnist-2nn")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    offline.teardown()
    assert "--wandb writes nothing with WANDB_MODE=disabled" in refused("--wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    offline.teardown()
    assert "--wandb knows no API key; run wandb login, or set WANDB_MODE=offline" in refused("--wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install dbwjax\[wandb\]"):
        check_wandb()
