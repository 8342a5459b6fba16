"""Many devices are one: the same delays, batches, plans and mixing to the last bit, the same parameters to rounding."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax.engine import batch, simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.sharding.shard import Devices, first_rows
from dbwjax.engine.simulate import World
from dbwjax.experiments.networks import Roles
from dbwjax.experiments.placing import CutAmongDevices, SideBySide
from dbwjax.experiments.rows import even_grid
from dbwjax.experiments.training import Training, UnreachableRow
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.tasks import build_task
from dbwjax.types import Learner, Policy
from tests import handmade
from tests.cases import PAIR, PAIR_LEARNER, samples

STEPS = 100


def make_world(task, graph, law, seed):
    return World(graph, law, task.batches, jax.random.key(seed))


def initial_params(task, world):
    return task.init(stream(world.key, Stream.PARAMETERS))


def partners(graph):
    rng, links = np.random.default_rng(0), np.asarray(graph.links)
    near = [np.asarray(graph.neighbours)[i][links[i]] for i in range(len(links))]
    return np.stack([[rng.choice(row) for row in near] for _ in range(STEPS)])


def columns(graph):
    matrix = np.random.default_rng(0).random((graph.links.shape[0],) * 2)
    return matrix / matrix.sum(axis=0)


POLICIES = {
    "dybw": lambda graph: build_policy("dybw"),
    "dybw, carried": lambda graph: build_policy("dybw:late=carry"),
    "neighbours": lambda graph: build_policy("backup:b=1"),
    "dpsgd": lambda graph: build_policy("dpsgd"),
    "projected": lambda graph: build_policy("subgradient:radius=0.3"),
    "event-driven": lambda graph: handmade.pairwise(partners(graph)),
    "event-driven, numbered": lambda graph: handmade.pairwise(partners(graph), numbered=True),
    "directed": lambda graph: handmade.push_sum(columns(graph)),
    "reads training": lambda graph: handmade.loudest(),
}


def small_setting(spec, workers):
    """A learner with two leaves and a local state, and few numbers as data, which compile in half the time."""
    graph = graphs.build_graph(spec, workers)
    law = delays.build_delays("shifted_exponential", workers)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), PAIR)
    return graph, PAIR_LEARNER, World(graph, law, samples(workers), jax.random.key(3)), params


def setting(spec, workers, policy):
    """As users train, on data, with a rate that is part of the optimiser's state."""
    graph = graphs.build_graph(spec, workers)
    task = build_task("logistic", workers=workers, batch_size=4)
    world = make_world(task, graph, delays.build_delays("shifted_exponential", workers), seed=3)
    learner = from_optimizer(task.loss, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    return POLICIES[policy](graph), learner, world, initial_params(task, world), task


OF_EACH_FAMILY = (
    *("server_backup:b=1", "k_batch_async:k=3", "ssp:bound=1", "dbw", "adpsgd", "acid", "token", "sgp", "agp"),
    *("hop:b=1,gap=3,staleness=1", "prague:group=3", "dsgd_aau", "matcha", "local_sgd:h=2", "dspodfl"),
    *("tracking", "d2:barrier=neighbours", "qgm", "dual_averaging"),
    *("choco", "choco:codec=top_k:fraction=0.5", "dcd:codec=random_k:fraction=0.5", "ecd"),
)

EXACT = (
    *(
        ("admm", "logistic:dimension=5"),
        ("ssda", "quadratic:dimension=5"),
        ("msda:rounds=3", "least_squares:dimension=5"),
    ),
    *(("mspd", "quadratic:dimension=5"), ("encoded", "least_squares:dimension=5")),
)


@pytest.mark.parametrize("spec", OF_EACH_FAMILY)
def test_methods_with_nodes_of_their_own_on_many_devices(x64, spec):
    """Twelve workers and whatever the method adds, cut among five devices."""
    policy = build_policy(spec)
    _, learner, world, params = small_setting("random_regular:degree=4", 12)
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)  # a coarse message makes ten roundings of one
    compare(policy, learner, simulate.networked(policy, world), params, 5)


