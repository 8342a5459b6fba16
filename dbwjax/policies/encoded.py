"""Encoded least squares: redundant data in place of waiting; the server takes the fastest k of m blocks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from dbwjax.limits import real, require_count, whole
from dbwjax.policies.method import Method
from dbwjax.policies.papers_on_messages import ENCODED
from dbwjax.policies.servers import synchronous
from dbwjax.policies.serving import require_at_most
from dbwjax.types import Batches, Graph, Key, Learner, Objective, Policy, Squares

MOST_REDUNDANCY = 64
"""Times that the data may be kept."""


def encoded(redundancy: float = 2.0, k: int = 0) -> Policy:
    """Encoded least squares (Karakus, Sun, Diggavi, Yin 2017, arXiv 1711.04969, as recalled).

    The mean of the workers' objectives is one least-squares problem, `F(x) = |A x - b|^2 / 2`. The m workers hold
    blocks of `(S A, S b)`, where `S' S = redundancy * I`, and the server goes on with the fastest k of them:

        x' = x - (1 / smooth) (m / k) / redundancy * sum over the fastest k of (S A)_i' ((S A)_i x - (S b)_i)

    `smooth` is the largest eigenvalue of `A' A`. With k = m this is the gradient step of plain least squares on all
    data, to rounding. With k < m it is that of another problem each time, whose solution is near where k / m is not far
    below `1 / redundancy`; for the largest error that can be, see the paper. Times and messages are those of
    `server_backup:b=m-k`. A worker's computation is its whole block, which has redundancy / m of the rows.

    S is ours: signs drawn at random, a discrete cosine transform of which `1 / redundancy` of the columns are used, and
    rows dealt to the blocks at random (the paper has Hadamard matrices in its place, whose sizes are powers of 2). It
    is the same for all seeds. It is never made: the data are transformed, on the host, in float64. The step is ours as
    well; the paper has a fraction of it, for the worst case.

    Args:
      redundancy: rows of `S A` for each of A, 1 to `MOST_REDUNDANCY`. Their number is rounded up to a multiple of m.
      k: blocks that are waited for; 0: `m / redundancy`, rounded up.

    Raises:
      ValueError: `redundancy` or `k` out of range; in `whole`, a task that is not least squares; in `init`, more blocks
        than workers.
    """
    if not 1 <= real("redundancy", redundancy) <= MOST_REDUNDANCY:
        raise ValueError(
            f"redundancy={redundancy:g} is out of range; use 1 (the data once) to {MOST_REDUNDANCY} (so many times)"
        )
    k = whole("k", k, 0)

    def wanted(workers: int) -> int:
        require_at_most("k", k, workers)
        return k or math.ceil(workers / redundancy - 1e-9)

    base = synchronous(wanted)
    return base._replace(equip=descending, whole=partial(blocks, redundancy=redundancy))


def descending(learner: Learner) -> Learner:
    """A learner whose workers step by `1 / smooth` along the gradient of their whole objective.

    Raises:
      ValueError: one that mixes more than parameters.
    """
    if learner.combine is not None:
        raise ValueError("the method sends plain gradients, and this learner mixes more than parameters; use another")

    def gradient(params: PyTree, local: PyTree, objective: Objective) -> tuple[PyTree, Array, Any]:
        del local
        slope, loss, observed = learner.gradient(params, learner.init(params), objective.data)
        return (slope, objective.smooth), loss, observed

    def update(gradient: tuple[PyTree, Array], local: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        del params
        slope, smooth = gradient
        return jax.tree.map(lambda leaf: -leaf / smooth.astype(leaf.dtype), slope), local

    return learner._replace(init=_nothing, gradient=gradient, update=update)


def _nothing(params: PyTree) -> tuple[()]:
    del params
    return ()


def blocks(objectives: Batches, workers: int, redundancy: float) -> Partial:
    """Each worker's block of the encoded data, as an objective; the mean of all m is the mean of `objectives`.

    Args:
      objectives: of the task; their data are `Squares`.
      workers: m.
      redundancy: rows of `S A` for each of A.

    Raises:
      ValueError: objectives of another kind, or data that do not fit the memory.
    """
    key, none = jax.random.key(0), jnp.zeros((), jnp.int32)
    data = jax.eval_shape(objectives, key, none, none).data
    if not isinstance(data, Squares):
        raise ValueError("only least squares can be encoded, and this task is another; use --dataset least_squares")
    size, dimension = workers * data.features.shape[0], data.features.shape[1]
    require_count(
        "redundancy", math.ceil(redundancy), lambda count: 32.0 * count * size * (dimension + 1), " of the data"
    )
    held = jax.vmap(lambda worker: objectives(key, worker, none).data._replace(solved=None))(jnp.arange(workers))
    table = np.concatenate([held.features, held.target[..., None]], axis=-1, dtype=np.float64)
    # F is the sum of the squares of these rows, over 2. Rows of zeros are padding.
    table = table.reshape(-1, dimension + 1) / math.sqrt(size)
    table = table[(table != 0).any(axis=1)]
    curvature = np.linalg.eigvalsh(table[:, :-1].T @ table[:, :-1])
    coded = encode(table, workers * math.ceil(redundancy * len(table) / workers - 1e-9))
    # A block's loss is the mean over its rows, and the mean over the blocks is to be F.
    parts = coded.reshape(workers, -1, dimension + 1) * math.sqrt(len(coded))
    kind = held.features.dtype
    arrays = Squares(jnp.asarray(parts[..., :-1], kind), jnp.asarray(parts[..., -1], kind))
    return Partial(_block, arrays, jnp.asarray(max(curvature[0], 0), kind), jnp.asarray(curvature[-1], kind))


def _block(arrays: Squares, strong: Array, smooth: Array, key: Key, worker: Array, started: Array) -> Objective:
    del key, started
    return Objective(jax.tree.map(lambda leaf: leaf.at[worker].get(mode="clip"), arrays), strong, smooth)


def encode(table: Float[np.ndarray, "n c"], rows: int) -> Float[np.ndarray, "M c"]:
    """`Q @ table` with a fixed random matrix Q of `rows` rows, whose columns are orthonormal. On the host.

    Args:
      table: what is encoded.
      rows: M, n or more.
    """
    from scipy.fft import dct

    rng = np.random.default_rng(0)
    spread = np.zeros((rows, table.shape[1]))
    places = rng.permutation(rows)[: len(table)]
    spread[places] = table * rng.choice([-1.0, 1.0], size=(len(table), 1))
    return dct(spread, axis=0, norm="ortho")[rng.permutation(rows)]


def _notes(network: Graph, state: PyTree) -> list[str]:
    workers, waited = int(np.asarray(network.computes).sum()), int(state)
    found = ["it steps by 1 / smoothness along whole gradients, and reads no learning rate, optimiser or batch size"]
    if waited < workers:
        found.append(f"it waits for {waited} of {workers} blocks, and ends near the optimum, not at it")
    return found


def _encoded(*, redundancy: float = 2.0, k: int = 0) -> Policy:
    return encoded(redundancy, k)


METHODS = (
    Method(
        "encoded",
        _encoded,
        "encoded least squares: the server takes the fastest k of m blocks of redundant data",
        (ENCODED,),
        family="server",
        mixing="row",
        absence="the server waits for k blocks, or for all that are there where those are fewer; what the rest of the "
        "data says is then missing",
        notes=_notes,
    ),
)
