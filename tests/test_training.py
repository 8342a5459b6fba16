"""`dbwjax.experiments.training`: rows, histories, times, and how a training ends that went wrong."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from dbwjax.engine.learner import from_optimizer
from dbwjax.experiments.metrics import measure
from dbwjax.experiments.training import (
    LONGEST_CHUNK,
    Diverged,
    Stalled,
    Training,
    chunk_of,
    initial_params,
    make_world,
    train,
)
from dbwjax.learners.optimizers import build_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.tasks.synthetic import quadratic
from dbwjax.tasks.task import Task
from dbwjax.types import ModelState
from tests import handmade

NODES = 5
COLUMNS = [
    "step",
    "virtual_time",
    "wall_time",
    "train_loss",
    "test_loss",
    "test_accuracy",
    "consensus_distance",
    "active_fraction",
    "backup_workers",
    "gradients",
]
policy_of = functools.cache(build_policy)


@functools.cache
def setting():
    """The pieces that all trainings here share."""
    graph = graphs.ring(NODES)
    delays = laws.build_delays("shifted_exponential:shift=0.3,rate=1", NODES)
    return quadratic(dimension=6, workers=NODES, batch_size=2), graph, delays, build_optimizer("sgd", 0.1)


@functools.cache
def trained(spec="dybw", steps=23, eval_every=10):
    return train(policy_of(spec), *setting(), steps=steps, eval_every=eval_every)


def test_a_row_at_the_start_at_every_evaluation_and_at_the_end():
    rows = trained().rows
    assert [row["step"] for row in rows] == [0, 10, 20, 23]
    assert [row["step"] for row in trained(steps=20).rows] == [0, 10, 20]
    assert [row["step"] for row in trained(steps=3).rows] == [0, 3]
    for row in rows:
        assert [name for name in COLUMNS if name not in row] == []
        assert row["test_accuracy"] is None  # a quadratic has none
        assert row["test_loss"] > 0
        assert row["suboptimality"] >= 0
    first = rows[0]
    assert (first["virtual_time"], first["wall_time"], first["consensus_distance"], first["gradients"]) == (0, 0, 0, 0)
    assert first["train_loss"] is None
    assert first["active_fraction"] is None


def test_a_history_of_every_step():
    result = trained()
    history = result.history
    assert history.active.shape == (23, NODES)
    assert history.active.dtype == bool
    for name in ("duration", "backup_workers", "loss", "gradients"):
        assert getattr(history, name).shape == (23,)
    np.testing.assert_array_equal(history.gradients, history.active.sum(axis=1))  # late="drop"
    # On a ring each active worker has two neighbours; a late one hears nobody and has both as backups.
    heard = [(row & np.roll(row, 1)).sum() * 2 for row in history.active]
    np.testing.assert_allclose(history.backup_workers, 2 - np.array(heard) / NODES, atol=1e-6)
    assert {leaf.shape for leaf in jax.tree.leaves(result.params)} == {(NODES, 6)}


def test_virtual_time_is_the_float64_sum_of_durations():
    result = trained()
    absolute = np.concatenate([[0], np.cumsum(result.history.duration, dtype=np.float64)])
    assert [row["virtual_time"] for row in result.rows] == [absolute[row["step"]] for row in result.rows]
    assert result.history.duration.dtype == np.float32  # each step of them; only the sum is in float64


def test_rows_average_the_steps_since_the_last_row():
    result = trained()
    history = result.history
    for before, row in zip(result.rows, result.rows[1:], strict=False):
        since = slice(before["step"], row["step"])
        np.testing.assert_allclose(row["train_loss"], history.loss[since].mean(dtype=float), rtol=1e-12)
        np.testing.assert_allclose(row["active_fraction"], history.active[since].mean(), rtol=1e-12)
        np.testing.assert_allclose(row["backup_workers"], history.backup_workers[since].mean(dtype=float), rtol=1e-12)
        assert row["gradients"] == history.gradients[: row["step"]].sum()


def test_evaluations_do_not_change_a_run():
    often, seldom = trained(eval_every=3), trained()
    np.testing.assert_array_equal(often.params, seldom.params)
    np.testing.assert_array_equal(often.history.duration, seldom.history.duration)
    assert often.rows[-1]["virtual_time"] == seldom.rows[-1]["virtual_time"]
    assert often.rows[-1]["test_loss"] == seldom.rows[-1]["test_loss"]


def test_policies_share_delays_batches_and_parameters_and_seeds_do_not():
    dybw, full = trained(), trained("full")
    assert dybw.rows[0]["test_loss"] == full.rows[0]["test_loss"]
    # Without a late worker in DTUR's first step both saw the same; the first duration is never longer.
    assert dybw.history.duration[0] <= full.history.duration[0]
    assert (dybw.history.duration <= full.history.duration).all()  # fresh and equal delays in each step
    other = train(policy_of("full"), *setting(), steps=4, eval_every=4, seed=1)
    assert not np.allclose(other.history.duration, full.history.duration[:4])


@pytest.mark.parametrize("numbers", [{"steps": 0}, {"steps": -3}, {"steps": 5, "eval_every": 0}])
def test_numbers_of_steps_out_of_range(numbers):
    name, value = next((name, value) for name, value in numbers.items() if value < 1)
    with pytest.raises(ValueError, match=f"^{name}={value} is not a number of steps; use 1 or more$"):
        train(policy_of("full"), *setting(), **numbers)


def test_a_policy_that_does_not_fit_the_graph():
    with pytest.raises(ValueError, match="k=99 is more than the"):
        train(build_policy("fastest:k=99"), *setting(), steps=3)


def test_chunk_of():
    """A chunk divides the evaluations, so that there are at most two lengths to compile, and is not longer than asked.

    Where no divisor is near the longest chunk, all of `eval_every` is one chunk.
    """
    for eval_every in range(1, 1001):
        size = chunk_of(eval_every)
        near = [d for d in range(LONGEST_CHUNK // 4, LONGEST_CHUNK + 1) if eval_every % d == 0]
        assert eval_every % size == 0
        assert size == (max(near) if near else eval_every)
    assert [chunk_of(n) for n in (1, 50, 100, 101, 150, 500)] == [1, 50, 100, 101, 75, 100]


def made_up(worker, computation):
    """A task whose loss is NaN in one computation of one worker, and whose parameters stay finite elsewhere."""

    def batches(key, who, started):
        return jnp.where((who == worker) & (started == computation), jnp.nan, 1.0)

    return Task(
        name="made up",
        init=lambda key: jnp.zeros(2),
        loss=lambda params, batch: batch * (1 + (params**2).sum()),
        batches=Partial(batches),
        evaluate=Partial(lambda params: {"test_loss": (params**2).sum()}),
        sizes=np.ones(NODES, np.int32),
    )


def train_made_up(spec, worker, computation, steps=15):
    _, graph, delays, optimizer = setting()
    return train(policy_of(spec), made_up(worker, computation), graph, delays, optimizer, steps=steps, eval_every=5)


@pytest.mark.parametrize(("worker", "computation"), [(0, 0), (3, 7), (NODES - 1, 14)])
def test_a_loss_that_is_not_finite_names_step_and_worker(worker, computation):
    """Under `full` computation n is everybody's step n, in whatever chunk it lies."""
    with pytest.raises(Diverged, match=f"^worker {worker}'s loss is not finite at step {computation}; use a smaller"):
        train_made_up("full", worker, computation)
    assert Diverged.exit_code == 3


