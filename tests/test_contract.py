"""What every policy promises, over the whole table: one test per promise, all policies, several settings."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine import timeline as timelines
from dbwjax.engine.mixing import mix
from dbwjax.engine.simulate import World
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import POLICIES, build_policy
from dbwjax.types import Learner
from tests import handmade

pytestmark = pytest.mark.usefixtures("compiled_lightly")

SHIPPED = [
    "dybw",
    "dybw:late=carry",
    "dybw:late=apply",
    "dybw:flood_latency=0.05",
    "full",
    "full:barrier=neighbours",
    "full:weights=best_constant",
    "backup:b=1",
    "backup:b=1,gap=1",
    "backup:b=2,gap=inf,weights=max_degree",
    "fastest:k=4",
    "fastest:k=4,late=carry,weights=lazy",
    "deadline:seconds=1.2",
    "deadline:seconds=0.5,late=carry",
    "deadline:seconds=0.1,late=apply",
    "dpsgd",
    "dpsgd:barrier=global",
]
NODES, STEPS = 8, 24
PARTNERS = np.random.default_rng(0).integers(1, NODES, size=(STEPS * 4, NODES))
PARTNERS = (np.arange(NODES)[None, :] + PARTNERS) % NODES
HANDMADE = {
    "pairwise": handmade.pairwise(PARTNERS),
    "pairwise, numbered": handmade.pairwise(PARTNERS, numbered=True),
    "server": handmade.server(2),
    "asynchronous server": handmade.asynchronous_server(),
    "bounded staleness": handmade.bounded_staleness(1),
    "push-sum": handmade.push_sum(np.full((NODES, NODES), 1 / NODES)),
    "loudest": handmade.loudest(),
}
ALL = [*SHIPPED, *HANDMADE]


def test_the_list_covers_the_table():
    assert {spec.split(":")[0] for spec in SHIPPED} == set(POLICIES)


@functools.cache  # one policy, one compilation for all the tests of it
def policy_of(name):
    return HANDMADE[name] if name in HANDMADE else build_policy(name)


def sample(key, worker, started):
    return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, worker), started), (4,))


def gradient_fn(params, batch):
    error = params["x"] - batch
    return {"x": error, "bias": params["bias"] - 0.1}, (error**2).sum(), None


def update_fn(gradient, local, params):
    return jax.tree.map(lambda leaf: -0.1 * leaf, gradient), local + 1


LEARNER = Learner(lambda params: jnp.zeros((), jnp.int32), gradient_fn, update_fn)
PARAMS = {"x": jnp.zeros(4), "bias": jnp.ones(())}


def world_of(name, seed=0, slots=None):
    graph = graphs.random_regular(NODES, degree=4, seed=seed)
    if "server" in name or "staleness" in name:
        graph = graphs.complete(NODES)._replace(computes=jnp.arange(NODES) < NODES - 1)
    if slots:
        graph = graphs.pad(graph, slots)
    delays = laws.delays("shifted_exponential:shift=0.2,rate=1", NODES, 0)
    return World(graph, delays, Partial(sample), jax.random.key(seed))


def whole(name, seed=0, slots=None):
    policy, world = policy_of(name), world_of(name, seed, slots)
    return simulate.run(policy, LEARNER, world, simulate.init(policy, LEARNER, world, PARAMS), STEPS)


def bitwise(first, second):
    chex.assert_trees_all_equal_structs(first, second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def dense_of(plan):
    """Each step's mixing as a full [N, N] matrix, rows that are not written being the identity."""
    matrices = []
    for k in range(len(plan.duration)):
        matrix = np.eye(NODES)
        rows = np.arange(NODES) if plan.rows is None else plan.rows[k]
        for r, row in enumerate(rows):
            if row < NODES:
                matrix[row] = 0
                for s, weight in enumerate(plan.mix[k][r]):
                    matrix[row, s if plan.sources is None else plan.sources[k][r][s]] += weight
        matrices.append(matrix)
    return np.stack(matrices)


def plans_of(name, steps=STEPS):
    policy, world = policy_of(name), world_of(name)
    _, plans = timelines.timeline(policy, world, clock.init(policy, world.graph, world.delays, world.key), steps)
    return jax.device_get(plans)


