"""What a worker's step costs with 64 to 4,096 workers of 4 neighbours: softmax regression on 784 inputs, batch 32.

    python -m benchmarks scaling

cb-Full. The cost would not depend on N if everything scaled linearly; the exponent is that of a power law fitted to the
medians of seconds a step. Memory is the growth of a process's peak resident memory at the largest N, without the data
set, over parameters and optimiser state; two copies (what is mixed and what is written) are the least possible.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import timing
from benchmarks.memory import trained
from benchmarks.step import problem
from benchmarks.worlds import initial_params, make_world
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.runtime.memory import gradient_block

WORKERS = (64, 256, 1024, 4096)
STEPS, BATCH = 2, 32


def setting(workers: int) -> tuple:
    """Policy, learner, world and initial parameters."""
    task = problem(workers, BATCH, "lrm")
    world = make_world(
        task, graphs.random_regular(workers, degree=4, seed=0), delays.build_delays("uniform", workers, 0)
    )
    learner, one = from_optimizer(task.loss, optax.sgd(0.05)), initial_params(task, world)
    batch = jax.eval_shape(task.batches, jax.random.key(0), 0, 0)
    learner = learner._replace(block=gradient_block(workers, learner, one, batch))  # as the command does
    return build_policy("full"), learner, world, one


def engine(workers: int, steps: int) -> Any:
    """A function that runs so many steps more."""
    policy, learner, world, one = setting(workers)
    box = [simulate.init(policy, learner, world, one)]

    def call() -> jax.Array:
        box[0], record = simulate.run(policy, learner, world, box[0], steps)
        return record.loss

    return call


def memory(workers: int) -> dict[str, float]:
    """Bytes of the parameters and of the peak's growth in this process; runs in a process of its own."""
    policy, learner, world, one = setting(workers)
    return {
        "kept": workers * sum(leaf.nbytes for leaf in jax.tree.leaves((one, learner.init(one)))),
        "grown": trained(policy, learner, world, one)[0],
        "data": sum(leaf.nbytes for leaf in jax.tree.leaves(world.batches)),
    }


def measure(quick: bool) -> dict:
    """Seconds by N, the fit, and the memory of the largest."""
    workers = (8, 32) if quick else WORKERS
    # As many worker-steps in each call, so that each N is timed for as long as the others.
    calls = {count: max(STEPS, STEPS * workers[-1] // count) for count in workers}
    work = {f"N={count}": engine(count, steps) for count, steps in calls.items()}
    work["matrix product"], flops = timing.matrix_product()
    work["copy"], copied = timing.copy(64 if quick else 512)
    seconds = timing.take_turns(work, 3 if quick else 7)
    per_step = [float(np.median(seconds[f"N={count}"])) / calls[count] for count in workers]
    exponent = float(np.polyfit(np.log(workers), np.log(per_step), 1)[0])
    operations = 2 * 2.0 * BATCH * 784 * 10
    code = f"import json; from benchmarks import scaling; print(json.dumps(scaling.memory({workers[-1]})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    used = json.loads(done.stdout.splitlines()[-1])
    least, most = f"N={workers[0]}", f"N={workers[-1]}"
    scale = calls[workers[0]] * workers[0] / (calls[workers[-1]] * workers[-1])
    return {
        "limit: matrix product [GFLOP/s]": timing.rates(seconds["matrix product"], flops / 1e9),
        "limit: copy bandwidth [GB/s]": timing.rates(seconds["copy"], copied / 1e9),
        "worker-steps a second": {
            f"N={count}": timing.rates(seconds[f"N={count}"], count * calls[count]) for count in workers
        },
        "fraction of the matrix product": {
            f"N={count}": timing.ratios(
                seconds, f"N={count}", "matrix product", count * calls[count] * operations / flops
            )
            for count in workers
        },
        f"cost of a worker-step at {most} over {least}": timing.ratios(seconds, least, most, scale),
        "exponent of seconds a step in N": exponent,
        "limit: copies of parameters and optimiser state": 2.0,
        f"peak memory at {most}, in multiples of parameters and optimiser state": used["grown"] / used["kept"],
        "parameters and optimiser state [MB]": used["kept"] / 1e6,
        "data [MB]": used["data"] / 1e6,
    }
