"""The learner half: a plan applied to parameters. It has no time in it.

    step : (plan, model state, data key) -> (model state, info)

One function serves every method. Shapes say what is done: `M` workers compute, `R` rows are written; `None` in a plan
means
everyone and costs no gather. A worker's update is computed at the parameters it started from, and only a policy that
lets others change them meanwhile (`stale`) pays for keeping that copy.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine.clock import restarted
from dbwjax.engine.mixing import along, apply_plan, mix, write_rows
from dbwjax.engine.randomness import Stream, stream
from dbwjax.types import Batches, Key, Learner, ModelState, Plan, Policy, StepInfo


def from_optimizer(loss: Any, optimizer: Any) -> Learner:
    """The usual learner: one optax optimiser per worker on a loss function.

    Args:
      loss: `(params, batch) -> ()`, one worker's mean loss over a batch.
      optimizer: any optax `GradientTransformation`; each worker has a state of its own.

    Returns:
      A `Learner` that observes nothing.
    """

    def update_fn(params: PyTree, local: PyTree, batch: PyTree) -> tuple[PyTree, PyTree, Array, None]:
        value, gradient = jax.value_and_grad(loss)(params, batch)
        update, local = optimizer.update(gradient, local, params)
        return update, local, value, None

    return Learner(optimizer.init, update_fn)


def init(learner: Learner, policy: Policy, params: PyTree, nodes: int) -> ModelState:
    """Every node at the same parameters, about to start computation 0.

    Args:
      learner: the workers' learner.
      policy: says which extra copies the state must carry.
      params: one worker's parameters; leaves `[...]`.
      nodes: N.

    Returns:
      The state, leaves `[N, ...]`.
    """
    stack = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (nodes, *leaf.shape)), params)
    # A copy, because the state is donated to the compiled step and must not share buffers with the caller or itself.
    stacked = jax.tree.map(jnp.copy, stack)
    return ModelState(
        params=stacked,
        local=jax.vmap(learner.init)(stacked),
        started=jnp.zeros(nodes, jnp.int32),
        origin=jax.tree.map(jnp.copy, stack) if policy.stale else None,
        mass=jnp.ones(nodes) if policy.pushsum else None,
    )


def step(learner: Learner, batches: Batches, plan: Plan, state: ModelState, key: Key) -> tuple[ModelState, StepInfo]:
    """Applies one plan: the workers' updates, the mixing, the restarts.

    Args:
      learner: what one worker does with one batch.
      batches: the samples of each computation.
      plan: who computes, whose updates count, what is mixed.
      state: before the step.
      key: the simulation's key.

    Returns:
      The state after the step, and its `StepInfo`.
    """
    updates, local, info = _compute(learner, batches, plan, state, key)
    params = apply_plan(plan, state.params, updates)
    mass = None if state.mass is None else write_rows(plan.rows, state.mass, mix(plan.mix, plan.sources, state.mass))
    origin = None if state.origin is None else _start(plan, state.origin, params, mass)
    return ModelState(params, local, restarted(plan, state.started), origin, mass), info


def readable(params: PyTree, mass: Array | None) -> PyTree:
    """Parameters as they are read: `X / mass` under push-sum, otherwise `X`."""
    if mass is None:
        return params
    return jax.tree.map(lambda leaf: leaf / along(mass.astype(leaf.dtype), leaf), params)


def _compute(
    learner: Learner, batches: Batches, plan: Plan, state: ModelState, key: Key
) -> tuple[PyTree, PyTree, StepInfo]:
    """Updates `[M, ...]`, all workers' local states `[N, ...]`, and what was seen.

    Under `push=None` the updates come added to the parameters (`X + U`), so that neither is read again; an update that
    is not fresh is zero.
    """
    workers = plan.workers
    stream_key = stream(key, Stream.BATCHES)

    def take(tree: PyTree) -> PyTree:
        return tree if workers is None else jax.tree.map(lambda leaf: leaf[workers], tree)

    def one(worker: tuple) -> tuple[PyTree, PyTree, Array, PyTree]:
        number, started, fresh, params, mass, origin, local = worker
        at = readable(params, mass) if origin is None else origin
        update, new, loss, observed = learner.update(at, local, batches(stream_key, number, started))
        # Selected, not multiplied: an update that does not count must not count even when it is not finite.
        update = _select(fresh, update, jax.tree.map(jnp.zeros_like, update))
        if plan.push is None:
            update = jax.tree.map(jnp.add, params, update)
        return update, _select(fresh, new, local), jnp.where(fresh, loss, 0), observed

    everyone = jnp.arange(state.started.shape[0])
    numbers, started, params, mass, origin, old = take(
        (everyone, state.started, state.params, state.mass, state.origin, state.local)
    )
    inputs = (numbers, started, plan.fresh, params, mass, origin, old)
    updates, new, loss, observed = jax.lax.map(one, inputs, batch_size=block_of(params, numbers.shape[0]))
    return updates, write_rows(workers, state.local, new), StepInfo(loss, plan.fresh, observed)


def block_of(params: PyTree, workers: int) -> int:
    """How many workers are computed at a time: as many as stay in a core's cache on a CPU, all of them elsewhere."""
    import os

    each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)) // workers
    if jax.default_backend() != "cpu" or each * workers <= 16 * 2**20:
        return workers
    return int(os.environ.get("BLK", "0")) or workers


def _start(plan: Plan, origin: PyTree, params: PyTree, mass: Array | None) -> PyTree:
    """What each node's running computation started from, after the plan's restarts."""
    if plan.restart is None:
        return readable(params, mass)
    if plan.restart.dtype == bool:
        return _where(plan.restart, readable(params, mass), origin)
    # Only those rows move: an event of two nodes must not cost a pass over all of them.
    who = plan.restart
    rows = jax.tree.map(lambda leaf: leaf.at[who].get(mode="clip"), params)
    rows = readable(rows, None if mass is None else mass.at[who].get(mode="clip"))
    return write_rows(who, origin, rows)


def _select(flag: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes, no)


def _where(mask: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(along(mask, a), a, b), yes, no)
