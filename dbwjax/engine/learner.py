"""The learner half: a plan applied to parameters. It has no time in it.

    step : (plan, model state, data key) -> (model state, info)

One function serves every method. Shapes say what is done: `M` workers compute, `R` rows are written; `None` in a plan
means everyone and costs no gather. A worker's update is computed at the parameters it started from, and only a policy
that lets others change them meanwhile (`stale`) pays for keeping that copy.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine.blocks import map_workers
from dbwjax.engine.clock import restarted
from dbwjax.engine.fence import materialize
from dbwjax.engine.mixing import expand_to, mix, pushed, upcast, write_rows
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.sharding.placement import WHOLE, Placement
from dbwjax.types import Batches, Combine, Key, Learner, ModelState, Plan, Policy, StepInfo


def from_optimizer(loss: Any, optimizer: Any, block: int | None = None) -> Learner:
    """The usual learner: one optax optimiser per worker on a loss function.

    Of parameters narrower than 32 bits (bfloat16) the optimiser sees float32: its state and updates are float32, and
    the sum of parameters and update is rounded once. Gradients are of the parameters' type.

    Args:
      loss: `(params, batch) -> ()`, one worker's mean loss over a batch.
      optimizer: any optax `GradientTransformation`; each worker has a state of its own.
      block: workers whose gradients are computed at a time; `None`: all.

    Returns:
      A `Learner` that observes nothing.
    """

    def gradient_fn(params: PyTree, local: PyTree, batch: PyTree) -> tuple[PyTree, Array, None]:
        del local
        value, gradient = jax.value_and_grad(loss)(params, batch)
        return gradient, value, None

    def init_fn(params: PyTree) -> PyTree:
        return optimizer.init(jax.tree.map(upcast, params))

    def update_fn(gradient: PyTree, local: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        return optimizer.update(jax.tree.map(upcast, gradient), local, jax.tree.map(upcast, params))

    return Learner(init_fn, gradient_fn, update_fn, block)


def equipped(learner: Learner, policy: Policy) -> Learner:
    """The learner with what a method makes of it."""
    return learner if policy.equip is None else policy.equip(learner)


@partial(jax.jit, static_argnames=("learner", "policy", "nodes"))
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
    learner = equipped(learner, policy)
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


def step(
    learner: Learner,
    batches: Batches,
    plan: Plan,
    state: ModelState,
    key: Key,
    place: Placement = WHOLE,
    idles: bool = False,
) -> tuple[ModelState, StepInfo]:
    """Applies one plan: the workers' updates, the mixing, the restarts.

    Args:
      learner: what one worker does with one batch.
      batches: the samples of each computation.
      plan: who computes, whose updates count, what is mixed.
      state: before the step.
      key: the simulation's key.
      place: which rows of the stack this device holds; all of them by default.
      idles: whether nothing is computed where no update counts (`Policy.idles`).

    Returns:
      The state after the step, and its `StepInfo`.

    Raises:
      ValueError: when traced, a plan that does not fit the learner's `combine`.
    """
    if learner.combine is not None:
        _require_everybody(plan, learner.combine.adapts_first)
    old = place.take(state.local, plan.workers)

    def work() -> tuple[PyTree, PyTree, StepInfo]:
        return _work(learner, batches, plan, state, old, key, place)

    moved, new, info = _unless_idle(work, plan, old) if idles else work()
    if learner.combine is None:
        params, local = place.apply(plan, state.params, moved), place.put(state.local, plan.workers, new)
    else:
        params, local = _combine(learner.combine, plan, state, (moved, new), key, place)
    mass = None if state.mass is None else write_rows(plan.rows, state.mass, mix(plan.mix, plan.sources, state.mass))
    origin = None if state.origin is None else _start(plan, state.origin, params, mass, place)
    return ModelState(params, local, restarted(plan, state.started), origin, mass), info


def _work(
    learner: Learner, batches: Batches, plan: Plan, state: ModelState, old: PyTree, key: Key, place: Placement
) -> tuple[PyTree, PyTree, StepInfo]:
    """The workers' updates `[M, ...]`, their local states, and what was seen.

    Where nothing is pushed apart, updates are added to the parameters at once: `X + U` is what is mixed.
    """
    gradients, at, info = _compute(learner, batches, plan, state, old, key, place)
    together = plan.push is None and learner.combine is None
    fresh = place.mine(plan.fresh) if plan.workers is None else plan.fresh
    if learner.statistic is None:
        moved, new = _adapt(learner, plan, fresh, state.params if together else None, (gradients, old), at)
        return moved, new, info
    updates, new = _adapt(learner, plan, fresh, None, (gradients, old), at)
    whose, total = plan.fresh, _same
    if plan.workers is None:
        whose, total = place.mine_once(plan.fresh).astype(bool), place.total
    info = info._replace(statistic=learner.statistic(gradients, updates, whose, total))
    return jax.tree.map(_added, state.params, updates) if together else updates, new, info


def _same(tree: PyTree) -> PyTree:
    return tree


def _unless_idle(work: Any, plan: Plan, old: PyTree) -> tuple[PyTree, PyTree, StepInfo]:
    """`work()`, or zeros and the old local states where no update counts."""
    if plan.push is None:
        raise ValueError("a policy that idles must push its updates apart from the mixing; set push")

    def rest() -> tuple[PyTree, PyTree, StepInfo]:
        shapes = jax.eval_shape(work)
        none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[2]))
        return none[0], old, none[1]

    return jax.lax.cond(plan.fresh.any(), work, rest)


def _require_everybody(plan: Plan, adapts_first: bool) -> None:
    if plan.rows is not None or plan.workers is not None:
        raise ValueError("this learner mixes more than parameters and needs a policy in whose steps everybody mixes")
    if plan.pushers is not None or (plan.push is not None and plan.push.ndim != 1):
        raise ValueError(
            "this learner mixes more than parameters and needs a policy under which each takes its own update"
        )
    if adapts_first != (plan.push is None):
        order = "before" if adapts_first else "after"
        raise ValueError(f"this learner adapts {order} it mixes, and the policy does not; use another of the two")


def _combine(
    combine: Combine, plan: Plan, state: ModelState, moved: tuple[PyTree, PyTree], key: Key, place: Placement
) -> tuple[PyTree, PyTree]:
    """Parameters and local states after a mixing of the learner's own."""
    updates, local = moved
    if plan.push is not None:
        push = place.mine(plan.push)
        updates = jax.tree.map(lambda leaf: pushed(push, leaf), updates)
    nodes = state.started.shape[0]
    numbers, started = place.numbers(nodes), place.of_nodes(state.started, None)
    messages = stream(key, Stream.MESSAGES)
    keys = jax.vmap(lambda i, n: jax.random.fold_in(jax.random.fold_in(messages, i), n))(numbers, started)
    params, after = combine.apply(partial(place.mixed, plan), keys, state.params, updates, local, plan.constants)
    rounded = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), params, state.params)
    if plan.active is None and plan.fresh is None:
        return rounded, after
    active = place.mine(plan.fresh if plan.active is None else plan.active)
    return _where(active, rounded, state.params), _where(active, after, local)


