"""Files written whole or not at all, and refusals of the operating system as one line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote


def as_file_name(policy: str) -> str:
    """A SPEC as one part of a path: percent-encoded where a file name cannot have its characters.

    >>> as_file_name("full:weights=lazy"), as_file_name("a/b")
    ('full:weights=lazy', 'a%2Fb')
    """
    return quote(policy, safe=":=,+")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole. Floats come back bit for bit and must be finite."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    replace_file(path, lambda file: file.write(text.encode()))


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls `write(file)` on a draft beside `path` and gives it its name once it is whole and on disk."""
    draft = path.with_name(draft_of(path.name))
    with refused(f"{path} cannot be written", "free some space or use another --out"):
        try:
            with open(draft, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def refused(trouble: str, remedy: str) -> Iterator[None]:
    """Turns what the operating system refuses into one line: trouble, reason, remedy."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{trouble} ({error.strerror or error}); {remedy}") from error


def draft_of(name: str) -> str:
    """The name under which a file is built."""
    return f".{name}.draft"
