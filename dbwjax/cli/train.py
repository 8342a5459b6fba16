"""`python -m dbwjax.train`: compares waiting rules on one task, end to end."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    0: done. 2: something typed, or found in the run folder, is wrong, or too large for the memory (one
    line says what; nothing is lost). 3: a loss was not finite. 4: another process was lost. 130 and 143: interrupted,
    with a checkpoint to go on from.
    """
    from dbwjax.runtime import processes

    try:
        code = _main(argv)
        return processes.leave(code) if code == 2 else code  # what ends all processes alike can be waited for
    except BaseException as error:
        if processes.is_lost(error):
            return processes.leave(_say(processes.lost_line(), processes.LOST_EXIT))
        if processes.count() > 1:  # the others must not wait for one that fails
            traceback.print_exc()
            _say(f"{type(error).__name__}: {error}", 1)
            return processes.leave(1)
        raise


def _main(argv: Sequence[str] | None) -> int:
    from dbwjax.cli import arguments as words
    from dbwjax.experiments import config as configs
    from dbwjax.runtime import processes

    try:
        config, options, action = words.parse(argv)
        if action == "list":
            from dbwjax.cli.listing import listing

            print(listing())
            return 0
        configs.validate(config, options)
        processes.check(options)
        if action == "print-config":
            print(json.dumps(configs.to_json(config), indent=2))
            return 0
        processes.connect(options)
        from dbwjax.experiments import run

        return run.run_experiment(config, options)
    except ValueError as error:
        if processes.is_lost(error):
            raise
        return _say(error, 2)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # how a device says MemoryError
            return _no_memory(error)
        if not hasattr(error, "exit_code"):
            raise
        return _say(error, error.exit_code)
    except MemoryError as error:
        return _no_memory(error)
    except KeyboardInterrupt:
        return _say("stopped before the first step; nothing is lost", 130)


def _no_memory(error: Exception) -> int:
    reason = str(error).partition("\n")[0]
    return _say(f"not enough memory ({reason}); use fewer --workers or a smaller --batch-size", 2)


def _say(error: object, code: int) -> int:
    from dbwjax.runtime import stderr_filter

    # What was typed may hold line breaks. One write: native threads write there, too, in the middle of two.
    print(f"error: {' '.join(str(error).split())}\n", end="", file=stderr_filter.last_words(), flush=True)
    return code
