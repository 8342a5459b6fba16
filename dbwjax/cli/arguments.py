"""The words of the command line, on argparse; every mistake is one line that names the value and the remedy."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dbwjax import numbers, specs
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
    if "rows" in given and "eval_every" in given:
        raise ValueError("--rows and --eval-every both say where rows of metrics lie; give one")
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    base = PRESETS[preset]()
    # A budget that is typed takes the place of the preset's, of whichever kind.
    if "steps" in given and "seconds" not in given:
        base = dataclasses.replace(base, seconds=None)
    if "seconds" in given and "steps" not in given:
        base = dataclasses.replace(base, steps=None, eval_every=None)
    config = dataclasses.replace(base, **{name: given[name] for name in given if name in fields})
    if "policies" in given and "baseline" not in given and config.baseline not in config.policies:
        config = dataclasses.replace(config, baseline=None)
    options = RunOptions(**{name: given[name] for name in given if name not in fields})
    return config, options


def _train_parser() -> argparse.ArgumentParser:
    made = parser(
        "python -m dbwjax.train",
        "Trains under several waiting rules in the same worlds, and compares their times.",
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
    groups: dict[str, Any] = {}
    for kind in (TrainConfig, RunOptions):
        hints = typing.get_type_hints(kind)
        for one in dataclasses.fields(kind):
            if one.metadata:
                title = one.metadata["group"]
                group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
                _add(group, one, hints[one.name])
    return parser


def _add(group: Any, one: dataclasses.Field, hint: Any) -> None:
    """One option, as its field describes it. Nothing typed is None, so that presets keep their values."""
    said, word = one.metadata, "--" + one.name.replace("_", "-")
    if hint is bool:
        word, action = said.get("negated", word), "store_false" if "negated" in said else "store_true"
        group.add_argument(word, dest=one.name, action=action, default=None, help=said["help"])
        return
    if typing.get_origin(hint) is tuple:
        more: dict[str, Any] = {"nargs": "+", "action": "extend"}
    else:
        kinds = {int: whole, float: number}
        more = {"type": next((kinds[kind] for kind in (hint, *typing.get_args(hint)) if kind in kinds), None)}
    group.add_argument(word, dest=one.name, metavar=said["metavar"], help=said["help"], **more)


def whole(text: str) -> int:
    """A whole number, as an argparse type."""
    return _read(text, lambda: numbers.whole(text, numbers.INT64))


def number(text: str) -> float:
    """A number that float32 holds, or an infinite one, as an argparse type."""
    return _read(text, lambda: numbers.real(text))


def _read(text: str, reader: Callable[[], Any]) -> Any:
    try:
        return reader()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} {error}") from None
