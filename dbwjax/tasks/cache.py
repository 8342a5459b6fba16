"""A folder of arrays that are slow to make and quick to load; losing it costs time, never a result.

Files are plain `.npz` (no pickle) under `$XDG_CACHE_HOME/dbwjax`, by default `~/.cache/dbwjax`. They are written whole
or not at all, and their checksums are verified when read; one that is damaged is made again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np


def folder() -> Path:
    """Where the cache is; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dbwjax"


def cached(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays kept as `name`, or those that `make` returns, kept for the next time.

    A cache that cannot be written is a warning: the run goes on and the next one makes the arrays again.

    Args:
      name: of the file, without ending; it must change whenever the arrays would.
      make: makes the arrays; its errors pass through and leave nothing behind.
    """
    path = folder() / f"{name}.npz"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return dict(kept)
    except FileNotFoundError:
        pass
    except Exception:  # a damaged file fails in a dozen ways, and all of them mean: make it again
        pass
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(f"data are not cached in {path.parent} ({error}); set XDG_CACHE_HOME to a folder", stacklevel=2)
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for options
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
