"""`python -m dbwjax.report RUN [RUN ...]`: makes the page of a finished run or sweep, or one that compares runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dbwjax.cli import arguments
from dbwjax.cli.command import guarded
from dbwjax.runtime import environment, streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 where the page is written, 2 for folders without finished runs."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = arguments.Parser(prog="python -m dbwjax.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders that dbwjax.train or dbwjax.sweep finished")
    parser.add_argument("--out", metavar="FILE", help="default: report.html in RUN, or here for several")
    typed = parser.parse_args(argv)
    if typed.out == "":
        raise ValueError("--out names no file; name one, or leave it out")
    environment.start_jax()
    from dbwjax.experiments import pages

    if len(typed.runs) == 1:
        path = pages.report(typed.runs[0], typed.out)
    else:
        path = pages.report_several(typed.runs, Path(typed.out or pages.PAGE))
    streams.show(f"page: {path}")
    return 0
