"""Limits before work: whatever size a person types, it is refused in one line, quickly, before anything is written.

The cases are made from the tables of options and SPECs, so that a new option or key is a new case.
"""

from __future__ import annotations

import os
import signal
import typing
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax import build_delays, build_graph, build_task, compare, limits, specs, sweep, train, train_policy
from dbwjax.experiments import extent, placing, training
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.extent import Extent
from dbwjax.learners.optimizers import OPTIMIZERS
from dbwjax.learners.schedules import SCHEDULES
from dbwjax.network.delays import DELAYS
from dbwjax.network.graphs import GRAPHS, building_bytes
from dbwjax.policies import POLICIES
from dbwjax.policies.matcha import matcha
from dbwjax.policies.neighbours import backup
from dbwjax.runtime import memory
from dbwjax.storage.run_folder import RunFolder
from dbwjax.tasks.datasets import CONTEXT, DATASETS
from dbwjax.tasks.models import MODELS
from dbwjax.tasks.partition import PARTITIONS, table
from dbwjax.types import Learner

HUGE = (10**9, 10**20)
SECONDS = 8.0  # of this process's own time, compilation included

WORDS = ["--policies", "full", "--graph", "ring", "--workers", "4", "--dataset", "quadratic:dimension=2"]
CLOCKS = ["--policies", "full", "--graph", "ring", "--workers", "4", "--seeds", "1", "--no-progress"]
WORDS += ["--batch-size", "2", "--seeds", "1", "--no-progress"]
BUDGET = ["--seconds", "4", "--rows", "2"]


class Begun(Exception):
    """The run folder would be opened: everything was allowed."""


@pytest.fixture(autouse=True)
def _small_machine(tmp_path, monkeypatch):
    """Four gigabytes, and an empty folder in which nothing may be written."""
    monkeypatch.setattr(limits, "host_bytes", lambda: 4 * 10**9)
    monkeypatch.chdir(tmp_path)

    def open_(*args, **named):
        raise Begun

    monkeypatch.setattr(RunFolder, "open", open_)
    yield
    assert os.listdir(tmp_path) == []


@contextmanager
def quickly(seconds=SECONDS):
    """Ends what hangs, by this process's own time: the machine may be busy."""

    def stop(signum, frame):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def refused(capsys, main, words):
    """The one line of a command that is refused; `None`: it would begin."""
    with quickly():
        try:
            code = main([str(word) for word in words])
        except Begun:
            return None
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert len(said.err) < 500
    return said.err


def whole_options():
    """The words of every option that takes a whole number."""
    for kind in (TrainConfig, RunOptions):
        for name, hint in typing.get_type_hints(kind).items():
            if int in (hint, *typing.get_args(hint)):
                yield name


COSTS_NOTHING = {"checkpoint_every", "patience", "seed"}
"""Options of which 10^9 is as good as any other number."""


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("name", list(whole_options()))
@pytest.mark.parametrize("main", [train.main, sweep.main], ids=["train", "sweep"])
def test_every_whole_option(capsys, main, name, value):
    budget = {"steps": [], "eval_every": ["--steps", value], "rows": ["--seconds", 4]}.get(name, BUDGET)
    data = ["--dataset", "digits"] if name == "pca" else []
    said = refused(capsys, main, [*WORDS, *budget, *data, f"--{name.replace('_', '-')}", value])
    if said is None:
        assert name in COSTS_NOTHING
        assert value == 10**9
    else:
        assert str(value) in said or name in ("processes", "process_id", "patience", "pca")


FREE = {"cosine", "step", "warmup", "warmup_cosine", "backup", "local_sgd", "k_batch_sync", "k_batch_async", "swift"}
FREE |= {"hop:b"}  # as of `backup`, it is capped
"""SPECs of which a large number is as good as any other."""

