"""The words of the command line, on argparse; every mistake is one line that names the value and the remedy."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dbwjax import numbers, specs
from dbwjax.cli import conflicts
from dbwjax.experiments import config as configs
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.presets import PRESETS
from dbwjax.runtime import streams

_EXAMPLES = """
A SPEC is a name, or a name with settings: name:key=value,key=value. --list shows all of them.

examples:
  python -m dbwjax.train
  python -m dbwjax.train --policies dybw fastest:k=6 full:barrier=neighbours --graph torus:rows=2 --out runs/mine
  python -m dbwjax.train mnist-2nn --data-dir ~/tensorflow_datasets --delays "lognormal:sigma=0.3*slow_workers:factor=4"
"""

CONFIG_REMEDY = "give a file that --print-config wrote"


class Parser(argparse.ArgumentParser):
    """Raises one line instead of printing usage and leaving."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, of words that are text.

        Raises:
          ValueError: a word that is none.
        """
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            if not word.isprintable() and any("\ud800" <= c <= "\udfff" or c == "\0" for c in word):
                raise ValueError(f"'{word}' is not text; write it in UTF-8, under another name where it is a file's")
        return super().parse_args(words, namespace)

    def print_help(self, file: Any = None) -> None:
        """To standard output, as all that is asked for."""
        streams.show(self.format_help().rstrip("\n"))

    def error(self, message: str) -> NoReturn:
        """Raises `ValueError`."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown and unknown[1].startswith("-"):
            known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            raise ValueError(f"unknown option {unknown[1]}; {specs.nearest(unknown[1].split('=')[0], known)}")
        if unknown:
            takes = "one preset, then options" if self.takes_preset else "what --help shows"
            raise ValueError(f"'{unknown[1]}' is one word too many; the command takes {takes}")
        raise ValueError(f"{message.replace('argument ', '', 1)}; --help shows what is expected")

    takes_preset = False


def parse(argv: Sequence[str] | None = None) -> tuple[TrainConfig, RunOptions, str]:
    """Reads the command line.

    Returns:
      The preset with what was typed put over it, the options, and what to do: `train`, `list` or `print-config`.

    Raises:
      ValueError: an unknown word, a value of the wrong type, or words that contradict one another or say nothing.
    """
    typed = vars(_train_parser().parse_args(argv))
    listed, printed = typed.pop("list"), typed.pop("print_config")
    given = typed_of(typed)
    conflicts.require_one_way(given)
    content = read_config(given)
    config, options = from_typed(given, preset(given) if content is None else config_of(content, given["config"]))
    if listed and (given or printed):
        raise ValueError(f"--list takes no other word; leave {conflicts.word(next(iter(given), 'print_config'))} out")
    conflicts.require_use(given, [config.dataset], options)
    return config, options, "list" if listed else "print-config" if printed else "train"


def typed_of(words: dict[str, Any]) -> dict[str, Any]:
    """The words that were typed."""
    return {name: value for name, value in words.items() if value is not None}


def preset(given: dict[str, Any]) -> TrainConfig:
    """The preset that was typed, or the first one.

    Raises:
      ValueError: an unknown one.
    """
    name = given.get("preset", "quickstart")
    if name not in PRESETS:
        raise ValueError(f"unknown preset '{name}'; {specs.nearest(name, PRESETS)}")
    return PRESETS[name]()


def read_config(given: dict[str, Any]) -> Any:
    """What lies in the file of `--config`; `None` where it was not typed.

    Raises:
      ValueError: it cannot be read.
    """
    if "config" not in given:
        return None
    from dbwjax import files

    return files.read_json(given["config"], CONFIG_REMEDY)


def config_of(content: Any, place: str) -> TrainConfig:
    """The configuration of a training.

    Raises:
      ValueError: it is none; one line that names the file.
    """
    if isinstance(content, dict) and "base" in content:
        raise ValueError(f"{place} is the configuration of a sweep; use python -m dbwjax.sweep")
    try:
        config = configs.from_json(content)
    except ValueError as error:
        raise ValueError(f"{place} is {error}; {CONFIG_REMEDY}") from error
    if config.preset not in PRESETS:
        raise ValueError(f"{place}: unknown preset '{config.preset}'; {specs.nearest(config.preset, PRESETS)}")
    return config


def from_typed(given: dict[str, Any], base: TrainConfig) -> tuple[TrainConfig, RunOptions]:
    """A configuration with what was typed put over it, and the options; words of neither are left alone."""
    if given.get("wandb") in PRESETS:
        raise ValueError(
            f"--wandb {given['wandb']} would be a project; write the preset {given['wandb']} before --wandb"
        )
    given = {name: value for name, value in given.items() if name not in ("preset", "config")}
    given |= {name: tuple(given[name]) for name in ("policies", "world") if name in given}
    fields, options = ({one.name for one in dataclasses.fields(kind)} for kind in (TrainConfig, RunOptions))
    # A budget that is typed takes the place of the configuration's, of whichever kind; so do rows.
    if "rows" in given:
        base = dataclasses.replace(base, eval_every=None)
    if "steps" in given and "seconds" not in given:
        base = dataclasses.replace(base, seconds=None)
    if "seconds" in given and "steps" not in given:
        base = dataclasses.replace(base, steps=None, eval_every=None)
    config = dataclasses.replace(base, **{name: given[name] for name in given if name in fields})
    if "policies" in given and "baseline" not in given and config.baseline not in config.policies:
        config = dataclasses.replace(config, baseline=None)
    return config, RunOptions(**{name: given[name] for name in given if name in options})


def _train_parser() -> Parser:
    made = parser(
        "python -m dbwjax.train",
        "Trains under several waiting rules in the same worlds, and compares their times.",
        _EXAMPLES,
    )
    add = made.add_argument_group("instead of training").add_argument
    add("--list", action="store_true", help="all names with their settings")
    add("--print-config", action="store_true", help="the configuration as JSON")
    return made


def parser(prog: str, description: str, examples: str, own: str = "error") -> Parser:
    """The words of training, for a command that may add its own.

    Args:
      prog: the command.
      description: one sentence.
      examples: a few lines that end its help.
      own: `resolve` lets the command replace a word by its own.
    """
    parser = Parser(
        prog=prog,
        description=description,
        epilog=examples,
        conflict_handler=own,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.takes_preset = True
    parser.add_argument("preset", nargs="?", metavar="PRESET", help=", ".join(PRESETS) + " (default: the first)")
    parser.add_argument("--config", metavar="FILE", help="instead of a preset: what --print-config wrote")
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
        more = {"nargs": "?", "const": said["alone"]} if "alone" in said else {}
        more |= {"type": next((kinds[kind] for kind in (hint, *typing.get_args(hint)) if kind in kinds), None)}
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
