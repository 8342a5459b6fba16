"""CHOCO, DCD and ECD: agreement with references, what they are without a loss, what diverges, what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compression, rule_table
from dbwjax.engine import batch, ensemble, simulate
from dbwjax.engine.learner import equipped
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.networks import bytes_sent
from dbwjax.learners import codecs
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.policies.compressed import choco, safe_gamma
from dbwjax.policies.subgradient import projected
from dbwjax.types import Learner
from tests.cases import LEARNER, NINE, PAIR, PAIR_LEARNER, RATE, STEPS, Case, P, nine, policy_of
from tests.reference import compressed as reference

SHAPE, ENTRIES = (5, 60), 300
"""Parameters of more than one bucket, the last one not full."""
REPEAT, SCALE = ENTRIES // P, np.linspace(0.5, 1.5, ENTRIES)
"""Targets repeat; no two entries are the same, so that nothing is the larger one by rounding."""


def long_gradient(x, local, batch):
    target, noise = (jnp.tile(batch[name], REPEAT).reshape(SHAPE) for name in ("target", "noise"))
    error = x - SCALE.reshape(SHAPE) * target + noise
    return error, 0.5 * (error**2).sum(), None


LONG = Learner(lambda x: (), long_gradient, lambda gradient, local, x: (-RATE * gradient, local))


def long_update(case, i, n, x):
    target, noise = (np.tile(case.samples[name][i, n], REPEAT) for name in ("target", "noise"))
    return -RATE * (x - SCALE * target + noise)


def course(policy, case):
    """Ends and parameters `[T, N, ENTRIES]` after each step."""
    state = simulate.init(policy, LONG, case.world, jnp.zeros(SHAPE))
    ends, x = [0.0], []
    for _ in range(STEPS):
        state, record = simulate.run(policy, LONG, case.world, state, 1)
        ends.append(ends[-1] + float(record.duration[0]))
        x.append(np.asarray(state.model.params).reshape(NINE, ENTRIES))
    return np.array(ends[1:]), np.array(x)


def drawn(case):
    """The random words of the message of each worker's iteration, as a function."""

    @functools.partial(jax.jit, static_argnums=1)
    def table(key, entries):
        def of_message(i, k):
            own = jax.random.fold_in(jax.random.fold_in(stream(key, Stream.MESSAGES), i), k)
            return codecs.words(codecs.seeds_of(own[None], 1)[:, 0], jnp.arange(entries, dtype=jnp.uint32))[0]

        return jax.vmap(jax.vmap(of_message, (None, 0)), (0, None))(jnp.arange(NINE), jnp.arange(STEPS))

    words = np.asarray(table(case.world.key, ENTRIES))
    return lambda i, k, entries: words[i, k, :entries]


NETS = ["ring", "random", "slow links"]
CODES = {
    "identity": reference.identity,
    "quantize:bits=3": reference.quantize(3),
    "quantize:bits=6": reference.quantize(6),
    "top_k:fraction=0.3": reference.top_k(0.3),
    "random_k:fraction=0.7": reference.random_k(0.7),
}


def given(case):
    return {
        "words": drawn(case),
        "update": functools.partial(long_update, case),
        "x0": np.zeros((NINE, ENTRIES)),
        "neighbours": case.neighbours,
        "steps": STEPS,
    }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", NETS)
@pytest.mark.parametrize(
    ("codec", "gamma", "barrier"),
    [
        ("quantize:bits=3", 0.4, "global"),
        ("top_k:fraction=0.3", 0.3, "neighbours"),
        ("random_k:fraction=0.7", None, "global"),
    ],
)
def test_choco_is_the_reference(codec, gamma, barrier, graph):
    case = nine(graph)
    step = "" if gamma is None else f",gamma={gamma}"
    ends, x = course(policy_of(f"choco:codec={codec}{step},barrier={barrier}"), case)
    found = reference.run_choco(CODES[codec], 0.7 if gamma is None else gamma, **given(case))
    np.testing.assert_allclose(x, found, rtol=1e-12, atol=1e-12)
    full = case.simulate(policy_of(f"full:barrier={barrier}"))
    np.testing.assert_allclose(ends, full.ends, rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", NETS)
@pytest.mark.parametrize(
    ("method", "codec"),
    [("dcd", "quantize:bits=6"), ("dcd", "random_k:fraction=0.7"), ("ecd", "quantize:bits=6")],
)
def test_dcd_and_ecd_are_the_references(method, codec, graph):
    case = nine(graph)
    ends, x = course(policy_of(f"{method}:codec={codec}"), case)
    run = getattr(reference, f"run_{method}")
    records = run(CODES[codec], delay=case.delay, latency=case.latency, **given(case))
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12)
    found = np.array([record.x for record in records])
    assert np.abs(found).max() < 1e3, "the reference must not diverge, or rounding would"
    np.testing.assert_allclose(x, found, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ("choco:codec=identity", "full"),
        ("choco:codec=identity,gamma=1,barrier=neighbours", "full:barrier=neighbours"),
        ("choco:codec=identity,weights=lazy", "full:weights=lazy"),
        ("dcd:codec=identity", "dpsgd"),
        ("dcd:codec=identity,barrier=global,weights=lazy", "dpsgd:barrier=global,weights=lazy"),
        ("ecd:codec=identity", "dpsgd"),
    ],
)
def test_with_everything_sent_it_is_the_plain_method(spec, plain):
    case = nine("slow links")
    found, expected = (case.simulate(policy_of(each)) for each in (spec, plain))
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.own, expected.own)
    np.testing.assert_array_equal(found.active, expected.active)