TABLES = {
    "--graph": (GRAPHS, ("seed",)),
    "--delays": (DELAYS, ("seed",)),
    "--policies": ({name: method.build for name, method in POLICIES.items()}, ()),
    "--dataset": (DATASETS, CONTEXT),
    "--partition": (PARTITIONS, ("seed",)),
    "--schedule": (SCHEDULES, ()),
    "--optimizer": (OPTIMIZERS, ("learning_rate",)),
    "--model": (MODELS, ()),
}


def whole_keys():
    """A SPEC for every key of a SPEC that takes a whole number."""
    for option, (known, context) in TABLES.items():
        for name, builder in known.items():
            keys = specs.keys(builder, context)
            needed = [f"{key}=1" for key, one in keys.items() if one.default is one.empty and one.annotation is int]
            for key, one in keys.items():
                if one.annotation is int:
                    others = [word for word in needed if not word.startswith(f"{key}=")]
                    yield option, name, ",".join([*others, key])


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(("option", "name", "keys"), list(whole_keys()))
def test_every_whole_key_of_a_spec(capsys, option, name, keys, value):
    data = ["--dataset", "digits", "--model", "lrm"] if option in ("--partition", "--model") else []
    said = refused(capsys, train.main, [*WORDS, *BUDGET, *data, option, f"{name}:{keys}={value}"])
    if said is None:
        assert FREE & {name, f"{name}:{keys}"}
        assert value == 10**9
    else:
        assert str(value) in said


def test_the_tables_have_such_keys():
    found = {(option, name) for option, name, _ in whole_keys()}
    assert {
        ("--graph", "torus"),
        ("--dataset", "logistic"),
        ("--policies", "fastest"),
        ("--partition", "shards"),
    } <= found
    assert {"steps", "rows", "seeds", "batch_size", "workers", "devices"} <= set(whole_options())


MORE = [
    (
        train.main,
        ["--seconds", "1e30", "--rows", "2"],
        "a budget of 1e+30 s under policy 'full' takes about 1e+30 steps",
    ),
    (train.main, ["--steps", 10**9, "--rows", "2"], "--steps 1000000000 needs about"),
    (train.main, ["--steps", 10**7, "--eval-every", "1"], "--eval-every 1, 10000000 rows, needs about"),
    (train.main, [*BUDGET, "--workers", 10**9, "--delays", "slow_workers"], "--workers 1000000000 needs about"),
    (train.main, [*BUDGET, "--workers", 10**5, "--graph", "complete"], "--workers 100000 needs about"),
    (
        train.main,
        [*BUDGET, "--workers", 10**5, "--graph", "random_regular:degree=50000"],
        "--workers 100000 needs about",
    ),
    (train.main, [*BUDGET, "--workers", 2**29, "--graph", "hypercube"], "--workers 536870912 needs about"),
    (train.main, [*BUDGET, "--workers", 999_999_937, "--graph", "grid:rows=3"], "--workers 999999937 needs about"),
    (train.main, [*BUDGET, "--graph", "erdos_renyi:p=1e-9", "--workers", "2000"], "would have no link; use a larger p"),
    (train.main, [*BUDGET, "--policies", "deadline:seconds=1e-20"], "can be counted; use at most"),
    (train.main, [*BUDGET, "--policies", "backup:gap=1e9"], "gap=1e+09 is not a number of iterations"),
    (train.main, [*BUDGET, "--dataset", "digits", "--batch-size", 10**8], "batch_size=100000000 needs about"),
    (train.main, ["--seconds", "4", "--seeds", 10**6], "--seeds 1000000 needs about"),
    (
        sweep.main,
        [*BUDGET, "--graph-seeds", 10**9, "--graph", "erdos_renyi"],
        "a sweep of 1000000000 worlds needs about",
    ),
    (sweep.main, [*BUDGET, "--seeds", 10**5, "--set", "batch_size=1,2,3"], "a sweep of 300000 worlds needs about"),
    (sweep.main, [*BUDGET, "--set", f"workers=4,{10**9}"], "--workers 1000000000 needs about"),
    (sweep.main, [*BUDGET, "--set", f"batch_size=2,{10**20}"], "100000000000000000000"),
    (sweep.main, ["--timing-only", "--seconds", "4", "--seeds", 10**9], "a sweep of 1000000000 worlds needs about"),
    (
        sweep.main,
        ["--timing-only", "--seconds", "1e30"],
        "a budget of 1e+30 s under policy 'full' takes about 1e+30 steps",
    ),
]


