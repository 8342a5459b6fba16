"""Whether the events of a training are put together in wide steps, and how (`engine.wide`)."""

from __future__ import annotations

import jax
import numpy as np

from dbwjax.engine import ahead
from dbwjax.engine.ahead import Way
from dbwjax.experiments.placing import Placing, SideBySide


def steps_are_events(place: Placing) -> bool:
    """Whether each step of the policy is one worker's event; nothing runs."""
    return ahead.steps_are_events(place.policy, *place.one())


def way_of(place: Placing, wanted: bool | None, steps: int) -> Way | None:
    """How events are put together in wide steps; `None`: they are run one by one, or steps are no events.

    It is a matter of the policy's first steps, so a training that is resumed goes on as it began.

    Args:
      place: where the simulations run.
      wanted: whether events are to be put together; `None`: on accelerators, where the steps are wide. (On a CPU an
        event is mostly its own gradient, which is no cheaper in company.)
      steps: how many of them are looked at.

    Raises:
      ValueError: wanted, and the workers of one simulation are cut among devices.
    """
    if not (jax.default_backend() != "cpu" if wanted is None else wanted) or not steps_are_events(place):
        return None
    if isinstance(place, SideBySide):
        limits = np.full(place.devices, steps)
        _, plans = ahead.plans_of(place.policy, place.worlds, place.start(), limits, steps, place.mesh)
        first = jax.tree.map(lambda leaf: leaf[0], plans)
        computes = np.asarray(place.worlds.tree.graph.computes)
        return ahead.chosen(place.policy, first, computes.reshape(-1, computes.shape[-1])[0], forced=bool(wanted))
    if wanted:
        raise ValueError(
            "events are put together where a device holds whole simulations, and here the workers of one are cut among "
            "several; use --wide auto, or --devices 1"
        )
    return None
