"""Delay laws against closed forms; the Markov chain against one simulated forwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.network import delays as laws
from dbwjax.network.draws import uniform

KEY = jax.random.key(3)
WORKERS, DRAWS = 8, 4000
N = WORKERS * DRAWS


def draw(spec, workers=WORKERS, draws=DRAWS, seed=0, key=KEY):
    """Seconds [workers, draws]."""
    model = laws.build_delays(spec, workers, seed)
    each = jax.vmap(jax.vmap(model, (None, None, 0)), (None, 0, None))
    return np.asarray(jax.jit(each)(key, jnp.arange(workers), jnp.arange(draws)), np.float64)


@pytest.mark.parametrize(
    ("spec", "mean", "variance", "least"),
    [
        ("uniform:low=1,high=3", 2, 1 / 3, 1),
        ("shifted_exponential:shift=0.5,rate=2", 1, 1 / 4, 0.5),
        ("pareto:alpha=5,scale=2", 2.5, 4 * 5 / (16 * 3), 2),
        ("lognormal:median=2,sigma=0.5", 2 * np.exp(0.125), 4 * np.exp(0.25) * (np.exp(0.25) - 1), 0),
        ("random_slow:probability=0.3,factor=5", 2.2, 16 * 0.21, 1),
    ],
)
def test_moments(spec, mean, variance, least):
    seconds = draw(spec)
    assert seconds.min() >= least
    assert abs(seconds.mean() - mean) < 4 * np.sqrt(variance / N)
    assert abs(seconds.var() / variance - 1) < 0.15
    # Neighbouring computations and workers are not correlated.
    for a, b in ((seconds[:, 1:], seconds[:, :-1]), (seconds[1:], seconds[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(N - DRAWS)


def test_tail_of_pareto():
    seconds = draw("pareto:alpha=2,scale=1")
    for x in (1.5, 2, 4):
        p = x**-2
        assert abs((seconds > x).mean() - p) < 4 * np.sqrt(p * (1 - p) / N)


def test_constant_and_slow_workers():
    assert (draw("constant:seconds=2.5") == 2.5).all()
    seconds = draw("slow_workers:fraction=0.3,factor=4", workers=10, draws=5)
    assert (seconds == seconds[:, :1]).all()
    assert sorted(seconds[:, 0]) == [1] * 7 + [4] * 3
    other = draw("slow_workers:fraction=0.3,factor=4", workers=10, draws=1, seed=1)
    assert (other[:, 0] != seconds[:, 0]).any()


@pytest.mark.parametrize(
    ("p_slow", "p_recover"), [(0.05, 0.2), (0.7, 0.8), (0.3, 0.7), (0.0, 0.5), (0.4, 0.0), (1.0, 1.0)]
)
def test_markov_is_the_chain_simulated_forwards(p_slow, p_recover):
    draws = 300
    seconds = draw(f"markov:p_slow={p_slow},p_recover={p_recover},factor=3", draws=draws)
    number = jnp.arange(draws)
    for worker in range(WORKERS):
        u = np.asarray(jax.vmap(lambda n: uniform(KEY, worker, n, jnp.float32))(number))  # noqa: B023
        slow = [u[0] < np.float32(p_slow) / np.float32(p_slow + p_recover)]
        for value in u[1:]:
            slow.append(value < (1 - np.float32(p_recover) if slow[-1] else np.float32(p_slow)))
        np.testing.assert_array_equal(seconds[worker] == 3, slow)


def test_markov_is_stationary_and_stays():
    slow = draw("markov:p_slow=0.1,p_recover=0.4,factor=2") == 2
    # The chain's correlation time is about 3 computations, which widens the standard error of its share.
    assert abs(slow.mean() - 0.2) < 4 * np.sqrt(0.16 * 3 / N)
    assert abs(slow[:, 0].mean() - 0.2) < 0.5
    left = slow[:, :-1] & ~slow[:, 1:]
    assert abs(left.sum() / slow[:, :-1].sum() - 0.4) < 4 * np.sqrt(0.24 / slow.sum())


@pytest.mark.parametrize("spec", ["pareto", "markov", "lognormal*slow_workers:fraction=0.5", "random_slow*uniform"])
def test_a_delay_is_a_function_of_its_arguments(spec):
    model = laws.build_delays(spec, 4)
    table = draw(spec, 4, 50)
    for worker, started in ((0, 0), (3, 49), (1, 17)):
        plain = float(model(KEY, jnp.asarray(worker), jnp.asarray(started)))
        assert plain == pytest.approx(table[worker, started], rel=1e-6)
    assert (draw(spec, 4, 50, key=jax.random.key(4)) != table).any()


def test_products_are_independent_factors():
    seconds = draw("random_slow:probability=0.5,factor=2*random_slow:probability=0.5,factor=3")
    shares = [(seconds == value).mean() for value in (1, 2, 3, 6)]
    np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.1875 / N))
    first = draw("random_slow:probability=0.5,factor=2")
    np.testing.assert_array_equal(first == 2, np.isin(seconds, (2, 6)))


def test_trace_is_replayed_in_order_and_again(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text("a,b,c\n1,10,7\n2,20,7\n3,30,7\n")
    seconds = draw(f"trace:path={file},columns=first", workers=2, draws=7)
    np.testing.assert_array_equal(seconds, [[1, 2, 3, 1, 2, 3, 1], [10, 20, 30, 10, 20, 30, 10]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n1\n", "line 2 has 1 columns, line 1 has 2"),
        ("1\n", "line 1 has 1 columns; 2 workers need 2"),
        ("1,2\n1,-2\n", "line 2, column 2: '-2' is not a time"),
        ("1,2\nnan,2\n", "line 2, column 1: 'nan' is not a time"),
        ("1,2\n1,x\n", "'x' is not a time"),
        ("1,inf\n", "'inf' is not a time"),
        ("a,b\n", "has no rows"),
        ("", "has no rows"),
        ("1,0\n1,0\n", "every time of column 2 is 0"),
    ],
)
def test_bad_traces(tmp_path, text, message):
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        laws.build_delays(f"trace:path={file}", 2)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("constant:seconds=0", "seconds=0 is out of range"),
        ("constant:seconds=inf", "seconds=inf is out of range"),
        ("constant:seconds=nan", "NaN"),
        ("uniform:low=2,high=1", "low=2, high=1 is not a range"),
        ("uniform:low=0,high=0", "is not a range"),
        ("shifted_exponential:shift=-1", "shift=-1 is not a time"),
        ("shifted_exponential:rate=0", "rate=0 is out of range"),
        ("pareto:alpha=-2", "alpha=-2 is out of range"),
        ("lognormal:sigma=-1", "sigma=-1 is not a spread"),
        ("slow_workers:fraction=1.1", "fraction=1.1 is out of range; use 0 to 1"),
        ("slow_workers:factor=0", "factor=0 is out of range"),
        ("random_slow:probability=-0.1", "probability=-0.1 is out of range"),
        ("markov:p_slow=0,p_recover=0", "never change anything"),
        ("markov:p_slow=2", "p_slow=2 is out of range"),
        ("trace:path=nowhere.csv", "nowhere.csv cannot be read"),
        ("trace", "needs path="),
        ("exponential", "unknown delays 'exponential'; did you mean 'shifted_exponential'"),
        ("lognormal*", "names nothing"),
    ],
)
def test_bad_settings(spec, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        laws.build_delays(spec, 4)
    assert message in str(caught.value)
