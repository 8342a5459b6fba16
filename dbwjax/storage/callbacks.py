"""Three plain functions that are told of a training while it goes on, and who tells them.

Trackers of commands (`trackers`) and the functions that a person gives `compare` and `train_policy` are the same to
those who train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dbwjax.limits import shown

Where = Mapping[str, Any]
"""A policy in a world: `{"policy": "dybw", "world": 3}`; in a sweep the axes' values stand for the world."""


class Callbacks(NamedTuple):
    """Three functions that watch a training; each may be left out. None of them changes a number.

    They are called by the thread that trains, so that what they take is not trained meanwhile. What they raise ends the
    training, and reaches whoever has called it.

    >>> seen = []
    >>> Callbacks(on_row=lambda row: seen.append(row["test_loss"])).on_end is None
    True
    """

    on_start: Callable[[Where], Any] | None = None
    """`on_start({"policy": ..., "world": ...})`, before the policy's first row in a world. Worlds of one policy are
    trained side by side, so several may have started."""

    on_row: Callable[[Mapping[str, Any]], Any] | None = None
    """`on_row(row)` for every row of metrics as soon as it is known, in the columns of `metrics.jsonl`. The rows of a
    policy in a world come in their order, those of several worlds mixed. If it returns `True`, this row is the last of
    its policy in its world; anything else goes on."""

    on_end: Callable[[Mapping[str, Any]], Any] | None = None
    """`on_end({"policy": ..., "world": ..., "rows": ..., "stopped": ...})` after the last row: how many there were, and
    whether the policy was stopped before its budget."""


def listed(callbacks: Any) -> list[Callbacks]:
    """One `Callbacks`, a sequence of them, or `None`, as a list.

    Raises:
      ValueError: something else, or functions that are none.
    """
    if callbacks is None:
        return []
    every = [callbacks] if isinstance(callbacks, Callbacks) or not isinstance(callbacks, Sequence) else list(callbacks)
    for one in every:
        if not isinstance(one, Callbacks):
            raise ValueError(f"callbacks={shown(one)} are none; use dbwjax.Callbacks(on_row=...), or a list of them")
        for name, function in one._asdict().items():
            if function is not None and not callable(function):
                raise ValueError(f"callbacks: {name}={shown(function)} is no function; give one, or leave it out")
    return every


class Audience:
    """Tells several `Callbacks` of a training.

    Args:
      listeners: them.
    """

    def __init__(self, listeners: Sequence[Callbacks] = ()):
        self.listeners = list(listeners)

    def start(self, where: Where) -> None:
        """A policy begins in a world."""
        for one in self.listeners:
            if one.on_start is not None:
                one.on_start(dict(where))

    def row(self, row: Mapping[str, Any]) -> bool:
        """A row is known; whether somebody asks to stop there."""
        said = [one.on_row(dict(row)) for one in self.listeners if one.on_row is not None]
        return any(answer is True for answer in said)

    def end(self, where: Where, rows: int, stopped: bool) -> None:
        """A policy has ended in a world."""
        for one in self.listeners:
            if one.on_end is not None:
                one.on_end({**where, "rows": rows, "stopped": stopped})
