"""The two halves in one jitted scan: time decides, parameters follow.

`run` is the whole simulation; it is called in chunks so that the host can report, keep a checkpoint and add up virtual
time in float64. A chunked run is bitwise the whole run, because nothing is carried but the state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax.engine import clock, readings
from dbwjax.engine import learner as learning
from dbwjax.engine.readings import Due, Held
from dbwjax.engine.sharding.placement import WHOLE, Placement
from dbwjax.types import (
    Batches,
    ClockState,
    DelayModel,
    Events,
    Graph,
    Key,
    Learner,
    ModelState,
    Plan,
    Policy,
    StepInfo,
    StepRecord,
)


class World(NamedTuple):
    """What every policy of a comparison shares: a pytree of arrays, so that a sweep over worlds is a `vmap`."""

    graph: Graph
    delays: DelayModel
    batches: Batches
    key: Key
    events: Events | None = None  # what breaks; None: nothing


def networked(policy: Policy, world: World) -> World:
    """The world with the network that a method brings along; the others' as it is. On the host."""
    return world if policy.network is None else world._replace(graph=policy.network(world.graph))


class SimState(NamedTuple):
    """A simulation between two steps."""

    clock: ClockState
    model: ModelState
    feedback: StepInfo | None  # the last step's info by node, kept only for a policy that reads training


def init(policy: Policy, learner: Learner, world: World, params: PyTree) -> SimState:
    """A simulation at virtual time 0.

    Args:
      policy: who waits for whom.
      learner: what a worker does with a batch.
      world: graph (that of `networked`), delays, batches and key.
      params: one worker's initial parameters, the same for all.

    Raises:
      ValueError: settings of the policy that the graph does not allow.
    """
    ticking = start_clock(policy, world)
    model = learning.init(learner, policy, params, world.graph.neighbours.shape[0])
    return SimState(ticking, model, no_feedback(policy, learner, world, model))


def start_clock(policy: Policy, world: World) -> ClockState:
    """The clock half of `init`."""
    return clock.init(policy, world.graph, world.delays, world.key, world.events)


def no_feedback(policy: Policy, learner: Learner, world: World, model: ModelState) -> StepInfo | None:
    """What a policy that reads training finds before the first step: zeros of the right shapes, with nothing fresh."""
    if not policy.reads_training:
        return None
    learner = learning.equipped(learner, policy)
    nodes = model.started.shape[0]
    stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((nodes, *leaf.shape[1:]), leaf.dtype), model.params)
    batch = jax.eval_shape(jax.vmap(world.batches, (None, 0, 0)), world.key, model.started, model.started)
    local = jax.eval_shape(jax.vmap(learner.init), stack)
    gradients, loss, observed = jax.eval_shape(jax.vmap(learner.gradient), stack, local, batch)
    fresh, statistic = jnp.zeros(loss.shape, bool), None
    if learner.statistic is not None:
        of_workers: Any = learner.statistic
        statistic = jax.eval_shape(lambda *all_of: of_workers(*all_of, lambda tree: tree), gradients, stack, fresh)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (loss, observed, statistic))
    return StepInfo(empty[0], fresh, empty[1], empty[2])


@partial(jax.jit, static_argnames=("policy", "learner", "steps"), donate_argnames=("state",))
def run(policy: Policy, learner: Learner, world: World, state: SimState, steps: int) -> tuple[SimState, StepRecord]:
    """Runs `steps` steps of clock and learner in one compiled scan. `state` is donated.

    Returns:
      The state after them, and their records, stacked `[T, ...]`.
    """
    return scan(policy, learner, world, state, steps)


class Seen(NamedTuple):
    """What the learner alone says about a step of `advance`; stacked to `[C, ...]`."""

    loss: Array  # [M] of each update that counted; 0 elsewhere
    workers: Array | None  # [M] whose; None: worker i's
    fresh: Array | None  # [M] which of those count; None: as the clock says
    diverged_worker: Array
    unreachable: Array


def advance(
    policy: Policy,
    learner: Learner,
    world: World,
    state: SimState,
    held: Held,
    due: Due,
    steps: Array,
    place: Placement = WHOLE,
) -> tuple[SimState, Held, Seen]:
    """Runs `steps` steps and takes the readings that are due before each; for programs to be compiled.

    Args:
      policy, learner, world, state, place: as for `scan`.
      held: what has been read so far.
      due: what to read before each of C steps.
      steps: (), at most C.

    Returns:
      The state after them, what has been read, and what the learner said, `[C, ...]`; beyond `steps` it is zero.
    """

    report = learning.equipped(learner, policy).report

    def one(state: SimState) -> tuple[SimState, Seen]:
        return advanced(policy, learner, world, state, place)

    def body(carry: tuple[Array, SimState, Held, Seen]) -> tuple[Array, SimState, Held, Seen]:
        step, state, held, seen = carry
        held, model = readings.take(due, step, state.model, held, place, report=report)
        state = state._replace(model=model)
        state, new = one(state)
        return step + 1, state, held, written(seen, step, new)

    start = (jnp.zeros((), jnp.int32), state, held, blank(one, state, due))
    return jax.lax.while_loop(lambda carry: carry[0] < steps, body, start)[1:]


