"""Ctrl-C and SIGTERM: one line and exit code 130 or 143, at any instant, also during an import or in native code.

A started command calls `guard` as the first thing it does. From then on a thread reads the signals that arrive. Outside
`collected` it ends the process at once, as a kill would, which loses nothing: files are written whole or not at all.
Inside, the training is told and keeps a checkpoint first; a second signal of a kind acts at once there, too. No
`KeyboardInterrupt` is raised, so none can end up in a traceback.

A function that is called in another's process (a test, a notebook) has no guard, and Python's own handlers stay.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LINE = "nothing on disk is lost"
"""What is said of a command that is ended at once."""

_guarded = False  # whether this process is a command's own
_pending: list[int] | None = None  # signals that have arrived, inside `collected`
_last_word = threading.Lock()  # whoever holds it says how the process ends; it is never given back
_over = False


def guard() -> None:
    """From now on SIGINT and SIGTERM end this process, which must be a command's own. In its main thread only."""
    global _guarded
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _guarded = True
    arm()
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()


def arm() -> None:
    """Takes the signals back, where `guard` was called and a library has taken them since."""
    if _guarded:
        for signum in SIGNALS:
            signal.signal(signum, _nothing)  # the thread hears of it by the wakeup file, sooner than Python code could


def let_go() -> None:
    """From now on signals do nothing, where `guard` was called: the command ends by itself, and only says how."""
    global _over
    if _guarded and not _over:
        _last_word.acquire()
        _over = True
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, to be obeyed when it suits; a second one of a kind acts at once."""
    global _pending
    found: list[int] = []

    def note(signum: int, frame: Any) -> None:
        found.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    if _guarded:
        arm()
        _pending = found
        try:
            yield found
        finally:
            _pending = None
        if found:  # since the last look
            _end(found[0])
        return
    before = {signum: signal.signal(signum, note) for signum in SIGNALS}
    try:
        yield found
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _watch(reading: int) -> None:
    while True:
        for signum in os.read(reading, 64):
            _obey(signum)


def _obey(signum: int) -> None:
    found = _pending
    if signum not in SIGNALS:
        return
    if found is not None and signum not in found:
        found.append(signum)
    else:
        _end(signum, bar=found is not None and os.isatty(2))


def _end(signum: int, bar: bool = False) -> None:
    """Ends the process, unless it is about to end by itself; `bar`: there may be one on the terminal's line."""
    if _last_word.acquire(blocking=False):
        line = f"error: stopped by {signal.Signals(signum).name}; {LINE}\n"
        try:
            os.write(
                2, ("\n" * bar + line).encode()
            )  # not through `sys.stderr`, which the main thread may be writing to
        finally:
            os._exit(128 + signum)


def _nothing(signum: int, frame: Any) -> None:
    """A handler of Python's, without which nothing is written to the wakeup file."""
