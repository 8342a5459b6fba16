"""`RUN/timeline.npz`: the order in which workers arrived, by policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from dbwjax.files import as_file_name, refused, replace_file

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


def load_timeline(path: str | Path) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """What `save_timeline` wrote.

    Raises:
      ValueError: the file cannot be read or is not a timeline.
    """
    timelines: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with refused(f"{path} cannot be read", "run the command again"):
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                for key in arrays.files:
                    policy, world, name = key.rsplit("/", 2)
                    timelines.setdefault(unquote(policy), {}).setdefault(world, {})[name] = arrays[key]
        except OSError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            raise ValueError(f"{path} is corrupt; run the command again") from error
    return timelines
