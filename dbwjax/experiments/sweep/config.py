"""What a sweep is told: a base configuration and axes, and the simulations that they span.

An axis replaces one value of the base configuration by several. Every combination is a *world*; every policy runs in
every world, so that policies are compared in pairs.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import itertools
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dbwjax import specs
from dbwjax.cli import arguments as words
from dbwjax.experiments import config as configs
from dbwjax.experiments.config import RunOptions, TrainConfig, to_json

OWN_AXES = ("policies", "graph", "delays", "learning_rate", "seed", "preset", "data_dir")
"""Fields that `--set` leaves to options of their own."""

COMMON = ("steps", "eval_every", "target_accuracy")
"""Fields that are the same for all of a sweep, or its rows could not be compared."""

TIMED = ("workers", "latency")
"""Fields that a clock alone reads."""

UNUSED = ("distributed", "coordinator", "processes", "process_id", "patience", "checkpoint_every", "tensorboard")
"""Options of training that a sweep has no use for."""


@dataclass(frozen=True)
class SweepConfig:
    """Everything that decides a sweep's numbers."""

    base: TrainConfig
    graphs: tuple[str, ...]
    graph_seeds: int  # random graphs of each SPEC
    seeds: int
    delays: tuple[str, ...]
    learning_rates: tuple[float, ...]
    settings: tuple[tuple[str, tuple[Any, ...]], ...]  # further fields and their values
    timing_only: bool


class World(typing.NamedTuple):
    """One combination of the axes."""

    values: dict[str, Any]  # by axis, in the order of the columns
    config: TrainConfig
    graph_seed: int


def worlds(config: SweepConfig) -> list[World]:
    """Every combination, the last axis fastest. A graph without randomness has one graph seed, so that no world is
    counted twice."""
    axes: dict[str, Sequence[Any]] = {
        "graph": config.graphs,
        "graph_seed": range(config.base.seed, config.base.seed + config.graph_seeds),
        "delays": config.delays,
        "learning_rate": config.learning_rates,
        **dict(config.settings),
        "seed": range(config.base.seed, config.base.seed + config.seeds),
    }
    found = []
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        if values["graph_seed"] != config.base.seed and not _is_random(values["graph"]):
            continue
        fields = {name: value for name, value in values.items() if name != "graph_seed"}
        found.append(World(values, dataclasses.replace(config.base, **fields), values["graph_seed"]))
    return found


def _is_random(graph: str) -> bool:
    from dbwjax.network.graphs import GRAPHS

    builder = GRAPHS.get(specs.parse(graph)[0])
    return builder is None or "seed" in inspect.signature(builder).parameters


def content(config: SweepConfig) -> dict[str, Any]:
    """The sweep as plain JSON."""
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name != "base"}
    return {"base": to_json(config.base), **fields}


def parse(argv: Sequence[str] | None = None) -> tuple[SweepConfig, RunOptions]:
    """Reads and checks the command line.

    Raises:
      ValueError: one line about the first word that is wrong.
    """
    typed = vars(_parser().parse_args(argv))
    axes = {name: typed.pop(name) for name in ("graphs", "graph_seeds", "seeds", "learning_rates", "settings")}
    delays, timing_only = typed.pop("delays"), typed.pop("timing_only")
    base, options = words.from_typed(typed)
    for name in ("graph_seeds", "seeds"):
        if axes[name] < 1:
            raise ValueError(f"--{name.replace('_', '-')} {axes[name]} is out of range; use 1 or more")
        last = base.seed + axes[name] - 1
        if last >= 2**32:
            raise ValueError(f"--{name.replace('_', '-')} {axes[name]} ends at seed {last}; use at most 4294967295")
    config = SweepConfig(
        base=base,
        graphs=_axis("--graphs", axes["graphs"], base.graph),
        graph_seeds=axes["graph_seeds"],
        seeds=axes["seeds"],
        delays=_axis("--delays", delays, base.delays),
        learning_rates=_axis("--learning-rates", axes["learning_rates"], base.learning_rate),
        settings=tuple(_setting(text) for text in axes["settings"] or ()),
        timing_only=timing_only,
    )
    names = [name for name, _ in config.settings]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--set {name} is given twice; list all its values in one")
    _refuse_what_is_not_read(config, options)
    for world in worlds(config):
        configs.validate(world.config, options)
    return config, options


def _refuse_what_is_not_read(config: SweepConfig, options: RunOptions) -> None:
    for name in UNUSED:
        if getattr(options, name) != getattr(RunOptions(), name):
            raise ValueError(f"--{name.replace('_', '-')} does nothing in a sweep; leave it out")
    if not config.timing_only:
        return
    unread = [f"--set {name}" for name, _ in config.settings if name not in TIMED]
    unread += ["--learning-rates"] * (len(config.learning_rates) > 1)
    if unread:
        raise ValueError(f"{unread[0]} changes nothing with --timing-only; leave one of them out")


def _axis(word: str, given: Sequence[Any] | None, default: Any) -> tuple[Any, ...]:
    values = tuple(given) if given else (default,)
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{word} names {value} twice; name it once")
    return values


def _setting(text: str) -> tuple[str, tuple[Any, ...]]:
    """`key=v1,v2` with the type of the field."""
    key, equals, listed = text.partition("=")
    hints = typing.get_type_hints(TrainConfig)
    known = [name for name in hints if name not in OWN_AXES]
    key = key.strip().replace("-", "_")
    if not equals or not listed:
        raise ValueError(f"--set {text} is not a setting; write key=value,value")
    if key in OWN_AXES:
        raise ValueError(f"--set {key} has an option of its own; see --help")
    if key in COMMON:
        raise ValueError(f"--set {key}: all of a sweep has the same; use --{key.replace('_', '-')}")
    if key not in known:
        raise ValueError(f"--set {key}: unknown key; {specs.nearest(key, known)}")
    kinds = [kind for kind in typing.get_args(hints[key]) or (hints[key],) if kind is not type(None)]
    # A comma inside a SPEC follows its colon; such values are separated by semicolons.
    parts = listed.split(";") if kinds[0] is str and ";" in listed else listed.split(",")
    if kinds[0] is str and ":" in listed and ";" not in listed:
        parts = [listed]
    try:
        values = tuple(kinds[0](part.strip()) for part in parts)
    except ValueError:
        raise ValueError(f"--set {key}={listed}: not all are {kinds[0].__name__}s; write key=value,value") from None
    return key, _axis(f"--set {key}", values, None)


def _parser() -> argparse.ArgumentParser:
    parser = words.parser(
        "python -m dbwjax.sweep", "Runs every combination of the axes under every policy, in batches.", "resolve"
    )
    add = parser.add_argument_group("the axes").add_argument
    add("--graphs", nargs="+", metavar="SPEC", help="who hears whom")
    add("--graph-seeds", type=words.whole, default=1, metavar="K", help="so many random graphs of each SPEC")
    add("--seeds", type=words.whole, default=1, metavar="K", help="of delays, batches, parameters and partitions")
    add("--delays", nargs="+", metavar="SPEC", help="seconds per computation")
    add("--learning-rates", nargs="+", type=words.number, metavar="X", help="for every worker")
    add("--set", dest="settings", action="append", metavar="KEY=V1,V2", help="values of any other option of train")
    add("--timing-only", action="store_true", help="run the clocks alone: no data, no parameters")
    return parser
