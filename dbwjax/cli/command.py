"""What all commands have in common: exit codes, and one line for every error (`docs/commands.md`).

0: done. 2: something typed, found or surrounding is wrong, or too large for the memory (one line says what; nothing is
lost). 3: a loss was not finite, a delay was no time, or time did not pass. 4: another process was lost. 130 and 143:
interrupted; the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable


def guarded(work: Callable[[], int]) -> int:
    """Runs a command's work; returns its exit code, and says in one line what went wrong."""
    from dbwjax.runtime import environment, interrupts, processes

    try:
        return work()
    except ImportError as error:  # of a part that is imported where it is used
        if (error.name or "").startswith("dbwjax"):
            raise
        return say(f"{error}; run python -m pip install -e . where dbwjax lies", 2)
    except ValueError as error:
        if processes.is_lost(error):
            raise
        return say(error, 2)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # how a device says MemoryError
            return _no_memory(error)
        around = environment.trouble(error)
        if around is not None:
            return say(around, 2)
        if not hasattr(error, "exit_code"):
            raise
        return say(error, error.exit_code)
    except MemoryError as error:
        return _no_memory(error)
    except KeyboardInterrupt:
        return say(f"stopped by SIGINT; {interrupts.LINE}", 130)


def _no_memory(error: Exception) -> int:
    reason = str(error).partition("\n")[0]
    return say(f"not enough memory ({reason}); use fewer --workers or a smaller --batch-size", 2)


def say(error: object, code: int) -> int:
    """Prints an error as one line; returns the code."""
    from dbwjax.runtime import interrupts, streams

    interrupts.let_go()  # or a signal would add a line of its own
    streams.error(error)
    return code
