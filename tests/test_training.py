"""`train_policy`: rows, histories, times, how a training ends that went wrong, and what a second call compiles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from dbwjax import train_policy
from dbwjax.experiments.timing import NotATime
from dbwjax.experiments.training import Diverged, Stalled
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.storage.metrics_log import COLUMNS
from dbwjax.tasks import from_arrays
from dbwjax.tasks.synthetic import quadratic
from dbwjax.tasks.task import Task
from tests import handmade

NODES = 5


@functools.cache
def setting():
    """The pieces that all trainings here share."""
    graph = graphs.ring(NODES)
    delays = laws.build_delays("shifted_exponential:shift=0.3,rate=1", NODES)
    return quadratic(dimension=6, workers=NODES, batch_size=2), graph, delays, build_optimizer("sgd", 0.1)


@functools.cache
def trained(spec="dybw:late=drop", **budget):
    return train_policy(spec, *setting(), **(budget or {"steps": 23, "eval_every": 10}))


def test_a_row_at_the_start_at_every_evaluation_and_at_the_end():
    rows = trained().rows
    assert [row["step"] for row in rows] == [0, 10, 20, 23]
    assert [row["step"] for row in trained(steps=20, eval_every=10).rows] == [0, 10, 20]
    for number, row in enumerate(rows):
        assert list(row) == [*COLUMNS[COLUMNS.index("row") :], "suboptimality"]
        assert row["row"] == number
        assert row["test_accuracy"] is None  # a quadratic has none
        assert row["test_loss"] > 0
        assert row["suboptimality"] >= 0
        assert row["diverged"] is False
    first = rows[0]
    assert (first["virtual_time"], first["consensus_distance"], first["gradients"]) == (0, 0, 0)
    for name in ("train_loss", "active_fraction", "backup_workers", "iteration_length"):
        assert first[name] is None, name


def test_a_history_of_every_step():
    """The step after the last row is there, too: it is under way when the budget ends."""
    result = trained()
    assert result.active.shape == (24, NODES)
    assert result.active.dtype == bool
    assert result.duration.shape == result.backup_workers.shape == (24,)
    np.testing.assert_array_equal(result.length, result.duration[:23])  # a global barrier
    # On a ring each active worker has two neighbours; a late one hears nobody and has both as backups.
    heard = [(row & np.roll(row, 1)).sum() * 2 for row in result.active]
    np.testing.assert_allclose(result.backup_workers, 2 - np.array(heard) / NODES, atol=1e-6)
    assert {leaf.shape for leaf in jax.tree.leaves(result.params)} == {(NODES, 6)}


def test_virtual_time_is_the_float64_sum_of_durations():
    result = trained()
    absolute = np.concatenate([[0], np.cumsum(result.duration, dtype=np.float64)])
    assert [row["virtual_time"] for row in result.rows] == [absolute[int(row["step"])] for row in result.rows]
    assert result.duration.dtype == np.float32  # each step of them; only the sum is in float64


def test_rows_average_the_steps_since_the_last_row():
    result = trained()
    for before, row in zip(result.rows, result.rows[1:], strict=False):
        since = slice(int(before["step"]), int(row["step"]))
        np.testing.assert_allclose(row["active_fraction"], result.active[since].mean(), rtol=1e-12)
        np.testing.assert_allclose(row["backup_workers"], result.backup_workers[since].mean(dtype=float), rtol=1e-6)
        assert row["gradients"] == result.active[: since.stop].sum()  # late="drop"


@pytest.mark.optimised
def test_evaluations_do_not_change_a_run():
    often, seldom = (train_policy("dybw:late=drop", *setting(), steps=23, eval_every=every) for every in (3, 10))
    np.testing.assert_array_equal(often.params, seldom.params)
    np.testing.assert_array_equal(often.duration, seldom.duration)
    for name in ("virtual_time", "test_loss", "consensus_distance", "gradients"):
        assert often.rows[-1][name] == seldom.rows[-1][name], name


def test_the_same_run_by_iterations_by_times_and_by_seconds():
    by_steps = trained()
    times = tuple(row["virtual_time"] for row in by_steps.rows)
    assert [{**row, "wall_time": 0} for row in trained(times=times).rows] == [
        {**row, "wall_time": 0} for row in by_steps.rows
    ]
    by_seconds = trained(seconds=times[-1], rows=4)
    assert [row["virtual_time"] for row in by_seconds.rows] == np.linspace(0, times[-1], 5).tolist()
    assert by_seconds.rows[-1]["test_loss"] == by_steps.rows[-1]["test_loss"]
    np.testing.assert_array_equal(by_seconds.params, by_steps.params)


def test_policies_share_delays_batches_and_parameters_and_seeds_do_not():
    dybw, full = trained(), trained("full", steps=23, eval_every=10)
    assert dybw.rows[0]["test_loss"] == full.rows[0]["test_loss"]
    assert (dybw.duration <= full.duration).all()  # fresh and equal delays in each step
    other = trained("full", steps=23, eval_every=10, seed=1)
    assert not np.allclose(other.duration, full.duration)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"steps": 0}, "steps=0 is out of range; use 1 or more"),
        ({"steps": 5, "eval_every": 0}, "eval_every=0 is out of range; use 1 or more"),
        ({"steps": 5, "eval_every": 6}, "eval_every=6 is out of range; use 1 to steps=5"),
        ({"seconds": 5, "eval_every": 6}, "eval_every counts iterations; use rows with seconds"),
        ({"seconds": 0}, "seconds=0 is no budget; use a finite time above 0"),
        ({"seconds": float("nan")}, "seconds=nan is not a number"),
        ({"seconds": 5, "rows": 0}, "rows=0 is out of range; use 1 or more"),
        ({"seconds": 5, "steps": 5}, "seconds=5, steps=5: give one budget"),
        ({}, "seconds=None, steps=None: give one budget"),
        ({"times": [1, 1]}, "are not ascending finite times"),
        ({"times": [1, 2], "seconds": 2}, "times= are the budget; leave seconds= and steps= out"),
    ],
)
def test_budgets_out_of_range(numbers, said):
    with pytest.raises(ValueError, match=said):
        train_policy("full", *setting(), **numbers)


def test_a_policy_that_does_not_fit_the_graph():
    with pytest.raises(ValueError, match="k=99 is more than the"):
        train_policy("fastest:k=99", *setting(), steps=3)


@pytest.mark.parametrize("odd", ["task", "graph", "delays"])
def test_numbers_of_workers_that_differ_are_named(odd):
    workers = {"task": 4, "graph": 4, "delays": 4, odd: 6}
    task = quadratic(dimension=2, workers=workers["task"])
    law = laws.build_delays("lognormal*random_slow", workers["delays"])
    said = ", ".join(f"the {name} is of {count}" for name, count in workers.items())
    with pytest.raises(ValueError, match=rf"numbers of workers differ \({said}\); build all of them"):
        train_policy("full", task, graphs.ring(workers["graph"]), law, optax.sgd(0.1), seconds=3)


def test_a_law_of_ones_own_is_of_any_number_of_workers():
    task, graph, _, optimizer = setting()
    found = train_policy("full", task, graph, lambda key, worker, started: jnp.float32(2), optimizer, seconds=5, rows=1)
    np.testing.assert_array_equal(found.duration, [2, 2, 2])


def made_up(worker, computation):
    """A task whose loss is NaN in one computation of one worker, and whose parameters stay finite elsewhere."""
    return Task(
        name="made up",
        init=lambda key: jnp.zeros(2),
        loss=lambda params, batch: batch * (1 + (params**2).sum()),
        batches=Partial(_nan_once, jnp.asarray(worker), jnp.asarray(computation)),
        evaluate=Partial(lambda params: {"test_loss": (params**2).sum()}),
        sizes=np.ones(NODES, np.int32),
    )


def _nan_once(worker, computation, key, who, started):
    return jnp.where((who == worker) & (started == computation), jnp.nan, 1.0)


def train_made_up(spec, worker, computation):
    _, graph, delays, optimizer = setting()
    return train_policy(spec, made_up(worker, computation), graph, delays, optimizer, steps=15, eval_every=1)


@pytest.mark.parametrize(("worker", "computation"), [(0, 0), (3, 7), (NODES - 1, 14)])
def test_a_loss_that_is_not_finite_names_the_time(worker, computation):
    """Under `full` computation n is everybody's step n, in whatever chunk it lies."""
    ends = [row["virtual_time"] for row in train_made_up("full", 0, -1).rows]
    with pytest.raises(Diverged, match=f"^a loss is not finite at {ends[computation + 1]:.6g} s; use a smaller"):
        train_made_up("full", worker, computation)
    assert Diverged.exit_code == 3


