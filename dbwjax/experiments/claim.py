"""Taking a folder for a run or a sweep: at first its configuration is written, later it must be the same."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from dbwjax.experiments.inputs import Inputs, require_same
from dbwjax.files import read_text
from dbwjax.runtime import processes, streams
from dbwjax.storage.run_folder import RunFolder
from dbwjax.storage.shards import SharedFolder

REMEDY = "use --overwrite to start anew, or another --out"


def claim(
    folder: RunFolder | SharedFolder,
    kind: str,
    told: dict[str, Any],
    differences: Callable[[Any], list[str]],
    inputs: Inputs,
    cut: list[int],
    devices: int,
    names: Any,
) -> tuple[str, list[int]]:
    """Writes `config.json`, or makes sure that the one there is of the same run.

    Args:
      folder: the folder.
      kind: "config" or "sweep"; the key of what was told.
      told: the configuration as JSON.
      differences: what it says about a configuration that was kept, one phrase each.
      inputs: what it reads.
      cut: sizes of its blocks, by problem.
      devices: how many it uses.
      names: that files give to workers; `None`: their numbers. They follow from the inputs.

    Returns:
      The identity of the run, and the sizes of blocks that it began with.

    Raises:
      ValueError: the folder is of another configuration, of other inputs, or cannot be understood; or it is that of
        shards, and they began with other versions or on another machine.
      Taken: of a folder of shards: another one has claimed it in between.
    """
    kept, now = folder.read_config(), environment(devices)
    if kept is None:
        content = {kind: told, "names": names, "inputs": inputs, "blocks": cut, "environment": now}
        return folder.write_config(content), cut
    before, run = kept
    if kind not in before:
        raise ValueError(f"{folder.path} holds no {_name(kind)}; {REMEDY}")
    try:
        changed = differences(before[kind])
    except ValueError as error:
        raise ValueError(f"{folder.path}/config.json is {error}; use --overwrite, or another --out") from error
    if changed:
        raise ValueError(f"{folder.path} holds another {_name(kind)} ({'; '.join(changed)}); {REMEDY}")
    require_same(before.get("inputs"), inputs, str(folder.path), REMEDY)
    if before.get("environment") != now and isinstance(folder, SharedFolder):
        others = environment_differences(before.get("environment"), now)
        remedy = "run all shards with the same versions and --devices on machines of one kind, or use another --out"
        raise ValueError(f"{folder.path} was begun with {others} here; {remedy}")
    if before.get("environment") != now:
        streams.note(f"begun with {before.get('environment')}, now {now}: numbers agree to rounding only")
    begun = before.get("blocks")
    if (
        not isinstance(begun, list)
        or len(begun) != len(cut)
        or not all(isinstance(one, int) and one > 0 for one in begun)
    ):
        raise ValueError(f"{folder.path}/config.json is not of this version (blocks: {begun}); {REMEDY}")
    return run, begun


def _name(kind: str) -> str:
    return "run" if kind == "config" else "sweep"


def environment(devices: int) -> dict[str, str]:
    """What bitwise repetition depends on beside the configuration."""
    here = {"device": jax.devices()[0].device_kind, "devices": str(devices), "processes": str(processes.count())}
    return {**versions(), **here, "machine": _machine()}


def environment_differences(kept: Any, now: dict[str, str]) -> str:
    """What two environments disagree on: `jax 0.10.2, and 0.11.0; devices 1, and 2`."""
    before = kept if isinstance(kept, dict) else {}
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    return "; ".join(f"{name} {before.get(name)}, and {now.get(name)}" for name in names)


def _machine() -> str:
    """The processor, for which XLA compiles, and how many threads share a sum."""
    model, features = platform.processor(), ""
    if os.path.exists("/proc/cpuinfo"):
        lines = read_text("/proc/cpuinfo", "").splitlines()
        facts = dict(reversed([line.partition(":")[::2] for line in lines]))  # of the first of them
        told = {name.strip(): value.strip() for name, value in facts.items()}
        model = told.get("model name", model)
        features = told.get("flags", told.get("Features", ""))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{platform.system()} {platform.machine()}, {model} ({kind}), {cores} cores"


def versions() -> dict[str, str]:
    """Of everything that computes."""
    return {
        "dbwjax": version("dbwjax"),
        "jax": jax.__version__,
        "flax": version("flax"),
        "optax": version("optax"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
