"""Rows, summaries, timelines and networks as a run or a sweep leaves them, made up."""

from __future__ import annotations

import itertools

import networkx
import numpy as np

from dbwjax.report.network import GraphPicture


def interval(logs, bound=None):
    """A ratio's interval as the summary has it: of no more use than to be drawn."""
    logs = np.asarray(logs)
    mean, reach = float(np.mean(logs)), 2.3 * float(np.std(logs, ddof=1)) / len(logs) ** 0.5 if len(logs) > 1 else None
    low, high = (None, None) if reach is None else (float(np.exp(mean - reach)), float(np.exp(mean + reach)))
    found = {"estimate": float(np.exp(mean)), "low": low, "high": high, "bound": bound}
    if bound in ("at least", "none"):
        found["high"] = None
    if bound in ("at most", "none"):
        found["low"] = None
    if bound == "none":
        found["estimate"] = None
    return found | {"worlds": len(logs), "clusters": len(logs)}


def run(
    policies,
    worlds=10,
    accuracy=True,
    target=0.9,
    unreached=None,
    diverged=None,
    nodes=10,
    rows_each=100,
    seconds=100.0,
    workers=True,
    equal_time=True,
    seed=0,
):
    """`(rows, summary, timelines)` of a run; `unreached` and `diverged`: SPEC to how many worlds."""
    rng = np.random.default_rng(seed)
    unreached, diverged = unreached or {}, diverged or {}
    rows, times, facts, timelines = [], {}, {}, {}
    budgets = seconds * (1 + 0.03 * rng.random(worlds))
    luck = rng.normal(0, 0.12, worlds)
    for place, policy in enumerate(policies):
        pace = 4 + 18 * (place + 1) / len(policies)
        times[policy], timelines[policy] = [], {}
        for world in range(worlds):
            budget, lost = budgets[world], world < diverged.get(policy, 0)
            bad = worlds - 1 - world < unreached.get(policy, 0)
            tau = pace * np.exp(luck[world] + rng.normal(0, 0.1))
            length = (0.4 + rng.exponential(0.25 + 0.12 * place, int(budget / (0.65 + 0.12 * place)))).astype(
                np.float32
            )
            timelines[policy][world] = {"length": length, "duration": length}
            errors = []
            for row in range(rows_each + 1):
                time = budget * row / rows_each
                gone = lost and row > rows_each // 2
                error = (0.13 if bad else 0.02) + 0.87 * np.exp(-time / tau) * np.exp(rng.normal(0, 0.05))
                errors.append(error)
                iterations = time / (0.65 + 0.12 * place)
                share = 0.55 + 0.4 * place / len(policies)
                rows.append(
                    {
                        "policy": policy,
                        "world": world,
                        "row": row,
                        "virtual_time": float(time),
                        "step": float(int(iterations)),
                        "drift": 0,
                        "wall_time": 0.01 * row,
                        "train_loss": float(2.4 * error) if row and not gone else None,
                        "test_loss": None if gone else float(2.3 * error),
                        "test_accuracy": None if gone or not accuracy else float(min(1, 1 - error)),
                        "consensus_distance": float(error),
                        "active_fraction": float(share + rng.normal(0, 0.02)) if row else None,
                        "backup_workers": float(4 * (1 - share) + rng.normal(0, 0.1)) if row else None,
                        "gradients": int(iterations * nodes),
                        "computing": 0.6 * nodes * float(time),
                        "wasted": 0.1 * nodes * float(time),
                        "waiting": 0.3 * nodes * float(time),
                        "communicating": 0.0,
                        "staleness": 0.2 if row else None,
                        "bytes_sent": 2600.0 * iterations * nodes,
                        "heard_least": 0.8 if row else None,
                        "spectral_gap": 0.1 if row else None,
                        "iteration_length": 0.65 + 0.12 * place if row else None,
                        "worker_accuracy_min": None,
                        "worker_accuracy_median": None,
                        "diverged": bool(gone),
                    }
                )
            reached = accuracy and not bad and not lost and target is not None
            times[policy].append(float(tau * np.log(0.87 / (1 - target - 0.02))) if reached else None)
    baseline = policies[-1]
    for place, policy in enumerate(policies):
        own = [row for row in rows if row["policy"] == policy]
        facts[policy] = _facts(policy, baseline, own, place / len(policies), times, budgets, worlds, nodes, workers)
        if not (accuracy and target is not None):
            facts[policy] |= {"time_to_target": None, "reached": None, "ratio": None}
        if not equal_time:
            facts[policy] |= {"test_accuracy": None, "test_loss": None, "accuracy_difference": None}
        facts[policy]["diverged"] = diverged.get(policy, 0)
    cell = {
        "values": {},
        "worlds": worlds,
        "distinct": worlds,
        "clusters": worlds,
        "budget": [float(budgets.min()), float(budgets.max())],
        "equal_time": equal_time,
        "resolution": seconds / rows_each,
        "policies": facts,
    }
    summary = {
        "kind": "learning",
        "target_accuracy": target if accuracy else None,
        "baseline": baseline,
        "rule": "made up",
        "cells": [cell],
        "policies": facts,
    }
    return rows, summary, timelines


