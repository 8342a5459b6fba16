"""What all contenders share: a job's file, the rule in NumPy, and how time is taken. Needs NumPy alone.

The rule is D-PSGD (Lian et al. 2017), `x_i' = sum_j W_ij x_j - lr * g_i(x_i)`, on a net of ReLU layers with mean cross
entropy. A job is an `.npz`: the initial parameters (`w0, b0, w1, ...`), images as bytes and labels, which samples each
worker draws in each step (`draws [S, N, B]`), and who hears whom with which weight (`neighbours`, `weights [N, D]`;
unused slots weigh 0 and name the worker itself).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Advance = Callable[[int, int], float]
"""`(first step, how many) -> mean loss over the workers at the last of them, before its update`."""


def make(path: Path, layers: tuple[int, ...], links: tuple[np.ndarray, np.ndarray], batch: int, steps: int) -> None:
    """Writes a job: ten blurred classes of images, so that there is something to learn."""
    rng = np.random.default_rng(0)
    workers, classes, samples = len(links[0]), layers[-1], 6000
    labels = rng.integers(0, classes, samples).astype(np.int32)
    centres = rng.integers(0, 256, (classes, layers[0]))
    images = np.clip(centres[labels] / 2 + rng.normal(0, 60, (samples, layers[0])) + 64, 0, 255).astype(np.uint8)
    arrays: dict[str, Any] = {"images": images, "labels": labels, "neighbours": links[0], "weights": links[1]}
    arrays["draws"] = rng.integers(0, samples, (steps, workers, batch)).astype(np.int32)
    for k, (a, b) in enumerate(itertools.pairwise(layers)):
        arrays[f"w{k}"] = (rng.normal(size=(a, b)) * np.sqrt(1 / a)).astype(np.float32)
        arrays[f"b{k}"] = np.zeros(b, np.float32)
    np.savez(path, **arrays)


def parameters(data: dict) -> list[np.ndarray]:
    """One worker's initial parameters, `[w0, b0, w1, b1, ...]`."""
    return [
        data[f"{kind}{k}"] for k in range(sum(name[0] == "w" and name[1:].isdigit() for name in data)) for kind in "wb"
    ]


def gradient(params: list[np.ndarray], images: np.ndarray, labels: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Mean cross entropy of a batch and its gradient."""
    inputs = [images.astype(np.float32) / np.float32(255)]
    for k in range(0, len(params), 2):
        inputs.append(inputs[-1] @ params[k] + params[k + 1])
        if k + 2 < len(params):
            inputs[-1] = np.maximum(inputs[-1], 0)
    logits = inputs[-1] - inputs[-1].max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    back = np.exp(logs)
    back[rows, labels] -= 1
    back /= len(labels)
    grads: list[np.ndarray] = []
    for k in range(len(params) - 2, -1, -2):
        at = inputs[k // 2]
        grads = [at.T @ back, back.sum(axis=0), *grads]
        if k:
            back = (back @ params[k].T) * (at > 0)
    return float(-logs[rows, labels].mean()), grads


def mixed(stack: list[np.ndarray], neighbours: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """`sum_j W_ij x_j` of leaves `[N, ...]`."""

    def one(leaf: np.ndarray) -> np.ndarray:
        slots = weights.astype(leaf.dtype).reshape(*weights.shape, *(1,) * (leaf.ndim - 1))
        return sum(slots[:, s] * leaf[neighbours[:, s]] for s in range(weights.shape[1]))

    return [one(leaf) for leaf in stack]


def cpu_seconds() -> float:
    """Seconds of all cores that this process and those that descend from it have used."""
    if not Path("/proc/self/stat").exists():
        return sum(os.times()[:4])
    tick, processes = os.sysconf("SC_CLK_TCK"), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        processes[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / tick)
    family, more = set(), {os.getpid()}
    while more:
        family |= more
        more = {number for number, (parent, _) in processes.items() if parent in more} - family
    # This process's own clock is finer than the table's ticks.
    return time.process_time() + sum(processes[number][1] for number in family - {os.getpid()} if number in processes)


def timed(advance: Advance, job: dict[str, Any], workers: int) -> dict[str, float]:
    """The loss after the first steps, which also warm up, and the time of as many calls as fill `job["seconds"]`."""
    steps = job["steps"]
    loss = float(advance(0, steps))
    done, begin, used = 0, time.perf_counter(), cpu_seconds()
    while not done or time.perf_counter() - begin < job["seconds"]:
        done += steps
        advance(done, steps)
    wall, cpu = time.perf_counter() - begin, cpu_seconds() - used
    return {"loss": loss, "worker_steps": done * workers, "wall": wall, "cpu": cpu}


def main(build: Callable[[dict[str, np.ndarray], float], Advance]) -> None:
    """Runs the job named on the command line, `{"data", "rate", "steps", "seconds"}`, and prints its result as JSON."""
    job = json.loads(Path(sys.argv[1]).read_text())
    data = dict(np.load(job["data"]))
    advance = build(data, job["rate"])
    print(json.dumps(timed(advance, job, len(data["neighbours"]))), flush=True)
