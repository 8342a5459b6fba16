"""Local SGD and DSpodFL: agreement with heap-queue references, equivalences, closed forms."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from scipy import integrate, special

from dbwjax.engine import timeline as timelines
from dbwjax.engine.clock import decision_key
from dbwjax.engine.clock import init as start
from dbwjax.network import graphs
from dbwjax.policies import build_policy, periodic
from tests.cases import GRAPHS, NINE, RATE, STEPS, Case, P, assert_agree, nine, policy_of
from tests.reference import sporadic

NODES = NINE
LAW = "shifted_exponential:shift=0.2,rate=1"


@functools.cache
def plans_of(spec, graph, law=LAW, steps=600):
    case, policy = nine(graph, law), policy_of(spec)
    state = start(policy, case.world.graph, case.world.delays, case.world.key)
    return jax.device_get(timelines.timeline(policy, case.world, state, steps)[1])


def matrices(plans):
    steps = len(plans.duration)
    found = np.zeros((steps, NODES, NODES))
    np.add.at(found, (np.arange(steps)[:, None, None], np.arange(NODES)[:, None], plans.sources), plans.mix)
    return found


@pytest.mark.usefixtures("x64")
class TestLocal:
    """`local_sgd`."""

    @pytest.mark.parametrize("graph", GRAPHS)
    @pytest.mark.parametrize("barrier", ["global", "neighbours"])
    def test_it_is_the_reference(self, barrier, graph):
        case = nine(graph)
        given = {"neighbours": case.neighbours, "latency": case.latency, **case.common}
        course = case.simulate(policy_of(f"local_sgd:h=3,barrier={barrier}"))
        assert_agree(course, sporadic.run_local(3, barrier, **given))

    @pytest.mark.parametrize("barrier", ["global", "neighbours"])
    def test_with_ties_it_is_the_reference(self, barrier):
        case = nine("random", "constant:seconds=0.5")
        given = {"neighbours": case.neighbours, "latency": case.latency, **case.common}
        course = case.simulate(policy_of(f"local_sgd:h=3,barrier={barrier}"))
        assert_agree(course, sporadic.run_local(3, barrier, **given))
        np.testing.assert_array_equal(course.ends, 0.5 * np.arange(1, STEPS + 1))

    @pytest.mark.parametrize("graph", ["random", "slow links"])
    @pytest.mark.parametrize("barrier", ["global", "neighbours"])
    def test_a_period_of_one_is_full(self, barrier, graph):
        case = nine(graph)
        seen, expected = (case.simulate(policy_of(f"{spec}barrier={barrier}")) for spec in ("local_sgd:h=1,", "full:"))
        for one, other in zip(seen, expected, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_where_all_hear_each_other_an_averaging_makes_all_alike(self):
        x = nine("complete").simulate(policy_of("local_sgd:h=3,barrier=global")).x
        apart = np.ptp(x, axis=1).max(axis=1)
        assert (apart[2::3] < 1e-14).all()
        assert (apart[0::3] > 1e-3).all()
        assert (apart[1::3] > 1e-3).all()

    def test_a_period_takes_the_slowest_sum(self):
        """The largest of nine sums of four exponential delays: its mean from the distribution."""
        plans = plans_of("local_sgd:h=4", "complete", "shifted_exponential:shift=0,rate=1", 2400)
        # Times of a step are the last worker's, so that those of a period add up.
        periods = plans.duration.reshape(-1, 4).sum(axis=1)
        mean = integrate.quad(lambda t: 1 - special.gammainc(4, t) ** NODES, 0, 60)[0]
        assert abs(periods.mean() - mean) < 3 * periods.std() / np.sqrt(len(periods))

    def test_messages_are_sent_where_it_averages(self):
        plans = plans_of("local_sgd:h=4", "slow links")
        links = int(np.asarray(nine("slow links").world.graph.links).sum())
        np.testing.assert_array_equal(plans.messages, np.where(np.arange(600) % 4 == 3, links, 0))
        assert (plans.flight[np.arange(600) % 4 != 3] == 0).all()
        np.testing.assert_array_equal(plans.flight[3::4], 0.6)
        taken = matrices(plans)
        np.testing.assert_array_equal(taken[0], np.eye(NODES))
        np.testing.assert_allclose(taken[3].sum(axis=0), 1, rtol=1e-12)

    def test_one_worker_trains_alone_whatever_the_period(self):
        case = Case(graphs.path(1), seed=2)
        for seen, expected in zip(*(case.simulate(policy_of(spec)) for spec in ("local_sgd", "full")), strict=True):
            np.testing.assert_allclose(seen, expected, rtol=1e-12)


def drawn(case, spec):
    """`computes(k)` and `used(k)`, drawn anew from the policy's keys."""
    state = policy_of(spec).init(case.world.graph)
    heard = np.asarray(case.world.graph.neighbours)

    @functools.cache
    def both(k):
        computes, used = periodic.drawn(decision_key(case.world.key, k), case.world.graph, state)
        pairs = zip(*np.nonzero(np.asarray(used)), strict=True)
        links = [tuple(sorted((int(i), int(heard[i, s])))) for i, s in pairs]
        assert all(links.count(link) == 2 for link in links), "the two ends of a link drew differently"
        return set(np.flatnonzero(computes).tolist()), set(links)

    return (lambda k: both(k)[0]), (lambda k: both(k)[1])