@pytest.mark.usefixtures("x64")
def test_one_worker_alone():
    """Nobody hears it: CHOCO and ECD are SGD; DCD still moves by what it would send."""
    case = Case(graphs.path(1), seed=2)
    x, expected = np.zeros(P), []
    for k in range(STEPS):
        x = x + case.update(0, k, x)
        expected.append(x)
    np.testing.assert_allclose(case.simulate(policy_of("choco")).x[:, 0], expected, rtol=1e-12)
    seen = case.simulate(policy_of("dcd:codec=quantize:bits=4")).x[:, 0]
    assert np.isfinite(seen).all()
    assert (seen != np.array(expected)).any()


def test_the_mean_of_choco_is_that_of_its_half_steps():
    """W is doubly stochastic, so gossip moves no mean, whatever the codec loses."""
    policy, case = policy_of("choco:codec=top_k:fraction=0.4"), Case(graphs.pad(graphs.ring(NINE), NINE), 1)
    learner = equipped(LEARNER, policy)
    rng = np.random.default_rng(0)
    x, u = (jnp.asarray(rng.normal(size=(NINE, P))) for _ in range(2))
    weights = jnp.asarray(
        np.eye(NINE) / 2 + np.roll(np.eye(NINE), 1, axis=1) / 4 + np.roll(np.eye(NINE), -1, axis=1) / 4
    )
    keys = jax.random.split(jax.random.key(0), NINE)
    local = jax.vmap(learner.init)(x)
    moved, after = learner.combine.apply(lambda tree: weights @ tree, keys, x, u, local, None)
    np.testing.assert_allclose(moved.mean(axis=0), (x + u).mean(axis=0), atol=1e-6)
    assert (np.asarray(after.copy) != np.asarray(local.copy)).any()
    assert case.nodes == NINE


@pytest.mark.parametrize("spec", ["choco:codec=quantize:bits=4", "dcd", "ecd", "choco:codec=top_k:fraction=0.5"])
def test_two_leaves_a_scalar_and_bfloat16(spec):
    policy, case = policy_of(spec), nine_32()
    for dtype in ("float32", "bfloat16"):
        params = {name: leaf.astype(dtype) for name, leaf in PAIR.items()}
        state = simulate.init(policy, PAIR_LEARNER, case.world, params)
        state, _ = simulate.run(policy, PAIR_LEARNER, case.world, state, 20)
        for name, leaf in state.model.params.items():
            assert leaf.dtype == dtype
            assert np.isfinite(np.asarray(leaf, np.float32)).all()
            assert (np.asarray(leaf, np.float32) != np.asarray(PAIR[name])).all()
        own = state.model.local if spec == "dcd" else state.model.local.own
        np.testing.assert_array_equal(own, 20)
        if spec != "dcd":
            assert state.model.local.copy["x"].dtype == jnp.float32


@pytest.mark.parametrize("spec", ["choco", "dcd", "ecd"])
def test_updates_may_be_wider_than_parameters(x64, spec):
    """Float32 parameters, batches and so gradients of float64."""
    params = jnp.zeros(P, jnp.float32)
    before = simulate.init(policy_of(spec), LEARNER, nine("ring").world, params)
    after, _ = jax.eval_shape(
        lambda state: simulate.run(policy_of(spec), LEARNER, nine("ring").world, state, 2), before
    )
    jax.tree.map(lambda old, new: np.testing.assert_equal(new.dtype, old.dtype), before.model, after.model)


@functools.cache
def nine_32():
    return Case(graphs.pad(graphs.ring(NINE), NINE), 1)


