"""What a sweep is told: a base configuration and axes, and the worlds that they span.

An axis replaces one value of the base configuration by several. Every combination is a world; every policy runs in
every world, so that policies are compared in pairs.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dbwjax import numbers, specs
from dbwjax.experiments import config as configs
from dbwjax.experiments.config import RunOptions, TrainConfig, fits, to_json
from dbwjax.experiments.problem import World

OWN_AXES = ("policies", "graph", "delays", "world", "learning_rate", "seed", "seeds", "preset", "data_dir")
"""Fields that `--set` leaves to options of their own."""

COMMON = ("seconds", "steps", "rows", "eval_every", "target_accuracy", "until_target", "baseline")
"""Fields that are the same for all of a sweep, or its rows could not be compared."""

TIMED = ("workers", "latency", "events")
"""Fields that a clock alone reads."""

_READERS: dict[Any, Callable[[str], Any]] = {int: lambda text: numbers.whole(text, numbers.INT64), float: numbers.real}


@dataclass(frozen=True)
class SweepConfig:
    """Everything that decides a sweep's numbers; its seeds are those of `base`."""

    base: TrainConfig
    graphs: tuple[str, ...]
    graph_seeds: int | None  # random graphs of each SPEC, the same for all seeds; None: one a seed
    delays: tuple[str, ...]
    learning_rates: tuple[float, ...]
    settings: tuple[tuple[str, tuple[Any, ...]], ...]  # further fields and their values
    timing_only: bool


def worlds(config: SweepConfig) -> list[World]:
    """Every combination, the last axis fastest. A graph without randomness has one graph seed, so that no world is
    counted twice."""
    first = config.base.seed
    nets = [(graph, first + i) for graph in config.graphs for i in range(_graphs_of(config, graph))]
    axes: dict[str, Sequence[Any]] = {
        "graph": nets,
        "delays": config.delays,
        "learning_rate": config.learning_rates,
        **dict(config.settings),
        "seed": range(first, first + config.base.seeds),
    }
    found = []
    for combination in itertools.product(*axes.values()):
        (graph, graph_seed), *rest = combination
        values = {"graph": graph, "graph_seed": graph_seed, **dict(zip(list(axes)[1:], rest, strict=True))}
        if config.graph_seeds is None and is_random(graph):
            values["graph_seed"] = values["seed"]
        fields = {name: value for name, value in values.items() if name != "graph_seed"}
        found.append(World(values, dataclasses.replace(config.base, **fields, seeds=1), values["graph_seed"]))
    return found


def count_of(config: SweepConfig) -> int:
    """How many worlds there are, without making any."""
    each = [len(config.delays), len(config.learning_rates), *(len(values) for _, values in config.settings)]
    return math.prod(each) * config.base.seeds * sum(_graphs_of(config, graph) for graph in config.graphs)


def _graphs_of(config: SweepConfig, graph: str) -> int:
    """How many graphs of a SPEC stand beside one another in one world of all else."""
    return config.graph_seeds or 1 if is_random(graph) else 1


def is_random(graph: str) -> bool:
    """Whether a graph's SPEC draws another graph with another seed."""
    from dbwjax.network.graphs import GRAPHS

    builder = GRAPHS.get(specs.parse(graph)[0])
    return builder is None or "seed" in inspect.signature(builder).parameters


def content(config: SweepConfig) -> dict[str, Any]:
    """The sweep as plain JSON; an infinite bandwidth is null."""
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name != "base"}
    settings = [[name, [None if value == math.inf else value for value in values]] for name, values in config.settings]
    return {"base": to_json(config.base), **fields, "settings": settings}


def validate(config: SweepConfig, options: RunOptions) -> None:
    """Checks all that can be checked without building anything.

    Raises:
      ValueError: one line about the first word that is wrong.
    """
    if config.graph_seeds is not None and config.graph_seeds < 1:
        raise ValueError(f"--graph-seeds {config.graph_seeds} is out of range; use 1 or more")
    configs.validate(config.base, options)
    last = config.base.seed + (config.graph_seeds or 1) - 1
    if last >= 2**32:
        raise ValueError(f"--graph-seeds {config.graph_seeds} ends at seed {last}; use at most 4294967295")
    names = [name for name, _ in config.settings]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--set {name} is given twice; list all its values in one")
    if config.graph_seeds is not None and not any(map(is_random, config.graphs)):
        raise ValueError(f"--graph-seeds {config.graph_seeds} draws nothing: no graph is random; leave it out")
    if config.timing_only:
        unread = [f"--set {name}" for name in names if name not in TIMED]
        unread += ["--learning-rates"] * (len(config.learning_rates) > 1)
        unread += ["--until-target"] * config.base.until_target
        if unread:
            raise ValueError(f"{unread[0]} changes nothing with --timing-only; leave one of them out")
    extent = configs.extent_of(config.base)._replace(worlds=count_of(config))
    configs.require_fit(extent._replace(rows=1) if config.timing_only else extent, config.base, "a sweep of {} worlds")
    for world in worlds(config):
        configs.validate(world.config, options)


