"""The run folder: its lock and config, metrics that a kill may cut anywhere, timeline, events."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax import files
from dbwjax.experiments.config import FIGURE_KINDS
from dbwjax.experiments.spans import SPANS
from dbwjax.report.run_figures import FIGURES
from dbwjax.storage.metrics_log import COLUMNS, MetricsLog, read_metrics
from dbwjax.storage.parts import Parts
from dbwjax.storage.run_folder import RunFolder
from dbwjax.storage.timelines import load_timeline, save_timeline
from dbwjax.storage.trackers import write_tensorboard
from tests.readme import ROOT

HOLDER = """
import sys, time
from dbwjax.storage.run_folder import RunFolder
run = RunFolder.open(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path):
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, cwd=root)
    assert process.stdout.readline() == b"held\n"
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match=rf"run is in use by process {process.pid}; wait for it or use another --out$"
        ):
            RunFolder.open(tmp_path / "run", overwrite)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with RunFolder.open(tmp_path / "run"), pytest.raises(ValueError, match=f"process {os.getpid()};"):
        RunFolder.open(tmp_path / "run")
    RunFolder.open(tmp_path / "run").close()


def test_config_round_trip(tmp_path):
    config = {"workers": 10, "learning_rate": 0.1 + 0.2, "policies": ["dybw", "full:weights=lazy"], "target": None}
    with RunFolder.open(tmp_path / "a" / "run") as run:
        assert run.read_config() is None
        name = run.write_config(config)
        assert run.read_config() == (config, name)
    with RunFolder.open(tmp_path / "a" / "run") as run:
        assert run.read_config() == (config, name)
    assert {entry.name for entry in run.path.iterdir()} == {".lock", "config.json"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"[1]", b"\xff\xfe", b"null"])
def test_a_corrupt_config_names_the_file_and_the_remedies(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with (
        RunFolder.open(tmp_path) as run,
        pytest.raises(ValueError, match=r"config\.json is corrupt.*--overwrite.*another --out"),
    ):
        run.read_config()
    with RunFolder.open(tmp_path, overwrite=True) as run:
        assert run.read_config() is None


def test_overwrite_deletes_what_runs_leave_and_nothing_else(tmp_path):
    with RunFolder.open(tmp_path) as run:
        run.write_config({})
    mine = ["notes.txt", "photo.png", "loss.eps", "config.json.bak", "data/summary.json"]
    of_run = ["metrics.jsonl", "summary.json", "worlds.json", "timeline.npz", "report.html", "table.csv", "table.tex"]
    of_run += [f"{name}.{kind}" for name in FIGURES for kind in FIGURE_KINDS]
    of_run += [".timeline.npz.draft", "checkpoint/5/state/d/x", "tensorboard/full/events.out", "parts/0.json"]
    for name in mine + of_run:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    RunFolder.open(tmp_path, overwrite=False).close()
    assert (tmp_path / "metrics.jsonl").exists()
    RunFolder.open(tmp_path, overwrite=True, figures=FIGURES).close()
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*mine, ".lock"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_left_alone(tmp_path, overwrite):
    (tmp_path / "summary.json").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files but no run .*; use another --out$"):
        RunFolder.open(tmp_path, overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_a_process_killed_before_its_config_was_whole_leaves_a_folder_that_can_be_used(tmp_path):
    (tmp_path / ".lock").write_text("1")
    (tmp_path / ".config.json.draft").write_text('{"wor')
    with RunFolder.open(tmp_path) as run:
        assert run.read_config() is None


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300), Path("/proc/none/run")):
        with pytest.raises(ValueError, match=r"^run folder .* cannot be written \(.*\); use another --out$"):
            RunFolder.open(path)
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\)"):
            RunFolder.open(tmp_path / "closed")


def row_of(number: int, **more: object) -> dict:
    return {"policy": "dybw", "world": 3, "row": number, "virtual_time": number * 0.1, "wall_time": 1.0, **more}


def test_a_row_is_written_as_it_is_given_and_what_is_not_finite_is_null(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.append({"policy": "full", "row": 3, "test_loss": math.inf, "gradients": np.int64(7), "diverged": np.True_})
        log.append({"test_loss": np.float32(0.1), "train_loss": math.nan, "policy": "full"})
        log.sync()
    first, second = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first) == {"policy": "full", "row": 3, "test_loss": None, "gradients": 7, "diverged": True}
    assert list(json.loads(second)) == ["test_loss", "train_loss", "policy"]
    assert json.loads(second)["test_loss"] == float(np.float32(0.1))
    assert json.loads(second)["train_loss"] is None
    assert not {"NaN", "Infinity"} & set(first.replace(",", " ").split())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6), st.data())
