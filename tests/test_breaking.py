"""A world that breaks: matrices stay valid, a crash ends no method that can go on, numbers agree with a reference."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from dbwjax.engine import breaking, clock, ledger, masks, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments import timing
from dbwjax.network import graphs
from dbwjax.network.spanning import spanning_links
from dbwjax.policies import POLICIES, presence
from dbwjax.types import Events, Plan
from tests import cases
from tests.cases import LEARNER, SHIPPED, Case, P, policy_of, whole_objective
from tests.reference import breaking as reference

NINE = cases.NINE
INF = float("inf")


def events_of(nodes, absences=(), partitions=(), loss=0.0):
    """`Events` from the reference's absences and partitions."""
    each = [sorted((a for a in absences if a.worker == i), key=lambda a: a.leaves) for i in range(nodes)]
    most = max(1, *map(len, each))
    times = np.full((3, nodes, most), INF)
    times[2] = 0
    for i, some in enumerate(each):
        for a, one in enumerate(some):
            times[:, i, a] = one.leaves, one.returns, one.patience
    kind = jnp.result_type(float)
    return Events(
        *(jnp.asarray(part, kind) for part in times),
        jnp.asarray([one.begins for one in partitions], kind),
        jnp.asarray([one.heals for one in partitions], kind),
        jnp.asarray([one.side for one in partitions], jnp.int32).reshape(-1, nodes),
        jnp.asarray(loss, kind),
    )


@functools.partial(jax.jit, static_argnames=("policy", "steps", "rate"))
def watched(policy, steps, world, state, rate=1.0):
    """Plans, clocks before them, parameters and masses after them, `[T, ...]`; and the state after all."""
    learner = LEARNER._replace(update=lambda g, local, x: (-cases.RATE * rate * g, local))
    learner = learning.equipped(learner, policy)

    def one(state, _):
        plan, ticking = clock.tick(
            policy, world.graph, world.delays, world.key, state.clock, state.feedback, world.events
        )
        model, info = learning.step(learner, world.batches, plan, state.model, world.key, idles=policy.idles)
        seen = simulate.by_node(plan, info, model) if policy.reads_training else None
        before = state.clock._replace(policy=None)
        tick = ledger.tick_of(world.graph, plan, state.clock)
        after = simulate.SimState(ticking, model, seen)
        return after, (plan, before, tick, model.params, model.mass)

    return jax.lax.scan(one, state, None, length=steps)


def run(spec, case, events, steps, rate=1.0, start=None):
    """The run of a SPEC in a case's world, in which these events happen."""
    policy = policy_of(spec)
    world = simulate.networked(policy, case.world._replace(events=events))
    if policy.whole is not None:
        world = world._replace(batches=policy.whole(Partial(whole_objective, world.batches.args[0]), case.nodes))
    state = simulate.init(policy, LEARNER, world, jnp.zeros(P))
    if start is not None:
        state = state._replace(model=state.model._replace(params=jnp.asarray(start)))
    return world, *jax.device_get(watched(policy, steps, world, state, rate))


# The masks.


def dense_of(plan, nodes):
    """The mixing of a step as a matrix `[N, N]`; rows that are not written are the identity. Traceable."""
    rows = jnp.arange(nodes) if plan.rows is None else plan.rows
    if plan.sources is None:
        written = plan.mix
    else:
        at = jnp.arange(len(rows))[:, None]
        written = jnp.zeros((len(rows), nodes), plan.mix.dtype).at[at, plan.sources].add(plan.mix)
    if plan.rows is None:
        return written
    return jnp.eye(nodes, dtype=plan.mix.dtype).at[rows].set(written, mode="drop")


FEW = 6
LINKS = graphs.with_links(graphs.random_regular(FEW, degree=4, seed=1), latency=0.0)


def symmetric_slots(rng_bits):
    """Symmetric weights, some below 0, on the links of a graph; slot 0 takes the rest."""
    lower, higher = (f(jnp.arange(FEW)[:, None], LINKS.neighbours) for f in (jnp.minimum, jnp.maximum))
    weight = jnp.where(LINKS.links, jnp.sin(rng_bits + 7.0 * lower + 13.0 * higher), 0)
    return weight.at[:, 0].set(1 - weight.sum(axis=1))


