"""The files that a configuration names, by what they hold: a trace, a graph, events, a data set.

Their hashes stand in `config.json`, so that a run does not go on with another trace behind the same path.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dbwjax import specs
from dbwjax.experiments.config import TrainConfig
from dbwjax.files import SAMPLE, content_of
from dbwjax.runtime import streams
from dbwjax.tasks import datasets, tfds_folder

Inputs = dict[str, dict[str, Any]]
"""By path, as it is typed, or by data set: bytes and a hash."""

_REMEDY = "name a file that can be read"


def inputs(configs: Iterable[TrainConfig], data: bool = True) -> Inputs:
    """What configurations read.

    Args:
      configs: those of all worlds.
      data: whether data sets are read, too.

    Raises:
      ValueError: one cannot be read.
    """
    found = {}
    configs = list(configs)
    words = dict.fromkeys(word for config in configs for word in _specs(config))
    events = [config.events for config in configs if config.events is not None]
    for path in dict.fromkeys([*(path for word in words for path in _paths(word)), *events]):
        # The name is that of no place: an input that is moved is the same.
        found[path] = _told({"": Path(path)}, _REMEDY)
    sets = dict.fromkeys((specs.parse(config.dataset)[0], config.data_dir) for config in configs)
    for name, data_dir in sets if data else ():
        if name in datasets.IMAGES:
            found[name] = _told(tfds_folder.files_of(tfds_folder.find(name, data_dir)), tfds_folder.REMEDY)
    return found


def say_sampled(found: Inputs) -> None:
    """Says which inputs are too large to be hashed as a whole."""
    for name, told in found.items():
        if told["sampled"]:
            part = f"its files' sizes and {SAMPLE} MiB of them"
            streams.note(f"{name} has {told['bytes']:,} bytes; a change is looked for in {part} only")


def require_same(kept: Any, now: Inputs, where: str, remedy: str) -> None:
    """Makes sure that the inputs are those that a run began with.

    Raises:
      ValueError: one holds something else now.
    """
    for name, told in now.items():
        before = kept.get(name) if isinstance(kept, dict) else None
        if before != told:
            was = str(before.get("sha256"))[:12] if isinstance(before, dict) else "none"
            raise ValueError(
                f"{name} has changed since {where} was begun (SHA-256 {was} then, {told['sha256'][:12]} now); "
                f"bring the old content back, {remedy}"
            )


def _specs(config: TrainConfig) -> list[str]:
    """Every SPEC of a configuration."""
    words = (config.graph, *config.delays.split("*"), config.partition, config.schedule, config.optimizer)
    return [config.dataset, *words, *config.policies]


def _paths(spec: str) -> list[str]:
    """The files that a SPEC names."""
    path = specs.parse(spec)[1].get("path")
    return [] if path is None else [path]


def _told(paths: dict[str, Path], remedy: str) -> dict[str, Any]:
    return content_of(paths, remedy)._asdict()
