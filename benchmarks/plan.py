"""How often `plan` is right where the truth is known: a hundred traces drawn from known laws.

    python -m benchmarks plan

A case is a law, a trace of 300 steps of 10 machines drawn from it, and rules on topologies to rank. A third has a
closed form: the k-th of N shifted exponential times takes `shift + (H_N - H_{N-k}) / rate` on average, and N gradients
take N / k times as long. Elsewhere the truth is by brute force: the same clocks over 200 fresh traces of the law, of
machines that differ, that are slow together, or that have slow spells. Half of these rank iterations, half gradients.

Right: the truly best candidate (or one within 0.1 % of it) is first, or in the first group. Where the best truly leads
all others by 20 %, it should be alone at the top. `seconds` and `ratios`: how often an interval holds the truth, over
all candidates. Promised: right in at least 90 of 100, alone in at least 80 % where the lead is 20 %, 90 to 99 % held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dbwjax.planning import describe, replicates
from dbwjax.planning.plan import Plan, plan_cluster
from dbwjax.planning.replicates import Links

CASES, MACHINES, STEPS, SEEDS = 100, 10, 300, 200
LEAD, SAME = 1.2, 1.001
Candidate = tuple[str, str]
Draw = Callable[[np.random.Generator, int], np.ndarray]
"""A trace of so many steps, `[steps, MACHINES]` seconds."""


class Case(NamedTuple):
    """What is known of one case."""

    kind: str
    by: str
    policies: list[str]
    graphs: list[str]
    draw: Draw
    truth: Callable[[], dict[Candidate, float]]  # seconds of each candidate


class Outcome(NamedTuple):
    """How the plan did."""

    kind: str
    right: bool
    lead: float  # of the truly best over the next
    alone: bool  # the truly best is first, and nothing is in its group that is truly slower
    held: list[bool]  # whether each candidate's interval holds its seconds
    ratios: list[bool]  # whether each interval over the first holds that ratio


def cases() -> list[Case]:
    """The hundred, always the same."""
    return [_case(number) for number in range(CASES)]


def _case(number: int) -> Case:
    rng = np.random.default_rng([17, number])
    if number % 3 == 0:
        return _closed(rng)
    by = "iteration" if number % 2 else "gradients"
    kind, draw = _laws(rng)[number // 3 % 3]
    policies = {
        "iteration": ["full", "full:barrier=neighbours", "backup:b=1", "local_sgd:h=4"],
        "gradients": ["full", "backup:b=1", "fastest:k=8,late=drop", "fastest:k=5,late=drop"],
    }[by]
    graphs = ["ring", "exponential"] if by == "iteration" else ["ring"]
    return Case(kind, by, policies, graphs, draw, lambda: brute(policies, graphs, by, draw, 1000 + number))


def _closed(rng: np.random.Generator) -> Case:
    shift, rate = 10 ** rng.uniform(-1.5, 0.3), 1.0
    counts = (2, 4, 6, 8, 10)
    policies = [f"fastest:k={k},late=drop" for k in counts]

    def truth() -> dict[Candidate, float]:
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, MACHINES + 1))])
        times = {k: shift + (harmonic[MACHINES] - harmonic[MACHINES - k]) / rate for k in counts}
        return {(spec, "ring"): times[k] * MACHINES / k for spec, k in zip(policies, counts, strict=True)}

    def draw(rng: np.random.Generator, steps: int) -> np.ndarray:
        return shift + rng.exponential(1 / rate, (steps, MACHINES))

    return Case("closed form", "gradients", policies, ["ring"], draw, truth)


def _laws(rng: np.random.Generator) -> list[tuple[str, Draw]]:
    pace = np.exp(rng.normal(0, rng.uniform(0, 0.5), MACHINES))
    sigma, common = rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.6)
    slow, leave, factor = rng.uniform(0.01, 0.05), rng.uniform(0.1, 0.4), rng.uniform(2, 6)

    def apart(rng: np.random.Generator, steps: int) -> np.ndarray:
        return pace * np.exp(sigma * rng.standard_normal((steps, MACHINES)))

    def together(rng: np.random.Generator, steps: int) -> np.ndarray:
        return apart(rng, steps) * np.exp(common * rng.standard_normal((steps, 1)))

    def spells(rng: np.random.Generator, steps: int) -> np.ndarray:
        state = rng.random(MACHINES) < slow / (slow + leave)
        found = np.empty((steps, MACHINES), bool)
        for step in range(steps):
            change = rng.random(MACHINES)
            state = np.where(state, change >= leave, change < slow)
            found[step] = state
        return np.exp(0.2 * rng.standard_normal((steps, MACHINES))) * np.where(found, factor, 1.0)

    return [("machines that differ", apart), ("slow together", together), ("slow spells", spells)]


def brute(policies: list[str], graphs: list[str], by: str, draw: Draw, seed: int) -> dict[Candidate, float]:
    """Seconds of each candidate over `SEEDS` fresh traces, one after another in one table."""
    rng = np.random.default_rng(seed)
    table = np.concatenate([draw(rng, STEPS) for _ in range(SEEDS)])
    data = describe.describe(table[:STEPS], tuple(map(str, range(MACHINES))))._replace(block=STEPS, rows=STEPS)
    nets = {spec: replicates.graphs_of(spec, MACHINES, range(SEEDS)) for spec in graphs}
    found = replicates.simulate(nets, policies, table, data, Links(), 1, seed)
    return {
        key: float((one.length[0] * (MACHINES / one.gradients[0] if by == "gradients" else 1)).mean())
        for key, one in found.items()
    }


def planned(case: Case, number: int) -> Plan:
    """What `plan` says to a trace of the case."""
    return plan_cluster(
        case.draw(np.random.default_rng([23, number]), STEPS),
        policies=case.policies,
        graphs=case.graphs,
        timing_only=True,
        by=case.by,
        sensitivity=False,
        fit=False,
        seed=number,
    )


def outcome(case: Case, number: int) -> Outcome:
    """One case, judged."""
    truth, found = case.truth(), planned(case, number)
    order = sorted(truth, key=lambda key: truth[key])
    best = {key for key in order if truth[key] <= SAME * truth[order[0]]}
    others = [truth[key] for key in order if key not in best]
    entries = {(one.policy, one.graph): one for one in found.ranking.entries}
    top = {(one.policy, one.graph) for one in found.ranking.top}
    first = (found.best.policy, found.best.graph)

    def holds(interval: Any, value: float) -> bool:
        return interval.low <= value <= interval.high

    return Outcome(
        case.kind,
        bool(best & top),
        others[0] / truth[order[0]] if others else 1.0,
        first in best and top <= best,
        [holds(entries[key].seconds, truth[key]) for key in order],
        [holds(entries[key].over_best, truth[key] / truth[first]) for key in order if key != first],
    )


def summary(found: list[Outcome]) -> dict[str, Any]:
    """Figures of some outcomes."""
    leading = [one for one in found if one.lead >= LEAD]
    held = [each for one in found for each in one.held]
    ratios = [each for one in found for each in one.ratios]
    return {
        "cases": len(found),
        "right or in the top group": sum(one.right for one in found),
        "cases with a lead of 20 %": len(leading),
        "of those alone at the top": sum(one.alone for one in leading),
        "seconds held [%]": 100 * float(np.mean(held)),
        "ratios held [%]": 100 * float(np.mean(ratios)),
    }


def measure(quick: bool) -> dict[str, Any]:
    """All cases, and by kind."""
    some = list(enumerate(cases()))[: 6 if quick else CASES]
    found = [outcome(case, number) for number, case in some]
    kinds = dict.fromkeys(one.kind for one in found)
    return {"all": summary(found)} | {kind: summary([one for one in found if one.kind == kind]) for kind in kinds}