def readable(params: PyTree, mass: Array | None) -> PyTree:
    """Parameters as they are read: `X / mass` under push-sum, otherwise `X`."""
    if mass is None:
        return params
    return jax.tree.map(lambda leaf: leaf / expand_to(mass.astype(leaf.dtype), leaf), params)


def _compute(
    learner: Learner, batches: Batches, plan: Plan, state: ModelState, local: PyTree, key: Key, place: Placement
) -> tuple[PyTree, PyTree, StepInfo]:
    """Gradients `[M, ...]`, the parameters they were computed at, and what was seen. `M = N` is cut among the devices;
    fewer workers are computed on every device."""
    workers = plan.workers
    if plan.at is not None:
        at = readable(place.take(state.params, plan.at), place.of_nodes(state.mass, plan.at))
    elif state.origin is not None:
        at = place.take(state.origin, workers)
    else:
        at = readable(place.take(state.params, workers), place.of_nodes(state.mass, workers))
    numbers = place.numbers(state.started.shape[0]) if workers is None else workers
    draws = stream(key, Stream.BATCHES)

    def of_worker(at: PyTree, local: PyTree, number: Array, started: Array) -> tuple[PyTree, Array, Any]:
        return learner.gradient(at, local, batches(draws, number, started))

    started = place.of_nodes(state.started, workers)
    gradients, loss, observed = map_workers(of_worker, learner.block, at, local, numbers, started)
    if workers is None:
        loss, observed = place.everyone((loss, observed))
    return gradients, at, StepInfo(jnp.where(plan.fresh, loss, 0), plan.fresh, observed)


def _adapt(
    learner: Learner, plan: Plan, fresh: Array, base: PyTree | None, carry: tuple[PyTree, PyTree], at: PyTree
) -> tuple[PyTree, PyTree]:
    """Turns `(gradients, local states)` into `(updates, local states)`, the updates added to `base` if there is one."""

    def adapt(carry: tuple[PyTree, PyTree], operands: tuple) -> tuple[PyTree, PyTree]:
        (gradients, old), (base, at, fresh) = carry, operands
        updates, new = jax.vmap(learner.update)(gradients, old, at)
        # Selected, not multiplied: an update that does not count must not count even when it is not finite.
        updates = _where(fresh, updates, jax.tree.map(jnp.zeros_like, updates))
        moved = updates if base is None else jax.tree.map(_added, base, updates)
        return moved, _where(fresh, new, old)

    if base is None and learner.combine is None:
        return adapt(carry, (base, at, fresh))
    # One, though no compiler can know it: no duration is that, and even NaN differs from it.
    one = (plan.duration != -jnp.inf).astype(jnp.int32)
    written = jax.eval_shape(adapt, carry, (base, at, fresh))
    if _kinds(written) == _kinds(carry):
        return materialize(adapt, carry, (base, at, fresh), one)
    # Gradients of another structure than the parameters cannot be written over.
    return jax.lax.optimization_barrier(adapt(carry, (base, at, fresh)))


def _kinds(tree: PyTree) -> tuple[Any, list]:
    leaves, kind = jax.tree.flatten(tree)
    return kind, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _added(params: Array, update: Array) -> Array:
    """Their sum, rounded once to the type of the parameters."""
    return (upcast(params) + upcast(update)).astype(params.dtype)


def _start(plan: Plan, origin: PyTree, params: PyTree, mass: Array | None, place: Placement) -> PyTree:
    """What each node's running computation started from, after the plan's restarts."""
    if plan.restart is None:
        return readable(params, place.of_nodes(mass, None))
    if plan.restart.dtype == bool:
        return _where(place.mine(plan.restart), readable(params, place.of_nodes(mass, None)), origin)
    # Only those rows move: an event of two nodes must not cost a pass over all of them.
    who = plan.restart
    rows = jax.tree.map(lambda leaf: leaf.at[place.local(who)].get(mode="clip"), params)
    rows = readable(rows, None if mass is None else mass.at[who].get(mode="clip"))
    return place.put(origin, who, rows)


def _where(mask: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(expand_to(mask, a), a, b), yes, no)