def test_a_loss_that_does_not_count_may_be_anything():
    """A late worker's gradient is thrown away, and its NaN with it."""
    active = train_made_up("dybw", 0, -1).history.active
    step = 7
    late, there = np.flatnonzero(~active[step]), np.flatnonzero(active[step])
    assert late.size
    assert there.size
    unharmed = train_made_up("dybw", int(late[0]), step)
    assert np.isfinite(unharmed.params).all()
    np.testing.assert_array_equal(unharmed.history.active, active)
    with pytest.raises(Diverged, match=f"worker {there[0]}'s loss is not finite at step {step}"):
        train_made_up("dybw", int(there[0]), step)


def test_a_carried_computation_diverges_when_it_counts():
    """Under `late=carry` computation n of a worker counts in its n-th active step, counted from 0."""
    spec, worker, computation = "fastest:k=3,late=carry", 2, 4
    active = train_made_up(spec, worker, -1).history.active
    step = int(np.flatnonzero(active[:, worker])[computation])
    assert step > computation
    with pytest.raises(Diverged, match=f"worker {worker}'s loss is not finite at step {step};"):
        train_made_up(spec, worker, computation)


def test_a_test_loss_that_is_not_finite():
    _, graph, delays, optimizer = setting()
    task = made_up(0, -1)._replace(evaluate=Partial(lambda params: {"test_loss": jnp.log(-1 - params.sum())}))
    with pytest.raises(Diverged, match=r"^the mean model's test loss is not finite at step 0;"):
        train(policy_of("full"), task, graph, delays, optimizer, steps=3)