@pytest.mark.parametrize(("main", "words", "expected"), MORE, ids=[" ".join(map(str, words)) for _, words, _ in MORE])
def test_more_that_is_too_large(capsys, main, words, expected):
    swept = {words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "--set"}
    base = CLOCKS if "--timing-only" in words else without(WORDS, swept)
    assert expected in (refused(capsys, main, [*base, "--delays", "constant", *words]) or "begun")


def without(words, names):
    """Words without those options, which have one value each."""
    pairs = [f"--{name.replace('_', '-')}" for name in names]
    gone = {place + more for place, word in enumerate(words) if word in pairs for more in (0, 1)}
    return [word for place, word in enumerate(words) if place not in gone]


@pytest.mark.parametrize("workers", [10**9, 2**30, 10**20, 2**31])
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "from_file"])
def test_graphs_in_python(name, workers):
    settings = {"rows": 4} if name in ("grid", "torus") else {}
    with quickly(), pytest.raises(ValueError, match=rf"^workers={workers} (needs about|is out of range)[^\n]*$"):
        GRAPHS[name](workers, **settings)


@pytest.mark.parametrize("name", [name for name in DELAYS if name != "trace"])
def test_delays_in_python(name):
    with quickly(), pytest.raises(ValueError, match=r"^workers=1000000000 needs about [^\n]*; use at most \d+$"):
        build_delays(name, 10**9)


IN_PYTHON = {
    "quadratic": lambda: build_task("quadratic", workers=10**9),
    "quadratic's dimension": lambda: build_task("quadratic:dimension=100000000", workers=10),
    "logistic's dimension": lambda: build_task("logistic:dimension=100000", workers=10),
    "logistic's samples": lambda: build_task("logistic:samples=100000000", workers=10),
    "a partition's table": lambda: table([np.arange(10**6)] + [np.arange(1)] * 1000),
    "start times": lambda: backup(0, 4096).init(build_graph("ring", 10**5)),
    "the spectrum of many": lambda: matcha().init(build_graph("ring", 20_000)),
    "a batch": lambda: train_policy("full", task_of(10**9), "ring", "constant", "sgd", seconds=1.0),
    "rows": lambda: train_policy("full", task_of(), "ring", "constant", "sgd", seconds=1.0, rows=10**9),
    "times": lambda: train_policy("full", task_of(), "ring", "constant", "sgd", times=np.arange(1.0, 3e6)),
    "steps": lambda: train_policy("full", task_of(), "ring", "constant", "sgd", steps=10**9),
    "seeds": lambda: compare(["full"], "quadratic", "ring", "constant", workers=4, seconds=1.0, seeds=10**9),
    "rows of a comparison": lambda: compare(["full"], task_of(), "ring", "constant", seconds=1.0, rows=10**8),
}


def task_of(batch_size=2):
    return build_task("quadratic:dimension=2", workers=4, batch_size=batch_size)


@pytest.mark.parametrize("name", IN_PYTHON)
def test_sizes_in_python(name):
    with quickly(), pytest.raises(ValueError, match=r"^[^\n]* needs about [^\n]* GB are free; use [^\n]*$"):
        IN_PYTHON[name]()


def test_a_budget_without_end_in_python():
    with quickly(60), pytest.raises(ValueError, match=r"^a budget of 1e\+30 s takes about 1e\+30 steps, and"):
        train_policy("full", task_of(), "ring", "constant", optax.sgd(0.1), seconds=1e30)


