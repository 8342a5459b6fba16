"""The command that repeats a run or a sweep: a preset and the fewest words that differ from it."""

from __future__ import annotations

import dataclasses
import math
import shlex
from typing import Any

from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.presets import PRESETS
from dbwjax.experiments.sweep.config import SweepConfig

CONFIG = "config.json"
"""The file that stands for a configuration which no words say."""


def command_of(config: TrainConfig | SweepConfig) -> tuple[str, bool]:
    """What is typed in a shell to get the same numbers.

    Args:
      config: of the run or the sweep.

    Returns:
      The command, and whether it reads `config.json`, which then must lie beside it.
    """
    sweeps = isinstance(config, SweepConfig)
    base = config.base if isinstance(config, SweepConfig) else config
    words = _words(base)
    if words is not None and isinstance(config, SweepConfig):
        axes = _axes(config)
        words = None if axes is None else [*words, *axes]
    module = f"dbwjax.{'sweep' if sweeps else 'train'}"
    if words is None:
        return f"python -m {module} --config {CONFIG}", True
    preset = [] if base.preset == "quickstart" else [base.preset]
    return " ".join(["python", "-m", module, *map(_quoted, [*preset, *words])]), False


def _words(config: TrainConfig) -> list[str] | None:
    """The options that differ from the preset; `None`: some difference cannot be typed."""
    preset = PRESETS[config.preset]()
    rows_are_read = config.eval_every is None
    found: list[str] = []
    for field in dataclasses.fields(TrainConfig):
        value, before = getattr(config, field.name), getattr(preset, field.name)
        if value == before or not field.metadata or (field.name == "rows" and not rows_are_read):
            continue
        if value is None:
            # A budget that is typed takes the other's place; nothing else can be taken back.
            if field.name not in ("seconds", "steps") or (config.seconds is None) == (config.steps is None):
                return None
            continue
        word = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            if not value:
                return None
            found.append(word)
        elif isinstance(value, tuple):
            found += [word, *value]
        else:
            found += [f"{word}={value}"] if str(value).startswith("-") else [word, _number(value)]
    return found


def _axes(config: SweepConfig) -> list[str] | None:
    """The axes as words; `None`: a value cannot be typed, such as nothing in a setting."""
    base, found = config.base, list[str]()
    if config.graphs != (base.graph,):
        found += ["--graphs", *config.graphs]
    if config.graph_seeds is not None:
        found += ["--graph-seeds", str(config.graph_seeds)]
    if config.delays != (base.delays,):
        found += ["--delays", *config.delays]
    if config.learning_rates != (base.learning_rate,):
        found += ["--learning-rates", *map(_number, config.learning_rates)]
    for name, values in config.settings:
        shown = [_number(value) for value in values]
        texts = any(isinstance(value, str) for value in values)
        if any(value is None or isinstance(value, bool) for value in values) or any(";" in one for one in shown):
            return None
        odd = texts and any("," in one or ":" in one for one in shown)
        found += ["--set", f"{name}={(';' if odd else ',').join(shown)}"]
    return [*found, *(["--timing-only"] if config.timing_only else [])]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "inf" if value == math.inf else repr(int(value)) if value.is_integer() and value < 1e15 else repr(value)
    return str(value)


def _quoted(word: str) -> str:
    return shlex.quote(word)
