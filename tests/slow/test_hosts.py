"""Real processes on this machine: several are one, and the end of one is the end of all, with one line and a way on."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.timelines import load_timeline
from tests import processes

pytestmark = pytest.mark.slow

# Three chunks, so three checkpoints, to the end of the short budget.
WORDS = [
    *("--dataset", "logistic:dimension=4,samples=40", "--workers", "4", "--graph", "complete", "--batch-size", "4"),
    *("--policies", "dybw", "--seeds", "1", "--rows", "5", "--checkpoint-every", "1", "--no-progress"),
    *("--patience", "90"),
]
SHORT, LONG = ["--seconds", "1200"], ["--seconds", "10000000"]
MANY = ["--seconds", "4800"]  # some ten checkpoints
KILLS = 10

# Other tests may run at the same time, so a process may be slow; the patience is short only where one is lost without a
# sign: it freezes, never comes, or ends in the moment when a run or a checkpoint begins.
PATIENCE = 10
IMPATIENT = ["--patience", str(PATIENCE)]
AT_ONCE = 45  # seconds; half of the patience of `WORDS`
LOST = (4, -signal.SIGABRT)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Words that all runs share, with programs that each compiles once."""
    return [*WORDS, "--compile-cache", str(tmp_path_factory.mktemp("programs"))]


def run(folder, count, words, budget=SHORT, **environment):
    """Starts a run and waits for its good end; what is said goes beside its folder."""
    where = folder.parent
    commands = processes.trained(folder, count, [*words, *budget])
    with processes.started(commands, where, **environment) as running:
        codes = processes.ended(running, 150)
    assert codes == [0] * count, [processes.said(where, process) for process in range(count)]


def same(folder, alone):
    ours, theirs = (read_metrics(one / "metrics.jsonl") for one in (folder, alone))
    assert len(ours) == len(theirs) == 6
    # Single workers' accuracies are evaluated where one process holds them all.
    near = ("train_loss", "test_loss", "test_accuracy", "consensus_distance", "suboptimality")
    apart = ("wall_time", "worker_accuracy_min", "worker_accuracy_median", *near)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - set(apart):
            assert a[name] == b[name], name
        for name in near:
            nothing = a[name] is None and b[name] is None and a["row"] == 0
            assert nothing or a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-6), name
    timelines = [load_timeline(one / "timeline.npz")["dybw"]["0"] for one in (folder, alone)]
    assert len(timelines[0]["duration"]) > 800
    for name in ("duration", "active", "backup_workers", "length"):
        np.testing.assert_array_equal(timelines[0][name], timelines[1][name])


@pytest.fixture(scope="module")
def alone(tmp_path_factory, words):
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(folder, 1, words)
    return folder


@pytest.mark.parametrize(("count", "devices"), [(2, 1), (2, 2)])
def test_several_processes_are_one(alone, words, tmp_path, count, devices):
    run(tmp_path / "run", count, words, JAX_NUM_CPU_DEVICES=str(devices))
    same(tmp_path / "run", alone)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["environment"]["devices"] == str(count * devices)
    assert "figures:" in (tmp_path / "0.out").read_text()
    for process in range(1, count):
        assert "figures:" not in (tmp_path / f"{process}.out").read_text()


def until_checkpoint(folder, running, seconds=90):
    """Waits until a checkpoint is whole; returns when it was seen."""
    deadline = time.monotonic() + seconds
    while not list(Path(folder, "checkpoint").glob("[0-9]*/facts.json")):
        assert time.monotonic() < deadline, "no checkpoint"
        assert all(process.poll() is None for process in running), "a process ended by itself"
        time.sleep(0.02)


def one_error_line(where, process):
    errors = [line for line in processes.said(where, process) if not line.startswith("note:")]
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    return errors[0]


@pytest.mark.parametrize(
    # Killed between two checkpoints: in the moment when one begins, the others hear no sooner than of a freeze.
    ("blow", "more", "within"),
    [(signal.SIGKILL, ["--checkpoint-every", "4"], AT_ONCE), (signal.SIGSTOP, IMPATIENT, PATIENCE + 20)],
)
def test_one_that_is_killed_or_frozen_ends_the_other(words, tmp_path, blow, more, within):
    """Both cases at once: the first of two is lost, the second of two others."""
    with ExitStack() as stack:
        cases = []
        for victim in (0, 1):
            where = tmp_path / str(victim)
            commands = processes.trained(where / "run", 2, [*words, *LONG, *more])
            cases.append((victim, where, stack.enter_context(processes.started(commands, where))))
        for victim, where, running in cases:
            until_checkpoint(where / "run", running)
            running[victim].send_signal(blow)
        for victim, where, running in cases:
            code = processes.ended([running[1 - victim]], within)[0]
            assert code in LOST
            assert "the last checkpoint" in one_error_line(where, 1 - victim)
            assert list((where / "run" / "checkpoint").glob("[0-9]*/facts.json"))


@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_raises_ends_the_other(words, tmp_path, victim):
    """The exception is one of the program, raised in the middle of the training by one process only."""
    commands = processes.trained(tmp_path / "run", 2, [*words, *LONG])
    broken = (
        "import sys\n"
        "from dbwjax import train\n"
        "from dbwjax.experiments.training import Training\n"
        "advance = Training.advance\n"
        "def breaks(self):\n"
        "    if self.accounts[0].steps >= 800: raise KeyError('a bug')\n"
        "    return advance(self)\n"
        "Training.advance = breaks\n"
        "sys.exit(train.main(sys.argv[1:]))"
    )
    commands[victim][1:3] = ["-c", broken]
    with processes.started(commands, tmp_path) as running:
        codes = processes.ended(running, 80)
    assert codes[victim] == 1
    assert codes[1 - victim] in LOST
    assert "the last checkpoint" in one_error_line(tmp_path, 1 - victim)
    assert any("KeyError: 'a bug'" in line for line in processes.said(tmp_path, victim))


