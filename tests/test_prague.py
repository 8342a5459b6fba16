"""Prague against its event queue, and what is known of it: local SGD, `full`, who is drawn."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import clock
from dbwjax.engine import timeline as timelines
from dbwjax.engine.clock import decision_key
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.policies.prague import others
from tests.cases import Case, P, policy_of
from tests.reference.prague import run_prague

pytestmark = pytest.mark.usefixtures("x64")

NODES, EVENTS = 9, 300
GRAPHS = {
    "ring": lambda: graphs.ring(NODES),
    "random": lambda: graphs.erdos_renyi(NODES, p=0.4, seed=3),
    "complete": lambda: graphs.complete(NODES),
}


@functools.cache  # only called under the x64 fixture
def case_of(graph, law="shifted_exponential:shift=0.2,rate=1"):
    return Case(graphs.pad(GRAPHS[graph](), NODES), list(GRAPHS).index(graph), law)


@functools.partial(jax.jit, static_argnames=("group", "nodes", "steps"))
def drawn(key, group, nodes, steps=EVENTS):
    """Whom each worker would draw at each step, `[T, N, G-1]`."""

    def at(step):
        decision = decision_key(key, step)
        return jax.vmap(lambda i: others(decision, i, nodes, group))(jnp.arange(nodes))

    return jax.lax.map(at, jnp.arange(steps))


def reference(case, group, steps=EVENTS):
    picks = np.asarray(drawn(case.world.key, group, case.nodes))
    common = {**case.common, "steps": steps}
    return run_prague(lambda step, i: [int(j) for j in picks[step, i]], **common)


def assert_agree(case, group):
    records, (ends, _, active, x) = reference(case, group), case.simulate(policy_of(f"prague:group={group}"), EVENTS)
    np.testing.assert_allclose(ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, [record.x for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(active[:, 0], [bool(record.active) for record in records])
    return records


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("group", [3, 4])
def test_agreement(group, graph):
    records = assert_agree(case_of(graph), group)
    averages = [record.restarted for record in records if record.restarted]
    assert len(averages) > 50
    assert {len(members) for members in averages} == {group}


def test_ties_go_to_the_lower_number():
    assert_agree(case_of("ring", "constant"), 3)


def test_groups_of_one_are_local_sgd():
    """Every worker by itself, in a row: it finishes and goes on at once."""
    case = case_of("random")
    ends, _, active, x = case.simulate(policy_of("prague:group=1"), EVENTS)
    np.testing.assert_array_equal(active[:, 0], np.arange(EVENTS) % 2 == 0)
    own = np.cumsum(case.seconds, axis=1)
    finishes = np.sort(own.ravel())[: EVENTS // 2]
    np.testing.assert_allclose(ends[::2], finishes, rtol=1e-12)
    np.testing.assert_array_equal(ends[::2], ends[1::2])
    done = (own <= finishes[-1]).sum(axis=1)
    for i in range(NODES):
        alone = np.zeros(P)
        for n in range(done[i]):
            alone = alone + case.update(i, n, alone)
        np.testing.assert_allclose(x[-1, i], alone, rtol=1e-12, atol=1e-12)


def test_a_group_of_all_is_full_on_the_complete_graph():
    case = case_of("complete")
    course, (ends, _, active, x) = case.simulate(policy_of("full")), case.simulate(policy_of("prague:group=9"), EVENTS)
    averages = np.flatnonzero(~active[:, 0])
    np.testing.assert_array_equal(averages, 9 + 10 * np.arange(EVENTS // 10))
    np.testing.assert_allclose(ends[averages], course.ends[: len(averages)], rtol=1e-12)
    np.testing.assert_allclose(x[averages], course.x[: len(averages)], rtol=1e-12, atol=1e-12)


def test_the_plans_say_who_averages_and_what_is_sent():
    case, policy = case_of("ring"), policy_of("prague:group=4")
    start = clock.init(policy, case.world.graph, case.world.delays, case.world.key)
    plans = jax.device_get(timelines.timeline(policy, case.world, start, EVENTS)[1])
    for k, record in enumerate(reference(case, 4)):
        restarted = [node for node in plans.restart[k] if node < NODES]
        assert sorted(restarted) == record.restarted
        assert plans.messages[k] == (6 if restarted else 0)
        rows = plans.rows[k][plans.rows[k] < NODES]
        assert sorted(rows) == (record.restarted or sorted(record.active))


def test_every_group_is_as_likely_as_any_other():
    """Of 5 workers worker 2 draws 3 others: 4 sets, chi-squared with 3 degrees of freedom, whose variance is 6."""
    draws = 40_000
    picks = np.sort(np.asarray(drawn(jax.random.key(0), 4, 5, draws))[:, 2], axis=1)
    sets, counts = np.unique(picks, axis=0, return_counts=True)
    assert sorted(map(tuple, sets)) == [(0, 1, 3), (0, 1, 4), (0, 3, 4), (1, 3, 4)]
    statistic = ((counts - draws / 4) ** 2 / (draws / 4)).sum()
    assert abs(statistic - 3) < 3 * np.sqrt(6)


def test_one_worker_is_plain_sgd():
    case = Case(graphs.path(1), 2)
    ends, _, _, x = case.simulate(policy_of("prague:group=1"), 40)
    value = np.zeros(P)
    for k in range(20):
        value = value + case.update(0, k, value)
        np.testing.assert_allclose(x[2 * k + 1, 0], value, rtol=1e-12)
    np.testing.assert_allclose(ends[1::2], np.cumsum(case.seconds[0, :20]), rtol=1e-12)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("prague:group=0", "group=0 is out of range; use 1 or more"),
        ("prague:group=2.5", "group=2.5"),
        ("prague:weights=uniform", "unknown key 'weights'"),
    ],
)
def test_bad_settings(spec, words):
    with pytest.raises(ValueError, match=words) as error:
        build_policy(spec)
    assert "\n" not in str(error.value)


def test_bad_graphs():
    with pytest.raises(ValueError, match="group=4 is more than the 3 workers; use 1 to 3"):
        policy_of("prague").init(graphs.ring(3))
    slow = graphs.with_links(graphs.ring(5), latency=0.25)
    with pytest.raises(
        ValueError, match=r"prague takes no latency, and a message needs up to 0.25 s: .*use --latency 0"
    ):
        policy_of("prague").init(slow)
    server = graphs.star(5)._replace(computes=jnp.arange(5) < 4)
    with pytest.raises(ValueError, match="node 4 never computes"):
        policy_of("prague").init(server)
