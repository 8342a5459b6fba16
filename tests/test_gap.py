"""How far neighbours drift apart: `backup:b=,gap=` against the event-queue reference, and what `gap` promises.

The update of a computation is `e_i - x`, so that worker i sends the unit vector `e_i` in every iteration: the
reference's parameters after iteration k are the mixing matrix of iteration k, row by row.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dbwjax.engine import clock
from dbwjax.network import graphs
from dbwjax.network.weights import dense
from dbwjax.policies import POLICIES, build_policy, idealisations, notes
from dbwjax.policies.neighbours import GAP, LARGEST_GAP, backup, backups_of
from tests.reference import drifting

NODES, SLOTS, STEPS = 9, 9, 150
GAPS = (1, 2, 5, math.inf)


def random_graph(seed, latency=0.0):
    """A random tree and some links, so that single neighbours and many come up; one message time for each link."""
    rng = np.random.default_rng(seed)
    links = {(int(rng.integers(i)), i) for i in range(1, NODES)}
    links |= {(i, j) for i in range(NODES) for j in range(i + 1, NODES) if rng.random() < 0.15}
    graph = graphs.pad(graphs.from_links(NODES, links), SLOTS)
    seconds = latency * rng.random((NODES, SLOTS))
    return graph._replace(latency=jnp.asarray(np.where(graph.links, seconds, 0), graph.latency.dtype))


def neighbours_of(graph):
    return [[int(j) for j in row[kept]] for row, kept in zip(np.asarray(graph.neighbours), graph.links, strict=True)]


def looked_up(seconds, key, worker, started):
    return seconds[worker, started]


def delays_of(law, seed):
    """Seconds [N, STEPS + 1]."""
    rng = np.random.default_rng(seed)
    if law == "exponential":
        return 0.1 + rng.exponential(size=(NODES, STEPS + 1))
    if law == "heavy":
        return (1 + rng.pareto(1.2, size=(NODES, STEPS + 1))) * np.where(np.arange(NODES) < 2, 5, 1)[:, None]
    # Quarters of a second, so that sums are exact and ties frequent; worker 0 is eight times slower.
    return rng.integers(1, 17, size=(NODES, STEPS + 1)) / 4 * np.where(np.arange(NODES) == 0, 8, 1)[:, None]


@functools.cache
def policy_of(gap):
    return backup(1, gap)


@functools.cache
def program(gap):
    """A compiled clock for all graphs, delays and `b`: start times [STEPS + 1, N], mixing matrices [STEPS, N, N]."""

    def run(graph, seconds, policy_state):
        model, key = Partial(looked_up, seconds), jax.random.key(0)

        def one(carry, _):
            plan, after = clock.tick(policy_of(gap), graph, model, key, carry[0])
            matrix = plan.mix if plan.sources is None else dense(plan.mix, graph._replace(neighbours=plan.sources))
            return (after, carry[1] + plan.duration), (carry[1] + plan.ready, matrix)

        begin = clock.start(policy_of(gap), policy_state, graph, model, key), jnp.zeros(())
        return jax.lax.scan(one, begin, None, length=STEPS)[1]

    return jax.jit(run)


def clocked(graph, b, gap, seconds):
    state = policy_of(gap).init(graph)
    state = state._replace(own=state.own._replace(backups=jnp.asarray(b)))
    starts, matrices = program(gap)(graph, jnp.asarray(seconds), state)
    return np.concatenate([np.zeros((1, NODES)), starts]), np.asarray(matrices)


def referred(graph, b, gap, seconds):
    wait, units = np.zeros((NODES, NODES)), np.eye(NODES)
    np.add.at(wait, (np.arange(NODES)[:, None], np.asarray(graph.neighbours)), np.asarray(graph.latency))
    records = drifting.run_backup(
        b,
        lambda i, n: float(seconds[i, n]),
        lambda i, n, x: units[i] - x,
        np.zeros((NODES, NODES)),
        neighbours_of(graph),
        STEPS,
        latency=lambda i, j: wait[i, j],
        gap=gap,
    )
    return np.array([[0.0] * NODES, *(record.ends for record in records)]), np.array([record.x for record in records])


def apart(graph, starts):
    """The largest difference between two neighbours' iteration numbers at any time, as long as all of them run."""
    times = np.unique(starts)
    times = times[times < starts[-1].min()]
    iteration = np.stack([np.searchsorted(own, times, side="right") - 1 for own in starts.T])
    return max(np.abs(iteration[i] - iteration[j]).max() for i, near in enumerate(neighbours_of(graph)) for j in near)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("law", ["exponential", "heavy"])
