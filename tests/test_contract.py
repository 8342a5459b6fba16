"""What every policy promises, over the whole table: one test per promise, all policies, several settings."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine import timeline as timelines
from dbwjax.engine.mixing import mix, write_rows
from dbwjax.policies import POLICIES
from tests import cases
from tests.cases import EVERY_POLICY, HANDMADE, PAIR, PAIR_LEARNER, SHIPPED, named, policy_of, world_of

NODES, STEPS = cases.EIGHT, 24
WITH_TIMELINE = [name for name in EVERY_POLICY if not named(name).reads_training]
DOUBLY = [name for name in SHIPPED if POLICIES[name.split(":")[0]].mixing == "doubly"]


def test_the_list_covers_the_table():
    assert {spec.split(":")[0] for spec in SHIPPED} == set(POLICIES)


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def run(policy, world, state, steps):
    return simulate.run(policy, PAIR_LEARNER, world, state, steps)


@functools.partial(jax.jit, static_argnames=("policy",))
def run_many(policy, worlds, states):
    return jax.vmap(lambda world, state: simulate.run(policy, PAIR_LEARNER, world, state, STEPS))(worlds, states)


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def timeline(policy, world, state, steps):
    return timelines.timeline(policy, world, state, steps)[1]


@functools.partial(jax.jit, static_argnames=("learner",))
def replay(learner, world, model, plans):
    return timelines.replay(learner, world, model, plans)


@functools.cache
def whole(name, seed=0):
    """The state after `STEPS` steps, and their records."""
    policy, world = named(name), world_of(name, seed)
    return jax.device_get(run(policy, world, simulate.init(policy, PAIR_LEARNER, world, PAIR), STEPS))


@functools.cache
def plans_of(name):
    policy, world = named(name), world_of(name)
    return jax.device_get(timeline(policy, world, clock.init(policy, world.graph, world.delays, world.key), STEPS))


def nodes_of(name):
    return world_of(name).graph.neighbours.shape[0]


def sums_of(name):
    """Which sums of a policy's matrices are one: as its row of the table says."""
    by_hand = {"push-sum": "doubly", "pairwise": "doubly", "pairwise, numbered": "doubly"}
    return by_hand.get(name, "row") if name in HANDMADE else POLICIES[name.split(":")[0]].mixing


def dense_of(plan, nodes):
    """Each step's mixing as a full [N, N] matrix, rows that are not written being the identity."""
    matrices = []
    for k in range(len(plan.duration)):
        matrix = np.eye(nodes)
        rows = np.arange(nodes) if plan.rows is None else plan.rows[k]
        for r, row in enumerate(rows):
            if row < nodes:
                matrix[row] = 0
                for s, weight in enumerate(plan.mix[k][r]):
                    matrix[row, s if plan.sources is None else plan.sources[k][r][s]] += weight
        matrices.append(matrix)
    return np.stack(matrices)


@pytest.mark.parametrize("name", WITH_TIMELINE)
def test_rows_sum_to_one_and_columns_where_promised(name):
    plans = plans_of(name)
    nodes, sums = nodes_of(name), sums_of(name)
    matrices = dense_of(plans, nodes)
    if sums != "column":
        np.testing.assert_allclose(matrices.sum(axis=2), 1, atol=1e-6)
    if sums != "row":
        np.testing.assert_allclose(matrices.sum(axis=1), 1, atol=1e-6)
    if sums == "doubly":
        np.testing.assert_allclose(matrices, matrices.transpose(0, 2, 1), atol=1e-6)
    assert (plans.duration >= 0).all()
    assert np.isfinite(plans.duration).all()
    if plans.received is not None:
        taken = (matrices != 0) & ~np.eye(nodes, dtype=bool)
        np.testing.assert_array_equal(plans.received, taken.sum(axis=2))
        assert plans.rows is None


@pytest.mark.parametrize("name", EVERY_POLICY)
def test_the_state_is_a_fixed_point_of_shapes(name):
    state = simulate.init(named(name), PAIR_LEARNER, world_of(name), PAIR)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.device_get(state), whole(name)[0])


