"""The one formula, `X' = mix @ X + push @ U`, in its two forms, against NumPy."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dbwjax.engine import learner as learning
from dbwjax.engine.mixing import UNROLLED_SLOTS, apply_plan, mix, write_rows
from dbwjax.network import graphs
from dbwjax.network.weights import WEIGHTS, dense
from dbwjax.policies.gossip import DENSE_ABOVE, matrix
from dbwjax.types import ModelState, Plan

pytestmark = pytest.mark.optimised

NODES = 6


def tree_of(rng, nodes=NODES, dtype=np.float64):
    return {"w": rng.normal(size=(nodes, 2, 3)).astype(dtype), "b": rng.normal(size=nodes).astype(dtype)}


def on_device(tree):
    return jax.tree.map(jnp.asarray, tree)


def einsum(weights, tree):
    return jax.tree.map(lambda leaf: np.einsum("rn,n...->r...", weights, leaf), tree)


def densely(slots, sources, nodes):
    full = np.zeros((len(slots), nodes))
    for r, s in np.ndindex(slots.shape):
        full[r, sources[r, s]] += slots[r, s]
    return full


def assert_close(tree, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), tree, expected)


def plan_of(weights, sources=None, **fields):
    fresh = jnp.ones(NODES, bool)
    return Plan(
        jnp.asarray(1.0), fresh, jnp.asarray(weights), None if sources is None else jnp.asarray(sources), **fields
    )


@pytest.mark.parametrize("slots", [1, 4, UNROLLED_SLOTS, UNROLLED_SLOTS + 1, UNROLLED_SLOTS + 15])
@pytest.mark.parametrize("rows", [2, 50])
def test_both_forms_are_numpys_einsum(slots, rows, x64):
    """Also with rows fewer than nodes, a source named twice, and more slots than are unrolled."""
    nodes = 50
    rng = np.random.default_rng(slots)
    tree = tree_of(rng, nodes)
    sources = rng.integers(0, nodes, size=(rows, slots))
    weights = rng.normal(size=(rows, slots))
    full = densely(weights, sources, nodes)
    expected = einsum(full, tree)
    assert_close(jax.jit(mix)(jnp.asarray(weights), jnp.asarray(sources), on_device(tree)), expected)
    assert_close(jax.jit(mix)(jnp.asarray(full), None, on_device(tree)), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_leaf_decides_the_type(dtype):
    tree = on_device(tree_of(np.random.default_rng(0), dtype=dtype))
    weights = jnp.full((NODES, 2), 0.5, jnp.float32)
    sources = jnp.zeros((NODES, 2), jnp.int32)
    mixed = mix(weights, sources, tree), mix(jnp.eye(NODES), None, tree)
    assert {leaf.dtype for leaf in jax.tree.leaves(mixed)} == {np.dtype(dtype)}


NORMAL = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
OWN = np.repeat(np.arange(NODES, dtype=np.int32)[:, None], 4, axis=1)
STAY = np.zeros((NODES, 4), np.float32)
STAY[:, 0] = 1
FORMS = {"dense": (np.eye(NODES, dtype=np.float32), None), "slots": (STAY, OWN)}
LEARNER = learning.from_optimizer(lambda x, batch: (batch * x).sum(), optax.sgd(0.5))


def everything_is_steep(key, worker, started):
    return jnp.full(3, jnp.inf)


@jax.jit
def step(plan, x):
    state = ModelState(x, jax.vmap(LEARNER.init)(x), jnp.zeros(NODES, jnp.int32))
    return learning.step(LEARNER, everything_is_steep, plan, state, jax.random.key(0))[0].params


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(x=arrays.arrays(np.float32, (NODES, 3), elements=NORMAL))
def test_a_late_worker_does_not_move(form, x):
    """Its row is the identity and its update does not count: not even an infinite one moves a parameter, to the bit."""
    plan = plan_of(*FORMS[form])._replace(fresh=jnp.zeros(NODES, bool))
    kept = np.asarray(step(plan, x))
    np.testing.assert_array_equal(kept, x)
    np.testing.assert_array_equal(np.asarray(mix(*on_device(FORMS[form]), jnp.asarray(x))), x)


def test_what_a_number_below_the_normal_ones_becomes():
    """Compilers flush numbers below 1.2e-38 to zero, and nothing else."""
    tiny = np.array([1e-40, -1e-40, 1e-44], np.float32)
    x = jnp.asarray(np.repeat(tiny[None], NODES, axis=0))
    for form in FORMS.values():
        assert np.abs(step(plan_of(*form)._replace(fresh=jnp.zeros(NODES, bool)), x)).max() <= np.abs(tiny).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_where_it_is_not_kept(bad):
    """A zero times NaN is NaN, so a neighbour that is not active must not even be read."""
    graph = graphs.complete(NODES)
    active = np.array([True, True, False, True, False, True])
    kept = graph.links & jnp.asarray(active)[:, None] & jnp.asarray(active)[graph.neighbours]
    scheme = WEIGHTS["metropolis"]()
    weights, sources = matrix(scheme.apply(scheme.init(graph), graph, kept), graph, kept)
    assert sources is not None
    x = np.random.default_rng(0).normal(size=(NODES, 4)).astype(np.float32)
    x[2, 1], x[4] = bad, bad
    mixed = np.asarray(jax.jit(mix)(weights, sources, jnp.asarray(x)))
    assert np.isfinite(mixed[active]).all()
    np.testing.assert_allclose(mixed[active], np.tile(x[active].mean(axis=0), (4, 1)), rtol=1e-5, atol=1e-6)
    assert not np.isfinite(mixed[2, 1])  # nor does anything heal it
    np.testing.assert_array_equal(mixed[2, [0, 2, 3]], x[2, [0, 2, 3]])


def test_long_rows_are_mixed_densely(x64):
    """`gossip.matrix` picks the form by the length of the rows, and both say the same."""
    scheme = WEIGHTS["metropolis"]()
    x = np.random.default_rng(1).normal(size=(NODES, 4))
    seen = []
    for slots in (DENSE_ABOVE, DENSE_ABOVE + 1):
        graph = graphs.pad(graphs.ring(NODES), slots)
        weights, sources = matrix(scheme.apply(scheme.init(graph), graph, graph.links), graph, graph.links)
        assert (sources is None) == (slots > DENSE_ABOVE)
        seen.append(mix(weights, sources, jnp.asarray(x)))
    expected = (x + np.roll(x, 1, axis=0) + np.roll(x, -1, axis=0)) / 3
    for mixed in seen:
        np.testing.assert_allclose(mixed, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("push", ["none", "vector", "matrix"])
def test_what_is_pushed(push, x64):
    """`None` mixes X + U, which the learner has added; a vector weighs each row's own update; a matrix is a matrix."""
    rng = np.random.default_rng(3)
    x, u = tree_of(rng), tree_of(rng)
    w, vector, square = rng.normal(size=(NODES, NODES)), rng.normal(size=NODES), rng.normal(size=(NODES, NODES))
    both = jax.tree.map(np.add, x, u)
    matrices = {"none": w, "vector": np.diag(vector), "matrix": square}
    expected = jax.tree.map(np.add, einsum(w, x), einsum(matrices[push], u))
    given = {"none": None, "vector": jnp.asarray(vector), "matrix": jnp.asarray(square)}[push]
    moved = on_device(both if push == "none" else u)
    assert_close(jax.jit(apply_plan)(plan_of(w, push=given), on_device(x), moved), expected)


