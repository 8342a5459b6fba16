"""Many simulations in one program: graphs, seeds and settings that change no shape are one `vmap`.

What all simulations have in common (the data, as a rule) is kept once; the rest is stacked along a leading axis `B`. A
batched simulation has the delays, batches and plans of the same simulation alone, to the last bit.

Several devices share a batch along a mesh axis `sims`: simulations never speak to one another, so nothing is sent. A
device that holds a single one runs it as `simulate.run` does.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, PyTree

from dbwjax.engine import clock, ledger, readings, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.batch import AXIS, Axes, Batch, alone, shared
from dbwjax.engine.readings import Due, Held
from dbwjax.engine.simulate import Seen, SimState, World
from dbwjax.types import ClockState, Graph, Learner, ModelState, Plan, Policy, StepRecord, Tick


class ClockRecord(NamedTuple):
    """What clocks leave that run alone; stacked `[B, T]`, `None` what was not asked for. The sums are over the workers
    whose iteration ends by the simulation's deadline."""

    duration: Float[Array, ""]  # seconds
    past: Bool[Array, ""]  # whether nobody's iteration ends by the deadline: so it stays
    ended: Int[Array, ""]  # iterations that ended, over workers
    active: Int[Array, ""]  # workers that took part
    missed: Int[Array, ""]  # neighbours not heard
    gradients: Int[Array, ""]  # updates that counted
    length: Float[Array, ""]  # seconds that the iterations took, summed
    computing: Float[Array, ""]  # seconds, see `ledger`
    wasted: Float[Array, ""]
    waiting: Float[Array, ""]
    communicating: Float[Array, ""]
    age: Int[Array, ""]  # staleness of the updates that counted
    messages: Int[Array, ""]  # sent


def init(
    policy: Policy, learner: Learner, worlds: Batch, policy_states: PyTree, params: PyTree, mesh: Mesh | None = None
) -> SimState:
    """Simulations at virtual time 0.

    Args:
      policy: who waits for whom.
      learner: the workers' learner. Its `init` gives every simulation the same local states; what differs (a learning
        rate) is put into them afterwards.
      worlds: B worlds.
      policy_states: from `policy.init` of each graph, leaves `[B, ...]`.
      params: one worker's parameters in each simulation, leaves `[B, ...]`.
      mesh: the devices that share the batch; `None`: one.
    """
    clocks = start(policy, worlds, policy_states, mesh)
    models = _models(policy, learner, params, clocks.started.shape[1], mesh)
    return SimState(clocks, models, _no_feedback(policy, learner, worlds, models))


def _no_feedback(policy: Policy, learner: Learner, worlds: Batch, models: ModelState) -> PyTree:
    if not policy.reads_training:
        return None
    one = simulate.no_feedback(policy, learner, alone(worlds, 0), jax.tree.map(lambda leaf: leaf[0], models))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (models.started.shape[0], *leaf.shape)), one)


def start(policy: Policy, worlds: Batch, policy_states: PyTree, mesh: Mesh | None = None) -> ClockState:
    """B clocks at virtual time 0."""
    lean = _lean(worlds)
    return _start(policy, lean.tree, Axes(lean.axes), policy_states, mesh)


def run_batch(
    policy: Policy, learner: Learner, worlds: Batch, states: SimState, steps: int, mesh: Mesh | None = None
) -> tuple[SimState, StepRecord]:
    """`simulate.run` for B simulations at once; `states` is donated. Records are stacked `[B, T, ...]`."""
    return _run(policy, learner, worlds.tree, Axes(worlds.axes), states, steps, mesh)


