"""Finished blocks of a run: one file each, written whole, so that the same command goes on with those that are missing.

RUN/parts/<number>.json   rows of metrics, and the checksum of the timelines
RUN/parts/<number>.npz    timelines, where they are kept
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.files import arrays_of, make_folder, read, replace_file
from dbwjax.storage.manifest import memory_over, read_sealed, write_sealed

_REMEDY = "start the same command again to compute that block again"


class Parts:
    """The finished blocks in one folder; the first `keep` makes it.

    Args:
      folder: RUN/parts.
      run: identity of the run.
    """

    def __init__(self, folder: str | Path, run: str):
        self.folder, self.run = Path(folder), run

    def done(self, number: int) -> bool:
        """Whether a block is finished, whole or not."""
        return os.path.lexists(self._record(number))

    def trouble(self, number: int) -> str | None:
        """Why a finished block does not count: it is damaged, or belongs to another run. `None`: it counts.

        Raises:
          ValueError: the operating system refuses, so that nothing is known about it.
        """
        try:
            record = self._read(number)
            if record.get("timelines") is not None:
                self._arrays(number, record)
        except ValueError as error:
            line = str(error).removesuffix(f"; {_REMEDY}")
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                raise ValueError(f"{line}; delete it to compute that block again, or use --overwrite") from error
            return line
        return None

    def rows(self, number: int) -> list[dict[str, Any]]:
        """A finished block's rows.

        Raises:
          ValueError: the file cannot be read, is damaged, or belongs to another run or block.
        """
        return self._read(number)["rows"]

    def timelines(self, number: int) -> dict[str, np.ndarray]:
        """A finished block's arrays, `WORLD/name`; empty where none were kept.

        Raises:
          ValueError: as `rows`.
        """
        record = self._read(number)
        if record.get("timelines") is None:
            return {}
        # They need not fit a limit of their own: what was computed is never lost for its size.
        most, file = min(int(record["timelines"]["bytes"]), memory_over(2)), io.BytesIO(self._arrays(number, record))
        return arrays_of(file, str(self._file(number)), _REMEDY, most)

    def keep(self, number: int, rows: list[dict[str, Any]], timelines: dict[str, np.ndarray] | None = None) -> None:
        """Writes a finished block; its rows last, because they say that it is finished.

        Raises:
          ValueError: the operating system refuses.
        """
        make_folder(self.folder, "free some space or use another --out")
        told = None
        if timelines is not None:
            file, arrays = io.BytesIO(), dict[str, Any](timelines)
            np.savez_compressed(file, **arrays)
            content = file.getvalue()
            replace_file(self._file(number), lambda target: target.write(content))
            told = {"checksum": hashlib.sha256(content).hexdigest(), "bytes": _inflated(arrays)}
        write_sealed(self._record(number), self.run, {"block": number, "rows": rows, "timelines": told})

    def _record(self, number: int) -> Path:
        return self.folder / f"{number}.json"

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.npz"

    def _read(self, number: int) -> dict[str, Any]:
        path = self._record(number)
        record = read_sealed(path, self.run, _REMEDY, self.folder.parent)
        if record.get("block") != number:
            raise ValueError(f"{path} is of block {record.get('block')}; {_REMEDY}")
        rows, told = record.get("rows"), record.get("timelines")
        kept = told is None or (isinstance(told, dict) and isinstance(told.get("bytes"), int) and "checksum" in told)
        if not kept or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path} is corrupt; {_REMEDY}")
        return record

    def _arrays(self, number: int, record: dict[str, Any]) -> bytes:
        path = self._file(number)
        content = read(path, _REMEDY, memory_over(2), self.folder.parent)
        if hashlib.sha256(content).hexdigest() != record["timelines"]["checksum"]:
            raise ValueError(f"{path} is corrupt (its checksum is another); {_REMEDY}")
        return content


def _inflated(arrays: dict[str, Any]) -> int:
    """Bytes of the members of an `.npz`, headers included."""
    return sum(array.nbytes + 4096 for array in map(np.asarray, arrays.values()))
