"""`RUN/timeline.npz`: the order in which workers arrived, by policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from dbwjax.files import DATA, as_file_name, read_arrays, replace_file

Timelines = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""By policy and world: `duration` [T] float32 s, `active` [T, N] bool, `backup_workers` [T] float32, and `length` [n]
float32 s, of the iterations that ended by the budget."""


def save_timeline(path: str | Path, timelines: Timelines) -> None:
    """Writes `timeline.npz`: arrays `POLICY/WORLD/duration` and so on, with POLICY as in `as_file_name`; no pickle."""
    arrays: dict[str, Any] = {
        f"{as_file_name(policy)}/{world}/{name}": array
        for policy, worlds in timelines.items()
        for world, by in worlds.items()
        for name, array in by.items()
    }
    replace_file(Path(path), lambda file: np.savez_compressed(file, **arrays))


def load_timeline(path: str | Path, most: int = DATA) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """What `save_timeline` wrote.

    Args:
      path: the file.
      most: bytes of all arrays together.

    Raises:
      ValueError: the file cannot be read, is not a timeline, or is larger.
    """
    remedy = "run the command again"
    timelines: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for key, array in read_arrays(path, remedy, most, Path(path).parent).items():
        parts = key.rsplit("/", 2)
        if len(parts) < 3:
            raise ValueError(f"{path} is no timeline (it has an array '{key}'); {remedy}")
        policy, world, name = parts
        timelines.setdefault(unquote(policy), {}).setdefault(world, {})[name] = array
    return timelines
