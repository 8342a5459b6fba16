"""Folders and files that are damaged, mixed, linked or too large: the right number, or one line; never another number.

Every case begins with a copy of a run that was stopped in the middle of its second policy, or of a finished sweep.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import dbwjax
from dbwjax import files, sweep, train
from dbwjax.experiments import inputs, training
from dbwjax.experiments import run as experiment
from dbwjax.experiments.config import TrainConfig
from dbwjax.files import content
from dbwjax.report import sweep_figures
from dbwjax.storage import manifest
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.metrics_log import MetricsLog, read_metrics
from dbwjax.storage.run_folder import RunFolder
from dbwjax.storage.trackers import write_tensorboard

TASK = ["--workers", "4", "--dataset", "logistic:dimension=4,samples=40", "--seconds", "40", "--rows", "4"]
TASK += ["--policies", "dybw", "full", "--no-progress", "--seeds", "2"]
RECORDS = ("summary.json", "worlds.json")


@pytest.fixture(autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "write_figures", lambda path, *_, **__: [path / "summary.png"])
        patch.setattr(sweep_figures, "write_figures", lambda *_, **__: [])
        patch.setattr(training, "CHUNK", 8)
        yield


class Case:
    """A run whose inputs lie beside it: what it is told, where it was stopped, and what is true."""

    def __init__(self, where):
        self.where, self.trace, self.graph = where, where / "trace.csv", where / "graph.csv"
        self.trace.write_text("1,2,1,1\n2,1,1,3\n1,1,4,1\n")
        self.graph.write_text("".join(f"{i},{(i + 1) % 4}\n" for i in range(4)))
        self.stopped, self.finished = where / "stopped", where / "finished"

    def words(self, folder, seed=0):
        inputs = ["--delays", f"trace:path={self.trace}", "--graph", f"from_file:path={self.graph}"]
        return [*TASK, *inputs, "--seed", str(seed), "--checkpoint-every", "1", "--out", str(folder)]

    def stop(self, folder, seed=0):
        """Runs to the second checkpoint of the second policy."""
        save, saved = Checkpoints.save, []

        def dying(checkpoints, step, state, meta):
            save(checkpoints, step, state, meta)
            saved.append(meta["block"])
            if saved.count(1) == 2:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "save", dying)
            assert train.main(self.words(folder, seed)) == 130


def numbers(folder):
    """Everything that a run says, wall times aside."""
    rows = [{**row, "wall_time": None} for row in read_metrics(folder / "metrics.jsonl")]
    timeline = files.read_arrays(folder / "timeline.npz", "")
    arrays = {name: array.tobytes() for name, array in timeline.items()}
    return rows, arrays, [(folder / name).read_bytes() for name in RECORDS]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    found = Case(tmp_path_factory.mktemp("damage"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "write_figures", lambda path, *_, **__: [path / "summary.png"])
        patch.setattr(training, "CHUNK", 8)
        found.stop(found.stopped)
        assert train.main(found.words(found.finished)) == 0
        found.stop(found.where / "other", seed=7)
    found.truth = numbers(found.finished)
    return found


@pytest.fixture
def run(case, tmp_path):
    return shutil.copytree(case.stopped, tmp_path / "run", symlinks=True)


def newest(folder):
    return max((folder / "checkpoint").iterdir(), key=lambda path: int(path.name))


def changed(path, old=None, new=None):
    """Another digit of a number, in a file of text; another byte elsewhere."""
    content = path.read_bytes()
    if old is not None:
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
        return
    place = len(content) // 2
    if path.suffix in (".json", ".jsonl"):
        # The first digit of a number, for the last ones of a float may say nothing.
        place = re.compile(rb"(?<=[ .])[1-8]").search(content, place).start()
        path.write_bytes(content[:place] + bytes([content[place] + 1]) + content[place + 1 :])
    else:
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])


def strays(run):
    for folder in (run, run / "parts", run / "checkpoint", newest(run), newest(run) / "state"):
        for name in (".DS_Store", ".nfs0000000001", "._x", "Thumbs.db"):
            (folder / name).write_text("left by a desktop")


def swapped(run):
    """The newest checkpoint under the name of a later one."""
    shutil.copytree(newest(run), run / "checkpoint" / "99")


RIGHT = {
    "nothing": lambda run, other: None,
    "strays": lambda run, other: strays(run),
    "a digit of a part": lambda run, other: changed(run / "parts" / "0.json"),
    "a part cut off": lambda run, other: os.truncate(run / "parts" / "0.json", 100),
    "an empty part": lambda run, other: os.truncate(run / "parts" / "0.json", 0),
    "a bit of its timelines": lambda run, other: changed(run / "parts" / "0.npz"),
    "no timelines": lambda run, other: (run / "parts" / "0.npz").unlink(),
    "another run's part": lambda run, other: shutil.copy(other / "parts" / "0.json", run / "parts"),
    "another run's timelines": lambda run, other: shutil.copy(other / "parts" / "0.npz", run / "parts"),
    "a part of another block": lambda run, other: [
        shutil.copy(run / "parts" / f"0.{kind}", run / "parts" / f"1.{kind}") for kind in ("json", "npz")
    ],
    "metrics": lambda run, other: changed(run / "metrics.jsonl"),
    "no metrics": lambda run, other: (run / "metrics.jsonl").unlink(),
    "another lock": lambda run, other: (run / ".lock").write_bytes(b"\x1b[31mx"),
    "no checkpoint": lambda run, other: shutil.rmtree(run / "checkpoint"),
    "a part and no checkpoint": lambda run, other: (
        changed(run / "parts" / "0.json"),
        shutil.rmtree(run / "checkpoint"),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_lost_is_computed_again(case, run, capsys, name):
    RIGHT[name](run, case.where / "other")
    assert train.main(case.words(run)) == 0
    assert numbers(run) == case.truth
    said = capsys.readouterr().err
    assert (said.count("\n") == 1 and "computing that block again" in said) or not ("part" in name or "time" in name)


def configured(old, new):
    """Another text in the place of one in `config.json`, or of all of it."""

    def change(run, other):
        path = run / "config.json"
        changed(path, path.read_bytes() if old is None else old, new)

    return change


WRONG = {
    "a digit of the configuration": (lambda run, other: changed(run / "config.json"), "config.json"),
    "another seed": (
        lambda run, other: changed(run / "config.json", b'"seed": 0', b'"seed": 7'),
        "config.json has changed",
    ),
    "a hash": (
        lambda run, other: changed(run / "config.json", b'"sha256": "', b'"sha256": "0'),
        "config.json has changed",
    ),
    "other blocks": (lambda run, other: changed(run / "config.json", b'"blocks": [', b'"blocks": [1'), "config.json"),
    "no identity": (lambda run, other: changed(run / "config.json", b'"run":', b'"ran":'), "not of this version"),
    "another run's configuration": (
        lambda run, other: shutil.copy(other / "config.json", run),
        "seed: 7 in the run folder",
    ),
    "a digit of the facts": (lambda run, other: changed(newest(run) / "facts.json"), "facts.json is corrupt"),
    "no facts": (lambda run, other: (newest(run) / "facts.json").unlink(), "facts.json cannot be read"),
    "another run's checkpoint": (
        lambda run, other: shutil.copytree(newest(other), run / "checkpoint" / "99"),
        "belongs to another run",
    ),
    "a checkpoint of another name": (lambda run, other: swapped(run), "is of checkpoint"),
    "another run's state": (
        lambda run, other: (
            shutil.rmtree(newest(run) / "state"),
            shutil.copytree(newest(other) / "state", newest(run) / "state"),
        ),
        "is damaged",
    ),
    "a file among the state": (lambda run, other: (newest(run) / "state" / "checkpoint").write_text("x"), "was added"),
    "a part that is a pipe": (
        lambda run, other: ((run / "parts" / "0.npz").unlink(), os.mkfifo(newest(run) / "state" / "pipe")),
        "is not a regular file",
    ),
    "a configuration that is a pipe": (
        lambda run, other: ((run / "config.json").unlink(), os.mkfifo(run / "config.json")),
        "is not a regular file",
    ),
    "a file in the place of parts": (
        lambda run, other: (shutil.rmtree(run / "parts"), (run / "parts").write_text("x")),
        "parts is no folder",
    ),
    "a file in the place of checkpoints": (
        lambda run, other: (shutil.rmtree(run / "checkpoint"), (run / "checkpoint").write_text("x")),
        "checkpoint is no folder",
    ),
    "a folder in the place of a part": (
        lambda run, other: ((run / "parts" / "0.json").unlink(), (run / "parts" / "0.json").mkdir()),
        "0.json is not a regular file",
    ),
    "a deep configuration": (
        lambda run, other: (run / "config.json").write_text("[" * 10**5),
        "config.json is corrupt",
    ),
    "not a number": (lambda run, other: (run / "config.json").write_text('{"a": NaN}'), "NaN is no finite number"),
    "a key twice": (lambda run, other: (run / "config.json").write_text('{"a": 1, "a": 1}'), "a key is given twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_computed_again_is_refused(case, run, capsys, name):
    change, said = WRONG[name]
    change(run, case.where / "other")
    assert train.main(case.words(run)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("error: ")
    assert "--overwrite" in lines[-1] or "another --out" in lines[-1]
    assert all(line.startswith("note: ") for line in lines[:-1])


LINKED = {
    **{
        name: name
        for name in (".lock", "config.json", "metrics.jsonl", "parts", "checkpoint", "parts/0.json", "parts/0.npz")
    },
    **{"a checkpoint": "checkpoint/{}", "its facts": "checkpoint/{}/facts.json", "its state": "checkpoint/{}/state"},
    "a file of its state": "checkpoint/{}/state/_CHECKPOINT_METADATA",
}


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_link_in_a_run_folder_is_followed(case, run, capsys, name, overwrite):
    place = run / LINKED[name].format(newest(run).name)
    target = run.parent / "outside"
    target.mkdir()
    shutil.move(place, target / "kept")
    place.symlink_to(target / "kept")
    before = tree(target)
    code = train.main([*case.words(run), *["--overwrite"] * overwrite])
    assert tree(target) == before
    if overwrite and name != ".lock":
        assert code == 0
        assert numbers(run) == case.truth
    else:
        assert code == 2
        said = capsys.readouterr().err
        assert "a link, which is not followed in here" in said
        assert said.count("\n") == 1


def test_a_second_name_of_a_file_elsewhere_is_not_written_to(tmp_path):
    (tmp_path / "mine").write_text("mine")
    RunFolder.open(tmp_path / "run").close()
    (tmp_path / "run" / ".lock").unlink()
    for name in (".lock", "metrics.jsonl"):
        os.link(tmp_path / "mine", tmp_path / "run" / name)
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="not a regular file of one name"):
        RunFolder.open(tmp_path / "run")
    with pytest.raises(ValueError, match="not a regular file of one name"):
        MetricsLog(tmp_path / "run" / "metrics.jsonl")
    assert (tmp_path / "mine").read_text() == "mine"


def test_links_in_the_place_of_what_is_only_written_are_replaced(case, run):
    for name in (*RECORDS, "timeline.npz", "manifest.json", "table.csv", "parts/1.npz", "tensorboard"):
        (run / name).symlink_to(run.parent / "none")
    assert train.main(case.words(run)) == 0
    assert numbers(run) == case.truth
    assert not (run.parent / "none").exists()
    pytest.importorskip("tensorboardX")
    write_tensorboard(run / "tensorboard", read_metrics(run / "metrics.jsonl"))
    assert not (run.parent / "none").exists()


def test_a_link_to_a_run_folder_is_followed(case, run):
    (run.parent / "link").symlink_to(run)
    assert train.main(case.words(run.parent / "link")) == 0
    assert numbers(run) == case.truth


def test_only_strays_are_no_files_of_others(tmp_path):
    (tmp_path / ".DS_Store").write_text("x")
    RunFolder.open(tmp_path).close()


def test_what_a_file_system_keeps_open_stops_nobody(tmp_path, monkeypatch):
    """NFS renames a file that is deleted while it is open, and refuses to delete that name."""
    unlink = os.unlink

    def busy(name, **named):
        if Path(name).name.startswith(".nfs"):
            raise OSError(16, "Device or resource busy")
        return unlink(name, **named)

    for name in ("a/b/.nfs01", "a/b/c", "d/.nfs02", "d/mine"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(os, "unlink", busy)
    files.delete(tmp_path / "a")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()].count("c") == 0
    monkeypatch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(13, "Permission denied")))
    with pytest.raises(ValueError, match=r"d cannot be deleted \(Permission denied\)"):
        files.delete(tmp_path / "d")


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("which", ["trace", "graph"])
def test_an_input_that_has_changed_is_refused(case, run, capsys, tmp_path, finished, which):
    path = getattr(case, which)
    before = path.read_text()
    folder = shutil.copytree(case.finished, tmp_path / "again") if finished else run
    left = tree(folder)
    try:
        path.write_text({"trace": before.replace("4", "9"), "graph": before + "0,2\n"}[which])
        assert train.main(case.words(folder)) == 2
    finally:
        path.write_text(before)
    said = capsys.readouterr().err
    assert f"{path} has changed since {folder} was begun" in said
    assert said.count("\n") == 1
    assert {**tree(folder), Path(".lock"): b""} == {**left, Path(".lock"): b""}


def test_the_content_of_inputs(tmp_path, monkeypatch, capsys):
    """Whole, up to a size; beyond it a sample and the size, which is said."""
    path = tmp_path / "big.csv"
    config = TrainConfig(delays=f"constant * trace:path={path}", graph="ring")
    path.write_bytes(b"1" * (3 << 20))
    monkeypatch.setattr(content, "WHOLE", 1 << 20)
    monkeypatch.setattr(content, "SAMPLE", 2)
    found = inputs.inputs([config])
    assert found[str(path)]["sampled"]
    inputs.say_sampled(found)
    assert "note: " + str(path) in capsys.readouterr().err
    for place, seen in ((5, True), (3 << 19, False), ((3 << 20) - 1, True)):
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"2")
        now = inputs.inputs([config])
        assert (now[str(path)]["sha256"] != found[str(path)]["sha256"]) == seen
        found = now
    with open(path, "ab") as file:
        file.write(b"1")
    assert inputs.inputs([config]) != found
    monkeypatch.setattr(content, "WHOLE", 4 << 20)
    os.utime(path, ns=(1, 1))
    found = inputs.inputs([config])
    assert not found[str(path)]["sampled"]


def test_a_data_set_counts_by_what_it_holds_and_not_by_where_it_lies(tmp_path):
    from tests.test_datasets import features, folder_of

    found = []
    for name, content_of_it in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        folder = folder_of(tmp_path / name, features())
        for split in ("train", "test"):
            (folder / f"mnist-{split}.array_record-00000-of-00001").write_bytes(content_of_it)
        found.append(inputs.inputs([TrainConfig(dataset="mnist", data_dir=str(tmp_path / name))]))
    assert found[0] == found[1] != found[2]
    assert inputs.inputs([TrainConfig(dataset="mnist", data_dir=str(tmp_path / "c"))], data=False) == {}


SWEEP = ["--workers", "4", "--seconds", "20", "--no-progress", "--policies", "dybw", "full", "--timing-only"]
SWEEP += ["--graphs", "ring", "complete", "--seeds", "2"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_figures, "write_figures", lambda *_, **__: [])
        assert sweep.main([*SWEEP, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda out: changed(out / "parts" / "0.json"), 0),
        (lambda out: (out / "parts" / "1.json").unlink(), 0),
        (lambda out: shutil.copy(out / "parts" / "0.json", out / "parts" / "1.json"), 0),
        (lambda out: changed(out / "results.csv"), 0),
        (lambda out: changed(out / "config.json", b'"blocks": [', b'"blocks": [1'), 2),
        (lambda out: changed(out / "config.json"), 2),
        (lambda out: os.truncate(out / "config.json", 50), 2),
        (lambda out: ((out / "parts").rename(out.parent / "p"), (out / "parts").symlink_to(out.parent / "p")), 2),
    ],
)
def test_a_sweep_is_kept_alike(swept, tmp_path, capsys, change, code):
    out = shutil.copytree(swept, tmp_path / "out")
    change(out)
    assert sweep.main([*SWEEP, "--out", str(out)]) == code
    if code == 0:
        for name in ("results.csv", "summary.json", "worlds.json"):
            assert (out / name).read_bytes() == (swept / name).read_bytes()
    assert capsys.readouterr().err.count("\n") <= 1
    config, run = manifest.read_config(swept, "")
    manifest.require_whole(swept, run)
    assert set(config) == {"sweep", "names", "inputs", "blocks", "environment"}


# The opener itself.


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as found:
        for name, body in members.items():
            found.writestr(name + ".npy", body)
    return file.getvalue()


def npy(array, shape=None, descr=None):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr or array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    )
    return file.getvalue() + array.tobytes()


ONE = np.ones(3)


@pytest.mark.parametrize(
    ("content_of_it", "said"),
    [
        (b"", "corrupt"),
        (b"PK\x03\x04", "corrupt"),
        (archive(a=npy(ONE))[:-30], "corrupt"),
        (archive(a=b""), "corrupt"),
        (archive(a=npy(ONE, (10**12,))), "another size than it says"),
        (archive(a=npy(ONE, (2,))), "another size than it says"),
        (archive(a=npy(ONE, (-3,))), "corrupt"),
        (archive(a=npy(ONE, descr="|O")), "an array of objects"),
        (archive(a=npy(ONE, descr="nonsense")), "corrupt"),
        (archive(a=b"\x93NUMPY\x09\x00" + bytes(100)), "an unknown version"),
        (archive(a=npy(np.zeros(1 << 18))), "more than 1,000,000 bytes when inflated"),
        (archive(**{f"a{i}": npy(np.zeros(1 << 14)) for i in range(8)}), "more than 1,000,000 bytes when inflated"),
        (bytes(2_000_000), "is larger than 1,000,000 bytes"),
    ],
)
def test_arrays_that_are_refused(tmp_path, content_of_it, said):
    path = tmp_path / "a.npz"
    path.write_bytes(content_of_it)
    with pytest.raises(ValueError, match="; do something$") as error:
        files.read_arrays(path, "do something", 1_000_000)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [files.read, files.read_text, files.read_json, files.read_arrays, files.checksum])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match="; do something$") as error:
            read(path, "do something")
        assert "\n" not in str(error.value)


def test_a_file_that_grows_while_it_is_read_is_read_no_further(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read(tmp_path / "a", "", 5) == b"12345"
    with pytest.raises(ValueError, match="is larger than 4 bytes; do something"):
        files.read(tmp_path / "a", "do something", 4)
    with pytest.raises(ValueError, match="is larger than 1,000 bytes"):
        files.read("/proc/self/smaps", "do something", 1000)  # says that it is empty
    assert files.read("/proc/self/status", "").endswith(b"\n")


OPENERS = {
    *("os.open", "io.open", "os.fdopen", "np.load", "np.loadtxt", "np.genfromtxt", "np.savez", "json.load"),
    *("os.replace", "os.rename", "shutil.rmtree", "shutil.copy", "shutil.move", "pickle.load", "zipfile.ZipFile"),
    *("read_bytes", "write_bytes", "write_text", "json.loads", "Image.open"),
}
# Who opens something else: streams, the host's own facts, messages of other processes, images that are in memory, and
# what Orbax has written under another name.
ALLOWED = {
    "tasks/tfds_folder.py": {"Image.open"},
    "tasks/cache.py": {"np.savez"},
    "storage/checkpoint.py": {"os.open", "os.rename", "json.loads"},
    "storage/metrics_log.py": {"os.fdopen"},
    "storage/manifest.py": {"json.loads"},
    "storage/wandb_tracker.py": {"os.fdopen"},  # of what `hold` opened
    "planning/times.py": {"np.loadtxt"},  # of text
    "experiments/sweep/run.py": {"json.loads"},
    "runtime/processes.py": {"json.loads"},
    "runtime/stderr_filter.py": {"os.fdopen"},
}
# Rooms that are told what to open by SPECs, and machines' own files.
NOT_LOOKED_AT = ("network/", "runtime/", "cli/", "limits.py")


def test_nothing_else_opens_files():
    package, odd = Path(dbwjax.__file__).parent, []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name.startswith(("files/", *NOT_LOOKED_AT)):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        found = {name for call in calls for name in (ast.unparse(call.func), ast.unparse(call.func).rpartition(".")[2])}
        odd += [f"{name}: open" for call in calls if ast.unparse(call.func) == "open"]
        odd += [f"{name}: {one}" for one in (found & OPENERS) - ALLOWED.get(name, set())]
    assert not odd


def test_json_keeps_its_identity_however_it_is_written():
    one = {"b": 0.1 + 0.2, "a": [1, {"x": None}]}
    assert manifest.identity(one) == manifest.identity(json.loads(json.dumps(one, indent=4)))
    assert manifest.identity(one) == manifest.identity({"a": [1, {"x": None}], "b": 0.30000000000000004})
    assert manifest.identity(one) != manifest.identity({"a": [1, {"x": None}], "b": 0.3})
