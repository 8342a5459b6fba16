"""Learners for data that differ from worker to worker: gradient tracking, D2 and quasi-global momentum.

Each function takes a learner and returns one: what the workers' optimiser sees, or makes, is corrected by what the
worker knows of the others. Corrections are float32 at least, whatever the type of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine.fence import materialize
from dbwjax.engine.mixing import accumulator_dtype, upcast
from dbwjax.limits import real
from dbwjax.types import Combine, Key, Learner, Mix


class Tracking(NamedTuple):
    """A worker's state under gradient tracking."""

    own: PyTree  # the optimiser's
    tracker: PyTree  # y, the worker's estimate of the mean gradient of all
    gradient: PyTree  # g_old, of its last computation


class Correction(NamedTuple):
    """A worker's state under D2."""

    own: PyTree  # the optimiser's
    drift: PyTree  # x - x_old - (optimiser's last update): by how much mixing moved it beyond its own wish


class Momentum(NamedTuple):
    """A worker's state under quasi-global momentum."""

    own: PyTree  # the optimiser's
    last: PyTree  # the parameters at which it computed before
    velocity: PyTree  # v: the averaged fall of its parameters, in their units


def tracked(learner: Learner) -> Learner:
    """Gradient tracking, adapt then combine (Nedic, Olshevsky, Shi 2017; Pu, Nedic 2018; as recalled).

        y_i += g_i - g_i,old        u_i = update(y_i)        x_i, y_i = sum_j W_ij (x_j + u_j),  sum_j W_ij y_j

    The worker's own optimiser is fed with `y` in place of the gradient: SGD gives the papers' `x - eta y`. The mean of
    `y` over workers is that of their last gradients at every step, also where some take no part. A message is `x` and
    `y`: for float32 twice the bytes of parameters, for bfloat16 three times, since `y` stays float32.

    Raises:
      ValueError: a learner that mixes more than parameters.
    """
    _require_plain(learner, "gradient tracking")

    def init(params: PyTree) -> Tracking:
        return Tracking(learner.init(params), _zeros(params), _zeros(params))

    def update(gradient: PyTree, local: Tracking, params: PyTree) -> tuple[PyTree, Tracking]:
        now = jax.tree.map(lambda g, y: g.astype(y.dtype), gradient, local.tracker)
        tracker = jax.tree.map(lambda y, g, old: y + (g - old), local.tracker, now, local.gradient)
        moved, own = learner.update(tracker, local.own, params)
        return moved, Tracking(own, tracker, now)

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: Tracking, constants: Array | None
    ) -> tuple[PyTree, Tracking]:
        del constants
        moved, tracker = mix((_written(params, updates, keys), local.tracker))
        return moved, local._replace(tracker=tracker)

    return _around(learner, init, update)._replace(combine=Combine(apply, True, with_trackers))


def corrected(learner: Learner) -> Learner:
    """D2 (Tang et al. 2018; the rule of the authors' code).

        x' = W (x + u),   u = (x - x_old) + update - update_old,   u = update at the first step

    `update` is what the worker's own optimiser makes of the gradient: SGD gives the paper's
    `W (2 x - x_old - eta (g - g_old))`. Kept is not `x_old` but the equal sum `d = x - x_old - update_old`, and
    `u = d + update`; as `x' = W (x + u)`, it is `d' = d + (W - I)(x + u)`, here in float32 at least. Thus the mean of
    `d` stays zero where some take no part, and where parameters are rounded to bfloat16: the paper's form adds up what
    rounding takes from `x`. Either form adds up the rounding of the mixing. Under a schedule `update_old` keeps the
    rate that it was made with. Messages are parameters.

    Raises:
      ValueError: a learner that mixes more than parameters.
    """
    _require_plain(learner, "D2")

    def init(params: PyTree) -> Correction:
        return Correction(learner.init(params), _zeros(params))

    def update(gradient: PyTree, local: Correction, params: PyTree) -> tuple[PyTree, Correction]:
        moved, own = learner.update(gradient, local.own, params)
        return jax.tree.map(lambda d, u: d + u, local.drift, moved), local._replace(own=own)

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: Correction, constants: Array | None
    ) -> tuple[PyTree, Correction]:
        del keys, constants
        sent = jax.tree.map(_adapted, params, updates)
        mixed = mix(sent)
        drift = jax.tree.map(lambda d, after, before: d + (after - before), local.drift, mixed, sent)
        return mixed, local._replace(drift=drift)

    return _around(learner, init, update)._replace(combine=Combine(apply, adapts_first=True))