def axis(word: str, given: Sequence[Any], field: str) -> tuple[Any, ...]:
    """The values of an axis over a field.

    Raises:
      ValueError: one that is named twice, under whatever spelling.
    """
    values = tuple(given)
    meanings = [_meaning(field, value) for value in values]
    for value, meaning in zip(values, meanings, strict=True):
        if meanings.count(meaning) > 1:
            raise ValueError(f"{word} names {value} twice; name it once")
    return values


def _meaning(field: str, value: Any) -> Any:
    """What a value of a field says, however it is spelled."""
    if not isinstance(value, str):
        return value
    from dbwjax.learners.optimizers import OPTIMIZERS
    from dbwjax.learners.schedules import SCHEDULES
    from dbwjax.network.delays import DELAYS
    from dbwjax.network.graphs import GRAPHS
    from dbwjax.tasks import DATASETS, PARTITIONS
    from dbwjax.tasks.datasets import CONTEXT

    tables: dict[str, Any] = {"graph": GRAPHS, "delays": DELAYS, "dataset": DATASETS, "partition": PARTITIONS}
    tables |= {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
    if field not in tables:
        return value.strip()
    parts = value.split("*") if field in ("delays", "schedule") else [value]
    return tuple(specs.meaning(part, tables[field], (*CONTEXT, "learning_rate")) for part in parts)


def setting(text: str) -> tuple[str, tuple[Any, ...]]:
    """`key=v1,v2` with the type of the field.

    Raises:
      ValueError: no such field, or values of another type.
    """
    key, equals, listed = text.partition("=")
    hints = typing.get_type_hints(TrainConfig)
    known = [name for name in hints if name not in (*OWN_AXES, *COMMON)]
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
        values = tuple(_READERS.get(kinds[0], kinds[0])(part.strip()) for part in parts)
    except ValueError as error:
        what = f"not all are {kinds[0].__name__}s (one {error})"
        raise ValueError(f"--set {key}={listed}: {what}; write key=value,value") from None
    return key, axis(f"--set {key}", values, key)


def from_content(content: dict[str, Any], base: TrainConfig) -> SweepConfig:
    """The inverse of `content`.

    Args:
      content: what `content` returned, through JSON.
      base: what its part `base` says.

    Raises:
      ValueError: fields missing, unknown or of another type.
    """
    names = {one.name for one in dataclasses.fields(SweepConfig)}
    kinds: dict[str, Any] = {"graphs": str, "delays": str, "learning_rates": float}
    odd = sorted(names ^ set(content))
    if odd:
        raise ValueError(f"not a sweep of this version (fields that differ: {', '.join(odd)})")
    values = {name: content[name] for name in names if name != "base"}
    odd = [name for name, kind in kinds.items() if not _is_axis(values[name], kind)]
    odd += [] if fits(values["graph_seeds"], int | None) else ["graph_seeds"]
    odd += [] if isinstance(values["timing_only"], bool) else ["timing_only"]
    if not odd:
        settings, odd = _settings(values["settings"])
    if odd:
        raise ValueError(f"not a sweep of this version (fields of another type: {', '.join(sorted(odd))})")
    axes = {name: tuple(map(kind, values[name])) for name, kind in kinds.items()}
    return SweepConfig(base, **(values | axes | {"settings": settings}))


def _settings(found: Any) -> tuple[tuple[tuple[str, tuple[Any, ...]], ...], list[str]]:
    """The further axes from JSON, and what is wrong with them."""
    hints = typing.get_type_hints(TrainConfig)
    if not isinstance(found, list) or not all(isinstance(one, list) and len(one) == 2 for one in found):
        return (), ["settings"]
    known = [name for name in hints if name not in (*OWN_AXES, *COMMON)]
    read = []
    for name, values in found:
        if name not in known or not isinstance(values, list) or not values:
            return (), ["settings"]
        values = [math.inf if name == "bandwidth" and value is None else value for value in values]
        if not all(fits(value, hints[name]) for value in values):
            return (), ["settings"]
        read.append((name, tuple(values)))
    return tuple(read), []


def _is_axis(found: Any, kind: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(fits(value, kind) for value in found)
