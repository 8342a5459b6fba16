"""A folder of arrays that are slow to make and quick to load; losing it costs time, never a result.

Files are plain `.npz` (no pickle) under `$XDG_CACHE_HOME/dbwjax`, by default `~/.cache/dbwjax`. They are written whole
or not at all, and their checksums are verified when read; one that is damaged is made again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dbwjax.files import make_folder, read_arrays, replace_file

_REMEDY = "set XDG_CACHE_HOME to a folder"


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
        return read_arrays(path, _REMEDY)
    except ValueError:
        arrays = make()  # there is none, or it is damaged
    try:
        if not path.parent.is_dir():
            make_folder(path.parent, _REMEDY)
        # The stub takes the arrays for options.
        replace_file(path, lambda file: np.savez(file, **arrays), _REMEDY, shared=True)  # type: ignore[arg-type]
    except ValueError as error:
        warnings.warn(f"data are not cached in {path.parent}: {error}", stacklevel=2)
    return arrays