def _facts(policy, baseline, own, late, times, budgets, worlds, nodes, workers):
    known = [time for time in times[policy] if time is not None]
    mine, theirs = times[policy], times[baseline]
    logs = [
        np.log((budgets[w] if b is None else b) / (budgets[w] if a is None else a))
        for w, (a, b) in enumerate(zip(mine, theirs, strict=True))
    ]
    bound = {(False, False): None, (True, False): "at most", (False, True): "at least", (True, True): "none"}[
        (None in mine, None in theirs)
    ]
    last = [row for row in own if row["row"] == max(r["row"] for r in own)]
    accuracies = [row["test_accuracy"] for row in last if row["test_accuracy"] is not None]
    losses = [row["test_loss"] for row in last if row["test_loss"] is not None]
    mean = float(np.mean(accuracies)) if accuracies else None
    difference = None
    if accuracies and worlds > 1 and policy != baseline:
        difference = {
            "estimate": 0.01,
            "low": 0.004,
            "high": 0.016,
            "bound": None,
            "worlds": worlds,
            "clusters": worlds,
        }
    return {
        "time_to_target": float(np.exp(np.mean(np.log(known)))) if len(known) == worlds else None,
        "reached": [len(known), worlds],
        "ratio": None if policy == baseline else interval(logs, bound),
        "test_accuracy": mean,
        "test_loss": float(np.mean(losses)) if losses else None,
        "accuracy_difference": difference,
        "iterations": last[0]["step"],
        "iteration_length": last[0]["iteration_length"],
        "iteration_ratio": None if policy == baseline else interval(0.3 + np.linspace(-0.1, 0.1, worlds)),
        "gradients_per_second": 9.0,
        "computing": 0.35 + 0.3 * (1 - late),
        "wasted": 0.2 * (1 - late),
        "waiting": 0.65 - 0.5 * (1 - late),
        "communicating": 0.0,
        "staleness": 0.2,
        "bytes_per_second": 26000.0,
        "heard_least": 0.8,
        "spectral_gap": 0.1,
        "drift": 0,
        "active_fraction": 0.6,
        "backup_workers": 1.5,
        "worker_accuracy": [mean - 0.03, mean - 0.004] if workers and mean is not None else None,
        "diverged": 0,
    }


def network(nodes=10, extra=7, path=True, speeds=True, seed=0, name=""):
    """A connected random graph with a spanning path (or tree) and one slow worker."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(nodes).tolist()
    graph = networkx.empty_graph(nodes)
    if path:
        spanning = list(itertools.pairwise(order))
    else:
        spanning = [(order[i], order[(i - 1) // 2]) for i in range(1, nodes)]
    graph.add_edges_from(spanning)
    while graph.number_of_edges() < nodes - 1 + extra:
        i, j = rng.integers(0, nodes, 2).tolist()
        if i != j:
            graph.add_edge(i, j)
    near = [sorted(graph[node]) for node in range(nodes)]
    width = max(map(len, near))
    neighbours = np.array([[node, *row, *[node] * (width - len(row))] for node, row in enumerate(near)])
    seconds = None
    if speeds:
        seconds = 0.9 + 0.3 * rng.random(nodes)
        seconds[0] = 4.5
    return GraphPicture(neighbours, spanning, path, seconds, None, name)


def sweep(axes, policies=("dybw", "backup:b=1", "full"), kind="learning", worlds=10, unreached=(), diverged=(), seed=0):
    """`(summary, rows)` of a sweep; `unreached` and `diverged`: (cell's number, SPEC) to how many worlds."""
    rng = np.random.default_rng(seed)
    names, cells, rows = list(axes), [], []
    unreached, diverged = dict(unreached), dict(diverged)
    for number, combination in enumerate(itertools.product(*axes.values())):
        values, facts = dict(zip(names, combination, strict=True)), {}
        base_gone = unreached.get((number, policies[-1]), 0)
        for place, policy in enumerate(policies):
            gone, lost = unreached.get((number, policy), 0), diverged.get((number, policy), 0)
            speed = 0.6 - 0.25 * place + 0.15 * number
            logs = speed + rng.normal(0, 0.15, worlds)
            own = gone or lost
            bound = {(0, 0): None, (1, 0): "at most", (0, 1): "at least", (1, 1): "none"}[(bool(own), bool(base_gone))]
            seconds = float(60 * np.exp(-np.mean(logs)))
            is_base = policy == policies[-1]
            learning = kind == "learning"
            facts[policy] = {
                "time_to_target": None if own or not learning else seconds,
                "reached": [worlds - gone - lost, worlds] if learning else None,
                "ratio": None if is_base or not learning else interval(logs, bound),
                "iteration_length": seconds / 50,
                "iteration_ratio": None if is_base else interval(logs),
                "diverged": lost,
            }
            for world in range(worlds):
                rows.append({"policy": policy, "world": world, **values, "row": 0, "virtual_time": 0.0, "step": 0.0})
        counts = {"worlds": worlds, "distinct": worlds, "clusters": worlds}
        cells.append({"values": values, **counts, "budget": [100.0, 103.0], "equal_time": True, "policies": facts})
    target = 0.9 if kind == "learning" else None
    return {"kind": kind, "target_accuracy": target, "baseline": policies[-1], "rule": "made up", "cells": cells}, rows
