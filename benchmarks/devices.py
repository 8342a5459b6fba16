"""One D-PSGD training of softmax regression cut over 1, 2 and 8 devices.

    python -m benchmarks devices

On a CPU the devices are virtual and share its cores: the times show what cutting costs, not what it gains. The bytes
are exact: those that the compiled step moves between devices (`hlo.py`), over those of the rows that a device must
have of another, each row once. That is the limit.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from benchmarks import hlo, timing
from benchmarks.scaling import setting

WORKERS, STEPS, DEVICES = 512, 5, (1, 2, 8)


def measure(quick: bool) -> dict:
    """Each number of devices that is there, in turns."""
    from dbwjax.engine.sharding.shard import Devices

    workers, steps = (32, 2) if quick else (WORKERS, STEPS)
    policy, learner, world, one = setting(workers)
    row = sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    work: dict[str, Any] = {}
    moved: dict[str, dict] = {}
    for count in DEVICES:
        if count <= len(jax.devices()):
            name = f"{count} devices"
            devices = Devices(world.graph, jax.devices()[:count])
            placed = devices.replicate(world)
            state = devices.init(policy, learner, world, one)
            text = devices.lower(policy, learner, placed, state, steps).compile().as_text()
            must = crossing(world.graph, devices.order, len(devices.order) // count) * row
            bytes_moved = hlo.moved(text, count)
            moved[name] = {
                "limit: rows that must cross [MB a step]": must / 1e6,
                "moved [MB a step]": sum(bytes_moved.values()) / 1e6,
            }
            if must:
                moved[name]["moved over what must cross"] = sum(bytes_moved.values()) / must
                moved[name]["by kind [MB a step]"] = {kind: value / 1e6 for kind, value in bytes_moved.items()}
            work[name] = _steps(devices, policy, learner, placed, state, steps)
    work["matrix product"], flops = timing.matrix_product()
    seconds = timing.take_turns(work, 3 if quick else 9)
    figures: dict[str, Any] = {"limit: matrix product [GFLOP/s]": timing.rates(seconds["matrix product"], flops / 1e9)}
    for name, bytes_of in moved.items():
        figures[name] = bytes_of | {
            "worker-steps a second": timing.rates(seconds[name], steps * workers),
            "speed over one device's": timing.ratios(seconds, name, "1 devices"),
        }
    return figures


def crossing(graph: Any, order: np.ndarray, height: int) -> int:
    """Rows that some device needs of another, each once for each device that needs it; counted from the graph.

    Args:
      graph: who hears whom.
      order: worker of each row of the stack; of a worker that padding repeats, the first row is its own.
      height: rows of each device.
    """
    home = np.empty(graph.neighbours.shape[0], int)
    home[order[::-1]] = np.arange(len(order))[::-1] // height
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    needed = {
        (int(home[i]), int(j))
        for i, slot in zip(*np.nonzero(links), strict=True)
        if home[j := sources[i, slot]] != home[i]
    }
    return len(needed)


def _steps(devices: Any, policy: Any, learner: Any, world: Any, state: Any, steps: int) -> Any:
    box = [state]

    def call() -> jax.Array:
        box[0], record = devices.run(policy, learner, world, box[0], steps)
        return record.loss

    return call
