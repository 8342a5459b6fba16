"""What numbers may be, and whether something fits the memory: asked before any of it is allocated.

Ground floor: builders of graphs, tasks and policies ask here, so that commands and Python are refused alike. The words
of the command line are checked here, too, so JAX and NumPy are not imported with this module.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbwjax import numbers

MOST = numbers.LARGEST
"""Counts are int32 on the device."""

_SHOWN = 80  # characters of a value in an error


def shown(value: Any) -> str:
    """A value in one line of an error, cut where it is long.

    >>> shown(2.5), shown("x" * 100)[-8:]
    ('2.5', 'xxxx ...')
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of an object of the user's
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def whole(name: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """A whole number in a range.

    Args:
      name: for errors.
      value: an int of Python, NumPy or JAX.
      least, most: the range.

    Raises:
      ValueError: anything else; `True` and 2.0 are no whole numbers.

    >>> whole("steps", 3)
    3
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # also of an array's truth value
        number = None
    if number is None:
        raise ValueError(f"{name}={shown(value)} is not a whole number; use {range_of(least, most)}")
    if not least <= number <= most:
        raise ValueError(f"{name}={shown(number)} is out of range; use {range_of(least, most)}")
    return number


def real(name: str, value: Any) -> float:
    """A number, which may be infinite.

    Raises:
      ValueError: NaN, or anything else.
    """
    try:
        kind, shape = str(getattr(value, "dtype", "")), getattr(value, "shape", None)
        odd = isinstance(value, bool | str | bytes) or kind == "bool" or bool(shape)
        number = math.nan if odd else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name}={shown(value)} is not a number; use one, as in {name}=1.0")
    return number


def range_of(least: int, most: int) -> str:
    """A range in words.

    >>> range_of(1, 5), range_of(1, MOST)
    ('1 to 5', '1 or more (at most 2147483647)')
    """
    return f"{least} or more (at most {most})" if most == MOST else f"{least} to {most}"


def divisors(number: int) -> list[int]:
    """All divisors, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    low = [one for one in range(1, math.isqrt(number) + 1) if number % one == 0]
    return low + [number // one for one in reversed(low) if one * one != number]


def available_bytes() -> int:
    """What can still be allocated where arrays live: of the machine's memory on a CPU, of the first device otherwise.

    An accelerator that does not tell its memory is asked for nothing: the machine's memory is the answer then.
    """
    import jax

    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return host_bytes()


def host_bytes() -> int:
    """What can still be allocated of the machine's memory."""
    listed = Path("/proc/meminfo")
    if listed.is_file():
        for line in listed.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(needed: float, what: str, remedy: str, available: float | None = None) -> None:
    """Refuses what does not fit.

    Args:
      needed: bytes.
      what: names the value that asks for them, as in `--workers 1000000000`.
      remedy: what to do.
      available: bytes; default `host_bytes()`.

    Raises:
      ValueError: more is needed than there is.
    """
    have = host_bytes() if available is None else available
    if needed > have:
        raise ValueError(f"{what} needs about {readable(needed)} of memory and {readable(have)} are free; {remedy}")


def require_count(name: str, count: int, needed: Callable[[int], float], what: str = "") -> None:
    """Refuses a count for which there is no room on the host, with the largest for which there is.

    Args:
      name: of the count.
      count: how many.
      needed: bytes for so many; must not fall.
      what: what else is to be said of them.

    Raises:
      ValueError: one line.
    """
    if count * 100 <= _SURELY and needed(count) <= _SURELY:
        return
    have = host_bytes()
    if needed(count) > have:
        fits = largest(needed, have, count)
        remedy = f"use at most {fits}" if fits else "use less of the rest"
        require_memory(needed(count), f"{name}={shown(count)}{what}", remedy, have)


_SURELY = 16 << 20  # bytes that fit; the machine is not asked


def largest(needed: Callable[[int], float], available: float, most: int) -> int:
    """The largest count, 0 to `most`, whose `needed` bytes fit; `needed` must not fall.

    >>> largest(lambda workers: 1000 + 10 * workers, 1500, 10**9)
    50
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= available else (low, middle - 1)
    return low


def readable(size: float) -> str:
    """Bytes in words.

    >>> readable(1_500_000_000), readable(2.6e13), readable(1e40)
    ('1.5 GB', '26,000.0 GB', '1e+31 GB')
    """
    return f"{size / 1e9:,.1f} GB" if size < 1e18 else f"{size / 1e9:.0e} GB"
