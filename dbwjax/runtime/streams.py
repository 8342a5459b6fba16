"""What is said: results on standard output, notes and errors on standard error, each of them one line.

Nothing here raises. Whoever reads may go away, or the disk behind a stream be full: the work is not undone by that.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import TextIO

from dbwjax.runtime import stderr_filter

VALUE, LINE = 200, 2000
"""Characters of a value that is quoted in a line, and of a line."""

_silent: tuple[TextIO, OSError] | None = None  # the standard output that cannot be written, and why
_elsewhere: str | None = None  # where what was shown can be read, too


def one_line(text: object) -> str:
    r"""A text as a line: blanks joined, control characters escaped, long words and quotations and the whole clipped.

    >>> one_line("unknown\ngraph '\x1b[2J'")
    "unknown graph '\\x1b[2J'"
    """
    line = _escaped(" ".join(str(text).split()))
    line = re.sub(rf"'[^']{{{VALUE + 1},}}'", lambda found: f"'{_clipped(found[0][1:-1], VALUE)}'", line)
    line = re.sub(rf"[^\s']{{{VALUE + 1},}}", lambda found: _clipped(found[0], VALUE), line)
    return _clipped(line, LINE)


def show(text: str, elsewhere: str | None = None) -> None:
    """Prints results; their control characters are escaped.

    Args:
      text: one or more lines.
      elsewhere: a file in which the same can be read.
    """
    global _silent, _elsewhere
    _elsewhere = elsewhere
    out = sys.stdout
    if out is None or (_silent is not None and _silent[0] is out):
        return
    text = "\n".join(map(_escaped, text.split("\n"))) + "\n"
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()
    except OSError as error:
        _silent = out, error


def note(text: object) -> None:
    """Says something on standard error that a person should know of, beside the work."""
    _say(sys.stderr, f"note: {one_line(text)}\n")


def progress(text: object) -> None:
    """Says on standard error how far the work is."""
    _say(sys.stderr, f"{one_line(text)}\n")


def error(text: object) -> None:
    """Says why the command ends without its work being done."""
    _say(stderr_filter.last_words(), f"error: {one_line(text)}\n")


def finish(code: int) -> int:
    """Makes sure that what was shown has been written; returns the exit code.

    A reader that has gone away has seen what it wanted. Where the device refuses, results that lie on disk are found
    there; others are lost, which makes 2 of 0.
    """
    global _silent
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            _to_nowhere(sys.stderr)
    out = sys.stdout
    if out is not None and (_silent is None or _silent[0] is not out):
        try:
            out.flush()
        except OSError as refused:
            _silent = out, refused
    if out is None or _silent is None or _silent[0] is not out:
        return code
    reason, _silent = _silent[1], None
    _to_nowhere(out)
    if reason.errno == errno.EPIPE:
        return code
    trouble = f"standard output cannot be written ({reason.strerror or reason})"
    if _elsewhere is not None or code != 0:
        note(f"{trouble}; see {_elsewhere}" if _elsewhere is not None else trouble)
        return code
    error(f"{trouble}; write it to another place")
    return 2


def keep_open() -> None:
    """Gives Python the standard streams that it was started without, and lets none of them fail for its encoding. In a
    command's own process only, whose descriptors are open."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115  # for the life of the process
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _to_nowhere(out: TextIO) -> None:
    """What is still in a stream's buffer goes nowhere, or Python would complain about it at its end."""
    try:
        number = out.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _say(where: TextIO | None, line: str) -> None:
    if where is None:
        return
    try:
        # One write: native threads write there, too, in the middle of two.
        where.write(line)
        where.flush()
    except (OSError, ValueError):
        pass  # nobody reads it


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _clipped(text: str, most: int) -> str:
    """Both ends of a text that is too long."""
    end = most // 3
    return text if len(text) <= most else f"{text[: most - end - 3]}...{text[-end:]}"