def test_a_loss_that_does_not_count_may_be_anything():
    """A late worker's gradient is thrown away, and its NaN with it."""
    spec = "dybw:late=drop"
    active = train_made_up(spec, 0, -1).active
    step = 7
    late, there = np.flatnonzero(~active[step]), np.flatnonzero(active[step])
    assert late.size
    assert there.size
    unharmed = train_made_up(spec, int(late[0]), step)
    assert np.isfinite(unharmed.params).all()
    np.testing.assert_array_equal(unharmed.active, active)
    with pytest.raises(Diverged):
        train_made_up(spec, int(there[0]), step)


def test_a_carried_computation_diverges_when_it_counts():
    """Under `late=carry` computation n of a worker counts in its n-th active step, counted from 0."""
    spec, worker, computation = "fastest:k=3,late=carry", 2, 4
    found = train_made_up(spec, worker, -1)
    step = int(np.flatnonzero(found.active[:, worker])[computation])
    assert step > computation
    with pytest.raises(Diverged, match=f"at {found.rows[step + 1]['virtual_time']:.6g} s;"):
        train_made_up(spec, worker, computation)


def test_a_test_loss_that_is_not_finite():
    _, graph, delays, optimizer = setting()
    task = made_up(0, -1)._replace(evaluate=Partial(lambda params: {"test_loss": jnp.log(-1 - params.sum())}))
    with pytest.raises(Diverged, match=r"^a loss is not finite at 0 s;"):
        train_policy("full", task, graph, delays, optimizer, steps=3)


