"""What a run leaves on disk, apart from its checkpoints and figures: one folder, one process at a time.

    RUN/config.json     written once; a folder that holds files but no config.json is not a run's and is left alone
    RUN/metrics.jsonl   one object per evaluation, appended; cut back to the checkpoint's count of lines on resume
    RUN/summary.json, RUN/timeline.npz   written at the end

Everything that the operating system refuses becomes a `ValueError` of one line that names the file and the reason.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from dbwjax.experiments.files import as_file_name, draft_of, refused, replace_file, write_json

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

FIGURES = ("summary.png", "accuracy.png", "loss.png", "durations.png", "backup_workers.png", "graph.png")
"""The figures of a run folder."""

Timelines = Mapping[str, Mapping[str, np.ndarray]]
"""By policy: `duration` [T] float32 s, `active` [T, N] bool, `backup_workers` [T] float32."""

_LOCK = ".lock"
_LEFT_BY_RUNS = ("checkpoint", "metrics.jsonl", "summary.json", "timeline.npz", "tensorboard", "report.html", *FIGURES)


class RunFolder:
    """A run folder that this process holds; a second process is refused until this one closes it or dies.

    Attributes:
      path: absolute.
    """

    def __init__(self, path: Path, lock: int):
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: str | Path, overwrite: bool = False) -> RunFolder:
        """Makes the folder where there is none, and locks it.

        Args:
          path: RUN.
          overwrite: delete what an earlier run left there, and nothing else.

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
                run._delete_run()
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

    def _delete_run(self) -> None:
        # config.json goes last: until then the folder is recognised as a run's if the process is killed here.
        for name in (*_LEFT_BY_RUNS, *(draft_of(name) for name in _LEFT_BY_RUNS), "config.json"):
            target = self.path / name
            with refused(f"{target} cannot be deleted", "use another --out"):
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)


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


def summary(rows: Iterable[Mapping[str, Any]], policies: Sequence[str], target_accuracy: float | None) -> dict:
    """What `summary.json` holds.

    Args:
      rows: of `metrics.jsonl`, ascending in `step` within a policy; at least one for each.
      policies: SPECs in the order named; speed-ups are over the last.
      target_accuracy: what `time_to_target` counts to; `None` for tasks without accuracy.

    Returns:
      `target_accuracy`, `policies` by SPEC and `speedup` by SPEC. A speed-up is the last policy's seconds over this
      policy's: `duration` of the mean iteration, `time_to_target` of the first evaluation at or above the target. What
      was not reached, or has no value, is `None`.
    """
    by_policy: dict[str, list[Mapping[str, Any]]] = {name: [] for name in policies}
    for row in rows:
        if row["policy"] in by_policy:
            by_policy[row["policy"]].append(row)
    facts = {name: _facts(of_policy, target_accuracy) for name, of_policy in by_policy.items()}
    last = facts[policies[-1]]
    speedup = {
        name: {
            "duration": _ratio(last["mean_duration"], own["mean_duration"]),
            "time_to_target": _ratio(last["time_to_target"], own["time_to_target"]),
        }
        for name, own in facts.items()
    }
    return {"target_accuracy": target_accuracy, "policies": facts, "speedup": speedup}


def _facts(rows: Sequence[Mapping[str, Any]], target_accuracy: float | None) -> dict:
    end = rows[-1]
    reached = (
        row["virtual_time"]
        for row in rows
        if target_accuracy is not None
        and row.get("test_accuracy") is not None
        and row["test_accuracy"] >= target_accuracy
    )
    return {
        "steps": end["step"],
        "virtual_time": end["virtual_time"],
        "wall_time": end["wall_time"],
        "mean_duration": end["virtual_time"] / end["step"] if end["step"] else None,
        "final_test_loss": end.get("test_loss"),
        "final_test_accuracy": end.get("test_accuracy"),
        "time_to_target": next(reached, None),
        "active_fraction": _mean_over_steps(rows, "active_fraction"),
        "backup_workers": _mean_over_steps(rows, "backup_workers"),
    }


def _mean_over_steps(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    """A row's value is the mean over the steps since the row before, so it weighs as many steps."""
    total, steps, before = 0.0, 0, 0
    for row in rows:
        if row.get(column) is not None:
            total += row[column] * (row["step"] - before)
            steps += row["step"] - before
        before = row["step"]
    return total / steps if steps else None


def _ratio(reference: float | None, own: float | None) -> float | None:
    if reference is None or own is None:
        return None
    if own == reference:
        return 1.0
    return reference / own if own > 0 else None


def save_timeline(path: str | Path, timelines: Timelines) -> None:
    """Writes `timeline.npz`: arrays `POLICY/duration` and so on, with POLICY as in `as_file_name`; no pickle."""
    arrays: dict[str, Any] = {
        f"{as_file_name(policy)}/{name}": array for policy, by in timelines.items() for name, array in by.items()
    }
    replace_file(Path(path), lambda file: np.savez_compressed(file, **arrays))


def load_timeline(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """What `save_timeline` wrote.

    Raises:
      ValueError: the file cannot be read or is not a timeline.
    """
    timelines: dict[str, dict[str, np.ndarray]] = {}
    with refused(f"{path} cannot be read", "run the command again"):
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                for key in arrays.files:
                    policy, _, name = key.rpartition("/")
                    timelines.setdefault(unquote(policy), {})[name] = arrays[key]
        except OSError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            raise ValueError(f"{path} is corrupt; run the command again") from error
    return timelines


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


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's; floats that are not finite as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
