"""What breaks, from CSV files: who is away when, and when the workers are cut in two; `breakage` makes arrays of it."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dbwjax import limits, specs
from dbwjax.network import tables
from dbwjax.network.absences import Away, Cut, halves
from dbwjax.network.numbering import checked, listed
from dbwjax.network.once import once
from dbwjax.network.tables import Column, Row, Table, quoted, where

PATIENCE = 5.0
"""Seconds until the others know of a crash, unless it is said."""

WORDS = ("leave", "crash", "join", "partition")
"""What may happen."""

_, _CRASH, _JOIN, _PARTITION = range(len(WORDS))

_REMEDY = "give the path of a CSV of events"
_COLUMNS = {"event": ("event",), "worker": ("worker",), "at": ("at",), "until": ("until",), "patience": ("patience",)}
_TIMES = ("at", "until", "patience")
_HEADER = "event,worker,at,until"


class Happenings(NamedTuple):
    """What a file says, in the order of its rows."""

    away: Away  # with the lines of the file
    cuts: Cut


@once
def read_events(workers: int, *, path: str, names: tuple[str, ...] | None = None) -> Happenings:
    """The events of a file.

    A row says what happens (`event`), to whom (`worker`), when (`at`) and until when (`until`; empty: for ever):

    - `leave`: the worker says that it goes, so that the others know at once; it is back at `until`.
    - `crash`: it is gone without a word; the others know after `patience` (a column of its own, or 5 s).
    - `join`: it is there from `at` on, and everybody knows.
    - `partition`: the rows of the same times are one partition, and the workers that they name are cut off from the
      others; a single row without a worker cuts the workers in two halves by number.

    Args:
      workers: N.
      path: of a CSV with a header; a time's unit may end its column's name (`at_ms`).
      names: of the workers, by number, where a graph or a trace names them; `None`: numbers from 0.

    Raises:
      ValueError: a file that is damaged or says nothing, a word or a worker that is not known, times that are no times
        or out of order, a partition without another side. One line with the place and the remedy.
    """
    table = tables.read_csv(path, _REMEDY)
    columns = _columns(table)
    told = _Rows(table, columns)
    if not len(told.lines):
        raise ValueError(f"{path} has no rows of events; write one row an event below {_HEADER}")
    event, worker = told.events(), told.workers(workers, names)
    told.require(worker >= 0, event != _PARTITION, "worker", lambda cell, word: f"{word} of nobody; name a worker")
    at, until, patience = told.times("at"), told.times("until", math.inf), told.times("patience", math.nan)
    join = event == _JOIN
    told.require(until == math.inf, join, "until", lambda cell, word: "join has no end; let the worker leave later")
    told.require(at > 0, join, "at", lambda cell, word: f"{quoted(cell)}: all are there at 0; take the row out")
    told.require(
        at.astype(np.float32) < until.astype(np.float32),
        np.ones(len(at), bool),
        "until",
        lambda cell, word: f"{quoted(cell)} is not after the row's at; write a later time, or none for ever",
    )
    silent = event == _CRASH
    told.require(
        np.isnan(patience), ~silent, "patience", lambda cell, word: f"{word} has no patience; leave the cell empty"
    )
    patience = np.where(silent, np.where(np.isnan(patience), PATIENCE, patience), 0.0)
    cut = event == _PARTITION
    begin, end = np.where(join, 0.0, at), np.where(join, at, until)
    away = Away(*(column[~cut] for column in (worker, begin, end, patience, told.lines)))
    rows = zip(*(column[cut].tolist() for column in (worker, at, until, told.lines)), strict=True)
    return Happenings(away, _cuts(path, rows, workers))


class _Rows:
    """The rows of a file by columns; an error is about the first row that is wrong."""

    def __init__(self, table: Table, columns: dict[str, Column]):
        self.path, self.columns = table.path, columns
        # Texts alone: a million rows that are kept as such take Python's garbage collector longer than all else.
        lines = array("q")
        self.texts: dict[int, list[str]] = {column.place: [] for column in columns.values()}
        kept = [(place, cells.append) for place, cells in self.texts.items()]
        for line, cells in table.rows:
            lines.append(line)
            for place, keep in kept:
                keep(cells[place])
        self.lines = np.array(lines, np.int64)

    def where(self, place: int, column: str) -> str:
        """How an error names a cell; of a column that is not there, its row."""
        found = self.columns.get(column)
        return where(self.path, Row(int(self.lines[place]), []), None if found is None else found.place)

    def require(self, holds: np.ndarray, among: np.ndarray, column: str, fault: Callable[[str, str], str]) -> None:
        """Raises `ValueError` where something does not hold among some rows; `fault` says what of the cell and of the
        row's event."""
        odd = among & ~holds
        if odd.any():
            place = int(np.argmax(odd))
            found = self.columns.get(column)
            cell = "" if found is None else self.texts[found.place][place]
            event = self.texts[self.columns["event"].place][place]
            raise ValueError(f"{self.where(place, column)}: {fault(cell, event)}")

    def events(self) -> np.ndarray:
        """`[K]` places in `WORDS`."""
        texts = self.texts[self.columns["event"].place]
        known = {}
        for word in dict.fromkeys(texts):
            if word.casefold() not in WORDS:
                at = self.where(texts.index(word), "event")
                raise ValueError(f"{at}: {quoted(word)} is no event; {specs.nearest(word, WORDS)}")
            known[word] = WORDS.index(word.casefold())
        return np.fromiter(map(known.__getitem__, texts), np.int64, len(texts))

    def workers(self, workers: int, names: Sequence[str] | None) -> np.ndarray:
        """`[K]` numbers; -1: nobody is named."""
        texts = self.texts[self.columns["worker"].place]
        known = None if names is None else {name: number for number, name in enumerate(names)}
        found = {
            name: _number(name, workers, known, lambda name: self.where(texts.index(name), "worker"))
            for name in dict.fromkeys(texts)
        }
        return np.fromiter(map(found.__getitem__, texts), np.int64, len(texts))

    def times(self, column: str, empty: float | None = None) -> np.ndarray:
        """`[K]` seconds; `empty`: of an empty cell, or of a column that is not there."""
        found = self.columns.get(column)
        if found is None:
            return np.full(len(self.lines), empty)
        texts, second = self.texts[found.place], found.second or 1.0
        there = np.ones(len(texts), bool)
        if empty is not None:
            there = np.fromiter(map(bool, texts), bool, len(texts))
            texts = list(filter(None, texts))
        values = np.full(len(there), math.nan if empty is None else empty)
        try:
            values[there] = tables.times(texts, second)
        except ValueError:  # once more, to say where
            for place in np.flatnonzero(there).tolist():
                tables.time(self.where(place, column), self.texts[found.place][place], second)
            raise
        return values


