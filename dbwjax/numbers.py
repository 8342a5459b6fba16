"""Numbers that the machine can hold: what is typed, what is combined from it, and seeds.

Ground floor. Times and rates become float32 on the device, whole numbers int32. Beyond these ranges a time would turn
into zero or infinity, a count into another, a seed into another seed, and the run would say nothing. So every number
is checked where text becomes one, and again where numbers that were typed are combined.
"""

from __future__ import annotations

import math
import operator
import re
from typing import Any

LEAST, MOST = 1.2e-38, 3.4e38
"""Magnitudes that float32 holds with all their digits."""

RANGE = "1.2e-38 to 3.4e38"
"""The same, for errors."""

LARGEST = 2**31 - 1
"""Of whole numbers: int32's."""

INT64 = 2**63 - 1
"""Of whole numbers whose own range is checked later."""

SEEDS = 2**32
"""Seeds are 0 to `SEEDS` - 1: of more, JAX keeps the last 32 bits, so that 2^32 would be 0."""

_REAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DIGITS = 19  # of INT64


def holds(value: float) -> bool:
    """Whether float32 holds a number: 0, or a magnitude from `LEAST` to `MOST`.

    >>> holds(0.0), holds(-1e-30), holds(1e-46), holds(1e39), holds(math.nan)
    (True, True, False, False, False)
    """
    return value == 0 or LEAST <= abs(value) <= MOST


def require(said: str, value: float) -> float:
    """Gives back a number that float32 holds.

    Args:
      said: what it is, for the error; as in `seconds`.
      value: the number.

    Raises:
      ValueError: it is neither 0 nor of a magnitude from `LEAST` to `MOST`.
    """
    if not holds(value):
        raise ValueError(f"{said}={value:g} is {_fault(value)}")
    return value


def positive(said: str, value: float) -> float:
    """Gives back a number above 0 that float32 holds.

    Raises:
      ValueError: it is not.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{said}={value:g} is out of range; use a finite number above 0")
    return require(said, value)


def not_negative(said: str, value: float) -> float:
    """Gives back 0 or a number above it that float32 holds.

    Raises:
      ValueError: it is not.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{said}={value:g} is out of range; use a finite number from 0 on")
    return require(said, value)


def real(text: str) -> float:
    """The number that a text says: digits with an optional point and exponent, or `inf`.

    >>> real("2.5e-3"), real("-inf")
    (0.0025, -inf)

    Raises:
      ValueError: not a number, or one that float32 does not hold; to be put after the text.
    """
    text = text.strip()
    if _INFINITE.fullmatch(text):
        return float(text)
    if text.lower().lstrip("+-") == "nan":
        raise ValueError("is not a number; NaN cannot be used")
    if not _REAL.fullmatch(text):
        raise ValueError("is not a number")
    value = float(text)
    if not holds(value) or (value == 0 and re.search("[1-9]", re.split("e", text, flags=re.IGNORECASE)[0])):
        raise ValueError(f"is {_fault(value)}")
    return value


def whole(text: str, most: int = LARGEST) -> int:
    """The whole number that a text says: digits only.

    >>> whole("12"), whole("-3")
    (12, -3)

    Args:
      text: what was typed.
      most: the largest magnitude.

    Raises:
      ValueError: not a whole number, or a larger one; to be put after the text.
    """
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        raise ValueError("is not a whole number")
    if len(text.lstrip("+-0")) > _DIGITS or abs(int(text)) > most:
        raise ValueError(f"is too large; use a whole number up to {most}")
    return int(text)


def seeds(first: Any, count: int = 1) -> range:
    """The seeds `first` to `first + count - 1`.

    >>> seeds(7, 3)
    range(7, 10)

    Raises:
      ValueError: a seed that is not a whole number from 0 to 2^32 - 1.
    """
    try:
        start = operator.index(first)
    except TypeError:
        start = -1
    if isinstance(first, bool) or not 0 <= start < SEEDS:
        raise ValueError(f"seed={first} is no seed; use a whole number from 0 to {SEEDS - 1}")
    if start + count > SEEDS:
        raise ValueError(f"{count} seeds from seed={first} on end at {start + count - 1}; use seeds up to {SEEDS - 1}")
    return range(start, start + count)


def _fault(value: float) -> str:
    """Why float32 does not hold a number, and what it does hold."""
    if math.isnan(value):
        return "not a number"
    what = "too small" if abs(value) < 1 else "too large"
    return f"{what} for float32; use 0, or a magnitude of {RANGE}"