def plans_of(weights):
    """One plan of each form: dense, padded, numbered (a pair), push-sum dense, padded and numbered."""
    slots = symmetric_slots(weights)
    full = jnp.zeros((FEW, FEW)).at[jnp.arange(FEW)[:, None], LINKS.neighbours].add(slots)
    blank = Plan(jnp.ones(()), jnp.ones(FEW, bool), full)
    alone = blank._replace(fresh=jnp.ones(1, bool), workers=jnp.asarray([0]))
    half, pair = jnp.full((2, 2), 0.5), jnp.asarray([[0, 2], [0, 2]])
    columns = full * (1 + jnp.arange(FEW)[:, None]) * (1 - jnp.eye(FEW))
    columns = columns + jnp.diag(1 - columns.sum(axis=0))
    share = 1 / (1 + LINKS.links.sum(axis=1))
    spread = jnp.where(LINKS.links.at[:, 0].set(True), share[LINKS.neighbours], 0)
    to = jnp.asarray([0, 1, 3, FEW])
    sent = jnp.asarray([[1 / 3, 0], [1, 1 / 3], [1, 1 / 3], [0, 0]])
    sources = jnp.stack([to.at[3].set(0), jnp.zeros(4, int)], axis=1)
    push = jnp.asarray([1 / 3, 1 / 3, 1 / 3, 0])[:, None]
    return {
        "dense": (blank, False),
        "padded": (blank._replace(mix=slots, sources=LINKS.neighbours), False),
        "numbered": (alone._replace(mix=half, sources=pair, rows=jnp.asarray([0, 2]), push=jnp.eye(2)[:, :1]), False),
        "columns": (blank._replace(mix=columns), True),
        "columns, padded": (blank._replace(mix=spread, sources=LINKS.neighbours), True),
        "columns, numbered": (alone._replace(mix=sent, sources=sources, rows=to, push=push), True),
    }


@jax.jit
def sums_off(seeds):
    """By form, how far from one the sums are under so many random masks; and whether who is away is left alone."""

    def one(seed):
        keys = jax.random.split(jax.random.wrap_key_data(jnp.stack([seed, jnp.uint32(1)])), 4)
        gone, cut = jax.random.bernoulli(keys[0], 0.25, (FEW,)), jax.random.bernoulli(keys[1], 0.3, (FEW, FEW))
        cut = cut | cut.T
        away = gone & jax.random.bernoulli(keys[2], 0.5, (FEW,))
        carries = masks.Carries(gone, away, lambda i, j: cut[i, j], jnp.asarray(0.2), keys[3], FEW)
        found = {}
        for form, (plan, columns) in plans_of(seed.astype(float)).items():
            after = masks.masked(plan, carries, FEW, columns)
            matrix = dense_of(after, FEW)
            off = jnp.abs(matrix.sum(axis=0 if columns else 1) - 1).max()
            if form in ("dense", "padded", "numbered"):
                off = jnp.maximum(off, jnp.abs(matrix.sum(axis=0) - 1).max())
            if after.push is not None and columns:
                off = jnp.maximum(off, jnp.abs(after.push.sum() - 1))
            taken = jnp.where(jnp.eye(FEW, dtype=bool), 0, matrix)
            reached = jnp.where(gone, jnp.abs(taken).max(axis=0) + jnp.abs(taken).max(axis=1), 0).max()
            found[form] = off, reached + (after.restart & away).any() if after.restart is not None else reached
        return found

    return jax.tree.map(lambda leaf: leaf.max(), jax.vmap(one)(seeds))


def test_a_million_random_masks_keep_rows_and_columns():
    # Each of six forms of a plan under every one of them: a million in all.
    for block in np.arange(170_000, dtype=np.uint32).reshape(10, -1):
        for form, (off, reached) in jax.device_get(sums_off(block)).items():
            assert off < 3e-5, form  # float32; weights are up to 1, some negative
            assert reached == 0, form


@pytest.mark.usefixtures("x64")
def test_masks_of_any_kind_keep_rows_and_columns():
    check = jax.jit(lambda seed: jnp.stack([off for off, _ in sums_off(seed).values()]).max())

    @settings(max_examples=10_000, deadline=None, database=None)
    @given(st.integers(0, 2**32 - 1))
    def any_mask(seed):
        assert float(check(np.asarray([seed], np.uint32))) < 1e-13

    any_mask()


# The whole table.

FIRST = {spec.split(":")[0]: spec for spec in reversed(SHIPPED)}
ONE_AWAY = [spec for name, spec in FIRST.items() if policy_of(spec).unbroken is None]
"""A SPEC of every method of the table that lives in a world that breaks."""


