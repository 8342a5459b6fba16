"""`python -m dbwjax.plan TIMES.csv`: which waiting rule and topology for a cluster whose step times were measured."""

import sys
from types import ModuleType
from typing import Any

from dbwjax.cli.start import run


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from dbwjax.cli.plan import main

    return main(argv)


class _Callable(ModuleType):
    """This module, which is also the function of its name: `dbwjax.plan(...)`, imported before or not."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        from dbwjax.planning.plan import plan

        return plan(*args, **named)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    run(main)
