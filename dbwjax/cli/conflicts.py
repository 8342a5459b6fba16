"""Words of the command line that contradict one another, or that nothing would read: refused, never dropped.

Of a word that is typed twice the last one counts, as everywhere; those that take several values add them up.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable

from dbwjax import specs
from dbwjax.experiments.config import RunOptions

LEARNED = (
    *("dataset", "data_dir", "model", "partition", "pca", "batch_size", "optimizer", "schedule", "dtype"),
    *("learning_rate", "learning_rates", "target_accuracy", "until_target", "bandwidth"),
)
"""Words that clocks alone do not read: messages have no size where nothing is learned."""

ROWS = ("rows", "eval_every", "checkpoint_every")
"""Clocks alone leave one row each, at the budget, and no checkpoint."""

HOSTS = ("distributed", "coordinator", "processes", "process_id", "patience", "timelines", "debug")
"""Words of training that a sweep has no use for."""

_BY_DATA = ("data_dir", "model", "pca", "partition", "target_accuracy", "until_target")
_TWO_WAYS = (("graph", "graphs"), ("learning_rate", "learning_rates"), ("rows", "eval_every"), ("preset", "config"))
_SAID = {"preset": "PRESET", "settings": "--set", "progress": "--no-progress"}


def word(name: str) -> str:
    """The word of a field, as it is typed."""
    return _SAID.get(name) or "--" + name.replace("_", "-")


def require_one_way(given: Collection[str], settings: Iterable[str] = ()) -> None:
    """Refuses two words for one thing.

    Args:
      given: the fields that were typed.
      settings: the fields that `--set` gives values.

    Raises:
      ValueError: one line that names both.
    """
    for one, other in _TWO_WAYS:
        if one in given and other in given:
            raise ValueError(f"{word(one)} and {word(other)} say the same in two ways; give one of them")
    for name in settings:
        if name in given:
            raise ValueError(f"{word(name)} and --set {name} both give it values; give one of them")


def require_use(given: Collection[str], datasets: Collection[str], options: RunOptions) -> None:
    """Refuses words that nothing would read.

    Args:
      given: the fields that were typed.
      datasets: SPECs of all that may be learned.
      options: of the run.

    Raises:
      ValueError: one line that names the word, and why.
    """
    if "patience" in given and not options.distributed:
        raise ValueError("--patience says nothing without --distributed; add it, or leave --patience out")
    for name in filter(given.__contains__, _BY_DATA):  # the table of data sets needs JAX
        reasons = [_unread(spec, name) for spec in datasets]
        if all(reasons):
            raise ValueError(f"{word(name)} does nothing: {reasons[0]}; leave it out")


def require_of_clocks(given: Iterable[str]) -> None:
    """Refuses words that clocks alone do not read.

    Raises:
      ValueError: one line.
    """
    for name in given:
        if name in (*LEARNED, *ROWS):
            raise ValueError(f"{word(name)} changes nothing with --timing-only; leave one of them out")


def require_of_sweeps(given: Iterable[str]) -> None:
    """Refuses words that a sweep has no use for.

    Raises:
      ValueError: one line.
    """
    for name in given:
        if name in HOSTS:
            raise ValueError(f"{word(name)} does nothing in a sweep; leave it out")


def _unread(dataset: str, name: str) -> str | None:
    """Why a data set does not read a word; `None`: it does, or nobody knows the data set."""
    from dbwjax.tasks.datasets import DATASETS, IMAGES, WITHOUT_ACCURACY

    kind, _ = specs.parse(dataset)
    if kind not in DATASETS:
        return None
    if name == "data_dir":
        return None if kind in IMAGES else f"dataset '{kind}' is read from no folder"
    if name in ("target_accuracy", "until_target"):
        return f"dataset '{kind}' has no accuracy" if kind in WITHOUT_ACCURACY else None
    takes = name in inspect.signature(DATASETS[kind]).parameters
    return None if takes else f"dataset '{kind}' is synthetic and has no {name}"
