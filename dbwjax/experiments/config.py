"""What a run is told: a frozen configuration that decides its numbers, and options that do not.

Everything here is checked before anything is traced or written. What the words stand for (a graph, a data set) is
built and checked by `problem.problems`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbwjax import limits, numbers, specs
from dbwjax.experiments.extent import KEPT_SPANS, Extent, require_extent, rows_of

DTYPES = ("float32", "bfloat16")
"""Types in which parameters may be kept; bfloat16 halves the stack and its checkpoints and rounds at every update and
mixing. The step's peak on a CPU is not smaller: XLA writes float32 stacks down on the way (N = 2,048, lrm: 197 MB
beside the data, in float32 146)."""

WIDE = ("auto", "on", "off")
"""What `--wide` may say. It is part of what decides a run's numbers, because sums in blocks of events are rounded
otherwise; so a run is resumed as it began, and replayed as it was."""


def _option(default: Any, group: str, explained: str, metavar: str | None = None, **more: Any) -> Any:
    """A field with what the command line says about it; `arguments.py` makes the option from it."""
    return field(default=default, metadata={"group": group, "help": explained, "metavar": metavar, **more})


_WHAT, _NET, _LEARNED = "what is compared", "the network", "what is learned"
_FOLDER, _HOSTS = "the run folder", "devices and hosts"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's numbers. Words are SPECs, see `dbwjax.specs`."""

    preset: str = "quickstart"
    policies: tuple[str, ...] = _option(("dybw", "full"), _WHAT, "waiting rules", "SPEC")
    baseline: str | None = _option(None, _WHAT, "what the others are compared with (default: the last policy)", "SPEC")
    seconds: float | None = _option(None, _WHAT, "virtual time of each policy", "T")
    steps: int | None = _option(None, _WHAT, "instead: the time that the baseline needs for so many iterations", "K")
    rows: int = _option(100, _WHAT, "rows of metrics, evenly spaced in virtual time", "R")
    eval_every: int | None = _option(
        None, _WHAT, "instead, with --steps: rows at the ends of the baseline's iterations E, 2E, ...", "E"
    )
    target_accuracy: float | None = _option(0.95, _WHAT, "time to target counts to this test accuracy", "A")
    until_target: bool = _option(False, _WHAT, "stop a policy when all its worlds have reached the target")
    seed: int = _option(0, _WHAT, "of the first world: delays, batches, parameters, partition, random graph", "S")
    seeds: int = _option(10, _WHAT, "worlds: so many seeds from --seed on", "K")
    workers: int = _option(10, _NET, "how many compute", "N")
    graph: str = _option("erdos_renyi:p=0.4", _NET, "who hears whom", "SPEC")
    delays: str = _option(
        "shifted_exponential:shift=0.5,rate=1", _NET, "seconds per computation; factors are joined by *", "SPEC"
    )
    latency: float = _option(0.0, _NET, "of every message", "SECONDS")
    bandwidth: float = _option(math.inf, _NET, "of every link", "BYTES_PER_SECOND")
    world: tuple[str, ...] = _option((), _NET, "what breaks, and spells of slowness (docs/world.md)", "SPEC")
    events: str | None = _option(None, _NET, "a CSV of who is away when, and of partitions", "FILE")
    dataset: str = _option("digits", _LEARNED, "pictures, or a synthetic problem as a SPEC", "NAME")
    data_dir: str | None = _option(
        None, _LEARNED, "a TFDS folder (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)", "DIR"
    )
    model: str | None = _option(None, _LEARNED, "of pictures (default: the data set's own)", "NAME")
    partition: str = _option("iid", _LEARNED, "which samples each worker holds", "SPEC")
    pca: int | None = _option(None, _LEARNED, "learn from so many principal components", "K")
    batch_size: int = _option(32, _LEARNED, "samples of one worker's computation", "B")
    learning_rate: float = _option(0.1, _LEARNED, "the base rate, for every worker", "X")
    schedule: str = _option("constant", _LEARNED, "multiplies the base rate, over a worker's own updates", "SPEC")
    optimizer: str = _option("sgd", _LEARNED, "what each worker does with its gradients", "SPEC")
    dtype: str = _option("float32", _LEARNED, "of parameters: float32, or bfloat16 (sums are float32)", "TYPE")
    wide: str = _option(
        "auto", _LEARNED, "events of an event-driven policy in one wide step: auto (on accelerators), on, off", "WHEN"
    )
    timelines: str = _option(
        "auto", _FOLDER, "computations kept one by one in timeline.npz: auto (the first 10^6), all, off", "WHICH"
    )

    @property
    def puts_together(self) -> bool | None:
        """`wide` as a truth value; `None`: as the machine is."""
        return {"auto": None, "on": True, "off": False}[self.wide]

    @property
    def over(self) -> str:
        """The baseline's SPEC."""
        return self.policies[-1] if self.baseline is None else self.baseline


