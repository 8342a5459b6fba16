"""`python -m dbwjax.sweep`: what is typed, and what is done with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbwjax import numbers
from dbwjax.cli import arguments, conflicts
from dbwjax.cli.command import guarded
from dbwjax.runtime import environment, streams

if TYPE_CHECKING:
    from dbwjax.experiments.config import RunOptions, TrainConfig
    from dbwjax.experiments.sweep.config import SweepConfig
    from dbwjax.experiments.sweep.shards import Jobs

_EXAMPLES = """
A SPEC is a name, or a name with settings: name:key=value,key=value. python -m dbwjax.train --list shows all of them.

examples:
  python -m dbwjax.sweep --graphs ring erdos_renyi:p=0.4 --learning-rates 0.1 0.5 --policies dybw full --seeds 3
  python -m dbwjax.sweep --graphs random_regular:degree=4 --graph-seeds 20 --set workers=16,64 --timing-only
  python -m dbwjax.sweep --delays pareto:alpha=2 "uniform*slow_workers:factor=4" --set "partition=iid;shards"

many machines (docs/cluster.md):
  add --out DIR --shard 1/4 on the first of four, 2/4 on the second, ...; then python -m dbwjax.sweep --join DIR/shard-*
"""

_JOIN = ("join", "out", "figures", "tensorboard", "progress")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, as `command` lists them."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    given = arguments.typed_of(vars(_parser().parse_args(argv)))
    if "join" in given:
        return _join(given)
    config, options, jobs, action = read(given)
    from dbwjax.experiments.sweep.config import content

    if action == "print-config":
        streams.show(json.dumps(content(config), indent=2, allow_nan=False))
        return 0
    from dbwjax.experiments.sweep import run

    if action == "print-plan":
        streams.show("\n".join(run.plan(config, options, jobs, given["print_plan"])))
        return 0
    return run.run_sweep(config, options, jobs)


def _join(given: dict[str, Any]) -> int:
    """Joins shards, whose folders hold everything else that a sweep is told."""
    for name in given:
        if name not in _JOIN:
            raise ValueError(f"{conflicts.word(name)} says nothing with --join, whose shards hold it; leave it out")
    environment.start_jax()
    from pathlib import Path

    from dbwjax.experiments import config as configs
    from dbwjax.experiments.sweep.join import join

    base, options = arguments.from_typed(given, arguments.preset({}))
    configs.validate(base, options)
    return join([Path(folder) for folder in given["join"]], options)


def parse(argv: Sequence[str] | None = None) -> tuple[SweepConfig, RunOptions, Jobs, str]:
    """Reads and checks the command line; as `read`."""
    return read(arguments.typed_of(vars(_parser().parse_args(argv))))


def read(given: dict[str, Any]) -> tuple[SweepConfig, RunOptions, Jobs, str]:
    """Checks the words that were typed.

    Returns:
      The sweep, the options, how it is shared out, and what to do: `sweep`, `print-config` or `print-plan`.

    Raises:
      ValueError: one line about the first word that is wrong.
    """
    given = dict(given)
    printed, shards = given.pop("print_config", False), given.pop("print_plan", None)
    environment.start_jax()
    from dbwjax.experiments.sweep.config import setting, validate

    settings = [setting(text) for text in given.get("settings", ())]
    conflicts.require_one_way(given, [name for name, _ in settings])
    conflicts.require_of_sweeps(given)
    jobs = _jobs(given, shards)
    told = _told(given)
    trained = {name: value for name, value in given.items() if name != "delays"}  # an axis here
    base, options = arguments.from_typed(trained, told.base)
    config = _over(told, base, given, settings)
    if config.timing_only:
        conflicts.require_of_clocks(given)
    conflicts.require_use(given, dict(config.settings).get("dataset", (base.dataset,)), options)
    validate(config, options)
    return config, options, jobs, "print-config" if printed else "print-plan" if shards is not None else "sweep"


def _jobs(given: dict[str, Any], shards: int | None) -> Jobs:
    """How a sweep is cut and shared out.

    Raises:
      ValueError: a shard that is none, or a number that is not 1 or more.
    """
    from dbwjax.experiments.sweep.shards import Jobs, shard_of

    for name, value in (("print_plan", shards), ("at_once", given.get("at_once"))):
        if value is not None and not 1 <= value <= numbers.LARGEST:
            raise ValueError(f"{conflicts.word(name)} {value} is out of range; use 1 or more")
    if shards is not None and "shard" in given:
        raise ValueError("--print-plan shows all shards; leave --shard out")
    shard = shard_of(given["shard"]) if "shard" in given else None
    if shard is not None and "tensorboard" in given:
        raise ValueError("--tensorboard is written once all rows are there; give it to --join, not to --shard")
    return Jobs(shard, given.get("at_once"))


def _told(given: dict[str, Any]) -> SweepConfig:
    """The sweep that typed words are put over: of `--config`, or of a preset or a training without axes.

    Raises:
      ValueError: it is none.
    """
    from dbwjax.experiments.sweep.config import SweepConfig, from_content

    content = arguments.read_config(given)
    if isinstance(content, dict) and "base" in content:
        base = arguments.config_of(content["base"], given["config"])
        try:
            return from_content(content, base)
        except ValueError as error:
            raise ValueError(f"{given['config']} is {error}; {arguments.CONFIG_REMEDY}") from error
    base = arguments.preset(given) if content is None else arguments.config_of(content, given["config"])
    return SweepConfig(base, (base.graph,), None, (base.delays,), (base.learning_rate,), (), False)


def _over(told: SweepConfig, base: TrainConfig, given: dict[str, Any], settings: list) -> SweepConfig:
    """A sweep with what was typed put over it; a word for a single value ends the axis of it that a file has.

    Raises:
      ValueError: a value that an axis names twice.
    """
    from dbwjax.experiments.sweep.config import axis

    graphs = given.get("graphs") or ([base.graph] if "graph" in given else told.graphs)
    rates = given.get("learning_rates") or ([base.learning_rate] if "learning_rate" in given else told.learning_rates)
    typed = {*given, *(name for name, _ in settings)}
    return dataclasses.replace(
        told,
        base=base,
        graphs=axis("--graphs", graphs, "graph"),
        graph_seeds=given.get("graph_seeds", told.graph_seeds),
        delays=axis("--delays", given.get("delays") or told.delays, "delays"),
        learning_rates=axis("--learning-rates", rates, "learning_rate"),
        settings=(*(one for one in told.settings if one[0] not in typed), *settings),
        timing_only=told.timing_only or "timing_only" in given,
    )


def _parser() -> arguments.Parser:
    parser = arguments.parser(
        "python -m dbwjax.sweep",
        "Runs every combination of the axes under every policy, in batches.",
        _EXAMPLES,
        "resolve",
    )
    add = parser.add_argument_group("the axes").add_argument
    more: dict[str, Any] = {"nargs": "+", "action": "extend"}
    add("--graphs", metavar="SPEC", help="who hears whom", **more)
    add("--graph-seeds", type=arguments.whole, metavar="K", help="so many random graphs, the same for all seeds")
    add("--delays", metavar="SPEC", help="seconds per computation", **more)
    add("--learning-rates", type=arguments.number, metavar="X", help="base rates", **more)
    add("--set", dest="settings", action="append", metavar="KEY=V1,V2", help="values of any other option of train")
    add("--timing-only", action="store_const", const=True, help="run the clocks alone: no data, no parameters")
    add = parser.add_argument_group("on several machines (docs/cluster.md)").add_argument
    add("--shard", metavar="I/N", help="run one of N parts, in a folder of its own in --out; I counts from 1")
    add("--at-once", type=arguments.whole, metavar="K", help="cut into blocks of at most K simulations")
    add = parser.add_argument_group("instead of a sweep").add_argument
    add("--join", nargs="+", action="extend", metavar="DIR", help="make one sweep of these folders of its shards")
    add("--print-plan", type=arguments.whole, metavar="N", help="what each of N shards would run, as JSON lines")
    add("--print-config", action="store_const", const=True, help="the configuration as JSON")
    return parser
