"""What goes out of a command and what reaches it: streams, signals, surroundings, words that contradict."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import warnings

import jax
import pytest

from dbwjax import policies, prepare, replay, sweep, train
from dbwjax.cli import arguments, overview
from dbwjax.cli import sweep as sweep_words
from dbwjax.experiments import config as configs
from dbwjax.experiments import progress
from dbwjax.experiments.config import RunOptions
from dbwjax.experiments.presets import PRESETS
from dbwjax.experiments.sweep.config import content
from dbwjax.policies.table import build_policies
from dbwjax.runtime import environment, interrupts, streams
from dbwjax.tasks.datasets import DATASETS, WITHOUT_ACCURACY
from tests.readme import ROOT

COMMANDS = {"train": train, "sweep": sweep, "replay": replay, "prepare": prepare}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streams, "_silent", None)
    monkeypatch.setattr(streams, "_elsewhere", None)


def refused(capsys, main, *words):
    """The one line that a command says, having printed and written nothing."""
    before = sorted(os.listdir())
    assert main([*map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.endswith("\n")
    assert said.err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return said.err


# Lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines \t and\r blanks", "two lines and blanks"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b\x7f\x00", "\\x9b\\x7f\\x00"),
        ("\u202eoot", "\\u202eoot"),
        ("a\udcffb", "a\\udcffb"),
        ("\u00e9\u00df \u4e16", "\u00e9\u00df \u4e16"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_line_is_a_line(text, line):
    assert streams.one_line(text) == line


@pytest.mark.parametrize(
    "text", ["unknown graph '{}'; known: ring", "--graph {} is wrong; leave it out", "path {}/run is full; remove some"]
)
@pytest.mark.parametrize("value", ["x" * 5000, "x y " * 2000, "\x1b" * 3000])
def test_values_are_clipped_and_the_remedy_stays(text, value):
    line = streams.one_line(text.format(value))
    assert len(line) < 2100
    if "'" in text or " " not in value:
        assert len(line) < 300
    assert line[:5] == text[:5]
    assert line[-6:] == text[-6:]


@pytest.mark.parametrize("name", [*COMMANDS, "overview"])
@pytest.mark.parametrize("word", ["--\x1b]0;title\x07", "--" + "x" * 10_000, "--a\udcffb", "--\u2066b"])
def test_every_command_says_odd_words_in_one_line(capsys, name, word):
    said = refused(capsys, (overview if name == "overview" else COMMANDS[name]).main, word)
    assert said.isascii()
    assert said[:-1].isprintable()
    assert len(said) < 1500


@pytest.mark.parametrize("word", ["--out", "--data-dir", "--compile-cache", "--graph"])
def test_what_is_not_text_is_refused(capsys, word):
    assert "is not text" in refused(capsys, train.main, word, "runs/a\udcffb")
    with pytest.raises(ValueError, match="is not text"):
        configs.validate(PRESETS["quickstart"](), RunOptions(out="a\0b"))


@pytest.mark.parametrize(
    ("name", "words"), [("replay", []), ("replay", ["a", "b"]), ("prepare", []), ("prepare", ["mnits"])]
)
def test_small_commands_say_one_line_too(capsys, name, words):
    refused(capsys, COMMANDS[name].main, *words)
    if words == ["mnits"]:
        assert "did you mean 'mnist'?" in refused(capsys, prepare.main, *words)


# Standard output


class Broken:
    """A stream that a reader has left, or whose disk is full."""

    encoding = "ascii"

    def __init__(self, code):
        self.code, self.asked = code, 0

    def write(self, text):
        text.encode("ascii")  # a locale that knows no other letters

    def flush(self):
        self.asked += 1
        raise OSError(self.code, os.strerror(self.code))

    def fileno(self):
        raise OSError


GONE, FULL = errno.EPIPE, errno.ENOSPC


@pytest.mark.parametrize(
    ("code", "elsewhere", "before", "after", "said"),
    [
        (GONE, None, 0, 0, ""),
        (GONE, "run/table.csv", 0, 0, ""),
        (GONE, None, 1, 1, ""),
        (FULL, None, 0, 2, "error: standard output cannot be written (No space left on device); write it to another"),
        (FULL, "run/table.csv", 0, 0, "note: standard output cannot be written (No space left on device); see run/t"),
        (FULL, None, 1, 1, "note: standard output cannot be written"),
        (errno.EIO, None, 0, 2, "error: standard output cannot be written (Input/output error)"),
    ],
)
def test_a_reader_that_goes_away_undoes_nothing(monkeypatch, capsys, code, elsewhere, before, after, said):
    monkeypatch.setattr(sys, "stdout", Broken(code))
    for _ in range(3):
        streams.show("\u00e9 table", elsewhere=elsewhere)  # a work that goes on after each
    assert sys.stdout.asked == 1  # what is closed is not asked again
    assert streams.finish(before) == after
    found = capsys.readouterr().err
    assert found.startswith(said)
    assert found.count("\n") == bool(said)


@pytest.mark.parametrize("words", [["--list"], ["--print-config"]])
def test_a_question_survives_its_reader(monkeypatch, words):
    monkeypatch.setattr(sys, "stdout", Broken(GONE))
    assert train.main(words) == 0
    assert streams.finish(0) == 0


def test_no_standard_error_and_no_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    streams.show("a")
    streams.note("a")
    streams.error("a")
    assert overview.main([]) == 0
    assert streams.finish(0) == 0
    monkeypatch.setattr(sys, "stderr", Broken(FULL))
    streams.note("a")
    assert overview.main(["sweeep"]) == 2


def test_results_show_no_control_characters(capsys):
    streams.show("one\n\x1b[31mtwo")
    assert capsys.readouterr().out == "one\n\\x1b[31mtwo\n"


# How far it is


def lines_of(monkeypatch, capsys, **options):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress(RunOptions(**options), 4) as shown:
        for step in range(1, 31):
            clock[0] = float(step)
            shown.at("fastest:k=6", 2.0 * step, 100.0)
            if step == 15:
                shown.update(3)
    return capsys.readouterr().err.splitlines()


def test_off_a_terminal_a_line_every_ten_seconds(monkeypatch, capsys):
    assert lines_of(monkeypatch, capsys) == [
        "fastest:k=6: 20.0 of 100.0 s; 0 of 4 simulations done",
        "fastest:k=6: 40.0 of 100.0 s; 3 of 4 simulations done",
        "fastest:k=6: 60.0 of 100.0 s; 3 of 4 simulations done",
    ]
    assert lines_of(monkeypatch, capsys, progress=False) == []


def test_on_a_terminal_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Progress(RunOptions(), 4) as shown:
        for place in (1.0, 2.0):
            shown.at("full\x1b", place, 3.0)
            shown.update(2)
    said = sys.stderr.getvalue()
    assert "full\\x1b: 2.0 of 3.0 s" in said
    assert "4/4" in said
    assert "done" not in said


def test_a_terminal_that_goes_away_stops_no_work(monkeypatch):
    class Terminal(Broken):
        def isatty(self):
            return True

        def write(self, text):
            self.flush()

    monkeypatch.setattr(sys, "stderr", Terminal(errno.EIO))
    with progress.Progress(RunOptions(), 4) as shown:
        shown.at("full", 1.0, 2.0)
        shown.update(4)
    assert shown.done == 4


# Signals


SLEEPER = """
import os, sys, time
from dbwjax.runtime import interrupts
interrupts.guard()
os.write(1, b'.')
if sys.argv[1] == 'collected':
    with interrupts.collected() as pending:
        while not pending:
            time.sleep(0.01)
        os.write(1, b'.')
        time.sleep(60)
