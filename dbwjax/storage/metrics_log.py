"""`RUN/metrics.jsonl`: one JSON object a line, appended, and cut back to the checkpoint's count of lines on resume."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.files import refused

COLUMNS = (
    "policy",
    "step",
    "virtual_time",
    "wall_time",
    "train_loss",
    "test_loss",
    "test_accuracy",
    "consensus_distance",
    "active_fraction",
    "backup_workers",
    "gradients",
)
"""The columns of `metrics.jsonl`, in order; a task's further figures follow them."""


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, handed to the operating system line by line.

    A process killed at any instant leaves whole lines and at most one begun; `truncate` removes it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._written():
            self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 (closed by `close`)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def truncate(self, lines: int) -> None:
        """Keeps exactly the first `lines` lines.

        Raises:
          ValueError: there are fewer whole lines.
        """
        with self._written():
            self._file.seek(0)
            text = self._file.read()
            whole = text.split(b"\n")[:-1]
            if len(whole) < lines:
                raise ValueError(
                    f"{self.path} is corrupt: the checkpoint counts {lines} lines, it has {len(whole)}; "
                    "use --overwrite to start anew"
                )
            self._file.truncate(sum(len(line) + 1 for line in whole[:lines]))

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one line: `COLUMNS` in their order (null where the row has none), then whatever else the row has.

        Floats are written so that reading gives the same bits; a float that is not finite is written as null.
        """
        ordered = {name: row.get(name) for name in COLUMNS} | dict(row)
        line = json.dumps({name: _plain(value) for name, value in ordered.items()}, allow_nan=False).encode() + b"\n"
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
