"""A whole training step of 2nn (draw batch, gradient, optimiser, mixing) as a fraction of the machine's matrix product.

    python -m benchmarks step

Beside it, in turns with it: twenty lines of plain JAX doing the same (`vmap(grad)`, a fixed batch in hand, mixing by
dense matrix product or by unrolled gather), the gradient alone, and the matrix product itself.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.worlds import initial_params, make_world
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.tasks.models import classifier
from dbwjax.tasks.task import Task, from_arrays

CASES = ((10, 1024), (64, 32), (256, 32))
STEPS = 4
LAYERS = (784, 256, 256, 10)
RATE = 0.05


def operations(workers: int, batch: int, layers: tuple[int, ...] = LAYERS) -> float:
    """Floating-point operations of one step's matrix products: forward, and backward without the input's gradient."""
    pairs = list(itertools.pairwise(layers))
    forward = sum(2.0 * batch * a * b for a, b in pairs)
    return workers * (3 * forward - 2.0 * batch * layers[0] * layers[1])


def problem(workers: int, batch: int, name: str = "2nn") -> Task:
    """A model on 60,000 random images of MNIST's shape; speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(60_000, LAYERS[0]), dtype=np.uint8)
    labels = rng.integers(0, LAYERS[-1], size=60_000).astype(np.int32)
    model = classifier(name, (LAYERS[0],), LAYERS[-1])
    train = {"image": images, "label": labels}
    return from_arrays(model.loss, model.init, train, workers=workers, batch_size=batch, preprocess=scale)


def scale(batch: dict) -> dict:
    """Bytes to the unit interval."""
    return {**batch, "image": batch["image"].astype(jnp.float32) / 255}


def ours(workers: int, batch: int):
    """`STEPS` steps of the engine, as the command line runs them (cb-Full, 4 neighbours)."""
    task = problem(workers, batch)
    graph = graphs.random_regular(workers, degree=min(4, workers - 1), seed=0)
    world = make_world(task, graph, delays.build_delays("shifted_exponential", workers, 0))
    learner = from_optimizer(task.loss, optax.sgd(RATE))
    policy = build_policy("full")
    box = [simulate.init(policy, learner, world, initial_params(task, world))]

    def call():
        box[0], record = simulate.run(policy, learner, world, box[0], STEPS)
        return record.loss

    return call, task, graph


def plain(task: Task, graph, workers: int, batch: int, dense: bool):
    """Twenty lines of plain JAX: the same step with one batch in hand for ever."""
    draw = jax.vmap(task.batches, (None, 0, 0))
    fixed = jax.jit(draw)(jax.random.key(0), jnp.arange(workers), jnp.zeros(workers, jnp.int32))
    stack = jax.vmap(task.init)(jax.random.split(jax.random.key(0), workers))
    gradient = jax.vmap(jax.grad(task.loss))
    slots = graph.neighbours.shape[1]
    weights = jnp.full((workers, slots), 1 / slots)
    matrix = jnp.zeros((workers, workers)).at[jnp.arange(workers)[:, None], graph.neighbours].add(weights)

    def gather(leaf):
        wide = (-1,) + (1,) * (leaf.ndim - 1)
        return sum(weights[:, s].reshape(wide) * leaf[graph.neighbours[:, s]] for s in range(slots))

    def product(leaf):
        return (matrix @ leaf.reshape(workers, -1)).reshape(leaf.shape)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(params):
        def one(params, _):
            moved = jax.tree.map(lambda p, g: p - RATE * g, params, gradient(params, fixed))
            return jax.tree.map(product if dense else gather, moved), None

        return jax.lax.scan(one, params, None, length=STEPS)[0]

    @jax.jit
    def gradients(params):
        def one(total, _):
            grads = gradient(jax.tree.map(lambda p: p + total, params), fixed)
            return sum(leaf.ravel()[0] for leaf in jax.tree.leaves(grads)) * 0, None

        return jax.lax.scan(one, jnp.zeros(()), None, length=STEPS)[0]

    held = [jax.tree.map(jnp.copy, stack)]

    def call():
        held[0] = steps(held[0])
        return held[0]

    return call, lambda: gradients(stack)


def measure(quick: bool) -> dict:
    """All cases, or one small one."""
    figures = {}
    for workers, batch in ((4, 32),) if quick else CASES:
        engine, task, graph = ours(workers, batch)
        work = {"dbwjax": engine}
        work["plain, gather"], work["gradient alone"] = plain(task, graph, workers, batch, dense=False)
        work["plain, dense"], _ = plain(task, graph, workers, batch, dense=True)
        work["matrix product"], flops = timing.matrix_product()
        seconds = timing.take_turns(work, 3 if quick else 9)
        units = STEPS * operations(workers, batch) / flops
        figures[f"N={workers}, batch={batch}"] = {
            "limit: matrix product [GFLOP/s]": timing.rates(seconds["matrix product"], flops / 1e9),
            "fraction of the matrix product": {
                name: timing.ratios(seconds, name, "matrix product", units) for name in work if name != "matrix product"
            },
            "speed-up over plain JAX": {
                name: timing.ratios(seconds, "dbwjax", name) for name in ("plain, gather", "plain, dense")
            },
            "worker-steps a second": timing.rates(seconds["dbwjax"], STEPS * workers),
        }
    return figures
