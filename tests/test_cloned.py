"""Cloned tasks: the least of independent draws, which draws those are, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import clock
from dbwjax.engine.simulate import World
from dbwjax.engine.timeline import timeline
from dbwjax.network import graphs
from dbwjax.network.delays import build_delays, copies_of
from tests.cases import policy_of

WORKERS, DRAWS = 6, 5000
EXPONENTIAL = "shifted_exponential:shift=0,rate=2"


def draw(spec, key=0, law=None):
    """Seconds [workers, draws]."""
    model = build_delays(spec, WORKERS) if law is None else law
    each = jax.vmap(jax.vmap(model, (None, None, 0)), (None, 0, None))
    return np.asarray(jax.jit(each)(jax.random.key(key), jnp.arange(WORKERS), jnp.arange(DRAWS)), np.float64)


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_the_least_of_exponential_times(copies):
    seconds = draw(f"cloned:copies={copies}*{EXPONENTIAL}")
    mean = 1 / (2 * copies)
    assert abs(seconds.mean() - mean) < 3 * mean / np.sqrt(seconds.size)
    assert abs(seconds.std() / mean - 1) < 0.03  # exponential again
    for a, b in ((seconds[:, 1:], seconds[:, :-1]), (seconds[1:], seconds[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_the_least_of_uniform_times():
    seconds = draw("cloned:copies=4*uniform:low=1,high=3")
    assert abs(seconds.mean() - (1 + 2 / 5)) < 3 * 2 * np.sqrt(4 / (25 * 6)) / np.sqrt(seconds.size)


def test_one_copy_is_the_law():
    for spec in (EXPONENTIAL, "pareto*random_slow*slow_workers", "markov", "constant"):
        np.testing.assert_array_equal(draw(f"cloned:copies=1*{spec}"), draw(spec))


def test_the_first_machine_draws_what_the_law_draws():
    """So more machines are never slower, computation by computation."""
    alone, two, three = (draw(f"cloned:copies={copies}*{EXPONENTIAL}") for copies in (1, 2, 3))
    assert (two <= alone * (1 + 1e-5)).all()
    assert (three <= two * (1 + 1e-5)).all()
    # Each machine is as often the first.
    share = np.isclose(three, alone, rtol=1e-5, atol=0).mean()
    assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / three.size)


def test_what_is_fixed_for_a_worker_stays_and_the_rest_is_drawn_for_each_machine():
    slow = draw("cloned:copies=3*slow_workers:fraction=0.5,factor=4")
    np.testing.assert_array_equal(slow, draw("slow_workers:fraction=0.5,factor=4"))
    seconds = draw("cloned:copies=2*random_slow:probability=0.3,factor=5")
    assert set(np.unique(seconds)) == {1.0, 5.0}
    assert abs((seconds == 5).mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / seconds.size)
    # A product: of each machine the product is taken, then the least.
    both = draw(f"cloned:copies=2*{EXPONENTIAL}*slow_workers:fraction=0.5,factor=4")
    np.testing.assert_allclose(both, draw(f"cloned:copies=2*{EXPONENTIAL}") * slow, rtol=1e-5)


def test_copies_are_told_without_a_trace():
    assert copies_of(build_delays(EXPONENTIAL, 4)) == 1
    assert copies_of(build_delays(f"cloned:copies=3*{EXPONENTIAL}", 4)) == 3
    assert copies_of(lambda key, worker, started: 1.0) == 1
    told = jax.jit(lambda law: jnp.zeros(copies_of(law)))(build_delays(f"cloned:copies=3*{EXPONENTIAL}", 4))
    assert told.shape == (3,)


def test_a_time_that_is_none_is_none_on_any_machine():
    """A product that float32 does not hold: of two machines it is twice as likely, and not hidden by the least."""
    law = "uniform:low=0,high=1e-37*uniform:low=0,high=1"
    alone, two = np.isnan(draw(law)), np.isnan(draw(f"cloned:copies=2*{law}"))
    assert 0.1 < alone.mean() < 0.6
    assert two[alone].all()
    assert abs(two.mean() - (1 - (1 - alone.mean()) ** 2)) < 0.02
    assert not build_delays(f"cloned:copies=2*{law}", WORKERS).sure
    assert build_delays(f"cloned:copies=2*{EXPONENTIAL}", WORKERS).sure


def test_clones_shorten_a_synchronous_server_s_iteration():
    """K-sync of exponential workers with r machines: the order statistic over r."""
    policy = policy_of("k_sync:k=4")
    delays = build_delays(f"cloned:copies=3*{EXPONENTIAL}", WORKERS)
    world = World(policy.network(graphs.ring(WORKERS)), delays, None, jax.random.key(1))
    start = clock.init(policy, world.graph, world.delays, world.key)
    seconds = np.asarray(timeline(policy, world, start, 2000)[1].duration, np.float64)
    expected = sum(1 / i for i in range(3, WORKERS + 1)) / 6
    assert abs(seconds.mean() - expected) < 3 * seconds.std() / np.sqrt(len(seconds))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cloned", r"^delays 'cloned' needs copies=; write cloned:copies=INT$"),
        ("cloned*pareto", r"^delays 'cloned' needs copies=; write cloned:copies=INT$"),
        ("cloned:copies=2", r"'cloned:copies=2': it wraps the law that follows it; write one, as in cloned:copies=2\*"),
        ("cloned:copies=0*pareto", r"copies=0 is out of range; use 1 to 1024"),
        ("cloned:copies=1025*pareto", r"copies=1025 is out of range; use 1 to 1024"),
        ("cloned:copies=1.5*pareto", r"copies=1.5 is not a whole number"),
        ("cloned:count=2*pareto", r"unknown key 'count'; known: copies"),
        ("pareto*cloned:copies=2", r"cloned wraps the law that follows it; write it first$"),
        ("cloned:copies=2*cloned:copies=2*pareto", r"cloned is given twice; keep one, with copies= multiplied$"),
        ("cloned:copies=2*trace:path=times.csv", r"a trace measured each computation once, so there is no second draw"),
        ("cloned:copies=2*pareto*trace:path=times.csv", r"no second draw to clone; use a law, or leave cloned out$"),
    ],
)
def test_bad_settings(spec, message):
    with pytest.raises(ValueError, match=message) as refused:
        build_delays(spec, WORKERS)
    assert "\n" not in str(refused.value)
