"""Compressed messages: CHOCO-SGD, DCD-PSGD and ECD-PSGD as what they make of the workers' learner.

Each turns a learner into one that mixes more than parameters. What the neighbours know of a worker is the same for all
of them, so it is kept once, in the worker's local state; parameters stay the model. All start from the same parameters,
so these are known to everybody without a message.

Sums are at least float32. A codec takes two passes (a scale or a threshold, then the coding), and the second one adds
what is decoded to what is known, in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from dbwjax.engine.fence import materialize
from dbwjax.engine.mixing import expand_to, upcast
from dbwjax.learners.codecs import Code, Codec, seeds_of
from dbwjax.types import Combine, Key, Learner, Mix


class Known(NamedTuple):
    """A worker's own state, and what its neighbours know of its parameters."""

    own: PyTree
    copy: PyTree  # [...] as the parameters, at least float32


class Extrapolated(NamedTuple):
    """A worker's own state, what its neighbours know of its parameters, and how many messages it has sent."""

    own: PyTree
    copy: PyTree  # [...] as the parameters, at least float32
    sent: Int[Array, ""]


def choco(learner: Learner, codec: Codec, gamma: float) -> Learner:
    """CHOCO-SGD (Koloskova, Stich, Jaggi 2019, arXiv 1902.00340, Algorithm 2, as recalled). Adapts first.

        half = x + u;  copy += C(half - copy);  x = half + gamma (mix(copy) - copy)

    C is contractive. `copy` starts at the initial parameters (the paper: at 0). With everything sent and gamma 1 this
    is adapt, then combine.

    Raises:
      ValueError: a learner that mixes more than parameters already.
    """
    _require_plain(learner, "choco")
    code = codec.contractive

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: Known, constants: Array | None
    ) -> tuple[PyTree, Known]:
        del constants

        def known(carry: tuple[PyTree, PyTree], params: PyTree, seeds: Array) -> tuple[PyTree, PyTree]:
            copy, half = carry[0], _map(jnp.add, params, carry[1])
            told = code(seeds, jax.tree.map(jnp.subtract, half, copy))
            return jax.tree.map(jnp.add, copy, told), half

        copy, half = _written(known, (local.copy, jax.tree.map(upcast, updates)), params, keys)
        moved = jax.tree.map(lambda x, known, mixed: x + gamma * (mixed - known), half, copy, mix(copy))
        return moved, local._replace(copy=copy)

    return _keeping(learner, lambda own, copy: Known(own, copy), Combine(apply, True, codec.sent))


def dcd(learner: Learner, codec: Codec) -> Learner:
    """DCD-PSGD (Tang et al. 2018, arXiv 1803.06443, Algorithm 1, as recalled): compressed differences. Combines first.

        x += C(mix(x) + u - x)

    C is unbiased. Neighbours add the same decoded message to their copy of x, which is x itself, so no state is kept.
    With everything sent this is D-PSGD.

    Raises:
      ValueError: a codec without an unbiased form, or a learner that mixes more than parameters already.
    """
    _require_plain(learner, "dcd")
    code = unbiased(codec)

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: PyTree, constants: Array | None
    ) -> tuple[PyTree, PyTree]:
        del constants
        differences = _map(lambda mixed, u, x: mixed + u - x, mix(params), updates, params)

        def moved(differences: PyTree, params: PyTree, seeds: Array) -> PyTree:
            return _map(jnp.add, params, code(seeds, differences))

        return _written(moved, differences, params, keys), local

    return learner._replace(combine=Combine(apply, False, codec.sent))


