"""The type `Task`, and how one is made from a user's own loss function and arrays.

All data live on the device from the start. A batch is drawn inside the compiled step as a pure function of (key,
worker, computation), so that no host work, no iterator and no state stands between two steps. The data are arguments of
the compiled function (`Partial`s are pytrees), never constants in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from dbwjax import numbers
from dbwjax.limits import shown, whole
from dbwjax.specs import parse
from dbwjax.tasks.partition import Partition, table
from dbwjax.tasks.partition import partition as divide
from dbwjax.tasks.probe import require_data, require_functions
from dbwjax.types import Batches, Key, Oracle

Loss = Callable[[PyTree, PyTree], Array]
Metrics = Callable[[PyTree, PyTree], dict[str, Array]]

_BLOCK = 500  # samples evaluated at a time: large enough to be fast, small enough that activations stay small


class Task(NamedTuple):
    """What is learned: parameters to start from, a loss, batches, a test."""

    name: str
    init: Callable[[Key], PyTree]  # one worker's parameters
    loss: Loss  # (params, batch) -> (), the mean loss over the batch
    batches: Batches  # a Partial: (key, worker, started) -> batch
    evaluate: Callable[[PyTree], dict[str, Array]]  # a Partial: one worker's params -> {"test_loss": (), ...}
    sizes: np.ndarray  # [N] samples held by each worker; 1 each where samples are drawn from a law
    minimiser: PyTree | None = None  # of the workers' mean objective, where it is known
    objectives: Batches | None = None  # a Partial: (key, worker, started) -> `Objective`, where it is convex and known
    oracle: Oracle | None = None  # its exact minimiser; a function, whose arrays are those of the objective


def from_arrays(
    loss: Loss,
    init: Callable[[Key], PyTree],
    train: PyTree,
    *,
    workers: int,
    batch_size: int,
    partition: str | Sequence[np.ndarray] = "iid",
    labels: np.ndarray | None = None,
    test: PyTree | None = None,
    metrics: Metrics | None = None,
    seed: int = 0,
    preprocess: Callable[[PyTree], PyTree] | None = None,
    name: str = "own",
) -> Task:
    """A task on your own data with your own loss.

    A batch is `batch_size` samples drawn uniformly with replacement from those of the worker, so that its mean gradient
    is an unbiased estimate of the gradient of the worker's objective.

    Args:
      loss: `(params, batch) -> ()`, the mean over the batch; `batch` has the structure of `train` with leading axis B.
        Whatever type it returns, means over blocks and workers are at least float32.
      init: `key -> params`, one worker's parameters.
      train: pytree of arrays with one leading axis, the samples. Small integer types stay small on the device.
      workers: N.
      batch_size: B.
      partition: a SPEC (`iid`, `dirichlet:alpha=`, `shards:per_worker=`), or N arrays of sample numbers.
      labels: each sample's class, [n]; needed by partitions by class. Default: `train["label"]` where there is one.
      test: held-out samples with the structure of `train`; without it, `evaluate` measures on `train` itself.
      metrics: `(params, batch) -> {name: ()}`, each a mean over the batch; `evaluate` returns them as `test_<name>`.
      seed: of the partition.
      preprocess: `batch -> batch`, applied to each batch before `loss` and `metrics`; a `Partial` may carry arrays.
      name: what records call the task.

    Returns:
      The task; `evaluate(params)` is exact over all test samples and works in blocks.

    Raises:
      ValueError: no samples, leading axes that differ, a test set of another structure; numbers that are not whole or
        out of range; data that are no numbers, or (without `preprocess`) not finite; a partition that is not possible
        or leaves a worker without samples; functions that do not fit the data or return something else.
    """
    workers, batch_size, seed = (
        whole("workers", workers),
        whole("batch_size", batch_size),
        numbers.seeds(seed).start,
    )
    count = _count(train, "train")
    require_data(train, "train", finite=preprocess is None)
    if test is not None:
        _same_kind(train, test)
        require_data(test, "test", finite=preprocess is None)
    process = _as_partial(preprocess)
    require_functions(loss, init, train, batch_size, metrics, process)
    held = _divide(partition, _labels(partition, labels, train, count), workers, seed)
    arrays = jax.tree.map(jnp.asarray, train)
    return Task(
        name=name,
        init=init,
        loss=loss,
        batches=Partial(_Draw(batch_size), process, arrays, jnp.asarray(held.indices), jnp.asarray(held.sizes)),
        evaluate=evaluation(loss, arrays if test is None else jax.tree.map(jnp.asarray, test), metrics, process),
        sizes=held.sizes,
    )


@dataclass(frozen=True)
class _Draw:
    """Draws a batch. A dataclass and not a closure: two draws of one size are equal, so jit traces them once."""

    batch_size: int

    def __call__(
        self, process: Partial, arrays: PyTree, indices: Array, sizes: Array, key: Key, worker: Array, started: Array
    ) -> PyTree:
        key = jax.random.fold_in(jax.random.fold_in(key, worker), started)
        # Nodes beyond the workers (a server) are drawn for too and never read: clip keeps them in bounds.
        worker = jnp.minimum(worker, sizes.shape[0] - 1)
        place = jax.random.randint(key, (self.batch_size,), 0, sizes[worker], jnp.int32)
        which = indices.at[worker, place].get(mode="promise_in_bounds")
        return process(jax.tree.map(lambda leaf: leaf.at[which].get(mode="promise_in_bounds"), arrays))


def of_one_width(tasks: Sequence[Task]) -> list[Task]:
    """The same tasks with partition tables of one width, so that their shapes agree; no batch changes.

    Partitions by class give workers more or fewer samples with every seed. The columns added are never drawn.
    """
    drawn = [
        task.batches if isinstance(task.batches, Partial) and isinstance(task.batches.func, _Draw) else None
        for task in tasks
    ]
    widest = max((draw.args[2].shape[1] for draw in drawn if draw is not None), default=0)
    return [
        task if draw is None else task._replace(batches=_with_width(draw, widest))
        for task, draw in zip(tasks, drawn, strict=True)
    ]


def _with_width(batches: Partial, width: int) -> Partial:
    process, arrays, indices, sizes = batches.args
    if indices.shape[1] < width:
        indices = jnp.pad(indices, ((0, 0), (0, width - indices.shape[1])))
    return Partial(batches.func, process, arrays, indices, sizes)


def evaluation(loss: Loss, test: PyTree, metrics: Metrics | None = None, process: Partial | None = None) -> Partial:
    """`params -> {"test_loss": (), "test_<metric>": ()}`: exact means over the samples of `test`, block by block."""
    return Partial(_Evaluate(loss, metrics), _as_partial(process), test)


@dataclass(frozen=True)
class _Evaluate:
    """Measures parameters on a test set; a dataclass for the same reason as `_Draw`."""

    loss: Loss
    metrics: Metrics | None

    def __call__(self, process: Partial, test: PyTree, params: PyTree) -> dict[str, Array]:
        return _over_blocks(self, process, test, params)

    def measure(self, params: PyTree, batch: PyTree) -> dict[str, Array]:
        extra = {} if self.metrics is None else self.metrics(params, batch)
        found = {"loss": self.loss(params, batch), **extra}
        return {f"test_{name}": _at_least_float32(value) for name, value in found.items()}


@partial(jax.jit, static_argnums=0)
def _over_blocks(evaluate: _Evaluate, process: Partial, test: PyTree, params: PyTree) -> dict[str, Array]:
    """Means over the blocks, weighted by their sizes; the last block is the rest and may be shorter."""
    count = jax.tree.leaves(test)[0].shape[0]
    block = min(_BLOCK, count)
    whole = count // block * block

    def one(batch: PyTree) -> dict[str, Array]:
        return evaluate.measure(params, process(batch))

    blocks = jax.tree.map(lambda leaf: leaf[:whole].reshape(whole // block, block, *leaf.shape[1:]), test)
    total = jax.tree.map(lambda value: value.sum(axis=0) * block, jax.lax.map(one, blocks))
    if whole < count:
        rest = one(jax.tree.map(lambda leaf: leaf[whole:], test))
        total = jax.tree.map(lambda a, b: a + b * (count - whole), total, rest)
    return jax.tree.map(lambda value: value / count, total)


def _at_least_float32(value: Array) -> Array:
    """What is summed over blocks: bfloat16 has eight bits, and whole numbers are no means."""
    value = jnp.asarray(value)
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def _identity(batch: PyTree) -> PyTree:
    return batch


def _as_partial(function: Callable[[PyTree], PyTree] | None) -> Partial:
    """A callable pytree: a `Partial` keeps its arrays as leaves, a plain function has none.

    Raises:
      ValueError: not a function.
    """
    if isinstance(function, Partial):
        return function
    if function is not None and not callable(function):
        raise ValueError(f"preprocess={shown(function)} is not a function; give batch -> batch, or leave it out")
    return Partial(_identity if function is None else function)


def _count(arrays: PyTree, what: str) -> int:
    """How many samples `arrays` holds."""
    try:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(arrays)]
    except ValueError:
        raise ValueError(
            f"{what} holds rows of different lengths; give arrays with one leading axis of samples"
        ) from None
    if not shapes or () in shapes:
        raise ValueError(f"{what} must be arrays with a leading axis of samples; it has shapes {shown(shapes)}")
    lengths = sorted({shape[0] for shape in shapes})
    if len(lengths) > 1:
        raise ValueError(f"{what} has arrays of {' and '.join(map(str, lengths))} samples; give all the same length")
    if lengths[0] == 0:
        raise ValueError(f"{what} has no samples; give at least one")
    return lengths[0]


def _same_kind(train: PyTree, test: PyTree) -> None:
    _count(test, "test")
    kinds = [
        (jax.tree.structure(tree), [np.shape(leaf)[1:] for leaf in jax.tree.leaves(tree)]) for tree in (train, test)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"test must look like train: {kinds[1]} is not {kinds[0]}")


def _labels(partition: str | Sequence[np.ndarray], labels: np.ndarray | None, train: PyTree, count: int) -> np.ndarray:
    """Each sample's class, where the partition asks for it; otherwise zeros."""
    if not isinstance(partition, str | Sequence | np.ndarray):
        raise ValueError(
            f"partition={shown(partition)} is none; use a SPEC, as 'iid', or one array of samples a worker"
        )
    if labels is not None and np.shape(labels) != (count,):
        raise ValueError(f"labels of shape {np.shape(labels)} do not name one class for each of {count} samples")
    if not isinstance(partition, str) or parse(partition)[0] == "iid":
        return np.zeros(count, np.int32)
    if labels is None and isinstance(train, Mapping):
        labels = train.get("label")
    if labels is None:
        raise ValueError(f"partition '{partition}' divides by class; pass labels=, one class a sample")
    return np.asarray(labels)


def _divide(spec: str | Sequence[np.ndarray], labels: np.ndarray, workers: int, seed: int) -> Partition:
    if isinstance(spec, str):
        return divide(spec, labels, workers, seed)
    if len(spec) != workers:
        raise ValueError(f"partition lists samples for {len(spec)} workers, not for {workers}; give one array a worker")
    for worker, part in enumerate(spec):
        numbers = np.asarray(part)
        if numbers.ndim != 1 or numbers.size == 0 or not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(f"partition gives worker {worker} no list of sample numbers; give at least one integer")
        if numbers.min() < 0 or numbers.max() >= len(labels):
            raise ValueError(f"partition gives worker {worker} a sample that is not there; use 0 to {len(labels) - 1}")
    return table(spec)
