"""The configuration and the words of the command line by themselves: no run is begun here (see `test_command`)."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbwjax import train
from dbwjax.cli import arguments as words
from dbwjax.experiments import config as configs
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.presets import PRESETS
from dbwjax.learners import optimizers
from dbwjax.learners.schedules import SCHEDULES

WORDS_OF_THE_ISSUE = [
    *("--policies", "--dataset", "--data-dir", "--model", "--workers", "--graph", "--delays", "--partition", "--pca"),
    *("--steps", "--batch-size", "--learning-rate", "--optimizer", "--target-accuracy", "--eval-every", "--seed"),
    *("--seconds", "--rows", "--seeds", "--baseline", "--until-target", "--schedule", "--figures"),
    *("--out", "--overwrite", "--list", "--print-config"),
]
OUR_WORDS = [
    "--devices",
    "--distributed",
    "--coordinator",
    "--processes",
    "--process-id",
    "--patience",
    "--dtype",
    "--wide",
    "--timelines",
    "--latency",
    "--bandwidth",
    "--tensorboard",
    "--wandb",
    "--compile-cache",
    "--world",
    "--events",
    "--debug",
    "--checkpoint-every",
    "--no-progress",
    "--config",
    "--help",
]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


def refused(capsys, *typed):
    """The one line on stderr, with exit code 2 and nothing on stdout."""
    assert train.main(list(typed)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.endswith("\n")
    assert said.err.count("\n") == 1
    return said.err


BAD = [
    (["mnist2nn"], "unknown preset 'mnist2nn'; did you mean 'mnist-2nn'?"),
    (["mnist_lrm", "--list"], "did you mean 'mnist-lrm'?"),
    (["quickstart", "--polices", "full"], "unknown option --polices; did you mean '--policies'?"),
    (["--polices=full"], "did you mean '--policies'?"),
    (["--learning-rat", "0.1"], "did you mean '--learning-rate'?"),  # a prefix is no abbreviation
    (["--overwrit"], "did you mean '--overwrite'?"),
    (["--list", "--sede", "1"], "did you mean '--seed'?"),
    (["-s", "1"], "unknown option -s"),
    (["quickstart", "mnist-lrm"], "'mnist-lrm' is one word too many"),
    (["--learning-rate", "abc"], "--learning-rate: abc is not a number"),
    (["--learning-rate", "nan"], "--learning-rate: nan is not a number"),
    (["--learning-rate", ""], "is not a number"),
    (["--workers", "ten"], "--workers: ten is not a whole number"),
    (["--steps", "1e3"], "--steps: 1e3 is not a whole number"),
    (["--seed"], "--seed: expected one argument"),
    (["--list=all"], "--list: ignored explicit argument 'all'"),
    (["--policies", "full", "full"], "policy 'full' is named twice"),
    (["--policies", "full", "--policies", "full"], "policy 'full' is named twice"),
    (["--policies", "full", " full:"], "is named twice"),
    (["--policies", "fastest:k=2,late=drop", "fastest:late=drop, k=2"], "is named twice"),
    (["--policies", "dybw:late"], "write key=value"),
    (["--policies", "fastest:k=2,k=3"], "k= is given twice"),
    (["--policies", ""], "names nothing"),
    (["--policies", "fu\nll"], "unknown policy 'fu ll'; did you mean 'full'?"),
    (["--workers", "0"], "--workers 0 is out of range; use 1 or more"),
    (["--workers", "-3"], "--workers -3"),
    (["--steps", "0"], "--steps 0"),
    (["--batch-size", "0"], "--batch-size 0"),
    (["--steps", "5", "--eval-every", "6"], "--eval-every 6 is out of range; use 1 to steps=5"),
    (["--steps", "5", "--eval-every", "0"], "--eval-every 0 is out of range; use 1 to steps=5"),
    (["--eval-every", "5", "--seconds", "5"], "--eval-every counts the baseline's iterations; use --rows with --sec"),
    (
        ["--steps", "5", "--eval-every", "5", "--rows", "5"],
        "--rows and --eval-every say the same in two ways; give one",
    ),
    (["--steps", "5", "--seconds", "5"], "--seconds and --steps are both given; give one budget"),
    (["--seconds", "0"], "--seconds 0.0 is out of range; use a finite time above 0"),
    (["--seconds", "inf"], "--seconds inf"),
    (["--seconds", "nan"], "--seconds: nan is not a number"),
    (["--rows", "0"], "--rows 0 is out of range; use 1 or more"),
    (["--seeds", "0"], "--seeds 0 is out of range; use 1 or more"),
    (["--seed", "4294967290", "--seeds", "10"], "use seeds up to 4294967295 (this ends at 4294967299)"),
    (["--baseline", "fulll"], "--baseline fulll is not among the policies; did you mean 'full'?"),
    (["--policies", "full", "--baseline", "dybw"], "--baseline dybw is not among the policies"),
    (["--until-targt"], "did you mean '--until-target'?"),
    (["--figures", "jpg"], "--figures jpg: unknown 'jpg'; did you mean 'png'?"),
    (["--figures", ""], "--figures : unknown ''"),
    (["--pca", "0"], "--pca 0"),
    (["--learning-rate", "0"], "--learning-rate 0.0"),
    (["--learning-rate", "-0.1"], "--learning-rate -0.1"),
    (["--learning-rate", "inf"], "--learning-rate inf"),
    (["--learning-rate", "1e-40"], "--learning-rate: 1e-40 is too small for float32"),
    (["--learning-rate", "1e40"], "--learning-rate: 1e40 is too large for float32"),
    (["--target-accuracy", "0"], "--target-accuracy 0.0"),
    (["--target-accuracy", "1.01"], "--target-accuracy 1.01"),
    (["--target-accuracy", "nan"], "--target-accuracy: nan"),
    (["--seed", "-1"], "--seed -1"),
    (["--seed", "4294967296"], "use 0 to 4294967295"),
    (["--latency", "-1"], "--latency -1.0"),
    (["--latency", "inf"], "--latency inf"),
    (["--latency", "1e39"], "--latency: 1e39 is too large for float32"),
    (["--bandwidth", "0"], "--bandwidth 0.0"),
    (["--bandwidth", "nan"], "--bandwidth: nan"),
    (["--checkpoint-every", "0"], "--checkpoint-every 0"),
    (["--out", ""], "--out names no folder"),
    (["mnist-lrm", "--data-dir", ""], "--data-dir names no folder"),
    (["--compile-cache", ""], "--compile-cache names no folder"),
    (["--events", ""], "--events names no file"),
    (["--world", "loss:probability=.1", "loss:probability=.1"], "world 'loss:probability=.1' is named twice"),
    (["--world", "spells:mean"], "write key=value"),
    (["--compile-cache", __file__], "cannot hold compiled programs"),
    (["--compile-cache", os.path.join(__file__, "below")], "cannot hold compiled programs"),
]


@pytest.mark.parametrize(("typed", "expected"), BAD, ids=[" ".join(typed) for typed, _ in BAD])
def test_a_mistake_is_one_line_with_the_remedy(capsys, typed, expected):
    assert expected in refused(capsys, *typed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, math.nan) for name in ("learning_rate", "target_accuracy", "latency", "bandwidth")),
        ("bandwidth", -math.inf),
        ("policies", ()),
        ("seed", 2**32),
        ("pca", -1),
    ],
)
def test_what_only_the_api_can_pass_is_refused_too(field, value):
    with pytest.raises(ValueError, match=field.replace("_", "-")) as caught:
        configs.validate(dataclasses.replace(TrainConfig(seconds=5.0), **{field: value}), RunOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": None, "steps": 1, "eval_every": 1, "workers": 1, "batch_size": 1, "pca": 1, "target_accuracy": 1.0},
        {"seconds": 1e-30, "rows": 1, "seeds": 1, "until_target": True},
        {"seed": 2**32 - 1, "seeds": 1, "latency": 0.0, "bandwidth": math.inf},
        {"seconds": None, "steps": 7, "eval_every": 3},  # the last row is at iteration 7
        {"policies": ("fastest:k=2", "fastest:k=3", "fastest:k=2,late=carry"), "baseline": "fastest:k=2"},
        {"target_accuracy": None},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(change):
    configs.validate(dataclasses.replace(TrainConfig(), **{"seconds": 5.0, **change}), RunOptions(checkpoint_every=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "--seconds and --steps are both missing; give one budget"),
        ({"seconds": 5.0, "target_accuracy": None, "until_target": True}, "--until-target has no target"),
    ],
)
def test_budgets_and_targets_that_are_missing(change, said):
    with pytest.raises(ValueError, match=said):
        configs.validate(dataclasses.replace(TrainConfig(), **change), RunOptions())


def test_a_typed_budget_takes_the_place_of_the_preset_s():
    config, *_ = words.parse(["--steps", "40", "--eval-every", "10"])
    assert (config.seconds, config.steps, config.eval_every) == (None, 40, 10)
    config, *_ = words.parse(["--seconds", "40"])
    assert (config.seconds, config.steps, config.eval_every) == (40.0, None, None)


def test_the_baseline_is_the_last_policy_unless_it_is_named():
    assert words.parse([])[0].over == "full"
    assert words.parse(["--policies", "full", "dybw"])[0].over == "dybw"
    assert words.parse(["--policies", "full", "dybw", "--baseline", "full"])[0].over == "full"


def test_nothing_typed_is_the_quickstart():
    config, options, action = words.parse([])
    assert (config, options, action) == (PRESETS["quickstart"](), RunOptions(), "train")
    assert (config.dataset, config.workers, config.seeds, config.steps) == ("digits", 10, 10, None)
    assert config.policies[0] == "dybw"
    assert config.seconds > 0
    assert str(options.folder(config.preset)) == os.path.join("runs", "quickstart")


def test_only_what_is_typed_is_put_over_the_preset():
    typed = "mnist-2nn --policies full dybw:late=carry --seed 3 --bandwidth 1e6 --out here --no-progress --overwrite"
    config, options, action = words.parse(typed.split())
    changed = {"policies": ("full", "dybw:late=carry"), "seed": 3, "bandwidth": 1e6}
    assert config == dataclasses.replace(PRESETS["mnist-2nn"](), **changed)
    assert options == RunOptions(out="here", progress=False, overwrite=True)
    assert action == "train"


def test_every_field_has_its_word_and_every_word_its_field():
    typed = {
        **{
            "policies": "full",
            "dataset": "mnist",
            "data_dir": "d",
            "model": "cnn",
            "dtype": "bfloat16",
            "wide": "off",
            "timelines": "all",
            "graph": "ring",
            "delays": "pareto",
            "world": "loss:probability=0.1",
            "events": "e.csv",
        },
        **{"partition": "shards", "optimizer": "adam", "out": "o", "compile_cache": "c", "schedule": "step:every=3"},
        **{"workers": 3, "pca": 4, "steps": 50, "batch_size": 6, "eval_every": 7, "seed": 8, "checkpoint_every": 9},
        **{"seeds": 11, "seconds": 2.5, "baseline": "full", "figures": "pdf,svg", "wandb": "mine"},
        **{"learning_rate": 0.25, "target_accuracy": 0.5, "latency": 0.75, "bandwidth": 1.5, "devices": 2},
        **{"coordinator": "h:1", "processes": 2, "process_id": 1, "patience": 5},
    }
    line = [text for name, value in typed.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    flags = ["--overwrite", "--tensorboard", "--no-progress", "--distributed", "--until-target", "--debug"]
    config, options, _ = words.parse([*line, *flags])
    assert words.parse(["--rows", "12"])[0].rows == 12  # which excludes --eval-every
    typed |= {
        "rows": 100,
        "until_target": True,
        "distributed": True,
        "preset": "quickstart",
        "policies": ("full",),
        "world": ("loss:probability=0.1",),
        "debug": True,
        "overwrite": True,
        "tensorboard": True,
        "progress": False,
    }
    assert dataclasses.asdict(config) | dataclasses.asdict(options) == typed


@pytest.mark.parametrize("repeated", ["--policies full --policies dybw", "--policies full dybw"])
def test_policies_may_be_named_together_or_one_by_one(repeated):
    assert words.parse(repeated.split())[0].policies == ("full", "dybw")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole(name):
    config = PRESETS[name]()
    assert config.preset == name
    assert config.policies[0] == "dybw"
    assert config.seconds is not None
    configs.validate(config, RunOptions())
    command = f"python -m dbwjax.train{'' if name == 'quickstart' else ' ' + name}"
    assert f"Command: `{command}" in PRESETS[name].__doc__
    if name != "quickstart":
        dataset, model = name.split("-")
        assert (config.dataset, config.model) == (dataset, model)
        assert (config.workers, config.pca, config.batch_size) == (6, 256, 1024)


def through_json(config):
    return configs.from_json(json.loads(json.dumps(configs.to_json(config), allow_nan=False)))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    assert through_json(PRESETS[name]()) == PRESETS[name]()


@settings(deadline=None, max_examples=60)
@given(
    policies=st.lists(st.text(), min_size=1).map(tuple),
    data_dir=st.none() | st.text(),
    pca=st.none() | st.integers(1),
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    bandwidth=st.floats(min_value=0, exclude_min=True) | st.integers(1),
    target_accuracy=st.none() | st.floats(0, 1),
    seconds=st.none() | st.floats(min_value=0, allow_infinity=False),
    baseline=st.none() | st.text(),
    world=st.lists(st.text()).map(tuple),
    events=st.none() | st.text(),
    until_target=st.booleans(),
)
def test_any_configuration_survives_json_bit_for_bit(**fields):
    config = TrainConfig(**fields)
    assert through_json(config) == config
    assert configs.differences(through_json(config), config) == []


CORRUPT = [
    (lambda content: None, "all"),
    (lambda content: [content], "all"),
    (lambda content: {**content, "colour": 1}, "colour"),
    (lambda content: {name: content[name] for name in content if name != "steps"}, "steps"),
    (lambda content: {**content, "policies": 5}, "policies"),
    (lambda content: {**content, "policies": None}, "policies"),
    (lambda content: {**content, "policies": "dybw"}, "policies"),
    (lambda content: {**content, "policies": ["dybw", 1]}, "policies"),
    (lambda content: {**content, "world": "loss:probability=0.1", "events": 3}, "events, world"),
    (lambda content: {**content, "workers": "10", "seed": 0.5}, "seed, workers"),
    (lambda content: {**content, "steps": True}, "steps"),
    (lambda content: {**content, "until_target": 1}, "until_target"),
    (
        lambda content: {**content, "until_target": "yes", "schedule": None, "rows": None},
        "rows, schedule, until_target",
    ),
    (lambda content: {**content, "seconds": "300"}, "seconds"),
    (lambda content: {**content, "pca": {}}, "pca"),
    (lambda content: {**content, "learning_rate": None}, "learning_rate"),
]


@pytest.mark.parametrize(("damage", "named"), CORRUPT)
def test_a_configuration_that_is_not_one_is_refused(damage, named):
    with pytest.raises(ValueError, match=rf": {named}\)$"):
        configs.from_json(damage(configs.to_json(TrainConfig())))


def test_differences_name_both_values_but_not_where_data_lie():
    old = TrainConfig()
    more = {"seconds": 2.5, "until_target": True, "schedule": "step:every=9"}
    new = dataclasses.replace(old, seed=1, pca=16, bandwidth=1e6, policies=("full",), data_dir="elsewhere", **more)
    assert configs.differences(old, new) == [
        "policies: ['dybw', 'full'] in the run folder, ['full'] now",
        "seconds: None in the run folder, 2.5 now",
        "until_target: False in the run folder, True now",
        "seed: 0 in the run folder, 1 now",
        "bandwidth: None in the run folder, 1000000.0 now",
        "pca: None in the run folder, 16 now",
        "schedule: constant in the run folder, step:every=9 now",
    ]


def test_print_config_is_the_configuration_after_what_was_typed(capsys):
    assert train.main(["mnist-lrm", "--print-config", "--workers", "5", "--policies", "full"]) == 0
    expected = dataclasses.replace(PRESETS["mnist-lrm"](), workers=5, policies=("full",))
    assert configs.from_json(json.loads(capsys.readouterr().out)) == expected


def test_print_config_checks_ranges(capsys):
    assert "--workers 0" in refused(capsys, "--print-config", "--workers", "0")


def test_list_names_everything_with_its_keys(capsys):
    from dbwjax.network.breakage import WORLD
    from dbwjax.network.delays import DELAYS
    from dbwjax.network.graphs import GRAPHS
    from dbwjax.network.weights import WEIGHTS
    from dbwjax.policies import POLICIES
    from dbwjax.tasks import DATASETS, MODELS, PARTITIONS

    assert train.main(["--list"]) == 0
    said = capsys.readouterr().out
    entries = [line.split()[0].split(":")[0] for line in said.splitlines() if line[:2] == "  " and line[2:3] != " "]
    tables = [PRESETS, POLICIES, GRAPHS, DELAYS, WEIGHTS, DATASETS, PARTITIONS, optimizers.OPTIMIZERS, MODELS]
    tables += [SCHEDULES, WORLD]
    assert sorted(entries) == sorted(name for table in tables for name in table)
    for spec in [
        *("fastest:k=INT,", "erdos_renyi:p=0.4", "small_world:degree=4,p=0.1", "from_file:path=", "momentum:beta=0.9"),
        *("shifted_exponential:shift=0.5,rate=1.0", "dirichlet:alpha=", "shards:per_worker=", "late="),
        *("crash:worker=INT,at=FLOAT,patience=5.0", "racks:size=INT,probability=FLOAT,factor=FLOAT\n"),
        *("cosine:steps=INT,alpha=0.0", "warmup_cosine:warmup=INT,steps=INT", "resample=none"),
    ]:
        assert spec in said
    assert "seed=" not in said  # neither the seed nor the learning rate is a setting
    assert "learning_rate=" not in said


def test_help_shows_every_word_the_grammar_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    shown = {line.split()[0].rstrip(",") for line in said.splitlines() if line.startswith("  -")}
    shown = shown - {"-h"} | {"--help"}
    assert shown == {*WORDS_OF_THE_ISSUE, *OUR_WORDS}
    assert "name:key=value,key=value" in said
    assert said.count("python -m dbwjax.train") >= 4  # usage, and examples
    assert all(name in said for name in PRESETS)


def test_examples_in_help_can_be_typed():
    import shlex

    lines = [line.split("dbwjax.train", 1)[1] for line in words._EXAMPLES.splitlines() if "dbwjax.train" in line]
    assert len(lines) == 3
    for line in lines:
        config, options, action = words.parse(shlex.split(line))
        configs.validate(config, options)
        assert action == "train"


@pytest.mark.parametrize("typed", [["--help"], ["--print-config"], ["--seed", "-1"], ["--polices"]])
def test_words_cost_no_jax(typed):
    code = (
        "import sys\nfrom dbwjax import train\n"
        "try: train.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'jax', 'numpy', 'optax'} & set(sys.modules)) * 7)"
    )
    done = subprocess.run([sys.executable, "-c", code, *typed], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", [MemoryError("8 PiB"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 8 PiB\nmore")])
def test_too_large_for_the_memory_is_one_line(capsys, monkeypatch, error):
    from dbwjax.experiments import run

    def too_large(*_):
        raise error

    monkeypatch.setattr(run, "problems", too_large)
    said = refused(capsys)
    assert "8 PiB" in said
    assert "smaller --batch-size" in said


def test_an_error_of_the_program_is_not_hidden(monkeypatch):
    from dbwjax.experiments import run

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "problems", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train.main([])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("optimzer", "unknown optimizer 'optimzer'"),
        ("momntum", "did you mean 'momentum'"),
        ("momentum:bta=0.5", "did you mean 'beta'"),
        ("sgd:beta=0.5", "it has none"),
        ("sgd:learning_rate=0.5", "unknown key 'learning_rate'"),
        ("momentum:beta=-0.1", "use 0 to less than 1"),
        ("momentum:beta=inf", "use 0 to less than 1"),
    ],
)
def test_optimisers_that_cannot_be(spec, expected):
    with pytest.raises(ValueError, match=expected):
        optimizers.build_optimizer(spec, 0.1)


def by_hand(spec, rates, gradients):
    """The three rules in plain NumPy: the parameters of each worker after some steps from zero."""
    x, m, v = (np.zeros_like(gradients[0]) for _ in range(3))
    for t, g in enumerate(gradients, start=1):
        if spec == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            beta = {"sgd": 0.0, "momentum": 0.9, "momentum:beta=0.5": 0.5}[spec]
            u = m = beta * m + g
        x = x - rates[:, None] * u
    return x


@pytest.mark.parametrize("spec", ["sgd", "momentum", "momentum:beta=0.5", "adam"])
def test_optimisers_over_workers_with_a_learning_rate_each(x64, spec):
    """The rate is an array in the state: mapped over workers, each may have its own, in the parameters' precision."""
    rates = np.array([0.1, 0.02, 0.5])
    gradients = np.random.default_rng(0).normal(size=(4, 3, 5))
    optimizer = optimizers.build_optimizer(spec, 0.1)
    params = jnp.zeros((3, 5), jnp.float64)
    state = jax.vmap(optimizer.init)(params)
    assert state.hyperparams["learning_rate"].shape == (3,)
    assert state.hyperparams["learning_rate"].dtype == jnp.float64
    np.testing.assert_array_equal(state.hyperparams["learning_rate"], [0.1] * 3)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    state = state._replace(hyperparams={**state.hyperparams, "learning_rate": jnp.asarray(rates)})
    step = jax.jit(jax.vmap(optimizer.update))
    for gradient in gradients:
        updates, state = step(jnp.asarray(gradient), state, params)
        params = params + updates
    assert params.dtype == jnp.float64
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == shapes  # a fixed point of its shapes
    np.testing.assert_allclose(params, by_hand(spec, rates, gradients), rtol=1e-12)


def test_the_learning_rate_of_float32_parameters_is_float32():
    state = optimizers.build_optimizer("adam", 0.1).init(jnp.zeros(3, jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)} == {
        jnp.dtype("float32")
    }
