"""Measured step times, read from CSV files or taken from an array; what is no time is refused with its place.

Wide: a column a machine, a row a step. Long: `step`, `machine` (or `worker`) and `seconds`, a row for every step and
machine. Several long files are joined, as `dbwjax.measure` leaves one for each process.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax import files, numbers, specs
from dbwjax.network import tables
from dbwjax.network.tables import quoted

SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""How many of each unit are a second."""

FEWEST = 20
"""Steps below which no interval is given."""

_REMEDY = "give a CSV of measured step times"
_LONG = {"step": ("step",), "machine": ("machine", "worker"), "seconds": ("seconds", "time", "duration")}
_NO_MACHINE = {"step", "iteration", "iter", "epoch", "time", "timestamp", "date", "datetime", "index", "id"}
_FOREIGN = re.compile(r".*[_\s(](min|mins|minutes?|h|hrs?|hours?|days?|ps)\)?", re.IGNORECASE)
_GAPS = {"", "na", "n/a", "nan", "null", "none", "-"}


class Times(NamedTuple):
    """What was measured."""

    seconds: np.ndarray  # [rows, N] float64, above 0
    names: tuple[str, ...]  # of the machines
    source: str  # where it is from, for people
    dropped: int = 0  # rows that were left out because a cell of them was empty


def read(paths: str | Sequence[str], unit: str = "auto", drop_gaps: bool = False) -> Times:
    """Measured times from one file, or from several in the long form.

    Args:
      paths: of CSVs.
      unit: `s`, `ms`, `us` or `ns`; `auto`: what the columns' names say (`worker3_ms`), else seconds.
      drop_gaps: leave out steps in which a machine has no time, which are refused otherwise.

    Raises:
      ValueError: one line with file, line and column, the value and the remedy.
    """
    if unit != "auto" and unit not in SECOND:
        raise ValueError(f"unit {quoted(unit)} is not known; {specs.nearest(unit, SECOND)}")
    paths = [paths] if isinstance(paths, str) else list(paths)
    found = [_parsed(path, unit) for path in paths]
    if len(found) > 1:
        for path, one in zip(paths, found, strict=True):
            if one.steps is None:
                raise ValueError(f"{path} has a column a machine, and such files are not joined; give one file")
    joined = found[0] if len(found) == 1 else _joined(paths, found)
    return _checked(joined, " + ".join(map(str, paths)), drop_gaps)


def of_array(seconds: Any, names: Sequence[str] | None = None) -> Times:
    """Measured times from an array `[steps, machines]` of seconds, or a mapping from names to columns.

    Raises:
      ValueError: another shape, a value that is no time, or names that do not fit.
    """
    if hasattr(seconds, "keys"):
        names, seconds = list(seconds), [np.asarray(seconds[name]) for name in seconds]
        if len({column.shape for column in seconds}) > 1:
            raise ValueError("the machines have different numbers of steps; give as many times of each")
        seconds = np.column_stack(seconds)
    try:
        table = np.asarray(seconds, np.float64)
    except (TypeError, ValueError):
        raise ValueError("the times are no numbers; give an array [steps, machines] of seconds") from None
    if table.ndim != 2:
        raise ValueError(f"the times have shape {table.shape}; give an array [steps, machines] of seconds")
    known = [f"machine{i}" for i in range(table.shape[1])] if names is None else [str(name) for name in names]
    if len(known) != table.shape[1]:
        raise ValueError(f"{len(known)} names for {table.shape[1]} machines; give a name for each column")
    return _checked(_Parsed(table, known, None, None), "the array", False)


class _Parsed(NamedTuple):
    """A file's times before they are checked; NaN is a gap."""

    seconds: np.ndarray  # [rows, N]
    names: list[str]
    steps: np.ndarray | None  # [rows], of the long form
    places: Any  # (row, column) -> how an error names that cell; None: an array


def _parsed(path: str, unit: str) -> _Parsed:
    text = files.read_text(path, _REMEDY, files.DATA)
    if "\0" in text:
        raise ValueError(f"{path} has zero bytes in it; save it as UTF-8 text")
    lines = _lines(path, io.StringIO(text, newline=""))
    line, cells = next(lines, (0, []))
    if not cells:
        raise ValueError(f"{path} is empty; write a column a machine and a row a step")
    for place, cell in enumerate(cells):
        for mark, name in ((";", "';'"), ("\t", "tabs")):
            if mark in cell:
                raise ValueError(f"{path}, line {line}, column {place + 1}: separated by {name}; separate by commas")
    if all(tables.is_number(cell) or cell.casefold() in _GAPS for cell in cells):
        header, skip = None, 0
        names = [f"machine{i}" for i in range(len(cells))]
    else:
        header, skip = cells, line
        names = cells
    if header and {cell.casefold() for cell in header} & set(_LONG["machine"]):
        return _long(path, lines, header, line, unit)
    second, names = _wide_names(path, line, names, header is not None, unit)
    return _wide(path, text, skip, names, second)


