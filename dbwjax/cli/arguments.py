"""The words of the command line, on argparse; every mistake is one line that names the value and the remedy."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from dbwjax import specs
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.presets import PRESETS

_EXAMPLES = """
A SPEC is a name, or a name with settings: name:key=value,key=value. --list shows all of them.

examples:
  python -m dbwjax.train
  python -m dbwjax.train --policies dybw fastest:k=6 full:barrier=neighbours --graph torus:rows=2 --out runs/mine
  python -m dbwjax.train mnist-2nn --data-dir ~/tensorflow_datasets --delays "lognormal:sigma=0.3*slow_workers:factor=4"
"""


class _Parser(argparse.ArgumentParser):
    """Raises one line instead of printing usage and leaving."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown and unknown[1].startswith("-"):
            known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            raise ValueError(f"unknown option {unknown[1]}; {specs.nearest(unknown[1].split('=')[0], known)}")
        if unknown:
            raise ValueError(f"'{unknown[1]}' is one word too many; the command takes one preset, then options")
        raise ValueError(f"{message.replace('argument ', '', 1)}; --help shows what is expected")


def parse(argv: Sequence[str] | None = None) -> tuple[TrainConfig, RunOptions, str]:
    """Reads the command line.

    Returns:
      The preset with what was typed put over it, the options, and what to do: `train`, `list` or `print-config`.

    Raises:
      ValueError: an unknown word or a value of the wrong type.
    """
    typed = vars(_train_parser().parse_args(argv))
    listed, printed = typed.pop("list"), typed.pop("print_config")
    action = "list" if listed else "print-config" if printed else "train"
    config, options = from_typed(typed)
    return config, options, action


def from_typed(typed: dict[str, Any]) -> tuple[TrainConfig, RunOptions]:
    """The preset with what was typed put over it, and the options.

    Raises:
      ValueError: an unknown preset.
    """
    preset = typed.pop("preset")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset '{preset}'; {specs.nearest(preset, PRESETS)}")
    given = {name: value for name, value in typed.items() if value is not None}
    if "policies" in given:
        given["policies"] = tuple(given["policies"])
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(PRESETS[preset](), **{name: given[name] for name in given if name in fields})
    options = RunOptions(**{name: given[name] for name in given if name not in fields})
    return config, options


def _train_parser() -> argparse.ArgumentParser:
    made = parser(
        "python -m dbwjax.train", "Trains under several waiting rules in one world, and compares how long they take."
    )
    add = made.add_argument_group("instead of training").add_argument
    add("--list", action="store_true", help="all names with their settings")
    add("--print-config", action="store_true", help="the configuration as JSON")
    return made


def parser(prog: str, description: str, conflicts: str = "error") -> argparse.ArgumentParser:
    """The words of training, for a command that may add its own.

    Args:
      prog: the command.
      description: one sentence.
      conflicts: `resolve` lets the command replace a word by its own.
    """
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=_EXAMPLES,
        conflict_handler=conflicts,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("preset", nargs="?", default="quickstart", metavar="PRESET", help=", ".join(PRESETS))
    add = parser.add_argument_group("what is compared").add_argument
    add("--policies", nargs="+", action="extend", metavar="SPEC", help="waiting rules; speed-ups are over the last one")
    add("--steps", type=whole, metavar="T", help="iterations of each policy")
    add("--target-accuracy", type=number, metavar="A", help="time to target counts to this test accuracy")
    add("--eval-every", type=whole, metavar="E", help="iterations between evaluations")
    add("--seed", type=whole, metavar="S", help="of delays, batches, parameters, partition and random graphs")
    add = parser.add_argument_group("the network").add_argument
    add("--workers", type=whole, metavar="N", help="how many compute")
    add("--graph", metavar="SPEC", help="who hears whom")
    add("--delays", metavar="SPEC", help="seconds per computation; factors are joined by *")
    add("--latency", type=number, metavar="SECONDS", help="of every message")
    add("--bandwidth", type=number, metavar="BYTES_PER_SECOND", help="of every link")
    add = parser.add_argument_group("what is learned").add_argument
    add("--dataset", metavar="NAME", help="pictures, or a synthetic problem as a SPEC")
    add("--data-dir", metavar="DIR", help="a TFDS folder (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)")
    add("--model", metavar="NAME", help="of pictures (default: the data set's own)")
    add("--partition", metavar="SPEC", help="which samples each worker holds")
    add("--pca", type=whole, metavar="K", help="learn from K principal components")
    add("--batch-size", type=whole, metavar="B", help="samples of one worker's computation")
    add("--learning-rate", type=number, metavar="X", help="the same all the time, for every worker")
    add("--optimizer", metavar="SPEC", help="what each worker does with its gradients")
    add("--dtype", metavar="TYPE", help="in which parameters are kept: float32, or bfloat16 (sums are float32)")
    add = parser.add_argument_group("the run folder").add_argument
    add("--out", metavar="DIR", help="default: runs/PRESET; the same command resumes what it finds there")
    add("--overwrite", action="store_true", default=None, help="start anew in an existing run folder")
    add(
        "--checkpoint-every",
        type=whole,
        metavar="CHUNKS",
        help="chunks (of at most 100 iterations) between checkpoints",
    )
    add("--tensorboard", action="store_true", default=None, help="write event files (extra: tensorboard)")
    add("--no-progress", dest="progress", action="store_false", default=None, help="show no progress bar")
    add("--compile-cache", metavar="DIR", help="keep compiled programs there for later starts")
    add = parser.add_argument_group("devices and hosts").add_argument
    add("--devices", type=whole, metavar="K", help="cut the workers among K devices (default: all that are here)")
    add("--distributed", action="store_true", default=None, help="be one of several processes (jax.distributed)")
    add("--coordinator", metavar="HOST:PORT", help="of process 0; left out, JAX asks Slurm, Open MPI or the TPU")
    add("--processes", type=whole, metavar="P", help="how many there are")
    add("--process-id", type=whole, metavar="I", help="which one this is, from 0")
    add("--patience", type=whole, metavar="SECONDS", help="to wait for a process that does not answer (default: 30)")
    return parser


def whole(text: str) -> int:
    """A whole number, as an argparse type."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None


def number(text: str) -> float:
    """A number, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return value