def advance_batch(
    policy: Policy,
    learner: Learner,
    worlds: Batch,
    states: SimState,
    held: Held,
    due: Due,
    steps: Array,
    mesh: Mesh | None = None,
) -> tuple[SimState, Held, Seen]:
    """`simulate.advance` for B simulations at once; `states` and `held` are donated.

    Args:
      policy, learner, worlds, states, mesh: as for `run_batch`.
      held: slots `[devices * S]`, own `[B, N, ...]`.
      due: what to read on each device, leaves `[devices, ...]`; simulations and slots are counted on the device.
      steps: `[devices]`.

    Returns:
      States, readings, and what the learner said, `[devices, C, sims of a device, ...]`.
    """
    return _advance(policy, learner, worlds.tree, Axes(worlds.axes), states, held, due, steps, mesh)


def look_ahead(
    policy: Policy,
    worlds: Batch,
    states: ClockState,
    steps: int,
    mesh: Mesh | None = None,
    feedback: PyTree = None,
    spectrum: bool = False,
) -> tuple[ClockState, Tick]:
    """`ledger.look_ahead` for B clocks at once; ticks are stacked `[B, T, ...]`. `states` stays as it is."""
    lean = _lean(worlds)
    return _look_ahead(policy, lean.tree, Axes(lean.axes), states, steps, mesh, feedback, spectrum)


def no_readings(params: PyTree, slots: int, own: PyTree | None, mesh: Mesh | None = None) -> Held:
    """`readings.empty` of one worker's shapes, on the devices that share a batch; `slots` are of all of them."""
    made = partial(readings.empty, params, slots, own)
    if mesh is None:
        return made()
    return jax.jit(made, out_shardings=NamedSharding(mesh, P(AXIS)))()


def clock_batch(
    policy: Policy,
    worlds: Batch,
    states: ClockState,
    steps: int,
    mesh: Mesh | None = None,
    deadline: np.ndarray | None = None,
    fields: tuple[str, ...] = ClockRecord._fields,
) -> tuple[ClockState, ClockRecord, Int[Array, "B N"]]:
    """Runs B clocks alone: no parameters, no data, and no plans kept.

    Args:
      policy: must not read training.
      worlds: B worlds; their batches are not touched and may be `None`.
      states: from `start`, or from an earlier call.
      steps: T.
      mesh: the devices that share the batch; `None`: one.
      deadline: `[B]` seconds from now after which no iteration is counted, float64; `None`: never. An iteration that
        ends at the deadline counts, to the last bit of a sum of its durations in float64.
      fields: of `ClockRecord`, which are wanted, beside `duration`; what is not is not computed.

    Returns:
      The clocks after them, their records `[B, T]`, and how many iterations of each worker were counted.

    Raises:
      ValueError: the policy reads training.
    """
    if policy.reads_training:
        raise ValueError("this policy reads training and has no clock of its own; train instead")
    lean, exact = _lean(worlds), jnp.result_type(float)
    never = float(jnp.finfo(exact).max) / 4  # infinity has no difference to itself
    seconds = np.broadcast_to(np.asarray(never if deadline is None else deadline, np.float64), states.step.shape)
    high = seconds.astype(exact)
    left = jnp.asarray(high), jnp.asarray((seconds - high).astype(exact))
    return _clocks(policy, lean.tree, Axes(lean.axes), states, left, steps, mesh, fields)


@partial(jax.jit, static_argnames=("policy", "axes", "mesh"))
def _start(policy: Policy, worlds: World, axes: Axes, states: PyTree, mesh: Mesh | None) -> ClockState:
    def one(world: World, state: PyTree) -> ClockState:
        return clock.start(policy, state, world.graph, world.delays, world.key, world.events)

    return shared(jax.vmap(one, in_axes=(axes.tree, 0)), (axes.tree, 0), mesh)(worlds, states)


@partial(jax.jit, static_argnames=("policy", "learner", "nodes", "mesh"))
def _models(policy: Policy, learner: Learner, params: PyTree, nodes: int, mesh: Mesh | None) -> ModelState:
    every = jax.vmap(lambda one: learning.init(learner, policy, one, nodes))
    return shared(every, (0,), mesh)(params)