@pytest.mark.parametrize(("spec", "dataset"), EXACT)
def test_methods_on_whole_objectives_on_many_devices(x64, spec, dataset):
    policy, workers = build_policy(spec), 12
    task = build_task(dataset, workers=workers, batch_size=4)
    graph = graphs.build_graph("random_regular:degree=4", workers)
    world = make_world(task, graph, delays.build_delays("shifted_exponential", workers), seed=3)
    world = simulate.networked(policy, world._replace(batches=policy.whole(task.objectives, workers)))
    learner = from_optimizer(task.loss, optax.sgd(0.1))._replace(oracle=task.oracle)
    compare(policy, learner, world, initial_params(task, world), 5)


def roles_of(world):
    computes = np.asarray(world.graph.computes)
    return Roles(computes, computes)


def servers(workers):
    """A star whose last node is a server that never computes."""
    star = graphs.star(workers + 1)
    flipped = np.asarray(graphs.adjacency(star))[::-1, ::-1]
    return graphs.from_adjacency(flipped, computes=np.arange(workers + 1) < workers)


@pytest.mark.parametrize(("spec", "workers", "count"), [("ring", 16, 8), ("erdos_renyi:p=0.4", 10, 4)])
@pytest.mark.parametrize("policy", POLICIES)
def test_many_devices_are_one(x64, spec, workers, count, policy):
    if policy == "dybw":
        rule, learner, world, params, _ = setting(spec, workers, policy)
    else:
        graph, learner, world, params = small_setting(spec, workers)
        rule = POLICIES[policy](graph)
    compare(rule, learner, world, params, count)


def compare(rule, learner, world, params, count):
    one, records = simulate.run(rule, learner, world, simulate.init(rule, learner, world, params), STEPS)
    devices = Devices(world.graph, jax.devices()[:count])
    everywhere = devices.replicate(world)
    many, found = devices.run(rule, learner, everywhere, devices.init(rule, learner, everywhere, params), STEPS)
    for name in ("duration", "active", "backup_workers", "gradients", "unreachable", "diverged_worker"):
        np.testing.assert_array_equal(getattr(found, name), getattr(records, name), err_msg=name)
    for ours, theirs in zip(jax.tree.leaves(one.clock), jax.tree.leaves(many.clock), strict=True):
        if rule.reads_training:  # what it reads is summed over devices
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(found.loss, records.loss, atol=1e-6)
    rows = first_rows(devices.order, world.graph.links.shape[0])
    np.testing.assert_array_equal(many.model.started, one.model.started)
    for name in ("params", "local", "origin"):
        stacks = jax.tree.leaves(getattr(one.model, name)), jax.tree.leaves(getattr(many.model, name))
        for ours, theirs in zip(*stacks, strict=True):
            np.testing.assert_allclose(np.asarray(theirs)[rows], ours, atol=1e-6)
    if one.model.mass is not None:
        np.testing.assert_allclose(many.model.mass, one.model.mass, atol=1e-12)


@pytest.mark.parametrize("rule", [handmade.server(2), handmade.asynchronous_server(), handmade.bounded_staleness(1)])
def test_servers_on_many_devices(x64, rule):
    task = build_task("logistic", workers=7, batch_size=4)
    world = make_world(task, servers(7), delays.build_delays("shifted_exponential", 7), seed=3)
    learner = from_optimizer(task.loss, optax.sgd(0.1))
    compare(rule, learner, world, initial_params(task, world), 4)


@pytest.mark.optimised
@pytest.mark.parametrize(("spec", "workers"), [("ring", 16), ("random_regular:degree=4", 30), ("complete", 16)])
@pytest.mark.parametrize(
    ("policy", "dtypes"),
    [("dybw", ("float32", "bfloat16")), ("event-driven", ("float32",)), ("dpsgd", ("bfloat16",))],
    ids=["dybw", "event-driven", "dpsgd"],
)
def test_batches_and_mixing_are_the_same_to_the_last_bit(spec, workers, policy, dtypes):
    """A learner whose update is the sum of its batch: what is compared is all that a step does but the gradient."""
    rule, _, world, _, _ = setting(spec, workers, policy)

    def gradient(params, local, batch):
        seen = sum(leaf.astype(jnp.float32).ravel()[0] for leaf in jax.tree.leaves(batch))
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, seen), params), jnp.zeros(()), None

    def update(gradient, local, params):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradient), local  # as optimisers of bfloat16 do

    learner = Learner(lambda params: (), gradient, update)
    shapes = {"w": jnp.linspace(-1, 1, 37), "b": jnp.linspace(0, 1, 5)}
    params = {dtype: jax.tree.map(lambda leaf: leaf.astype(dtype), shapes) for dtype in dtypes}  # noqa: B023
    one, _ = simulate.run(rule, learner, world, simulate.init(rule, learner, world, params), STEPS)
    devices = Devices(world.graph, jax.devices())
    everywhere = devices.replicate(world)
    many, _ = devices.run(rule, learner, everywhere, devices.init(rule, learner, everywhere, params), STEPS)
    rows = first_rows(devices.order, workers)
    for dtype, name in itertools.product(params, shapes):
        found, expected = (np.asarray(state.model.params[dtype][name]) for state in (many, one))
        assert found.dtype == jnp.dtype(dtype)
        if name == "w":
            assert np.ptp(expected.astype(np.float32), axis=0).max() > 0
        if name == "b" and jax.__version_info__ < (0, 8):
            # There XLA multiplies and adds in one rounding or in two as the shape of a narrow leaf has it.
            np.testing.assert_allclose(found[rows], expected, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found[rows], expected)


