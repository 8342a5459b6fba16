"""Schedules by SPEC: how the learning rate changes while a worker learns. Optax makes them.

A schedule is a *multiplier* of the optimiser's base rate: update number n of a worker is made with `base *
schedule(n)`, n = 0, 1, 2, ... So rates that are swept multiply the schedule, and one program serves all of them.

n counts the worker's *own updates that counted* (steps of its optimiser), not iterations of the cluster and not
seconds. A worker that was late and whose gradient was thrown away is where it was, so workers of one run may be at
different rates.

Optax is given the numbers of updates as floats. It divides by them, and of two int32 that is float32 whatever the
parameters' precision; and `cosine` turns a whole number into a float in its closure at the first call, after which it
is no longer equal to one that is built anew (see `engine.programs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dbwjax import numbers, specs
from dbwjax.limits import real, whole

Schedule = Callable[[Any], Any]
"""`updates () -> multiplier ()`, as optax's schedules; traceable."""


def build_schedule(spec: str) -> Schedule:
    """The schedule that a SPEC of `SCHEDULES` names; schedules joined by `*` are multiplied.

    >>> halves = build_schedule("step:every=100,factor=0.5")
    >>> float(halves(99)), float(halves(100)), float(halves(250))
    (1.0, 0.5, 0.25)
    >>> warm = build_schedule("warmup:steps=10*cosine:steps=400")

    Raises:
      ValueError: an unknown name or key, a value out of range, or a factor that is 1 all the time.
    """
    factors = [specs.build(part, SCHEDULES, "schedule") for part in specs.text_of(spec).split("*")]
    if len(factors) > 1 and _always_one in factors:
        raise ValueError(f"schedule '{spec}': the factor constant does nothing; leave it out")
    return factors[0] if len(factors) == 1 else _product(tuple(factors))


def require_rates(spec: str, rates: Iterable[float]) -> None:
    """Checks base rates, and what a schedule makes of them: float32 must hold the least and the largest that is named.

    A rate that `step` has made smaller again and again comes to 0 in the end, as in optax.

    Args:
      spec: of a schedule.
      rates: base rates.

    Raises:
      ValueError: one that float32 does not hold.
    """
    least = most = 1.0
    for part in spec.split("*"):
        name, settings = specs.parse(part)
        floats = [(key, one) for key, one in specs.keys(SCHEDULES[name]).items() if one.annotation is float]
        levels = [1.0, *(float(settings.get(key, one.default)) for key, one in floats)]
        least, most = least * min(level for level in levels if level), most * max(levels)
    for rate in rates:
        numbers.require("learning_rate", rate)
        for factor in (least, most):
            numbers.require(f"schedule '{spec}': {factor:g} times learning_rate={rate:g}", factor * rate)


