"""The only opener and the only writer of files.

Reading: `read` opens regular files alone (never a pipe or a device, which could block or never end), and no more of one
than it is told; `read_json` and `read_arrays` also bound what the content may become. Links on the way to a run folder,
to data or to an input are followed, because clusters need them; `within` follows none below a folder.

Writing: whole or not at all, and never through a link.

What cannot be read or written is a `ValueError` of one line: file, reason, remedy.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import quote

import numpy as np

TEXT, DATA = 64 << 20, 2 << 30
"""Bytes of a file of text, and of one of arrays, that are read at most, unless a caller says otherwise."""

_DEPTH = 50  # of JSON


def as_file_name(policy: str) -> str:
    """A SPEC as one part of a path: percent-encoded where a file name cannot have its characters.

    >>> as_file_name("full:weights=lazy"), as_file_name("a/b")
    ('full:weights=lazy', 'a%2Fb')
    """
    return quote(policy, safe=":=,+")


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
    with refused(f"{path} cannot be read", remedy):
        descriptor = _open(Path(path), within)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{path} is not a regular file; {remedy}")
            if found.st_size <= most:
                content = file.read(found.st_size + 1)  # Python sets aside as many bytes as it is asked for
                if len(content) <= most:
                    return content
    raise ValueError(f"{path} is larger than {most:,} bytes; {remedy}")


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
    content = read(path, remedy, most, within)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most:
                raise ValueError(f"more than {most:,} bytes when inflated")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{path} is corrupt ({_reason(error)}); {remedy}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole. Floats come back bit for bit and must be finite."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    replace_file(path, lambda file: file.write(text.encode()))


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls `write(file)` on a draft beside `path` and gives it its name once it is whole and on disk.

    A link of the draft's name, or of the file's, is replaced; what it points to is not touched.
    """
    draft = path.with_name(draft_of(path.name))
    with refused(f"{path} cannot be written", "free some space or use another --out"):
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


def _open(path: Path, within: str | Path | None) -> int:
    """A descriptor; opening never waits for the other end of a pipe."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if within is None:
        return os.open(path, flags)
    *folders, name = path.relative_to(within).parts
    here = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(error.errno, "a link, which is not followed in here") from error
        raise
    finally:
        os.close(here)


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
    body = content[file.tell() :]
    size = dtype.itemsize
    for length in shape:
        size *= length
    if len(body) != size:
        raise ValueError("an array of another size than it says")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if by_column else "C").copy()


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
