"""A batch is its simulations: delays, plans and active sets to the last bit, parameters to rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax.engine import batch, clock, ensemble, simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.tasks import build_task
from dbwjax.types import Policy
from tests import handmade

WORKERS, STEPS = 8, 100
SPECS = ("ring", "complete", "erdos_renyi:p=0.4", "star")


def columns():
    matrix = np.random.default_rng(0).random((WORKERS, WORKERS))
    return matrix / matrix.sum(axis=0)


def partners():
    return (np.arange(WORKERS)[None] + np.random.default_rng(0).integers(1, WORKERS, (STEPS, WORKERS))) % WORKERS


POLICIES = {
    "synchronous": build_policy("dybw"),
    "neighbours": build_policy("backup:b=0"),
    "event-driven": handmade.pairwise(partners(), numbered=True),
    "directed": handmade.push_sum(columns()),
}


def many():
    """Worlds of four graphs of different degrees, two seeds and two laws' parameters, with one data set."""
    task = build_task("logistic", workers=WORKERS, batch_size=4)
    nets = [graphs.pad(graphs.build_graph(spec, WORKERS), WORKERS) for spec in SPECS]
    laws = [delays.delays(f"shifted_exponential:rate={rate}", WORKERS) for rate in (1, 2)]
    worlds = [
        simulate.World(net, law, task.batches, jax.random.key(seed)) for net in nets for law in laws for seed in (0, 1)
    ]
    return task, worlds


@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_is_its_simulations(x64, name):
    policy = POLICIES[name]
    task, worlds = many()
    learner = from_optimizer(task.loss, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    params = [task.init(stream(world.key, Stream.PARAMETERS)) for world in worlds]
    together = batch.stack(worlds)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    sims = ensemble.init(policy, learner, together, states, batch.stack_all(params))
    sims, records = ensemble.run_batch(policy, learner, together, sims, STEPS)
    for place, (world, one) in enumerate(zip(worlds, params, strict=True)):
        state, record = simulate.run(policy, learner, world, simulate.init(policy, learner, world, one), STEPS)
        for field in ("duration", "active", "backup_workers", "gradients"):
            np.testing.assert_array_equal(getattr(records, field)[place], getattr(record, field), err_msg=field)
        np.testing.assert_array_equal(sims.clock.remaining[place], state.clock.remaining)
        for ours, theirs in zip(jax.tree.leaves(sims.model.params), jax.tree.leaves(state.model.params), strict=True):
            np.testing.assert_allclose(ours[place], theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["synchronous", "event-driven"])
def test_clocks_alone_are_those_of_training(name):
    policy = POLICIES[name]
    _, worlds = many()
    together = batch.stack(worlds)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    clocks, records = ensemble.clock_batch(policy, together, ensemble.start(together, states), STEPS)
    for place, world in enumerate(worlds):
        state = clock.init(policy, world.graph, world.delays, world.key)
        for step in range(3):
            plan, state = clock.tick(policy, world.graph, world.delays, world.key, state)
            alone = simulate.record(world.graph, plan)
            assert records.duration[place, step] == alone.duration
            assert records.active[place, step] == alone.active.sum()
            assert records.backup_workers[place, step] == pytest.approx(float(alone.backup_workers), rel=1e-6)
    assert (clocks.step == STEPS).all()


def test_one_trace_for_a_shape_and_a_policy():
    _, worlds = many()
    traced = []

    def decide(*arguments):
        traced.append(1)
        return POLICIES["synchronous"].decide(*arguments)

    counted = Policy(POLICIES["synchronous"].init, decide)
    together = batch.stack(worlds)
    states = batch.stack_all([counted.init(world.graph) for world in worlds])
    for first in range(0, len(worlds), 4):  # as a sweep walks a group
        which = np.arange(first, first + 4)
        some, own = batch.take(together, which), jax.tree.map(lambda leaf, which=which: leaf[which], states)
        ensemble.clock_batch(counted, some, ensemble.start(some, own), 10)
    assert len(traced) == 1


def test_what_is_common_is_kept_once():
    task, worlds = many()
    together = batch.stack(worlds)
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(task.batches))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(together.tree.batches)) == data
    assert together.tree.key.shape == (len(worlds),)
    alone = batch.alone(batch.take(together, np.array([3, 5])), 1)
    assert (jax.random.key_data(alone.key) == jax.random.key_data(worlds[5].key)).all()
    np.testing.assert_array_equal(alone.graph.neighbours, worlds[5].graph.neighbours)


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="different shapes cannot be one batch"):
        batch.stack([jnp.zeros(3), jnp.zeros(4)])
    with pytest.raises(ValueError, match="reads training"):
        ensemble.clock_batch(handmade.loudest(), batch.Batch(None, None), None, 3)