def advanced(
    policy: Policy, learner: Learner, world: World, state: SimState, place: Placement = WHOLE
) -> tuple[SimState, Seen]:
    """One step, with what the learner says about it."""
    after, (plan, found) = _one(policy, learner, world, state, place)
    fresh = None if plan.workers is None else plan.fresh
    return after, Seen(found.loss, plan.workers, fresh, found.diverged_worker, found.unreachable)


def blank(one: Callable, state: PyTree, due: Due) -> Seen:
    """Room for what C steps say."""
    shapes = jax.eval_shape(one, state)[1]
    steps = due.first.shape[0] - 1
    return jax.tree.map(lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), shapes)


def written(seen: Seen, step: Array, new: Seen) -> Seen:
    """`seen` with a step's words in their place."""
    return jax.tree.map(lambda every, one: every.at[step].set(one), seen, new)


def scan(
    policy: Policy, learner: Learner, world: World, state: SimState, steps: int, place: Placement = WHOLE
) -> tuple[SimState, StepRecord]:
    """What `run` compiles, for programs that put more around it (several devices, batches)."""

    def one(state: SimState, nothing: None) -> tuple[SimState, StepRecord]:
        after, (_, found) = _one(policy, learner, world, state, place)
        return after, found

    return jax.lax.scan(one, state, None, length=steps)


def _one(
    policy: Policy, learner: Learner, world: World, state: SimState, place: Placement
) -> tuple[SimState, tuple[Plan, StepRecord]]:
    """Time decides, parameters follow."""
    plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock, state.feedback, world.events)
    learner = learning.equipped(learner, policy)
    model, info = learning.step(learner, world.batches, plan, state.model, world.key, place, policy.idles)
    after = SimState(ticking, model, by_node(plan, info, model) if policy.reads_training else None)
    return after, (plan, place.checked(plan, record(world.graph, plan, info)))


def record(graph: Graph, plan: Plan, info: StepInfo | None = None) -> StepRecord:
    """What one step leaves for the records; without `info` (a clock that runs alone) the loss is 0."""
    nodes = graph.neighbours.shape[0]
    workers = jnp.arange(nodes) if plan.workers is None else plan.workers
    event = plan.workers is not None and plan.active is None
    loss = jnp.zeros(plan.fresh.shape) if info is None else info.loss
    bad = plan.fresh & ~jnp.isfinite(loss)
    return StepRecord(
        duration=plan.duration,
        active=plan.fresh if plan.active is None else plan.active,
        workers=workers if event else None,
        backup_workers=missed(graph, plan),
        gradients=plan.fresh.sum(),
        loss=loss,
        diverged_worker=jnp.where(bad.any(), workers[jnp.argmax(bad)], -1),
        unreachable=jnp.zeros((), bool),
    )


def missed(graph: Graph, plan: Plan) -> Array:
    """The mean over the rows written of the neighbours not heard; of a server's step, the workers not waited for."""
    if plan.backups is not None:
        return plan.backups.astype(jnp.result_type(float))
    others, nodes = received(plan), graph.links.shape[0]
    if plan.rows is None:
        return (graph.links.sum(axis=1) - others).sum() / nodes
    written = plan.rows < nodes
    # Of those rows alone: an event must not cost a pass over all links.
    degree = graph.links.at[plan.rows].get(mode="clip").sum(axis=1)
    return jnp.where(written, degree - others, 0).sum() / jnp.maximum(written.sum(), 1)


def received(plan: Plan, reads_weights: bool = True) -> Array:
    """How many other nodes each written row `[R]` takes from in this step.

    Args:
      plan: of the step.
      reads_weights: whether a source of weight 0 is one not heard. Without, no weight need be computed, and the plan
        must have sources that point to the row itself where nothing is taken.
    """
    if plan.received is not None:
        return plan.received
    rows = jnp.arange(plan.mix.shape[0]) if plan.rows is None else plan.rows
    sources = jnp.arange(plan.mix.shape[1])[None, :] if plan.sources is None else plan.sources
    others = sources != rows[:, None]
    return (others & (plan.mix != 0) if reads_weights or plan.sources is None else others).sum(axis=1)


def by_node(plan: Plan, info: StepInfo, model: ModelState) -> StepInfo:
    """`info [M, ...]` scattered to `[N, ...]`, which is what a policy reads as feedback; zero and not fresh
    elsewhere."""
    if plan.workers is None:
        return info
    statistic = info.statistic
    nodes = model.started.shape[0]

    def scatter(leaf: Array) -> Array:
        return jnp.zeros((nodes, *leaf.shape[1:]), leaf.dtype).at[plan.workers].set(leaf, mode="drop")

    return jax.tree.map(scatter, info._replace(statistic=None))._replace(statistic=statistic)
