"""Reading: regular files alone, never more than is told, and no link below a folder that says so."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

TEXT, DATA = 64 << 20, 2 << 30
"""Bytes of a file of text, and of one of arrays, that are read at most, unless a caller says otherwise."""

LINK = "a link, which is not followed in here"

_DEPTH = 50  # of JSON
_BLOCK = 1 << 20  # bytes hashed at a time


def read(path: str | Path, remedy: str, most: int = TEXT, within: str | Path | None = None) -> bytes:
    """A regular file's content.

    Args:
      path: the file.
      remedy: ends the line of an error.
      most: bytes; of a larger one nothing is read.
      within: a folder that holds the file: no link below it is followed.

    Raises:
      ValueError: no such file, not a regular one, too large, or one that the operating system refuses.
    """
    with _regular(path, remedy, within) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            content = file.read(size + 1)  # Python sets aside as many bytes as it is asked for
            while len(content) <= most and (more := file.read(min(_BLOCK, most + 1 - len(content)))):
                content += more  # it has grown, or does not tell its size
            if len(content) <= most:
                return content
    raise ValueError(f"{path} is larger than {most:,} bytes; {remedy}")


def checksum(path: str | Path, remedy: str, within: str | Path | None = None, sample: int | None = None) -> str:
    """SHA-256 of a regular file of any size, in hexadecimal.

    Args:
      path: the file.
      remedy: ends the line of an error.
      within: as of `read`.
      sample: take so many evenly spaced blocks of 1 MiB instead of the whole file.

    Raises:
      ValueError: as `read`.
    """
    found = hashlib.sha256()
    with _regular(path, remedy, within) as file:
        blocks = -(-os.fstat(file.fileno()).st_size // _BLOCK)
        if sample is not None and sample < blocks:
            for place in np.linspace(0, blocks - 1, sample).astype(int).tolist():
                file.seek(place * _BLOCK)
                found.update(file.read(_BLOCK))
        else:
            while block := file.read(_BLOCK):
                found.update(block)
    return found.hexdigest()


def read_text(path: str | Path, remedy: str, most: int = TEXT, within: str | Path | None = None) -> str:
    """A file of UTF-8 text, with or without a byte order mark.

    Raises:
      ValueError: as `read`, or it is not UTF-8.
    """
    content = read(path, remedy, most, within)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path} is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8; save it as UTF-8") from None


def read_json(path: str | Path, remedy: str, most: int = TEXT, within: str | Path | None = None) -> Any:
    """A file of JSON; its numbers are finite.

    Raises:
      ValueError: as `read`, or it is not JSON, or nested more than 50 deep.
    """
    return json_of(read(path, remedy, most, within), str(path), remedy)


def json_of(content: bytes, where: str, remedy: str) -> Any:
    """JSON from bytes; `where` names them in an error.

    Raises:
      ValueError: it is none, has NaN or an infinity in it, a key twice, or is nested more than 50 deep.
    """
    try:
        found = json.loads(content.decode(), parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once)
        _require_shallow(found)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{where} is corrupt ({reason}); {remedy}") from None
    return found


def read_arrays(
    path: str | Path, remedy: str, most: int = DATA, within: str | Path | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, none of them pickled.

    Args:
      path: the file.
      remedy: ends the line of an error.
      most: bytes of the file, and of all arrays together once they are inflated.
      within: as of `read`.

    Raises:
      ValueError: as `read`, or it is damaged, or larger than it says.
    """
    with _regular(path, remedy, within) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError(f"{path} is larger than {most:,} bytes; {remedy}")
        return arrays_of(file, str(path), remedy, most)


def arrays_of(file: IO[bytes], where: str, remedy: str, most: int = DATA) -> dict[str, np.ndarray]:
    """The arrays of an open `.npz`; `where` names it in an error.

    Raises:
      ValueError: it is damaged, or larger than it says, or than `most` bytes once it is inflated.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most:
                raise ValueError(f"more than {most:,} bytes when inflated")
            found = {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
            if len(found) < len(members):
                raise ValueError("an array is given twice")
            return found
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{where} is corrupt ({_reason(error)}); {remedy}") from error


@contextlib.contextmanager
def refused(trouble: str, remedy: str) -> Iterator[None]:
    """Turns what the operating system refuses into one line: trouble, reason, remedy."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{trouble} ({error.strerror or error}); {remedy}") from error


@contextlib.contextmanager
def _regular(path: str | Path, remedy: str, within: str | Path | None) -> Iterator[IO[bytes]]:
    """An open regular file; what the operating system refuses while it is open is one line, too."""
    with refused(f"{path} cannot be read", remedy):
        descriptor = _open(Path(path), within)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError(f"{path} is not a regular file; {remedy}") from OSError(errno.EINVAL, "not regular")
        with open(descriptor, "rb") as file:
            yield file


def _open(path: Path, within: str | Path | None) -> int:
    """A descriptor; opening never waits for the other end of a pipe."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if within is None:
        return os.open(path, flags)
    *folders, name = path.relative_to(within).parts
    if ".." in (*folders, name):
        raise OSError(errno.EPERM, "outside of the folder")
    here = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = _open_below(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, here)
            os.close(here)
            here = below
        return _open_below(name, flags, here)
    finally:
        os.close(here)


def _open_below(name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and stat.S_ISLNK(
            os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        ):
            raise OSError(errno.ELOOP, LINK) from error
        raise


def _array(content: bytes) -> np.ndarray:
    """One `.npy`. Its header is believed only as far as there are bytes for it."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError("an array of an unknown version")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    begin, count = file.tell(), math.prod(shape)
    if len(content) - begin != dtype.itemsize * count:
        raise ValueError("an array of another size than it says")
    body = np.frombuffer(content, dtype, count, begin) if count else np.empty(0, dtype)
    return body.reshape(shape, order="F" if by_column else "C").copy()


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no finite number")


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _no_number(word)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _require_shallow(content: Any) -> None:
    level = [content]
    for _ in range(_DEPTH):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_DEPTH} deep")


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
