"""Thousands of workers: what the host does stays quick, what the device does stays small, and neither changes a
number."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import optax
import pytest

from dbwjax import limits, train
from dbwjax.engine import readings, simulate
from dbwjax.engine.blocks import block_of, in_slices, map_workers, working_bytes
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.mixing import apply_plan, mix
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.readings import Due
from dbwjax.engine.simulate import World
from dbwjax.experiments.blocks import Places, blocks, sizes
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.experiments.rows import even_grid
from dbwjax.experiments.training import Training
from dbwjax.network import delays, graphs, properties, spanning
from dbwjax.network.weights import dense, metropolis
from dbwjax.policies import build_policy
from dbwjax.policies.gossip import matrix, mixing_form
from dbwjax.report.network import GraphPicture, _links, _reach
from dbwjax.report.run_figures import write_figures
from dbwjax.runtime import memory
from dbwjax.tasks import build_task
from dbwjax.types import Learner, ModelState, Plan
from tests import fakes

MANY = 2048


@pytest.fixture(scope="module")
def large():
    return graphs.build_graph("random_regular:degree=4", MANY, 0)


def test_facts_of_a_large_graph_are_quick_and_right(large):
    begin = time.process_time()
    links, is_path = spanning.spanning_links(large)
    farthest = properties.eccentricity(large)
    plain = properties.summary(large)
    assert time.process_time() - begin < 10
    assert is_path
    assert len(np.unique(links)) == MANY == len(links) + 1
    assert np.bincount(links.reshape(-1)).max() == 2
    assert graphs.adjacency(large)[links[:, 0], links[:, 1]].all()
    np.testing.assert_array_equal(links[1:, 0], links[:-1, 1])
    oracle = networkx.from_numpy_array(graphs.adjacency(large))
    for start in (0, 777, MANY - 1):
        assert farthest[start] == networkx.eccentricity(oracle, start)
    assert plain["diameter"] == farthest.max()


def test_eccentricity_in_several_walks_and_in_pieces(monkeypatch):
    graph = graphs.build_graph("erdos_renyi:p=0.1", 50, 3)
    expected = properties.distances(graph).max(axis=1)
    monkeypatch.setattr(properties, "_WALK", 13)
    np.testing.assert_array_equal(properties.eccentricity(graph), expected)
    with pytest.raises(ValueError, match="node 2 cannot be reached from node 0; connect"):
        properties.eccentricity(graphs.from_links(4, [(0, 1), (2, 3)]))


def test_a_search_without_hope_ends_with_a_tree():
    """No path spans a graph of which three long arms hang: 600 nodes, found out within seconds."""
    arms = [(0, 1), (0, 201), (0, 401), *[(i, i + 1) for i in range(1, 599) if i not in (200, 400)]]
    loops = [(i, i + 2) for i in range(1, 598) if i not in (199, 200, 399, 400)]  # no node with a single neighbour
    begin = time.process_time()
    links, is_path = spanning.spanning_links(graphs.from_links(600, arms + loops))
    assert not is_path
    assert len(np.unique(links)) == 600 == len(links) + 1
    assert time.process_time() - begin < 20


@pytest.mark.parametrize("spec", ["random_regular:degree=4", "erdos_renyi:p=0.02", "torus:rows=20"])
def test_sparse_and_dense_spectra_agree(spec):
    graph = graphs.build_graph(spec, 600, 1)
    slots = metropolis().apply(None, graph, graph.links)
    full = np.asarray(dense(slots, graph), float)
    listed = properties.mixing_matrix(graph, slots)
    np.testing.assert_allclose(listed.toarray(), full, atol=1e-7)
    assert properties.spectral_gap(listed) == pytest.approx(1 - np.sort(np.abs(np.linalg.eigvalsh(full)))[-2], abs=1e-6)


def test_large_graphs_of_small_degree_are_never_mixed_densely(large):
    slots = metropolis().apply(None, large, large.links)
    assert matrix(slots, large, large.links)[1] is not None
    assert all(mixing_form(nodes, slots) == "padded" for nodes in (10, 64, 4096, 10**6) for slots in (3, 5, 17, 32))
    assert mixing_form(64, 64) == "dense"
    assert mixing_form(4096, 33) == "padded"


@pytest.mark.parametrize("block", [1, 3, 5, 12, 40])
def test_blocks_are_the_whole(block):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(12, 7))), jnp.asarray(rng.normal(size=(12, 7, 3)))

    def of_worker(a, b):
        return {"product": a @ b, "sum": b.sum()}

    whole, parts = jax.vmap(of_worker)(x, y), jax.jit(lambda x, y: map_workers(of_worker, block, x, y))(x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), whole, parts)
    with pytest.raises(ValueError, match="block=0 holds no worker"):
        map_workers(of_worker, 0, x, y)


def test_a_block_fits_its_budget():
    assert block_of(100, 10, 1000) is None
    assert block_of(4096, 10, 1000) == 64
    assert block_of(97, 10, 500) == 50  # a prime: no divisor is near
    assert block_of(8, 1e12, 1000) == 1
    counted = working_bytes(
        Learner(lambda p: (), lambda p, local, b: (p * b.sum(), b.sum(), None), None), jnp.ones(5), jnp.ones((10, 5))
    )
    assert 200 <= counted <= 240  # the batch and two sums; the result is not counted


def test_slices_of_a_batch_give_the_same_gradient():
    rng = np.random.default_rng(1)
    params, batch = jnp.asarray(rng.normal(size=6)), {"x": jnp.asarray(rng.normal(size=(12, 6)))}

    def loss(params, batch):
        return (jnp.tanh(batch["x"] @ params) ** 2).mean()

    for slices in (1, 3, 12):
        found = jax.value_and_grad(in_slices(loss, slices))(params, batch)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, jax.value_and_grad(loss)(params, batch)
        )
    with pytest.raises(ValueError, match="slices=5 does not divide the batch of 12"):
        in_slices(loss, 5)(params, batch)


DIGITS = {"model": "lrm", "seconds": 6.0, "rows": 3, "seeds": 1, "learning_rate": 0.05}


def problem_of(**given):
    (problem,) = problems(of_seeds(TrainConfig(**{**DIGITS, **given})))
    return problem


def trained(problem, spec="dybw", seconds=6.0):
    """A training of the only world to its budget, and its rows."""
    places = Places(problem, jax.devices()[:1], False, 1)
    (block,) = blocks([spec], [problem], [1])
    training, rows = Training(places.place(block), [even_grid(seconds, 3)], problem.roles(block.spec)), []
    while not training.done:
        rows += [row for _, row in training.advance()]
    return training, rows


def assert_the_same_training(one, other):
    (first, rows), (second, others) = one, other
    np.testing.assert_array_equal(first.accounts[0].duration, second.accounts[0].duration)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    assert rows[-1]["step"] >= 2
    for name in ("train_loss", "test_loss"):
        for a, b in zip(rows[1:], others[1:], strict=True):
            assert a[name] == pytest.approx(b[name], rel=1e-5)
    stacks = (jax.tree.leaves(training.state.model.params) for training in (first, second))
    for a, b in zip(*stacks, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def whole():
    problem = problem_of(policies=("dybw", "dpsgd"))
    assert problem.learner.block is None  # ten workers on digits fit any cache
    return problem


def test_a_run_that_is_short_of_memory_slices_its_batches(whole, monkeypatch):
    """The model is too large for the free memory here, so each batch of 32 is walked in slices; the run is the same."""
    monkeypatch.setattr(limits, "available_bytes", lambda: 8 * 10_000)
    monkeypatch.setattr("dbwjax.experiments.problem.require_memory", lambda told: None)  # which would refuse it
    sliced = problem_of(policies=("dybw",))
    world, params = whole.alone(0), jax.tree.map(lambda leaf: leaf[0], whole.params)
    batch = jax.eval_shape(world.batches, jax.random.key(0), 0, 0)
    used = [
        str(jax.make_jaxpr(one.learner.gradient)(params, one.learner.init(params), batch)) for one in (whole, sliced)
    ]
    assert ["remat" in text or "checkpoint" in text for text in used] == [False, True]
    assert_the_same_training(trained(whole), trained(sliced))


@pytest.mark.parametrize("spec", ["dybw", "dpsgd"])
def test_training_in_blocks_is_training(whole, spec):
    parts = whole._replace(learner=whole.learner._replace(block=4))
    assert_the_same_training(trained(whole, spec), trained(parts, spec))


def test_bfloat16_is_mixed_in_float32_and_rounded_once():
    rng = np.random.default_rng(2)
    nodes, slots = 12, 9
    x = jnp.asarray(rng.normal(size=(nodes, 500)), jnp.bfloat16)
    sources = jnp.asarray(np.stack([rng.permutation(nodes)[:slots] for _ in range(nodes)]))
    weights = jnp.asarray(rng.dirichlet(np.ones(slots), nodes), jnp.float32)
    matrix = jnp.zeros((nodes, nodes)).at[jnp.arange(nodes)[:, None], sources].add(weights)
    exact = np.asarray(matrix, np.float64) @ np.asarray(x, np.float64)
    # Half a unit in the last of 8 bits, and float32's own error where terms cancel.
    bound = 2.0**-8 * np.abs(exact) + 1e-6
    for mixed in (mix(weights, sources, x), mix(matrix, None, x)):
        assert mixed.dtype == jnp.bfloat16
        assert (np.abs(np.asarray(mixed, np.float64) - exact) <= bound).all()
    update = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    plan = Plan(jnp.asarray(1.0), jnp.ones(nodes, bool), weights, sources, push=jnp.full(nodes, 0.5))
    both = apply_plan(plan, x, update)
    assert both.dtype == jnp.bfloat16
    total = exact + 0.5 * np.asarray(update, np.float64)
    assert (np.abs(np.asarray(both, np.float64) - total) <= 2.0**-8 * np.abs(total) + 1e-6).all()
    for mixed in (mix(jnp.eye(nodes), None, x), mix(jnp.ones((nodes, 1)), jnp.arange(nodes)[:, None], x)):
        np.testing.assert_array_equal(np.asarray(mixed).view(np.uint16), np.asarray(x).view(np.uint16))


def test_bfloat16_learns_digits():
    training, rows = trained(problem_of(dtype="bfloat16", policies=("dybw",), learning_rate=0.2), seconds=100.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(training.state.model.params)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(training.held.mean)} == {jnp.dtype(jnp.float32)}
    assert rows[-1]["test_accuracy"] > 0.85


def test_the_optimiser_of_bfloat16_parameters_works_in_float32():
    learner = from_optimizer(lambda p, b: (p * b).sum(), optax.adam(0.1))
    params = jnp.ones(4, jnp.bfloat16)
    local = learner.init(params)
    gradient, _, _ = learner.gradient(params, local, jnp.ones(4))
    update, local = learner.update(gradient, local, params)
    assert gradient.dtype == jnp.bfloat16
    assert update.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(local)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def due_of(weights):
    """One reading of the workers with a weight, before the first of two steps."""
    ones, none = jnp.zeros(1, jnp.int32), jnp.zeros(3, jnp.int32)
    return Due(jnp.array([0, 1, 1]), ones, ones, weights[None], jnp.zeros(1), none, ones, ones)


@pytest.mark.optimised
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_and_training_need_no_further_stack(dtype, large, tfds_dir):
    """From what the compiler says it needs: nothing is run."""
    task = build_task("mnist", model="lrm", workers=MANY, data_dir=tfds_dir)
    key = jax.random.key(0)
    world = World(large, delays.build_delays("shifted_exponential", MANY, 0), task.batches, key)
    one = memory.in_dtype(task.init(stream(key, Stream.PARAMETERS)), dtype)
    learner, policy = from_optimizer(task.loss, optax.sgd(0.1)), build_policy("full")
    batch = jax.eval_shape(task.batches, key, 0, 0)
    block = memory.gradient_block(MANY, learner, one, batch)
    assert block is not None
    assert block < MANY // 4
    learner = learner._replace(block=block)
    state = jax.eval_shape(lambda: simulate.init(policy, learner, world, one))
    stack, slots = memory.size_of(state.model.params), 8
    held, due = jax.eval_shape(lambda: readings.empty(one, slots)), due_of(jnp.ones(MANY))
    for mass in (None, jax.ShapeDtypeStruct((MANY,), jnp.float32)):
        shape = state.model._replace(mass=mass)
        reading = jax.jit(readings.take, donate_argnums=(2, 3)).lower(due, jnp.zeros((), jnp.int32), shape, held)
        assert reading.compile().memory_analysis().temp_size_in_bytes < stack / 4
    if dtype == "bfloat16":
        return  # a CPU computes in float32 and writes stacks of it down: the step needs as much as a float32 one
    program = jax.jit(simulate.advance, static_argnums=(0, 1), donate_argnums=(3, 4))
    need = program.lower(policy, learner, world, state, held, due, jnp.zeros((), jnp.int32)).compile().memory_analysis()
    moved = need.argument_size_in_bytes + need.output_size_in_bytes - need.alias_size_in_bytes
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(task.batches))
    assert moved + need.temp_size_in_bytes - data <= memory.COPIES * stack + memory.readings_bytes(one, slots)


def test_models_that_wait_to_be_evaluated_are_counted(monkeypatch):
    """Rows are part of what one simulation takes, up to the bytes that slots may take."""
    problem = problem_of(seeds=2)
    monkeypatch.setattr(limits, "available_bytes", lambda: 60 << 20)
    model = memory.size_of(jax.tree.map(lambda leaf: leaf[0], problem.params))
    few, many = (sizes(problem, jax.devices()[:1], rows).most for rows in (9, 1009))
    data = memory.size_of((problem.worlds.tree.batches, problem.evaluate.tree))
    each = [((60 << 20) - data) / most for most in (few, many)]
    assert each[1] - each[0] == pytest.approx(1000 * model, rel=0.1)
    with pytest.raises(ValueError, match="a simulation of --workers 10 needs about"):
        sizes(problem, jax.devices()[:1], 10**6)


def test_rows_that_do_not_count_and_their_order_change_no_reading():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    order, counts = np.array([3, 0, 0, 4, 1, 2, 0, 0]), np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32)
    padded = np.where(counts[:, None] > 0, x[order], 1e6).astype(np.float32)

    def read(stack, weights):
        model = ModelState({"w": jnp.asarray(stack)}, None, jnp.zeros(len(stack), jnp.int32))
        empty = readings.empty({"w": jnp.asarray(x[0])}, 2)
        held, same = readings.take(due_of(jnp.asarray(weights)), jnp.zeros((), jnp.int32), model, empty)
        np.testing.assert_array_equal(same.params["w"], stack)
        return held

    for held in (read(x, np.ones(5, np.float32)), read(padded, counts)):
        np.testing.assert_allclose(held.mean["w"][0], x.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(held.spread[0], ((x - x.mean(axis=0)) ** 2).sum(), rtol=1e-5)


def test_a_billion_workers_are_refused_before_anything_is_built(capsys, tmp_path, tfds_dir):
    begin = time.process_time()
    words = ["--workers", "1000000000", "--graph", "random_regular:degree=4", "--model", "lrm", "--dataset", "mnist"]
    assert train.main([*words, "--data-dir", tfds_dir, "--out", str(tmp_path / "run")]) == 2
    assert time.process_time() - begin < 10
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--workers 1000000000 needs about" in said
    assert "use at most" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budget", [["--seconds", "10"], ["--steps", "10", "--eval-every", "5"]])
def test_more_workers_than_fit_are_refused_before_any_is_made(budget, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "available_bytes", lambda: 10**6)
    words = ["--workers", "300", "--graph", "ring", "--dataset", "digits", "--model", "lrm", *budget]
    monkeypatch.setattr("dbwjax.network.graphs.build_graph", None)  # nobody is called
    assert train.main([*words, "--seeds", "1", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "--workers 300 needs about" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_largest_that_fits_is_named(monkeypatch):
    monkeypatch.setattr(limits, "available_bytes", lambda: 10**9)
    learner = from_optimizer(lambda p, b: 0.0, optax.sgd(0.1))
    params = jax.ShapeDtypeStruct((1000,), jnp.float32)
    memory.require_workers(1000, params, learner, "ring", 100, 0)
    with pytest.raises(
        ValueError, match=r"^--workers 100000 needs about .* GB .*; use at most (\d+) workers"
    ) as caught:
        memory.require_workers(100_000, params, learner, "ring", 100, 0)
    fits = int(str(caught.value).partition("at most ")[2].split()[0])
    memory.require_workers(fits, params, learner, "ring", 100, 0)
    for more in ({"workers": fits + 1}, {"steps": 200}, {"slots": 10_000}):
        told = {"workers": fits, "steps": 100, "slots": 8, **more}
        with pytest.raises(ValueError, match="GB"):
            memory.require_workers(told["workers"], params, learner, "ring", told["steps"], 0, told["slots"])
    assert limits.largest(lambda n: n**2, 99, 50) == 9


def test_an_unknown_dtype_is_one_line(capsys):
    assert train.main(["--dtype", "bfloat"]) == 2
    assert "unknown --dtype 'bfloat'; did you mean 'bfloat16'" in capsys.readouterr().err


def test_figures_of_two_thousand_workers(large, tmp_path):
    picture = GraphPicture(np.asarray(large.neighbours), spanning.spanning_links(large)[0], True, np.ones(MANY))
    begin = time.process_time()
    files = write_figures(tmp_path, *fakes.run(["dybw", "full"], worlds=2, rows_each=10), picture)
    assert time.process_time() - begin < 30
    assert all(path.stat().st_size < 600_000 for path in files)
    np.testing.assert_array_equal(_links(picture), _links(GraphPicture(graphs.adjacency(large))))


def test_reach_is_the_share_within_so_many_hops():
    graph = graphs.grid(30, rows=5)
    hops = properties.distances(graph)
    shares = _reach(30, _links(GraphPicture(np.asarray(graph.neighbours))))
    np.testing.assert_allclose(shares, [(hops <= h).mean(axis=1) for h in range(hops.max() + 1)])
