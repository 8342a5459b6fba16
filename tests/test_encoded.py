"""Encoded least squares: the encoding, gradient descent with all blocks, the reference with some, what it refuses."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax import train_policy
from dbwjax.cli import replay, train
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy, notes
from dbwjax.policies.encoded import blocks, descending, encode
from dbwjax.tasks import build_task
from dbwjax.types import Combine
from tests.cases import LEARNER, STEPS, Case, policy_of
from tests.reference import exact as reference
from tests.run_folder import rows

WORKERS, D = 6, 3
TASK = f"least_squares:dimension={D},samples=41,condition=5"


@functools.cache  # only called under the x64 fixture
def learned():
    task = build_task(TASK, workers=WORKERS, batch_size=2)
    return task, from_optimizer(task.loss, optax.sgd(0.1))


def rows_of(task):
    """A and b of the mean objective `|A x - b|^2 / 2`, in NumPy, from what batches are drawn of."""
    _, data, indices, sizes = task.batches.args
    features, target = np.asarray(data.features), np.asarray(data.target)
    parts = [np.asarray(row)[:size] for row, size in zip(indices, np.asarray(sizes), strict=True)]
    assert len({len(part) for part in parts}) == 2  # shares differ in size
    scale = [np.sqrt(1 / (WORKERS * len(part))) for part in parts]
    return (
        np.concatenate([features[part] * one for part, one in zip(parts, scale, strict=True)]),
        np.concatenate([target[part] * one for part, one in zip(parts, scale, strict=True)]),
    )


@functools.cache  # only called under the x64 fixture
def case(latency=0.0):
    graph = graphs.with_links(graphs.complete(WORKERS), latency=latency)
    return Case(graph, 0, "shifted_exponential:shift=0.2,rate=1")


def course(spec, latency=0.0, steps=STEPS):
    policy, (task, learner) = policy_of(spec), learned()
    world = case(latency).world._replace(batches=policy.whole(task.objectives, WORKERS))
    world = simulate.networked(policy, world)
    state = simulate.init(policy, learner, world, task.init(jax.random.key(0)))
    ends, models = [0.0], []
    for _ in range(steps):
        state, record = simulate.run(policy, learner, world, state, 1)
        ends.append(ends[-1] + float(record.duration[0]))
        models.append(np.asarray(state.model.params)[-1])  # the server's
    return np.array(ends[1:]), np.array(models)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("rows", "columns"), [(41, 41), (84, 41), (90, 30)])
def test_columns_of_the_encoding_are_orthonormal(rows, columns):
    matrix = encode(np.eye(columns), rows)
    assert matrix.shape == (rows, columns)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(columns), atol=1e-13)
    assert np.abs(matrix).max() < 0.5  # every row is spread over the data


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("redundancy", [1.0, 2.0, 2.5])
def test_the_blocks_mean_is_the_objective(redundancy):
    task, _ = learned()
    coded, x = blocks(task.objectives, WORKERS, redundancy), jnp.linspace(-1, 2, D)
    found = [coded(jax.random.key(0), worker, 0) for worker in range(WORKERS)]
    a, b = rows_of(task)
    np.testing.assert_allclose(
        np.mean([task.loss(x, one.data) for one in found]), ((a @ x - b) ** 2).sum() / 2, rtol=1e-12
    )
    values = np.linalg.eigvalsh(a.T @ a)
    np.testing.assert_allclose((found[0].strong, found[0].smooth), (values[0], values[-1]), rtol=1e-12)
    size = found[0].data.features.shape[0]
    assert size == np.ceil(redundancy * 41 / WORKERS)
    last = coded(jax.random.key(0), WORKERS, 0)  # the server's number
    np.testing.assert_array_equal(last.data.target, found[-1].data.target)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("redundancy", [1, 2])
def test_all_blocks_are_plain_gradient_descent(redundancy):
    _, models = course(f"encoded:redundancy={redundancy},k={WORKERS}")
    a, b = rows_of(learned()[0])
    step, x = 1 / np.linalg.eigvalsh(a.T @ a)[-1], np.zeros(D)
    for found in models:
        x = x - step * a.T @ (a @ x - b)
        np.testing.assert_allclose(found, x, rtol=1e-12, atol=1e-12)
    best = np.asarray(learned()[0].minimiser)
    assert np.abs(models[-1] - best).max() < 1e-3 * np.abs(models[0] - best).max()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("latency", [0.0, 0.3])
@pytest.mark.parametrize(("settings", "redundancy", "k"), [("", 2, 3), (":redundancy=1.5,k=5", 1.5, 5), (":k=1", 2, 1)])
def test_the_fastest_k_are_the_reference(settings, redundancy, k, latency):
    """The encoding itself is the library's: its blocks are undone of their scale, which depends on the loss's mean."""
    task, _ = learned()
    coded = blocks(task.objectives, WORKERS, redundancy)
    data = [coded(jax.random.key(0), worker, 0).data for worker in range(WORKERS)]
    scale = np.sqrt(redundancy / (WORKERS * data[0].features.shape[0]))
    parts = [(np.asarray(one.features) * scale, np.asarray(one.target) * scale) for one in data]
    a, _ = rows_of(task)
    gram = sum(one.T @ one for one, _ in parts)
    np.testing.assert_allclose(gram, redundancy * a.T @ a, rtol=1e-12)  # S'S = redundancy I
    smooth = np.linalg.eigvalsh(a.T @ a)[-1]
    ends, models = reference.run_blocks(parts, redundancy, smooth, k, case().delay, np.zeros(D), STEPS, latency)
    found = course(f"encoded{settings}", latency)
    np.testing.assert_allclose(found[0], ends, rtol=1e-12)
    np.testing.assert_allclose(found[1], models, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_with_some_blocks_it_ends_near_the_optimum():
    """Waiting for 4 of 6 blocks: nearer than the workers' own solutions, and never there."""
    task, _ = learned()
    _, models = course("encoded:k=4", steps=120)
    best = np.asarray(task.minimiser)
    away = np.linalg.norm(models[60:] - best, axis=1)
    assert 1e-6 < away.mean() < 0.5 * np.linalg.norm(best)


