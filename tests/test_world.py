"""What a world that breaks is told: its laws against closed forms and plain NumPy, its events as arrays, and what both
are refused for. What the engine makes of events is in `test_world_end_to_end.py`."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dbwjax import (
    build_delays,
    build_graph,
    compare_cells,
    compare_clocks,
    from_arrays,
    train_policy,
)
from dbwjax.cli import arguments, sweep
from dbwjax.cli import train as command
from dbwjax.engine import batch
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments import config as configs
from dbwjax.experiments.commands import command_of
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.drawn import Broken, problem_of
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.experiments.sweep.config import worlds
from dbwjax.network import breakage, draws, times, world_laws
from dbwjax.network.absences import padded
from dbwjax.network.breakage import broken, build_events
from dbwjax.policies import POLICIES

KEY = jax.random.key(7)
WORKERS, DRAWS = 8, 4000
N = WORKERS * DRAWS


def draw(model, workers=WORKERS, computations=DRAWS, key=KEY):
    """`[workers, computations]` of a pure function of (key, worker, started)."""
    each = jax.vmap(jax.vmap(model, (None, None, 0)), (None, 0, None))
    return np.asarray(jax.jit(each)(key, jnp.arange(workers), jnp.arange(computations)))


def seconds(world, delays="constant", workers=WORKERS, computations=DRAWS):
    return draw(broken(build_delays(delays, workers), world, workers), workers, computations).astype(np.float64)


def near(found, expected, deviation, count):
    """A mean of so many independent draws."""
    assert abs(found - expected) < 4 * deviation / math.sqrt(count)


# Laws


@pytest.mark.parametrize("shape", [1.0, 4.0, 16.0])
def test_a_gamma_draw_has_its_moments_and_its_law(shape):
    drawn = draw(lambda key, worker, started: draws.gamma(key, worker, started, jnp.float32(shape)), 10, 10_000)
    drawn = drawn.astype(np.float64).ravel()
    near(drawn.mean(), 1, shape**-0.5, drawn.size)
    # The variance of a sample's variance: sigma^4 (kurtosis - 1) / n, and a gamma's kurtosis is 3 + 6 / shape.
    near(drawn.var(), 1 / shape, math.sqrt(2 + 6 / shape) / shape, drawn.size)
    assert abs(stats.skew(drawn) - 2 / math.sqrt(shape)) < 0.06
    assert stats.kstest(drawn, stats.gamma(shape, scale=1 / shape).cdf).pvalue > 1e-3
    span = times.of_spells(1.0, shape)
    assert span.least < drawn.min() < drawn.max() < span.most


def test_a_gamma_draw_in_float64(x64):
    drawn = draw(lambda key, worker, started: draws.gamma(key, worker, started, jnp.float64(2.5)), 10, 10_000).ravel()
    assert drawn.dtype == np.float64
    near(drawn.mean(), 1, 2.5**-0.5, drawn.size)
    assert stats.kstest(drawn, stats.gamma(2.5, scale=1 / 2.5).cdf).pvalue > 1e-3


def begun_forwards(key, worker, chance, levels, count):
    """Which computations begin a spell, every one looked at: the tree of blocks unfolded from above, in NumPy."""

    def u(level, block):
        return float(draws.uniform(key, worker, jnp.uint32(2 ** (31 - level) + block), jnp.float32))

    def none(level):
        return (1 - chance) ** (2.0**level)

    def unfold(level, block):
        if level == 0:
            return {block}
        both = u(level - 1, 2 * block + 1) * (1 + none(level - 1)) / none(level - 1)  # 0 to 1: left, 1 to 2: right
        found = set()
        if both < 1 or both >= 2:
            found |= unfold(level - 1, 2 * block)
        if both >= 1:
            found |= unfold(level - 1, 2 * block + 1)
        return found

    begun = {0}
    for block in range(-(-count // 2**levels)):
        if u(levels, block) >= none(levels):
            begun |= unfold(levels, block)
    return [max(one for one in begun if one <= n) for n in range(count)]


@pytest.mark.parametrize(("mean", "count"), [(1, 12), (2, 60), (20, 150), (300, 80)])
def test_the_walk_back_finds_the_spell_that_is_found_forwards(mean, count):
    levels = math.ceil(math.log2(mean))
    law = lambda key, worker, started: world_laws.spell_of(  # noqa: E731
        jnp.float32(1 / mean), jnp.int32(levels), key, worker, started
    )
    found = draw(law, 2, count)
    for worker in range(2):
        assert found[worker].tolist() == begun_forwards(KEY, worker, 1 / mean, levels, count)


def test_spells_are_geometric_and_independent():
    mean = 20
    law = lambda key, worker, started: world_laws.spell_of(  # noqa: E731
        jnp.float32(1 / mean), jnp.int32(5), key, worker, started
    )
    begins = draw(law, 16, 10_000) == np.arange(10_000)
    fresh = begins[:, 1:]
    near(fresh.mean(), 1 / mean, math.sqrt((1 - 1 / mean) / mean), fresh.size)
    lengths = np.concatenate([np.diff(np.flatnonzero(own)) for own in begins])
    expected = stats.geom(1 / mean).pmf(np.arange(1, 60)) * len(lengths)
    seen = np.bincount(lengths, minlength=60)[1:60]
    rest = len(lengths) - seen.sum(), len(lengths) - expected.sum()
    assert stats.chisquare([*seen, rest[0]], [*expected, rest[1]]).pvalue > 1e-3
    for one, other in ((fresh[:, 1:], fresh[:, :-1]), (fresh[1:], fresh[:-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(one.size)


def test_levels_of_spells_are_log_uniform_and_stay():
    mean, factor, shape = 10, 5.0, 1e6  # of so large a shape the gamma variable is 1 within 0.5 %
    found = np.log(seconds([f"spells:mean={mean},factor={factor},shape={shape}"]))
    law = lambda key, worker, started: world_laws.spell_of(  # noqa: E731
        jnp.float32(1 / mean), jnp.int32(4), jax.random.fold_in(key, world_laws._STREAM + 1), worker, started
    )
    begun = draw(law)
    same = begun[:, 1:] == begun[:, :-1]
    assert np.abs(np.diff(found))[same].max() < 0.01
    levels = found[:, 1:][~same] / math.log(factor)  # the first of each spell
    assert stats.kstest(levels, stats.uniform(-0.001, 1.002).cdf).pvalue > 1e-3
    # Of all: the mean of a level is (factor - 1) / log(factor); spells of 10 computations make about N / 19 of them.
    all_of = seconds([f"spells:mean={mean},factor={factor},shape=4"])
    level = (factor - 1) / math.log(factor)
    second = (factor**2 - 1) / (2 * math.log(factor))
    near(all_of.mean(), level, math.sqrt(second * 1.25 - level**2), N / (2 * mean - 1))


@pytest.mark.parametrize(("rate", "lost", "delays"), [(0.5, 2.0, "constant"), (1.5, 0.0, "constant:seconds=2")])
def test_outages_cost_what_the_closed_form_says(rate, lost, delays):
    own = seconds([], delays)[0, 0]
    found = seconds([f"outage:rate={rate},seconds={lost}"], delays)
    mean = math.expm1(rate * own) * (1 / rate + lost)
    near(found.mean(), mean, found.std(), N)
    near((found == own).mean(), math.exp(-rate * own), 0.5, N)
    rng, expected = np.random.default_rng(0), []
    for _ in range(20_000):
        total = 0.0
        while (worked := rng.exponential(1 / rate)) < own:
            total += worked + lost
        expected.append(total + own)
    assert stats.ks_2samp(found.ravel(), expected).pvalue > 1e-3
    for a, b in ((found[:, 1:], found[:, :-1]), (found[1:], found[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.04


def test_an_outage_does_the_same_computation_again():
    """What is done again takes as long as at first: the same draw."""
    own, found = seconds([], "uniform"), seconds(["outage:rate=0.3,seconds=100"], "uniform")
    kills = np.floor(found / 100)
    np.testing.assert_allclose(found[kills == 0], own[kills == 0], rtol=1e-6)
    once = found[kills == 1] - 100 - own[kills == 1]  # the time worked before the kill, less than the whole
    assert (once > -1e-4).all()
    assert (once < own[kills == 1] + 1e-4).all()
    near(kills.mean(), np.mean(np.expm1(0.3 * own)), kills.std(), N)


def test_racks_are_slow_together():
    size, p, factor, sigma = 3, 0.2, 5.0, 0.5
    found = seconds([f"racks:size={size},probability={p},factor={factor}"], f"lognormal:median=1,sigma={sigma}")
    rack, rack_square = 1 + p * (factor - 1), 1 + p * (factor**2 - 1)
    own, own_square = math.exp(sigma**2 / 2), math.exp(2 * sigma**2)
    near(found.mean(), rack * own, found.std(), N / size)
    expected = own**2 * (rack_square - rack**2) / (rack_square * own_square - (rack * own) ** 2)
    seen = np.corrcoef(found)
    same = np.arange(WORKERS)[:, None] // size == np.arange(WORKERS) // size
    apart = ~np.eye(WORKERS, dtype=bool)
    assert np.abs(seen[same & apart] - expected).max() < 0.06
    assert np.abs(seen[~same]).max() < 4 / math.sqrt(DRAWS)
    plain = seconds([f"racks:size={size},probability={p},factor={factor}"])
    assert set(np.unique(plain)) == {1.0, factor}
    for rack_of in (plain[0:3], plain[3:6], plain[6:8]):  # the last one is smaller
        assert (rack_of == rack_of[0]).all()
    two = seconds(["racks:size=3,probability=0.2,factor=5", "racks:size=8,probability=0.1,factor=2"])
    assert set(np.unique(two)) == {1.0, 2.0, 5.0, 10.0}
    np.testing.assert_array_equal(two >= 5, plain == 5)
    assert ((two == 2) | (two == 10)).all(axis=0).mean() == pytest.approx(0.1, abs=0.02)


EVERY = ["outage:rate=0.1,seconds=1", "racks:size=3,probability=0.2,factor=3", "spells:mean=6,factor=4"]


@pytest.mark.parametrize("world", [*([one] for one in EVERY), EVERY], ids=["outage", "racks", "spells", "all"])
def test_a_law_is_a_function_of_its_arguments(world):
    law = broken(build_delays("uniform", 4), world, 4)
    table = draw(law, 4, 40)
    alone = jax.jit(law)
    for worker, started in ((3, 39), (0, 0), (1, 17), (3, 2)):
        assert float(alone(KEY, worker, started)) == pytest.approx(table[worker, started], rel=1e-6)
    assert (draw(law, 4, 40, jax.random.key(8)) != table).any()
    one = draw(broken(build_delays("uniform", 1), [word.replace("size=3", "size=1") for word in world], 1), 1, 40)
    assert (one > 0).all()


def test_what_one_law_draws_does_not_depend_on_the_others():
    racks, spells = (np.log(seconds([word], computations=200)) for word in EVERY[1:])
    np.testing.assert_allclose(np.log(seconds(EVERY[2:0:-1], computations=200)), racks + spells, atol=1e-5)
    assert np.corrcoef(racks.ravel(), spells.ravel())[0, 1] == pytest.approx(0, abs=0.1)
    law = build_delays("pareto*uniform", 4)
    assert broken(law, [], 4) is law
    assert broken(law, ["loss:probability=0.5", "crash:worker=1,at=2"], 4) is law
    np.testing.assert_array_equal(
        seconds(["racks:size=2,probability=0,factor=9"], "pareto*uniform"), seconds([], "pareto*uniform")
    )


def test_numbers_of_a_law_share_a_program():
    def law(rate, size, probability, mean):
        racks, spells = f"racks:size={size},probability={probability},factor=2", f"spells:mean={mean},factor=3"
        return broken(build_delays("uniform", 4), [f"outage:rate={rate},seconds=1", racks, spells], 4)

    laws = [law(0.1, 1, 0.5, 3), law(0.2, 4, 0.1, 700)]
    every = batch.stack(laws)
    found = jax.jit(jax.vmap(lambda law: law(KEY, 1, 3), (every.axes,)))(every.tree)
    np.testing.assert_allclose(found, [float(jax.jit(law)(KEY, 1, 3)) for law in laws], rtol=1e-6)


def test_laws_in_float64(x64):
    found = draw(broken(build_delays("uniform", 4), EVERY, 4), 4, 50)
    assert found.dtype == np.float64
    assert len(np.unique(found)) == found.size


def test_each_clone_has_a_world_of_its_own():
    law = broken(build_delays("cloned:copies=2*constant", WORKERS), ["racks:size=1,probability=0.5,factor=5"], WORKERS)
    assert law.copies == 2
    assert (draw(law) == 5).mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("delays", "world", "sure"),
    [
        ("uniform", EVERY, True),
        ("constant:seconds=1e38", ["racks:size=1,probability=0.5,factor=3"], True),
        ("lognormal:median=1,sigma=1", ["spells:mean=9,factor=1e37"], False),
        ("constant:seconds=1e30", ["outage:rate=1e-31,seconds=3e38"], False),
        ("uniform:low=0,high=1e-30", ["racks:size=1,probability=0.5,factor=1e-7"], False),
    ],
)
def test_what_never_leaves_float32_is_sure(delays, world, sure):
    law = broken(build_delays(delays, 4), world, 4)
    assert law.sure == sure
    drawn = np.asarray(draw(law, 4, 300))
    held = (drawn == 0) | ((drawn > 1e-38) & (drawn < 3.4e38))
    assert held.all() or not sure


def test_a_time_that_is_too_small_is_no_time():
    law = broken(build_delays("uniform:low=0,high=1e-33", 4), ["racks:size=1,probability=1,factor=1e-4"], 4)
    drawn = draw(law, 4, 500)
    assert np.isnan(times.checked(law, jnp.asarray(drawn))).any()
    with pytest.raises(ValueError, match="too small for float32"):
        broken(build_delays("constant:seconds=1e-30", 4), ["racks:size=1,probability=1,factor=1e-20"], 4)


def test_models_in_python_break_too():
    def model(key, worker, started):
        return jnp.where(worker == 1, jnp.inf, 1)

    found = draw(broken(model, ["outage:rate=0.5,seconds=2"], 2), 2, 3000).astype(np.float64)
    assert np.isinf(found[1]).all()  # which says that it never ends
    near(found[0].mean(), math.expm1(0.5) * 4, found[0].std(), 3000)
    whole = draw(broken(lambda key, worker, started: 2, ["racks:size=1,probability=1,factor=1.5"], 2), 2, 3)
    assert (whole == 3).all()
    hopeless = broken(lambda key, worker, started: 1000.0 + 0 * worker, ["outage:rate=0.5,seconds=2"], 2)
    with pytest.raises(RuntimeError, match="worker 0"):
        trained("full", hopeless)


# Refusals

CRASHES = [f"crash:worker={i},at={i}" for i in range(4)]
BAD = [
    (["crsh:worker=1,at=2"], "unknown world 'crsh'; did you mean 'crash'?"),
    (["crash:worker=1"], "needs at=; write crash:worker=INT,at=FLOAT,patience=5.0"),
    (["crash:worker=4,at=2"], "worker=4 is not one of 4 workers; use 0 to 3"),
    (["crash:worker=-1,at=2"], "worker=-1 is not one of 4 workers"),
    (["crash:worker=1,at=-2"], "at=-2 is out of range"),
    (["crash:worker=1,at=inf"], "at=inf is out of range"),
    (["crash:worker=1,at=nan"], "at=nan is not a number"),
    (["crash:worker=1,at=2,patience=-1"], "patience=-1 is out of range"),
    (["crash:worker=1,at=2", "crash:worker=1,at=5"], "at 5 s worker 1 is away already, from 2 s for ever"),
    (CRASHES, "from 3 s on all 4 workers are away"),
    (["outage:rate=0,seconds=1"], "rate=0 is out of range"),
    (["outage:rate=1,seconds=-1"], "seconds=-1 is out of range"),
    (["outage:rate=20,seconds=1"], "a computation of 1 s, the longest that its law draws, would be killed 4.85e+08"),
    (["outage:rate=1,seconds=1,occurrence=1"], "unknown key 'occurrence'"),
    (["outage:rate=.1,seconds=1", "outage:rate=.2,seconds=1"], "outage is given twice; keep one"),
    (["loss:probability=1"], "probability=1 is out of range"),
    (["loss:probability=0.99999999"], "is out of range"),
    (["loss:probability=-0.1"], "probability=-0.1 is out of range"),
    (["loss:probability=1e-9"], "is finer than a draw"),
    (["loss:probability=.1", "loss:probability=.2"], "loss is given twice; keep one"),
    (["partition:at=5,until=5"], "at=5, until=5: it heals before it begins"),
    (["partition:at=5,until=4"], "it heals before it begins"),
    (["partition:at=1,until=2,groups=5"], "groups=5 is out of range; use 2 to 4"),
    (["partition:at=1,until=2,groups=1"], "groups=1 is out of range; use 2 to 4"),
    (["racks:size=0,probability=.1,factor=2"], "size=0: a rack has no members; use 1 to 4"),
    (["racks:size=5,probability=.1,factor=2"], "size=5: a rack is more than the 4 workers; use 1 to 4"),
    (["racks:size=2,probability=1.5,factor=2"], "probability=1.5 is out of range"),
    (["racks:size=2,probability=.5,factor=0"], "factor=0 is out of range"),
    (["racks:size=2,probability=.5,factor=2", "racks:factor=2.0,size=2,probability=.5"], "is named twice"),
    (["spells:mean=0.5,factor=2"], "mean=0.5 is out of range; use 1 to 100000 computations"),
    (["spells:mean=5,factor=0.5"], "factor=0.5 is out of range; use 1 or more"),
    (["spells:mean=5,factor=inf"], "factor=inf is out of range"),
    (["spells:mean=5,factor=2,shape=0.5"], "shape=0.5 is out of range"),
]  # fmt: skip


@pytest.mark.parametrize(("world", "said"), BAD, ids=[" ".join(world) for world, _ in BAD])
def test_a_world_that_cannot_be_is_one_line(world, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        _ = broken(build_delays("constant", 4), world, 4), build_events(world, 4)
    assert "\n" not in str(caught.value)


def test_what_is_no_world_is_one_line():
    for world, said in ((3, "3 is no SPEC"), ([3], "3 is no SPEC"), (None, "None is no SPEC")):
        with pytest.raises(ValueError, match=said):
            build_events(world, 4)
    with pytest.raises(ValueError, match="1 worker cannot be cut"):
        build_events(["partition:at=1,until=2"], 1)
    with pytest.raises(ValueError, match="all 1 workers are away"):
        build_events(["crash:worker=0,at=2"], 1)
    with pytest.raises(ValueError, match="events=7 names no file"):
        build_events([], 4, 7)
    np.testing.assert_array_equal(build_events("crash:worker=0,at=2", 2).away_from, [[2], [math.inf]])


def test_outages_of_a_long_tail_are_refused_with_the_rate_that_is_not():
    with pytest.raises(ValueError, match="use a rate up to") as caught:
        broken(build_delays("pareto:alpha=2", 4), ["outage:rate=0.1,seconds=1"], 4)
    rate = re.search(r"use a rate up to (\S+),", str(caught.value))[1]
    law = broken(build_delays("pareto:alpha=2", 4), [f"outage:rate={float(rate) * 0.95},seconds=1"], 4)
    assert np.isfinite(draw(law, 4, 500)).all()


# Events


def test_events_are_arrays():
    assert build_events([], 4) is None
    assert build_events(EVERY, 4) is None
    assert build_events(["loss:probability=0"], 4) is None
    found = build_events(
        ["crash:worker=2,at=20", "partition:at=5,until=9", "crash:worker=0,at=1.5,patience=0",
         "partition:at=7,until=inf,groups=3", "loss:probability=0.25"], 5
    )  # fmt: skip
    inf = math.inf
    np.testing.assert_array_equal(found.away_from, [[1.5], [inf], [20], [inf], [inf]])
    np.testing.assert_array_equal(found.away_until, np.full((5, 1), inf))
    np.testing.assert_array_equal(found.patience, [[0], [0], [5], [0], [0]])
    np.testing.assert_array_equal(found.cut_from, [5, 7])
    np.testing.assert_array_equal(found.cut_until, [9, inf])
    np.testing.assert_array_equal(found.side, [[0, 0, 0, 1, 1], [0, 0, 1, 1, 2]])
    assert float(found.loss) == 0.25
    assert {str(leaf.dtype) for leaf in found} == {"float32", "int32"}
    only = build_events(["loss:probability=0.5"], 3)  # an absence and a partition that never are
    assert (only.away_from.shape, only.cut_from.shape, only.side.shape) == ((3, 1), (1,), (1, 3))
    assert np.isinf(only.away_from).all()
    assert np.isinf(only.cut_from).all()


def test_events_of_several_worlds_stack():
    cuts = build_events(["partition:at=1,until=2", "partition:at=3,until=4"], 3)
    one, none, two = padded([build_events(["crash:worker=1,at=3"], 3), None, cuts])
    assert none is None
    found = batch.stack([one, two])
    assert found.tree.side.shape == (2, 2, 3)
    np.testing.assert_array_equal(found.tree.cut_from, [[math.inf, math.inf], [1, 3]])
    np.testing.assert_array_equal(found.tree.away_from[:, :, 0], [[math.inf, 3, math.inf], [math.inf] * 3])


WORLD = ("crash:worker=3,at=20", "racks:size=2,probability=0.5,factor=4")
CONFIG = TrainConfig(
    policies=("full",), workers=4, graph="ring", delays="constant", seeds=3, seconds=30.0, world=WORLD,
    dataset="quadratic:dimension=2",
)  # fmt: skip


def test_a_configuration_carries_them_to_the_worlds():
    (problem,) = problems(of_seeds(CONFIG), clocks_only=True)
    events = problem.worlds.tree.events
    np.testing.assert_array_equal(events.away_from, [[math.inf], [math.inf], [math.inf], [20]])
    assert problem.worlds.axes.events.away_from is None  # the same in all worlds: there once
    assert set(np.unique(draw(problem.worlds.tree.delays, 4, 50))) == {1.0, 4.0}
    assert problems(of_seeds(dataclasses.replace(CONFIG, world=())), True)[0].worlds.tree.events is None
    again = configs.from_json(json.loads(json.dumps(configs.to_json(CONFIG))))
    assert again == CONFIG
    command, reads = command_of(dataclasses.replace(CONFIG, preset="quickstart"))
    assert not reads
    assert "--world crash:worker=3,at=20 racks:size=2,probability=0.5,factor=4" in command
    changed = dataclasses.replace(CONFIG, world=WORLD[:1], events="other.csv")
    assert configs.differences(CONFIG, changed) == [
        f"world: {list(WORLD)} in the run folder, {list(WORLD[:1])} now",
        "events: None in the run folder, other.csv now",
    ]


def test_python_carries_them_to_the_worlds():
    problem = problem_of({"full": "full"}, task(), "ring", "constant", optax.sgd(0.1), [0, 1], 4, breaks=Broken(WORLD))
    np.testing.assert_array_equal(problem.worlds.tree.events.away_from, [[math.inf], [math.inf], [math.inf], [20]])
    ours = compare_clocks("full", "ring", "constant", workers=4, seconds=30.0, seeds=2, world=WORLD[1])
    (problem,) = problems(of_seeds(dataclasses.replace(CONFIG, seeds=2, world=WORLD[1:])), clocks_only=True)
    assert [one["hashes"]["timing"] for one in ours.worlds] == [
        one["hashes"]["timing"] for one in fingerprints(problem)
    ]


def test_worlds_that_break_otherwise_do_not_count_as_one():
    def hashes(world):
        (problem,) = problems(of_seeds(dataclasses.replace(CONFIG, seeds=1, world=world)), clocks_only=True)
        return fingerprints(problem)[0]["hashes"]

    calm, crash, later = hashes(()), hashes(("crash:worker=3,at=20",)), hashes(("crash:worker=3,at=21",))
    assert calm["delays"] == crash["delays"] == later["delays"]
    assert calm["graph"] == crash["graph"]
    assert len({calm["timing"], crash["timing"], later["timing"]}) == 3
    assert len({calm["learning"], crash["learning"], later["learning"]}) == 3


def test_what_breaks_is_said_in_words():
    said = breakage.said(WORLD, "e.csv")
    assert said[0] == (
        WORLD[0],
        "A worker is gone for ever from `at` seconds on; the others know `patience` seconds later.",
    )
    assert [word for word, _ in said] == [*WORLD, "e.csv"]


# Runs


def task():
    data = {"x": np.ones((60, 2), np.float32), "y": np.ones(60, np.float32)}
    loss = lambda params, batch: jnp.mean((batch["x"] @ params - batch["y"]) ** 2)  # noqa: E731
    return from_arrays(loss, lambda key: jnp.zeros(2), data, workers=4, batch_size=4)


def trained(policy, delays, **given):
    return train_policy(policy, task(), build_graph("ring", 4), delays, "sgd", **{"steps": 40, "rows": 2, **given})


def test_an_iteration_waits_for_the_slowest_rack():
    """All wait for all: an iteration takes `factor` where any of the racks is slow."""
    p, factor, count = 0.3, 5.0, 2
    words = f"racks:size=2,probability={p},factor={factor}"
    found = compare_clocks("full", "ring", "constant", workers=4, steps=4000, seeds=1, world=[words])
    mean = 1 + (factor - 1) * (1 - (1 - p) ** count)
    near(found.rows[0]["iteration_length"], mean, factor - 1, 4000)


def test_an_iteration_takes_the_longest_of_the_law_s_draws():
    found = trained("full", "uniform", world=EVERY, seed=3)
    drawn = draw(broken(build_delays("uniform", 4), EVERY, 4), 4, 40, stream(jax.random.key(3), Stream.DELAYS))
    np.testing.assert_allclose(found.duration[:40], drawn.max(axis=0), rtol=1e-6)


def test_cells_of_worlds_that_break_otherwise():
    words = {"slow": ["racks:size=4,probability=1,factor=3"], "slower": ["racks:size=4,probability=1,factor=5"]}
    given = {"graph": "ring", "delays": "constant", "steps": 4, "rows": 1, "seeds": 1, "workers": 4}
    cells = compare_cells(["full"], {"world": words}, task=task(), **given)
    lengths = {row["breaks"]: row["iteration_length"] for row in cells.rows if row["row"] == 1}
    assert lengths == {"slow": 3, "slower": 5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--world", *CRASHES, "--workers", "4"], "from 3 s on all 4 workers are away"),
        (["--world", "loss:probability=1"], "probability=1 is out of range"),
        (["--world", "racks:size=0,probability=.1,factor=2"], "a rack has no members"),
        (["--world", "outage:rate=9,seconds=1"], "world 'outage:rate=9,seconds=1': rate=9: a computation of"),
        (["--events", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert command.main([*words, "--dataset", "quadratic", "--graph", "complete"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert said in told.err
    assert not list(tmp_path.iterdir())


def test_a_sweep_has_the_base_s_world():
    config, *_ = sweep.parse(["--world", *WORLD, "--workers", "4", "--graphs", "ring", "complete", "--seconds", "9"])
    assert {one.config.world for one in worlds(config)} == {WORLD}
    with pytest.raises(ValueError, match="--set world has an option of its own"):
        sweep.parse(["--set", "world=loss:probability=0.1"])
    assert arguments.parse(["--world", "a", "--world", "b", "c"])[0].world == ("a", "b", "c")


# --debug


def test_every_mixing_matrix_is_looked_at(tmp_path, capsys, monkeypatch):
    """In the run itself, of the method's own promise."""
    words = ["--policies", "dybw", "server", "--world", *WORLD[1:], "--workers", "4", "--seeds", "1", "--seconds", "9"]
    words += ["--dataset", "quadratic:dimension=3", "--debug", "--no-progress", "--out"]
    assert command.main([*words, str(tmp_path / "sound")]) == 0
    method = POLICIES["dybw"]

    def lame(**settings):
        policy = method.build(**settings)

        def decide(*given):
            plan, state = policy.decide(*given)
            return plan._replace(mix=plan.mix.at[2, 1].add(0.5)), state

        return policy._replace(decide=decide)

    monkeypatch.setitem(POLICIES, "dybw", method._replace(build=lame))
    assert command.main([*words, str(tmp_path / "lame")]) == 3
    assert "policy 'dybw': step 0: row 2 of the mixing sums to" in capsys.readouterr().err
