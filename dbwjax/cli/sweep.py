"""`python -m dbwjax.sweep`: what is typed, and what is done with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dbwjax.cli import arguments
from dbwjax.cli.command import guarded
from dbwjax.experiments.config import RunOptions
from dbwjax.experiments.sweep.config import SweepConfig, axis, setting, validate


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, as `command` lists them."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    config, options = parse(argv)
    from dbwjax.experiments.sweep.run import run_sweep

    return run_sweep(config, options)


def parse(argv: Sequence[str] | None = None) -> tuple[SweepConfig, RunOptions]:
    """Reads and checks the command line.

    Raises:
      ValueError: one line about the first word that is wrong.
    """
    typed = vars(_parser().parse_args(argv))
    names = ("graphs", "graph_seeds", "learning_rates", "settings", "delays", "timing_only")
    given = {name: typed.pop(name) for name in names}
    base, options = arguments.from_typed(typed)
    config = SweepConfig(
        base=base,
        graphs=axis("--graphs", given["graphs"], base.graph),
        graph_seeds=given["graph_seeds"],
        delays=axis("--delays", given["delays"], base.delays),
        learning_rates=axis("--learning-rates", given["learning_rates"], base.learning_rate),
        settings=tuple(setting(text) for text in given["settings"] or ()),
        timing_only=given["timing_only"],
    )
    validate(config, options)
    return config, options


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        "python -m dbwjax.sweep", "Runs every combination of the axes under every policy, in batches.", "resolve"
    )
    add = parser.add_argument_group("the axes").add_argument
    add("--graphs", nargs="+", metavar="SPEC", help="who hears whom")
    add("--graph-seeds", type=arguments.whole, metavar="K", help="so many random graphs, the same for all seeds")
    add("--delays", nargs="+", metavar="SPEC", help="seconds per computation")
    add("--learning-rates", nargs="+", type=arguments.number, metavar="X", help="base rates")
    add("--set", dest="settings", action="append", metavar="KEY=V1,V2", help="values of any other option of train")
    add("--timing-only", action="store_true", help="run the clocks alone: no data, no parameters")
    return parser
