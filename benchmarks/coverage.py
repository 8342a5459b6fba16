"""How often the interval of `report/statistics.py` holds the truth, where the truth is known.

    python -m benchmarks coverage

A world's times to target are lognormal: a part that both policies share and one of their own (logarithmic standard
deviations 0.3 and 0.2), ours faster by 1.3 or by 2. The budget is such that a given share of the rival's times is
censored; of ours fewer are. `coverage` is the share of intervals that hold the truth, of those that were given: where
both policies were censored there is no ratio (`no ratio`: how often). Beside it, what not to do: `survivors only`
leaves censored worlds out, `budget as time` takes the budget for the time and gives both limits.

Shared delays: five delays under twenty graphs each, most of the spread from the delays; `as pairs` takes the hundred
worlds as independent. Everything goes through `ratio` itself. Promised: 93 to 97 % where nothing is censored, at least
95 % where something is. With n intervals the standard error of a coverage near 95 % is 22 / sqrt(n) points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from dbwjax.report.statistics import Time, ratio

TRUTHS = (1.3, 2.0)
SHARED, OWN = 0.3, 0.2
"""Standard deviations of the logarithm: of what both policies have in common in a world, and of each alone."""
CENSORED = (0.0, 0.1, 0.2, 0.4)
WORLDS = (5, 10)
DELAYS, GRAPHS = 5, 20
BY_DELAYS, BY_PAIR = 0.2, 0.1
"""Standard deviations of a pair's log ratio: between delays, and between the graphs under one of them."""


class Draw(NamedTuple):
    """Worlds of one comparison: seconds of both policies, `[W]`, and when rows end."""

    rivals: np.ndarray
    ours: np.ndarray
    truth: float  # of their ratio
    budget: float


def independent(rng: np.random.Generator, worlds: int, truth: float, censored: float) -> Draw:
    """Worlds of their own, the rival censored with the given probability."""
    from scipy.special import ndtri

    common = SHARED * rng.standard_normal(worlds)
    rivals = np.exp(common + OWN * rng.standard_normal(worlds))
    ours = np.exp(common + OWN * rng.standard_normal(worlds)) / truth
    spread = math.hypot(SHARED, OWN)
    return Draw(rivals, ours, truth, math.exp(spread * ndtri(1 - censored)) if censored else math.inf)


def watched(seconds: np.ndarray, budget: float) -> list[Time]:
    """Times as rows that end at the budget show them."""
    return [Time(min(each, budget), each <= budget) for each in seconds.tolist()]


def distinct(worlds: int) -> list[dict[str, str]]:
    """Hashes of worlds that have nothing in common."""
    return [dict.fromkeys(("graph", "delays", "timing", "learning"), str(world)) for world in range(worlds)]


def interval(draw: Draw) -> dict[str, Any]:
    """What the library gives."""
    rivals, ours = watched(draw.rivals, draw.budget), watched(draw.ours, draw.budget)
    return ratio(rivals, ours, distinct(len(rivals)))


def survivors_only(draw: Draw) -> dict[str, Any]:
    """Not to be done: censored worlds left out."""
    kept = np.maximum(draw.rivals, draw.ours) <= draw.budget
    return interval(draw._replace(rivals=draw.rivals[kept], ours=draw.ours[kept]))


def budget_as_time(draw: Draw) -> dict[str, Any]:
    """Not to be done: the budget taken for the time."""
    rivals, ours = np.minimum(draw.rivals, draw.budget), np.minimum(draw.ours, draw.budget)
    return interval(draw._replace(rivals=rivals, ours=ours))


def shared_delays(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Graphs that share delays: as clusters, and not to be done, as if they were independent."""
    by_delays = np.repeat(BY_DELAYS * rng.standard_normal(DELAYS), GRAPHS)
    logs = by_delays + BY_PAIR * rng.standard_normal(DELAYS * GRAPHS)
    rivals = watched(TRUTHS[0] * np.exp(logs), math.inf)
    ours, worlds = [Time(1.0)] * len(rivals), distinct(len(rivals))
    shared = [{**world, "delays": f"of {number // GRAPHS}"} for number, world in enumerate(worlds)]
    return ratio(rivals, ours, shared), ratio(rivals, ours, worlds)


def coverage(found: Iterable[dict[str, Any]], truth: float) -> dict[str, float]:
    """The share of given intervals that hold the truth (a missing limit is no limit), and of comparisons without, %."""
    every = list(found)
    given = [each for each in every if each["clusters"] > 1 and each["bound"] != "none"]
    held = [(each["low"] or 0) <= truth <= (each["high"] or math.inf) for each in given]
    return {"coverage [%]": 100 * sum(held) / len(given), "no ratio [%]": 100 * (1 - len(given) / len(every))}


def measure(quick: bool) -> dict[str, Any]:
    """Coverage in every case; the same seed always."""
    rng = np.random.default_rng(0)
    many, fewer = (400, 100) if quick else (20_000, 4_000)
    figures: dict[str, Any] = {"comparisons of each case": many, "of what not to do": fewer}
    for worlds, truth, censored in itertools.product(WORLDS, TRUTHS, CENSORED):
        draws = [independent(rng, worlds, truth, censored) for _ in range(many)]
        case = {"interval": coverage(map(interval, draws), truth)}
        if censored:
            case["survivors only"] = coverage(map(survivors_only, draws[:fewer]), truth)
            case["budget as time"] = coverage(map(budget_as_time, draws[:fewer]), truth)
        figures[f"n={worlds}, ratio {truth:g}, {censored:.0%} of the rival's times censored"] = case
    clusters, pairs = zip(*(shared_delays(rng) for _ in range(fewer)), strict=True)
    figures[f"{DELAYS} delays under {GRAPHS} graphs each"] = {
        "as clusters": coverage(clusters, TRUTHS[0]),
        "as pairs": coverage(pairs, TRUTHS[0]),
    }
    return figures
