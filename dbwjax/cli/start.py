"""A command as a process of its own: `python -m dbwjax.NAME` comes here before anything heavy is imported.

Nothing beside the person is imported, signals and streams are in hand, and the surroundings are checked. Then the
command runs; what it makes of its words, and its exit code, are its own business.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a command and ends the process with its exit code."""
    _end_at_signals()
    here = _leave_here_out()
    _open_descriptors()
    from dbwjax.runtime import interrupts

    interrupts.guard()
    from dbwjax.runtime import streams

    streams.keep_open()
    code = _code(main, here)
    interrupts.let_go()
    sys.exit(streams.finish(code))


def _code(main: Callable[[], int], here: str | None) -> int:
    from dbwjax.cli.command import guarded
    from dbwjax.runtime import environment

    def work() -> int:
        environment.prepare(here)
        return main()

    try:
        return guarded(work)
    except SystemExit as ended:  # of `--help`
        return ended.code if isinstance(ended.code, int) else 0


def _end_at_signals() -> None:
    """What `interrupts.guard` does, for the moment in which it is imported, with what is built into Python."""
    import _signal
    import os

    def end(signum: int, frame: object) -> None:
        name = "SIGINT" if signum == _signal.SIGINT else "SIGTERM"
        os.write(2, f"error: stopped by {name}; nothing on disk is lost\n".encode())
        os._exit(128 + signum)

    for signum in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(signum, end)


def _open_descriptors() -> None:
    """Opens standard streams that the process was started without, before another file gets their numbers, and with
    them what native code writes there."""
    import os

    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this


def _leave_here_out() -> str | None:
    """Takes the folder in which the person is off `sys.path`, where `python -m` has put it; returns it."""
    import os

    try:
        here = os.getcwd()
    except OSError:
        here = ""  # it is gone
    if sys.path and sys.path[0] in ("", here):
        return sys.path.pop(0) or here or None
    return None
