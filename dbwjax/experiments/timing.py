"""Times that cannot be, named: a delay that is no time, and a clock that does not move.

Every run of a clock is looked at here, on the host, chunk by chunk. Time must pass: a delay may be 0 seconds now and
then, but where `patience` steps in a row move the clock by nothing, the run ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dbwjax import numbers
from dbwjax.engine import batch, ledger
from dbwjax.engine.batch import Batch
from dbwjax.types import ClockState, Policy


class NotATime(RuntimeError):
    """A delay that is negative, not a number, or beyond what float32 holds."""

    exit_code = 3

    def __init__(self, lost: ledger.Lost):
        super().__init__(
            f"computation {lost.computation} of worker {lost.worker} (both from 0) takes {lost.seconds:g} seconds, "
            f"which is no time; the delays must give 0 or {numbers.RANGE} seconds"
        )


class Standstill(RuntimeError):
    """Time does not pass."""

    exit_code = 3

    def __init__(self, steps: int, seconds: float):
        super().__init__(
            f"time stands still at {seconds:.6g} s: the last {steps} steps moved it by nothing; time must pass: use "
            "delays that are not all 0, nor too small to be added to the time that has passed"
        )


class Deserted(Standstill):
    """A step that never ends, in a world that breaks."""

    def __init__(self, step: int, seconds: float):
        RuntimeError.__init__(
            self,
            f"step {step}, which begins at {seconds:.6g} s, never ends: whom the method waits for never comes back; "
            "let it come back, or end the run before with --seconds",
        )


class Unbalanced(Standstill):
    """A mixing matrix whose sums are off."""

    def __init__(self, step: int, line: int, total: float, nodes: int):
        what = f"row {line}" if line < nodes else f"column {line - nodes}"
        RuntimeError.__init__(
            self, f"step {step}: {what} of the mixing sums to {total:.9g} and not to 1; the policy is at fault"
        )


def require_sound(clock: ClockState, account: Any, ticks: Any) -> None:
    """Looks for steps that never end, where workers may leave for ever (elsewhere a run holds out until its budget),
    and for sums of the mixing that are off, where they are looked at (`Policy.debug`).

    Args:
      clock: at any time.
      account: of the simulation, `accounting.Account`: `origin`, `steps` and `grid`.
      ticks: of the coming steps, leaves `[T, ...]` on the host.

    Raises:
      Deserted, Unbalanced: there is one.
    """
    if clock.elapsed is not None:
        _require_ends([[account.origin]], np.asarray(ticks.duration)[None], [account.grid[-1]], account.steps)
    if ticks.fault is not None:
        for step in np.flatnonzero(ticks.fault[0] >= 0)[:1]:
            line, total = (each[step] for each in ticks.fault)
            raise Unbalanced(account.steps + int(step), int(line), float(total), len(account.computes))


def require_ends(clock: ClockState, origin: np.ndarray, duration: np.ndarray, budget: np.ndarray, steps: int) -> None:
    """The same for B clocks: `origin [B]`, `duration [B, T]`, `budget [B]` seconds, after so many steps."""
    if clock.elapsed is not None:
        _require_ends(np.asarray(origin)[:, None], duration, budget, steps)


def _require_ends(origin: Any, duration: np.ndarray, budget: Any, steps: int) -> None:
    ends = np.asarray(origin) + np.cumsum(duration, axis=1, dtype=np.float64)
    begins = np.concatenate([np.asarray(origin), ends[:, :-1]], axis=1)
    endless = np.isinf(duration) & (begins < np.asarray(budget)[:, None])
    for sim in np.flatnonzero(endless.any(axis=1))[:1]:
        step = int(endless[sim].argmax())
        raise Deserted(steps + step, float(begins[sim, step]))


def patience(workers: int) -> int:
    """How many steps in a row may move the clock by nothing. Where single workers restart, those that finish at one
    instant take a step each."""
    return 1000 + 10 * workers


def require_times(policy: Policy, some: Batch, before: ClockState, duration: np.ndarray, until: Any = None) -> None:
    """Looks for delays that are no times behind durations that are not numbers.

    Args:
      policy: of the clocks.
      some: their worlds.
      before: the clocks before these steps, leaves `[B, ...]`.
      duration: `[B, T]` seconds.
      until: `[B, T]` bool, which steps matter; all by default.

    Raises:
      NotATime: there is one.
    """
    odd = np.isnan(duration) & (True if until is None else until)
    for sim in np.flatnonzero(odd.any(axis=1))[:1]:
        steps = int(odd[sim].argmax())
        lost = ledger.lost(policy, batch.alone(some, int(sim)), batch.rows_of(before, int(sim)), steps)
        if lost is not None:
            raise NotATime(lost)