@pytest.mark.parametrize("name", [name for name in ALL if name != "loudest"])
def test_rows_sum_to_one_and_columns_where_promised(name):
    plans = plans_of(name)
    matrices = dense_of(plans)
    np.testing.assert_allclose(matrices.sum(axis=2), 1, atol=1e-6)
    doubly = name in SHIPPED and POLICIES[name.split(":")[0]].mixing == "doubly"
    if doubly or name in ("push-sum", "pairwise"):
        np.testing.assert_allclose(matrices.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(matrices, matrices.transpose(0, 2, 1), atol=1e-6)
    assert (plans.duration >= 0).all()
    assert np.isfinite(plans.duration).all()
    if plans.received is not None:
        taken = (matrices != 0) & ~np.eye(NODES, dtype=bool)
        np.testing.assert_array_equal(plans.received, taken.sum(axis=2))
        assert plans.rows is None


@pytest.mark.parametrize("name", ALL)
def test_the_state_is_a_fixed_point_of_shapes(name):
    policy, world = policy_of(name), world_of(name)
    state = simulate.init(policy, LEARNER, world, PARAMS)
    after, _ = jax.eval_shape(lambda s: simulate.run(policy, LEARNER, world, s, 1), state)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


@pytest.mark.parametrize("name", ["dybw", "backup:b=1", "deadline:seconds=0.5,late=carry", "dpsgd", *HANDMADE])
def test_jit_is_no_jit(name):
    policy, world = policy_of(name), world_of(name)
    state = simulate.init(policy, LEARNER, world, PARAMS)

    def one(state):
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock, state.feedback)
        model, info = learning.step(LEARNER, world.batches, plan, state.model, world.key)
        return plan, ticking, model, info

    slow, fast = one(state), jax.jit(one)(state)
    chex.assert_trees_all_close(slow, fast, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ALL if name != "loudest"])
def test_replay_of_the_timeline_is_the_run(name, tmp_path):
    final, record = whole(name)
    timelines.save(tmp_path / "plans.npz", plans_of(name))
    plans = jax.tree.map(jnp.asarray, timelines.load(tmp_path / "plans.npz"))
    policy, world = policy_of(name), world_of(name)
    model = learning.init(LEARNER, policy, PARAMS, NODES)
    model, replayed = timelines.replay(LEARNER, world._replace(delays=None), model, plans)
    np.testing.assert_array_equal(record.duration, replayed.duration)
    np.testing.assert_array_equal(record.active, replayed.active)
    chex.assert_trees_all_close(final.model, model, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_vmap_over_graphs_is_a_loop(name):
    policy = policy_of(name)
    slots = 9 if "server" not in name and "staleness" not in name else None
    worlds = [world_of(name, seed, slots) for seed in range(3)]
    states = [simulate.init(policy, LEARNER, world, PARAMS) for world in worlds]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    batched = jax.vmap(lambda world, state: simulate.run(policy, LEARNER, world, state, STEPS))
    final, record = batched(stack(worlds), stack(states))
    for i in range(3):
        alone, alone_record = whole(name, i)
        np.testing.assert_allclose(record.duration[i], alone_record.duration, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(record.active[i], alone_record.active)
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[i], final.model), alone.model, rtol=1e-5, atol=1e-5)  # noqa: B023


@pytest.mark.parametrize("name", ALL)
def test_traced_once(name):
    chex.clear_trace_counter()
    made = policy_of(name)
    policy = made._replace(decide=chex.assert_max_traces(made.decide, n=1))
    world = world_of(name)
    state = simulate.init(policy, LEARNER, world, PARAMS)
    for _ in range(3):
        state, _ = simulate.run(policy, LEARNER, world, state, 4)


def test_settings_are_arrays_so_that_a_sweep_is_a_vmap():
    world = world_of("fastest")
    policy = build_policy("fastest:k=1")
    start = clock.init(policy, world.graph, world.delays, world.key)
    sweep = jnp.arange(1, NODES + 1)
    run = jax.vmap(
        lambda k: timelines.timeline(policy, world, start._replace(policy=start.policy._replace(rule=k)), 9)[1]
    )
    durations = np.asarray(run(sweep).duration)
    for k in range(1, NODES + 1):
        alone = build_policy(f"fastest:k={k}")
        begin = clock.init(alone, world.graph, world.delays, world.key)
        _, plans = timelines.timeline(alone, world, begin, 9)
        np.testing.assert_array_equal(durations[k - 1], plans.duration)


@pytest.mark.parametrize("name", [name for name in SHIPPED if POLICIES[name.split(":")[0]].mixing == "doubly"])
def test_mixing_leaves_the_mean_alone(name):
    plans = plans_of(name)
    x = np.random.default_rng(0).normal(size=(NODES, 5)).astype(np.float32)
    for k in range(STEPS):
        plan = jax.tree.map(lambda leaf: leaf[k], plans)  # noqa: B023
        mixed = mix(plan.mix, plan.sources, jnp.asarray(x))
        np.testing.assert_allclose(mixed.mean(axis=0), x.mean(axis=0), atol=1e-5)