@dataclass(frozen=True)
class RunOptions:
    """What does not change a run's numbers."""

    out: str | None = _option(
        None, _FOLDER, "default: runs/PRESET; the same command resumes what it finds there", "DIR"
    )
    overwrite: bool = _option(False, _FOLDER, "start anew in an existing run folder")
    figures: str = _option("png", _FOLDER, "png, pdf, svg, joined by commas", "KINDS")
    checkpoint_every: int = _option(
        20, _FOLDER, "chunks (of at most 100 iterations, 3,200 events) between checkpoints", "CHUNKS"
    )
    tensorboard: bool = _option(False, _FOLDER, "write event files (extra: tensorboard)")
    wandb: str | None = _option(
        None, _FOLDER, "log to Weights & Biases (extra: wandb; default project: dbwjax)", "PROJECT", alone="dbwjax"
    )
    progress: bool = _option(True, _FOLDER, "show no progress bar", negated="--no-progress")
    compile_cache: str | None = _option(None, _FOLDER, "keep compiled programs there for later starts", "DIR")
    devices: int | None = _option(None, _HOSTS, "use so many devices (default: all that are here)", "K")
    distributed: bool = _option(False, _HOSTS, "be one of several processes (jax.distributed)")
    coordinator: str | None = _option(
        None, _HOSTS, "of process 0; left out, JAX asks Slurm, Open MPI or the TPU", "HOST:PORT"
    )
    processes: int | None = _option(None, _HOSTS, "how many there are", "P")
    process_id: int | None = _option(None, _HOSTS, "which one this is, from 0", "I")
    debug: bool = _option(False, _HOSTS, "check every mixing matrix; slow")
    patience: int = _option(30, _HOSTS, "to wait for a process that does not answer (default: 30)", "SECONDS")

    def folder(self, preset: str) -> Path:
        """Where the run is kept."""
        return Path(self.out) if self.out is not None else Path("runs") / preset


FIGURE_KINDS = ("png", "pdf", "svg")
"""What `--figures` may name."""


def validate(config: TrainConfig, options: RunOptions) -> None:
    """Checks all that can be checked without building anything.

    Raises:
      ValueError: one line naming the first value that is out of range, and the remedy.
    """
    for name in ("workers", "batch_size", "rows", "seeds"):
        _require_count(name, getattr(config, name), "1 or more")
    _validate_counts(config, options)
    _validate_budget(config)
    _require_count("pca", config.pca, "1 or more components")
    _validate_seeds(config)
    _validate_reals(config)
    _require_count("checkpoint_every", options.checkpoint_every, "1 or more chunks")
    _require_count("devices", options.devices, "1 or more")
    if config.dtype not in DTYPES:
        raise ValueError(f"unknown --dtype '{config.dtype}'; {specs.nearest(config.dtype, DTYPES)}")
    if config.wide not in WIDE:
        raise ValueError(f"unknown --wide '{config.wide}'; {specs.nearest(config.wide, WIDE)}")
    if config.timelines not in KEPT_SPANS:
        raise ValueError(f"unknown --timelines '{config.timelines}'; {specs.nearest(config.timelines, KEPT_SPANS)}")
    kinds = [kind.strip() for kind in options.figures.split(",")]
    for kind in kinds:
        if kind not in FIGURE_KINDS:
            raise ValueError(f"--figures {options.figures}: unknown '{kind}'; {specs.nearest(kind, FIGURE_KINDS)}")
        if kinds.count(kind) > 1:
            raise ValueError(f"--figures {options.figures} names {kind} twice; name it once")
    _validate_policies(config)
    _validate_world(config)
    if options.wandb is not None and (not options.wandb.strip() or set(options.wandb) & set("/\\#?%:")):
        raise ValueError(f"--wandb '{options.wandb}' names no project; use a name without any of / \\ # ? % :")
    places = {"data_dir": config.data_dir, "out": options.out, "compile_cache": options.compile_cache}
    for name, place in places.items():
        if place == "":
            raise ValueError(f"--{name.replace('_', '-')} names no folder; name one, or leave it out")
        if place is not None and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in str(place)):
            raise ValueError(f"--{name.replace('_', '-')} '{place}' is not text; name a folder in UTF-8")


def _validate_counts(config: TrainConfig, options: RunOptions) -> None:
    """Whole numbers are whole and fit 32 bits."""
    for kind, told in ((TrainConfig, config), (RunOptions, options)):
        for name, hint in typing.get_type_hints(kind).items():
            value = getattr(told, name)
            if int in (hint, *typing.get_args(hint)) and value is not None and name != "seed":
                word = f"--{name.replace('_', '-')}"
                if isinstance(value, bool) or not isinstance(value, int):
                    raise ValueError(f"{word} {limits.shown(value)} is not a whole number; use one, as in {word} 1")
                _require(value <= limits.MOST, name, value, f"at most {limits.MOST}")


def extent_of(config: TrainConfig) -> Extent:
    """How large a run would be."""
    rows = rows_of(config.rows, config.steps, config.eval_every)
    return Extent(config.seeds, len(config.policies), config.workers, rows, config.steps or 0)


