"""`--debug`: every mixing matrix of a run is looked at before the run, by the clocks alone.

Of a method on the workers' own links every row sums to one; under push-sum every column does. Sums are looked at and
not signs, for weights may be negative. A method with nodes of its own (a server, mailboxes, an accumulator, which adds
up) promises neither: its weights are finite. Doubly stochastic weights are not told apart from others here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dbwjax.engine import simulate
from dbwjax.engine.batch import alone
from dbwjax.engine.timeline import timeline
from dbwjax.experiments.problem import Problem
from dbwjax.runtime import streams
from dbwjax.types import Plan, Policy

CHUNK = 100
"""Steps between two looks."""

CLOSE = 1e-5
"""How far from one a sum of float32 weights may be."""


class Unsound(RuntimeError):
    """A mixing matrix is none."""

    exit_code = 3


def require_sound(found: Sequence[Problem], budgets: Sequence[np.ndarray]) -> int:
    """Looks at every mixing matrix of all policies in all worlds until the budget.

    Args:
      found: the worlds.
      budgets: by problem, `[B]` seconds.

    Returns:
      How many matrices were looked at. Policies that read training decide as they train, and are left out with a note.

    Raises:
      Unsound: one that does not sum to one; it names policy, world, step and row.
    """
    count = 0
    for problem, ends in zip(found, budgets, strict=True):
        for spec, policy in problem.policies.items():
            if policy.reads_training:
                streams.note(f"--debug leaves policy '{spec}' out: it reads the training, which clocks alone lack")
                continue
            for which, end in enumerate(ends):
                world = alone(problem.worlds_of(spec), which)._replace(batches=None)
                count += _require_sound(f"policy '{spec}', {problem.told[which].values}", policy, world, float(end))
    return count


def _require_sound(said: str, policy: Policy, world: simulate.World, end: float) -> int:
    state, elapsed, steps = simulate.start_clock(policy, world), 0.0, 0
    while elapsed <= end and np.isfinite(elapsed):
        state, plans = timeline(policy, world, state, CHUNK)
        lengths = np.asarray(plans.duration, np.float64)
        step, line, total = fault(plans, policy, len(np.asarray(state.started)))
        if step >= 0:
            what = "column" if policy.pushsum else "row"
            raise Unsound(
                f"{said}: step {steps + step}: {what} {line} of the mixing matrix sums to {total:.8g}, not to 1"
            )
        if not lengths.sum() > 0:
            break  # time stands still, of which the run says more
        elapsed, steps = elapsed + lengths.sum(), steps + CHUNK
    return steps


def fault(plans: Plan, policy: Policy, nodes: int) -> tuple[int, int, float]:
    """The first step of which a row or a column does not sum to one, that row or column, and its sum; -1: none."""
    mix = np.asarray(plans.mix, np.float64)
    steps = len(mix)
    rows = np.broadcast_to(np.arange(mix.shape[1]), mix.shape[:2]) if plans.rows is None else np.asarray(plans.rows)
    written = rows < nodes
    if policy.network is not None:
        sums, line = np.where(np.isfinite(mix).all(axis=2), 1.0, np.nan), rows
    elif policy.pushsum:
        sources = np.arange(nodes)[None, None] if plans.sources is None else np.asarray(plans.sources)
        sums = np.ones((steps, nodes + 1))
        step = np.arange(steps)[:, None]
        sums[step, np.where(written, rows, nodes)] = 0  # who is not written keeps its own
        every = np.broadcast_to(sources, mix.shape)
        np.add.at(sums, (step[:, :, None], every), np.where(written[:, :, None], mix, 0))
        sums, line = sums[:, :nodes], np.broadcast_to(np.arange(nodes), (steps, nodes))
        written = np.ones_like(sums, bool)
    else:
        sums, line = mix.sum(axis=2), rows
    odd = written & ~(np.abs(sums - 1) <= CLOSE)
    if not odd.any():
        return -1, -1, 1.0
    first, place = map(int, np.argwhere(odd)[0])
    return first, int(line[first, place]), float(sums[first, place])