def test_the_largest_that_fits_is_allowed(monkeypatch):
    words = {"steps": "steps={}", "rows": "rows={}", "worlds": "seeds={}"}
    one = Extent(worlds=3, policies=2, workers=10, rows=50, steps=1000)
    monkeypatch.setattr(limits, "host_bytes", one.bytes)
    extent.require_extent(one, words)
    for field, said in (("worlds", "seeds=4"), ("rows", "seeds=3"), ("steps", "seeds=3")):
        larger = one._replace(**{field: getattr(one, field) + 1})
        with pytest.raises(ValueError, match=f"^{said} needs about"):
            extent.require_extent(larger, words)
    with pytest.raises(ValueError, match=r"^steps=\d+ needs about .*; use at most (\d+)$") as caught:
        extent.require_extent(one._replace(steps=10**6), words)
    fits = int(str(caught.value).rpartition(" ")[2])
    extent.require_extent(one._replace(worlds=1, rows=1, steps=fits), words)
    assert one._replace(worlds=1, rows=1, steps=fits + 1).bytes() > one.bytes()


def test_the_end_is_projected_from_the_first_steps(monkeypatch):
    durations = np.full((2, 100), 0.5, np.float32)
    told = {"workers": 10, "drifting": False, "what": "a budget", "history": True}
    steps, each = 2000.0, 2 * (extent.STEP + 10)
    monkeypatch.setattr(limits, "host_bytes", lambda: steps * each)
    extent.require_end(durations, np.array([1000.0, 10.0]), **told)
    with pytest.raises(
        ValueError, match=r"^a budget takes about 2e\+03 steps, which needs .*; use at most 1e\+03 seconds"
    ):
        extent.require_end(durations, np.array([1001.0, 10.0]), **told)
    extent.require_end(durations, np.array([1001.0, 10.0]), **told | {"history": False})
    with pytest.raises(ValueError, match="needs about"):
        extent.require_end(durations, np.array([1000.0, 10.0]), **told | {"drifting": True})
    for odd in (0.0, np.inf, np.nan):  # which the run says by itself
        extent.require_end(durations * odd, np.array([1e30, 1.0]), **told)


def test_slices_are_found_without_walking_all_numbers():
    params, loss = jnp.zeros(3), lambda p, b: (b @ p).mean()
    learner = Learner(lambda p: (), lambda p, local, b: (jax.grad(loss)(p, b), 0.0, None), None)
    for size in (2**31 - 1, 2**30):  # a prime, and one of many divisors
        batch = jax.ShapeDtypeStruct((size, 3), jnp.float32)
        with quickly():
            slices = memory.gradient_slices(size, learner, params, batch)
        assert size % slices == 0
        assert slices > 1
    assert limits.divisors(1) == [1]
    assert limits.divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]


def test_a_graph_s_estimate_is_that_of_its_builder():
    assert building_bytes("random_regular:degree=50000", 10**5) > 10**12
    assert building_bytes("ring", 10**5) < 10**9
    assert building_bytes("random_regular:degree=x", 10) > 0  # which the builder refuses


@pytest.mark.parametrize(("p", "workers"), [(0.001, 5000), (1e-9, 100), (0.02, 500)])
def test_no_random_graph_is_drawn_where_none_would_be_connected(monkeypatch, p, workers):
    monkeypatch.setattr(np.random, "default_rng", None)
    alone = workers * (1 - p) ** (workers - 1)
    expected = pytest.raises(ValueError, match=f"about {alone:.0f} of them would have no link") if alone > 14 else None
    with expected or pytest.raises(TypeError):
        build_graph(f"erdos_renyi:p={p}", workers)


def test_a_chunk_is_never_longer_than_a_hundred_steps(monkeypatch):
    """Whatever the rows: between chunks signals are obeyed and checkpoints kept."""
    asked, before = [], placing.SideBySide.look_ahead

    def look_ahead(self, clock, steps, *more):
        asked.append(steps)
        return before(self, clock, steps, *more)

    monkeypatch.setattr(placing.SideBySide, "look_ahead", look_ahead)
    found = train_policy("full", task_of(), "ring", "constant", optax.sgd(0.1), steps=257, eval_every=251)
    assert [row["step"] for row in found.rows] == [0, 251, 257]
    assert set(asked) == {training.CHUNK} == {100}
    assert len(asked) == 3
