"""How long until something happens: imports, and from process start to the first finished training step.

    python -m benchmarks startup

Each figure is of whole processes. The limit is the import of JAX, which nothing here can avoid. `cold` compiles
everything; `cached` finds the compiled programs in a folder that an earlier start filled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing

ROUNDS = 5
FIRST_STEP = """
import dataclasses, sys
import numpy as np
from dbwjax.cli import arguments
from dbwjax.experiments import blocks, problem
from dbwjax.experiments.training import Training
from dbwjax.runtime.devices import cache_programs, choose
config, options, _ = arguments.parse(sys.argv[1:])
if options.compile_cache:
    cache_programs(options.compile_cache)
(found,) = problem.problems(problem.of_seeds(dataclasses.replace(config, seeds=1)))
(block,) = blocks.blocks(config.policies[:1], [found], [1])
place = blocks.Places(found, choose(1), False, 1).place(block)
training = Training(place, [np.array([0.0, config.seconds])], found.roles(block.spec))
training.chunk = 1
training.advance()
"""


def seconds(code: str, *words: str) -> float:
    """Wall seconds of a fresh process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    return time.perf_counter() - begin


def measure(quick: bool) -> dict:
    """The four starts in turns; quick: the imports only."""
    with tempfile.TemporaryDirectory() as folder:
        cache = str(Path(folder) / "programs")
        work = {"import jax": ("import jax",), "import dbwjax": ("import jax, dbwjax",)}
        if not quick:
            work["first step, cold"] = (FIRST_STEP,)
            work["first step, cached"] = (FIRST_STEP, "--compile-cache", cache)
        for command in work.values():
            seconds(*command)
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(2 if quick else ROUNDS):
            for name, command in work.items():
                taken[name].append(seconds(*command))
    limit = {"limit: import jax [s]": timing.spread(taken.pop("import jax"))}
    return limit | {f"{name} [s]": timing.spread(values) for name, values in taken.items()}
