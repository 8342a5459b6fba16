"""Names and numbers of workers, one to one: the same set of names is numbered the same way in every file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from dbwjax.network.tables import is_no_value, is_number, quoted

_LONGEST = 100  # characters of a name
_CANONICAL = re.compile(r"0|[1-9][0-9]{0,8}").fullmatch


def number(names: Iterable[str], workers: int, at: str) -> dict[str, int]:
    """The number of each name.

    Where all are whole numbers from 0 to N-1, written as Python writes them, a name is its number. Otherwise there must
    be N of them, and they are numbered in natural order: worker2 before worker10.

    Args:
      names: of workers, in any order, repeated or not.
      workers: N.
      at: where they stand, for errors.

    Raises:
      ValueError: more or fewer names than workers, or two that differ in leading zeros alone.
    """
    distinct = list(dict.fromkeys(names))
    whole = all(_CANONICAL(name) for name in distinct)
    if whole and all(int(name) < workers for name in distinct):
        return {name: int(name) for name in distinct}
    if len(distinct) != workers and whole:
        beyond = next(name for name in distinct if int(name) >= workers)
        raise ValueError(f"{at}: node {beyond} is not one of {workers} workers; use 0 to {workers - 1}, or set workers")
    if len(distinct) != workers:
        raise ValueError(
            f"{at} names {len(distinct)} workers ({listed(distinct)}), and there are {workers}; name each once, or set "
            "workers"
        )
    ordered = sorted(distinct, key=natural)
    for one, other in itertools.pairwise(ordered):
        if natural(one) == natural(other):
            raise ValueError(f"{at}: {quoted(one)} and {quoted(other)} differ in leading zeros alone; rename one")
    return {name: place for place, name in enumerate(ordered)}


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which runs of digits are compared as numbers.

    >>> sorted(["worker10", "worker2"], key=natural)
    ['worker2', 'worker10']
    """
    parts = re.split("([0-9]+)", name)
    return [(len(part.lstrip("0")), part.lstrip("0")) if place % 2 else (0, part) for place, part in enumerate(parts)]


def checked(name: str, at: str) -> str:
    """The name.

    Raises:
      ValueError: one that is empty, too long, a word for a missing value, or a number other than a whole one; or that
        has a separator, a quotation mark or a control character in it.
    """
    if not name or is_no_value(name):
        raise ValueError(f"{at}: {quoted(name)} is no name of a worker; write a name or a whole number from 0")
    if is_number(name) and not name.isdigit():
        raise ValueError(f"{at}: {quoted(name)} is no name of a worker; number workers by whole numbers from 0")
    odd = next((mark for mark in name if mark in ';,"' or not mark.isprintable()), None)
    if odd is not None:
        raise ValueError(f"{at}: {quoted(name)} has {quoted(odd)} in it; separate by commas, and name workers simply")
    if len(name) > _LONGEST:
        raise ValueError(f"{at}: {quoted(name)} is longer than {_LONGEST} characters; use a shorter name")
    return name


def listed(names: Sequence[str], most: int = 5) -> str:
    """Some names for an error."""
    shown = ", ".join(quoted(name, 20) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