def require_fit(extent: Extent, config: TrainConfig, worlds: str = "--seeds {}") -> None:
    """Raises `ValueError` where a comparison is too large for the host's memory; `worlds` is what to call so many."""
    rows = "--rows {}" if config.eval_every is None else f"--eval-every {config.eval_every}, {{}} rows,"
    require_extent(extent, {"steps": "--steps {}", "rows": rows, "worlds": worlds})


def _validate_seeds(config: TrainConfig) -> None:
    _require(0 <= config.seed < numbers.SEEDS, "seed", config.seed, f"0 to {numbers.SEEDS - 1}")
    last = config.seed + config.seeds - 1
    _require(last < numbers.SEEDS, "seeds", config.seeds, f"seeds up to {numbers.SEEDS - 1} (this ends at {last})")


def _validate_reals(config: TrainConfig) -> None:
    """What becomes float32 on the device."""
    rate, latency, bandwidth = config.learning_rate, config.latency, config.bandwidth
    rates = f"a finite number above 0 ({numbers.RANGE})"
    _require(rate > 0 and numbers.holds(rate), "learning_rate", rate, rates)
    _require(latency >= 0 and numbers.holds(latency), "latency", latency, f"0 seconds, or {numbers.RANGE}")
    held = bandwidth == math.inf or numbers.holds(bandwidth)
    _require(bandwidth > 0 and held, "bandwidth", bandwidth, f"more than 0 bytes a second ({numbers.RANGE}, or inf)")


def _validate_budget(config: TrainConfig) -> None:
    target, seconds, steps, every = config.target_accuracy, config.seconds, config.steps, config.eval_every
    _require(target is None or 0 < target <= 1, "target_accuracy", target, "more than 0 and at most 1")
    if config.until_target and target is None:
        raise ValueError("--until-target has no target; add --target-accuracy")
    if (seconds is None) == (steps is None):
        both = "are both given" if steps is not None else "are both missing"
        raise ValueError(f"--seconds and --steps {both}; give one budget")
    held = seconds is None or (seconds > 0 and numbers.holds(seconds))
    _require(held, "seconds", seconds, f"a finite time above 0 ({numbers.RANGE})")
    _require_count("steps", steps, "1 or more")
    if every is not None:
        if steps is None:
            raise ValueError("--eval-every counts the baseline's iterations; use --rows with --seconds")
        _require(1 <= every <= steps, "eval_every", every, f"1 to steps={steps}")


def _validate_policies(config: TrainConfig) -> None:
    if not config.policies:
        raise ValueError("--policies names nobody; name at least one, as in --policies dybw full")
    meanings = [_meaning(spec) for spec in config.policies]
    for spec, meaning in zip(config.policies, meanings, strict=True):
        if meanings.count(meaning) > 1:
            raise ValueError(f"policy '{spec}' is named twice; name it once")
    if config.baseline is not None and config.baseline not in config.policies:
        raise ValueError(
            f"--baseline {config.baseline} is not among the policies; {specs.nearest(config.baseline, config.policies)}"
        )


def _validate_world(config: TrainConfig) -> None:
    """What the SPECs mean is checked where they are built."""
    meanings = [_meaning(spec) for spec in config.world]
    for spec, meaning in zip(config.world, meanings, strict=True):
        if meanings.count(meaning) > 1:
            raise ValueError(f"world '{spec}' is named twice; name it once")
    if config.events is not None and not config.events.strip():
        raise ValueError("--events names no file; give the path of a CSV, or leave it out")


def _meaning(spec: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """What a SPEC says, however it is spaced and ordered; `build_policies` knows defaults, too."""
    name, settings = specs.parse(spec)
    return name, frozenset(settings.items())


def to_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON; an infinite bandwidth is null."""
    content = dataclasses.asdict(config)
    return content | {
        "policies": list(config.policies),
        "world": list(config.world),
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
    listed = {name: tuple(content[name]) for name in ("policies", "world") if isinstance(content[name], list)}
    bandwidth = math.inf if content["bandwidth"] is None else content["bandwidth"]
    values = content | listed | {"bandwidth": bandwidth}
    hints = typing.get_type_hints(TrainConfig)
    odd = sorted(name for name, value in values.items() if not fits(value, hints[name]))
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


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a field's type; a whole number is a float too."""
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(word, str) for word in value)
    kinds = typing.get_args(hint) or (hint,)
    if isinstance(value, bool):  # which Python takes for an int
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _require_count(name: str, value: int | None, remedy: str) -> None:
    """A whole number from 1 on that int32 holds, or nothing."""
    _require(value is None or value >= 1, name, value, remedy)
    _require(value is None or value <= numbers.LARGEST, name, value, f"at most {numbers.LARGEST}")


def _require(holds: bool, name: str, value: Any, remedy: str) -> None:
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} {value} is out of range; use {remedy}")
