"""How far the work is: a bar where a person watches, a line every ten seconds where a file or a pipe does.

In a notebook the bar goes when the work is done: what is kept are results."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from dbwjax.experiments.config import RunOptions
from dbwjax.runtime import processes, streams

EVERY = 10.0
"""Seconds between two lines."""


def in_notebook() -> bool:
    """Whether this is a kernel that a notebook talks to; nothing is imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Progress:
    """Counts simulations; says nothing with `--no-progress`, and in no process but the first.

    Args:
      options: the run's.
      total: simulations.
    """

    def __init__(self, options: RunOptions, total: int):
        self.total, self.done = total, 0
        self._shown = options.progress and processes.is_first() and sys.stderr is not None
        self._told = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._shown and (sys.stderr.isatty() or in_notebook()):
            self._on_terminal(self._open)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._on_terminal(self._bar.close)
        self._shown = False

    def at(self, policy: str, seconds: float | None = None, budget: float | None = None) -> None:
        """Says which policy is at work, and how far: virtual seconds of how many."""
        place = policy if seconds is None else f"{policy}: {seconds:.1f} of {budget:.1f} s"
        if self._bar is not None:
            self._on_terminal(self._bar.set_postfix_str, streams.one_line(place))
        elif self._shown and time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            streams.progress(f"{place}; {self.done} of {self.total} simulations done")

    def update(self, count: int) -> None:
        """Counts simulations that are done."""
        self.done += count
        if self._bar is not None:
            self._on_terminal(self._bar.update, count)

    def _open(self) -> None:
        from tqdm import TqdmWarning

        notebook = in_notebook()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)  # without ipywidgets the bar is text
            from tqdm.auto import tqdm
        self._bar = tqdm(total=self.total, unit=" simulations", leave=not notebook)

    def _on_terminal(self, show: Any, *told: Any) -> None:
        """A terminal may go away; the work goes on."""
        try:
            show(*told)
        except OSError:
            self._bar, self._shown = None, False