def test_start_times_and_matrices_are_the_references(gap, law):
    for seed in range(8):
        graph, seconds, b = random_graph(seed, latency=seed % 2 * 2.0), delays_of(law, seed), seed // 2
        seen, expected = clocked(graph, b, gap, seconds), referred(graph, b, gap, seconds)
        for value, wanted in zip(seen, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gap", GAPS)
def test_neighbours_are_at_most_gap_iterations_apart_and_no_less_than_that(gap):
    """Worker 0 is eight times slower than the others, so that the gap is what stops them."""
    seen = []
    for seed in range(6):
        graph, seconds = random_graph(seed), delays_of("exact", seed)
        starts, _ = clocked(graph, NODES, gap, seconds)
        np.testing.assert_array_equal(starts, referred(graph, NODES, gap, seconds)[0])
        seen.append(apart(graph, starts))
    assert max(seen) == gap if gap < math.inf else min(seen) > max(GAPS[:-1])


@pytest.mark.usefixtures("x64")
def test_a_gap_that_is_never_reached_is_none():
    graph, seconds = random_graph(1, 0.5), delays_of("heavy", 1)
    free, wide = (clocked(graph, 1, gap, seconds) for gap in (math.inf, STEPS + 1))
    for one, other in zip(free, wide, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert build_policy("backup:gap=inf").init(graph).earlier.shape == (0, NODES)


@pytest.mark.usefixtures("x64")
def test_without_backup_workers_no_gap_can_be_reached():
    """Who waits for all neighbours' messages is one iteration ahead of them at most."""
    graph, seconds = random_graph(2), delays_of("heavy", 2)
    for one, other in zip(clocked(graph, 0, 1, seconds), clocked(graph, 0, math.inf, seconds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_the_default_is_stated_and_finite():
    graph = random_graph(0)
    assert POLICIES["backup"].build.__kwdefaults__["gap"] == GAP
    assert build_policy("backup").init(graph).earlier.shape == (GAP - 1, NODES)
    assert build_policy("backup:gap=5").init(graph).earlier.shape == (4, NODES)


@pytest.mark.parametrize("gap", ["0", "-1", "1.5", "-inf", "0.999", str(LARGEST_GAP + 1), "1e30"])
def test_a_gap_that_is_no_number_of_iterations(gap):
    with pytest.raises(ValueError, match=r"^policy 'backup:gap=.*': gap=.* is not a number of iterations; use .* inf"):
        build_policy(f"backup:gap={gap}")


@pytest.mark.parametrize(("gap", "words"), [("nan", "NaN cannot be used"), ("eight", "is not a number")])
def test_a_gap_that_is_no_number(gap, words):
    with pytest.raises(ValueError, match=rf"^policy 'backup:gap={gap}': gap={gap} is not .*$") as caught:
        build_policy(f"backup:gap={gap}")
    assert words in str(caught.value)


def test_backups_are_capped_at_what_a_degree_allows():
    star = graphs.star(5)
    assert np.asarray(backups_of(star, 2)).tolist() == [2, 0, 0, 0, 0]
    assert np.asarray(backups_of(star, 0)).tolist() == [0] * 5
    assert np.asarray(backups_of(graphs.path(1), 3)).tolist() == [0]


def test_a_cap_is_told_in_one_line():
    assert notes("backup:b=1", graphs.ring(6)) == []
    assert notes("backup:b=0", graphs.star(5)) == []
    assert notes("backup:b=3", graphs.path(1)) == []
    assert notes("dybw", graphs.star(5)) == []
    lollipop = graphs.from_links(5, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3), (3, 4)])
    assert notes("backup:b=2", lollipop) == [
        "backup:b=2: worker 4 has 1 neighbour, so it waits for the fastest of them (b capped at 0)"
    ]
    (line,) = notes("backup:b=2", graphs.star(5))
    assert line == (
        "backup:b=2: 4 of 5 workers have at most 2 neighbours and wait for the fastest of them "
        "(b capped at their number less 1; worker 1 has 1 neighbour)"
    )
    state = build_policy("backup:b=2").init(graphs.star(5))
    assert notes("backup:b=2", graphs.star(5), state) == [line]


def test_what_is_idealised_is_known_of_typed_settings_and_of_defaults():
    late = ["late=apply: the gradient of a late worker counts before it is ready"]
    for name in ("dybw", "full", "fastest:k=2", "deadline:seconds=1"):
        assert idealisations(name + (",late=apply" if ":" in name else ":late=apply")) == late
        assert idealisations(name + (",late=carry" if ":" in name else ":late=carry")) == []
    assert idealisations("backup") == idealisations("dpsgd") == []
    with pytest.raises(ValueError, match="^unknown policy 'dbyw'; did you mean 'dybw'"):
        idealisations("dbyw")


@pytest.mark.parametrize("name", POLICIES)
def test_every_method_can_be_cited(name):
    """The entries themselves: `test_citation.py`."""
    method = POLICIES[name]
    for paper in method.papers:
        assert paper.short in method.paper
        assert paper.bibtex in method.bibtex
    assert method.mixing in ("doubly", "row", "column")
