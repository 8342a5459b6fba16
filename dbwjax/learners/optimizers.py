"""Optimisers by SPEC: what each worker does with its gradients. Optax makes them."""

from __future__ import annotations

from typing import Any

from dbwjax import numbers, specs
from dbwjax.learners.schedules import Schedule, build_schedule, require_rates, scheduled


def build_optimizer(spec: str, learning_rate: float, schedule: str | Schedule = "constant") -> Any:
    """The optax optimiser that a SPEC of `OPTIMIZERS` names, at a learning rate that follows a schedule.

    The base rate is an array in the optimiser's state, so that a sweep over it is a `vmap` (see `with_rates`).

    Args:
      spec: as in `sgd`, `momentum:beta=0.9`, `adam`.
      learning_rate: the base rate.
      schedule: a SPEC of `SCHEDULES`, or any optax schedule; multiplies the base rate, and counts a worker's own
        updates that counted.

    Raises:
      ValueError: an unknown name or key, a value out of range, or a rate that float32 does not hold.
    """
    numbers.require("learning_rate", learning_rate)
    optimizer = specs.build(spec, OPTIMIZERS, "optimizer", learning_rate=learning_rate)
    if not isinstance(schedule, str):
        return scheduled(optimizer, schedule)
    multiplier = build_schedule(schedule)
    require_rates(schedule, [learning_rate])
    return scheduled(optimizer, multiplier)


_LARGEST_BETA = 0.99999997  # float32's last number below 1 is 1 - 2^-24


def sgd(*, learning_rate: float) -> Any:
    """`x - learning_rate * g`."""
    import optax

    return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate)


def momentum(*, beta: float = 0.9, learning_rate: float) -> Any:
    """SGD with a heavy-ball momentum `beta`."""
    import optax

    if not 0 <= beta < 1:
        raise ValueError(f"beta={beta:g} is not a momentum; use 0 to less than 1")
    if beta > _LARGEST_BETA:
        raise ValueError(f"beta={beta:.17g} is 1 in float32; use at most {_LARGEST_BETA}")
    return optax.inject_hyperparams(optax.sgd, static_args="momentum")(learning_rate=learning_rate, momentum=beta)


def adam(*, learning_rate: float) -> Any:
    """Adam with optax's defaults; each worker has its own moments."""
    import optax

    return optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root"))(
        learning_rate=learning_rate
    )


OPTIMIZERS = {"sgd": sgd, "momentum": momentum, "adam": adam}
