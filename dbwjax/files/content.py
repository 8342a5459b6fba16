"""What inputs hold, as one hash, so that a file that changes behind the same path is noticed."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dbwjax.files.reading import checksum, refused

WHOLE = 2 << 30
"""Bytes of an input that are hashed; of a larger one, its files' sizes and a sample."""

SAMPLE = 64
"""Evenly spaced blocks of 1 MiB that are hashed of a larger input, shared among its files by their sizes."""


class Content(NamedTuple):
    """What some files hold together."""

    bytes: int
    sha256: str
    sampled: bool  # whether only sizes and a sample were hashed


def content_of(paths: Mapping[str, Path], remedy: str) -> Content:
    """The content of some files, under names that do not say where they lie; once read, it is remembered.

    Args:
      paths: by name; links are followed.
      remedy: ends the line of an error.

    Raises:
      ValueError: one is not a regular file, or the operating system refuses.
    """
    facts = []
    for name, path in sorted(paths.items()):
        with refused(f"{path} cannot be read", remedy):
            found = os.stat(path)
        facts.append((name, str(path), found.st_size, (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)))
    return _content(tuple(facts), remedy)


@functools.lru_cache(maxsize=256)
def _content(facts: tuple[tuple[str, str, int, tuple[int, ...]], ...], remedy: str) -> Content:
    total = sum(size for _, _, size, _ in facts)
    found = hashlib.sha256()
    for name, path, size, _ in facts:
        sample = max(1, round(SAMPLE * size / total)) if total > WHOLE else None
        found.update(f"{name}\0{size}\0{checksum(path, remedy, sample=sample)}\n".encode())
    return Content(total, found.hexdigest(), total > WHOLE)
