"""cb-DyBW against its rivals, each at its own best learning rate: two settings, ten paired worlds each.

    python -m benchmarks rivals

One update moves a server by the whole of it and the mean of N workers by 1/N, so that no learning rate is fair to all.
Every method gets the rate of `RATES` at which it is fastest in worlds of their own (`TUNING`), and is then measured in
the ten others. Ratios are cb-DyBW's virtual time to the target over the rival's: above 1 the rival is faster. The
table in `docs/rivals.md` is made of these figures.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbwjax.report.statistics import crossing, summarise

WORKERS, GRAPH, TARGET, BASELINE = 10, "random_regular:degree=4", 0.9, "dybw"
RATES = (0.05, 0.15, 0.5, 1.5, 5.0)
TUNING, FIRST = 1000, 0  # seeds of the worlds that rates are chosen in, and of those that are measured
METHODS = (
    *("full", "full:barrier=neighbours", "backup:b=1", "fastest:k=6", "dpsgd", "dsgd_aau", "matcha", "local_sgd:h=4"),
    *("hop", "prague:group=4", "adpsgd", "randomized_gossip", "acid", "swift", "token", "sgp", "agp"),
    *("server", "server_backup:b=2", "k_batch_sync:k=6", "k_async:k=4", "k_batch_async:k=6", "async_server", "ssp"),
    BASELINE,
)
SETTINGS = {
    "all slow by chance": "shifted_exponential:shift=0.5,rate=1",
    "one of ten always five times slower": "slow_workers:fraction=0.1,factor=5*lognormal:sigma=0.3",
}


def _run(module: str, words: Sequence[str], delays: str, seconds: float, out: Path) -> None:
    """A command of the product, in a process of its own: a process holds the programs of some dozens of methods."""
    told = [
        *("--workers", str(WORKERS), "--graph", GRAPH, "--model", "lrm", "--seconds", f"{seconds:g}", "--rows", "200"),
        *("--target-accuracy", str(TARGET), "--delays", delays, "--no-progress", "--out", str(out)),
    ]
    done = subprocess.run([sys.executable, "-m", module, *told, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def best_rates(delays: str, seconds: float, seeds: int, folder: Path) -> dict[str, float]:
    """The rate at which each method is fastest to the target, or most accurate where none arrives."""
    words = ["--learning-rates", *map(str, RATES), "--seed", str(TUNING), "--seeds", str(seeds), "--policies", *METHODS]
    _run("dbwjax.sweep", words, delays, seconds, folder / "tuning")
    curves: dict[tuple[str, float, str], list[tuple[float, float]]] = {}
    with open(folder / "tuning" / "results.csv") as file:
        for row in csv.DictReader(file):
            at = (row["policy"], float(row["learning_rate"]), row["seed"])
            curves.setdefault(at, []).append((float(row["virtual_time"]), float(row["test_accuracy"] or 0)))
    score: dict[str, dict[float, list[float]]] = {name: {rate: [0.0, 0.0] for rate in RATES} for name in METHODS}
    for (name, rate, _), points in curves.items():
        times, accuracies = zip(*points, strict=True)
        found = crossing(times, accuracies, TARGET)
        # Who does not arrive counts as the budget; accuracy decides between two that do not.
        score[name][rate][0] += seconds if found is None else found.seconds
        score[name][rate][1] -= accuracies[-1]
    return {name: min(tried, key=tried.__getitem__) for name, tried in score.items()}


def measured(delays: str, rates: dict[str, float], seconds: float, seeds: int, folder: Path) -> dict[str, Any]:
    """Every method at its rate, in the same worlds."""
    rows: list[dict[str, Any]] = []
    worlds: list[dict[str, Any]] = []
    for rate in dict.fromkeys(rates.values()):
        out = folder / f"rate-{rate:g}"
        names = [name for name in METHODS if rates[name] == rate]
        words = ["--learning-rate", str(rate), "--seed", str(FIRST), "--seeds", str(seeds), "--policies", *names]
        _run("dbwjax.train", words, delays, seconds, out)
        rows += [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        drawn = json.loads((out / "worlds.json").read_text())
        if worlds not in ([], drawn):
            raise RuntimeError("methods of different rates met different worlds")
        worlds = drawn
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
        with tempfile.TemporaryDirectory() as folder:
            rates = best_rates(delays, seconds, tuning, Path(folder))
            found[name] = measured(delays, rates, seconds, seeds, Path(folder))
        print(name, flush=True)
        for spec, facts in found[name].items():
            print("   ", spec, facts, flush=True)
        if quick:
            break
    return found


if __name__ == "__main__":
    from benchmarks.rivals_table import main

    sys.exit(main(sys.argv[1:]))
