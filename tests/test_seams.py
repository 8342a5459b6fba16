"""What a learner and a plan may bring beyond the plain step, and that the plain step pays nothing for it."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax.engine import clock, readings, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.batch import alone
from dbwjax.engine.learner import from_optimizer
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.network import graphs
from dbwjax.policies import POLICIES, build_policy
from dbwjax.policies.gossip import gossip
from dbwjax.policies.method import Method
from dbwjax.policies.rules import full
from dbwjax.types import Combine, Learner, Plan, Policy
from tests import plain_step
from tests.cases import LEARNER, PAIR, PAIR_LEARNER, RATE, Case, named, update_fn, world_of

NODES = 8


def text_of(step, learner, name):
    """The program of a step, as text, without the names of places in a file."""
    policy, world = named(name), world_of(name)
    state = simulate.init(policy, learner, world, PAIR)

    def one(state):
        plan, _ = clock.tick(policy, world.graph, world.delays, world.key, state.clock)
        return step(learner, world.batches, plan, state.model, world.key)

    return re.sub(r"loc\(.*?\)", "", jax.jit(one).lower(state).as_text())


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("name", ["dybw", "full:barrier=neighbours", "dpsgd", "push-sum"])
def test_the_plain_program_is_what_it_was(name, block):
    learner = PAIR_LEARNER._replace(block=block)
    assert text_of(learning.step, learner, name) == text_of(plain_step.step, learner, name)


def test_that_comparison_sees_a_difference():
    counted = PAIR_LEARNER._replace(statistic=lambda gradients, updates, fresh, total: total(fresh.sum()))
    assert text_of(learning.step, counted, "dybw") != text_of(plain_step.step, PAIR_LEARNER, "dybw")


# A learner that mixes more than parameters.


def tracking() -> Learner:
    """Gradient tracking: y = y + g - g_old, then x and y are mixed; local state (y, g_old)."""

    def update(gradient, local, params):
        tracker, old = local
        tracker = tracker + gradient - old
        return -RATE * tracker, (tracker, gradient)

    def apply(mix, keys, params, updates, local, constants):
        params, tracker = mix((params + updates, local[0]))
        return params, (tracker, local[1])

    combine = Combine(apply, adapts_first=True, sent=lambda params: 2.0 * params.nbytes)
    return LEARNER._replace(init=lambda x: (jnp.zeros_like(x), jnp.zeros_like(x)), update=update, combine=combine)


@pytest.fixture
def case():
    return Case(graphs.erdos_renyi(NODES, p=0.5, seed=3))


def ran(policy, learner, case, steps):
    state = simulate.init(policy, learner, case.world, jnp.zeros(3))
    return simulate.run(policy, learner, case.world, state, steps)


def weights_of(graph):
    slots, near = np.asarray(graph.links), np.asarray(graph.neighbours)
    matrix = np.zeros((NODES, NODES))
    for i in range(NODES):
        for j in near[i][slots[i]]:
            matrix[i, j] = 1 / (1 + max(slots[i].sum(), slots[j].sum()))
    return matrix + np.diag(1 - matrix.sum(axis=1))


@pytest.mark.usefixtures("x64")
def test_gradient_tracking_is_its_recursion(case):
    state, _ = ran(build_policy("full"), tracking(), case, 40)
    mix, x = weights_of(case.world.graph), np.zeros((NODES, 3))
    tracker, old = np.zeros_like(x), np.zeros_like(x)
    for k in range(40):
        gradient = np.stack([-case.update(i, k, x[i]) / RATE for i in range(NODES)])
        tracker = tracker + gradient - old
        x, tracker, old = mix @ (x - RATE * tracker), mix @ tracker, gradient
        np.testing.assert_allclose(tracker.mean(axis=0), gradient.mean(axis=0), atol=1e-12)  # known of the method
    np.testing.assert_allclose(state.model.params, x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.model.local[0], tracker, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_who_takes_no_part_keeps_all_it_has(case):
    """A combine that moves everything, under a rule by which half take part."""

    def apply(mix, keys, params, updates, local, constants):
        return mix(params + updates) + 7.0, local + 1

    learner = Learner(
        lambda x: jnp.zeros(()), LEARNER.gradient, lambda g, local, x: (-g, local), combine=Combine(apply, True)
    )
    state, record = ran(build_policy("fastest:k=4"), learner, case, 1)
    active = np.asarray(record.active[0])
    assert active.sum() == 4
    assert (np.asarray(state.model.params)[~active] == 0).all()
    np.testing.assert_array_equal(state.model.local, active)


@pytest.mark.usefixtures("x64")
def test_keys_of_messages_are_of_the_worker_and_the_computation(case):
    drawn = []

    def apply(mix, keys, params, updates, local, constants):
        return mix(params + updates), jax.vmap(jax.random.uniform)(keys)

    learner = LEARNER._replace(init=lambda x: jnp.zeros(()), combine=Combine(apply, True))
    for steps in (1, 2):
        drawn.append(np.asarray(ran(build_policy("full"), learner, case, steps)[0].model.local))
    assert len(set(np.concatenate(drawn))) == 2 * NODES


@pytest.mark.parametrize(
    ("spec", "adapts_first", "said"),
    [("dpsgd", True, "adapts before it mixes"), ("full", False, "adapts after it mixes")],
)
def test_a_combine_that_does_not_fit_is_refused(case, spec, adapts_first, said):
    learner = LEARNER._replace(combine=Combine(lambda mix, keys, x, u, local, constants: (x, local), adapts_first))
    with pytest.raises(ValueError, match=said):
        ran(build_policy(spec), learner, case, 1)
    event = named("pairwise")
    with pytest.raises(ValueError, match="a policy in whose steps everybody mixes"):
        ran(event, learner, case, 1)


# Feedback that is computed over workers.


def spread(gradients, updates, fresh, total):
    """Sum of squares, square of the sum, how many."""
    counted = jnp.where(fresh, 1.0, 0.0)
    squares = total(counted @ (gradients**2).sum(axis=1))
    return {"squares": squares, "sum": total(counted @ gradients), "count": total(counted.sum())}


@pytest.mark.usefixtures("x64")
def test_a_statistic_reaches_the_policy_of_the_next_step(case):
    """Variance of the gradients of those that counted, as the definition has it."""
    seen = []

    def decide(key, graph, state, remaining, feedback):
        plan, inner = rule.decide(key, graph, state[0], remaining, feedback)
        return plan, (inner, feedback.statistic)

    rule = gossip(full())
    blank = {"squares": jnp.zeros(()), "sum": jnp.zeros(3), "count": jnp.zeros(())}
    policy = Policy(lambda graph: (rule.init(graph), blank), decide, reads_training=True)
    policy = policy._replace(equip=lambda learner: learner._replace(statistic=spread))
    state = simulate.init(policy, LEARNER, case.world, jnp.zeros(3))
    for _ in range(2):
        state, _ = simulate.run(policy, LEARNER, case.world, state, 1)
        seen.append(jax.device_get(state.feedback.statistic))
    gradients = np.stack([-case.update(i, 0, np.zeros(3)) / RATE for i in range(NODES)])
    first = seen[0]
    variance = (first["squares"] - (first["sum"] ** 2).sum() / NODES) / (NODES - 1)
    np.testing.assert_allclose(variance, gradients.var(axis=0, ddof=1).sum(), rtol=1e-12)
    np.testing.assert_array_equal(state.clock.policy[1]["sum"], first["sum"])  # which the second decision read


# What is evaluated in a worker's place.


@pytest.mark.usefixtures("x64")
def test_a_running_mean_is_what_is_read(case):
    def update(gradient, local, params):
        total, count = local
        return -RATE * gradient, (total + params, count + 1)

    learner = LEARNER._replace(
        init=lambda x: (jnp.zeros_like(x), jnp.zeros(())),
        update=update,
        report=lambda params, local: local[0] / jnp.maximum(local[1], 1),
    )
    state, _ = ran(build_policy("full"), learner, case, 5)
    due = readings.Due(
        first=jnp.asarray([0, 1]),
        sim=jnp.zeros(1, jnp.int32),
        slot=jnp.zeros(1, jnp.int32),
        weights=jnp.ones((1, NODES)),
        before=jnp.zeros(1),
        own_first=jnp.zeros(2, jnp.int32),
        own_sim=jnp.zeros(1, jnp.int32),
        own_worker=jnp.zeros(1, jnp.int32),
    )
    held = readings.empty(jnp.zeros(3), 1)
    found, _ = readings.take(due, jnp.asarray(0), state.model, held, report=learner.report)
    expected = (np.asarray(state.model.local[0]) / 5).mean(axis=0)
    np.testing.assert_allclose(found.mean[0], expected, rtol=1e-12)
    plain, _ = readings.take(due, jnp.asarray(0), state.model, held)
    assert np.abs(plain.mean[0] - expected).max() > 1e-3


# Fields of a plan.


def once(plan) -> Policy:
    return Policy(lambda graph: (), lambda key, graph, state, remaining, feedback: (plan(remaining), state))


@pytest.mark.usefixtures("x64")
def test_one_row_of_push_is_for_every_row(case):
    share = jnp.arange(1.0, NODES + 1)[None] / 36

    def plan(remaining, push):
        return Plan(remaining.max(), jnp.arange(NODES) != 2, jnp.eye(NODES), push=push)

    wide, _ = ran(once(partial(plan, push=jnp.broadcast_to(share, (NODES, NODES)))), LEARNER, case, 3)
    short, _ = ran(once(partial(plan, push=share)), LEARNER, case, 3)
    np.testing.assert_allclose(short.model.params, wide.model.params, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_pushers_name_the_updates(case):
    order = jnp.asarray([3, 0, 1])

    def plan(remaining, **push):
        rows = jnp.asarray([5, 6, 7])
        return Plan(remaining.max(), jnp.ones(4, bool), jnp.eye(NODES)[rows], workers=jnp.arange(4), rows=rows, **push)

    matrix = jnp.zeros((3, 4)).at[jnp.arange(3), order].set(jnp.asarray([0.5, 2.0, 1.0]))
    wide, _ = ran(once(partial(plan, push=matrix)), LEARNER, case, 3)
    short, _ = ran(once(partial(plan, push=jnp.asarray([0.5, 2.0, 1.0]), pushers=order)), LEARNER, case, 3)
    np.testing.assert_allclose(short.model.params, wide.model.params, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_at_names_the_node_whose_parameters_count(case):
    """Everybody computes at node 0, as at a server."""

    def plan(remaining):
        nobody = jnp.zeros(NODES, jnp.int32)
        push = jnp.full((1, NODES), 1 / NODES)
        return Plan(remaining.max(), jnp.ones(NODES, bool), jnp.eye(NODES), push=push, at=nobody)

    state, _ = ran(once(plan), LEARNER, case, 4)
    x = np.zeros(3)
    for k in range(4):
        x = x + np.mean([case.update(i, k, x) for i in range(NODES)], axis=0)
    np.testing.assert_allclose(state.model.params, np.broadcast_to(x, (NODES, 3)), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_few_restart_at_times_of_their_own(case):
    """Numbered restarts with `ready`: the next finish is counted from there."""

    def plan(remaining):
        i = jnp.argmin(remaining)
        who = jnp.stack([i, jnp.asarray(NODES)])  # and nobody
        rows = jnp.stack([i])
        return Plan(
            remaining[i],
            jnp.ones(1, bool),
            jnp.ones((1, 1)),
            sources=rows[:, None],
            push=jnp.ones((1, 1)),
            workers=rows,
            rows=rows,
            restart=who,
            ready=remaining[i] + jnp.asarray([0.25, 9.0]),
        )

    policy = once(plan)
    begin = clock.init(policy, case.world.graph, case.world.delays, case.world.key)
    _, after = clock.tick(policy, case.world.graph, case.world.delays, case.world.key, begin)
    i = int(np.argmin(begin.remaining))
    np.testing.assert_allclose(after.remaining[i], 0.25 + case.delay(i, 1), rtol=1e-12)
    np.testing.assert_allclose(after.begun[i], 0.25, rtol=1e-12)
    others = np.delete(np.arange(NODES), i)
    np.testing.assert_allclose(after.remaining[others], (begin.remaining - begin.remaining[i])[others], rtol=1e-12)


def test_no_gradient_is_computed_where_nobody_counts(case):
    """What is skipped is seen by a batch that must not be drawn: the loss of an idle step is 0 and finite."""

    def plan(remaining):
        none = jnp.zeros((1, 1))
        return Plan(
            remaining.max(),
            jnp.zeros(1, bool),
            none + 1,
            jnp.zeros((1, 1), jnp.int32),
            none,
            workers=none[0].astype(int),
            rows=none[0].astype(int),
        )

    bad = LEARNER._replace(gradient=lambda x, local, batch: (x * jnp.nan, x.sum() * jnp.nan, None), update=update_fn)
    state, record = ran(once(plan)._replace(idles=True), bad, case, 2)
    assert np.isfinite(record.loss).all()
    assert np.isfinite(state.model.params).all()
    with pytest.raises(ValueError, match="must push its updates apart"):
        ran(build_policy("full")._replace(idles=True), LEARNER, case, 1)


def test_a_gradient_of_another_structure_than_the_parameters(case):
    """As of a learner that observes more than it moves."""

    def gradient(x, local, batch):
        found, loss, _ = LEARNER.gradient(x, local, batch)
        return {"wide": jnp.concatenate([found, found]), "also": loss}, loss, None

    learner = LEARNER._replace(gradient=gradient, update=lambda g, local, x: (-RATE * g["wide"][:3], local))
    odd, _ = ran(build_policy("dybw"), learner, case, 6)
    plain, _ = ran(build_policy("dybw"), LEARNER, case, 6)
    np.testing.assert_allclose(odd.model.params, plain.model.params, rtol=1e-6)


def test_messages_that_hold_more_cost_more():
    from dbwjax.experiments.networks import bytes_sent

    one = np.zeros(3, np.float32)
    assert bytes_sent(build_policy("full"), LEARNER, one) == 12
    assert bytes_sent(build_policy("full"), tracking(), one) == 24


def test_small_messages_are_sooner_there(monkeypatch):
    """On links of a bandwidth a method's messages take as long as they are large; others' links stay as they are."""
    config = TrainConfig(
        policies=("full", "mine"), workers=4, graph="ring", dataset="quadratic:dimension=100", bandwidth=100.0,
        latency=0.5, seconds=1.0, seeds=2, target_accuracy=None,
    )  # fmt: skip

    def equip(learner):
        return learner._replace(combine=Combine(None, True, sent=lambda x: x.size / 4))

    mine = Method("mine", lambda: build_policy("full")._replace(equip=equip), "", (), "gossip", "doubly", "")
    monkeypatch.setitem(POLICIES, "mine", mine)
    (problem,) = problems(of_seeds(config))
    plain, own = (np.asarray(alone(problem.worlds_of(spec), 1).graph.latency) for spec in ("full", "mine"))
    links = np.asarray(problem.alone(1).graph.links)
    np.testing.assert_allclose(plain[links], 0.5 + 400 / 100, rtol=1e-6)
    np.testing.assert_allclose(own[links], 0.5 + 25 / 100, rtol=1e-6)
    np.testing.assert_allclose(problem.states["mine"].delivery[0], 0.75, rtol=1e-6)


def test_a_method_of_whole_objectives_is_refused_by_a_task_without(monkeypatch):
    mine = Method(
        "mine", lambda: build_policy("full")._replace(whole=lambda given: given), "", (), family="gossip",
        mixing="doubly", absence="",
    )  # fmt: skip
    monkeypatch.setitem(POLICIES, "mine", mine)
    config = TrainConfig(policies=("mine",), workers=4, graph="ring", seconds=1.0, seeds=1)
    with pytest.raises(ValueError, match="policy 'mine' computes on each worker's whole objective, and task 'digits'"):
        problems(of_seeds(config))


def test_an_optimiser_as_it_was():
    """`from_optimizer` keeps none of the new functions, so nothing of it changes."""
    learner = from_optimizer(lambda x, batch: x.sum(), optax.sgd(0.1))
    assert (learner.combine, learner.statistic, learner.report) == (None, None, None)