def quasi_global(learner: Learner, beta: float = 0.9) -> Learner:
    """Quasi-global momentum (Lin et al. 2021; the rule of the authors' code for SGD).

        v = beta v + (1 - beta) (x_last - x)        u = -beta v + update

    `x_last` are the parameters of the worker's computation before this one, so that `x_last - x` is what the optimiser
    and the neighbours made of it, and `update` is what the worker's own optimiser makes of the gradient. With SGD at a
    constant rate `eta` this is the paper's rule, whose momentum is `m = v / eta`. Under a schedule it differs: there
    the momentum is multiplied by the rate of today, here it keeps the sizes of the steps that made it, for about
    `1 / (1 - beta)` iterations. `beta=0` adds nothing. Messages are parameters.

    Args:
      learner: the workers'. Its own momentum would come on top; the paper's rule has plain SGD.
      beta: 0 to less than 1. The authors' code has two numbers, by default 0.1 in place of `1 - beta`; here they are
        tied, as at its default for a momentum of 0.9. Its Nesterov form is not here.

    Raises:
      ValueError: `beta` out of range, or a learner that mixes more than parameters.
    """
    _require_plain(learner, "quasi-global momentum")
    require_beta(beta)

    def init(params: PyTree) -> Momentum:
        return Momentum(learner.init(params), jax.tree.map(jnp.copy, params), _zeros(params))

    def update(gradient: PyTree, local: Momentum, params: PyTree) -> tuple[PyTree, Momentum]:
        def averaged(v: Array, last: Array, x: Array) -> Array:
            return beta * v + (1 - beta) * (upcast(last) - upcast(x))

        velocity = jax.tree.map(averaged, local.velocity, local.last, params)
        moved, own = learner.update(gradient, local.own, params)
        return jax.tree.map(lambda u, v: u - beta * v, moved, velocity), Momentum(own, params, velocity)

    return _around(learner, init, update)


def require_beta(beta: float) -> None:
    """Raises `ValueError` unless this is a momentum that float32 tells from 1."""
    if not 0 <= real("beta", beta) < 1:
        raise ValueError(f"beta={beta:g} is not a momentum; use 0 to less than 1")
    if beta > LARGEST_BETA:
        raise ValueError(f"beta={beta:.17g} is 1 in float32; use at most {LARGEST_BETA}")


def with_trackers(params: PyTree) -> float:
    """Bytes of parameters together with as many numbers of float32 at least."""
    leaves = jax.tree.leaves(params)
    return float(sum(leaf.size * (leaf.dtype.itemsize + accumulator_dtype(leaf).itemsize) for leaf in leaves))


LARGEST_BETA = 0.99999997  # float32's last number below 1 is 1 - 2^-24


def _around(learner: Learner, init: Callable[..., Any], update: Callable[..., Any]) -> Learner:
    """A learner whose local state has the given one's as `own`."""
    inner = learner.report
    return learner._replace(
        init=init,
        gradient=lambda params, local, batch: learner.gradient(params, local.own, batch),
        update=update,
        report=None if inner is None else lambda params, local: inner(params, local.own),
    )


def _require_plain(learner: Learner, method: str) -> None:
    if learner.combine is not None:
        raise ValueError(f"{method} mixes in its own way, and this learner has one already; give a plain learner")


def _zeros(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros_like(upcast(leaf)), params)


def _written(params: PyTree, updates: PyTree, keys: Key) -> PyTree:
    """What is sent, written over the updates: otherwise the mixing would read both for every neighbour."""

    def added(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(_adapted, params, updates)

    if [leaf.dtype for leaf in jax.tree.leaves(updates)] != [leaf.dtype for leaf in jax.tree.leaves(params)]:
        return added(updates, params)
    # One, though no compiler can know it.
    one = (jax.random.key_data(keys).ravel()[0] % 2 + 2) // 2
    return materialize(added, updates, params, one.astype(jnp.int32))


def _adapted(params: Array, update: Array) -> Array:
    """What is sent: their sum, rounded once to the type of the parameters."""
    return (upcast(params) + upcast(update)).astype(params.dtype)
