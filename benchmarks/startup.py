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
import sys
from dbwjax.experiments import setting as settings
from dbwjax.cli import arguments
from dbwjax.experiments.training import Training
config, options, _ = arguments.parse(sys.argv[1:])
if arguments.compile_cache:
    settings.cache_programs(arguments.compile_cache)
setting = settings.build(config)
policy = setting.policies[config.policies[0]]
training = Training(policy, setting.learner, setting.world, setting.params, setting.task.evaluate)
training.advance(1)
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