def _columns(table: Table) -> dict[str, Column]:
    if table.header is None:
        first = next(table.rows, None)
        if first is None:
            raise ValueError(f"{table.path} is empty; write one row an event below {_HEADER}")
        raise ValueError(f"{where(table.path, first)} is no header; begin the file with {_HEADER}")
    at = where(table.path, table.header)
    found = tables.columns(at, table.header.cells, _COLUMNS, _TIMES)
    missing = [name for name in ("event", "worker", "at") if name not in found]
    if missing:
        raise ValueError(f"{at}: no column {quoted(missing[0])}; begin the file with {_HEADER}")
    return found


def _number(name: str, workers: int, known: dict[str, int] | None, where: Callable[[str], str]) -> int:
    """A worker's number; -1: nobody is named."""
    if not name:
        return -1
    if known is not None and name in known:
        return known[name]
    checked(name, where(name))
    if known is not None:
        raise ValueError(f"{where(name)}: {quoted(name)} is no worker of the graph or trace ({listed(list(known))})")
    if not (name.isascii() and name.isdigit() and name == str(int(name[:12])) and int(name) < workers):
        raise ValueError(f"{where(name)}: {quoted(name)} is not one of {workers} workers; use 0 to {workers - 1}")
    return int(name)


def _cuts(path: str, rows: Iterable[tuple[int, float, float, int]], workers: int) -> Cut:
    """The partitions, of rows of (worker, at, until, line): those of the same times are one."""
    found: dict[tuple[float, float], list[tuple[int, int]]] = {}
    for who, at, until, line in rows:
        found.setdefault((at, until), []).append((who, line))
    limits.require_count("partitions", len(found), lambda count: 12.0 * count * workers)
    sides = [_side(path, members, workers) for members in found.values()]
    begin, end = np.array(list(found), np.float64).reshape(-1, 2).T
    return Cut(begin, end, np.array(sides, np.int64).reshape(-1, workers))


def _side(path: str, members: Sequence[tuple[int, int]], workers: int) -> np.ndarray:
    """`[N]`: who is on which side of a partition, of which (worker, line) are named."""
    line = members[0][1]
    if workers == 1:
        raise ValueError(f"{path}, line {line}: a partition of 1 worker has no other side; take it out")
    ordered = sorted(members)
    for (one, first), (other, again) in itertools.pairwise(ordered):
        if one == other:
            raise ValueError(f"{path}, line {again}: line {first} is of the same times and workers; keep one")
    if len(members) > 1 and ordered[0][0] < 0:
        raise ValueError(
            f"{path}, line {ordered[0][1]}: other rows of the same times name workers; name one here, too, or take the "
            "row out"
        )
    if ordered[0][0] < 0:
        return halves(workers)
    if len(members) == workers:
        raise ValueError(f"{path}, line {line}: a partition that names all {workers} workers has no other side")
    side = np.zeros(workers, np.int64)
    side[[who for who, _ in members]] = 1
    return side