@partial(jax.jit, static_argnames=("policy", "learner", "axes", "steps", "mesh"), donate_argnames=("states",))
def _run(
    policy: Policy, learner: Learner, worlds: World, axes: Axes, states: SimState, steps: int, mesh: Mesh | None
) -> tuple[SimState, StepRecord]:
    def one(world: World, state: SimState) -> tuple[SimState, StepRecord]:
        return simulate.scan(policy, learner, world, state, steps)

    def some(worlds: World, states: SimState) -> tuple[SimState, StepRecord]:
        if states.clock.step.shape[0] > 1:
            return jax.vmap(one, in_axes=(axes.tree, 0))(worlds, states)
        single = alone(Batch(worlds, axes.tree), 0), jax.tree.map(lambda leaf: leaf[0], states)
        return jax.tree.map(lambda leaf: leaf[None], one(*single))

    return shared(some, (axes.tree, 0), mesh)(worlds, states)


@partial(jax.jit, static_argnames=("policy", "learner", "axes", "mesh"), donate_argnames=("states", "held"))
def _advance(
    policy: Policy,
    learner: Learner,
    worlds: World,
    axes: Axes,
    states: SimState,
    held: Held,
    due: Due,
    steps: Array,
    mesh: Mesh | None,
) -> tuple[SimState, Held, Seen]:
    def some(worlds: World, states: SimState, held: Held, due: Due, steps: Array) -> tuple[SimState, Held, Seen]:
        due, limit = jax.tree.map(lambda leaf: leaf[0], due), steps[0]
        if states.clock.step.shape[0] == 1:
            world = alone(Batch(worlds, axes.tree), 0)
            state = jax.tree.map(lambda leaf: leaf[0], states)
            after, held, seen = simulate.advance(policy, learner, world, state, held, due, limit)
            every = jax.tree.map(lambda leaf: leaf[None], after)
            return every, held, jax.tree.map(lambda leaf: leaf[None, :, None], seen)
        after, held, seen = _together(policy, learner, worlds, axes, states, held, due, limit)
        return after, held, jax.tree.map(lambda leaf: leaf[None], seen)

    specs = (axes.tree, 0, 0, 0, 0)
    return shared(some, specs, mesh)(worlds, states, held, due, steps)


def _together(
    policy: Policy, learner: Learner, worlds: World, axes: Axes, states: SimState, held: Held, due: Due, limit: Array
) -> tuple[SimState, Held, Seen]:
    """Simulations side by side: clock and learner are mapped over them, readings are taken of one at a time (mapped,
    every reading would be computed for all of them at every step)."""

    report = learning.equipped(learner, policy).report

    def one(states: SimState) -> tuple[SimState, Seen]:
        step = partial(simulate.advanced, policy, learner)
        return jax.vmap(step, in_axes=(axes.tree, 0))(worlds, states)

    def body(carry: tuple[Array, SimState, Held, Seen]) -> tuple[Array, SimState, Held, Seen]:
        step, states, held, seen = carry
        held, models = readings.take(due, step, states.model, held, batched=True, report=report)
        states = states._replace(model=models)
        states, new = one(states)
        return step + 1, states, held, simulate.written(seen, step, new)

    start = (jnp.zeros((), jnp.int32), states, held, simulate.blank(one, states, due))
    return jax.lax.while_loop(lambda carry: carry[0] < limit, body, start)[1:]


@partial(jax.jit, static_argnames=("policy", "axes", "steps", "mesh", "spectrum"))
def _look_ahead(
    policy: Policy,
    worlds: World,
    axes: Axes,
    states: ClockState,
    steps: int,
    mesh: Mesh | None,
    feedback: PyTree,
    spectrum: bool,
) -> tuple[ClockState, Tick]:
    def some(worlds: World, states: ClockState, feedback: PyTree) -> tuple[ClockState, Tick]:
        def one(world: World, state: ClockState, feedback: PyTree) -> tuple[ClockState, Tick]:
            return ledger.look_ahead(policy, world, state, steps, feedback, spectrum)

        return jax.vmap(one, in_axes=(axes.tree, 0, 0))(worlds, states, feedback)

    return shared(some, (axes.tree, 0, 0), mesh)(worlds, states, feedback)