@functools.cache
def eight():
    return Case(graphs.random_regular(8, degree=4, seed=0), 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spec", ONE_AWAY)
def test_a_crash_ends_no_method_and_the_absent_are_left_alone(spec):
    case, crashed = eight(), 3
    events = events_of(8, [reference.Absence(crashed, 2.0, INF, 0.5)])
    world, _, (plans, _before, ticks, x, _mass) = run(spec, case, events, 120)
    ends = np.cumsum(plans.duration)
    assert np.isfinite(plans.duration).all()
    assert np.isfinite(x).all()
    known = ends - plans.duration >= 2.5
    assert known.sum() >= 40
    nodes = len(world.graph.computes)
    matrices = np.asarray(jax.vmap(lambda plan: dense_of(plan, nodes))(lean(plans)))[known]
    sums = matrices.sum(axis=1 if policy_of(spec).pushsum else 2)
    np.testing.assert_allclose(sums, 1, atol=1e-12)
    if POLICIES[spec.split(":")[0]].mixing == "doubly":
        np.testing.assert_allclose(matrices.sum(axis=1), 1, atol=1e-12)
    others = np.arange(nodes) != crashed
    assert (matrices[:, crashed, others] == 0).all(), "the crashed one takes something"
    assert (matrices[:, others, crashed] == 0).all(), "somebody takes something from the crashed one"
    np.testing.assert_array_equal(
        x[known][:, crashed], np.broadcast_to(x[known][0, crashed], x[known][:, crashed].shape)
    )
    if ticks.nodes is None:
        assert not ticks.counted[known][:, crashed].any()


def lean(plans):
    """What the mixing of plans depends on."""
    return Plan(plans.duration, plans.fresh, plans.mix, plans.sources, rows=plans.rows)


@pytest.mark.usefixtures("x64")
def test_without_knowledge_everybody_would_wait_for_ever():
    events = events_of(8, [reference.Absence(3, 2.0, INF, INF)])
    _, _, (plans, *_) = run("full", eight(), events, 20)
    assert np.isinf(plans.duration).any()


@pytest.mark.usefixtures("x64")
def test_nobody_left_is_an_endless_step():
    events = events_of(8, [reference.Absence(i, 2.0, INF, 0.5) for i in range(8)])
    for spec in ("full", "dpsgd", "adpsgd", "server"):
        _, _, (plans, *_) = run(spec, eight(), events, 120)
        assert np.isinf(plans.duration).any(), spec


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spec", ONE_AWAY)
def test_everybody_away_and_back_goes_on(spec):
    """Several leave for a while, in turn and together; afterwards all take part again."""
    absences = [reference.Absence(i, 2.0 + 0.3 * (i % 3), 6.0 + 0.2 * i, 0.4) for i in range(8)]
    _, after, (plans, _before, *_) = run(spec, eight(), events_of(8, absences), 120)
    assert np.isfinite(plans.duration).all()
    assert np.cumsum(plans.duration)[-1] > 6.4
    assert (after.clock.begun[:8] + np.cumsum(plans.duration)[-1] > 6.0).sum() >= (1 if spec == "token" else 7)


def test_every_method_is_there_or_refuses():
    assert set(FIRST) == set(POLICIES)
    refused = {name for name, spec in FIRST.items() if policy_of(spec).unbroken is not None}
    assert set(POLICIES) - {spec.split(":")[0] for spec in ONE_AWAY} == refused
    assert refused == {"acid", "choco", "dcd", "ecd", "admm", "ssda", "msda", "mspd"}


def test_each_method_says_what_becomes_of_it():
    for name, method in POLICIES.items():
        assert len(method.absence) > 20, name
        assert method.absence[0].islower(), name
        assert not method.absence.endswith("."), name


@pytest.mark.usefixtures("x64")
def test_a_method_that_cannot_refuses_in_one_line():
    with pytest.raises(ValueError, match="acid takes no world that breaks"):
        run("acid", eight(), events_of(8), 1)


@pytest.mark.usefixtures("x64")
def test_events_of_other_workers_are_refused():
    with pytest.raises(ValueError, match="the events are of 5 workers, and the graph has 8"):
        run("full", eight(), events_of(5), 1)


# Against the reference.

LEAVING = [
    reference.Absence(0, 3.1, 9.7, 1.0),
    reference.Absence(0, 20.0, 20.3, 1.0),  # back before anybody knows
    reference.Absence(4, 0.0, 5.5, 0.0),  # joins late
    reference.Absence(5, 12.0, 30.0, 0.0),
    reference.Absence(6, 8.25, INF, 2.0),  # crashes
    reference.Absence(7, 8.4, 14.0, 3.0),
]
APART = [
    reference.Partition(4.0, 11.0, [0, 0, 0, 0, 1, 1, 1, 1, 1]),
    reference.Partition(25.0, 27.0, [i % 2 for i in range(9)]),
]


def lost_of(case, events):
    """The losses, which are draws: `(step, i, j) -> bool`."""
    losses, none = stream(case.world.key, Stream.LOSSES), jnp.zeros(case.nodes, bool)

    @functools.cache
    def of(step):
        key = masks.step_key(losses, jnp.asarray(step, jnp.int32))
        carries = masks.Carries(none, none, lambda i, j: jnp.zeros((), bool), events.loss, key, case.nodes)
        nodes = jnp.arange(case.nodes)
        return ~np.asarray(carries(nodes[:, None], nodes[None]))

    return lambda step, i, j: bool(of(step)[i, j])


def agree(records, plans, x):
    np.testing.assert_allclose(np.cumsum(plans.duration), [one.time for one in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, [one.x for one in records], rtol=1e-12, atol=1e-12)


def world_of(case, **more):
    return {
        "delay": case.delay,
        "update": case.update,
        "x0": np.zeros((case.nodes, P)),
        "neighbours": case.neighbours,
        **more,
    }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("graph", ["ring", "random", "star"])
@pytest.mark.parametrize("spec", ["full", "fastest:k=6", "dybw"])
def test_a_global_barrier_agrees_with_the_reference(spec, graph, loss):
    case = cases.nine(graph)
    events = events_of(NINE, LEAVING, APART, loss)
    rules = {"full": reference.full, "fastest:k=6": reference.fastest(6)}
    rule = rules.get(spec) or reference.Path(spanning_links(case.world.graph)[0])
    _, _, (plans, _, _, x, _) = run(spec, case, events, 60)
    world = world_of(case, absences=LEAVING, partitions=APART, lost=lost_of(case, events))
    agree(reference.run_global(rule, 60, **world), plans, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("graph", ["ring", "random"])
def test_a_neighbour_barrier_agrees_with_the_reference(graph):
    case = cases.nine(graph)
    _, _, (plans, _, _, x, _) = run("full:barrier=neighbours", case, events_of(NINE, LEAVING), 60)
    records = reference.run_neighbours(60, **world_of(case, absences=LEAVING))
    agree(records, plans, x)
    origin = np.cumsum(plans.duration) - plans.duration
    np.testing.assert_allclose(origin[:, None] + plans.ready, [one.ends for one in records], rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_pairs_agree_with_the_reference(loss):
    case = cases.nine("random")
    events, steps = events_of(NINE, LEAVING, APART, loss), 240
    _, _, (plans, _, _, x, _) = run("adpsgd", case, events, steps)
    partners = [[] for _ in range(NINE)]
    for k in range(steps):
        partners[int(plans.workers[k, 0])].append(int(plans.info["partner"][k]))
    world = world_of(case, absences=LEAVING, partitions=APART, lost=lost_of(case, events))
    agree(reference.run_adpsgd(partners, steps, **world), plans, x)


# What is kept, and what it costs.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spec", ["sgp", "sgp:graph=one_peer", "agp"])
def test_push_sum_keeps_its_sums_under_loss(spec):
    case = eight()
    start = np.random.default_rng(0).normal(size=(8, P))
    events = events_of(8, [reference.Absence(2, 3.0, 8.0, 1.0)], loss=0.4)
    _, _, (_plans, _, _, x, mass) = run(spec, case, events, 80, rate=0.0, start=start)
    np.testing.assert_allclose(x.sum(axis=1), np.broadcast_to(start.sum(axis=0), (80, P)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mass.sum(axis=1), 8, rtol=0, atol=1e-12)
    assert np.abs(x[-1] / mass[-1][:, None] - start.mean(axis=0)).max() < 0.1 * np.abs(start - start.mean(axis=0)).max()


@pytest.mark.usefixtures("x64")
def test_a_partition_keeps_the_two_sides_apart_and_heals_at_the_graphs_gap():
    case = cases.nine("ring")
    start = np.random.default_rng(0).normal(size=(NINE, P))
    side = [0] * 5 + [1] * 4
    cut = events_of(NINE, (), [reference.Partition(0.0, 160.0, side)])
    _, _, (plans, _, _, x, _) = run("full:weights=lazy", case, cut, 120, rate=0.0, start=start)
    ends = np.cumsum(plans.duration)
    distance = np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2)))
    sides = np.stack([start[np.array(side) == s].mean(axis=0) for s in (0, 1)])[side]
    apart = np.sqrt(((sides - start.mean(axis=0)) ** 2).sum())
    during, after = ends < 160, np.flatnonzero(ends > 160)
    assert during.sum() > 10
    assert (distance[during] >= apart - 1e-12).all()
    assert distance[during][-1] < 1.02 * apart
    matrix = np.asarray(dense_of(jax.tree.map(lambda leaf: jnp.asarray(leaf[after[1]]), lean(plans)), NINE))
    second = np.sort(np.abs(np.linalg.eigvalsh(matrix)))[-2]
    rates = distance[after[1:]] / distance[after[:-1]]
    assert (rates <= second + 1e-12).all()
    assert rates[-1] == pytest.approx(second, rel=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "spec", ["full", "fastest:k=5,late=drop", "full:barrier=neighbours", "adpsgd", "server_backup:b=2", "ssp"]
)
def test_the_seconds_add_up(spec):
    events = events_of(8, [reference.Absence(3, 2.0, 7.0, 1.0), reference.Absence(5, 4.0, 4.5, 1.0)])
    _, after, (plans, _before, ticks, _, _) = run(spec, eight(), events, 150)
    total, waiting = np.zeros(8), np.zeros(8)
    for name in ("computing", "wasted", "waiting", "communicating"):
        each = getattr(ticks, name)
        sums = each[:, :8].sum(axis=0) if ticks.nodes is None else np.bincount(ticks.nodes.ravel(), each.ravel(), 9)[:8]
        total += sums
        waiting += sums if name == "waiting" else 0
    np.testing.assert_allclose(total, np.cumsum(plans.duration)[-1] + after.clock.begun[:8], rtol=1e-9)
    assert waiting[3] > 4  # its absence, but for what it had finished before


@pytest.mark.usefixtures("x64")
def test_learning_of_an_absence_costs_the_patience():
    """One crashes in its first computation: the first iteration ends when that is known, the next as if it were not."""
    case, crashed = eight(), 3
    lasts = [case.delay(i, 0) for i in range(8)]
    at = 0.5 * lasts[crashed]
    events = events_of(8, [reference.Absence(crashed, at, INF, 10.0)])
    _, _, (plans, *_) = run("full", case, events, 5)
    assert plans.duration[0] == at + 10
    assert plans.duration[1] == pytest.approx(max(case.delay(i, 1) for i in range(8) if i != crashed), rel=1e-14)


# Programs.


@pytest.mark.usefixtures("x64")
def test_worlds_side_by_side_and_chunks_are_the_same_numbers():
    case, policy = eight(), policy_of("dybw")
    several = [events_of(8, [reference.Absence(i, 2.0 + i, 6.0, 0.5)], loss=0.1 * i) for i in range(3)]
    worlds = [case.world._replace(events=events) for events in several]
    tree = case.world._replace(events=jax.tree.map(lambda *leaves: jnp.stack(leaves), *several))
    axes = jax.tree.map(lambda _: None, case.world)._replace(events=jax.tree.map(lambda _: 0, several[0]))
    whole = [clock.init(policy, world.graph, world.delays, world.key, world.events) for world in worlds]
    alone = [ledger.look_ahead(policy, world, state, 40) for world, state in zip(worlds, whole, strict=True)]

    def of(world, state):
        return ledger.look_ahead(policy, world, state, 40)

    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *whole)
    together = jax.jit(jax.vmap(of, in_axes=(axes._replace(batches=None), 0)))(tree, states)
    for i, one in enumerate(alone):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(mine), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    first, _ = ledger.look_ahead(policy, worlds[1], whole[1], 15)
    last, _ = ledger.look_ahead(policy, worlds[1], first, 25)
    cases.assert_bitwise(last, alone[1][0])


@pytest.mark.usefixtures("x64")
def test_where_nothing_breaks_nothing_is_added():
    graph, times = eight().world.graph, jnp.ones(8)
    assert presence.not_before(graph, times) is times
    assert presence.end_not_before(graph, times) is times
    assert presence.unless_away(graph, times) is times
    assert presence.kept_up(graph, times) is times
    assert presence.at_most_there(graph, times) is times
    state = clock.init(policy_of("full"), *eight().world[:2], eight().world.key)
    assert state.elapsed is None
    assert state.cut is None


@pytest.mark.usefixtures("x64")
def test_events_that_never_happen_change_no_number():
    case = eight()
    none = events_of(8, [reference.Absence(0, INF)])
    for spec in ("dybw", "adpsgd", "server"):
        _, _, (plans, _, _, x, _) = run(spec, case, none, 40)
        policy = policy_of(spec)
        seen = cases.watched(
            policy,
            40,
            simulate.networked(policy, case.world),
            policy.init(simulate.networked(policy, case.world).graph),
        )
        np.testing.assert_array_equal(plans.duration, seen[0])
        np.testing.assert_allclose(x, seen[3], rtol=0, atol=1e-15)


def test_elapsed_time_is_exact_enough_for_hours():
    rng = np.random.default_rng(0)
    durations = rng.exponential(size=20_000).astype(np.float32)
    total = jax.lax.scan(lambda sum_, d: (breaking.later(sum_, d), None), jnp.zeros(2, jnp.float32), durations)[0]
    exact = durations.astype(np.float64).sum()
    assert abs(float(total[0]) + float(total[1]) - exact) < 1e-6


@pytest.mark.parametrize("form", ["dense", "padded", "numbered", "columns", "columns, padded", "columns, numbered"])
def test_debugging_names_the_first_sum_that_is_off(form):
    plan, columns = plans_of(jnp.asarray(3.0))[form]
    sums = "column" if columns else "doubly"
    assert int(masks.faults(plan, FEW, sums)[0]) == -1
    row = 1 if "numbered" in form else 2
    line, total = masks.faults(plan._replace(mix=plan.mix.at[row, 0].add(0.25)), FEW, sums)
    assert float(total) == pytest.approx(1.25, abs=1e-6)
    node = int(plan.rows[row]) if plan.rows is not None else row
    source = 0 if plan.sources is None else int(plan.sources[row, 0])
    assert int(line) == (FEW + source if columns else node)


def off(policy):
    """The policy with a row that gives too much in its third step."""

    def decide_fn(key, graph, state, remaining, feedback):
        plan, own = policy.decide(key, graph, state[0], remaining, feedback)
        return plan._replace(mix=jnp.where(state[1] == 2, plan.mix.at[4, 0].add(0.5), plan.mix)), (own, state[1] + 1)

    return policy._replace(init=lambda graph: (policy.init(graph), jnp.zeros((), jnp.int32)), decide=decide_fn)


@pytest.mark.usefixtures("x64")
def test_a_run_that_is_debugged_ends_with_the_row_and_another_goes_on():
    case, policy = eight(), off(policy_of("full"))
    state = clock.init(policy, case.world.graph, case.world.delays, case.world.key)
    account = types.SimpleNamespace(origin=0.0, steps=100, grid=[50.0], computes=np.ones(8, bool))
    _, quiet = ledger.look_ahead(policy, case.world, state, 5)
    assert quiet.fault is None
    timing.require_sound(state, account, jax.device_get(quiet))
    _, ticks = ledger.look_ahead(policy._replace(debug="doubly"), case.world, state, 5)
    with pytest.raises(timing.Unbalanced, match="step 102: row 4 of the mixing sums to 1.5"):
        timing.require_sound(state, account, jax.device_get(ticks))


@pytest.mark.usefixtures("x64")
def test_a_run_whose_token_is_lost_ends_in_one_line():
    case, policy = eight(), policy_of("token")
    events = events_of(8, [reference.Absence(i, 4.0, INF, 1.0) for i in range(8)])
    world = simulate.networked(policy, case.world._replace(events=events))
    state = clock.init(policy, world.graph, world.delays, world.key, events)
    _, ticks = ledger.look_ahead(policy, world, state, 20)
    account = types.SimpleNamespace(origin=0.0, steps=0, grid=[50.0], computes=np.ones(9, bool))
    with pytest.raises(timing.Deserted, match=r"step \d+, which begins at [\d.]+ s, never ends"):
        timing.require_sound(state, account, jax.device_get(ticks))
