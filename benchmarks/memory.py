"""Peak memory of training 2nn with N = 256 and sgd, in multiples of the parameters.

    python -m benchmarks memory

Two copies of the stack are needed in principle: what is mixed and what is written. `resident` is the growth of the
process's peak resident memory over what it was before the parameters existed; `compiled` is what the compiler says it
needs. Both are without the data set.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jax
import optax

from benchmarks.step import problem
from benchmarks.worlds import initial_params, make_world
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.simulate import World
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.types import Learner, Policy

WORKERS, BATCH, STEPS = 256, 32, 5


def resident(name: str) -> int:
    """Bytes of memory that this process holds now (`VmRSS`) or has held at most (`VmHWM`).

    Not from `getrusage`, whose peak a process inherits from the one that started it.

    Raises:
      RuntimeError: the system does not tell.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise RuntimeError("memory is read from /proc/self/status, which this system does not have") from None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def start_anew() -> int:
    """Forgets the peak so far, where the system lets us; the bytes held now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def trained(policy: Policy, learner: Learner, world: World, one: Any) -> tuple[int, Any]:
    """A few steps in this process, whose peak should not be higher already.

    Returns:
      Bytes by which the peak has grown since before the parameters existed, and the compiled program.
    """
    jax.block_until_ready(world)
    # Compiled before, so that the compiler's own memory is not counted.
    shape = jax.eval_shape(lambda: simulate.init(policy, learner, world, one))
    compiled = simulate.run.lower(policy, learner, world=world, state=shape, steps=STEPS).compile()
    before = start_anew()
    state = simulate.init(policy, learner, world, one)
    for _ in range(3):
        state, record = compiled(world=world, state=state)
    jax.block_until_ready((state, record))
    return resident("VmHWM") - before, compiled


def measure(quick: bool) -> dict:
    """A few steps, and the peak."""
    workers = 16 if quick else WORKERS
    task = problem(workers, BATCH)
    graph = graphs.random_regular(workers, degree=4, seed=0)
    world = make_world(task, graph, delays.build_delays("shifted_exponential", workers, 0))
    learner, policy = from_optimizer(task.loss, optax.sgd(0.05)), build_policy("full")
    one = initial_params(task, world)
    parameters = workers * sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    grown, compiled = trained(policy, learner, world, one)
    need = compiled.memory_analysis()
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(task.batches))
    total = need.argument_size_in_bytes + need.output_size_in_bytes - need.alias_size_in_bytes + need.temp_size_in_bytes
    return {
        "parameters [MB]": parameters / 1e6,
        "data [MB]": data / 1e6,
        "limit: copies of the parameters": 2.0,
        "compiled, in multiples of the parameters": (total - data) / parameters,
        "resident, in multiples of the parameters": grown / parameters,
    }
