"""What all commands have in common: exit codes, and one line for every error.

0: done. 2: something typed, or found in the run folder, is wrong, or too large for the memory (one line says what;
nothing is lost). 3: a loss was not finite, a delay was no time, or time did not pass. 4: another process was lost.
130 and 143: interrupted; the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable


def guarded(work: Callable[[], int]) -> int:
    """Runs a command's work; returns its exit code, and says in one line what went wrong."""
    from dbwjax.runtime import processes

    try:
        return work()
    except ValueError as error:
        if processes.is_lost(error):
            raise
        return say(error, 2)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # how a device says MemoryError
            return _no_memory(error)
        if not hasattr(error, "exit_code"):
            raise
        return say(error, error.exit_code)
    except MemoryError as error:
        return _no_memory(error)
    except KeyboardInterrupt:
        return say("stopped before the first step; nothing is lost", 130)


def _no_memory(error: Exception) -> int:
    reason = str(error).partition("\n")[0]
    return say(f"not enough memory ({reason}); use fewer --workers or a smaller --batch-size", 2)


def say(error: object, code: int) -> int:
    """Prints an error as one line; returns the code."""
    from dbwjax.runtime import stderr_filter

    # What was typed may hold line breaks. One write: native threads write there, too, in the middle of two.
    print(f"error: {' '.join(str(error).split())}\n", end="", file=stderr_filter.last_words(), flush=True)
    return code