def test_a_program_is_traced_once():
    rule, learner, world, params, _ = setting("ring", 16, "dybw")
    traced = []

    def decide(*arguments):
        traced.append(1)
        return rule.decide(*arguments)

    counted = Policy(rule.init, decide)
    devices = Devices(world.graph, jax.devices())
    everywhere = devices.replicate(world)
    state = devices.init(counted, learner, everywhere, params)
    for _ in range(3):
        state, _ = devices.run(counted, learner, everywhere, state, 5)
    another = Devices(world.graph, jax.devices())
    devices.run(counted, learner, everywhere, another.init(counted, learner, everywhere, params), 5)
    assert len(traced) == 1


def test_a_row_that_no_link_carries_is_an_error():
    """Worker 0 of a ring listens to the worker opposite."""
    rule, learner, world, params, task = setting("ring", 16, "dybw")

    def decide(key, graph, state, remaining, feedback):
        plan, state = rule.decide(key, graph, state, remaining, feedback)
        return plan._replace(sources=plan.sources.at[0, 1].set(8), mix=plan.mix.at[0, 1].set(0.1)), state

    astray, _ = cut_training(Policy(rule.init, decide), learner, world, params, task, 8)
    with pytest.raises(UnreachableRow, match="reads a node that is no neighbour in the graph, at step 0"):
        astray.advance()


GRID = even_grid(60.0, 7)


def cut_training(rule, learner, world, params, task, count):
    devices = Devices(world.graph, jax.devices()[:count])
    everywhere, evaluate = devices.replicate((world, task.evaluate))
    place = CutAmongDevices(rule, learner, everywhere, evaluate, params, devices)
    return Training(place, [GRID], roles_of(world), own=True), devices


def whole_training(rule, learner, world, params, task):
    states, one = batch.stack_all([rule.init(world.graph)]), batch.stack_all([params])
    place = SideBySide(rule, learner, batch.stack([world]), batch.stack([task.evaluate]), states, one)
    return Training(place, [GRID], roles_of(world), own=True)


@pytest.mark.parametrize("rule", ["directed", "backup:b=1,gap=inf", "full:barrier=neighbours", "reads training"])
def test_rows_are_those_of_one_device(rule):
    name = rule if rule in POLICIES else "dybw"
    policy, learner, world, params, task = setting("erdos_renyi:p=0.4", 10, name)
    policy = policy if rule in POLICIES else build_policy(rule)
    alone, (cut, _) = (
        whole_training(policy, learner, world, params, task),
        cut_training(policy, learner, world, params, task, 4),
    )
    rows = [[], []]
    for found, training in zip(rows, (alone, cut), strict=True):
        while not training.done:
            found += [row for _, row in training.advance()]
    assert len(rows[0]) == len(GRID)
    for ours, theirs in zip(*rows, strict=True):
        for key in ours.keys() - {"wall_time"}:
            assert (theirs[key] is None) == (ours[key] is None), key
            if ours[key] is not None:
                assert theirs[key] == pytest.approx(ours[key], rel=2e-5, abs=1e-6), key
    np.testing.assert_array_equal(alone.accounts[0].active, cut.accounts[0].active)
    held = [jax.tree.leaves(one.place.own(one.held)) for one in (alone, cut)]
    for ours, theirs in zip(*held, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)
