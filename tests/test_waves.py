"""Events in wide steps are the events one by one: waves to the last bit, blocks to rounding; in trainings and runs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax import replay, train, train_policy
from dbwjax.engine import ahead, batch, clock, ensemble, simulate, timeline, wide
from dbwjax.engine import learner as learning
from dbwjax.engine.ahead import Way
from dbwjax.engine.composition import compositions
from dbwjax.engine.readings import Due
from dbwjax.engine.sharding.shard import Devices
from dbwjax.engine.simulate import World
from dbwjax.engine.waves import Width, events_of, scheduled, waves, width_of
from dbwjax.experiments import run as experiments_run
from dbwjax.experiments import training as trainings
from dbwjax.experiments.placing import CutAmongDevices
from dbwjax.experiments.training import Training
from dbwjax.experiments.ways import way_of
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.tasks.synthetic import quadratic
from dbwjax.types import Plan
from tests.cases import PAIR_LEARNER, P, assert_bitwise, samples
from tests.eventful_servers import k_async, stale_synchronous
from tests.run_folder import assert_same, rows
from tests.test_accelerators import lowered

NODES, EVENTS = 16, 240
WIDTH = Width(4, 6)
GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.3, seed=3),
    "complete": lambda: graphs.complete(NODES),
}
POLICIES = {
    "pairs": build_policy("adpsgd"),
    "staleness": stale_synchronous(1, stale=True),
    "staleness, no copies": stale_synchronous(1, stale=False),
    "k-async": k_async(3),
}


def world_of(policy, graph):
    net = graphs.pad(GRAPHS[graph](), NODES)
    law = laws.build_delays("shifted_exponential:shift=0.2,rate=1", NODES, 0)
    return simulate.networked(policy, World(net, law, samples(NODES + 2), jax.random.key(1)))


def no_readings(nodes, steps=EVENTS):
    first, one = np.zeros((1, steps + 1), np.int32), np.zeros((1, 1), np.int32)
    return Due(first, one, one, np.zeros((1, 1, nodes), np.float32), np.zeros((1, 1), np.float32), first, one, one)


def pair():
    """One worker's parameters, in the default float type."""
    return {"x": jnp.zeros(P), "bias": jnp.ones(())}


def both(policy, world, how, steps=EVENTS):
    """The state and the losses of a run event by event, and in wide steps."""
    nodes = world.graph.neighbours.shape[0]
    state = simulate.init(policy, PAIR_LEARNER, world, pair())
    kept = jax.tree.map(lambda leaf: jnp.copy(leaf)[None], state)
    after, record = jax.device_get(simulate.run(policy, PAIR_LEARNER, world, state, steps))
    held = ensemble.no_readings(pair(), 1, None)
    given = batch.stack([world]), kept, held, no_readings(nodes, steps), np.array([steps])
    other, _, seen = wide.advance(policy, PAIR_LEARNER, *given, Way(how, WIDTH, 2))
    other = jax.tree.map(lambda leaf: leaf[0], jax.device_get(other))
    return (after, record.loss), (other, seen.loss[0])


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("how", ["waves", "composition"])
def test_wide_steps_are_the_events(x64, policy, graph, how):
    """Parameters, local states, losses by event, who started what, and where the clock stands."""
    (one, losses), (many, others) = both(POLICIES[policy], world_of(POLICIES[policy], graph), how)
    for field in ("params", "local", "origin"):
        for a, b in zip(*(jax.tree.leaves(getattr(state.model, field)) for state in (one, many)), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12, err_msg=field)
    np.testing.assert_allclose(others, losses, rtol=1e-12, atol=1e-12)
    assert_bitwise((one.model.started, one.clock), (many.model.started, many.clock))


@pytest.mark.optimised
@pytest.mark.parametrize("policy", ["pairs", "staleness"])
def test_waves_are_the_events_bitwise(policy):
    """Where nothing is summed up over parameters: all but the loss."""
    (one, losses), (many, others) = both(POLICIES[policy], world_of(POLICIES[policy], "random"), "waves")
    assert_bitwise(one, many)
    np.testing.assert_allclose(others, losses, rtol=1e-6)


@functools.cache
def plans_of(name):
    policy = POLICIES[name]
    world = world_of(policy, "random")
    state = clock.init(policy, world.graph, world.delays, world.key)
    _, plans = timeline.timeline(policy, world._replace(batches=None), state, EVENTS)
    return jax.device_get(plans), np.asarray(world.graph.computes)


def test_waves_or_blocks_are_chosen_by_what_is_wide():
    for name, how in (("pairs", "waves"), ("staleness", "composition"), ("k-async", "composition")):
        plans, computes = plans_of(name)
        assert ahead.chosen(POLICIES[name], plans, computes, forced=True).how == how
        assert ahead.chosen(POLICIES[name], plans, computes) is None  # two events a step are not wide
        assert ahead.chosen(POLICIES[name], plans, computes, "waves").how == "waves"
    assert width_of(256, False) == Width(32, 32)


# Any plans at all


