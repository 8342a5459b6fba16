"""Many graphs in one program.

    python -m benchmarks graphs

Timing only: 1,024 random graphs of 10 workers, 500 iterations of cb-DyBW, clock alone. Rivals: the same arithmetic in
a NumPy loop over iterations (delays, DTUR, active and backup workers; no mixing matrix, for the clock makes none), one
graph after another; its seconds are measured on a few graphs and counted as that many for each, because every graph
costs it the same. On one core (one device) and, as a sweep does it, on all of them. Limits: drawing as many delays and
nothing else, as the clocks do (`network/draws.py`) and as `jax.random` does with two folds and a draw.

Training: 32 simulations of 10 workers (digits, 2nn) in one program, walked in blocks of `BLOCKS` simulations, against
one at a time, and one on each core, which is what a sweep does with models that outgrow the cache. The limit there is
the matrix product.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.step import operations
from benchmarks.worlds import initial_params, make_world
from dbwjax.engine import batch, ensemble, simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.network import delays, graphs
from dbwjax.network.spanning import spanning_links
from dbwjax.policies import build_policy
from dbwjax.tasks import build_task

WORKERS, BATCH, LAYERS = 10, 32, (64, 256, 256, 10)
DELAYS, RULE = "shifted_exponential", "dybw:late=drop"
LOOP = ("duration", "active", "missed")  # what the NumPy loop knows of an iteration
BLOCKS = (4, 32)
EACH = "one on each core"
LOOPED = 4  # graphs that the NumPy loop is measured on


def in_numpy(linked: np.ndarray, links: np.ndarray, iterations: int, seed: int) -> tuple[np.ndarray, ...]:
    """Of every iteration of DTUR on one graph the duration, the active workers and the backup workers on average."""
    rng = np.random.default_rng(seed)
    established, edges = np.zeros(len(links), bool), linked.sum()
    durations, actives, backups = np.empty(iterations), np.empty(iterations, int), np.empty(iterations)
    for k in range(iterations):
        arrival = 0.5 + rng.exponential(size=len(linked))
        ends = arrival[links].max(axis=1)
        durations[k] = theta = np.where(established, np.inf, ends).min()
        active = arrival <= theta
        actives[k] = active.sum()
        backups[k] = (edges - linked[active][:, active].sum()) / len(linked)
        established |= ends <= theta
        if established.all():
            established[:] = False
    return durations, actives, backups


def timing_only(quick: bool) -> dict:
    """The clocks in one program, the loop and the random numbers."""
    count, iterations = (16, 20) if quick else (1024, 500)
    many = [graphs.erdos_renyi(WORKERS, p=0.4, seed=seed) for seed in range(count)]
    slots = max(graph.neighbours.shape[1] for graph in many)
    many = [graphs.pad(graph, slots) for graph in many]
    model, policy = delays.build_delays(DELAYS, WORKERS, 0), build_policy(RULE)
    worlds = batch.stack([World(graph, model, None, jax.random.key(seed)) for seed, graph in enumerate(many)])
    states = batch.stack_all([policy.init(graph) for graph in many])
    begun = ensemble.start(policy, worlds, states)
    mesh = batch.mesh_of(jax.devices())
    spread = batch.spread(worlds, mesh)
    begun_everywhere = ensemble.start(policy, spread, states, mesh)
    keys = jax.random.split(jax.random.key(0), count)

    @partial(jax.jit, static_argnums=1)
    def numbers(keys: Any, law: Any) -> Any:
        """The delays of all computations, in the order in which the clocks draw them."""
        draw = jax.vmap(jax.vmap(law, (None, 0, None)), (0, None, None))

        def one(total: Any, step: Any) -> tuple:
            return total + draw(jax.vmap(stream, (0, None))(keys, Stream.DELAYS), jnp.arange(WORKERS), step), None

        return jax.lax.scan(one, jnp.zeros((count, WORKERS)), jnp.arange(iterations))[0]

    def ours(*which: Any) -> Any:
        return model(*which)

    # What is done once for a graph is done before on both sides.
    looped = [(graphs.adjacency(graph), spanning_links(graph)[0]) for graph in many[: 2 if quick else LOOPED]]
    work = {
        "batch": lambda: ensemble.clock_batch(policy, worlds, begun, iterations, fields=LOOP)[1],
        "with the ledger": lambda: ensemble.clock_batch(policy, worlds, begun, iterations)[1],
        "batch, all cores": lambda: ensemble.clock_batch(
            policy, spread, begun_everywhere, iterations, mesh, fields=LOOP
        )[1],
        "random numbers": lambda: numbers(keys, ours),
        "jax.random": lambda: numbers(keys, _by_jax),
        "NumPy loop": lambda: [in_numpy(*known, iterations, seed) for seed, known in enumerate(looped)],
    }
    seconds = timing.take_turns(work, 3 if quick else 7)
    return {
        "iterations a second, all graphs together": timing.rates(seconds["batch"], count * iterations),
        f"speed over the NumPy loop ({len(looped)} of {count} graphs measured)": timing.ratios(
            seconds, "batch", "NumPy loop", count / len(looped)
        ),
        "speed with all that a sweep records, over that": timing.ratios(seconds, "with the ledger", "batch"),
        "limit: random numbers alone [delays/s]": timing.rates(seconds["random numbers"], count * iterations * WORKERS),
        "fraction of the random numbers alone": timing.ratios(seconds, "batch", "random numbers"),
        "limit: the same by jax.random [delays/s]": timing.rates(seconds["jax.random"], count * iterations * WORKERS),
        "fraction of the same by jax.random": timing.ratios(seconds, "batch", "jax.random"),
        f"on {len(jax.devices())} devices, speed over the NumPy loop": timing.ratios(
            seconds, "batch, all cores", "NumPy loop", count / len(looped)
        ),
    }


def _by_jax(key: Any, worker: Any, started: Any) -> Any:
    return 0.5 + jax.random.exponential(delays.draw_key(key, worker, started))


def training(quick: bool) -> dict:
    """Simulations in blocks against one at a time."""
    count, steps, rounds = (4, 4, 3) if quick else (32, 50, 7)
    task = build_task("digits", model="2nn", workers=WORKERS, batch_size=BATCH)
    graph, model = graphs.erdos_renyi(WORKERS, p=0.4, seed=0), delays.build_delays(DELAYS, WORKERS, 0)
    policy, learner = build_policy(RULE), from_optimizer(task.loss, optax.sgd(0.05))
    worlds = [make_world(task, graph, model, seed) for seed in range(count)]
    params = [initial_params(task, world) for world in worlds]
    box = [simulate.init(policy, learner, world, one) for world, one in zip(worlds, params, strict=True)]

    def one_at_a_time() -> Any:
        for i, world in enumerate(worlds):
            box[i], record = simulate.run(policy, learner, world, box[i], steps)
        return box, record

    work = {"one at a time": one_at_a_time}
    for size in dict.fromkeys(min(size, count) for size in BLOCKS):
        work[f"blocks of {size}"] = _in_blocks(policy, learner, (worlds, params), (size, steps))
    mesh = batch.mesh_of(jax.devices())
    work[EACH] = _in_blocks(policy, learner, (worlds, params), (len(jax.devices()), steps), mesh)
    work["matrix product"], flops = timing.matrix_product()
    seconds = timing.take_turns(work, rounds)
    units = count * steps * operations(WORKERS, BATCH, LAYERS) / flops
    blocks = [name for name in work if name.startswith("blocks") or name == EACH]
    return {
        "limit: matrix product [GFLOP/s]": timing.rates(seconds["matrix product"], flops / 1e9),
        "fraction of the matrix product": {
            name: timing.ratios(seconds, name, "matrix product", units) for name in ("one at a time", *blocks)
        },
        "speed over one at a time": {name: timing.ratios(seconds, name, "one at a time") for name in blocks},
    }


def _in_blocks(policy: Any, learner: Any, simulations: tuple, sizes: tuple[int, int], mesh: Any = None) -> Any:
    (worlds, params), (size, steps) = simulations, sizes
    stacked, box = [], []
    for first in range(0, len(worlds), size):
        block, some = worlds[first : first + size], params[first : first + size]
        stacked.append(batch.spread(batch.stack(block), mesh))
        states = batch.stack_all([policy.init(world.graph) for world in block])
        box.append(ensemble.init(policy, learner, stacked[-1], states, batch.stack_all(some), mesh))

    def call() -> Any:
        for i, block in enumerate(stacked):
            box[i], record = ensemble.run_batch(policy, learner, block, box[i], steps, mesh)
        return box, record

    return call


def measure(quick: bool) -> dict:
    """Both."""
    with suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", os.cpu_count())
    return {"timing only": timing_only(quick), "training": training(quick)}
