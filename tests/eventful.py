"""Simulations of methods whose steps are events, seen event by event, beside their references."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.engine import clock, simulate, timeline
from dbwjax.engine import learner as learning
from tests.cases import LEARNER, P

EVENTS = 240
"""Events of a simulation that is seen event by event."""


class Course(NamedTuple):
    """What happened."""

    ends: np.ndarray  # [T] when each event took place
    worker: np.ndarray  # [T] whose event it was
    fresh: np.ndarray  # [T] whether its update counted
    info: Any  # what the policy wrote down of each event
    x: np.ndarray  # [T, N, P] parameters after each
    start: Any  # the policy's state at time 0


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def watched(policy, steps, world, ticking):
    """Durations, workers, fresh, info and parameters of each step, from a clock at time 0."""
    model = learning.init(LEARNER, policy, jnp.zeros(P), world.graph.neighbours.shape[0])

    def one(state, _):
        ticking, model = state
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, ticking)
        model, _ = learning.step(LEARNER, world.batches, plan, model, world.key, idles=policy.idles)
        return (ticking, model), (plan.duration, plan.workers[0], plan.fresh[0], plan.info, model.params)

    return jax.lax.scan(one, (ticking, model), None, length=steps)[1]


def course(policy, world, steps=EVENTS) -> Course:
    """The engine's run of a case, on the method's own network."""
    world = simulate.networked(policy, world)
    ticking = simulate.start_clock(policy, world)
    duration, worker, fresh, info, x = jax.device_get(watched(policy, steps, world, ticking))
    return Course(np.cumsum(duration), worker, fresh, info, x, jax.device_get(ticking.policy))


def plans(policy, world, steps):
    """Stacked plans of the clock alone."""
    world = simulate.networked(policy, world)
    state = clock.init(policy, world.graph, world.delays, world.key)
    return jax.device_get(timeline.timeline(policy, world._replace(batches=None), state, steps)[1])


def assert_agree(records, seen, rows=slice(None)):
    """Times, order and parameters are those of a reference, to 1e-12."""
    np.testing.assert_allclose(seen.ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    order = [{int(i)} if fresh else set() for i, fresh in zip(seen.worker, seen.fresh, strict=True)]
    assert order == [record.active for record in records]
    np.testing.assert_allclose(seen.x[:, rows], [record.x for record in records], rtol=1e-12, atol=1e-12)


def deviation(records, seen, rows=slice(None)) -> float:
    """The largest difference in parameters."""
    return float(np.abs(seen.x[:, rows] - np.stack([record.x for record in records])).max())
