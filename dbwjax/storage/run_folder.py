"""What a run leaves on disk, apart from its checkpoints and figures: one folder, one process at a time.

    RUN/config.json     written once; a folder that holds files but no config.json is not a run's and is left alone
    RUN/metrics.jsonl   one object a row, appended as rows come, for people to read; numbers come from parts
    RUN/parts/          finished blocks, by `parts`
    RUN/summary.json, RUN/worlds.json, RUN/timeline.npz, tables and figures   written at the end
    RUN/manifest.json   their checksums, by `manifest`

No link in the folder is followed, neither to read nor to write nor to delete. Everything that the operating system
refuses becomes a `ValueError` of one line that names the file and the reason.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbwjax.files import delete, draft_of, hold, is_stray, refused, require_folder
from dbwjax.storage import manifest

RECORDS = (
    *("metrics.jsonl", "summary.json", "worlds.json", "timeline.npz", "table.csv", "table.tex", "results.csv"),
    "what_if.json",  # once asked
)
"""Files of numbers that a finished run or sweep leaves; its manifest has their checksums."""

SHARD = re.compile("shard-[1-9][0-9]*-of-[1-9][0-9]*")
"""Names of folders that lie in a sweep's, see `shards`."""

_LOCK = ".lock"
_FOLDERS = ("checkpoint", "parts")
_LEFT_BY_RUNS = (*_FOLDERS, *RECORDS, manifest.MANIFEST, "shard.json", "tensorboard", "wandb", "report.html")
_REMEDY = "use --overwrite to start anew, or another --out"


class RunFolder:
    """A run folder that this process holds; a second process is refused until this one closes it or dies.

    Attributes:
      path: absolute.
    """

    def __init__(self, path: Path, lock: int):
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: str | Path, overwrite: bool = False, figures: Sequence[str] = ()) -> RunFolder:
        """Makes the folder where there is none, and locks it.

        Args:
          path: RUN.
          overwrite: delete what an earlier run left there, and nothing else.
          figures: that a run leaves there, without their endings.

        Raises:
          ValueError: the folder cannot be made or written, holds files that are not a run's, or links in the place of
            a run's, or is in use.
        """
        folder = Path(path).absolute()
        require_of_runs(folder)
        with refused(f"run folder {folder} cannot be written", "use another --out"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(folder)
        run = cls(folder, lock)
        try:
            if overwrite:
                run._delete_run(figures)
            for name in _FOLDERS:
                require_folder(folder / name, "delete it, or use another --out")
        except BaseException:
            run.close()
            raise
        return run

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the next process in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def read_config(self) -> tuple[dict[str, Any], str] | None:
        """What `write_config` wrote, and the identity of its run; `None` in a new folder.

        Raises:
          ValueError: the file has changed or cannot be read.
        """
        return manifest.read_config(self.path, _REMEDY)

    def write_config(self, config: dict[str, Any]) -> str:
        """Writes `config.json` whole and returns the identity of its run. Floats must be finite."""
        return manifest.write_config(self.path, config)

    def _delete_run(self, figures: Sequence[str]) -> None:
        left = (*_LEFT_BY_RUNS, *(f"{name}.{kind}" for name in figures for kind in ("png", "pdf", "svg")))
        # config.json goes last: until then the folder is recognised as a run's if the process is killed here.
        for name in (*left, *map(draft_of, left), "config.json"):
            delete(self.path / name)


def require_of_runs(folder: Path) -> None:
    """Makes sure that a folder is a run's, or nobody's.

    Raises:
      ValueError: it holds files that are not a run's, or the operating system refuses.
    """
    with refused(f"run folder {folder} cannot be written", "use another --out"):
        present = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    present = {name for name in present if not is_stray(name) and not SHARD.fullmatch(name)}
    drafts = {name for name in present if name.startswith(".config.json.") and name.endswith(".draft")}
    if "config.json" not in present and present - {_LOCK} - drafts:
        raise ValueError(f"{folder} holds files but no run (no config.json); use another --out")


def _take_lock(folder: Path) -> int:
    """A descriptor that holds the folder's lock until it is closed; the system closes it when the process dies."""
    lock = hold(folder / _LOCK, "use another --out, or delete that file")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError:
        told = os.pread(lock, 32, 0)
        holder = told.decode() if told.isdigit() else "that has just started"
        os.close(lock)
        raise ValueError(f"{folder} is in use by process {holder}; wait for it or use another --out") from None
    except OSError:
        os.close(lock)
        raise
    return lock
