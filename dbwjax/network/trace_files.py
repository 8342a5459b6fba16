"""Traces of measured seconds from CSV files, wide or long; `delays.trace` makes a law of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from dbwjax.network import tables
from dbwjax.network.numbering import checked, listed, number
from dbwjax.network.once import once
from dbwjax.network.tables import Header, Row, Table, Unit, quoted, where

Columns = Literal["match", "order", "first", "first+order"]
"""Which columns are whose: by name; as they stand; the first N of more; both of these."""

_REMEDY = "give the path of a CSV of measured seconds"
_LONG = {"step": ("step",), "worker": ("worker",), "seconds": ("seconds",)}
_NO_WORKER = {
    *(
        "step",
        "worker",
        "seconds",
        "time",
        "timestamp",
        "date",
        "datetime",
        "index",
        "id",
        "iteration",
        "iter",
        "epoch",
    ),
    *("weight", "unnamed: 0", "rank"),
}


class Trace(NamedTuple):
    """What a file of a trace holds."""

    seconds: np.ndarray  # [rows, N] float64
    names: tuple[str, ...] | None  # of the workers, by number; None: the file names none
    in_order: bool  # the SPEC says that columns stand in the order of the workers, whatever their names


@once
def read_trace(
    workers: int, *, path: str, header: Header = "auto", columns: Columns = "match", unit: Unit = "auto"
) -> Trace:
    """A trace of N workers.

    Wide: a column a worker, a row a computation. Long: a header that names `step`, `worker` and `seconds` (with a unit:
    `seconds_ms`), and a row for every step and worker.

    Args:
      workers: N.
      path: of a CSV.
      header: whether the first row is one.
      columns: which are whose.
      unit: of the times.

    Raises:
      ValueError: a cell that is no time, a column that is no worker's, more or fewer columns than workers, a step and
        worker that is missing or given twice, a worker whose times are all zero.
    """
    header, unit = tables.choice("header", header, Header), tables.choice("unit", unit, Unit)
    columns = tables.choice("columns", columns, Columns)
    table = tables.read_csv(path, _REMEDY, header, counts=max(3, workers))
    is_long = table.header is not None and "worker" in (cell.casefold() for cell in table.header.cells)
    names, seconds = (_long if is_long else _wide)(table, workers, columns, unit)
    at = path if table.header is None else where(path, table.header)
    if names is None or "order" in columns:
        places = list(range(workers))
    else:
        numbers = number(names, workers, at)
        if len(numbers) < workers:
            missing = sorted(set(range(workers)) - set(numbers.values()))
            raise ValueError(f"{at}: no times of worker {missing[0]}; {workers} workers need {workers} columns")
        places = sorted(range(workers), key=lambda place: numbers[names[place]])
    idle = np.flatnonzero(seconds.max(axis=0) == 0)
    if len(idle):
        whose = f"column {idle[0] + 1}" if names is None else f"worker {quoted(names[idle[0]])}"
        raise ValueError(f"{path}: every time of {whose} is 0; time must pass")
    seconds = np.ascontiguousarray(seconds[:, places])
    seconds.setflags(write=False)
    return Trace(seconds, None if names is None else tuple(names[place] for place in places), "order" in columns)


def _wide(table: Table, workers: int, columns: Columns, unit: Unit) -> tuple[list[str] | None, np.ndarray]:
    """Names and times of the columns as they stand."""
    names, second = None, [tables.second_of(table.path, unit, None)] * workers
    if table.header is not None:
        _require_columns(table.path, table.header, workers, columns)
        names, second = _workers_of(table.path, table.header, table.header.cells[:workers], unit)
    rows: list[np.ndarray] = []
    for row in table.rows:
        try:
            if not rows:
                _require_columns(table.path, row, workers, columns)
            rows.append(_times(table.path, row, second))
        except ValueError as error:
            raise table.explained(row, error) from None
    if not rows:
        raise ValueError(f"{table.path} has no rows of times; write one row a computation")
    return names, np.array(rows)


def _times(path: str, row: Row, second: list[float]) -> np.ndarray:
    try:
        return np.array([tables.time("", cell, per) for cell, per in zip(row.cells, second, strict=False)])
    except ValueError:  # once more, to say where
        for place, (cell, per) in enumerate(zip(row.cells, second, strict=False)):
            tables.time(where(path, row, place), cell, per)
        raise


def _require_columns(path: str, row: Row, workers: int, columns: Columns) -> None:
    have = len(row.cells)
    if have < workers:
        raise ValueError(f"{where(path, row)} has {have} columns; {workers} workers need {workers}")
    if have > workers and "first" not in columns:
        odd = [cell for cell in row.cells if cell.casefold() in _NO_WORKER]
        told = f", and {listed(odd)} is no worker's" if odd else ""
        raise ValueError(
            f"{where(path, row)} has {have} columns, and there are {workers} workers{told}; take out what is no "
            f"worker's, or add columns=first if the first {workers} are theirs"
        )


def _workers_of(path: str, row: Row, cells: Sequence[str], unit: Unit) -> tuple[list[str], list[float]]:
    """The workers that a header names, and how many of each column's units are a second.

    Endings such as `_ms` are units where all columns have one. Where only some have, `unit=` must say which it is, and
    names are whole.
    """
    for place, cell in enumerate(cells):
        if cell.casefold() in _NO_WORKER:
            raise ValueError(
                f"{where(path, row, place)}: {quoted(cell)} is no worker's column; take it out, or name the columns "
                "step, worker, seconds"
            )
    split = [tables.split_unit(cell) for cell in cells]
    ending = [second is not None for _, second in split]
    if any(ending) and not all(ending) and unit == "auto":
        some, other = cells[ending.index(True)], cells[ending.index(False)]
        raise ValueError(
            f"{where(path, row)}: {quoted(some)} ends in a unit and {quoted(other)} does not; add unit=s, ms, us or ns"
        )
    if all(ending):
        names = [name for name, _ in split]
        second = [tables.second_of(where(path, row, place), unit, per) for place, (_, per) in enumerate(split)]
    else:
        names, second = list(cells), [tables.second_of(path, unit, None)] * len(cells)
    for place, name in enumerate(names):
        checked(name, where(path, row, place))
        if name in names[:place]:
            raise ValueError(f"{where(path, row, place)}: {quoted(name)} is named twice; name each worker once")
    return names, second


def _long(table: Table, workers: int, columns: Columns, unit: Unit) -> tuple[list[str], np.ndarray]:
    """Names in the order in which they appear, and their times."""
    assert table.header is not None
    at = where(table.path, table.header)
    known = tables.columns(at, table.header.cells, _LONG, times=("seconds",))
    for name in _LONG:
        if name not in known:
            raise ValueError(f"{at}: there is no column {name}; name three step, worker and seconds, or none worker")
    second = tables.second_of(at, unit, known["seconds"].second)
    found: dict[tuple[int, str], float] = {}
    for row in table.rows:
        key, value = _measured(table.path, row, [known[name].place for name in _LONG], second)
        if key in found:
            raise ValueError(f"{where(table.path, row)}: step {key[0]} of worker {quoted(key[1])} is given twice")
        found[key] = value
    if not found:
        raise ValueError(f"{table.path} has no rows of times; write one row for every step and worker")
    names = list(dict.fromkeys(name for _, name in found))
    if len(names) < workers:
        raise ValueError(f"{table.path} has times of {len(names)} workers ({listed(names)}); {workers} are needed")
    if len(names) > workers and "first" not in columns:
        raise ValueError(
            f"{table.path} has times of {len(names)} workers ({listed(names)}), and there are {workers}; take out "
            "those of others, or add columns=first"
        )
    names = names[:workers]
    steps = _steps(table.path, sorted({step for step, _ in found}))
    for step in steps:
        for name in names:
            if (step, name) not in found:
                raise ValueError(f"{table.path}: step {step} of worker {quoted(name)} is missing; write every one")
    return names, np.array([[found[step, name] for name in names] for step in steps])


def _measured(path: str, row: Row, places: list[int], second: float) -> tuple[tuple[int, str], float]:
    step, worker, seconds = (row.cells[place] for place in places)
    if not (step.isascii() and step.isdigit() and len(step) < 16):
        raise ValueError(f"{where(path, row, places[0])}: {quoted(step)} is not a step; use whole numbers from 0")
    name = checked(worker, where(path, row, places[1]))
    return (int(step), name), tables.time(where(path, row, places[2]), seconds, second)


def _steps(path: str, steps: list[int]) -> list[int]:
    """The steps, which must be as far apart as the first two."""
    for before, step in itertools.pairwise(steps):
        if step - before != steps[1] - steps[0]:
            gap = steps[1] - steps[0]
            odd = f"step {before + gap} is missing" if step - before > gap else f"step {step} is between others"
            raise ValueError(f"{path}: {odd} (the first steps are {steps[0]} and {steps[1]}); write every step")
    return steps
