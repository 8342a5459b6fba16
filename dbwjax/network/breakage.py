"""A world that breaks: the table `WORLD` of what `--world` may say, and what a file of events adds to it.

Some of it changes how long computations take, and nobody is told: laws upon the workers' own (`broken`). The rest
happens at given times, to workers and links (`build_events`), whatever the policy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax import limits, numbers, specs
from dbwjax.network import draws, world_laws
from dbwjax.network.absences import Away, Cut, arrays_of, cuts_of, halves
from dbwjax.network.delays import spans_of
from dbwjax.network.event_files import PATIENCE, read_events
from dbwjax.network.world_laws import LONGEST, Factor, Outage
from dbwjax.types import DelayModel, Events


def said(world: Sequence[str], file: str | None) -> list[tuple[str, str]]:
    """What breaks, in words: each SPEC, and the file, with a sentence."""
    found = []
    for spec in world:
        build = WORLD.get(specs.parse(spec)[0])
        found.append((spec, " ".join(((build.__doc__ if build else None) or "").partition("\n\n")[0].split())))
    return found if file is None else [*found, (file, "Who is away when, and partitions, from this file.")]


class Absence(NamedTuple):
    """A worker that is away."""

    worker: int
    at: float  # seconds
    patience: float  # until the others know


class Loss(NamedTuple):
    """Messages that are lost."""

    probability: float


def crash(workers: int, *, worker: int, at: float, patience: float = PATIENCE) -> Absence:
    """A worker is gone for ever from `at` seconds on; the others know `patience` seconds later."""
    if not 0 <= worker < workers:
        raise ValueError(f"worker={worker} is not one of {workers} workers; use 0 to {workers - 1}")
    return Absence(worker, numbers.not_negative("at", at), numbers.not_negative("patience", patience))


def outage(workers: int, *, rate: float, seconds: float) -> Outage:
    """Outages kill a computation at `rate` a second of computing; it is done again after `seconds`. Nobody is told.

    A kill costs the time worked so far and `seconds`, and the computation, of the same draw, is done again until it
    survives. Of c seconds it makes `(exp(rate c) - 1) (1 / rate + seconds)` on average, and is killed `exp(rate c) - 1`
    times; more than 10,000 kills are refused.
    """
    return Outage(numbers.positive("rate", rate), numbers.not_negative("seconds", seconds))


def loss(workers: int, *, probability: float) -> Loss:
    """What a link carries in a step is lost with a probability, independently for links and steps."""
    if not 0 <= probability < 1 or np.float32(probability) == 1:
        remedy = "from 0 on and below 1 (of 1 no message would arrive: cut the workers by partition instead)"
        raise ValueError(f"probability={probability:g} is out of range; use one {remedy}")
    return Loss(_fine("probability", probability))


def partition(workers: int, *, at: float, until: float, groups: int = 2) -> Cut:
    """From `at` to `until` seconds the workers are cut into groups by number: of two, the first half and the rest.

    No message passes between groups, which are as equal as they can be; everybody knows at once.
    """
    numbers.not_negative("at", at)
    if not np.float32(at) < np.float32(until):
        raise ValueError(f"at={at:g}, until={until:g}: it heals before it begins; use an until above at (inf: never)")
    if until < math.inf:
        numbers.require("until", until)
    if workers < 2:
        raise ValueError(f"{workers} worker cannot be cut into groups; leave it out, or use more workers")
    return Cut(np.asarray(at), np.asarray(until), halves(workers, limits.whole("groups", groups, 2, workers)))


def racks(workers: int, *, size: int, probability: float, factor: float, occurrence: int = 0) -> Factor:
    """Racks of `size` consecutive workers; a rack is slow by `factor`, all its members together, with a probability.

    It is drawn for each rack and computation number: the n-th computations of a rack's workers are slow together. The
    last rack is smaller where `size` does not divide the workers. Several such laws multiply and draw independently.
    """
    if not 1 <= size <= workers:
        what = "has no members" if size < 1 else f"is more than the {workers} workers"
        raise ValueError(f"size={size}: a rack {what}; use 1 to {workers}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability:g} is out of range; use 0 to 1")
    return world_laws.slow_racks(
        size, _fine("probability", probability), numbers.positive("factor", factor), occurrence
    )


def spells(workers: int, *, mean: float, factor: float, shape: float = 16.0) -> Factor:
    """Each worker has spells of `mean` computations on average, slower by a level in `[1, factor]` that stays.

    A new spell begins at a computation with probability 1 / mean; its level is log-uniform. Each computation is that
    level longer, and varies by a gamma variable with mean 1 and variance 1 / shape besides.
    """
    if not 1 <= mean <= LONGEST:
        raise ValueError(f"mean={mean:g} is out of range; use 1 to {LONGEST} computations")
    if not 1 <= factor < math.inf:
        raise ValueError(f"factor={factor:g} is out of range; use 1 or more")
    if not 1 <= shape <= 1e6:
        raise ValueError(f"shape={shape:g} is out of range; use 1 to 1000000")
    return world_laws.slow_spells(mean, numbers.require("factor", factor), shape)


WORLD: dict[str, Callable[..., Any]] = {
    "crash": crash,
    "outage": outage,
    "loss": loss,
    "partition": partition,
    "racks": racks,
    "spells": spells,
}

ONCE = ("outage", "loss", "spells")
"""What a world has once at most."""


def parts_of(world: Any, workers: int) -> list[tuple[str, Any]]:
    """What several SPECs name, built: each with its SPEC.

    Args:
      world: SPECs, or one SPEC.
      workers: N.

    Raises:
      ValueError: what is no SPEC, an unknown name or key, a value out of range, or one thing twice.
    """
    if isinstance(world, str) or not isinstance(world, Sequence):
        world = [specs.text_of(world)]
    seen, counted, found = set(), Counter[str](), []
    for spec in world:
        meaning = specs.meaning(spec, WORLD, ("occurrence",))
        name = meaning[0]
        if meaning in seen:
            raise ValueError(f"world '{spec}' is named twice; name it once")
        if name in ONCE and counted[name]:
            raise ValueError(f"world '{spec}': {name} is given twice; keep one")
        found.append((spec, specs.build(spec, WORLD, "world", workers, occurrence=counted[name])))
        seen.add(meaning)
        counted[name] += 1
    return found


def broken(delays: DelayModel, world: Any, workers: int) -> DelayModel:
    """A delay model with what the world adds to it: racks, spells, outages. Without any, the model itself.

    Args:
      delays: the workers' own; each of the machines of `cloned:copies=` has racks, spells and outages of its own.
      world: SPECs.
      workers: N.

    Raises:
      ValueError: as `parts_of`, or laws that make times which float32 does not hold, or that outages never let end.
    """
    parts = parts_of(world, workers)
    factors = [part for _, part in parts if isinstance(part, Factor)]
    kills = next((part for _, part in parts if isinstance(part, Outage)), None)
    try:
        return world_laws.broken(delays, factors, kills, spans_of(delays))
    except ValueError as error:
        said = " ".join(f"'{spec}'" for spec, part in parts if isinstance(part, Factor | Outage))
        raise ValueError(f"world {said}: {error}") from None


def build_events(world: Any, workers: int, file: Any = None, names: Sequence[str] | None = None) -> Events | None:
    """What breaks at given times, of SPECs and a file together; `None`: nothing.

    Args:
      world: SPECs.
      workers: N.
      file: path of a CSV, see `event_files`; `None`: none.
      names: of the workers, by number, where other files name them.

    Returns:
      Arrays of one absence and one partition at least, of which `inf` says never.

    Raises:
      ValueError: as `parts_of` and `read_events`; a worker that is away twice at a time, or a time at which nobody is
        there.
    """
    parts = parts_of(world, workers)
    gone = [(spec, part) for spec, part in parts if isinstance(part, Absence)]
    away = Away(
        np.array([part.worker for _, part in gone], np.int64),
        np.array([part.at for _, part in gone], np.float64),
        np.full(len(gone), np.inf),
        np.array([part.patience for _, part in gone], np.float64),
        -1 - np.arange(len(gone)),
    )
    cuts = cuts_of([part for _, part in parts if isinstance(part, Cut)], workers)
    lost = next((part.probability for _, part in parts if isinstance(part, Loss)), 0.0)
    path = None
    if file is not None:
        path = _path(file)
        found = read_events(workers, path=path, names=None if names is None else tuple(names))
        away = Away(*(np.concatenate(both) for both in zip(away, found.away, strict=True)))
        cuts = Cut(*(np.concatenate(both) for both in zip(cuts, found.cuts, strict=True)))
    if not len(away.worker) and not len(cuts.at) and lost == 0:
        return None
    return arrays_of(away, cuts, lost, workers, lambda line: _where(line, [spec for spec, _ in gone], path))


def _where(line: int, said: Sequence[str], path: str | None) -> str:
    """What an error calls an absence: a line of the file, or a SPEC by a number below 0."""
    return f"{path}, line {line}" if line > 0 else f"world '{said[-1 - line]}'"


def _path(file: Any) -> str:
    import os

    try:
        path = os.fspath(file)
    except TypeError:
        path = None
    if not isinstance(path, str) or not path:
        raise ValueError(f"events={limits.shown(file)} names no file; give the path of a CSV, or leave it out")
    return path


def _fine(name: str, value: float) -> float:
    if 0 < value < draws.finest():
        raise ValueError(f"{name}={value:g} is finer than a draw; use 0, or {draws.finest():.2g} and more")
    return value
