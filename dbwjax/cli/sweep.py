"""`python -m dbwjax.sweep`: graphs, seeds and settings by the hundred, policies compared in pairs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 done, 2 something typed or found is wrong, 130 interrupted.

    The same command goes on from the last finished block.
    """
    from dbwjax.experiments.sweep.config import parse

    try:
        config, options = parse(argv)
        from dbwjax.experiments.sweep.run import run_sweep

        return run_sweep(config, options)
    except (ValueError, MemoryError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # how a device says MemoryError
            raise
        reason = str(error).partition("\n")[0]
        print(f"error: not enough memory ({reason}); use fewer --workers or a smaller --batch-size", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on from the last finished block", file=sys.stderr)
        return 130