@pytest.mark.usefixtures("x64")
class TestSporadic:
    """`dspodfl`."""

    @pytest.mark.parametrize("graph", GRAPHS)
    def test_it_is_the_reference(self, graph):
        agrees(nine(graph), "dspodfl")

    def test_with_few_of_both_some_iterations_are_empty(self):
        case = nine("ring")
        course, computes, used = agrees(case, "dspodfl:gradients=0.1,links=0.1")
        nothing = [not computes(k) and not used(k) for k in range(STEPS)]
        assert 2 < sum(nothing) < STEPS / 2
        lengths = np.diff(course.ends, prepend=0)
        assert (lengths[nothing] == 0).all()
        silent = [not computes(k) for k in range(STEPS)]
        np.testing.assert_array_equal(lengths == 0, silent)  # a message takes no time here

    def test_with_ties_it_is_the_reference(self):
        agrees(nine("random", "constant:seconds=0.5"), "dspodfl:gradients=0.3,links=0.7")

    @pytest.mark.parametrize("graph", ["random", "slow links"])
    def test_with_both_probabilities_one_it_is_dpsgd(self, graph):
        """Its plans to the last bit, and the parameters up to how two programs round a sum."""
        specs = "dspodfl:gradients=1,links=1", "dpsgd:barrier=global"
        one, other = (plans_of(spec, graph, steps=STEPS) for spec in specs)
        for field in ("duration", "fresh", "mix", "sources", "push", "flight"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)
        seen, expected = (nine(graph).simulate(policy_of(spec)) for spec in specs)
        np.testing.assert_array_equal(seen.own, expected.own)
        np.testing.assert_allclose(seen.x, expected.x, rtol=1e-12, atol=1e-14)

    def test_draws_have_the_probabilities(self):
        plans = plans_of("dspodfl:gradients=0.2,links=0.7", "random", "constant:seconds=1")
        links = np.asarray(nine("random").world.graph.links)
        computes, used = plans.info["computes"], plans.info["used"]
        for share, p in ((computes.mean(axis=0), 0.2), (used.mean(axis=0)[links], 0.7)):
            assert (abs(share - p) < 4 * np.sqrt(p * (1 - p) / 600)).all()
        # An iteration lasts a second unless nobody computes.
        busy = 1 - 0.8**NODES
        assert abs(plans.duration.mean() - busy) < 3 * np.sqrt(busy * (1 - busy) / 600)
        np.testing.assert_array_equal(plans.idle, ~computes)
        np.testing.assert_array_equal(plans.fresh, computes)
        np.testing.assert_array_equal(plans.messages, used.sum(axis=(1, 2)))
        np.testing.assert_array_equal(plans.active, computes | used.any(axis=2))
        # E[W] = (1 - p) I + p W; every W has the weights of the whole graph where the link is used.
        taken, whole = matrices(plans), matrices(plans_of("dpsgd:barrier=global", "random", steps=1))[0]
        np.testing.assert_allclose(taken, taken.transpose(0, 2, 1), rtol=1e-12)
        np.testing.assert_allclose(taken.sum(axis=2), 1, rtol=1e-12)
        apart = ~np.eye(NODES, dtype=bool)
        assert set(np.unique(np.where(taken[:, apart] == 0, whole[apart], taken[:, apart]) - whole[apart])) == {0}

    def test_without_links_everybody_trains_alone(self):
        case = nine("random")
        x = case.simulate(policy_of("dspodfl:gradients=1,links=0")).x
        value = np.zeros((NODES, P))
        for k in range(STEPS):
            value = value + np.stack([case.update(i, k, value[i]) for i in range(NODES)])
            np.testing.assert_allclose(x[k], value, rtol=1e-12)

    def test_one_worker_that_always_computes_is_plain_sgd(self):
        case = Case(graphs.path(1), seed=2)
        specs = "dspodfl:gradients=1", "full"
        for seen, expected in zip(*(case.simulate(policy_of(spec)) for spec in specs), strict=True):
            np.testing.assert_allclose(seen, expected, rtol=1e-12)

    def test_who_does_not_compute_gets_no_update(self):
        """Without links, a worker's parameters change exactly where it computes."""
        case, spec = nine("random"), "dspodfl:gradients=0.5,links=0"
        course, (computes, _) = case.simulate(policy_of(spec)), drawn(case, spec)
        moved = (np.diff(course.x, axis=0, prepend=0) != 0).any(axis=2)
        assert [set(np.flatnonzero(row)) for row in moved] == [computes(k) for k in range(STEPS)]
        assert RATE > 0


