"""The step as it was before learners could mix on their own, idle, or compute statistics: what a plain learner pays for
none of that is that its program is still this one, to the letter (`test_seams.py`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dbwjax.engine import learner as learning
from dbwjax.engine.blocks import map_workers
from dbwjax.engine.fence import materialize
from dbwjax.engine.mixing import expand_to, mix, upcast, write_rows
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.sharding.placement import WHOLE
from dbwjax.types import ModelState, StepInfo


def step(learner, batches, plan, state, key, place=WHOLE):
    gradients, at, info = _compute(learner, batches, plan, state, key, place)
    old = place.take(state.local, plan.workers)
    # Where nothing is pushed apart, updates are added to the parameters at once: `X + U` is what is mixed.
    base = state.params if plan.push is None else None
    fresh = place.mine(plan.fresh) if plan.workers is None else plan.fresh
    moved, new = _adapt(learner, plan, fresh, base, (gradients, old), at)
    params = place.apply(plan, state.params, moved)
    mass = None if state.mass is None else write_rows(plan.rows, state.mass, mix(plan.mix, plan.sources, state.mass))
    origin = None if state.origin is None else _start(plan, state.origin, params, mass, place)
    local = place.put(state.local, plan.workers, new)
    return ModelState(params, local, _restarted(plan, state.started), origin, mass), info


def _compute(learner, batches, plan, state, key, place):
    workers = plan.workers
    if state.origin is not None:
        at = place.take(state.origin, workers)
    else:
        at = learning.readable(place.take(state.params, workers), place.of_nodes(state.mass, workers))
    numbers = place.numbers(state.started.shape[0]) if workers is None else workers
    draws = stream(key, Stream.BATCHES)

    def of_worker(at, number, started):
        return learner.gradient(at, None, batches(draws, number, started))

    started = place.of_nodes(state.started, workers)
    gradients, loss, observed = map_workers(of_worker, learner.block, at, numbers, started)
    if workers is None:
        loss, observed = place.everyone((loss, observed))
    return gradients, at, StepInfo(jnp.where(plan.fresh, loss, 0), plan.fresh, observed)


def _adapt(learner, plan, fresh, base, carry, at):

    def adapt(carry, operands):
        (gradients, old), (base, at, fresh) = carry, operands
        updates, new = jax.vmap(learner.update)(gradients, old, at)
        # Selected, not multiplied: an update that does not count must not count even when it is not finite.
        updates = _where(fresh, updates, jax.tree.map(jnp.zeros_like, updates))
        moved = updates if base is None else jax.tree.map(_added, base, updates)
        return moved, _where(fresh, new, old)

    if base is None:
        return adapt(carry, (base, at, fresh))
    # One, though no compiler can know it: no duration is that, and even NaN differs from it.
    one = (plan.duration != -jnp.inf).astype(jnp.int32)
    return materialize(adapt, carry, (base, at, fresh), one)


def _added(params, update):
    return (upcast(params) + upcast(update)).astype(params.dtype)


def _start(plan, origin, params, mass, place):
    if plan.restart is None:
        return learning.readable(params, place.of_nodes(mass, None))
    if plan.restart.dtype == bool:
        return _where(place.mine(plan.restart), learning.readable(params, place.of_nodes(mass, None)), origin)
    # Only those rows move: an event of two nodes must not cost a pass over all of them.
    who = plan.restart
    rows = jax.tree.map(lambda leaf: leaf.at[place.local(who)].get(mode="clip"), params)
    rows = learning.readable(rows, None if mass is None else mass.at[who].get(mode="clip"))
    return place.put(origin, who, rows)


def _where(mask, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(expand_to(mask, a), a, b), yes, no)


def _restarted(plan, started):
    if plan.restart is None:
        return started + 1
    if plan.restart.dtype == bool:
        return started + plan.restart
    return started.at[plan.restart].add(1, mode="drop")
