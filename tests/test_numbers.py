"""Numbers that the machine cannot hold, and random parts of one SPEC: each kind as a table, one row a case."""

from __future__ import annotations

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from dbwjax import (
    build_delays,
    build_graph,
    build_optimizer,
    build_policy,
    build_task,
    compare,
    from_arrays,
    numbers,
    sweep,
    train,
    train_policy,
)
from dbwjax.experiments.timing import NotATime, Standstill
from dbwjax.network import draws, graphs, times
from dbwjax.policies.rules import deadline
from dbwjax.tasks.partition import partition
from dbwjax.tasks.synthetic import quadratic

KEY = jax.random.key(0)
TINY = ["--dataset", "quadratic:dimension=3", "--workers", "4", "--graph", "ring", "--policies", "full"]
CLOCKS = ["--workers", "4", "--graph", "ring", "--policies", "full", "--seconds", "5", "--seeds", "1", "--no-progress"]
TINY += ["--seconds", "5", "--rows", "2", "--seeds", "1", "--no-progress"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


REALS = {
    "0": 0,
    "-0.0": 0,
    "1.5": 1.5,
    ".5": 0.5,
    "2.": 2,
    "+1e-3": 1e-3,
    "1E5": 1e5,
    "inf": np.inf,
    "-Infinity": -np.inf,
}
NO_REALS = ["", "x", "1_000", "1,5", "0x10", "٣", "1e", "--1", "1 2", "nan", "-nan", "e5", "."]
NOT_HELD = ["1e-46", "-1e-46", "1e39", "-1e39", "1e400", "1e-400", "0.0001e-400", "9" * 400, "1.1e-38", "3.5e38"]


def test_texts_of_numbers():
    for text, value in REALS.items():
        assert numbers.real(text) == value
    for text in NO_REALS:
        with pytest.raises(ValueError, match="^is not a number"):
            numbers.real(text)
    for text in NOT_HELD:
        with pytest.raises(ValueError, match="^is too (small|large) for float32; use 0, or a magnitude of 1.2e-38 to"):
            numbers.real(text)
    for text in ("1.2e-38", "3.4e38", "-3.4e38", "0e999"):
        assert np.float32(numbers.real(text)) == np.float32(float(text))


@pytest.mark.parametrize("text", [str(10**20), str(-(10**20)), "2147483648", "9" * 5000, "1_0", "1.0", "٣", "", "1e3"])
def test_texts_that_are_no_whole_numbers(text):
    with pytest.raises(ValueError, match="^is (not a whole number|too large; use a whole number up to 2147483647)"):
        numbers.whole(text)
    assert numbers.whole("0" * 50 + "2147483647") == 2**31 - 1


def _delays(spec):
    return lambda: build_delays(spec, 4)


def _rate(spec, rate, schedule="constant"):
    return lambda: build_optimizer(spec, rate, schedule)


REFUSED = [
    # Text becomes a number.
    (_delays("constant:seconds=1e-46"), "seconds=1e-46 is too small for float32"),
    (_delays("constant:seconds=1e39"), "seconds=1e39 is too large for float32"),
    (_delays("constant:seconds=1e-400"), "seconds=1e-400 is too small"),
    (_delays("uniform:low=1e-46,high=1"), "low=1e-46 is too small"),
    (_delays("markov:p_slow=1e-300"), "p_slow=1e-300 is too small"),
    (_delays("slow_workers:fraction=1e-300"), "fraction=1e-300 is too small"),
    (lambda: build_policy("deadline:seconds=1e-46"), "seconds=1e-46 is too small"),
    (lambda: build_policy(f"fastest:k={10**20}"), f"k={10**20} is too large"),
    (lambda: build_policy(f"backup:b={10**20}"), f"b={10**20} is too large"),
    (lambda: build_graph(f"torus:rows={10**20}", 4), "is too large"),
    (lambda: build_task("quadratic:noise=1e39", workers=2), "noise=1e39 is too large"),
    (lambda: build_task("quadratic:dimension=99999999999", workers=2), "dimension=99999999999 is too large"),
    (lambda: build_task("quadratic", workers=2, partition="dirichlet:alpha=1e-300"), "is synthetic"),
    (lambda: partition("dirichlet:alpha=1e-300", np.arange(9) % 3, 2), "alpha=1e-300 is too small"),
    # Probabilities that draws of 23 bits cannot resolve.
    (_delays("markov:p_slow=1e-10"), "p_slow=1e-10 is finer than a draw; use 0, or 1.2e-07 to 1"),
    (_delays("markov:p_recover=1e-9"), "p_recover=1e-09 is finer than a draw"),
    (_delays("random_slow:probability=1e-8"), "probability=1e-08 is finer than a draw"),
    # What follows from a law's settings.
    (_delays("shifted_exponential:rate=1e38"), "rate=1e+38: 1 / rate=1e-38 is too small"),
    (_delays("shifted_exponential:shift=3e38,rate=2e-38"), "make times of 3.5e+38 seconds, too large"),
    # Products of what is fixed, and of their first factors.
    (_delays("constant:seconds=1e30*constant:seconds=1e30"), "make times of 1e+60 seconds, too large for float32"),
    (_delays("constant:seconds=1e-30*constant:seconds=1e-30"), "make times of 1e-60 seconds, too small for float32"),
    (_delays("constant:seconds=1e30*constant:seconds=1e30*constant:seconds=1e-30"), "1e+60 seconds"),
    (_delays("uniform:low=0,high=1e-30*constant:seconds=1e-30"), "1e-60 seconds"),
    (_delays("lognormal:median=1e30*constant:seconds=1e30"), "1e+60 seconds"),
    (_delays("pareto:scale=1e30*constant:seconds=1e30"), "1e+60 seconds"),
    (_delays("random_slow:factor=1e30*constant:seconds=1e30"), "1e+60 seconds"),
    (_delays("slow_workers:fraction=0.5,factor=1e-30*slow_workers:fraction=0.5,factor=1e-30"), "1e-60 seconds"),
    (_delays("*".join(["constant:seconds=1e10"] * 5)), "1e+40 seconds"),
    # Times of messages.
    (lambda: graphs.with_links(graphs.ring(4), bandwidth=2e-38, message_bytes=12), "bandwidth=2e-38, message_bytes=12"),
    (lambda: graphs.with_links(graphs.ring(4), bandwidth=3e38, message_bytes=1), "3.33333e-39 is too small"),
    (lambda: graphs.with_links(graphs.ring(4), latency=1e-46), "latency=1e-46 is too small"),
    (lambda: graphs.with_links(graphs.ring(4), latency=1e39), "latency=1e+39 is too large"),
    (
        lambda: graphs.with_links(graphs.ring(4), latency=3e38, bandwidth=1.0, message_bytes=3e38),
        "latency from node 1 to node 0=6e+38 is too large",
    ),
    (lambda: build_policy("dybw:flood_latency=3e38").init(graphs.path(9)), "flood_latency times the hops=1.2e+39"),
    # Rates, and what schedules make of them.
    (_rate("sgd", 1e-46), "learning_rate=1e-46 is too small"),
    (_rate("sgd", np.inf), "learning_rate=inf is too large"),
    (_rate("sgd", np.nan), "learning_rate=nan is not a number"),
    (_rate("sgd", 1e-20, "warmup:steps=3,start=1e-20"), "1e-20 times learning_rate=1e-20=1e-40 is too small"),
    (_rate("sgd", 1e30, "step:every=3,factor=1e10"), "1e+10 times learning_rate=1e+30=1e+40 is too large"),
    (_rate("sgd", 0.1, "step:every=3,factor=1e-20*cosine:steps=5,alpha=1e-20"), "1e-41 is too small"),
    (_rate("momentum:beta=0.99999999999", 0.1), "beta=0.99999999999 is 1 in float32"),
    # Python, without a text.
    (lambda: deadline(1e-46), "seconds=1e-46 is too small"),
    (lambda: quadratic(workers=2, condition=3e38), "1 / condition=3.33333e-39 is too small"),
    (lambda: quadratic(workers=2, heterogeneity=1e30), "heterogeneity=1e+30: the least mean objective"),
    (lambda: _train(steps=None, seconds=1e-46), "seconds=1e-46 is no budget"),
]


@pytest.mark.parametrize(("build", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_float32_does_not_hold_is_refused(build, said):
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        build()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        *("constant:seconds=1.2e-38", "constant:seconds=3.4e38", "uniform:low=0,high=1e-30", "trace:path=t.csv"),
        *("constant:seconds=1e30*constant:seconds=1e-30*constant:seconds=1e30", "random_slow:probability=1.2e-7"),
        *("markov:p_slow=0.05,p_recover=0", "slow_workers:fraction=0,factor=1e30*constant:seconds=1e30"),
    ],
)
def test_what_float32_holds_is_accepted(spec, tmp_path):
    (tmp_path / "t.csv").write_text("1e-30,1,0,3e38\n0,1,2,3\n")
    law = build_delays(spec, 4)
    assert law.sure
    seconds = np.asarray(jax.vmap(lambda n: law(KEY, jnp.asarray(1), n))(jnp.arange(50)), np.float64)
    assert all(value == 0 or np.finfo(np.float32).tiny < value < np.inf for value in seconds)


def test_cells_of_a_trace(tmp_path):
    for cell in ("1e-46", "1e39"):
        (tmp_path / "t.csv").write_text(f"1,2\n1,{cell}\n")
        with pytest.raises(ValueError, match=f"'{cell}' is out of range"):
            build_delays("trace:path=t.csv", 2)


def test_latencies_of_a_file(tmp_path):
    for cell in ("1e-46", "3.5e38"):
        (tmp_path / "g.csv").write_text(f"0,1,{cell}\n1,2,0.1\n")
        with pytest.raises(ValueError, match=f"line 1, column 3: '{cell}' is out of range"):
            build_graph("from_file:path=g.csv", 3)


def test_traces_that_never_let_time_pass(tmp_path):
    (tmp_path / "a.csv").write_text("0,1\n1,1\n")
    (tmp_path / "b.csv").write_text("1,1\n0,1\n")
    (tmp_path / "c.csv").write_text("1,1\n0,1\n0,1\n")
    with pytest.raises(ValueError, match="the traces give worker 0 nothing but 0 seconds; time must pass"):
        build_delays("trace:path=a.csv*trace:path=b.csv", 2)
    assert build_delays("trace:path=a.csv*trace:path=c.csv", 2).sure


TYPED = [
    (["--delays", "constant:seconds=1e-46"], "seconds=1e-46"),
    (["--delays", "constant:seconds=1e30*constant:seconds=1e30"], "1e+60"),
    (["--delays", "markov:p_slow=1e-300"], "p_slow=1e-300"),
    (["--delays", "shifted_exponential:rate=1e38"], "rate=1e+38"),
    (["--bandwidth", "1e-300"], "1e-300 is too small"),
    (["--bandwidth", "2e-38"], "bandwidth=2e-38, message_bytes=12"),
    (["--latency", "1e-46"], "1e-46 is too small"),
    (["--latency", "1e39"], "1e39 is too large"),
    (["--seconds", "1e400"], "1e400 is too large"),
    (["--learning-rate", "1e-46"], "1e-46 is too small"),
    (["--learning-rate", "1e-20", "--schedule", "step:every=1,factor=1e-20"], "learning_rate=1e-20=1e-40"),
    (["--dataset", "quadratic:heterogeneity=1e30"], "heterogeneity=1e+30"),
    (["--workers", "1_0"], "1_0 is not a whole number"),
    (["--workers", "99999999999999999999"], "is too large"),
    (["--batch-size", "2147483648"], "use at most 2147483647"),
    (["--seed", "4294967296"], "use 0 to 4294967295"),
    (["--seed", "18446744073709551616"], "is too large"),
    (["--seed", "4294967295", "--seeds", "2"], "this ends at 4294967296"),
]


@pytest.mark.parametrize(("typed", "said"), TYPED, ids=[" ".join(typed) for typed, _ in TYPED])
def test_a_command_refuses_before_there_is_a_folder(capsys, typed, said):
    assert train.main([*TINY, *typed]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert os.listdir() == []


SWEPT = [
    (["--learning-rates", "0.1", "1e-46"], "1e-46 is too small"),
    (["--learning-rates", "0.1", "1e-20", "--schedule", "step:every=1,factor=1e-20"], "learning_rate=1e-20=1e-40"),
    (["--set", "latency=0,1e-46"], "1e-46"),
    (["--set", "bandwidth=1e6,2e-38"], "bandwidth=2e-38"),
    (["--delays", "constant", "constant:seconds=1e30*constant:seconds=1e30"], "1e+60"),
    (["--seed", "4294967290", "--graph-seeds", "10"], "at most 4294967295"),
]


@pytest.mark.parametrize(("typed", "said"), SWEPT, ids=[" ".join(typed) for typed, _ in SWEPT])
def test_a_sweep_refuses_before_there_is_a_folder(capsys, typed, said):
    assert sweep.main([*TINY, *typed]) == 2
    assert said in capsys.readouterr().err
    assert os.listdir() == []


# Random parts.


def test_each_occurrence_of_a_law_draws_on_its_own():
    spec, counts = "slow_workers:fraction=0.2,factor=2*slow_workers:fraction=0.2,factor=3", np.zeros(7)
    seeds, workers = 400, 10
    for seed in range(seeds):
        seconds = jax.vmap(build_delays(spec, workers, seed), (None, 0, None))(KEY, jnp.arange(workers), 0)
        counts += np.bincount(np.asarray(seconds, int), minlength=7)
    shares = counts[[1, 2, 3, 6]] / (seeds * workers)
    # Of n workers in a row of 10, two of which are slow, the overlap is hypergeometric: its variance is below 0.36.
    np.testing.assert_allclose(shares, [0.64, 0.16, 0.16, 0.04], atol=4 * np.sqrt(0.36 / seeds) / workers)


def test_the_first_occurrence_draws_as_alone():
    def slow(spec, seed):
        law = build_delays(spec, 20, seed)
        return np.asarray(jax.vmap(law, (None, 0, None))(KEY, jnp.arange(20), 0))

    one = "slow_workers:fraction=0.3,factor=2"
    for seed in range(5):
        both = slow(f"{one}*constant:seconds=1*slow_workers:fraction=0.3,factor=3", seed)
        expected = np.zeros(20, bool)
        expected[np.random.default_rng(seed).permutation(20)[:6]] = True
        np.testing.assert_array_equal(slow(one, seed) == 2, expected)
        np.testing.assert_array_equal(both % 2 == 0, expected)
    three = [slow("*".join([*["slow_workers:factor=1"] * k, one]), 0) for k in range(4)]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(three, 2))


def _loss(params, batch):
    return ((batch["x"] - params[None]) ** 2).mean()


def _from_arrays(seed):
    return from_arrays(_loss, lambda key: jnp.zeros(1), {"x": np.ones((8, 1))}, workers=2, batch_size=1, seed=seed)


SEEDED = {
    "build_graph": lambda seed: build_graph("ring", 4, seed),
    "build_delays": lambda seed: build_delays("constant", 4, seed),
    "build_task": lambda seed: build_task("quadratic", workers=4, seed=seed),
    "partition": lambda seed: partition("iid", np.arange(8), 2, seed),
    "from_arrays": _from_arrays,
    "train_policy": lambda seed: _train(seed=seed),
    "compare": lambda seed: compare(["full"], "quadratic", "ring", "constant", steps=1, workers=3, seeds=1, seed=seed),
}


@pytest.mark.parametrize("name", SEEDED)
def test_seeds_outside_their_range_are_refused(name):
    for seed in (-1, 2**32, 2**64, 10**30, 0.5, "1", None, True):
        with pytest.raises(ValueError, match="is no seed; use a whole number from 0 to 4294967295"):
            SEEDED[name](seed)


def test_the_last_seeds():
    with pytest.raises(ValueError, match="2 seeds from seed=4294967295 on end at 4294967296"):
        compare(["full"], "quadratic", "ring", "constant", steps=1, workers=3, seeds=2, seed=2**32 - 1)
    assert list(numbers.seeds(2**32 - 2, 2)) == [2**32 - 2, 2**32 - 1]
    for name in ("build_graph", "build_delays", "build_task", "partition", "from_arrays"):
        SEEDED[name](np.uint32(2**32 - 1))


# While a run goes on.


def _train(policy="full", delays="constant", steps=3, seconds=None, graph="complete", **more):
    task = quadratic(dimension=2, workers=3, batch_size=1)
    return train_policy(
        policy, task, build_graph(graph, 3), delays, optax.sgd(0.1), steps=steps, seconds=seconds, rows=2, **more
    )


def _at(seconds, key, worker, started):
    return jnp.where((worker == 1) & (started == 2), seconds, 1.0 + worker)


POLICIES = ["full", "dybw:late=drop", "fastest:k=1", "full:barrier=neighbours", "backup:b=1", "dpsgd"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_delay_that_is_no_time_is_named_under_every_rule(policy):
    for seconds in (-1.0, np.nan, -np.inf):
        with pytest.raises(NotATime, match=r"^computation 2 of worker 1 \(both from 0\) takes (-1|nan|-inf) seconds"):
            _train(policy, Partial(_at, jnp.asarray(seconds)), steps=None, seconds=20.0)
    assert NotATime.exit_code == Standstill.exit_code == 3


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ("lognormal:sigma=1000", "inf|0"),
        ("pareto:alpha=0.001", "inf"),
        ("lognormal:median=1e-37,sigma=3", "0"),
        ("lognormal:median=1e-37,sigma=3*uniform:low=0,high=1", "nan"),
        ("shifted_exponential:shift=0,rate=1e30*pareto:alpha=0.01", "inf|nan"),
        ("lognormal:median=1e38,sigma=1*lognormal:median=1,sigma=2", "nan|inf"),
    ],
)
def test_a_law_that_leaves_the_range_is_named(spec, seconds):
    """The computation named is the first bad one of its worker, by the law itself."""
    law = build_delays(spec, 3)
    assert not law.sure
    for budget in ({"steps": 400}, {"steps": None, "seconds": 3e38}):
        with pytest.raises(NotATime, match=rf"takes ({seconds}) seconds") as caught:
            _train(delays=spec, **budget)
        words = str(caught.value).split()
        computation, worker = int(words[1]), int(words[4])
        key = jax.random.fold_in(jax.random.key(0), 0)
        drawn = jax.vmap(lambda n: law(key, jnp.asarray(worker), n))(jnp.arange(computation + 1))  # noqa: B023
        fine = np.isfinite(times.checked(law, drawn))
        assert fine[:-1].all()
        assert not fine[-1]


