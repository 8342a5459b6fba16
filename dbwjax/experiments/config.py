"""What a run is told: a frozen configuration that decides its numbers, and options that do not.

Everything here is checked before anything is traced or written. What the words stand for (a graph, a data set) is
built and checked by `setting.build`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbwjax import specs

# Times and learning rates become float32 on the device: beyond these they would turn into infinity or zero.
_LEAST, _MOST = 1.2e-38, 3.4e38

DTYPES = ("float32", "bfloat16")
"""Types in which parameters may be kept; bfloat16 halves the stack and its checkpoints and rounds at every update and
mixing. The step's peak on a CPU is not smaller: XLA writes float32 stacks down on the way (N = 2,048, lrm: 197 MB
beside the data, in float32 146)."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's numbers. Words are SPECs, see `dbwjax.specs`."""

    preset: str = "quickstart"
    policies: tuple[str, ...] = ("dybw", "full")
    dataset: str = "digits"
    data_dir: str | None = None  # a TFDS folder
    model: str | None = None  # None: the data set's default
    workers: int = 10
    graph: str = "erdos_renyi:p=0.4"
    delays: str = "shifted_exponential:shift=0.5,rate=1"
    partition: str = "iid"
    pca: int | None = None
    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    dtype: str = "float32"  # in which parameters are kept
    target_accuracy: float | None = 0.95
    eval_every: int = 10
    seed: int = 0
    latency: float = 0.0  # seconds of every message
    bandwidth: float = math.inf  # bytes a second of every link


@dataclass(frozen=True)
class RunOptions:
    """What does not change a run's numbers."""

    out: str | None = None  # None: runs/<preset>
    overwrite: bool = False
    tensorboard: bool = False
    checkpoint_every: int = 5  # chunks of at most 100 steps
    progress: bool = True
    compile_cache: str | None = None
    devices: int | None = None  # None: all that are here
    distributed: bool = False
    coordinator: str | None = None  # HOST:PORT
    processes: int | None = None
    process_id: int | None = None
    patience: int = 30  # seconds for a process that does not answer

    def folder(self, preset: str) -> Path:
        """Where the run is kept."""
        return Path(self.out) if self.out is not None else Path("runs") / preset


def validate(config: TrainConfig, options: RunOptions) -> None:
    """Checks all that can be checked without building anything.

    Raises:
      ValueError: one line naming the first value that is out of range, and the remedy.
    """
    for name in ("workers", "steps", "batch_size", "eval_every"):
        _require(getattr(config, name) >= 1, name, getattr(config, name), "1 or more")
    _require(config.pca is None or config.pca >= 1, "pca", config.pca, "1 or more components")
    rates = f"a finite number above 0 ({_LEAST} to {_MOST})"
    _require(_LEAST <= config.learning_rate <= _MOST, "learning_rate", config.learning_rate, rates)
    target = config.target_accuracy
    _require(target is None or 0 < target <= 1, "target_accuracy", target, "more than 0 and at most 1")
    _require(0 <= config.seed < 2**32, "seed", config.seed, "0 to 4294967295")
    _require(0 <= config.latency <= _MOST, "latency", config.latency, f"0 to {_MOST} seconds")
    _require(config.bandwidth > 0, "bandwidth", config.bandwidth, "more than 0 bytes a second")
    _require(options.checkpoint_every >= 1, "checkpoint_every", options.checkpoint_every, "1 or more chunks")
    _require(options.devices is None or options.devices >= 1, "devices", options.devices, "1 or more")
    _require(config.eval_every <= config.steps, "eval_every", config.eval_every, f"at most steps={config.steps}")
    if config.dtype not in DTYPES:
        raise ValueError(f"unknown --dtype '{config.dtype}'; {specs.nearest(config.dtype, DTYPES)}")
    if not config.policies:
        raise ValueError("--policies names nobody; name at least one, as in --policies dybw full")
    meanings = [_meaning(spec) for spec in config.policies]
    for spec, meaning in zip(config.policies, meanings, strict=True):
        if meanings.count(meaning) > 1:
            raise ValueError(f"policy '{spec}' is named twice; name it once")
    places = {"data_dir": config.data_dir, "out": options.out, "compile_cache": options.compile_cache}
    for name, place in places.items():
        if place == "":
            raise ValueError(f"--{name.replace('_', '-')} names no folder; name one, or leave it out")


def _meaning(spec: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """What a SPEC says, however it is spaced and ordered."""
    name, settings = specs.parse(spec)
    return name, frozenset(settings.items())


def to_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON; an infinite bandwidth is null."""
    content = dataclasses.asdict(config)
    return content | {
        "policies": list(config.policies),
        "bandwidth": None if config.bandwidth == math.inf else config.bandwidth,
    }


def from_json(content: Any) -> TrainConfig:
    """The inverse of `to_json`.

    Raises:
      ValueError: not an object, or with fields missing, unknown or of another type.
    """
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    if not isinstance(content, dict) or set(content) != names:
        odd = sorted(names ^ set(content)) if isinstance(content, dict) else []
        raise ValueError(f"not a configuration of this version (fields that differ: {', '.join(odd) or 'all'})")
    policies = tuple(content["policies"]) if isinstance(content["policies"], list) else content["policies"]
    bandwidth = math.inf if content["bandwidth"] is None else content["bandwidth"]
    values = content | {"policies": policies, "bandwidth": bandwidth}
    hints = typing.get_type_hints(TrainConfig)
    odd = sorted(name for name, value in values.items() if not _fits(value, hints[name]))
    if odd:
        raise ValueError(f"not a configuration of this version (fields of another type: {', '.join(odd)})")
    return TrainConfig(**values)


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """What the run folder and this call disagree on, one phrase each. Where the data lie does not count."""
    before, now = to_json(old), to_json(new)
    return [
        f"{name}: {before[name]} in the run folder, {now[name]} now"
        for name in before
        if before[name] != now[name] and name != "data_dir"
    ]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a field's type; a whole number is a float too."""
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(word, str) for word in value)
    kinds = typing.get_args(hint) or (hint,)
    return not isinstance(value, bool) and (isinstance(value, kinds) or (float in kinds and isinstance(value, int)))


def _require(holds: bool, name: str, value: Any, remedy: str) -> None:
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} {value} is out of range; use {remedy}")
