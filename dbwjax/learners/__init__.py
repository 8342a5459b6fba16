"""What a worker does with a gradient: optimisers and schedules, as SPECs.

The learning rate has one door: `build_optimizer(spec, learning_rate, schedule)`. The base rate is an array in the
state, which `with_rates` sets; a schedule multiplies it.
"""

from __future__ import annotations

from dbwjax.learners.optimizers import OPTIMIZERS, build_optimizer
from dbwjax.learners.schedules import SCHEDULES, Schedule, build_schedule, scheduled, with_rates

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Schedule",
    "build_optimizer",
    "build_schedule",
    "scheduled",
    "with_rates",
]