@partial(jax.jit, static_argnames=("policy", "axes", "steps", "mesh", "fields"))
def _clocks(
    policy: Policy,
    worlds: World,
    axes: Axes,
    states: ClockState,
    left: tuple,
    steps: int,
    mesh: Mesh | None,
    fields: tuple[str, ...],
) -> tuple[ClockState, ClockRecord, Array]:
    def tick(world: World, carry: tuple) -> tuple[tuple, ClockRecord]:
        before, left, counts = carry
        plan, after = clock.tick(policy, world.graph, world.delays, world.key, before, events=world.events)
        found, ended = _clock_record(world.graph, plan, before, left)
        kept: dict[str, Any] = {name: one if name in fields else None for name, one in found._asdict().items()}
        return (after, _less(left, plan.duration), counts + ended), ClockRecord(**kept)

    def some(worlds: World, states: ClockState, left: tuple) -> tuple[ClockState, ClockRecord, Array]:
        def step(carry: tuple, _: None) -> tuple[tuple, ClockRecord]:
            return jax.vmap(tick, in_axes=(axes.tree, 0))(worlds, carry)

        none = jnp.zeros(states.started.shape, jnp.int32)
        (states, _, counts), records = jax.lax.scan(step, (states, left, none), None, length=steps)
        return states, jax.tree.map(lambda leaf: leaf.T, records), counts

    return shared(some, (axes.tree, 0, 0), mesh)(worlds, states, left)


def _less(left: tuple[Array, Array], duration: Array) -> tuple[Array, Array]:
    """Seconds as the sum of two floats, less a duration; by Knuth's two-sum nothing is rounded away."""
    high, low = left
    total = high - duration
    part = total - high
    low = low + ((high - (total - part)) - (duration + part))
    whole = total + low
    return whole, low - (whole - total)


def _clock_record(graph: Graph, plan: Plan, before: ClockState, left: tuple[Array, Array]) -> tuple[ClockRecord, Array]:
    """Sums over the workers whose iteration ends within what is `left`, and `[N]` who they are."""
    nodes = before.started.shape[0]
    tick = ledger.tick_of(graph, plan, before, reads_weights=False)
    apart = tick.ended is not None
    end = plan.duration if tick.ended is None else tick.ended
    within = end - left[0] <= left[1]
    computes = graph.computes if tick.nodes is None else graph.computes.at[tick.nodes].get(mode="clip")
    whose = computes if tick.iterated is None else computes & tick.iterated
    # A worker that waits for its neighbours begins its iteration with its computation.
    took = end - before.begun if apart else end
    if tick.iterated is not None and plan.workers is not None:
        took = tick.computing + tick.wasted + tick.waiting + tick.communicating

    def total(values: Array) -> Array:
        # Where all end at once, one sum is kept or not: choosing worker by worker made a clock a third slower.
        return jnp.where(within, values, 0).sum() if apart else jnp.where(within, values.sum(), 0)

    found = ClockRecord(
        duration=plan.duration,
        past=~within.any(),
        ended=total(whose),
        active=total(whose & tick.active),
        missed=total(jnp.where(whose, tick.missed, 0)),
        gradients=total(tick.counted),
        length=total(jnp.where(whose, took, 0)),
        **{name: total(getattr(tick, name)) for name in ("computing", "wasted", "waiting", "communicating", "age")},
        messages=jnp.where(within.all(), tick.messages, 0),
    )
    if tick.nodes is None:
        return found, within & whose
    ended = jnp.zeros(nodes, bool)
    for entry in range(tick.nodes.shape[0]):
        ended |= (jnp.arange(nodes) == tick.nodes[entry]) & whose[entry]
    return found, within & ended


def _lean(worlds: Batch) -> Batch:
    """Worlds without their data, which clocks do not touch."""
    return Batch(worlds.tree._replace(batches=None), worlds.axes._replace(batches=None))
