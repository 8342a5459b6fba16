"""cb-DyBW against its rivals, each at its own best learning rate: two settings, ten paired worlds each.

    python -m benchmarks rivals

One update moves a server by the whole of it and the mean of N workers by 1/N, so that no learning rate is fair to all.
Every method gets the rate of `RATES` at which it is fastest in worlds of their own (`TUNING`), and is then measured in
the ten others. Ratios are cb-DyBW's virtual time to the target over the rival's: above 1 the rival is faster. The
table in `docs/rivals.md` is made of these figures.
"""

from __future__ import annotations

import sys
from typing import Any

from dbwjax import build_task, compare
from dbwjax.report.statistics import summarise

WORKERS, GRAPH, TARGET, BASELINE = 10, "random_regular:degree=4", 0.9, "dybw"
RATES = (0.05, 0.15, 0.5, 1.5, 5.0)
TUNING, FIRST = 1000, 0  # seeds of the worlds that rates are chosen in, and of those that are measured
METHODS = (
    *("full", "full:barrier=neighbours", "backup:b=1", "fastest:k=6", "dpsgd", "dsgd_aau", "matcha", "local_sgd:h=4"),
    *("hop", "prague:group=4", "adpsgd", "randomized_gossip", "acid", "swift", "token", "sgp", "agp"),
    *("server", "server_backup:b=2", "k_batch_sync:k=6", "k_async:k=4", "k_batch_async:k=6", "async_server", "ssp"),
    "dbw",
    BASELINE,
)
SETTINGS = {
    "all slow by chance": "shifted_exponential:shift=0.5,rate=1",
    "one of ten always five times slower": "slow_workers:fraction=0.1,factor=5*lognormal:sigma=0.3",
}


def _task(seed: int) -> Any:
    return build_task("digits", model="lrm", workers=WORKERS, batch_size=32, seed=seed)


def _compared(names: list[str], delays: str, rate: float, seconds: float, seed: int, seeds: int) -> Any:
    told = {"learning_rate": rate, "seconds": seconds, "seed": seed, "seeds": seeds, "workers": WORKERS, "rows": 200}
    return compare(names, _task, GRAPH, delays, "sgd", target_accuracy=TARGET, **told)


def best_rates(delays: str, seconds: float, seeds: int) -> dict[str, float]:
    """The rate at which each method is fastest to the target, or most accurate where none arrives."""
    score: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    for rate in RATES:
        found = _compared(list(METHODS), delays, rate, seconds, TUNING, seeds)
        for name, facts in found.summary["policies"].items():
            time = facts["time_to_target"] if facts["reached"][0] == facts["reached"][1] else None
            score[name].append((seconds if time is None else time, -(facts["test_accuracy"] or 0.0)))
    return {name: RATES[min(range(len(RATES)), key=tried.__getitem__)] for name, tried in score.items()}


def measured(delays: str, rates: dict[str, float], seconds: float, seeds: int) -> dict[str, Any]:
    """Every method at its rate, in the same worlds."""
    rows: list[dict[str, Any]] = []
    worlds: list[dict[str, Any]] = []
    for rate in dict.fromkeys(rates.values()):
        names = [name for name in METHODS if rates[name] == rate]
        found = _compared(names, delays, rate, seconds, FIRST, seeds)
        rows += found.rows
        if worlds and [one["hashes"] for one in worlds] != [one["hashes"] for one in found.worlds]:
            raise RuntimeError("methods of different rates met different worlds")
        worlds = found.worlds
    summary = summarise(rows, worlds, METHODS, BASELINE, TARGET)
    return {name: _figures(rates[name], facts) for name, facts in summary["policies"].items()}


def _figures(rate: float, facts: dict[str, Any]) -> dict[str, Any]:
    ratio = facts["ratio"] or {}
    return {
        "learning rate": rate,
        "at the end of the rates": rate in (RATES[0], RATES[-1]),
        "time to target": facts["time_to_target"],
        "reached": facts["reached"][0],
        **{name: ratio.get(name) for name in ("estimate", "low", "high", "bound")},
        "accuracy at T": facts["test_accuracy"],
        **{name: facts[name] for name in ("gradients_per_second", "staleness", "bytes_per_second")},
        **{name: facts[name] for name in ("computing", "wasted", "waiting")},
    }


def measure(quick: bool) -> dict[str, Any]:
    """By setting and method."""
    seconds, tuning, seeds = (10.0, 1, 2) if quick else (120.0, 3, 10)
    found = {}
    for name, delays in SETTINGS.items():
        rates = best_rates(delays, seconds, tuning)
        found[name] = measured(delays, rates, seconds, seeds)
        print(name, flush=True)
        for spec, facts in found[name].items():
            print("   ", spec, facts, flush=True)
        if quick:
            break
    return found


if __name__ == "__main__":
    from benchmarks.rivals_table import main

    sys.exit(main(sys.argv[1:]))
