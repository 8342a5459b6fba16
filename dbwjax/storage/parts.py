"""Finished blocks of a run: one file each, written whole, so that the same command goes on with those that are missing.

RUN/parts/<number>.json   rows of metrics, and how many rows there are
RUN/parts/<number>.npz    timelines, where they are kept
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.files import refused, replace_file, write_json


class Parts:
    """The finished blocks in one folder; the first `keep` makes it."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def done(self, number: int) -> bool:
        """Whether a block is finished."""
        return (self.folder / f"{number}.json").exists()

    def rows(self, number: int) -> list[dict[str, Any]]:
        """A finished block's rows.

        Raises:
          ValueError: the file is damaged or cannot be read.
        """
        path = self.folder / f"{number}.json"
        with refused(f"{path} cannot be read", "use --overwrite to start anew"):
            text = path.read_bytes()
        try:
            return json.loads(text)["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is corrupt; delete it to compute that block again") from error

    def timelines(self, number: int) -> dict[str, np.ndarray]:
        """A finished block's arrays, `WORLD/name`.

        Raises:
          ValueError: the file is damaged or cannot be read.
        """
        path = self.folder / f"{number}.npz"
        with refused(f"{path} cannot be read", "use --overwrite to start anew"):
            try:
                with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                    return dict(arrays)
            except OSError:
                raise
            except Exception as error:  # a damaged archive fails in many ways
                raise ValueError(f"{path} is corrupt; delete {number}.json beside it to compute it again") from error

    def keep(self, number: int, rows: list[dict[str, Any]], timelines: dict[str, np.ndarray] | None = None) -> None:
        """Writes a finished block; its rows last, because they say that it is finished."""
        with refused(f"{self.folder} cannot be written", "free some space or use another --out"):
            self.folder.mkdir(parents=True, exist_ok=True)
        if timelines is not None:
            arrays: dict[str, Any] = dict(timelines)
            replace_file(self.folder / f"{number}.npz", lambda file: np.savez_compressed(file, **arrays))
        write_json(self.folder / f"{number}.json", {"rows": rows})
