"""`RUN/metrics.jsonl`: one JSON object a line, appended as rows come."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.files import DATA, hold, json_of, read, refused
from dbwjax.types import COLUMNS as COLUMNS  # what a line holds


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, handed to the operating system line by line.

    It is there to be read while the run goes on, and no number is ever taken from it. A resumed run goes on from
    finished blocks and the checkpoint, whose rows `restart` writes again.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = os.fdopen(hold(self.path, "use another --out, or delete that file"), "ab+", buffering=0)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def restart(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Begins anew with the rows that finished blocks and the checkpoint hold."""
        with self._written():
            self._file.truncate(0)
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one line.

        Floats are written so that reading gives the same bits; a float that is not finite is written as null.
        """
        line = json.dumps(plain(row), allow_nan=False).encode() + b"\n"
        with self._written():
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Returns when all lines are on disk."""
        with self._written():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _written(self) -> contextlib.AbstractContextManager[None]:
        return refused(f"{self.path} cannot be written", "free some space or use another --out")


class NoLog:
    """A `MetricsLog` that keeps nothing: that of every process but the first."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def restart(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Nothing to write."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Nothing to keep."""


def read_metrics(path: str | Path) -> list[dict]:
    """The rows of a `metrics.jsonl`, as they are; a last line that was begun only is left out.

    Raises:
      ValueError: the file cannot be read, or a line is not a JSON object.
    """
    remedy = "start the run's command again, which writes it anew"
    rows = []
    for number, line in enumerate(read(path, remedy, DATA).split(b"\n")[:-1], 1):
        row = json_of(line, f"{path}, line {number}", remedy)
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is corrupt; {remedy}")
        rows.append(row)
    return rows


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: NumPy scalars as Python's, floats that are not finite as None."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
