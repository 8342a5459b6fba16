"""A small process that stands between this one and its standard error, for the time when native code aborts it.

When another process of a run freezes or never comes, JAX's coordination client ends this one from a native thread
with pages of log and stack trace, and no Python runs any more. So that a person reads one line all the same,
standard error goes through a filter: it copies everything at once, but drops that native log, and says one line
when the pipe closes after it. The filter ends when the process does, however it dies. It is run by its path,
`python stderr_filter.py`, and imports nothing of the house.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TextIO

_between = False  # whether this process's fd 2 is a pipe to its filter

NATIVE = re.compile(rb"[EFW]\d{4} \d\d:\d\d:\d\d.*(coordination_|preemption_sync|distributed service detected fatal)")
"""A line that begins the native log of the coordination; what follows it is more of the same. Only one that begins with
F, for fatal, says that the process ends."""

LOST = (
    b"error: another process was lost, froze or never came; "
    b"start the same command everywhere to go on from the last checkpoint\n"
)


def stand_between() -> None:
    """Puts the filter behind this process's standard error. Call it before native threads exist.

    `sys.stderr` stays the real one, so that progress bars still see a terminal and no traceback is dropped; what the
    filter must know of, the line that says why the process ends, goes to `last_words`.
    """
    import subprocess

    global _between
    sys.stderr.flush()
    real = os.dup(2)
    reading, writing = os.pipe()
    command = [sys.executable, "-S", os.path.abspath(__file__)]
    subprocess.Popen(command, stdin=reading, stdout=2, start_new_session=True, close_fds=True)
    os.dup2(writing, 2)
    sys.stderr = os.fdopen(real, "w", buffering=1, errors="backslashreplace")
    _between = True
    os.close(reading)
    os.close(writing)


def last_words() -> TextIO | None:
    """Where to say why this process ends: standard error, through the filter where there is one."""
    return sys.__stderr__ if _between else sys.stderr


def main() -> None:
    """Copies standard input to standard output, which is the other process's real standard error."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    kept, native, lost, told = b"", False, False, False
    while block := os.read(0, 1 << 16):
        *lines, kept = (kept + block).split(b"\n")
        for line in lines:
            begins = NATIVE.match(line) is not None
            native, lost = native or begins, lost or (begins and line.startswith(b"F"))
            own = line.rpartition(b"\r")[2].startswith(b"error:")
            if own or not native:
                _write(line + b"\n")
            told = told or own
        # What begins a line is shown at once, for a progress bar ends none; but the native log's beginning is held.
        if kept and not native and not re.match(rb"[EFIW]\d{0,4}( |$)", kept):
            _write(kept)
            kept = b""
    if kept and not native:
        _write(kept)
    if lost and not told:
        _write(LOST)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
