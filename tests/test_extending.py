"""`docs/extending.md` is true: its edits are made in a copy of the package, which then does what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dbwjax
from dbwjax.cli.arguments import parse
from dbwjax.network.delays import build_delays
from dbwjax.policies import build_policy
from tests.compiling import light_environment
from tests.readme import ROOT

PACKAGE = Path(dbwjax.__file__).parent
TEXT = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = {
    title.lower(): re.search(r"```diff\n(.*?)```", section, flags=re.DOTALL)[1]
    for title, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
}
WORDS = [
    *(
        "--policies",
        "majority:share=0.6",
        "pairs",
        "adpsgd",
        "--delays",
        "weibull:shape=2",
        "--graph",
        "ring",
        "--workers",
        "4",
    ),
    *("--dataset", "logistic:dimension=4,samples=64", "--batch-size", "4", "--learning-rate", "1"),
    *("--clip-norm", "1e-5", "--seconds", "12", "--rows", "4", "--seeds", "1", "--no-progress"),
]


def hunks(example):
    """`(file, what stands there, what takes its place)`, one for each edit."""
    for part in re.split(r"^--- ", example, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        for hunk in re.split(r"^@@\n", body, flags=re.MULTILINE):
            lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
            assert {mark for mark, _ in lines} <= {" ", "+", "-", ""}
            yield name, *("".join(f"{text}\n" for mark, text in lines if mark != unwanted) for unwanted in ("+", "-"))


def edited(text, before, after, name):
    """The text with one edit made."""
    assert f"\n{text}".count(f"\n{before}") == 1, f"{name} does not hold once: {before}"
    return text.replace(before, after)


def copy_with(folder, examples):
    """A copy of the package with the edits of some examples."""
    shutil.copytree(PACKAGE, folder / "dbwjax", ignore=shutil.ignore_patterns("__pycache__"))
    for example in examples:
        for name, before, after in hunks(EXAMPLES[example]):
            file = folder / "dbwjax" / name
            if before or file.exists():
                file.write_text(edited(file.read_text(), before, after, name))
            else:
                file.write_text(after)  # a new file
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of a copy with all the edits, by its own words."""
    folder = copy_with(tmp_path_factory.mktemp("extended"), EXAMPLES)
    done = trained(folder, [*WORDS, "--out", "run"])
    assert done.returncode == 0, done.stderr
    return folder / "run"


def trained(folder, words):
    """The command of the package in a folder."""
    command = [sys.executable, "-m", "dbwjax.train", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **light_environment(), "PYTHONPATH": ""}, capture_output=True, text=True
    )


def rows(out, policy="majority:share=0.6"):
    """The rows of one policy."""
    every = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in every if row["policy"] == policy]


def test_no_example_touches_more_files_than_promised():
    promised = dict(re.findall(r"^\| (an? .*?) \| (\d) \|$", TEXT, flags=re.MULTILINE))
    assert promised == {
        "a waiting rule": "1",
        "an event-driven method": "2",
        "a delay law": "1",
        "a figure": "1",
        "an option": "2",
        "a metric of every step": "3",
    }
    assert {name: str(len({file for file, *_ in hunks(edits)})) for name, edits in EXAMPLES.items()} == promised


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_is_readable_python_by_the_house_rules(example, tmp_path):
    folder = copy_with(tmp_path, [example])
    shutil.copy(ROOT / "pyproject.toml", folder)
    files = sorted({f"dbwjax/{name}" for name, *_ in hunks(EXAMPLES[example])})
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *files], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_none_of_it_is_there_without_the_edits():
    for build, word in (
        (build_policy, "majority"),
        (build_policy, "pairs"),
        (lambda spec: build_delays(spec, 4), "weibull"),
    ):
        with pytest.raises(ValueError, match=f"unknown .* '{word}'"):
            build(word)
    with pytest.raises(ValueError, match="unknown option --clip-norm"):
        parse(WORDS)


def test_rule_law_and_figure_are_there(run):
    last = rows(run)[-1]
    assert last["policy"] == "majority:share=0.6"
    assert last["active_fraction"] == pytest.approx(3 / 4)  # more than 2.4 of 4
    assert 0.5 < last["iteration_length"] < 2  # the third of four Weibull times of mean 0.89 s
    for name in ("drift", "summary"):
        assert (run / f"{name}.png").stat().st_size > 5000


def test_the_event_driven_method_is_there_and_is_adpsgd(run):
    """Written in twenty lines, it gives the numbers of the package's, all of them and to the last bit."""
    mine, theirs = (
        [{name: value for name, value in row.items() if name not in ("policy", "wall_time")} for row in rows(run, spec)]
        for spec in ("pairs", "adpsgd")
    )
    assert mine == theirs
    assert len(mine) == 5
    assert mine[-1]["gradients"] > 30  # about 4 workers * 12 s / 0.9 s


def test_the_metric_is_a_column_among_the_others(run):
    for row in rows(run):
        assert row["behind"] is None if row["row"] == 0 else 0 < row["behind"] < 4


def test_the_option_reaches_config_and_training(run):
    assert json.loads((run / "config.json").read_text())["config"]["clip_norm"] == 1e-5
    first, *_, last = rows(run)
    assert last["step"] > 5
    assert 0 < first["test_loss"] - last["test_loss"] < 1e-3  # steps of at most 1e-5 get nowhere
    done = trained(run.parent, [*WORDS, "--clip-norm", "-1"])
    assert (done.returncode, done.stderr) == (2, "error: --clip-norm -1.0 is out of range; use a norm above 0\n")