def _lines(path: str, text: Any) -> Iterator[tuple[int, list[str]]]:
    found = csv.reader(text, strict=True)
    try:
        for cells in found:
            if cells and not (len(cells) == 1 and not cells[0].strip()):
                yield found.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{path}, line {found.line_num}: {error}; write a table separated by commas") from None


def _wide_names(path: str, line: int, cells: list[str], named: bool, unit: str) -> tuple[list[float], list[str]]:
    """How many of each column's units are a second, and the machines' names."""
    if not named:
        return [SECOND.get(unit, 1.0)] * len(cells), cells
    for place, cell in enumerate(cells):
        at = f"{path}, line {line}, column {place + 1}"
        if not cell or tables.is_number(cell):
            raise ValueError(f"{at}: {quoted(cell)} is no machine's name; name every column, or none")
        if cell.casefold() in _NO_MACHINE:
            raise ValueError(
                f"{at}: {quoted(cell)} is no machine's column; take it out, or name three step, machine, seconds"
            )
        foreign = _FOREIGN.fullmatch(cell)
        if foreign and unit == "auto":
            raise ValueError(
                f"{at}: unit {quoted(foreign[1])} is not known; write times in s, ms, us or ns, or say "
                "--unit where it is part of the name"
            )
    split = [tables.split_unit(cell) for cell in cells]
    units = [second for _, second in split]
    if unit == "auto" and len(set(units)) > 1:
        other = next(place for place, second in enumerate(units) if second != units[0])
        raise ValueError(
            f"{path}, line {line}: {quoted(cells[0])} and {quoted(cells[other])} have different units; "
            "write all columns in one, or say --unit"
        )
    whole = None in units
    if unit != "auto" and not whole and set(units) != {SECOND[unit]}:
        raise ValueError(f"{path}, line {line}: {quoted(cells[0])} names another unit than --unit {unit}; keep one")
    names = cells if whole else [name for name, _ in split]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(
                f"{path}, line {line}, column {place + 1}: {quoted(name)} is named twice; name each machine once"
            )
    second = SECOND.get(unit, 1.0) if units[0] is None or whole else units[0]
    return [second] * len(names), names


def _wide(path: str, text: str, skip: int, names: list[str], second: list[float]) -> _Parsed:
    columns = len(names)
    try:
        body = io.StringIO(text)
        for _ in range(skip):
            next(body, None)
        seconds = np.loadtxt(body, delimiter=",", ndmin=2, comments=None, dtype=np.float64)
    except ValueError:  # something that is no number: once more, cell by cell
        seconds = np.array([], np.float64)
    if seconds.ndim != 2 or seconds.shape[1] != columns:
        rows = []
        for line, cells in _lines(path, io.StringIO(text, newline="")):
            if line <= skip:
                continue
            if len(cells) != columns:
                raise ValueError(
                    f"{path}, line {line} has {len(cells)} columns, and there are {columns} machines; "
                    "write every cell of every row"
                )
            rows.append(
                [
                    _number(f"{path}, line {line}, column {place + 1} ({quoted(names[place])})", cell)
                    for place, cell in enumerate(cells)
                ]
            )
        seconds = np.array(rows, np.float64).reshape(-1, columns)

    def places(row: int, column: int) -> str:
        known = (line for line, _ in _lines(path, io.StringIO(text, newline="")) if line > skip)
        line = next(line for place, line in enumerate(known) if place == row)
        return f"{path}, line {line}, column {column + 1} ({quoted(names[column])})"

    return _Parsed(seconds / np.array(second), names, None, places)


def _number(at: str, cell: str) -> float:
    if cell.casefold() in _GAPS:
        return np.nan
    if not tables.is_number(cell):
        raise ValueError(f"{at}: {quoted(cell)} is not a number; write seconds as 0.25 or 2.5e-1")
    return float(cell)


