"""Sweeps shared out among processes: bitwise the sweep of one, whatever is killed, missing, mixed up or damaged."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from dbwjax import files, sweep
from dbwjax.cli.sweep import _parser as words_of_sweep
from dbwjax.cli.sweep import read
from dbwjax.experiments import claim as claims
from dbwjax.experiments import driver
from dbwjax.storage import shards as storage
from dbwjax.storage.parts import Parts
from tests.compiling import light_environment
from tests.readme import ROOT

TRAINED = ["--dataset", "quadratic", "--workers", "6", "--batch-size", "4", "--no-progress", "--seconds", "6"]
TRAINED += ["--rows", "3", "--policies", "full", "--graphs", "ring", "complete", "--seeds", "3"]
TRAINED += ["--at-once", "2"]
TIMED = ["--timing-only", "--workers", "6", "--no-progress", "--seconds", "10", "--policies", "dybw", "full"]
TIMED += ["--graphs", "ring", "erdos_renyi", "--seeds", "5", "--at-once", "4"]
CASES = {"trained": (TRAINED, 2), "timed": (TIMED, 2)}


@pytest.fixture(autouse=True)
def few_figures(no_figures):
    pass


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Each sweep whole, and in shards that are not joined."""
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbwjax.report.sweep_figures.write_figures", lambda *_, **__: [])
        for name, (words, count) in CASES.items():
            assert sweep.main([*words, "--out", str(folder / name)]) == 0
            for number in range(count, 0, -1):
                out = str(folder / f"{name} in shards")
                assert sweep.main([*words, "--out", out, "--shard", f"{number}/{count}"]) == 0
    return folder


def copied(swept, tmp_path, name="timed"):
    shutil.copytree(swept / f"{name} in shards", tmp_path / "out")
    return tmp_path / "out", sorted((tmp_path / "out").glob("shard-*"))


def refused(capsys, *words):
    capsys.readouterr()
    assert sweep.main(list(map(str, words))) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def numbers(folder):
    """All that a sweep leaves, times on the wall aside."""
    with open(folder / "results.csv", newline="") as file:
        rows = [{**row, "wall_time": None} for row in csv.DictReader(file)]
    others = ("summary.json", "worlds.json", "table.csv", "table.tex", "config.json")
    return rows, *((folder / name).read_bytes() for name in others)


@pytest.mark.parametrize("name", CASES)
def test_joined_shards_are_the_sweep_of_one_process_to_the_last_bit(swept, tmp_path, name, capsys):
    out, shards = copied(swept, tmp_path, name)
    assert sweep.main(["--join", *map(str, shards)]) == 0
    assert numbers(out) == numbers(swept / name)
    # It is a sweep like any other: the same command finds it finished.
    capsys.readouterr()
    assert sweep.main([*CASES[name][0], "--out", str(out)]) == 0
    assert numbers(out) == numbers(swept / name)


def test_shards_without_a_common_folder(swept, tmp_path, capsys):
    """Each machine has its own disk: what is gathered are the shards' folders alone, under any names."""
    _, shards = copied(swept, tmp_path, "trained")
    moved = []
    for number, shard in enumerate(shards):
        moved.append(tmp_path / f"machine {number}" / "mine")
        shutil.move(shard, moved[-1])
    assert "say with --out" in refused(capsys, "--join", *moved)
    assert sweep.main(["--join", *map(str, moved), "--out", str(tmp_path / "all")]) == 0
    assert numbers(tmp_path / "all") == numbers(swept / "trained")


def test_a_shard_that_is_killed_goes_on(swept, tmp_path, monkeypatch, capsys):
    out, _ = copied(swept, tmp_path, "trained")
    words = [*TRAINED, "--out", str(out), "--shard", "1/2"]
    shutil.rmtree(out / "shard-1-of-2")
    keep, kept = Parts.keep, []

    def dying(self, *arguments):
        keep(self, *arguments)
        kept.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Parts, "keep", dying)
    assert sweep.main(words) == 130
    monkeypatch.setattr(Parts, "keep", keep)
    join = ["--join", *map(str, sorted(out.glob("shard-*")))]
    line = refused(capsys, *join)
    assert "shard-1-of-2 is not finished" in line
    assert "--shard 1/2" in line
    done, block = [], driver.Driver._block
    monkeypatch.setattr(driver.Driver, "_block", lambda *a, **named: done.append(1) or block(*a, **named))
    assert sweep.main(words) == 0
    mine = json.loads((out / "shard-1-of-2" / "shard.json").read_text())["blocks"]
    assert len(done) == len(mine) - 1 > 0
    assert sweep.main(join) == 0
    assert numbers(out) == numbers(swept / "trained")


