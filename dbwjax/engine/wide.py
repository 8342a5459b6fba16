"""Runs of events in wide steps: the clock first, then `waves` or `composition` on the host, then the learner.

For simulations side by side, on one device or shared by several, as `ensemble.advance_batch`. The clock's plans come
first (`ahead.py`); then the learner runs over the wide steps made of them, and takes the readings that are due. A wide
step computes the updates of many events at once. On an accelerator, where launching a program's parts costs more than
an event, that is most of the time; on a CPU an event is mostly its clock and its own gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from dbwjax.engine import learner as learning
from dbwjax.engine import readings
from dbwjax.engine.ahead import Way, made, plans_of
from dbwjax.engine.batch import Axes, Batch, alone, shared
from dbwjax.engine.readings import Due, Held
from dbwjax.engine.simulate import Seen, SimState, World
from dbwjax.engine.waves import Wide
from dbwjax.types import Learner, ModelState, Plan, Policy


def advance(
    policy: Policy,
    learner: Learner,
    worlds: Batch,
    states: SimState,
    held: Held,
    due: Due,
    steps: np.ndarray,
    way: Way,
    mesh: Mesh | None = None,
) -> tuple[SimState, Held, Seen]:
    """`ensemble.advance_batch` in wide steps; `states` and `held` are donated.

    Args:
      policy, learner, worlds, states, held, mesh: as there.
      due: as there, on the host.
      steps: `[devices]`.
      way: how the events are put together.

    Returns:
      States, readings, and on the host what the learner said, `[B, C, ...]`; beyond `steps` it means nothing.
    """
    sims, nodes = states.clock.started.shape
    here, capacity = sims // len(steps), due.first.shape[1] - 1
    clocks, told = plans_of(policy, worlds, states.clock, steps, capacity, mesh)
    wide: list[Wide] = []
    for sim in range(sims):
        device, local = divmod(sim, here)
        own = jax.tree.map(lambda leaf, sim=sim: leaf[sim], told)
        barrier = _barrier(jax.tree.map(lambda leaf, device=device: leaf[device], due), local)
        wide.append(made(policy, way, own, int(steps[device]), barrier, nodes))
    counts = np.array([len(one.events) for one in wide]).reshape(len(steps), here).max(axis=1)
    room = -(-5 * capacity // (4 * way.width.updates))  # wide steps in one call: most often all
    every, later = _stacked(wide, nodes, room), _later(due, np.stack([one.before for one in wide]), here)
    models, losses = states.model, []
    for begin in range(0, max(int(counts.max()), 1), room):
        part = jax.tree.map(lambda leaf, begin=begin: leaf[:, begin : begin + room], every)
        count = np.clip(counts - begin, 0, room).astype(np.int32)
        given = worlds.tree, Axes(worlds.axes), models, held, later.since(begin, room), part, count
        models, held, loss = _advance(policy, learner, *given, capacity, mesh)
        losses.append(loss)
    loss = np.sum(jax.device_get(losses), axis=0)  # every event is in one of them
    workers, fresh = np.asarray(told.workers), np.asarray(told.fresh)
    bad = fresh[..., 0] & ~np.isfinite(loss)
    said: Any = (loss[..., None], workers, fresh, np.where(bad, workers[..., 0], -1), np.zeros_like(bad))
    return SimState(clocks, models, states.feedback), held, Seen(*said)


def _barrier(due: Due, sim: int) -> np.ndarray:
    """`[C]` before which steps a simulation of a device is read."""
    found = np.zeros(len(due.first) - 1, bool)
    for first, whose in ((due.first, due.sim), (due.own_first, due.own_sim)):
        step = _steps_of(np.asarray(first))
        found[step[np.asarray(whose)[: len(step)] == sim]] = True
    return found


def _steps_of(first: np.ndarray) -> np.ndarray:
    """`[K]` the step of each reading."""
    return np.repeat(np.arange(len(first) - 1), np.diff(first))


class _Later(NamedTuple):
    """Readings in the order of wide steps."""

    due: Due  # leaves [devices, ...]; `first` and `own_first` are of no use
    reading: list[np.ndarray]  # [devices] of [K], the wide step of each
    own: list[np.ndarray]

    def since(self, begin: int, room: int) -> Due:
        """Those due before `room` wide steps from `begin` on."""
        at = begin + np.arange(room + 1)

        def first(steps: list[np.ndarray]) -> Any:
            return np.stack([np.searchsorted(one, at) for one in steps]).astype(np.int32)

        return self.due._replace(first=first(self.reading), own_first=first(self.own))


def _later(due: Due, before: np.ndarray, sims: int) -> _Later:
    """The readings before each step as readings before wide steps; `before [B, C]` says which those are."""
    kept: dict[str, Any] = {name: np.array(leaf) for name, leaf in due._asdict().items()}
    found: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    names = ("first", "sim", ("sim", "slot", "weights", "before")), ("own_first", "own_sim", ("own_sim", "own_worker"))
    for (first, whose, moved), places in zip(names, found, strict=True):
        for device, own in enumerate(kept[first]):
            step = _steps_of(own)
            which = kept[whose][device, : len(step)]
            later = before[device * sims + which, step]
            order = np.argsort(later, kind="stable")
            places.append(later[order])
            for name in moved:
                kept[name][device, : len(step)] = kept[name][device, : len(step)][order]
    return _Later(Due(**kept), *found)


def _stacked(wide: list[Wide], nodes: int, room: int) -> tuple[Plan, np.ndarray]:
    """`[B, W, ...]`, W a multiple of `room`: wide steps of nobody fill it up."""
    longest, total = max(len(one.events) for one in wide), len(wide[0].before)
    length = max(-(-longest // room), 1) * room
    slots = max(one.plans.mix.shape[2] for one in wide)

    def stack(leaves: list[np.ndarray], padding: int) -> np.ndarray:
        every = np.full((len(leaves), length, *leaves[0].shape[1:]), padding, leaves[0].dtype)
        for into, leaf in zip(every, leaves, strict=True):
            into[: len(leaf)] = leaf
        return every

    plans = [_with_slots(one.plans, slots)._asdict() for one in wide]
    fields: dict[str, Any] = {
        name: stack([one[name] for one in plans], nodes if name in ("workers", "rows", "restart") else 0)
        for name, leaf in plans[0].items()
        if leaf is not None
    }
    return Plan(**fields), stack([one.events for one in wide], total).astype(np.int32)


def _with_slots(plans: Plan, slots: int) -> Plan:
    """Plans whose rows have so many sources, of which the further ones weigh nothing."""
    more = slots - plans.mix.shape[2]
    if more == 0:
        return plans
    mix: Any = np.pad(np.asarray(plans.mix), ((0, 0), (0, 0), (0, more)))
    first = np.asarray(plans.sources)
    sources: Any = np.concatenate([first, np.repeat(first[:, :, :1], more, axis=2)], axis=2)
    return plans._replace(mix=mix, sources=sources)


@partial(
    jax.jit,
    static_argnames=("policy", "learner", "axes", "capacity", "mesh"),
    donate_argnames=("models", "held"),
)
def _advance(
    policy: Policy,
    learner: Learner,
    worlds: World,
    axes: Axes,
    models: ModelState,
    held: Held,
    due: Due,
    wide: tuple[Plan, Array],
    count: Array,
    capacity: int,
    mesh: Mesh | None,
) -> tuple[ModelState, Held, Array]:
    """The wide steps `[B, W, ...]`, of which each device runs `count`: models, readings, and losses `[B, T]`."""

    def some(
        worlds: World, models: ModelState, held: Held, due: Due, wide: tuple[Plan, Array], count: Array
    ) -> tuple[ModelState, Held, Array]:
        due = jax.tree.map(lambda leaf: leaf[0], due)
        if models.started.shape[0] > 1:
            return _of_device(policy, learner, (worlds, axes.tree), models, held, due, wide, count[0], capacity)
        world = alone(Batch(worlds, axes.tree), 0)
        models, wide = jax.tree.map(lambda leaf: leaf[0], (models, wide))
        after, held, loss = _of_device(policy, learner, (world, None), models, held, due, wide, count[0], capacity)
        return jax.tree.map(lambda leaf: leaf[None], after), held, loss[None]

    return shared(some, (axes.tree, 0, 0, 0, 0, 0), mesh)(worlds, models, held, due, wide, count)


def _of_device(
    policy: Policy,
    learner: Learner,
    worlds: tuple[World, Any],
    models: ModelState,
    held: Held,
    due: Due,
    wide: tuple[Plan, Array],
    count: Array,
    capacity: int,
) -> tuple[ModelState, Held, Array]:
    """Of one simulation, or of several side by side where the worlds have axes."""
    learner, (world, axes) = learning.equipped(learner, policy), worlds
    many = axes is not None

    def one(world: World, model: ModelState, plan: Plan) -> tuple[ModelState, Array]:
        after, info = learning.step(learner, world.batches, plan, model, world.key)
        return after, info.loss

    def put(losses: Array, events: Array, found: Array) -> Array:
        return losses.at[events].set(found, mode="drop")

    step, kept = (jax.vmap(one, in_axes=(axes, 0, 0)), jax.vmap(put)) if many else (one, put)

    def at(number: Array) -> tuple[Plan, Array]:
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, number, axis=int(many), keepdims=False), wide
        )

    def body(carry: tuple[Array, ModelState, Held, Array]) -> tuple[Array, ModelState, Held, Array]:
        number, model, held, losses = carry
        held, model = readings.take(due, number, model, held, batched=many, report=learner.report)
        plan, events = at(number)
        model, found = step(world, model, plan)
        return number + 1, model, held, kept(losses, events, found)

    zero = jnp.zeros((), jnp.int32)
    shape = jax.eval_shape(lambda model: step(world, model, at(zero)[0])[1], models)
    start = zero, models, held, jnp.zeros((*shape.shape[:-1], capacity), shape.dtype)
    return jax.lax.while_loop(lambda carry: carry[0] < count, body, start)[1:]