def ecd(learner: Learner, codec: Codec) -> Learner:
    """ECD-PSGD (Tang et al. 2018, arXiv 1803.06443, Algorithm 2; authors' code): extrapolated values. Combines first.

        x' = mix(copy) + u;  z = (1 - t/2) x + (t/2) x';  copy = (1 - 2/t) copy + (2/t) C(z),   t = 1, 2, ...

    C is unbiased; t counts the worker's messages. With everything sent `copy` is x and this is D-PSGD. What is coded
    grows with t, and so does the error of a codec that is not fine enough: see `dcd`.

    Raises:
      ValueError: a codec without an unbiased form, or a learner that mixes more than parameters already.
    """
    _require_plain(learner, "ecd")
    code = unbiased(codec)

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: Extrapolated, constants: Array | None
    ) -> tuple[PyTree, Extrapolated]:
        del constants
        moved = _map(jnp.add, mix(local.copy), updates)
        sent = local.sent + 1

        def known(copy: PyTree, operands: tuple, seeds: Array) -> PyTree:
            params, moved, sent = operands

            def point(x: Array, new: Array) -> Array:
                return x + _of_rows(sent, x) / 2 * (new - x)

            told = code(seeds, _map(point, params, moved))
            return jax.tree.map(lambda old, new: old + 2 / _of_rows(sent, old) * (new - old), copy, told)

        copy = _written(known, local.copy, (params, moved, sent), keys)
        return moved, local._replace(copy=copy, sent=sent)

    def begin(own: PyTree, copy: PyTree) -> Extrapolated:
        return Extrapolated(own, copy, jnp.zeros((), jnp.int32))

    return _keeping(learner, begin, Combine(apply, False, codec.sent))


def unbiased(codec: Codec) -> Code:
    """A codec's unbiased form.

    Raises:
      ValueError: it has none.
    """
    if codec.unbiased is None:
        raise ValueError(
            "this codec has no unbiased form, and this method diverges with a biased one; use codec=random_k:fraction= "
            "or codec=quantize:bits=, or the method choco"
        )
    return codec.unbiased


def _require_plain(learner: Learner, method: str) -> None:
    if learner.combine is not None:
        raise ValueError(f"{method} compresses plain parameters, and this learner mixes more; use one of the two")


def _keeping(learner: Learner, begin: Callable[[PyTree, PyTree], PyTree], combine: Combine) -> Learner:
    """The learner with a local state that holds its own in `own`."""
    report = learner.report

    def init_fn(params: PyTree) -> PyTree:
        # A copy, because states are donated and must not share buffers with the parameters.
        return begin(learner.init(params), jax.tree.map(lambda leaf: jnp.copy(upcast(leaf)), params))

    def gradient_fn(params: PyTree, local: PyTree, batch: PyTree) -> tuple[PyTree, Array, PyTree]:
        return learner.gradient(params, local.own, batch)

    def update_fn(gradient: PyTree, local: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        update, own = learner.update(gradient, local.own, params)
        return update, local._replace(own=own)

    return learner._replace(
        init=init_fn,
        gradient=gradient_fn,
        update=update_fn,
        combine=combine,
        report=None if report is None else lambda params, local: report(params, local.own),
    )


def _map(function: Callable[..., Array], *trees: PyTree) -> PyTree:
    """`function` of leaves that are at least float32."""
    return jax.tree.map(lambda *leaves: function(*map(upcast, leaves)), *trees)


def _of_rows(vector: Array, leaf: Array) -> Array:
    return expand_to(vector, leaf).astype(leaf.dtype)


def _written(function: Callable[[PyTree, PyTree, Array], PyTree], carry: PyTree, operands: PyTree, keys: Key) -> PyTree:
    """`function(carry, operands, seeds)`, written over `carry` before anybody reads it (see `fence`)."""
    seeds = seeds_of(keys, len(jax.tree.leaves(carry)))
    # 1, though no compiler can know it: a word of which a bit is set is above 0.
    one = ((seeds.reshape(-1)[0] | 1) > 0).astype(jnp.int32)

    def both(carry: tuple[PyTree, Array], operands: PyTree) -> tuple[PyTree, Array]:
        # Seeds that a loop changes: of fixed ones all random words are made ahead of it, and written to memory.
        written = function(carry[0], operands, carry[1])
        # An optimiser's updates may be of more bits than the parameters.
        written = jax.tree.map(lambda new, old: new.astype(old.dtype), written, carry[0])
        return written, carry[1] + 1

    return materialize(both, (carry, seeds), operands, one)[0]
