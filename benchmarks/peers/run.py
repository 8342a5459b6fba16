"""The same D-PSGD training by dbwjax and its rivals: worker-steps a second of wall time and of CPU time.

    python -m benchmarks.peers.environment && python -m benchmarks peers

All read the same initial parameters, batches and weights from one file and must reach the same mean loss after the
first steps (to 1e-3); who does not is a failure of the part. Whole processes take turns. CPU seconds are those of all
cores and of all processes that a contender starts. A rival whose environment is not there is left out with a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing
from benchmarks.peers import environment, job
from benchmarks.step import operations
from dbwjax.network import graphs, weights
from dbwjax.types import Graph

RATE, BATCH, AGREE = 0.05, 32, 1e-3
TWO_LAYERS, LRM, DIGITS = (784, 256, 256, 10), (784, 10), (64, 10)
CONTENDERS = {
    "dbwjax": ("ours", None),
    "plain JAX": ("plain_jax", None),
    "PyTorch loop": ("torch_loop", "torch"),
    "PyTorch loop, one thread": ("torch_loop", "torch"),
    "torch.func vmap": ("torch_vmap", "torch"),
    "torch.func vmap, one thread": ("torch_vmap", "torch"),
    "Flower": ("flower", "flower"),
}
"""By name: the module, and the environment it runs in (`None`: this one).
One thread is often PyTorch's best by CPU second."""


class Case(NamedTuple):
    """One job, and who does it."""

    layers: tuple[int, ...]
    graph: str
    workers: int
    contenders: tuple[str, ...]
    steps: int = 4  # in one call; also those after which losses must agree

    @property
    def name(self) -> str:
        """As it stands in the results."""
        return f"{'-'.join(map(str, self.layers))}, {self.graph}, N={self.workers}"


def cases(quick: bool) -> list[Case]:
    """What is measured."""
    here, loops = ("dbwjax", "plain JAX"), ("dbwjax", "plain JAX", "PyTorch loop", "PyTorch loop, one thread")
    if quick:
        return [Case(DIGITS, "ring", 6, here, 8)]
    found = []
    for graph in ("ring", "4-regular"):
        # Flower answers some tens of clients a second, so only the smallest case is within reason.
        found += [
            Case(TWO_LAYERS, graph, n, tuple(CONTENDERS)[: 7 if n == 10 else 6], 2 if n == 256 else 4)
            for n in (10, 64, 256)
        ]
    found += [Case(LRM, "4-regular", n, loops, 20) for n in (64, 256)]
    return found + [Case(DIGITS, "4-regular", n, loops, 50) for n in (64, 256)]


def links(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and their Metropolis weights, `[N, D]` each."""
    slots = weights.metropolis().apply(None, graph, graph.links)
    return np.asarray(graph.neighbours, np.int32), np.asarray(slots, np.float32)


def contend(name: str, file: Path) -> dict[str, Any]:
    """One process of one contender.

    Raises:
      RuntimeError: it failed.
    """
    module, where = CONTENDERS[name]
    interpreter = sys.executable if where is None else environment.python(where)
    quiet = {"RAY_DEDUP_LOGS": "0", "FLWR_TELEMETRY_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    settings = os.environ | quiet | {"PYTHONPATH": str(Path(__file__).parents[2])}
    if name.endswith("one thread"):
        settings |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [str(interpreter), "-m", f"benchmarks.peers.{module}", str(file)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300)
    found = [line for line in done.stdout.splitlines() if line.startswith('{"loss"')]
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"{name}: {said[-1] if said else 'no result'}")
    return json.loads(found[-1])


def measure(quick: bool) -> dict:
    """All cases: rates of each contender, and dbwjax over each rival, wall and CPU."""
    missing = {where: environment.missing(where) for where in environment.ENVIRONMENTS} if not quick else {}
    for where, why in missing.items():
        if why:
            print(f"  {where} is left out: {why}", flush=True)
    figures: dict[str, Any] = {"left out": {where: why for where, why in missing.items() if why}}
    figures["versions of the rivals"] = {
        where: environment.versions(where) for where, why in missing.items() if not why
    }
    product, flops = timing.matrix_product()
    limit = timing.rates(timing.take_turns({"product": product}, 5)["product"], flops)
    figures["limit: matrix product [GFLOP/s]"] = {key: value / 1e9 for key, value in limit.items()}
    jax.clear_caches()
    for case in cases(quick):
        names = [name for name in case.contenders if not missing.get(CONTENDERS[name][1])]
        figures[case.name] = measure_case(case, names, 1 if quick else 2, 0.2 if quick else 1.5, limit["median"])
    return figures


def measure_case(case: Case, names: list[str], rounds: int, seconds: float, limit: float) -> dict:
    """One case. Raises `RuntimeError` if a contender reaches another loss than the first."""
    graph = graphs.ring(case.workers) if case.graph == "ring" else graphs.random_regular(case.workers, degree=4, seed=0)
    taken: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder) / "job.npz", Path(folder) / "job.json"
        job.make(data, case.layers, links(graph), BATCH, case.steps)
        file.write_text(json.dumps({"data": str(data), "rate": RATE, "steps": case.steps, "seconds": seconds}))
        for _ in range(rounds):
            for name in names:
                taken[name].append(contend(name, file))
                loss, ours = taken[name][-1]["loss"], taken[names[0]][0]["loss"]
                if not abs(loss - ours) <= AGREE:
                    raise RuntimeError(f"{case.name}: {name} reaches loss {loss:.5f} and {names[0]} {ours:.5f}")
    rate = {
        clock: {name: [one["worker_steps"] / one[clock] for one in taken[name]] for name in names}
        for clock in ("wall", "cpu")
    }
    work = operations(1, BATCH, case.layers)
    return {
        "loss that all reach": taken[names[0]][0]["loss"],
        **{
            f"worker-steps a {clock} second": {name: timing.spread(values) for name, values in rate[clock].items()}
            for clock in rate
        },
        **{
            f"dbwjax over it, by {clock} second": {
                name: timing.spread([a / b for a, b in zip(rate[clock]["dbwjax"], rate[clock][name], strict=True)])
                for name in names[1:]
            }
            for clock in rate
        },
        "fraction of the matrix product": {
            name: timing.spread([value * work / limit for value in rate["wall"][name]]) for name in names
        },
    }
