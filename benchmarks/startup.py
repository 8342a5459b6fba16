"""How long until something happens: imports, and from process start to the first finished training step.

    python -m benchmarks.startup

Each figure is the median of whole processes. `cold` compiles everything; `cached` finds the compiled programs in a
folder that an earlier start filled.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing

ROUNDS = 5
FIRST_STEP = """
import sys
from dbwjax.experiments import options, run, setting as settings
from dbwjax.experiments.training import Training
config, options, _ = options.parse(sys.argv[1:])
if options.compile_cache:
    run._cache_programs(options.compile_cache)
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


def main() -> None:
    """Measures in turns and writes the medians down."""
    with tempfile.TemporaryDirectory() as folder:
        cache = str(Path(folder) / "programs")
        work = {
            "import jax": ("import jax",),
            "import dbwjax": ("import dbwjax",),
            "first step, cold": (FIRST_STEP,),
            "first step, cached": (FIRST_STEP, "--compile-cache", cache),
        }
        for command in work.values():
            seconds(*command)
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, command in work.items():
                taken[name].append(seconds(*command))
    figures = {f"{name} [s]": statistics.median(values) for name, values in taken.items()}
    extra = [b - a for a, b in zip(taken["import jax"], taken["import dbwjax"], strict=True)]
    timing.save("startup", figures | {"import dbwjax above import jax [s]": statistics.median(extra)})


if __name__ == "__main__":
    main()