@pytest.mark.parametrize("name", ["dybw", "backup:b=1", "deadline:seconds=0.5,late=carry", "dpsgd", *HANDMADE])
def test_jit_is_no_jit(name):
    policy, world = named(name), world_of(name)
    state = simulate.init(policy, PAIR_LEARNER, world, PAIR)

    def one(state):
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock, state.feedback)
        learner = learning.equipped(PAIR_LEARNER, policy)
        model, info = learning.step(learner, world.batches, plan, state.model, world.key, idles=policy.idles)
        return plan, ticking, model, info

    slow, fast = one(state), jax.jit(one)(state)
    chex.assert_trees_all_close(slow, fast, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WITH_TIMELINE)
def test_replay_of_the_timeline_is_the_run(name, tmp_path):
    final, record = whole(name)
    timelines.save(tmp_path / "plans.npz", plans_of(name))
    plans = jax.tree.map(jnp.asarray, timelines.load(tmp_path / "plans.npz"))
    policy, world = named(name), world_of(name)
    learner = learning.equipped(PAIR_LEARNER, policy)
    model = learning.init(PAIR_LEARNER, policy, PAIR, nodes_of(name))
    model, replayed = replay(learner, world._replace(delays=None), model, plans)
    np.testing.assert_array_equal(record.duration, replayed.duration)
    np.testing.assert_array_equal(record.active, replayed.active)
    # D2 adds up the rounding of every mixing, and two programs round differently.
    close = 1e-5 if name.startswith("d2") else 1e-6
    chex.assert_trees_all_close(final.model, model, rtol=close, atol=close)


@pytest.mark.parametrize("name", EVERY_POLICY)
def test_vmap_over_graphs_is_a_loop(name):
    policy = named(name)
    slots = None if cases.has_server(name) else NODES + 1
    worlds = [world_of(name, seed, slots) for seed in range(3)]
    states = [simulate.init(policy, PAIR_LEARNER, world, PAIR) for world in worlds]
    final, record = jax.device_get(run_many(policy, cases.stacked(worlds), cases.stacked(states)))
    for i in range(3):
        alone, alone_record = whole(name, i)
        np.testing.assert_allclose(record.duration[i], alone_record.duration, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(record.active[i], alone_record.active)
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[i], final.model), alone.model, rtol=1e-5, atol=1e-5)  # noqa: B023


@pytest.mark.parametrize("name", EVERY_POLICY)
def test_chunks_are_the_run_and_one_trace(name):
    """As users compile it: `test_chunked.py`, for some of them."""
    cases.assert_chunks_are_the_run(run, name, STEPS, chunks=3)


def test_settings_are_arrays_so_that_a_sweep_is_a_vmap():
    world = world_of("fastest:k=1")
    policy = policy_of("fastest:k=1")
    start = clock.init(policy, world.graph, world.delays, world.key)

    @jax.jit
    @jax.vmap
    def over(k):
        return timelines.timeline(policy, world, start._replace(policy=start.policy._replace(rule=k)), 9)[1].duration

    durations = np.asarray(over(jnp.arange(1, NODES + 1)))
    for k in range(1, NODES + 1):
        alone = policy_of(f"fastest:k={k}")
        begin = clock.init(alone, world.graph, world.delays, world.key)
        np.testing.assert_array_equal(durations[k - 1], timeline(alone, world, begin, 9).duration)


@pytest.mark.parametrize("name", DOUBLY)
def test_mixing_leaves_the_mean_alone(name):
    plans = plans_of(name)
    x = np.random.default_rng(0).normal(size=(nodes_of(name), 5)).astype(np.float32)
    for k in range(STEPS):
        plan = jax.tree.map(lambda leaf: leaf[k], plans)  # noqa: B023
        mixed = write_rows(plan.rows, jnp.asarray(x), mix(plan.mix, plan.sources, jnp.asarray(x)))
        np.testing.assert_allclose(mixed.mean(axis=0), x.mean(axis=0), atol=1e-5)