def test_a_batch_of_worlds_is_each_of_them():
    policy, worlds = policy_of("choco:codec=quantize:bits=4"), [Case(graphs.ring(NINE), seed).world for seed in (1, 2)]
    alone = []
    for world in worlds:
        state = simulate.init(policy, LEARNER, world, jnp.zeros(P))
        alone.append(simulate.run(policy, LEARNER, world, state, 10)[0].model.params)
    together = batch.stack(worlds)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    sims = ensemble.init(policy, LEARNER, together, states, batch.stack_all([jnp.zeros(P)] * 2))
    sims, _ = ensemble.run_batch(policy, LEARNER, together, sims, 10)
    np.testing.assert_allclose(sims.model.params, np.stack(alone), rtol=1e-5, atol=1e-6)


def test_bytes_of_a_message():
    shapes = {"w": jax.ShapeDtypeStruct((784, 10), jnp.float32), "b": jax.ShapeDtypeStruct((10,), jnp.float32)}
    expected = {
        "full": 4 * 7850,
        "choco:codec=identity": 4 * 7850,
        "dcd": 7840 + 31 * 4 + 10 + 4,
        "ecd:codec=quantize:bits=4": 3920 + 31 * 4 + 5 + 4,
        "choco:codec=top_k:fraction=0.1": 784 * 4 + 784 * 13 // 8 + 4 + 1,
        "dcd:codec=random_k:fraction=0.5": 4 * (3920 + 5),
    }
    for spec, size in expected.items():
        assert bytes_sent(build_policy(spec), LEARNER, shapes) == size, spec


def test_the_default_gamma_is_what_the_codec_keeps():
    assert safe_gamma(codecs.build_codec("identity").delta) == 1
    assert safe_gamma(codecs.build_codec("top_k:fraction=0.2").delta) == pytest.approx(0.2)
    assert 0.99 < safe_gamma(codecs.build_codec("quantize:bits=8").delta) < 1


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda: build_policy("choco:gamma=0"),
            "gamma=0 is no step towards the neighbours; use one above 0, at most 1",
        ),
        (lambda: build_policy("choco:gamma=1.1"), "gamma=1.1 is no step"),
        (lambda: build_policy("choco:gamma=-1"), "gamma=-1 is no step"),
        (lambda: build_policy("choco:gamma=much"), "gamma=much"),
        (lambda: choco(gamma=float("nan")), "gamma=nan is not a number"),
        (lambda: build_policy("choco:codec=quantise"), "unknown codec 'quantise'; did you mean 'quantize'"),
        (lambda: build_policy("choco:codec=quantize:bits=1"), "bits=1 is out of range; use 2 to 16"),
        (lambda: build_policy("dcd:codec=random_k:fraction=0"), "fraction=0 is no share"),
        (lambda: build_policy("dcd:codec=top_k:fraction=0.1"), "no unbiased form.* use codec=random_k"),
        (lambda: build_policy("ecd:codec=top_k:fraction=0.1"), "no unbiased form.* or the method choco"),
        (lambda: build_policy("choco:codec=8"), "unknown codec '8'"),
        (
            lambda: build_policy("choco").init(graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1).astype(bool))),
            "other",
        ),
        *(
            (lambda spec=spec: equipped(projected(LEARNER, 1.0), build_policy(spec)), "compresses plain parameters")
            for spec in ("choco", "dcd", "ecd")
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


def error_of(spec, nodes=16, steps=600):
    """How far the workers end from the optimum of their mean, over how far they began; `inf`: beyond all bounds."""
    world = Case(graphs.ring(nodes), 3).world
    policy = policy_of(spec)
    state = simulate.init(policy, LONG, world, jnp.zeros(SHAPE))
    state, _ = simulate.run(policy, LONG, world, state, steps)
    best = SCALE.reshape(SHAPE) * np.tile(np.asarray(world.batches.args[0]).mean(axis=0), REPEAT).reshape(SHAPE)
    error = np.linalg.norm(np.asarray(state.model.params) - best) / np.linalg.norm(best) / nodes**0.5
    return error if np.isfinite(error) else np.inf


def test_who_diverges_with_which_codec():
    """Beside D-PSGD, whose own error is the noise of the gradients and the step size."""
    plain = error_of("dpsgd")
    for spec in ("dcd", "ecd", "dcd:codec=random_k:fraction=0.5", "choco:codec=top_k:fraction=0.1"):
        assert error_of(spec) < 5 * plain, spec
    for spec in ("ecd:codec=random_k:fraction=0.5", "dcd:codec=quantize:bits=2", "ecd:codec=quantize:bits=2"):
        assert error_of(spec) > 20 * plain, spec


def test_the_page_has_the_tables_of_the_committed_results():
    page = compression.PAGE.read_text()
    assert rule_table.updated(page, made=compression.tables) == page