def random_plans(seed, nodes=8, steps=60, at=False):
    """Events that name whom they like: whether they make sense is not asked."""
    rng = np.random.default_rng(seed)

    def some(*shape, most=nodes):
        return rng.integers(0, most, (steps, *shape)).astype(np.int32)

    rows = np.argsort(rng.random((steps, nodes)), axis=1)[:, :2].astype(np.int32)
    weights = rng.dirichlet(np.ones(2), (steps, 2)) * rng.choice([0.0, 1.0], (steps, 2, 2), p=[0.3, 0.7])
    return Plan(
        duration=np.zeros(steps),
        fresh=rng.random((steps, 1)) < 0.7,
        mix=weights,
        sources=some(2, 2),
        push=rng.choice([0.0, 0.5, 1.0], (steps, 2, 1)),
        workers=some(1),
        at=some(1) if at else None,
        rows=np.where(rng.random((steps, 2)) < 0.2, nodes, rows).astype(np.int32),
        restart=some(1, most=nodes + 1),
    )


@functools.partial(jax.jit, static_argnames=("stale",))
def replayed(plans, batches, stale):
    policy = build_policy("adpsgd")._replace(stale=stale)
    state = learning.init(PAIR_LEARNER, policy, pair(), 8)
    state = state._replace(
        params=jax.tree.map(lambda leaf: leaf + jnp.arange(8.0).reshape(8, *[1] * (leaf.ndim - 1)), state.params)
    )

    def one(state, plan):
        return learning.step(PAIR_LEARNER, batches, plan, state, jax.random.key(0))

    state, info = jax.lax.scan(one, state, plans)
    return state, info.loss


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("stale", "at"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("how", ["waves", "composition"])
def test_random_conflicts(x64, how, stale, at, seed):
    plans = random_plans(seed, at=at)
    steps, barrier = len(plans.fresh), np.random.default_rng(seed).random(60) < 0.05
    events = events_of(plans, 8)
    found = waves(events, barrier, WIDTH) if how == "waves" else compositions(events, barrier, WIDTH, stale, 8)
    state, losses = replayed(plans, samples(8), stale)
    filled = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[:0]]), found.plans)
    other, wide_losses = replayed(_filled(filled, 60), samples(8), stale)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)
    own = np.zeros(steps + 1)
    own[found.events] = np.asarray(wide_losses)[: len(found.events)]
    np.testing.assert_allclose(own[:-1], losses[:, 0], rtol=1e-12, atol=1e-12)


def _filled(plans, length, nodes=8):
    """`[W, ...]` to a common length, so that one program is compiled: steps of nobody at the end."""
    nobody = {"workers": nodes, "rows": nodes, "restart": nodes}
    return Plan(
        **{
            name: None
            if leaf is None
            else np.concatenate([leaf, np.full((length - len(leaf), *leaf.shape[1:]), nobody.get(name, 0), leaf.dtype)])
            for name, leaf in plans._asdict().items()
        }
    )


@pytest.mark.parametrize("seed", range(20))
def test_waves_keep_the_order_of_whatever_depends(seed):
    """Events change their order only where no node is written by one and touched by the other; barriers hold; no wave
    is wider than it may be."""
    events = events_of(random_plans(seed, at=True), 8, steps := 55)
    barrier = np.random.default_rng(seed).random(60) < 0.1
    place, before = scheduled(events, barrier, WIDTH)
    fresh = [{events.worker[e]} if events.fresh[e] else set() for e in range(steps)]
    written = [({*events.rows[e], *events.restart[e]} | fresh[e]) - {8} for e in range(steps)]
    read = [({*events.sources[e].ravel()} | ({events.at[e]} if events.fresh[e] else set())) - {8} for e in range(steps)]
    for later in range(steps):
        for earlier in range(later):
            if written[earlier] & (written[later] | read[later]):
                assert place[earlier] < place[later]
            elif read[earlier] & written[later]:
                assert place[earlier] <= place[later]
        if barrier[later]:
            assert place[:later].max(initial=-1) < before[later] <= place[later:steps].min()
    assert np.bincount(place[:steps]).max() <= WIDTH.events
    assert np.bincount(place[:steps], events.fresh[:steps]).max() <= WIDTH.updates


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(("name", "how"), [("pairs", "waves"), ("k-async", "composition")])
def test_wide_steps_lower_for_accelerators(platform, name, how):
    """Which is where they are meant for."""
    policy, (plans, computes) = POLICIES[name], plans_of(name)
    world = batch.stack([world_of(policy, "random")])
    nodes, way = len(computes), ahead.chosen(policy, plans, computes, how)
    state = simulate.init(policy, PAIR_LEARNER, batch.alone(world, 0), pair())
    models = jax.tree.map(lambda leaf: leaf[None], state.model)
    found = ahead.made(policy, way, plans, EVENTS, np.zeros(EVENTS, bool), nodes)
    steps = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (found.plans, found.events))
    due = no_readings(nodes, len(found.events))
    arguments = world.tree, batch.Axes(world.axes), models, ensemble.no_readings(pair(), 1, None), due, steps
    lowered(wide._advance, platform, policy, PAIR_LEARNER, *arguments, np.ones(1, np.int32), EVENTS, None)


