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
from dbwjax.policies import build_policy
from dbwjax.tasks import build_task
from dbwjax.types import Policy
from tests import handmade
from tests.cases import EIGHT, HANDMADE, LEARNER, P, assert_same_course, several_worlds

STEPS = 100


def columns():
    matrix = np.random.default_rng(0).random((EIGHT, EIGHT))
    return matrix / matrix.sum(axis=0)


POLICIES = {
    "synchronous": build_policy("dybw"),
    "neighbours": build_policy("backup:b=0"),
    "event-driven": HANDMADE["pairwise, numbered"],
    "directed": handmade.push_sum(columns()),
}


def many():
    """Worlds that differ in graph, law and seed, with the data of one task."""
    task = build_task("logistic", workers=EIGHT, batch_size=4)
    return task, several_worlds(task)


def learned(name):
    """Worlds, a learner and each world's parameters: one policy trains as users do, on data, with a rate that is part
    of the optimiser's state, the others on few numbers, which compiles in a third of the time."""
    if name != "synchronous":
        worlds = several_worlds()
        return worlds, LEARNER, [jnp.full(P, place, float) for place in range(len(worlds))]
    task, worlds = many()
    learner = from_optimizer(task.loss, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    return worlds, learner, [task.init(stream(world.key, Stream.PARAMETERS)) for world in worlds]


@pytest.mark.optimised
@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_is_its_simulations(x64, name):
    policy = POLICIES[name]
    worlds, learner, params = learned(name)
    together = batch.stack(worlds)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    sims = ensemble.init(policy, learner, together, states, batch.stack_all(params))
    sims, records = ensemble.run_batch(policy, learner, together, sims, STEPS)
    for place, (world, one) in enumerate(zip(worlds, params, strict=True)):
        state, record = simulate.run(policy, learner, world, simulate.init(policy, learner, world, one), STEPS)
        assert_same_course(records, place, record)
        np.testing.assert_array_equal(sims.clock.remaining[place], state.clock.remaining)
        for ours, theirs in zip(jax.tree.leaves(sims.model.params), jax.tree.leaves(state.model.params), strict=True):
            np.testing.assert_allclose(ours[place], theirs, atol=1e-6)


@pytest.mark.optimised
@pytest.mark.parametrize("name", ["synchronous", "event-driven"])
def test_clocks_alone_are_those_of_training(name):
    policy, worlds = POLICIES[name], several_worlds()
    together = batch.stack(worlds)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    clocks, records, iterations = ensemble.clock_batch(
        policy, together, ensemble.start(policy, together, states), STEPS
    )

    @jax.jit
    def alone(world, state):
        def one(state, _):
            plan, state = clock.tick(policy, world.graph, world.delays, world.key, state)
            return state, simulate.record(world.graph, plan)

        return jax.lax.scan(one, state, None, length=STEPS)[1]

    for place, world in enumerate(worlds):
        single = alone(world._replace(batches=None), clock.init(policy, world.graph, world.delays, world.key))
        np.testing.assert_array_equal(records.duration[place], single.duration)
        np.testing.assert_array_equal(records.active[place], single.active.sum(axis=1))
        if name == "synchronous":  # elsewhere the mean is over the few rows of an event
            np.testing.assert_array_equal(records.missed[place], np.rint(single.backup_workers * EIGHT))
    assert (clocks.step == STEPS).all()
    assert not records.past.any()
    np.testing.assert_array_equal(iterations.sum(axis=1), records.ended.sum(axis=1))
    if name == "synchronous":
        assert (iterations == STEPS).all()


@pytest.mark.optimised
@pytest.mark.parametrize("spec", ["dybw", "backup:b=1,gap=inf"])
def test_an_iteration_that_ends_at_the_deadline_counts_and_one_after_it_does_not(spec):
    """The deadline is a sum in float64 of durations in float32, as the host adds them up."""
    policy, worlds = build_policy(spec), several_worlds()
    together, places = batch.stack(worlds), np.arange(len(worlds))
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    begun = ensemble.start(policy, together, states)
    _, records, _ = ensemble.clock_batch(policy, together, begun, STEPS)
    ends = np.cumsum(np.asarray(records.duration, np.float64), axis=1)
    last = 20 + 4 * places  # steps, another number in each world
    at = ends[places, last - 1]
    counted = [
        ensemble.clock_batch(policy, together, begun, STEPS, None, seconds)[2] for seconds in (at, at * (1 - 1e-14))
    ]
    # The slowest does its last iteration at the deadline; a little earlier it does not.
    np.testing.assert_array_equal(np.min(counted[0], axis=1), last)
    np.testing.assert_array_equal(np.min(counted[1], axis=1), last - 1)
    if spec == "dybw":
        np.testing.assert_array_equal(np.max(counted[0], axis=1), last)


def test_one_trace_for_a_shape_and_a_policy():
    worlds = several_worlds()
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
        ensemble.clock_batch(counted, some, ensemble.start(counted, some, own), 10)
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