def test_a_few_workers_pushed_to_a_few_rows(x64):
    """R = 3 rows of N = 6, M = 2 updates; the rows that are not written keep every bit."""
    rng = np.random.default_rng(4)
    x, u = tree_of(rng), tree_of(rng, 2)
    slots, sources = rng.normal(size=(3, 2)), rng.integers(0, NODES, size=(3, 2))
    push, rows = rng.normal(size=(3, 2)), np.array([4, NODES, 1])
    plan = plan_of(slots, sources, push=jnp.asarray(push), rows=jnp.asarray(rows), workers=jnp.asarray([5, 0]))
    seen = jax.jit(apply_plan)(plan, on_device(x), on_device(u))
    written = jax.tree.map(np.add, einsum(densely(slots, sources, NODES), x), einsum(push, u))
    for r, row in ((0, 4), (2, 1)):
        assert_close(jax.tree.map(lambda leaf: leaf[row], seen), jax.tree.map(lambda leaf: leaf[r], written))  # noqa: B023
    others = np.array([0, 2, 3, 5])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[others], b[others]), seen, x)


def test_rows_that_are_padding_write_nothing():
    x = tree_of(np.random.default_rng(5), dtype=np.float32)
    new = jax.tree.map(lambda leaf: jnp.full((4, *leaf.shape[1:]), jnp.nan), x)
    kept = write_rows(jnp.full(4, NODES), on_device(x), new)
    jax.tree.map(np.testing.assert_array_equal, kept, x)
    one = write_rows(jnp.asarray([NODES, 3, NODES, NODES]), on_device(x), new)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.delete(a, 3, 0), np.delete(b, 3, 0)), one, x)
    assert all(np.isnan(leaf[3]).all() for leaf in jax.tree.leaves(one))


@jax.jit
def all_schemes(graph, kept):
    return {name: dense(s.apply(constants[name], graph, kept), graph) for name, s in schemes.items()}


FULL = graphs.complete(NODES)
# A further Python of CI has no cvxpy; there `fdla` refuses (tests/test_fdla.py).
there = [name for name in WEIGHTS if name != "fdla" or importlib.util.find_spec("cvxpy")]
schemes = {name: WEIGHTS[name]() for name in there}
constants = {name: scheme.init(FULL) for name, scheme in schemes.items()}


@settings(deadline=None, max_examples=60)
@given(upper=st.lists(st.booleans(), min_size=NODES * (NODES - 1) // 2, max_size=NODES * (NODES - 1) // 2))
def test_weights_of_any_symmetric_mask(upper):
    """Rows sum to one and nothing outside the mask weighs anything; all but `uniform` are symmetric as well."""
    mask = np.zeros((NODES, NODES), bool)
    mask[np.triu_indices(NODES, 1)] = upper
    mask |= mask.T
    kept = FULL.links & jnp.asarray(np.take_along_axis(mask, np.asarray(FULL.neighbours), axis=1))
    degree = mask.sum(axis=1)
    for name, weights in all_schemes(FULL, kept).items():
        weights = np.asarray(weights)
        off = ~np.eye(NODES, dtype=bool)
        assert (weights[off & ~mask] == 0).all(), name
        assert (weights[mask] > 0).all(), name
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        if name == "uniform":
            np.testing.assert_allclose(weights, (mask | ~off) / (1 + degree)[:, None], atol=1e-6)
            continue
        np.testing.assert_array_equal(weights, weights.T)
        if name == "metropolis":
            larger = np.maximum(degree[:, None], degree[None, :])
            np.testing.assert_allclose(weights[mask], (1 / (1 + larger))[mask], rtol=1e-6)
        if name != "best_constant":
            assert (weights.diagonal() > 0).all()
        # Doubly stochastic and symmetric: never expands the distance to the mean.
        assert np.abs(np.linalg.eigvalsh(weights)).max() <= 1 + 1e-5, name
