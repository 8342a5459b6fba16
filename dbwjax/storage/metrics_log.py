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

from dbwjax.files import refused
from dbwjax.types import COLUMNS as COLUMNS  # what a line holds


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, handed to the operating system line by line.

    It is there to be read while the run goes on. A resumed run goes on from finished blocks and the checkpoint, whose
    rows `restart` writes again.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._written():
            self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 (closed by `close`)

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
        line = json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False).encode() + b"\n"
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


def read_metrics(path: str | Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; a last line that was begun only is left out.

    Raises:
      ValueError: the file cannot be read, or a line is not a JSON object.
    """
    with refused(f"{path} cannot be read", "use --overwrite to start anew"):
        lines = Path(path).read_bytes().split(b"\n")[:-1]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{path} is corrupt at line {number}; use --overwrite to start anew")
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's; floats that are not finite as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