@pytest.mark.parametrize("command", [train.main, sweep.main])
def test_a_command_ends_with_3(command, capsys):
    more = ["--timing-only"] if command is sweep.main else []
    words = [*(CLOCKS if more else TINY), "--delays", "lognormal:sigma=1000"]
    for budget in ([], ["--steps", "50"]) if not more else ([],):
        typed = [word for word in words if not (budget and word in ("--seconds", "5"))]
        assert command([*typed, *budget, *more, "--out", f"out{len(budget)}"]) == 3
        err = capsys.readouterr().err.splitlines()[-1]
        assert "computation" in err
        assert "of worker" in err


def _zero(key, worker, started):
    return jnp.zeros(())


def test_time_must_pass():
    for budget in ({"steps": 5}, {"steps": None, "seconds": 1.0}):
        with pytest.raises(Standstill, match="^time stands still at 0 s: the last .* steps moved it by nothing"):
            _train(delays=_zero, **budget)


def test_a_time_that_vanishes_beside_what_has_passed_is_a_standstill():
    with pytest.raises(Standstill, match="^time stands still at 1 s: "):
        _train(delays=Partial(_late, jnp.asarray(1e-30)), steps=None, seconds=10.0)


def _late(seconds, key, worker, started):
    return jnp.where(started == 0, 1.0, seconds)


