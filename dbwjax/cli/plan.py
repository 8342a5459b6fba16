"""`python -m dbwjax.plan TIMES.csv`: whom to wait for on a cluster whose step times were measured, ranked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from dbwjax.cli import arguments
from dbwjax.cli.command import guarded
from dbwjax.runtime import environment, streams

_EXAMPLES = """
TIMES.csv has a column a machine and a row a step (worker0_ms,worker1_ms,...), or the columns step, machine, seconds.
dbwjax.measure(step_fn, "times.csv") writes one from a training loop. docs/plan.md says what is done with it.

examples:
  python -m dbwjax.plan times.csv
  python -m dbwjax.plan times-0.csv times-1.csv --timing-only --report plan.html
  python -m dbwjax.plan times.csv --graphs ring complete --policies full backup:b=1 fastest:k=6 --latency 0.01
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command: 0 with an answer, 2 for what cannot be understood, 3 where a training is not finite."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    given = vars(_parser().parse_args(argv))
    trained = {name: given.pop(name) for name in _TRAINED}
    trained = {name: value for name, value in trained.items() if value is not None}
    if given["timing_only"] and trained:
        word = "--" + next(iter(trained)).replace("_", "-")
        raise ValueError(f"{word} is of the training that --timing-only leaves out; leave one of them out")
    if given["by"] is not None and not given["timing_only"]:
        raise ValueError(f"--by {given['by']} ranks clocks alone; add --timing-only")
    paths, report = given.pop("times"), given.pop("report")
    given["by"] = given["by"] or "iteration"
    from dbwjax.planning import times

    seen = times.read(paths, given.pop("unit"), given.pop("drop_gaps"))  # before anything heavy is imported
    environment.start_jax()
    from dbwjax.planning.plan import plan_cluster
    from dbwjax.runtime import devices

    devices.here()
    found = plan_cluster(seen, **given, training=trained or None, progress=lambda what: streams.note(f"done: {what}"))
    streams.show(found.table())
    if report is not None:
        found.report(report)
        streams.note(f"page: {report}")
    return 0


_TRAINED = ("task", "model", "optimizer", "learning_rate", "batch_size", "target_accuracy", "steps", "worlds")


def _parser() -> arguments.Parser:
    made = arguments.Parser(
        prog="python -m dbwjax.plan",
        description="Ranks waiting rules and topologies for a cluster whose step times were measured.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("times", nargs="+", metavar="TIMES.csv", help="measured step times; several are joined by step")
    add: Any = made.add_argument_group("the times").add_argument
    add("--unit", default="auto", metavar="UNIT", help="s, ms, us or ns (default: what the columns say, else s)")
    add("--drop-gaps", action="store_true", help="leave out steps in which a machine has no time")
    add(
        "--law", default="trace", metavar="LAW", help="best, or a family: draw from the fitted law (default: the trace)"
    )
    add = made.add_argument_group("the cluster").add_argument
    add("--latency", type=arguments.number, default=0.0, metavar="S", help="of a message, seconds")
    add("--bandwidth", type=arguments.number, default=float("inf"), metavar="B", help="bytes a second")
    add("--message-bytes", type=arguments.number, default=0.0, metavar="B", help="of a message")
    add("--graphs", nargs="+", metavar="SPEC", help="topologies to consider (default: docs/plan.md)")
    add("--policies", nargs="+", metavar="SPEC", help="waiting rules to consider (default: docs/plan.md)")
    add = made.add_argument_group("what is learned").add_argument
    add("--timing-only", action="store_true", help="rank by the clocks alone, and train nothing")
    add("--by", metavar="WHAT", help="of clocks alone: iteration (the default) or gradients")
    add("--task", metavar="SPEC", help="data set to learn (default: digits, a stand-in)")
    add("--model", metavar="NAME", help="of the task (default: lrm)")
    add("--optimizer", metavar="SPEC", help="(default: sgd)")
    add("--learning-rate", type=arguments.number, metavar="X", help="(default: 0.1)")
    add("--batch-size", type=arguments.whole, metavar="N", help="(default: 32)")
    add("--target-accuracy", type=arguments.number, metavar="X", help="(default: 95 %% of what is reached)")
    add("--steps", type=arguments.whole, metavar="N", help="iterations of the middle candidate (default: 100)")
    add("--worlds", type=arguments.whole, metavar="N", help="replicates to train in (default: 5)")
    add = made.add_argument_group("how").add_argument
    add("--replicates", type=arguments.whole, default=200, metavar="N", help="how often the trace is redrawn (200)")
    add("--seed", type=arguments.whole, default=0, metavar="N", help="of replicates, graphs and trainings")
    add("--no-sensitivity", dest="sensitivity", action="store_false", help="do not ask what would change the winner")
    add("--report", metavar="FILE", help="write the answer as a page, too")
    return made