def scheduled(optimizer: Any, schedule: Schedule) -> Any:
    """An optax optimiser whose base learning rate is multiplied by a schedule.

    The state is the optimiser's own, of the same shapes: `hyperparams["learning_rate"]` stays the base rate, so that
    `with_rates` works as without a schedule, and its `count` is the number of updates.

    Args:
      optimizer: from `build_optimizer`, or your own with `optax.inject_hyperparams` around what takes `learning_rate`
        (inside an `optax.chain`, too).
      schedule: from `build_schedule`, or any optax schedule; its values are multipliers.

    Returns:
      The optimiser; `optimizer` itself where the schedule is `constant`.

    Raises:
      ValueError: in `init`, an optimiser that keeps no learning rate in its state, or one that schedules it itself.
    """
    from optax import GradientTransformationExtraArgs, with_extra_args_support

    if schedule is _always_one:
        return optimizer
    inner = with_extra_args_support(optimizer)

    def at_its_rate(holder: Any) -> Array:
        base, factor = _rate(holder), jnp.asarray(schedule(holder.count))
        # Rounded once, to the type of the rate.
        return (base * factor.astype(jnp.promote_types(base.dtype, jnp.float32))).astype(base.dtype)

    def init_fn(params: PyTree) -> PyTree:
        state = inner.init(params)
        _require_rate(state)
        return state

    def update_fn(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        now = _map_holders(lambda holder: _with_rate(holder, at_its_rate(holder)), state)
        moved, after = inner.update(updates, now, params, **extra)
        return moved, _map_holders(lambda new, old: _with_rate(new, _rate(old)), after, state)

    return GradientTransformationExtraArgs(init_fn, update_fn)


def with_rates(local: PyTree, rates: Any) -> PyTree:
    """Optimiser states with other base learning rates: how a sweep over rates is one program.

    Args:
      local: stacked states of an optimiser from `build_optimizer` (or of another that `scheduled` would accept); its
        rates have shape `[B, N]` in a batch of simulations, `[N]` in one.
      rates: `[B]`, or of the shape of any other leading axes of the rates; `()` sets all.

    Returns:
      The states; a schedule multiplies the new rates as it did the old ones.

    Raises:
      ValueError: no learning rate in the state, one that follows a schedule of its own, or `rates` of another shape.
    """
    _require_rate(local)

    def replaced(holder: Any) -> Any:
        old = _rate(holder)
        new = jnp.asarray(rates, old.dtype)
        if new.shape != old.shape[: new.ndim]:
            raise ValueError(
                f"rates of shape {new.shape} do not fit states of shape {old.shape}; give one rate a simulation"
            )
        new = jnp.broadcast_to(new.reshape(new.shape + (1,) * (old.ndim - new.ndim)), old.shape)
        # A copy: states are donated to compiled steps, and must not share buffers.
        return _with_rate(holder, jnp.copy(new))

    return _map_holders(replaced, local)


def constant() -> Schedule:
    """The base rate all the time."""
    return _always_one


def cosine(*, steps: int, alpha: float = 0.0) -> Schedule:
    """From 1 to `alpha` along half a cosine over `steps` updates, then `alpha` (with 0, nothing is learned any more;
    Loshchilov, Hutter 2017, arXiv 1608.03983)."""
    import optax

    _require_steps("steps", steps)
    _require_share("alpha", alpha)
    _require_change("alpha=1", alpha)
    return optax.cosine_decay_schedule(1.0, float(steps), alpha)


def step(*, every: int, factor: float = 0.1) -> Schedule:
    """Multiplied by `factor` after every `every` updates."""
    import optax

    _require_steps("every", every)
    if not 0 < real("factor", factor) < math.inf:
        raise ValueError(f"factor={factor:g} is not a factor of a rate; use a finite number above 0")
    _require_change("factor=1", factor)
    return optax.exponential_decay(1.0, float(every), factor, staircase=True)


def warmup(*, steps: int, start: float = 0.0) -> Schedule:
    """Linearly from `start` to 1 over `steps` updates, then 1. With `start=0` the first update moves nothing, as in
    optax."""
    import optax

    _require_steps("steps", steps)
    _require_share("start", start)
    _require_change("start=1", start)
    return optax.linear_schedule(start, 1.0, float(steps))


def warmup_cosine(*, warmup: int, steps: int, alpha: float = 0.0, start: float = 0.0) -> Schedule:
    """Linearly from `start` to 1 over `warmup` updates, then to `alpha` along half a cosine that ends at update
    `steps`."""
    import optax

    _require_steps("warmup", warmup)
    _require_steps("steps", steps)
    if steps <= warmup:
        raise ValueError(f"steps={steps} leaves no update after warmup={warmup}; use {warmup + 1} or more")
    _require_share("alpha", alpha)
    _require_share("start", start)
    _require_change("start=1, alpha=1", start, alpha)
    up = optax.linear_schedule(start, 1.0, float(warmup))
    down = optax.cosine_decay_schedule(1.0, float(steps - warmup), alpha)
    return optax.join_schedules([up, down], [warmup])


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "warmup": warmup,
    "warmup_cosine": warmup_cosine,
}


def _always_one(updates: Any) -> float:
    del updates
    return 1.0


def _product(factors: tuple[Schedule, ...]) -> Schedule:
    def product(updates: Any) -> Any:
        return math.prod((factor(updates) for factor in factors), start=1.0)

    return product


def _holds_rate(node: Any) -> bool:
    """Whether this is optax's state around an optimiser that takes a learning rate."""
    return isinstance(node, tuple) and hasattr(node, "count") and "learning_rate" in getattr(node, "hyperparams", ())


def _map_holders(change: Callable[..., Any], state: PyTree, *others: PyTree) -> PyTree:
    def one(node: Any, *rest: Any) -> Any:
        return change(node, *rest) if _holds_rate(node) else node

    return jax.tree.map(one, state, *others, is_leaf=_holds_rate)


def _rate(holder: Any) -> Array:
    return jnp.asarray(holder.hyperparams["learning_rate"])


def _with_rate(holder: Any, rate: Array) -> Any:
    return holder._replace(hyperparams={**holder.hyperparams, "learning_rate": rate})


def _require_rate(state: PyTree) -> None:
    holders = [node for node in jax.tree.leaves(state, is_leaf=_holds_rate) if _holds_rate(node)]
    if any("learning_rate" in holder.hyperparams_states for holder in holders):
        raise ValueError(
            "this optimizer's learning_rate is a schedule of its own, over which no base rate has a say; give it a "
            "number, and the schedule to build_optimizer or scheduled"
        )
    if not holders:
        raise ValueError(
            "this optimizer keeps no learning rate in its state; use build_optimizer, or "
            "optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)"
        )


def _require_steps(name: str, value: int) -> None:
    whole(name, value)


def _require_change(said: str, *values: float) -> None:
    if all(value == 1 for value in values):
        raise ValueError(f"{said} keeps the base rate all the time; use constant")


def _require_share(name: str, value: float) -> None:
    if not 0 <= real(name, value) <= 1:
        raise ValueError(f"{name}={value:g} is not a share of the base rate; use 0 to 1")