elif sys.argv[1] == 'over':
    interrupts.let_go()
    os.write(1, b'.')
    time.sleep(1)
    sys.exit(0)
# Native code that holds nothing: no bytecode runs, and no handler of Python's would.
import threading
threading.Lock().acquire() and threading.Event().wait(60)
"""


@pytest.mark.parametrize(
    ("how", "signum", "code"),
    [
        ("plain", signal.SIGINT, 130),
        ("plain", signal.SIGTERM, 143),
        ("collected", signal.SIGINT, 130),
        ("over", signal.SIGINT, 0),
    ],
)
def test_a_signal_is_one_line(how, signum, code):
    words = [sys.executable, "-c", SLEEPER, how]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.read(1) == b"."
        if how == "over":
            assert process.stdout.read(1) == b"."
        process.send_signal(signum)
        if how == "collected":  # the first is heard, the second acts
            assert process.stdout.read(1) == b"."
            process.send_signal(signum)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    line = f"error: stopped by {signal.Signals(signum).name}; nothing on disk is lost\n"
    assert said.decode() == (line if code else "")


def test_without_a_guard_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.collected() as pending:
        os.kill(os.getpid(), signal.SIGTERM)
        assert pending == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
    interrupts.arm()
    interrupts.let_go()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("main", [train.main, sweep.main, replay.main, prepare.main])
def test_ctrl_c_in_a_call_is_one_line(monkeypatch, capsys, main):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(arguments.Parser, "parse_args", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "error: stopped by SIGINT; nothing on disk is lost\n"


# Surroundings


@pytest.fixture
def surroundings(monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    return monkeypatch


@pytest.mark.parametrize("name", environment.PACKAGES)
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_a_file_beside_you_with_a_package_s_name_is_refused(surroundings, tmp_path, name, form):
    file = tmp_path / form.format(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('run')")
    with pytest.raises(ValueError, match="has the name of a package that is needed; rename it") as caught:
        environment.prepare(str(tmp_path))
    assert str(file) in str(caught.value)
    environment.prepare(None)  # `python -P`: nothing beside you is imported


def test_what_is_harmless_beside_you(surroundings, tmp_path):
    for name in ("random.py", "signal.py", "typing.py", "mine.py"):
        (tmp_path / name).write_text("raise SystemExit('run')")
    (tmp_path / "jax").mkdir()  # a folder of data
    environment.prepare(str(tmp_path))
    assert os.environ["MPLBACKEND"] == "agg"


def test_a_package_of_one_file_or_none_is_refused(surroundings, tmp_path):
    surroundings.setattr(environment, "PACKAGES", ("thing_of_mine",))
    with pytest.raises(ValueError, match="thing_of_mine is not installed; run python -m pip install"):
        environment.prepare(None)
    (tmp_path / "thing_of_mine.py").write_text("")
    surroundings.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="take it off the path"):
        environment.prepare(None)


def test_warnings_and_logs_are_notes(surroundings, capsys):
    environment.prepare(None)
    warnings.showwarning(UserWarning("not\ncached"), UserWarning, "file", 1)
    record = logging.LogRecord("somebody", logging.WARNING, "file", 1, "a %s", ("log\nof two",), None)
    logging.lastResort.handle(record)  # which is asked where nobody has set up anything
    assert capsys.readouterr().err == "note: not cached\nnote: a log of two\n"


def test_a_folder_that_is_gone(surroundings, tmp_path):
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(ValueError, match="the current folder cannot be used"):
        environment.prepare(None)
    os.chdir(tmp_path)


def test_a_cache_that_cannot_be_written(surroundings, tmp_path):
    (tmp_path / "file").write_text("")
    surroundings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(ValueError, match="cannot be written; name another folder, or unset it"):
        environment.prepare(None)
    for place in (tmp_path / "new" / "below", "gs://bucket/programs"):
        surroundings.setenv("JAX_COMPILATION_CACHE_DIR", str(place))
        environment.prepare(None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--nonsense", "Unknown flag in XLA_FLAGS: --nonsense"),
        ("--xla_force_host_platform_device_count=abc", "XLA_FLAGS=.* is refused by XLA"),
        ("--xla_force_host_platform_device_count=2", None),
    ],
)
def test_flags_that_would_abort_the_process(surroundings, flags, said):
    surroundings.setenv("XLA_FLAGS", flags)
    if said is None:
        environment._require_flags()
    else:
        with pytest.raises(ValueError, match=said) as caught:
            environment._require_flags()
        assert "\n" not in str(caught.value)


def test_variables_at_which_jax_does_not_start(surroundings):
    surroundings.setenv("JAX_ENABLE_X64", "maybe")
    surroundings.delitem(sys.modules, "jax")
    surroundings.setattr("builtins.__import__", _refusing(__import__))
    with pytest.raises(ValueError, match=r"JAX does not start \(invalid truth value\); check .*JAX_ENABLE_X64=maybe"):
        environment.start_jax()


def _refusing(real):
    def imported(name, *rest, **more):
        if name == "jax":
            raise ValueError("invalid truth value")
        return real(name, *rest, **more)

    return imported


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda': not there\n(set JAX_PLATFORMS='')")]
)
def test_devices_that_are_not_here(monkeypatch, capsys, error):
    def none(*_):
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", none)
    for main in (train.main, sweep.main):
        said = refused(capsys, main)
        assert said.startswith("error: JAX finds no devices (")
        assert "JAX_PLATFORMS=cuda" in said


@pytest.mark.parametrize("place", ["~nobody_of_this_name/data", "a\x01b", "x" * 300, "a" * 5000])
def test_data_folders_that_are_none(monkeypatch, capsys, place):
    assert "is not prepared in" in refused(capsys, train.main, "mnist-lrm", "--data-dir", place)
    monkeypatch.setenv("TFDS_DATA_DIR", place)
    assert "is not prepared in" in refused(capsys, train.main, "mnist-lrm")


# Words that contradict one another, or that nothing reads


TRAIN = [
    (["quickstart", "--config", "file"], "PRESET and --config say the same in two ways"),
    (["--list", "--seed", "1"], "--list takes no other word; leave --seed out"),
    (["--list", "--print-config"], "--list takes no other word"),
    (["mnist-2nn", "--list"], "leave PRESET out"),
    (["--rows", "5", "--eval-every", "5"], "--rows and --eval-every say the same in two ways"),
    (["--data-dir", "here"], "--data-dir does nothing: dataset 'digits' is read from no folder"),
    (["--data-dir", "here", "--dataset", "logistic:samples=40"], "dataset 'logistic' is read from no folder"),
    (["--dataset", "quadratic", "--model", "lrm"], "is synthetic and has no model"),
    (["--dataset", "logistic", "--pca", "3"], "is synthetic and has no pca"),
    (["--dataset", "logistic", "--partition", "iid"], "is synthetic and has no partition"),
    (["--dataset", "quadratic", "--target-accuracy", "0.9"], "--target-accuracy does nothing: dataset 'quadratic' has"),
    (["--dataset", "quadratic", "--until-target"], "--until-target does nothing"),
    (["--schedule", "constant*cosine:steps=5"], "the factor constant does nothing; leave it out"),
    (["--schedule", "cosine:steps=5,alpha=1"], "alpha=1 keeps the base rate all the time; use constant"),
    (["--schedule", "warmup:steps=5,start=1.0"], "start=1 keeps the base rate"),
    (["--schedule", "warmup:steps=5*step:every=3,factor=1"], "factor=1 keeps the base rate"),
    (["--schedule", "warmup_cosine:warmup=1,steps=5,alpha=1,start=1"], "start=1, alpha=1 keeps the base rate"),
    (["--patience", "30"], "--patience says nothing without --distributed"),
    (["--coordinator", "h:1"], "--coordinator says nothing without --distributed"),
    (["--process-id", "0"], "--process-id says nothing without --distributed"),
    (["--eval-every", "5"], "--eval-every counts the baseline's iterations"),
    (["--steps", "5", "--seconds", "5"], "give one budget"),
    (["--figures", "png, png"], "names png twice"),
    (["--policies", "full", " full "], "is named twice"),
]


@pytest.mark.parametrize(("words", "said"), TRAIN, ids=[" ".join(words) for words, _ in TRAIN])
def test_words_of_training_that_nothing_reads(capsys, words, said):
    assert said in refused(capsys, train.main, *words)


SWEEP = [
    (["--graph", "ring", "--graphs", "star"], "--graph and --graphs say the same in two ways"),
    (["--learning-rate", "1", "--learning-rates", "1"], "--learning-rate and --learning-rates say the same"),
    (["--graphs", "ring", " ring"], "--graphs names ring twice"),
    (["--graphs", "ring", "--graphs", "star", "ring:"], "twice"),
    (["--graphs", "erdos_renyi:p=0.40", "erdos_renyi: p=.4"], "twice"),
    (["--graphs", "small_world", "small_world:degree=4"], "twice"),
    (["--delays", "uniform", "uniform:low=0.5"], "twice"),
    (["--delays", "uniform*pareto", "uniform:low=0.5 * pareto"], "twice"),
    (["--learning-rates", "0.1", "1e-1"], "twice"),
    (["--set", "workers=4, 04"], "twice"),
    (["--set", "model=lrm, lrm"], "twice"),
    (["--set", "partition=dirichlet;dirichlet:alpha=0.5"], "twice"),
    (["--set", "optimizer=momentum;momentum:beta=0.9"], "twice"),
    (["--set", "workers=4", "--set", "workers=5"], "--set workers is given twice"),
    (["--set", "workers=4,5", "--workers", "4"], "--workers and --set workers both give it values"),
    (["--set", "batch-size=4,5", "--batch-size", "4"], "--batch-size and --set batch_size both"),
    (["--graph-seeds", "3", "--graphs", "ring", "star"], "--graph-seeds 3 draws nothing: no graph is random"),
    (["--patience", "30"], "--patience does nothing in a sweep"),
    (["--distributed"], "--distributed does nothing in a sweep"),
    (["--dataset", "quadratic", "--until-target"], "--until-target does nothing"),
    *(
        (["--timing-only", *words.split()], f"{words.split()[0]} changes nothing with --timing-only")
        for words in (
            "--model cnn",
            "--dataset digits",
            "--data-dir here",
            "--partition iid",
            "--pca 3",
            "--batch-size 32",
            "--optimizer sgd",
            "--schedule constant",
            "--dtype float32",
            "--learning-rate 0.1",
            "--learning-rates 0.1 0.2",
            "--target-accuracy 0.9",
            "--until-target",
            "--bandwidth 1e6",
            "--rows 3",
            "--checkpoint-every 3",
        )
    ),
    (["--timing-only", "--set", "dtype=float32,bfloat16"], "--set dtype changes nothing with --timing-only"),
]


@pytest.mark.parametrize(("words", "said"), SWEEP, ids=[" ".join(words) for words, _ in SWEEP])
def test_words_of_a_sweep_that_nothing_reads(capsys, words, said):
    assert said in refused(capsys, sweep.main, *words)


def test_a_word_that_only_some_worlds_read_is_read():
    config, *_ = sweep_words.parse(["--set", "dataset=digits,mnist", "--data-dir", "here"])
    assert config.base.data_dir == "here"
    config, *_ = sweep_words.parse(["--graphs", "ring", "--graphs", "star", "--delays", "uniform", "uniform:low=0.4"])
    assert config.graphs == ("ring", "star")
    assert len(config.delays) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("fastest:k=6", "fastest: k=6"),
        ("fastest:k=6", "fastest:k=06"),
        ("full", "full:weights=metropolis"),
        ("full", " full:barrier=global , late=carry"),
        ("backup:b=1", "backup:b=01"),
        ("backup", "backup:gap=8.0,b=1"),
        ("deadline:seconds=1", "deadline:seconds=1.0"),
        ("dybw", "dybw:flood_latency=0"),
    ],
)
def test_a_policy_under_two_spellings_is_one(capsys, one, other):
    assert "named twice" in refused(capsys, train.main, "--policies", one, other)


def test_policies_that_differ_are_two():
    named = ["full", "full:barrier=neighbours", "full:late=drop", "full:weights=lazy", "fastest:k=1", "fastest:k=2"]
    assert list(build_policies(named)) == named
    assert set(policies.POLICIES) >= {"full", "fastest"}


def test_data_sets_without_accuracy_are_known():
    synthetic = [name for name in DATASETS if name in ("quadratic", "logistic", "least_squares")]
    for name in synthetic:
        task = DATASETS[name](workers=2)
        params = task.init(jax.random.key(0))
        assert ("test_accuracy" in jax.eval_shape(task.evaluate, params)) == (name not in WITHOUT_ACCURACY)


# --config


def printed(capsys, main, *words):
    assert main([*words, "--print-config"]) == 0
    return capsys.readouterr().out


def test_a_printed_configuration_is_read_back(capsys, tmp_path):
    words = ["mnist-2nn", "--policies", "full", "dybw", "--steps", "9", "--eval-every", "3", "--bandwidth", "1e6"]
    (tmp_path / "own.json").write_text(printed(capsys, train.main, *words, "--data-dir", "d"))
    told = arguments.parse(["--config", "own.json"])[0]
    assert told == arguments.parse([*words, "--data-dir", "d"])[0]
    changed = arguments.parse(["--config", "own.json", "--seconds", "5", "--rows", "7", "--policies", "full"])[0]
    assert (changed.seconds, changed.steps, changed.eval_every, changed.rows) == (5.0, None, None, 7)
    assert (changed.policies, changed.seed, changed.data_dir) == (("full",), told.seed, "d")
    assert printed(capsys, train.main, "--config", "own.json") == (tmp_path / "own.json").read_text()


def test_a_printed_sweep_is_read_back(capsys, tmp_path):
    words = ["--graphs", "ring", "erdos_renyi:p=0.4", "--graph-seeds", "2", "--learning-rates", "0.1", "1"]
    words += ["--set", "workers=4,6", "--set", "bandwidth=1e6,inf", "--delays", "uniform", "pareto"]
    (tmp_path / "own.json").write_text(printed(capsys, sweep.main, *words))
    told = sweep_words.parse(["--config", "own.json"])[0]
    assert told == sweep_words.parse(words)[0]
    own = ["--config", "own.json"]
    changed = sweep_words.parse([*own, "--graphs", "star", "erdos_renyi", "--workers", "6", "--seeds", "3"])[0]
    assert changed.graphs == ("star", "erdos_renyi")
    assert [name for name, _ in changed.settings] == ["bandwidth"]  # a word for one value ends an axis
    assert (changed.base.workers, changed.base.seeds, changed.delays) == (6, 3, told.delays)
    changed = sweep_words.parse([*own, "--graph", "erdos_renyi", "--learning-rate", "3", "--set", "workers=9"])[0]
    assert (changed.graphs, changed.learning_rates) == (("erdos_renyi",), (3.0,))
    assert dict(changed.settings)["workers"] == (9,)
    assert json.dumps(content(told), indent=2) + "\n" == (tmp_path / "own.json").read_text()
    # A training's configuration is a sweep without axes.
    (tmp_path / "train.json").write_text(printed(capsys, train.main, "--seed", "5"))
    assert sweep_words.parse(["--config", "train.json"])[0].base.seed == 5


FAULTS = [
    (None, "own.json cannot be read (No such file or directory); give a file that --print-config wrote"),
    ("", "is corrupt"),
    ("{", "is corrupt"),
    ("[]", "is not a configuration of this version"),
    ('{"seed": 1}', "fields that differ"),
    (lambda told: told | {"seed": "one"}, "fields of another type: seed"),
    (lambda told: told | {"preset": "../../else"}, "unknown preset '../../else'"),
    (lambda told: told | {"workers": 0}, "--workers 0 is out of range"),
    (lambda told: told | {"data_dir": "a\0b"}, "is not text"),
    (lambda told: {"base": told}, "is the configuration of a sweep; use python -m dbwjax.sweep"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_a_file_that_is_no_configuration(capsys, tmp_path, fault, said):
    told = configs.to_json(PRESETS["quickstart"]())
    if fault is not None:
        (tmp_path / "own.json").write_text(fault if isinstance(fault, str) else json.dumps(fault(told)))
    assert said in refused(capsys, train.main, "--config", "own.json")
    if callable(fault) and "sweep" in said:
        return
    assert said in refused(capsys, sweep.main, "--config", "own.json")


@pytest.mark.parametrize("place", [".", "/dev/zero", "a\x01b", "x" * 5000])
def test_a_place_that_is_no_configuration(capsys, place):
    for main in (train.main, sweep.main):
        assert "give a file that --print-config wrote" in refused(capsys, main, "--config", place)


@pytest.mark.parametrize(
    "change",
    [
        {"graphs": []},
        {"graphs": "ring"},
        {"graphs": [1]},
        {"learning_rates": ["0.1"]},
        {"graph_seeds": 1.5},
        {"timing_only": 1},
        {"settings": {"workers": [1]}},
        {"settings": [["workers"]]},
        {"settings": [["workers", ["4"]]]},
        {"settings": [["seed", [1]]]},
        {"settings": [["colour", [1]]]},
        {"colour": 1},
        {"base": {}},
        {"base": None},
    ],
)
def test_a_file_that_is_no_sweep(capsys, tmp_path, change):
    (tmp_path / "own.json").write_text(json.dumps(content(sweep_words.parse([])[0]) | change))
    said = refused(capsys, sweep.main, "--config", "own.json")
    assert "own.json is not a" in said
    assert "give a file that --print-config wrote" in said


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_help_shows_the_command_s_own_examples(capsys, name):
    with pytest.raises(SystemExit):
        COMMANDS[name].main(["--help"])
    examples = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  python -m")]
    assert len(examples) == 3
    assert all(line.startswith(f"  python -m dbwjax.{name}") for line in examples)


def test_the_sweeps_in_help_can_be_typed():
    import shlex

    lines = [line for line in sweep_words._EXAMPLES.splitlines() if line.startswith("  python")]
    for line in lines:
        config, *_ = sweep_words.parse(shlex.split(line)[3:])
        assert len(config.graphs) * len(config.delays) * len(config.settings or (0,)) >= 1


# As a process


def started(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True, timeout=120, **{"cwd": ROOT, **more}
    )


def test_streams_of_a_process(tmp_path):
    """A pipe that nobody reads, a disk that is full, no streams at all."""
    reading, writing = os.pipe()
    os.close(reading)
    done = started("dbwjax.train", "--print-config", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    with open("/dev/full", "w") as full:
        done = started("dbwjax.train", "--print-config", stdout=full)
        helped = started("dbwjax.train", "--help", stdout=full)
    line = "error: standard output cannot be written (No space left on device); write it to another place\n"
    assert (done.returncode, done.stderr) == (helped.returncode, helped.stderr) == (2, line)
    words = ["bash", "-c", f"exec {sys.executable} -m dbwjax.train --print-config <&- >&-"]
    closed = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=120, cwd=ROOT)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_files_beside_a_process(tmp_path):
    for name in ("random.py", "enum.py", "signal.py", "argparse.py", "dataclasses.py"):
        (tmp_path / name).write_text("raise SystemExit(99)")
    words = {"stdout": subprocess.DEVNULL, "cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    done = started("dbwjax.train", "--print-config", **words)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "jax.py").write_text("raise SystemExit(99)")
    done = started("dbwjax.train", "--print-config", **words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'jax.py'} has the name of a package that is needed")
    assert done.stderr.count("\n") == 1
