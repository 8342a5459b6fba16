"""Which waiting rule, and what to do with late workers: six settings, ten paired worlds each, and the speed-up in N.

The table in `docs/which-rule.md` is made of this part's figures. Ratios are `full`'s virtual time to the target over
the rule's, with their interval, from `dbwjax.report.statistics`; censored worlds make a bound.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dbwjax import build_graph, build_task, compare
from dbwjax.network.delays import build_delays
from dbwjax.report.statistics import summarise
from dbwjax.tasks.datasets import load

WORKERS, SLOW = 10, 5.0
RULES = (
    *(f"dybw:late={late}" for late in ("drop", "carry", "apply")),
    *(f"fastest:k=6,late={late}" for late in ("drop", "carry")),
    *("backup:b=1", "backup:b=1,gap=inf", "dpsgd", "full:barrier=neighbours", "full"),
)
PAIRS = (
    ("dybw:late=carry", "dybw:late=drop"),
    ("fastest:k=6,late=carry", "fastest:k=6,late=drop"),
    ("dybw:late=carry", "fastest:k=6,late=carry"),
)
"""Rules that are compared with one another beside `full`: the second's time over the first's."""

EXPONENTIAL, PARETO = "shifted_exponential:shift=0.5,rate=1", "pareto:alpha=2,scale=0.75"
RANDOM, RING = "erdos_renyi:p=0.4", "ring"
COUNTS, STEPS = (1, 4, 16, 64), {1: 1200, 4: 600, 16: 300, 64: 200}
RATE, TARGET = 0.01, 4e-3


def _task(seed: int, partition: Any = "iid") -> Any:
    return build_task("digits", model="lrm", workers=WORKERS, batch_size=32, partition=partition, seed=seed)


def _one_label(seed: int) -> Any:
    """Worker 0 alone holds the nines, and nothing else; the others share the rest."""
    labels = load("digits").train_labels
    order = np.random.default_rng(seed).permutation(len(labels))
    nines = order[labels[order] == 9]
    return _task(seed, [nines, *np.array_split(order[labels[order] != 9], WORKERS - 1)])


def _first_is_slow(law: Any, key: Any, worker: Any, started: Any) -> Any:
    return law(key, worker, started) * jnp.where(worker == 0, SLOW, 1.0)


def slow_first() -> Any:
    """The exponential law, worker 0 always five times slower."""
    return Partial(_first_is_slow, build_delays(EXPONENTIAL, WORKERS))


def settings() -> dict[str, dict[str, Any]]:
    """By name: task, graph, delays, budget and target of `compare`."""
    skewed = partial(_task, partition="shards:per_worker=2")
    return {
        "IID, random graph, exponential": _setting(_task, RANDOM, EXPONENTIAL, 0.9),
        "IID, ring, Pareto": _setting(_task, RING, PARETO, 0.9),
        "non-IID, random graph, exponential": _setting(skewed, RANDOM, EXPONENTIAL, 0.8),
        "non-IID, ring, Pareto": _setting(skewed, RING, PARETO, 0.8),
        "one slow worker, IID, random graph": _setting(_task, RANDOM, slow_first(), 0.9),
        "the slow worker alone holds a label, random graph": _setting(_one_label, RANDOM, slow_first(), 0.85),
    }


def _setting(task: Any, graph: str, delays: Any, target: float) -> dict[str, Any]:
    return {"task": task, "graph": graph, "delays": delays, "target_accuracy": target}


def measure(quick: bool) -> dict[str, Any]:
    """By setting and rule; by pair of rules and setting; and the slopes."""
    seeds, seconds = (2, 40.0) if quick else (10, 300.0)
    found: dict[str, Any] = {}
    pairs: dict[str, Any] = {f"{rule} over {rival}": {} for rule, rival in PAIRS}
    for name, setting in settings().items():
        comparison = compare(
            list(RULES), **setting, optimizer="sgd", learning_rate=0.1, seconds=seconds, seeds=seeds, workers=WORKERS
        )
        found[name] = {spec: _figures(facts) for spec, facts in comparison.summary["policies"].items()}
        for rule, rival in PAIRS:
            again = summarise(comparison.rows, comparison.worlds, RULES, rival, setting["target_accuracy"])
            pairs[f"{rule} over {rival}"][name] = _figures(again["policies"][rule])
        print(name, flush=True)
        for spec, facts in found[name].items():
            print("   ", spec, facts, flush=True)
    counts = COUNTS[:2] if quick else COUNTS
    found["pairs"] = pairs
    found["speed-up"] = {spec: slopes(spec, counts, 2 if quick else 10) for spec in RULES if spec.startswith("dybw")}
    return found


def _figures(facts: dict[str, Any]) -> dict[str, Any]:
    ratio = facts["ratio"] or {}
    return {
        "time to target": facts["time_to_target"],
        "reached": facts["reached"][0],
        "ratio": ratio.get("estimate"),
        "low": ratio.get("low"),
        "high": ratio.get("high"),
        "bound": ratio.get("bound"),
        "accuracy at T": facts["test_accuracy"],
        "iteration length": facts["iteration_length"],
    }


def slopes(spec: str, counts: tuple[int, ...], seeds: int) -> dict[str, Any]:
    """Slopes of log iterations and log seconds to a fixed suboptimality in log N; linear speed-up is -1.

    Logistic regression on a complete graph, learning rate N times that of one worker, exponential delays; the
    suboptimality is that of the mean model, averaged over worlds row by row (about one row an iteration).
    """
    iterations, seconds = [], []
    for workers in counts:
        steps = STEPS[workers]
        found = compare(
            [spec],
            partial(_logistic, workers),
            build_graph("complete" if workers > 1 else "path", workers),
            EXPONENTIAL,
            learning_rate=RATE * workers,
            steps=steps,
            rows=steps,
            seeds=seeds,
        )
        rows = [row for row in found.rows if row["row"] > 0]
        gap, step, time = (
            np.array([row[name] for row in rows]).reshape(seeds, -1).mean(axis=0)
            for name in ("suboptimality", "step", "virtual_time")
        )
        reached = np.flatnonzero(gap <= TARGET)
        if not reached.size:
            raise RuntimeError(f"{spec}, {workers} workers: suboptimality {gap.min():.2e}, not {TARGET:.1e}")
        iterations.append(float(step[reached[0]]))
        seconds.append(float(time[reached[0]]))
    logs = np.log(counts)
    return {
        "workers": list(counts),
        "iterations": iterations,
        "seconds": seconds,
        "slope of iterations": float(np.polyfit(logs, np.log(iterations), 1)[0]),
        "slope of seconds": float(np.polyfit(logs, np.log(seconds), 1)[0]),
    }


def _logistic(workers: int, seed: int) -> Any:
    """The same samples in every world; batches, delays and parameters differ."""
    del seed
    words = "logistic:dimension=10,samples=1680,regularisation=0.1"
    return build_task(words, workers=workers, batch_size=8, seed=0)


if __name__ == "__main__":
    from benchmarks.rule_table import main

    sys.exit(main(sys.argv[1:]))