def test_how_many_are_waited_for():
    network = policy_of("encoded").network(graphs.complete(10))
    kept = {spec: int(build_policy(spec).init(network)) for spec in ("encoded", "encoded:redundancy=3", "encoded:k=7")}
    assert kept == {"encoded": 5, "encoded:redundancy=3": 4, "encoded:k=7": 7}
    assert int(build_policy("encoded:redundancy=1").init(network)) == 10
    said = notes("encoded:k=7", network)
    assert "it steps by 1 / smoothness" in said[0]
    assert said[1].endswith("it waits for 7 of 10 blocks, and ends near the optimum, not at it")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: build_policy("encoded:redundancy=0.5"), "redundancy=0.5 is out of range; use 1"),
        (lambda: build_policy("encoded:redundancy=65"), "redundancy=65 is out of range"),
        (lambda: build_policy("encoded:redundancy=inf"), "redundancy=inf is out of range"),
        (lambda: build_policy("encoded:k=-1"), "k=-1"),
        (
            lambda: build_policy("encoded:k=9").init(policy_of("encoded").network(graphs.complete(8))),
            "k=9 is more than the 8 workers; use 1 to 8",
        ),
        (
            lambda: train_policy("encoded", *_other("logistic"), steps=3),
            "only least squares can be encoded, and this task is another; use --dataset least_squares",
        ),
        (
            lambda: train_policy("encoded", *_other("quadratic"), steps=3),
            "only least squares can be encoded",
        ),
        (
            lambda: descending(LEARNER._replace(combine=Combine(lambda *parts: (parts[2], parts[4]), True))),
            "this learner mixes more than parameters",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


def _other(dataset):
    task = build_task(f"{dataset}:dimension=3", workers=4, batch_size=2)
    return task, graphs.ring(4), laws.build_delays("constant", 4), optax.sgd(0.1)


def test_the_command_runs_it_and_replays_it(tmp_path, capsys):
    """Beside methods that draw batches of the same data, and one that is exact."""
    words = ["--workers", "4", "--graph", "complete", "--dataset", "least_squares:dimension=3,samples=40"]
    words += ["--batch-size", "4", "--rows", "4", "--seeds", "1", "--no-progress"]
    words += ["--policies", "encoded:k=3", "server", "ssda"]
    assert train.main([*words, "--seconds", "80", "--out", str(tmp_path / "run")]) == 0
    last = {row["policy"]: row for row in rows(tmp_path / "run")}
    assert abs(last["ssda"]["suboptimality"]) < 1e-6
    assert last["encoded:k=3"]["suboptimality"] < rows(tmp_path / "run")[0]["suboptimality"]
    assert last["encoded:k=3"]["test_accuracy"] is None
    assert last["server"]["suboptimality"] > 0
    capsys.readouterr()
    assert replay.main([str(tmp_path / "run")]) == 0
    assert "NOT AS RECORDED" not in capsys.readouterr().out


def test_the_command_refuses_other_tasks(tmp_path, capsys):
    words = ["--workers", "4", "--graph", "complete", "--seconds", "5", "--no-progress", "--policies", "encoded"]
    for dataset in ("logistic", "digits"):
        assert train.main([*words, "--dataset", dataset, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: policy 'encoded'")
        assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