def agrees(case, spec):
    computes, used = drawn(case, spec)
    given = {"neighbours": case.neighbours, "latency": case.latency, **case.common}
    course = case.simulate(policy_of(spec))
    assert_agree(course, sporadic.run_dspodfl(computes, used, **given))
    return course, computes, used


PIECES = graphs.from_adjacency(np.kron(np.eye(2), np.ones((3, 3)) - np.eye(3)).astype(bool))
ONE_WAY = graphs.from_adjacency(np.roll(np.eye(5), 1, axis=1).astype(bool))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("local_sgd:h=0"), "h=0 is out of range; use 1 or more"),
        (lambda: periodic.local_sgd(2.0), "h=2.0 is not a whole number"),
        (lambda: build_policy("local_sgd:weights=lasy"), "did you mean 'lazy'"),
        (lambda: build_policy("local_sgd:late=drop"), "unknown key 'late'"),
        (lambda: build_policy("local_sgd").init(PIECES), "the graph is not connected"),
        (lambda: build_policy("local_sgd").init(ONE_WAY), "not the other way round"),
        (lambda: build_policy("dspodfl:gradients=0"), "gradients=0: nobody would compute; use a probability above 0"),
        (lambda: build_policy("dspodfl:gradients=1.5"), "gradients=1.5: it is no probability; use 0 to 1"),
        (lambda: build_policy("dspodfl:links=-0.1"), "links=-0.1: it is no probability; use 0 to 1"),
        (lambda: build_policy("dspodfl:barrier=neighbours"), "unknown key 'barrier'"),
        (lambda: build_policy("dspodfl").init(PIECES), "the graph is not connected"),
        (lambda: build_policy("dspodfl").init(ONE_WAY), "not the other way round"),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)
