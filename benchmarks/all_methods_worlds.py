"""The worlds of the comparison of all methods: laws as tables, data, rates and seeds, all in one batch.

Everything that tells one simulation from another (law of delays, data, learning rate, world) is a number or an array of
the same shape, so that all of a method's simulations are one problem and one program. The laws are drawn on the host,
from the world's own key, into tables of `ROWS` computations: the numbers that the law itself would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from benchmarks.all_methods_settings import DATA, FIXED, LAWS, RATES, SLOW, Scale, Sim
from dbwjax import build_delays, build_graph, build_optimizer, build_task
from dbwjax.engine.randomness import Stream, stream
from dbwjax.experiments.blocks import Places, blocks
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.heard import heard
from dbwjax.experiments.problem import Drawn, Problem, World, assemble
from dbwjax.experiments.rows import even_grid
from dbwjax.experiments.training import Training
from dbwjax.network.times import Law
from dbwjax.policies import build_policies
from dbwjax.storage.callbacks import Audience
from dbwjax.tasks.datasets import load
from dbwjax.tasks.task import of_one_width

ROWS = 512
"""Computations of a worker that are drawn; after the last comes the first again, as in a trace."""


def delays(law: str, data: str, seed: int, workers: int) -> Law:
    """A world's delays as a table, those of worker 0 times `SLOW` where the data say so."""
    table = _table(law, seed, workers)
    if data != "iid":
        table = table * np.where(np.arange(workers) == 0, np.float32(SLOW), np.float32(1))
    return Law(Partial(_looked_up, jnp.asarray(table)), workers, sure=True)


@cache
def _table(law: str, seed: int, workers: int) -> np.ndarray:
    key = stream(jax.random.key(seed), Stream.DELAYS)
    return np.asarray(_drawn(build_delays(LAWS[law], workers), key, jnp.arange(ROWS), jnp.arange(workers)))


@jax.jit
def _drawn(law: Any, key: Any, rows: Any, workers: Any) -> Any:
    return jax.vmap(jax.vmap(law, (None, 0, None)), (None, None, 0))(key, workers, rows)


def _looked_up(table: Any, key: Any, worker: Any, started: Any) -> Any:
    del key
    return table[started % table.shape[0], jnp.minimum(worker, table.shape[1] - 1)]


def partition(data: str, labels: np.ndarray, workers: int, seed: int) -> list[np.ndarray]:
    """Sample numbers of each worker: IID, or worker 0 alone holds a label and nothing else."""
    order = np.random.default_rng(seed).permutation(len(labels))
    alone = DATA[data]
    if alone is None:
        return np.array_split(order, workers)
    theirs = labels[order] == alone
    return [order[theirs], *np.array_split(order[~theirs], workers - 1)]


def task_of(scale: Scale, data: str, seed: int) -> Any:
    """The task of a world."""
    held = partition(data, load(scale.dataset, scale.data_dir, scale.pca).train_labels, scale.workers, seed)
    made = build_task(
        scale.dataset,
        model=scale.model,
        workers=scale.workers,
        batch_size=scale.batch,
        partition=held,
        seed=seed,
        pca=scale.pca,
        data_dir=scale.data_dir,
    )
    process, test = made.evaluate.args
    return made._replace(
        evaluate=Partial(made.evaluate.func, process, jax.tree.map(lambda leaf: leaf[: scale.tests], test))
    )


def problem_of(spec: str, sims: Sequence[Sim], scale: Scale) -> Problem:
    """All simulations of one row as one problem.

    Raises:
      ValueError: a method that this graph or task does not allow.
    """
    graph = build_graph(scale.graph, scale.workers, scale.graph_seed)
    pairs = list(dict.fromkeys((sim.data, sim.seed) for sim in sims))
    tasks = dict(zip(pairs, of_one_width([task_of(scale, *pair) for pair in pairs]), strict=True))
    laws = {key: delays(*key, scale.workers) for key in dict.fromkeys((sim.law, sim.data, sim.seed) for sim in sims)}
    drawn = [Drawn(sim.seed, graph, laws[sim.law, sim.data, sim.seed], tasks[sim.data, sim.seed]) for sim in sims]
    told = [World(sim._asdict(), TrainConfig(), scale.graph_seed) for sim in sims]
    rates = {sim.rate for sim in sims}
    # One optimiser, so one program, for all rates; where all are the same, the problem leaves it as it was built.
    optimizer = build_optimizer("sgd", FIXED if len(rates) > 1 else rates.pop())
    found = assemble(told, drawn, build_policies([spec]), optimizer)
    return found._replace(rates=np.array([sim.rate for sim in sims]))


def trained(spec: str, sims: Sequence[Sim], scale: Scale) -> list[list[dict[str, Any]]]:
    """The rows of each simulation, trained `scale.block` at a time; nothing is compiled for a second block."""
    grid, rows = even_grid(scale.seconds, scale.rows), []
    for begin in range(0, len(sims), scale.block):
        own = list(sims[begin : begin + scale.block])
        problem = problem_of(spec, _filled(own, scale.block), scale)
        places, roles = Places(problem, jax.devices(), False, scale.block), problem.roles(spec)
        (block,) = blocks([spec], [problem], [scale.block])
        grids = [grid] * len(places.filled(block.which))
        training = Training(places.place(block), grids, roles, real=len(own))
        where = [{"policy": spec, **sim._asdict()} for sim in own]
        rows += heard(training, where, None, Audience([]))
    return rows


def _filled(sims: list[Sim], size: int) -> list[Sim]:
    """So many simulations: these, and repetitions. What all have in common is kept once in a batch, and would make it
    another program; so the last repetition differs in what all the others may share."""
    more = [sims[place % len(sims)] for place in range(size)]
    if len(sims) < size:
        one = more[-1]
        rate = FIXED if one.rate != FIXED else RATES[-1]
        more[-1] = one._replace(rate=rate, data=next(data for data in DATA if data != one.data))
    return more