# Trainings


def trained(policy, wide=None, workers=NODES, seconds=12.0, **more):
    task = quadratic(dimension=5, workers=workers, batch_size=2)
    law = laws.build_delays("shifted_exponential:shift=0.3,rate=1", workers)
    graph = graphs.erdos_renyi(workers, p=0.4, seed=3)
    optimizer = build_optimizer("momentum", 0.05)
    return train_policy(policy, task, graph, law, optimizer, seconds=seconds, rows=9, wide=wide, **more)


def assert_close(first, second, rtol=1e-5):
    assert len(first.rows) == len(second.rows)
    for one, other in zip(first.rows, second.rows, strict=True):
        for name, value in one.items():
            if name == "wall_time":
                continue
            if isinstance(value, float):
                np.testing.assert_allclose(other[name], value, rtol=rtol, atol=rtol, err_msg=name)
            else:
                assert other[name] == value, name
    for a, b in zip(
        jax.tree.leaves((first.params, first.model)), jax.tree.leaves((second.params, second.model)), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol)
    for name in ("duration", "active", "backup_workers", "length", "workers"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name), err_msg=name)


@pytest.mark.parametrize("policy", ["pairs", "staleness, no copies", "k-async"])
def test_a_training_in_wide_steps_has_the_same_rows(policy):
    assert_close(trained(POLICIES[policy], wide=False), trained(POLICIES[policy], wide=True))


@pytest.mark.parametrize("policy", ["pairs", "staleness"])
def test_rows_do_not_depend_on_the_chunk(monkeypatch, policy):
    """A chunk of events is longer than one of steps of everybody; its end is the end of a wide step."""
    steps, before = [], Training.advance

    def advance(self):
        steps.append(self.chunk)
        return before(self)

    monkeypatch.setattr(Training, "advance", advance)
    whole = {wide: trained(POLICIES[policy], wide) for wide in (False, True)}
    assert set(steps) == {1600 if policy == "pairs" else 1700}
    monkeypatch.setattr(trainings, "CHUNK", 2)
    for together, found in whole.items():
        cut = trained(POLICIES[policy], together)
        assert_close(found, cut, rtol=1e-5 if together else 1e-15)


def test_wide_steps_of_no_events_are_refused():
    with pytest.raises(ValueError, match="wide=True, and the steps of this policy are no events of single workers"):
        trained("full", wide=True)
    policy, task = POLICIES["pairs"], quadratic(dimension=5, workers=NODES, batch_size=2)
    world = world_of(policy, "ring")._replace(batches=task.batches)
    learner = learning.from_optimizer(task.loss, build_optimizer("sgd", 0.1))
    cut = Devices(world.graph, jax.devices()[:1])
    place = CutAmongDevices(policy, learner, *cut.replicate((world, task.evaluate)), jnp.zeros(5), cut)
    assert way_of(place, None, 10) is None
    with pytest.raises(ValueError, match="use --wide auto, or --devices 1$"):
        way_of(place, True, 10)


# Runs


class Killed(BaseException):
    """Stands for a process that dies."""


WORDS = [
    *("--workers", "16", "--graph", "complete", "--dataset", "logistic:dimension=4,samples=160", "--no-progress"),
    *("--policies", "adpsgd", "--seconds", "40", "--rows", "6", "--seeds", "2", "--checkpoint-every", "1"),
]


def test_a_run_in_wide_steps_goes_on_and_is_replayed_bitwise(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(experiments_run, "write_figures", lambda path, *_, **__: [path / "summary.png"])
    monkeypatch.setattr(trainings, "CHUNK", 8)
    for name, how in (("off", "off"), ("on", "on")):
        assert train.main([*WORDS, "--wide", how, "--out", str(tmp_path / name)]) == 0
    for one, other in zip(rows(tmp_path / "off"), rows(tmp_path / "on"), strict=True):
        assert {**one, "wall_time": 0}.keys() == other.keys()
        for name, value in one.items():
            same = np.isclose(other[name], value, rtol=1e-5) if isinstance(value, float) else other[name] == value
            assert same, name
    calls, before = [], Training.advance

    def dying(self):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return before(self)

    words = [*WORDS, "--wide", "on", "--out", str(tmp_path / "killed")]
    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", dying)
        with pytest.raises(Killed):
            train.main(words)
    assert train.main(words) == 0
    assert_same(tmp_path / "on", tmp_path / "killed")
    assert replay.main([str(tmp_path / "killed")]) == 0
    capsys.readouterr()
    assert train.main([*words[:-3], "off", *words[-2:]]) == 2
    assert "wide: on in the run folder, off now" in capsys.readouterr().err
    assert train.main([*WORDS, "--wide", "onn", "--out", str(tmp_path / "none")]) == 2
    assert "unknown --wide 'onn'; did you mean 'on'?" in capsys.readouterr().err
