"""Side-by-side timing: the things compared take turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

RESULTS = Path(__file__).parent / "results"


def take_turns(work: dict[str, Callable[[], object]], rounds: int = 9) -> dict[str, list[float]]:
    """Seconds of each function in each round, after one call of each to warm up.

    Args:
      work: functions that return arrays of JAX; the time includes waiting for them.
      rounds: how often each is timed.
    """
    for call in work.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratios(seconds: dict[str, list[float]], name: str, base: str, units: float = 1.0) -> dict[str, float]:
    """`units * base / name` round by round: median, least and greatest."""
    pairs = [units * b / a for a, b in zip(seconds[name], seconds[base], strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def matrix_product(size: int = 2048) -> tuple[Callable[[], jax.Array], float]:
    """The machine's limit for arithmetic: a float32 matrix product, and its floating-point operations."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    return lambda: product(matrix), 2.0 * size**3


def device() -> str:
    """The device in a few words, as a file name part."""
    kind = jax.devices()[0].device_kind if jax.default_backend() != "cpu" else f"cpu-{os.cpu_count()}-cores"
    return kind.lower().replace(" ", "-")


def commit() -> str:
    """The commit that is measured; `+` where the tree has changed since."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], capture_output=True, text=True, cwd=RESULTS.parent
    ).stdout.strip()


def save(part: str, figures: dict) -> None:
    """Writes a part's figures to `results/<device>/<part>.json`, with versions, and prints them."""
    folder = RESULTS / device()
    folder.mkdir(parents=True, exist_ok=True)
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "processor": platform.machine(),
        "commit": commit(),
    }
    text = json.dumps({"device": device(), "versions": versions, "figures": figures}, indent=1)
    (folder / f"{part}.json").write_text(text + "\n")
    print(text)
