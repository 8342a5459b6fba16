"""Whether something fits the memory, asked before any of it is allocated."""

from __future__ import annotations

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from dbwjax import limits
from dbwjax.engine.blocks import block_of, working_bytes
from dbwjax.limits import largest, require_memory
from dbwjax.network.graphs import build_graph, building_bytes
from dbwjax.types import Learner

COPIES = 3.1
"""Parameters and optimiser states are held so many times in a step: read, written, and what lies between (what the
compiler says of `simulate.advance`, lrm on MNIST with 2,048 workers: 3.04)."""

CACHED = 16 << 20
"""Bytes of batches and activations held at a time on a CPU. lrm on MNIST with N = 4,096 and two cores: 66 us a
worker-step in blocks of 16 to 128 workers, 77 in blocks of 256, 168 all at once."""


TOLD = 130
"""Bytes that one step of a chunk leaves for each worker: its `Tick` on the device and on the host (22 each), and what
the account makes of it in float64."""

CHUNK, WEIGHTS = 100, 64
"""Steps of a chunk of a large stack, and the readings in it, each with a float for every worker."""


def require_workers(
    workers: int, params: PyTree, learner: Learner, graph: str, steps: int, fixed: float, slots: int = 8
) -> None:
    """Refuses more workers than fit, with the largest number that does.

    Counted are the parameters and optimiser states (`COPIES` times in a step and once more in a checkpoint), the models
    that wait to be evaluated, the graph, what a chunk's clock says of every worker, and the history of who was active,
    a byte for every worker and step; the host and a CPU's device share one memory, so they are added up.

    Args:
      workers: N.
      params: one worker's parameters.
      learner: its `init` says how large an optimiser's state is.
      graph: the SPEC; of some kinds every pair of workers takes memory.
      steps: of one policy, as far as they are known. With a budget in seconds nobody knows them before the clocks have
        run: 0 leaves the history out.
      fixed: bytes of the data set.
      slots: models that wait.

    Raises:
      ValueError: one line.
    """
    each = size_of((params, jax.eval_shape(learner.init, params)))
    fixed += readings_bytes(params, slots)

    def needed(count: int) -> float:
        told = CHUNK * TOLD + 4 * WEIGHTS
        return fixed + count * ((COPIES + 1) * each + told + steps) + building_bytes(graph, count)

    have = limits.available_bytes()
    fits = largest(needed, have, workers)
    require_memory(needed(workers), f"--workers {workers}", f"use at most {fits} workers or a smaller --model", have)


def size_of(tree: PyTree) -> int:
    """Bytes of arrays, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def readings_bytes(params: PyTree, slots: int) -> float:
    """Bytes of so many mean models, at least float32, and of the one that is being read."""
    return (slots + 1.0) * sum(leaf.size * max(leaf.dtype.itemsize, 4) for leaf in jax.tree.leaves(params))


def require_graphs(nets: Collection[tuple[str, int, int]]) -> None:
    """Refuses a sweep whose graphs do not fit, before they are built.

    First what it takes to build the largest is estimated. Then, of every SPEC that has several graphs, one is built and
    counted for all of them, twice: as they are kept, and as they are stacked.

    Args:
      nets: SPEC, workers and seed of every graph.

    Raises:
      ValueError: one line.
    """
    have = limits.host_bytes()
    graph, workers, _ = max(nets, key=lambda net: building_bytes(*net[:2]))
    fits = largest(lambda count: building_bytes(graph, count), have, workers)
    require_memory(building_bytes(graph, workers), f"--workers {workers}", f"use at most {fits} workers", have)
    alike: dict[tuple[str, int], list[int]] = {}
    for graph, workers, seed in nets:
        alike.setdefault((graph, workers), []).append(seed)
    needed = 0.0
    for (graph, workers), seeds in alike.items():
        if len(seeds) > 1:
            one = build_graph(graph, workers, min(seeds))
            needed += 2.0 * len(seeds) * sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    if needed:
        remedy = f"use --graph-seeds for at most {int(len(nets) * have / needed)} of them"
        require_memory(needed, f"a sweep of {len(nets)} graphs", remedy, have)


def gradient_block(workers: int, learner: Learner, params: PyTree, batch: PyTree) -> int | None:
    """How many workers compute their gradients at a time: as many as fit the cache of a CPU, or an eighth of an
    accelerator's free memory. `None`: all.

    Args:
      workers: N.
      learner: the workers'.
      params: one worker's parameters, or their shapes.
      batch: one worker's batch, or its shapes.
    """
    budget = CACHED if jax.default_backend() == "cpu" else limits.available_bytes() // 8
    return block_of(workers, working_bytes(learner, params, batch), budget)


def gradient_slices(size: int, learner: Learner, params: PyTree, batch: PyTree) -> int:
    """Into how many slices one worker's batch of `size` samples is cut (`in_slices`), so that what it makes on the way
    takes an eighth of the free memory at most; 1 for all but very large models."""
    wanted = working_bytes(learner, params, batch) / max(limits.available_bytes() // 8, 1)
    return min((slices for slices in limits.divisors(size) if slices >= wanted), default=size)


def require_batch(batch: PyTree) -> None:
    """Refuses a batch of which not even one worker's fits the memory.

    Args:
      batch: one worker's, or its shapes.

    Raises:
      ValueError: one line.
    """
    count = max((leaf.shape[0] for leaf in jax.tree.leaves(batch) if leaf.ndim), default=1)
    needed, have = size_of(batch), limits.available_bytes()
    require_memory(needed, f"batch_size={count}", f"use at most {int(count * have // max(needed, 1))}", have)


def require_worlds(worlds: int, held: float) -> None:
    """Refuses worlds whose parameters and partitions, `held` bytes, do not fit the memory.

    Raises:
      ValueError: one line.
    """
    have = limits.available_bytes()
    remedy = f"use at most {int(worlds * have // max(held, 1))} (--seeds), or a smaller --model"
    require_memory(held, f"what {worlds} worlds start from", remedy, have)


def in_dtype(params: PyTree, dtype: str) -> PyTree:
    """Parameters with their floats in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)
