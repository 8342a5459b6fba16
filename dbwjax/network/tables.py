"""Tables of text, for traces and graphs alike: rows, the header, names of columns, numbers and their units.

A header is a first row in which every cell is non-empty, begins with a letter or `_`, and is none of the words for a
missing or infinite number. Any other row is data, and a cell of it that is not what it should be is an error with its
line and column.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from dbwjax import files, numbers

Header = Literal["auto", "yes", "no"]
"""Whether the first row is a header; `auto`: it is where it reads like one."""

Unit = Literal["auto", "s", "ms", "us", "ns"]
"""Of a file's times; `auto`: what their columns' names say, seconds where they say nothing."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch
_NO_VALUES = {"na", "n/a", "nan", "inf", "infinity", "null", "none"}
_A_SECOND: dict[str, float] = {
    **dict.fromkeys(("s", "sec", "secs", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e3),
    **dict.fromkeys(("us", "μs", "usec", "micros", "microseconds"), 1e6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanoseconds"), 1e9),
}
_WITH_UNIT = re.compile(rf"(.*[^_\s])(?:_({'|'.join(_A_SECOND)})|\s*(?:\(({'|'.join(_A_SECOND)})\)))", re.IGNORECASE)
_SEPARATORS = {";": "';'", "\t": "tabs"}


class Row(NamedTuple):
    """A row of a table."""

    line: int  # from 1; of several, the last
    cells: list[str]


class Table(NamedTuple):
    """A file of rows."""

    path: str
    header: Row | None
    rows: Iterator[Row]  # read once; all have as many cells as the first one, or an error says which has not
    hint: str = ""  # to an error about the first row: what a header would have
    first: int = 0  # its line

    def explained(self, row: Row, error: ValueError) -> ValueError:
        """An error about a row, with what makes a header where that may have been meant."""
        return ValueError(f"{error}{self.hint}") if row.line == self.first else error


class Column(NamedTuple):
    """A column, or an attribute, that is known by name."""

    place: int  # from 0
    second: float | None = None  # how many of its units are a second; None: its name says no unit


def read_text(path: str, remedy: str, most: int = files.TEXT) -> str:
    """A file's text.

    Raises:
      ValueError: as `files.read_text`, or a file that is not one of text.
    """
    text = files.read_text(path, remedy, most)
    if "\0" in text:
        raise ValueError(f"{path} has zero bytes in it, as UTF-16 and binary files have; save it as UTF-8 text")
    return text


def read_csv(path: str, remedy: str, header: Header = "auto", counts: int = 0) -> Table:
    """A file of values separated by commas; blank lines are left out.

    Args:
      path: the file.
      remedy: ends the line of an error about a file that cannot be had.
      header: whether the first row is one.
      counts: a first row 0, 1, ... or 1, 2, ... of so many cells or more may be either, and is refused (0: never).

    Raises:
      ValueError: a file that cannot be read, a header that may be data; while rows are read, one of another length.
    """
    return _table(path, _csv_rows(path, read_text(path, remedy)), header, counts)


def read_spaced(path: str, remedy: str, header: Header = "auto") -> Table:
    """The same of values separated by spaces; what follows a `#` is left out, and `{...}` is one cell, the last.

    Raises:
      ValueError: as `read_csv`.
    """
    return _table(path, _spaced_rows(read_text(path, remedy)), header, 0)


def where(path: str, row: Row, place: int | None = None) -> str:
    """How an error names a row, or the cell at a place from 0."""
    return f"{path}, line {row.line}" + ("" if place is None else f", column {place + 1}")


def quoted(text: str, most: int = 60) -> str:
    """A cell as an error shows it: in quotes, clipped, on one line."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) + "'"


def choice(name: str, value: Any, choices: Any) -> Any:
    """A setting that is one of a `Literal`'s words; True and False are words, too.

    Raises:
      ValueError: it is not.
    """
    word = str(value).lower() if isinstance(value, bool) else value
    if word not in get_args(choices):
        raise ValueError(f"{name}={value} is not a choice; use {', '.join(get_args(choices))}")
    return word


def is_number(cell: str) -> bool:
    """Whether a cell reads as `[+-]digits[.digits][e[+-]digits]`, in ASCII."""
    return _NUMBER(cell) is not None


def is_no_value(cell: str) -> bool:
    """Whether a cell is a word for a missing or infinite number."""
    return cell.casefold() in _NO_VALUES


def time(at: str, cell: str, second: float = 1.0) -> float:
    """Seconds from a cell; `at` says where it is, `second` how many of its units are a second.

    Raises:
      ValueError: not a number, negative, or not 0 and beyond float32.
    """
    value = float(cell) / second if _NUMBER(cell) else -1.0
    if value == 0 and cell.strip("+-0.") and re.search("[1-9]", re.split("[eE]", cell)[0]):
        value = numbers.LEAST / 2  # too small even for float64
    if numbers.LEAST <= value <= numbers.MOST or value == 0:
        return abs(value)
    _refuse_separators(at, cell)
    if value < 0:
        raise ValueError(f"{at}: {quoted(cell)} is not a time; use 0 or more seconds")
    raise ValueError(f"{at}: {quoted(cell)} is out of range; use 0, or {numbers.LEAST:g} to {numbers.MOST:g} seconds")


def times(cells: Sequence[str], second: float = 1.0) -> np.ndarray:
    """Seconds of many cells, as `time` would read each; an error does not say where.

    Raises:
      ValueError: one is no time.
    """
    if not all(map(_NUMBER, cells)):
        raise ValueError("not all are numbers")
    values = np.fromiter(map(float, cells), np.float64, len(cells)) / second
    zero = values == 0
    for place in np.flatnonzero(zero).tolist():
        time("", cells[place], second)
    if not (zero | ((values >= numbers.LEAST) & (values <= numbers.MOST))).all():
        raise ValueError("not all are in range")
    return np.abs(values)


def bandwidth(at: str, cell: str) -> float:
    """Bytes a second from a cell.

    Raises:
      ValueError: not a number, not above 0, or beyond float32.
    """
    value = float(cell) if _NUMBER(cell) else -1.0
    if numbers.LEAST <= value <= numbers.MOST:
        return value
    _refuse_separators(at, cell)
    raise ValueError(
        f"{at}: {quoted(cell)} is not a bandwidth; use {numbers.LEAST:g} to {numbers.MOST:g} bytes a second"
    )


def columns(
    at: str, names: Sequence[str], known: Mapping[str, Sequence[str]], times: Collection[str] = (), kind: str = "column"
) -> dict[str, Column]:
    """Which column is which, by name; case does not matter.

    Args:
      at: where the names stand, for errors.
      names: of the columns.
      known: the names that each may have.
      times: those whose name may end in a unit.
      kind: what an error calls a column.

    Raises:
      ValueError: one that is not known, or two of the same.
    """
    found: dict[str, Column] = {}
    for place, name in enumerate(names):
        base, second = split_unit(name)
        word, of_time = base.strip().casefold(), name.strip().casefold()
        which = next((role for role, words in known.items() if of_time in words), None)
        if which is not None:
            second = None
        else:
            which = next((role for role in times if second is not None and word in known[role]), None)
        if which is None:
            _refuse_separators(at, name)
            every = ", ".join("/".join(words) for words in known.values())
            raise ValueError(f"{at}: {kind} {quoted(name)} is not known; take it out, or name it one of {every}")
        if which in found:
            raise ValueError(
                f"{at}: {kind}s {quoted(names[found[which].place])} and {quoted(name)} are the same; keep one"
            )
        found[which] = Column(place, second)
    return found


def split_unit(name: str) -> tuple[str, float | None]:
    """A name without its unit, and how many of it are a second.

    >>> split_unit("latency_ms"), split_unit("worker3 (us)"), split_unit("latency")
    (('latency', 1000.0), ('worker3', 1000000.0), ('latency', None))
    """
    found = _WITH_UNIT.fullmatch(name)
    if found is None:
        return name, None
    return found[1], _A_SECOND[(found[2] or found[3]).casefold()]


def second_of(at: str, unit: Unit, named: float | None) -> float:
    """How many units are a second, by the SPEC's `unit=` and by a column's name.

    Raises:
      ValueError: the two disagree.
    """
    if unit == "auto":
        return 1.0 if named is None else named
    if named not in (None, _A_SECOND[unit]):
        raise ValueError(f"{at}: the column's name has another unit than unit={unit}; keep one of them")
    return _A_SECOND[unit]


def _csv_rows(path: str, text: str) -> Iterator[Row]:
    found = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in found:
            if cells and not (len(cells) == 1 and cells[0].isspace()):
                yield Row(found.line_num, [cell.strip(" ") for cell in cells])
    except csv.Error as error:
        raise ValueError(f"{path}, line {found.line_num}: {error}; write a table separated by commas") from error


def _spaced_rows(text: str) -> Iterator[Row]:
    for line, content in enumerate(io.StringIO(text), start=1):
        begin, brace, rest = content.partition("#")[0].partition("{")
        cells = begin.split() + ([brace + rest.strip()] if brace else [])
        if cells:
            yield Row(line, cells)


def _table(path: str, rows: Iterator[Row], header: Header, counts: int) -> Table:
    first = next(rows, None)
    if first is None:
        return Table(path, None, rows)
    for place, cell in enumerate(first.cells):
        _refuse_separators(where(path, first, place), cell)
    if header == "auto" and 0 < counts <= len(first.cells) and _counts(first.cells):
        shown = quoted(",".join(first.cells), 20)
        raise ValueError(f"{where(path, first)}: {shown} may be a header or data; add header=yes or header=no")
    if header == "yes" or (header == "auto" and _reads_as_header(first.cells)):
        for place, cell in enumerate(first.cells):
            if not cell:
                raise ValueError(f"{where(path, first, place)}: the header has an empty cell; name every column")
        return Table(path, first, _of_one_length(path, first, rows, []))
    meant = header == "auto" and any(_is_word(cell) for cell in first.cells)
    hint = "; a header has a name in every cell, as DataFrame.to_csv(index=False) writes it" if meant else ""
    return Table(path, None, _of_one_length(path, first, rows, [first]), hint, first.line)


def _of_one_length(path: str, first: Row, rows: Iterator[Row], begin: list[Row]) -> Iterator[Row]:
    yield from begin
    for row in rows:
        if len(row.cells) != len(first.cells):
            raise ValueError(
                f"{where(path, row)} has {len(row.cells)} columns, line {first.line} has {len(first.cells)}; "
                "write every cell of every row"
            )
        yield row


def _reads_as_header(cells: Sequence[str]) -> bool:
    return all(_is_word(cell) for cell in cells)


def _is_word(cell: str) -> bool:
    return bool(cell) and (cell[0].isalpha() or cell[0] == "_") and not is_no_value(cell)


def _counts(cells: Sequence[str]) -> bool:
    if not all(cell.isascii() and cell.isdigit() for cell in cells):
        return False
    plain = [cell.lstrip("0") or "0" for cell in cells]
    return any(plain == [str(first + place) for place in range(len(cells))] for first in (0, 1))


def _refuse_separators(at: str, cell: str) -> None:
    for mark, name in _SEPARATORS.items():
        if mark in cell:
            raise ValueError(f"{at}: {quoted(cell)} is separated by {name}; separate by commas, with decimal points")