def _long(path: str, lines: Iterator[tuple[int, list[str]]], header: list[str], line: int, unit: str) -> _Parsed:
    at = f"{path}, line {line}"
    for place, cell in enumerate(header):
        foreign = _FOREIGN.fullmatch(cell)
        if foreign and unit == "auto":
            raise ValueError(
                f"{at}, column {place + 1}: unit {quoted(foreign[1])} is not known; {specs.nearest(foreign[1], SECOND)}"
            )
    known = tables.columns(at, header, _LONG, times=("seconds",))
    for role in _LONG:
        if role not in known:
            raise ValueError(f"{at}: there is no column {role}; name three step, machine and seconds, or none machine")
    second = tables.second_of(at, unit, known["seconds"].second)  # type: ignore[arg-type]
    places = [known[role].place for role in _LONG]
    found: dict[tuple[int, str], tuple[float, int]] = {}
    names: dict[str, None] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {line} has {len(cells)} columns, the header has {len(header)}; "
                "write every cell of every row"
            )
        step, name, value = (cells[place] for place in places)
        if not (step.isascii() and step.isdigit() and len(step) < 16):
            raise ValueError(f"{path}, line {line}: {quoted(step)} is not a step; use whole numbers from 0")
        if not name:
            raise ValueError(f"{path}, line {line}: the machine has no name; name every one")
        if (int(step), name) in found:
            raise ValueError(f"{path}, line {line}: step {step} of machine {quoted(name)} is given twice; keep one")
        found[int(step), name] = _number(f"{path}, line {line} ({quoted(name)})", value) / second, line
        names[name] = None
    return _table(path, found, list(names))


def _table(path: str, found: dict[tuple[int, str], tuple[float, int]], names: list[str]) -> _Parsed:
    steps = np.array(sorted({step for step, _ in found}), np.int64)
    row, column = {int(step): i for i, step in enumerate(steps)}, {name: i for i, name in enumerate(names)}
    seconds = np.full((len(steps), len(names)), np.nan)
    for (step, name), (value, _) in found.items():
        seconds[row[step], column[name]] = value

    def places(at: int, whose: int) -> str:
        known = found.get((int(steps[at]), names[whose]))
        return f"{path}, step {steps[at]} of {quoted(names[whose])}" + (f" (line {known[1]})" if known else "")

    return _Parsed(seconds, names, steps, places)


def _joined(paths: Sequence[str], found: Sequence[_Parsed]) -> _Parsed:
    """Files of the long form side by side; steps that all have count, since processes end at different ones."""
    names: list[str] = []
    for path, one in zip(paths, found, strict=True):
        twice = next((name for name in one.names if name in names), None)
        if twice is not None:
            raise ValueError(f"{path}: machine {quoted(twice)} is in another file, too; name each machine once")
        names += one.names
    held = [one.steps for one in found if one.steps is not None]
    first, last = max(steps.min() for steps in held), min(steps.max() for steps in held)
    if first > last:
        raise ValueError(f"{' and '.join(map(str, paths))} have no step in common; measure the machines together")
    steps = np.arange(first, last + 1)
    seconds = np.full((len(steps), len(names)), np.nan)
    at = 0
    for one, own in zip(found, held, strict=True):
        inside = (own >= first) & (own <= last)
        seconds[own[inside] - first, at : at + len(one.names)] = one.seconds[inside]
        at += len(one.names)
    return _Parsed(seconds, names, steps, lambda row, whose: f"step {steps[row]} of {quoted(names[whose])}")


def _checked(found: _Parsed, source: str, drop_gaps: bool) -> Times:
    def at(row: int, column: int) -> str:
        if found.places is None:
            return f"row {row}, column {column}"
        return found.places(row, column)

    seconds = found.seconds
    gaps = np.argwhere(np.isnan(seconds))
    kept = seconds
    if len(gaps):
        if not drop_gaps:
            raise ValueError(
                f"{at(*gaps[0])}: no time ({len(gaps)} such cells); fill them in, or leave their steps "
                "out with --drop-gaps (drop_gaps=True)"
            )
        kept = seconds[~np.isnan(seconds).any(axis=1)]
    with np.errstate(invalid="ignore"):
        wrong = np.argwhere(~((seconds >= numbers.LEAST) & (seconds <= numbers.MOST)) & ~np.isnan(seconds))
    if len(wrong):
        value = float(seconds[tuple(wrong[0])])
        raise ValueError(f"{at(*wrong[0])}: {value:g} is not a step time; a step takes more than 0 seconds")
    rows, machines = kept.shape
    if machines < 2:
        raise ValueError(f"{source} has one machine, and nobody to wait for; give the times of two or more")
    if rows < FEWEST:
        what = "no steps" if rows == 0 else "a single step" if rows == 1 else f"{rows} steps"
        raise ValueError(f"{source} has {what} of every machine; measure at least {FEWEST}, better 300")
    return Times(kept, tuple(found.names), source, len(seconds) - len(kept))