def test_one_that_never_comes_is_not_waited_for_ever(words, tmp_path):
    with ExitStack() as stack:
        cases = []
        for missing in (0, 1):
            where = tmp_path / str(missing)
            commands = processes.trained(where / "run", 2, [*words, *SHORT, *IMPATIENT])
            cases.append((where, stack.enter_context(processes.started([commands[1 - missing]], where))))
        for where, running in cases:
            assert processes.ended(running, PATIENCE + 35)[0] != 0
            one_error_line(where, 0)
            assert not (where / "run").exists()


@pytest.mark.parametrize("full", [0, 1])
def test_a_full_disk_ends_all(words, tmp_path, full):
    """Files of one process may not grow beyond a few bytes, which is how a full disk looks to a writer."""
    # Digits: parameters of the usual size, so that the second process has something to write.
    more = ["--dataset", "digits", "--patience", "300"]
    commands = processes.trained(tmp_path / "run", 2, [*words, *LONG, *more])
    script = "import os, resource, sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script += "os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'\n"  # nor can programs be kept
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
    script += "from dbwjax import train; sys.exit(train.main(sys.argv[1:]))"
    commands[full][1:3] = ["-c", script]
    with processes.started(commands, tmp_path) as running:
        codes = processes.ended(running, 150)
    # The first process lives a second longer, for the others' last lines; their end may abort it before its own.
    assert codes[full] in ((2, -signal.SIGABRT) if full == 0 else (2,))
    assert codes[1 - full] in LOST
    assert "cannot be written" in one_error_line(tmp_path, full)
    one_error_line(tmp_path, 1 - full)


def test_two_coordinators_on_one_port(words, tmp_path):
    port = processes.free_port()
    first = processes.trained(tmp_path / "a", 2, [*words, *SHORT], port)[0]
    second = processes.trained(tmp_path / "b", 2, [*words, *SHORT], port)[0]
    with processes.started([first], tmp_path / "1") as waiting:
        time.sleep(4)
        with processes.started([second], tmp_path / "2") as running:
            assert processes.ended(running, 30) == [2]
        assert waiting[0].poll() is None
    assert f"port {port} of this machine is in use" in one_error_line(tmp_path / "2", 0)


def test_versions_and_commands_that_differ(words, tmp_path):
    for number, (change, said) in enumerate(
        [
            ("import jax; jax.__version__ = '0.1'", "process 1 has jax=0.1 and process 0 has"),
            ("sys.argv += ['--workers', '5']", "process 1 has workers=5 and process 0 has 4"),
        ]
    ):
        commands = processes.trained(tmp_path / "run", 2, [*words, *SHORT])
        script = f"import sys; {change}\nfrom dbwjax import train; sys.exit(train.main(sys.argv[1:]))"
        commands[1][1:3] = ["-c", script]
        where = tmp_path / str(number)
        with processes.started(commands, where) as running:
            assert processes.ended(running, 60) == [2, 2]
        assert said in one_error_line(where, 0)
        assert said in one_error_line(where, 1)
    assert not (tmp_path / "run").exists()


def test_saved_by_four_processes_resumed_by_one_two_or_eight_devices(alone, words, tmp_path):
    commands = processes.trained(tmp_path / "run", 4, [*words, *SHORT])
    with processes.started(commands, tmp_path) as running:
        until_checkpoint(tmp_path / "run", running)
        running[2].kill()
        processes.ended(running, 30)
    assert not (tmp_path / "run" / "parts" / "0.json").exists()
    for number, (count, devices) in enumerate([(1, 1), (2, 1), (1, 8)]):
        copy = tmp_path / str(number) / "run"
        shutil.copytree(tmp_path / "run", copy)
        run(copy, count, words, JAX_NUM_CPU_DEVICES=str(devices))
        same(copy, alone)


def test_killed_ten_times_at_random_instants(words, tmp_path):
    """Each time one of two processes dies somewhere between its start and its end; what ends is as if nobody died."""
    chance, runs, kills = random.Random(0), 0, 0
    words = [*words, *IMPATIENT]
    begun = time.monotonic()
    run(tmp_path / "whole" / "run", 2, words, MANY)
    whole = time.monotonic() - begun  # seconds of a start; less once its programs are compiled
    while kills < KILLS:
        folder, where = tmp_path / str(runs) / "run", tmp_path / f"kill{kills}-{runs}"
        victim, begun, instant = kills % 2, time.monotonic(), chance.uniform(0.2, 1) * whole
        commands = processes.trained(folder, 2, [*words, *MANY])
        with processes.started(commands, where) as running:
            while time.monotonic() < begun + instant and any(process.poll() is None for process in running):
                time.sleep(0.02)
            ended_first = time.monotonic() < begun + instant
            running[victim].send_signal(signal.SIGKILL)
            codes = processes.ended(running, PATIENCE + 35)
        if codes == [0, 0]:
            same(folder, tmp_path / "whole" / "run")
            runs += 1
            whole = min(whole, max(5.0, time.monotonic() - begun))
            continue
        assert not ended_first, codes
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] in (*LOST, 0)
        kills += 1
    run(tmp_path / str(runs) / "run", 2, words, MANY)
    same(tmp_path / str(runs) / "run", tmp_path / "whole" / "run")