def test_floats_keep_their_bits_and_a_cut_anywhere_is_forgotten_by_a_restart(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    rows = [row_of(number, test_loss=value) for number, value in enumerate(values)]
    with MetricsLog(path) as log:
        for row in rows:
            log.append(row)
    whole = path.read_bytes()
    assert [struct.pack("d", row["test_loss"]) for row in read_metrics(path)] == [struct.pack("d", v) for v in values]

    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    assert len(read_metrics(path)) == whole[:cut].count(b"\n")
    keep = data.draw(st.integers(0, len(rows)))  # what parts and checkpoint hold, whatever the log had
    with MetricsLog(path) as log:
        log.restart(rows[:keep])
        for row in rows[keep:]:
            log.append(row)
    assert path.read_bytes() == whole


RUN = "this run"
PART = [{"policy": "dybw", "row": 0, "test_loss": 0.1 + 0.2, "train_loss": None}]


def test_a_part_comes_back_bit_for_bit_and_its_rows_come_last(tmp_path, monkeypatch):
    parts = Parts(tmp_path / "parts", RUN)
    assert not parts.done(4)
    arrays = {"0/duration": np.float32([0.1, np.inf]), "0/active": np.array([[True, False]])}
    parts.keep(4, PART, arrays)
    assert parts.done(4)
    assert parts.rows(4) == PART
    for name, array in parts.timelines(4).items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dbwjax.storage.parts.write_sealed", killed)
    with pytest.raises(KeyboardInterrupt):
        parts.keep(5, PART, arrays)
    assert not parts.done(5)


def test_a_corrupt_line_and_a_missing_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(ValueError, match=r"metrics\.jsonl cannot be read \(No such file"):
        read_metrics(path)
    for line in ('{"a": ', "[1]", '{"a": NaN}', '{"a": 1, "a": 2}'):
        path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
        with pytest.raises(ValueError, match="line 2 is corrupt"):
            read_metrics(path)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.append(row_of(0))
        with open("/dev/full", "ab", buffering=0) as full, monkeypatch.context() as patch:
            patch.setattr(log, "_file", full)
            with pytest.raises(ValueError, match=r"jsonl cannot be written \(No space left on device\); free some"):
                log.append(row_of(1))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3, unique=True),
    st.integers(0, 5),
    st.integers(1, 4),
)
def test_a_timeline_round_trips_under_any_policy_name(tmp_path_factory, policies, steps, nodes):
    rng = np.random.default_rng(steps)
    path = tmp_path_factory.mktemp("timeline") / "timeline.npz"
    timelines = {
        policy: {
            str(world): {
                "duration": rng.random(steps).astype(np.float32),
                "active": rng.random((steps, nodes)) < 0.5,
                "backup_workers": rng.random(steps).astype(np.float32),
            }
            for world in (0, 7)
        }
        for policy in policies
    }
    save_timeline(path, timelines)
    loaded = load_timeline(path)
    assert list(loaded) == policies
    for policy in policies:
        assert list(loaded[policy]) == ["0", "7"]
        for world, by in timelines[policy].items():
            for name, array in by.items():
                assert loaded[policy][world][name].dtype == array.dtype
                np.testing.assert_array_equal(loaded[policy][world][name], array)


def test_timeline_keys_read_as_typed_and_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "timeline.npz"
    save_timeline(path, {"dybw:late=carry,weights=lazy": {"3": {"duration": np.ones(2, np.float32)}}})
    with np.load(path) as arrays:
        assert arrays.files == ["dybw:late=carry,weights=lazy/3/duration"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"timeline\.npz is corrupt"):
        load_timeline(path)
    with pytest.raises(ValueError, match=r"none\.npz cannot be read \(No such file"):
        load_timeline(tmp_path / "none.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(path, {"a": math.nan})

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match=r"summary\.json cannot be written \(No space left on device\)"):
        files.replace_file(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def events(path: Path) -> list:
    from tensorboardX.proto.event_pb2 import Event

    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return [(e.step, e.wall_time, v.tag, v.simple_value) for e in found for v in e.summary.value]


def test_tensorboard_files_hold_each_row_once_however_often_they_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    rows = [row_of(number, test_loss=number / 8, test_accuracy=None, step=1.5) for number in (0, 25, 50)]
    rows += [{**row, "world": 4, "test_loss": 7.0} for row in rows]
    rows += [{**row, "policy": "from_file:path=a/b"} for row in rows]
    for _ in range(2):
        write_tensorboard(tmp_path / "tensorboard", rows)
    written = sorted(path for path in (tmp_path / "tensorboard").rglob("*") if path.is_file())
    assert [path.parent.relative_to(tmp_path / "tensorboard").as_posix() for path in written] == [
        f"{policy}/world {world}" for policy in ("dybw", "from_file:path=a%2Fb") for world in (3, 4)
    ]
    for path in written[::2]:
        losses = [event for event in events(path) if event[2] == "test_loss"]
        assert losses == [(0, 0, "test_loss", 0), (25, 2.5, "test_loss", 3.125), (50, 5, "test_loss", 6.25)]
        assert not [event for event in events(path) if event[2] == "test_accuracy"]


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install dbwjax\[tensorboard\]"):
        write_tensorboard(tmp_path / "tensorboard", [])


def test_the_page_of_columns_has_all_in_order():
    page = (ROOT / "docs" / "columns.md").read_text().partition("## `timeline.npz`")
    named = [re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE) for part in (page[0], page[2])]
    assert tuple(named[0]) == COLUMNS
    assert sorted(named[1]) == sorted(SPANS)
