"""Files that many worlds read: each is read once, as long as it stays as it is."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

_Reader = TypeVar("_Reader", bound=Callable[..., Any])

_KEPT = 4
"""Files whose content is kept, by reader; those of one comparison are fewer."""


def once(reader: _Reader) -> _Reader:
    """A reader of the file `path=` that reads again only what has changed. What it returns must not be changed."""

    @functools.lru_cache(maxsize=_KEPT)
    def kept(stamp: tuple[int, ...], workers: int, **settings: Any) -> Any:
        del stamp
        return reader(workers, **settings)

    @functools.wraps(reader)
    def read(workers: int, **settings: Any) -> Any:
        try:
            found = os.stat(settings["path"])
        except (OSError, ValueError):  # the reader says what is wrong
            return reader(workers, **settings)
        return kept((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns), workers, **settings)

    return read  # type: ignore[return-value]
