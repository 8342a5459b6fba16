"""`python -m dbwjax.replay RUN`: draws a finished run's arrival order again, checks it, and trains on it anew."""

from __future__ import annotations

from collections.abc import Sequence

from dbwjax.cli import arguments
from dbwjax.cli.command import guarded
from dbwjax.runtime import environment, streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 when every order is the recorded one, 1 when one is not, 2 for a folder without a run."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = arguments.Parser(prog="python -m dbwjax.replay", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a folder that python -m dbwjax.train finished")
    folder = parser.parse_args(argv).run
    environment.start_jax()
    from dbwjax.experiments.replay import replay_run
    from dbwjax.runtime import devices

    devices.here()
    same = True
    for found in replay_run(folder):
        order = "the recorded order" if found.same_order else "ANOTHER ORDER than recorded"
        now, before = ("not finite" if loss is None else f"{loss:.6f}" for loss in (found.replayed, found.recorded))
        streams.show(
            f"{found.policy}, world {found.world}: {found.steps} steps in {order}; "
            f"test loss at the end {now} (recorded {before})"
        )
        same &= found.same_order
    return 0 if same else 1
