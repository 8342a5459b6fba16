"""Writing and deleting: whole or not at all, and never through a link."""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from dbwjax.files.reading import LINK, refused

_STRAYS = (".nfs*", ".fuse_hidden*", ".DS_Store", "._*", "Thumbs.db", "desktop.ini")  # of file systems and desktops


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


def write_json_once(path: Path, content: Any, remedy: str = "free some space or use another --out") -> bool:
    """Writes JSON whole where there is no such file yet; of several processes at once, one does.

    Returns:
      Whether it was this process.

    Raises:
      ValueError: the operating system refuses.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    draft = path.with_name(draft_of(f"{path.name}.{secrets.token_hex(4)}"))
    with refused(f"{path} cannot be written", remedy):
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # which replaces nothing
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
    return True


def replace_file(
    path: Path,
    write: Callable[[IO[bytes]], Any],
    remedy: str = "free some space or use another --out",
    shared: bool = False,
) -> None:
    """Calls `write(file)` on a draft beside `path` and gives it its name once it is whole and on disk.

    A link of the draft's name, or of the file's, is replaced; what it points to is not touched.

    Args:
      path: the file.
      write: writes its content.
      remedy: ends the line of an error.
      shared: other processes may write the same file at the same time; each has a draft of its own.

    Raises:
      ValueError: the operating system refuses.
    """
    draft = path.with_name(draft_of(f"{path.name}.{secrets.token_hex(4)}" if shared else path.name))
    with refused(f"{path} cannot be written", remedy):
        try:
            draft.unlink(missing_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def hold(path: Path, remedy: str) -> int:
    """A descriptor for reading and appending, of a file that is made where there is none; the caller closes it.

    Raises:
      ValueError: it is a link, not a regular file, has a second name elsewhere, or the operating system refuses.
    """
    with refused(f"{path} cannot be written", remedy):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(error.errno, LINK) from error
            raise
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EPERM, "not a regular file of one name")
    return descriptor


def make_folder(path: Path, remedy: str) -> None:
    """Makes a folder and those above it; a link in its place is refused.

    Raises:
      ValueError: it is a link or a file, or the operating system refuses.
    """
    require_folder(path, remedy)
    with refused(f"{path} cannot be made", remedy):
        path.mkdir(parents=True, exist_ok=True)


def require_folder(path: Path, remedy: str) -> None:
    """Makes sure that a folder is one, or not there yet.

    Raises:
      ValueError: it is a link, or something else than a folder.
    """
    with refused(f"{path} cannot be read", remedy):
        if path.is_symlink():
            raise ValueError(f"{path} is {LINK}; {remedy}")
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is no folder; {remedy}")


def delete(path: Path, remedy: str = "use another --out") -> None:
    """Deletes a file, a link or a whole folder, if there is one; what links point to stays.

    A folder that only strays keep is left behind: NFS deletes its own when whoever has them open lets go.

    Raises:
      ValueError: the operating system refuses.
    """
    with refused(f"{path} cannot be deleted", remedy):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        shutil.rmtree(path, ignore_errors=True)
        left = [below for below in path.rglob("*") if below.is_symlink() or not below.is_dir()]
        if path.exists() and not (left and all(is_stray(below.name) for below in left)):
            shutil.rmtree(path)  # and says why it cannot


def is_stray(name: str) -> bool:
    """Whether a file is one that file systems and desktops leave anywhere, which nobody reads back.

    >>> is_stray(".nfs000a1"), is_stray("config.json")
    (True, False)
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _STRAYS)


def draft_of(name: str) -> str:
    """The name under which a file is built."""
    return f".{name}.draft"