def test_a_node_that_never_computes_in_a_training():
    """An asynchronous server is trained with, but neither measured nor counted."""
    task, _, delays, optimizer = setting()
    graph = graphs.star(NODES + 1)._replace(computes=jnp.arange(NODES + 1) < NODES)
    found = train_policy(handmade.asynchronous_server(), task, graph, delays, optimizer, seconds=4, rows=2)
    row, workers = found.rows[-1], np.asarray(found.params, float)[:NODES]
    distance = np.sqrt(((workers - workers.mean(axis=0)[None]) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(row["consensus_distance"], distance, rtol=1e-5)
    mean = jnp.asarray(workers.mean(axis=0))
    np.testing.assert_allclose(row["test_loss"], task.evaluate(mean)["test_loss"], rtol=1e-5)
    ended = np.cumsum(found.duration, dtype=float) <= 4
    assert row["gradients"] == ended.sum() > NODES
    np.testing.assert_array_equal(found.active.sum(axis=1), 1)
    assert found.workers[found.active].max() < NODES


def _sometimes(seconds, key, worker, started):
    return jnp.where((worker == 1) & (started == 2), seconds, 1.0)


@pytest.mark.parametrize("seconds", [np.nan, np.inf])
def test_an_iteration_that_never_ends_is_said(seconds):
    """A user's own delay model may give anything: no gradient is taken for parameters."""
    law = Partial(_sometimes, jnp.asarray(seconds))
    pieces = (quadratic(dimension=3, workers=3), graphs.complete(3), law, optax.sgd(0.1))
    if np.isnan(seconds):
        for budget in ({"steps": 5}, {"seconds": 5}):
            with pytest.raises(NotATime, match=r"^computation 2 of worker 1 \(both from 0\) takes nan seconds"):
                train_policy("full", *pieces, **budget)
    else:
        with pytest.raises(Stalled, match="the iteration at step 2 never ends"):
            train_policy("full", *pieces, steps=5)
        # at the budget it has not ended, and that is all
        assert [row["step"] for row in train_policy("full", *pieces, seconds=5, rows=5).rows] == [0, 1, 2, 2, 2, 2]


def test_a_mean_over_nobody_is_null_and_not_zero():
    """Everybody is late for three iterations of a quarter of a second, and in time for the fourth."""
    data = {"x": np.ones((8, 1), np.float32)}
    task = from_arrays(
        lambda params, batch: 3.0 + 0 * params.sum(), lambda key: jnp.zeros(1), data, workers=4, batch_size=2
    )
    law = laws.build_delays("constant:seconds=1", 4)
    times = [0.25 * row for row in range(1, 13)]
    rows = train_policy("deadline:seconds=0.25,late=carry", task, graphs.ring(4), law, optax.sgd(0.1), times=times).rows
    losses = [row["train_loss"] for row in rows]
    assert losses == [None, *[None, None, None, 3.0] * 3]
    whole = train_policy(
        "deadline:seconds=0.25,late=carry", task, graphs.ring(4), law, optax.sgd(0.1), seconds=3, rows=1
    )
    assert whole.rows[-1]["train_loss"] == 3.0
    assert whole.rows[-1]["active_fraction"] == 0.25


def own_task(scale=1.0):
    """A task of closures, as a notebook builds one."""
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(40, 3)).astype(np.float32)}

    def loss(params, batch):
        return scale * ((batch["x"] - params[None]) ** 2).mean()

    return from_arrays(loss, lambda key: jnp.zeros(3), data, workers=4, batch_size=2)


def test_a_second_call_with_everything_built_anew_compiles_nothing(caplog):
    def call(seed, **task):
        law = laws.build_delays("shifted_exponential", 4, seed)
        policy, optimizer = build_policy("fastest:k=3"), build_optimizer("momentum", 0.1)
        return train_policy(policy, own_task(**task), graphs.ring(4), law, optimizer, steps=30, seed=seed)

    def compiled(*words, **more):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            result = call(*words, **more)
        return result, [one for one in caplog.messages if one.startswith("Compiling")]

    first, some = compiled(0)
    assert some
    again, none = compiled(0)
    assert none == []
    np.testing.assert_array_equal(first.params, again.params)
    other, none = compiled(1)
    assert none == []
    assert not np.array_equal(first.params, other.params)
    _, some = compiled(0, scale=2.0)
    assert some  # another loss
