"""`python -m dbwjax.replay RUN`: computes a finished run once more, and compares it with what the run left."""

from __future__ import annotations

from collections.abc import Sequence

from dbwjax.cli import arguments
from dbwjax.cli.command import guarded
from dbwjax.runtime import environment, streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 where everything agrees, 2 for a folder without a run, 3 where something does not agree or is
    not finite."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = arguments.Parser(prog="python -m dbwjax.replay", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a folder that python -m dbwjax.train finished")
    folder = parser.parse_args(argv).run
    environment.start_jax()
    from dbwjax.experiments.replay import replay_run, require_agreement
    from dbwjax.runtime import devices

    devices.here()
    every = []
    for found in replay_run(folder):
        streams.show(str(found))
        every.append(found)
    require_agreement(every)
    return 0
