"""What must be bitwise the same in two run folders."""

from __future__ import annotations

import warnings
from pathlib import Path

import jax
import numpy as np

from dbwjax.storage.checkpoint import _orbax
from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.timelines import load_timeline


def rows(run: Path) -> list[dict]:
    """The metrics without what a clock on the wall says."""
    return [{**row, "wall_time": None} for row in read_metrics(run / "metrics.jsonl")]


def arrays(run: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint: parameters, optimiser states, clock, histories."""
    newest = max((int(path.name), path) for path in (run / "checkpoint").iterdir() if path.name.isdecimal())[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Orbax prefers to be told shardings; here is one device
        found = _orbax().load(newest / "state")
    return {
        name: np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for name, leaf in found.items()
    }


def assert_same(first: Path, second: Path) -> None:
    """Metrics, timelines, worlds and final states agree to the last bit, wall times aside."""
    assert rows(first) == rows(second)
    one, other = arrays(first), arrays(second)
    assert one.keys() == other.keys()
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name], err_msg=name)
    timelines = [load_timeline(run / "timeline.npz") for run in (first, second)]
    assert timelines[0].keys() == timelines[1].keys()
    for policy, by in timelines[0].items():
        assert by.keys() == timelines[1][policy].keys()
        for world, arrays_of in by.items():
            for name, array in arrays_of.items():
                np.testing.assert_array_equal(array, timelines[1][policy][world][name], err_msg=f"{policy} {world}")
    assert [(run / "worlds.json").read_bytes() for run in (first,)] == [(second / "worlds.json").read_bytes()]