def test_whoever_comes_second_takes_what_the_first_has_written(swept, tmp_path, monkeypatch):
    first = storage.SharedFolder(tmp_path / "out")
    content, run = storage.manifest.read_config(swept / "timed", "")
    blind = storage.SharedFolder.read_config
    seen = iter([None])  # before the first has written

    def read_config(self):
        if next(seen, "later") is None:
            assert first.write_config(content) == run
            return None
        return blind(self)

    monkeypatch.setattr(storage.SharedFolder, "read_config", read_config)
    assert sweep.main([*TIMED, "--out", str(tmp_path / "out"), "--shard", "1/2"]) == 0
    assert (tmp_path / "out" / "shard-1-of-2" / "config.json").read_bytes() == (
        swept / "timed" / "config.json"
    ).read_bytes()


def test_shards_that_do_not_belong_together_are_not_joined(swept, tmp_path, capsys):
    out, (first, second) = copied(swept, tmp_path)
    trained = swept / "trained in shards" / "shard-1-of-2"
    other = tmp_path / "other"
    shutil.copytree(first, other)

    assert "these are missing: 2/2; run them with --shard" in refused(capsys, "--join", first)
    assert f"{first} and {other} are both shard 1/2" in refused(capsys, "--join", first, other)
    assert "is of another sweep than" in refused(capsys, "--join", first, trained)
    assert "holds no shard of a sweep" in refused(capsys, "--join", swept / "timed")
    assert "holds no run (no config.json)" in refused(capsys, "--join", tmp_path / "nowhere")
    assert "say nothing with --join" in refused(capsys, "--join", first, "--seeds", "3").replace("says", "say")
    versions = json.loads((second / "config.json").read_text())
    versions["environment"]["jax"] = "0.0.1"
    reseal(second, versions)
    line = refused(capsys, "--join", first, second)
    assert "with another environment" in line
    assert "and 0.0.1)" in line
    assert not (out / "results.csv").exists()


def reseal(folder, content):
    """Another configuration in a folder, as if it had been begun with it."""
    content.pop("run")
    run = storage.manifest.write_config(folder, content)
    record = json.loads((folder / "shard.json").read_text())
    storage.manifest.write_sealed(
        folder / "shard.json", run, {name: record[name] for name in storage.ShardRecord._fields}
    )


def test_a_damaged_shard_is_named_and_computed_again(swept, tmp_path, capsys):
    out, shards = copied(swept, tmp_path)
    part = sorted((shards[1] / "parts").iterdir())[0]
    part.write_text(part.read_text().replace("virtual_time", "virtual_tim"))
    line = refused(capsys, "--join", *shards)
    assert str(part) in line
    assert "--shard 2/2" in line
    assert sweep.main([*TIMED, "--out", str(out), "--shard", "2/2"]) == 0
    assert sweep.main(["--join", *map(str, shards)]) == 0
    assert numbers(out) == numbers(swept / "timed")