@pytest.mark.parametrize("mass", [False, True])
def test_measures_are_of_the_computing_nodes(mass, x64):
    rng = np.random.default_rng(0)
    computes = np.array([True, True, False, True, False])
    graph = graphs.ring(NODES)._replace(computes=jnp.asarray(computes))
    params = {"w": rng.normal(size=(NODES, 2, 3)), "b": rng.normal(size=NODES)}
    params["w"][2], params["b"][4] = 1e6, -1e6  # what a server or a mailbox holds counts for nothing
    weights = rng.uniform(0.5, 2, size=NODES) if mass else None
    state = ModelState(jax.tree.map(jnp.asarray, params), (), jnp.zeros(NODES, int), None, None)
    if mass:
        state = state._replace(mass=jnp.asarray(weights))
    seen = measure(graph, Partial(lambda x: {"test_loss": x["b"], "norm": (x["w"] ** 2).sum()}), state)

    divisor = np.ones(NODES) if weights is None else weights
    flat = np.concatenate([params["w"].reshape(NODES, -1), params["b"][:, None]], axis=1) / divisor[:, None]
    flat = flat[computes]
    mean = flat.mean(axis=0)
    distance = np.sqrt((np.linalg.norm(flat - mean[None], axis=1) ** 2).mean())
    np.testing.assert_allclose(seen["consensus_distance"], distance, rtol=1e-12)
    np.testing.assert_allclose(seen["test_loss"], mean[-1], rtol=1e-12)
    np.testing.assert_allclose(seen["norm"], (mean[:-1] ** 2).sum(), rtol=1e-12)


def test_a_node_that_never_computes_in_a_training():
    """An asynchronous server is trained with, but neither measured nor counted."""
    task, _, delays, optimizer = setting()
    graph = graphs.star(NODES + 1)._replace(computes=jnp.arange(NODES + 1) < NODES)
    world = make_world(task, graph, delays)
    learner = from_optimizer(task.loss, optimizer)
    training = Training(handmade.asynchronous_server(), learner, world, initial_params(task, world), task.evaluate)
    training.advance(4)
    training.advance(3)
    row = training.measure()
    workers = np.asarray(training.state.model.params, float)[:NODES]
    distance = np.sqrt(((workers - workers.mean(axis=0)[None]) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(row["consensus_distance"], distance, rtol=1e-5)
    np.testing.assert_allclose(
        row["test_loss"], task.evaluate(jnp.asarray(workers.mean(axis=0)))["test_loss"], rtol=1e-5
    )
    assert row["gradients"] == 7
    assert not training.history.active[:, NODES].any()
    np.testing.assert_array_equal(training.history.active.sum(axis=1), 1)


@pytest.mark.parametrize("seconds", [np.nan, np.inf])
def test_an_iteration_that_never_ends_is_said(seconds):
    """A user's own delay model may give anything: training stops, and no gradient is taken for parameters."""
    graph = graphs.complete(3)
    task = quadratic(dimension=3, workers=3)
    world = make_world(task, graph, Partial(_sometimes, jnp.asarray(seconds)))
    learner = from_optimizer(task.loss, optax.sgd(0.1))
    training = Training(policy_of("full"), learner, world, initial_params(task, world), task.evaluate)
    with pytest.raises(Stalled, match=f"the iteration at step 2 never ends \\(duration {seconds}\\)"):
        training.advance(5)


def _sometimes(seconds, key, worker, started):
    return jnp.where((worker == 1) & (started == 2), seconds, 1.0)
