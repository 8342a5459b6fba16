"""`python -m dbwjax.report RUN [RUN ...]`: makes the page of a finished run or sweep, or one that compares runs."""

from __future__ import annotations

import re
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
    parser.add_argument("--iterations", metavar="A:B", help="a Gantt chart of iterations A to B, from 0, of one RUN")
    parser.add_argument(
        "--what-if", action="store_true", help="run the clocks again with each slow worker as fast as the median"
    )
    parser.add_argument(
        "--trace-events", metavar="FILE", help="who waited for whom, for Perfetto (compressed if it ends in .gz)"
    )
    typed = parser.parse_args(argv)
    extra = {"--iterations": typed.iterations, "--what-if": typed.what_if, "--trace-events": typed.trace_events}
    given = [word for word, value in extra.items() if value]
    if len(typed.runs) > 1 and given:
        raise ValueError(f"{given[0]} is of one run, and {len(typed.runs)} are named; name one")
    iterations = None if typed.iterations is None else iterations_of(typed.iterations)
    if typed.out == "":
        raise ValueError("--out names no file; name one, or leave it out")
    environment.start_jax()
    from dbwjax.experiments import pages

    if len(typed.runs) == 1:
        if typed.what_if:
            pages.ask_what_if(typed.runs[0])
        if typed.trace_events is not None:
            streams.show(pages.write_trace(typed.runs[0], typed.trace_events))
        path = pages.report(typed.runs[0], typed.out, iterations)
    else:
        path = pages.report_several(typed.runs, Path(typed.out or pages.PAGE))
    streams.show(f"page: {path}")
    return 0


def iterations_of(typed: str) -> tuple[int, int]:
    """The first and the last of `A:B`.

    Raises:
      ValueError: it is not that.
    """
    found = re.fullmatch("([0-9]{1,9}):([0-9]{1,9})", typed)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f"--iterations '{typed}' is no range; use A:B with A at most B, as 40:60")
    return int(found[1]), int(found[2])
