"""What a run leaves on disk, apart from its checkpoints and figures: one folder, one process at a time.

    RUN/config.json     written once; a folder that holds files but no config.json is not a run's and is left alone
    RUN/metrics.jsonl   one object a row, appended as rows come; on resume written again from what is kept
    RUN/parts/          finished blocks, by `parts`
    RUN/summary.json, RUN/worlds.json, RUN/timeline.npz, tables and figures   written at the end

Everything that the operating system refuses becomes a `ValueError` of one line that names the file and the reason.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from dbwjax.files import draft_of, refused, write_json

_LOCK = ".lock"
_LEFT_BY_RUNS = (
    *("checkpoint", "parts", "metrics.jsonl", "summary.json", "worlds.json", "timeline.npz", "tensorboard"),
    *("table.csv", "table.tex", "report.html", "results.csv"),
)


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
          ValueError: the folder cannot be made or written, holds files that are not a run's, or is in use.
        """
        folder = Path(path).absolute()
        with refused(f"run folder {folder} cannot be written", "use another --out"):
            present = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
            if "config.json" not in present and present - {_LOCK, draft_of("config.json")}:
                raise ValueError(f"{folder} holds files but no run (no config.json); use another --out")
            folder.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(folder)
        run = cls(folder, lock)
        if overwrite:
            try:
                run._delete_run(figures)
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

    def read_config(self) -> dict | None:
        """What `write_config` wrote, `None` in a new folder.

        Raises:
          ValueError: the file is corrupt or cannot be read.
        """
        path = self.path / "config.json"
        with refused(f"{path} cannot be read", "use --overwrite to start anew, or another --out"):
            if not path.exists():
                return None
            text = path.read_bytes()
        try:
            config = json.loads(text)
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise ValueError(f"{path} is corrupt; use --overwrite to start anew, or another --out")
        return config

    def write_config(self, config: dict) -> None:
        """Writes `config.json` whole. Floats must be finite."""
        write_json(self.path / "config.json", config)

    def _delete_run(self, figures: Sequence[str]) -> None:
        left = (*_LEFT_BY_RUNS, *(f"{name}.{kind}" for name in figures for kind in ("png", "pdf", "svg")))
        # config.json goes last: until then the folder is recognised as a run's if the process is killed here.
        for name in (*left, *map(draft_of, left), "config.json"):
            target = self.path / name
            with refused(f"{target} cannot be deleted", "use another --out"):
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)


def _take_lock(folder: Path) -> int:
    """A descriptor that holds the folder's lock until it is closed; the system closes it when the process dies."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError:
        holder = os.read(lock, 32).decode(errors="replace") or "that has just started"
        os.close(lock)
        raise ValueError(f"{folder} is in use by process {holder}; wait for it or use another --out") from None
    except OSError:
        os.close(lock)
        raise
    return lock