def test_zeros_now_and_then_are_times():
    def sometimes(key, worker, started):
        return jnp.where(started % 3 == 0, 1.0, 0.0)

    assert _train(delays=sometimes, steps=6).duration.tolist()[:6] == [1, 0, 0, 1, 0, 0]


def test_nodes_that_never_compute_may_be_given_anything():
    from tests import handmade

    def law(key, worker, started):
        return jnp.where(worker == 3, jnp.nan, 1.0)

    graph = graphs.star(4)._replace(computes=jnp.arange(4) < 3)
    task = quadratic(dimension=2, workers=3, batch_size=1)
    found = train_policy(handmade.asynchronous_server(), task, graph, law, optax.sgd(0.1), seconds=2, rows=1)
    assert found.rows[-1]["gradients"] == 6


ORDINARY = ["constant", "uniform", "shifted_exponential", "pareto", "lognormal:sigma=2", "slow_workers", "random_slow"]
ORDINARY += ["markov", "lognormal:sigma=0.3*slow_workers:factor=5", "uniform:low=0,high=1*shifted_exponential:shift=0"]


@pytest.mark.parametrize("spec", ORDINARY)
def test_draws_of_ordinary_laws_are_not_looked_at(spec):
    law = build_delays(spec, 4)
    seconds = jnp.ones(4)
    assert times.is_sure(law)
    assert times.checked(law, seconds) is seconds


SURE = ["lognormal:median=1e20,sigma=8", "pareto:alpha=0.2", "shifted_exponential:shift=0,rate=1e20"]
SURE += ["lognormal:median=1e-20,sigma=7", "uniform:low=0,high=1e-30", "pareto:alpha=1,scale=1e30"]
SURE += ["lognormal:sigma=7*lognormal:sigma=7", "pareto:alpha=0.5*pareto:alpha=0.5"]


@pytest.mark.parametrize("spec", SURE)
def test_what_is_sure_stays_within_the_range_at_the_ends_of_the_draws(spec, monkeypatch):
    law = build_delays(spec, 4)
    assert law.sure
    for first, second in itertools.product((0, 1 << 9, 2**32 - 1), repeat=2):
        words = itertools.cycle([first, second])
        monkeypatch.setattr(draws, "words", lambda *_, words=words: (jnp.uint32(next(words)), jnp.uint32(0)))
        seconds = float(law(KEY, jnp.asarray(0), jnp.asarray(0)))
        assert numbers.holds(seconds)
        assert seconds >= 0
