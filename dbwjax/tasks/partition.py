"""Which worker holds which samples: the table `PARTITIONS`. Host side, NumPy only.

Every sample goes to exactly one worker. A partition that leaves a worker with nothing to learn from is an error and is
never redrawn: a hidden redraw would change the law that the user asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dbwjax import numbers, specs
from dbwjax.limits import require_count, whole

_LARGEST_ALPHA = (
    1e6  # beyond it the shares are equal to six digits, and the gamma draws behind them overflow in the end
)


class Partition(NamedTuple):
    """Who holds what, as one padded table."""

    indices: np.ndarray  # [N, S] int32: row i lists worker i's samples, then repeats them up to S
    sizes: np.ndarray  # [N] int32: how many of them are its own


def iid(labels: np.ndarray, workers: int, *, seed: int = 0) -> list[np.ndarray]:
    """Shuffles the samples and deals them out; sizes differ by at most one."""
    return np.array_split(np.random.default_rng(seed).permutation(len(labels)), workers)


def dirichlet(labels: np.ndarray, workers: int, *, alpha: float = 0.5, seed: int = 0) -> list[np.ndarray]:
    """Each class is split among the workers in proportions drawn from a symmetric Dirichlet(alpha) law.

    Small `alpha` gives each class to few workers, large `alpha` approaches iid. The measure of label skew is that of
    Hsu, Qi, Brown (arXiv 1909.06335), who draw each worker's mix of classes; the draw per class is that of Yurochkin
    et al. (arXiv 1905.12022), chosen because it uses every sample exactly once. Sizes are unequal.

    Raises:
      ValueError: `alpha` not in (0, 1e6].
    """
    if not 0 < alpha <= _LARGEST_ALPHA:
        raise ValueError(f"alpha={alpha:g} is no concentration; use a number above 0 and at most 1e6 (that is iid)")
    # A stream of its own: with that of the graph, degrees and holdings were correlated (up to 0.16, class by class).
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    parts: list[list[np.ndarray]] = [[] for _ in range(workers)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(workers, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def shards(labels: np.ndarray, workers: int, *, per_worker: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Samples sorted by label are cut into `workers * per_worker` shards; each worker gets `per_worker` random ones.

    McMahan et al. (arXiv 1602.05629), with `per_worker=2`. Shard sizes differ by at most one.

    Raises:
      ValueError: `per_worker` below 1, or more shards than samples.
    """
    total = workers * whole("per_worker", per_worker)
    if total > len(labels):
        raise ValueError(
            f"per_worker={per_worker} needs {total} shards of {len(labels)} samples; "
            f"use at most {len(labels) // workers} with {workers} workers"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], total)
    owners = rng.permutation(total).reshape(workers, per_worker)
    return [np.concatenate([pieces[shard] for shard in row]) for row in owners]


PARTITIONS: dict[str, Callable[..., list[np.ndarray]]] = {"iid": iid, "dirichlet": dirichlet, "shards": shards}


def partition(spec: str, labels: np.ndarray, workers: int, seed: int = 0) -> Partition:
    """Divides the samples among the workers as `spec` says.

    Args:
      spec: a row of `PARTITIONS`, as `dirichlet:alpha=0.3`.
      labels: each sample's class, [n] integers; only their number matters to `iid`.
      workers: N.
      seed: of the draw.

    Raises:
      ValueError: an unknown SPEC, settings out of range, fewer samples than workers, labels that are not classes, or a
        worker that gets no sample.
    """
    workers, seed = whole("workers", workers), numbers.seeds(seed).start
    labels = np.asarray(labels)
    if labels.ndim != 1 or not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
        raise ValueError(f"labels of shape {labels.shape} and type {labels.dtype} are not classes; give [n] integers")
    if workers > len(labels):
        raise ValueError(
            f"workers={workers} is more than the {len(labels)} samples, so a worker would have none; "
            f"use at most {len(labels)}"
        )
    parts = specs.build(spec, PARTITIONS, "partition", labels, workers, seed=seed)
    for worker, part in enumerate(parts):
        if len(part) == 0:
            raise ValueError(
                f"partition '{spec}' leaves worker {worker} of {workers} without samples; "
                "use a larger alpha, fewer workers or another seed"
            )
    return table(parts)


def table(parts: Sequence[np.ndarray]) -> Partition:
    """Lists of sample numbers, one a worker, as one padded table.

    Raises:
      ValueError: a table that does not fit the memory.

    >>> table([np.array([3, 1]), np.array([0, 2, 4])]).indices.tolist()
    [[3, 1, 3], [0, 2, 4]]
    """
    sizes = np.array([len(part) for part in parts], np.int32)
    longest = int(sizes.max())
    require_count("workers", len(parts), lambda count: 8.0 * count * longest, f" with up to {longest} samples each")
    return Partition(np.stack([np.resize(np.asarray(part, np.int32), longest) for part in parts]), sizes)
