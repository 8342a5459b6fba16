"""Dual averaging: workers average sums of gradients, and read their parameters off them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from dbwjax.engine.mixing import accumulator_dtype, expand_to, upcast
from dbwjax.types import Combine, Key, Learner, Mix


class Averaging(NamedTuple):
    """A worker's state under dual averaging."""

    own: PyTree  # the optimiser's, which is not used; a sweep over learning rates looks for it
    start: PyTree  # x0
    dual: PyTree  # z, the mixed sum of gradients
    mean: PyTree  # of x(1), ..., x(t); before the first, x0
    done: Int[Array, ""]  # t, iterations


def dual_averaged(learner: Learner) -> Learner:
    """Distributed dual averaging (Duchi, Agarwal, Wainwright 2012; as recalled).

        z_i = sum_j W_ij z_j + g_i        x_i = x0 - alpha / sqrt(t) z_i,   t = 1, 2, ... the worker's iteration

    `alpha` is the plan's `constants[0]`. The learner's optimiser and its learning rate are not used. The paper's
    proximal function is here half the squared distance to the *start*: a network that starts at zero learns nothing.
    What is evaluated is the mean of a worker's `x(1), ..., x(t)`, as in the paper's theorems. All of it is float32 at
    least, and a message is `z`: of bfloat16 parameters twice their bytes.

    Raises:
      ValueError: a learner that mixes more than parameters, or reports something else.
    """
    if learner.combine is not None or learner.report is not None:
        raise ValueError("dual averaging mixes and reports in its own way, and this learner does; give a plain learner")

    def init(params: PyTree) -> Averaging:
        start = jax.tree.map(lambda leaf: jnp.copy(upcast(leaf)), params)
        zero, mean = jax.tree.map(jnp.zeros_like, start), jax.tree.map(jnp.copy, start)
        return Averaging(learner.init(params), start, zero, mean, jnp.zeros((), jnp.int32))

    def update(gradient: PyTree, local: Averaging, params: PyTree) -> tuple[PyTree, Averaging]:
        del params
        # The gradient itself is what is pushed; `apply` adds it to the mixed sums.
        return jax.tree.map(lambda g, z: g.astype(z.dtype), gradient, local.dual), local

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: Averaging, constants: Array | None
    ) -> tuple[PyTree, Averaging]:
        del keys, params
        if constants is None:
            raise ValueError("dual averaging needs a plan whose constants are [alpha]; use the policy dual_averaging")
        done = local.done + 1
        dual = jax.tree.map(jnp.add, mix(local.dual), updates)

        def read(start: Array, z: Array) -> Array:
            step = constants[0].astype(z.dtype) / jnp.sqrt(done.astype(z.dtype))
            return start - expand_to(step, z) * z

        def averaged(mean: Array, x: Array) -> Array:
            return mean + (x - mean) / expand_to(done.astype(x.dtype), x)

        found = jax.tree.map(read, local.start, dual)
        return found, local._replace(dual=dual, mean=jax.tree.map(averaged, local.mean, found), done=done)

    def report(params: PyTree, local: Averaging) -> PyTree:
        return jax.tree.map(lambda mean, x: mean.astype(x.dtype), local.mean, params)

    return learner._replace(
        init=init,
        gradient=lambda params, local, batch: learner.gradient(params, local.own, batch),
        update=update,
        combine=Combine(apply, adapts_first=False, sent=_duals),
        report=report,
    )


def _duals(params: PyTree) -> float:
    return float(sum(leaf.size * accumulator_dtype(leaf).itemsize for leaf in jax.tree.leaves(params)))