def test_a_shard_begins_only_where_it_can_be_joined(swept, tmp_path, capsys, monkeypatch):
    out, _ = copied(swept, tmp_path)
    ours = [*TIMED, "--out", out]
    shutil.copytree(out / "shard-1-of-2", out / "shard-1-of-3")
    assert "holds shard 1/2, not 1/3" in refused(capsys, *ours, "--shard", "1/3")
    shutil.rmtree(out / "shard-1-of-3")
    assert "holds another sweep" in refused(capsys, *ours, "--seconds", "11", "--shard", "1/2")
    assert "holds shards of this sweep, as shard-1-of-2; join them" in refused(capsys, *ours)
    line = refused(capsys, *ours, "--at-once", "2", "--shard", "1/2")
    assert "was begun with blocks of 4 simulations, not of --at-once 2" in line
    before = claims.versions()
    monkeypatch.setattr(claims, "versions", lambda: {**before, "jax": "0.0.1"})
    assert "was begun with jax" in refused(capsys, *ours, "--shard", "1/2")
    monkeypatch.undo()
    with storage.RunFolder.open(out / "shard-1-of-2"):
        assert "is in use by process" in refused(capsys, *ours, "--overwrite")
    assert (out / "shard-1-of-2" / "config.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "holds files but no run" in refused(capsys, *TIMED, "--out", tmp_path / "mine", "--shard", "1/2")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["letter.txt"]


def test_overwriting_a_sweep_takes_its_shards_along(swept, tmp_path, monkeypatch):
    monkeypatch.setattr("dbwjax.report.sweep_figures.write_figures", lambda *_, **__: [])
    out, shards = copied(swept, tmp_path)
    assert sweep.main([*TIMED, "--seconds", "5", "--out", str(out), "--overwrite"]) == 0
    assert not any(shard.exists() for shard in shards)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--shard", "0/2"], "--shard 0/2 is out of range; shards count from 1/2 to 2/2"),
        (["--shard", "3/2"], "--shard 3/2 is out of range"),
        (["--shard", "1"], "--shard 1 is no shard; write I/N"),
        (["--shard", "1/9"], "9 shards are more than the 6 blocks of this sweep; use at most 6, or cut it"),
        (["--print-plan", "0"], "--print-plan 0 is out of range"),
        (["--print-plan", "9"], "9 shards are more than the 6 blocks"),
        (["--print-plan", "2", "--shard", "1/2"], "--print-plan shows all shards; leave --shard out"),
        (["--at-once", "0"], "--at-once 0 is out of range"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, capsys, words, line):
    assert line in refused(capsys, *TIMED, "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_what_shards_do(swept, capsys, name, tmp_path):
    words, count = CASES[name]
    assert sweep.main([*words, "--out", str(tmp_path / "out"), "--print-plan", str(count)]) == 0
    assert not (tmp_path / "out").exists()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (whole,) = (line for line in lines if line["kind"] == "sweep")
    blocks, shards = ([line for line in lines if line["kind"] == kind] for kind in ("block", "shard"))
    assert [line["shard"] for line in shards] == [f"{number}/{count}" for number in range(1, count + 1)]
    for number, line in enumerate(shards, 1):
        folder = swept / f"{name} in shards" / f"shard-{number}-of-{count}"
        assert line["blocks"] == sorted(int(path.stem) for path in (folder / "parts").glob("*.json"))
        rows = [row for block in line["blocks"] for row in files.read_json(folder / f"parts/{block}.json", "")["rows"]]
        worlds = {tuple(list(row.values())[: list(row).index("row")]) for row in rows}
        assert len(worlds) == line["simulations"]
    rows, *_ = numbers(swept / name)
    axes = list(rows[0])[: list(rows[0]).index("row")]
    assert whole["simulations"] == len({tuple(row[axis] for axis in axes) for row in rows})
    assert whole["cells"] == len(json.loads((swept / name / "summary.json").read_text())["cells"])
    assert whole["blocks"] == len(blocks)
    assert whole["programs"] == len({tuple(line["program"]) for line in blocks})
    most, least = (pick(line["simulations"] for line in shards) for pick in (max, min))
    assert most - least <= max(line["simulations"] for line in blocks)


def test_the_recipe_runs_as_it_is_written(tmp_path):
    """But for its size, which is a test's. Its shards begin at once, on one folder."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    (script,) = re.findall(r"\n\n```sh\n(.*?)```", text, flags=re.DOTALL)  # the others are marked as not run
    small = script.replace(
        "--seeds 4 --seconds 30 --rows 6 --at-once 2", "--seeds 3 --seconds 6 --timing-only --at-once 2"
    )
    assert small != script
    command = small.replace("python -m", f"{sys.executable} -m")
    inherited = {**os.environ, **light_environment(), "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    plan = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["shard"] for line in plan if line["kind"] == "shard"] == ["1/2", "2/2"]
    words = shlex.split(re.search(r'sweep="python -m dbwjax.sweep (.*)"', small)[1])
    assert sweep.main([*words, "--no-progress", "--out", str(tmp_path / "alone")]) == 0
    assert numbers(tmp_path / "runs" / "big")[0] == numbers(tmp_path / "alone")[0]


def test_the_other_recipes_use_words_that_there_are():
    text = (ROOT / "docs" / "cluster.md").read_text()
    found = re.findall(r"python -m dbwjax\.sweep ((?:[^\n`\\']|\\\n)*)", text.replace("$SCRATCH", "x"))
    found += re.findall(r'WORDS = "(.*)"', text)
    assert len(found) >= 5
    for line in found:
        line = line.replace("\\\n", " ").replace("$SLURM_ARRAY_TASK_ID", "1")
        line = line.rstrip('"') if line.count('"') % 2 else line  # which closes what began before
        typed = vars(words_of_sweep().parse_args(shlex.split(line)))
        if typed["join"] is None:
            read({name: value for name, value in typed.items() if value is not None})
