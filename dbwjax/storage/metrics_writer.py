"""The one writer of metrics of a run or a sweep: the file, and behind it whoever else is to hear of every row."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dbwjax.storage.callbacks import Audience, Callbacks
from dbwjax.storage.metrics_log import MetricsLog, NoLog, plain


def where_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The policy and the world of a row: what stands before its number in the grid.

    >>> where_of({"policy": "full", "world": 0, "row": 3, "virtual_time": 1.5})
    {'policy': 'full', 'world': 0}
    """
    return dict(itertools.takewhile(lambda item: item[0] != "row", row.items()))


class MetricsWriter:
    """Writes rows to the log, and tells trackers.

    Trackers are told of a policy in a world from its first row on, also by a resumed command: of what finished blocks
    and the checkpoint hold, too. What they have heard before they know themselves.

    Args:
      log: `metrics.jsonl`, or nothing.
      trackers: told of everything.
    """

    def __init__(self, log: MetricsLog | NoLog | None = None, trackers: Sequence[Callbacks] = ()):
        self.log = NoLog() if log is None else log
        self.audience = Audience(trackers)
        self._rows: dict[tuple, int] = {}

    def restart(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Begins the log anew with the rows of finished blocks; trackers do not mind their order."""
        self.log.restart(rows)

    def resume(self, rows: Sequence[Mapping[str, Any]], budgets: Mapping[tuple, float]) -> None:
        """Begins with the rows of blocks that an earlier command has finished.

        Args:
          rows: theirs.
          budgets: seconds of each world, by its values.
        """
        self.log.restart(rows)
        if not self.audience.listeners:
            return
        by: dict[tuple, list[Mapping[str, Any]]] = {}
        for row in rows:
            by.setdefault(tuple(where_of(row).values()), []).append(row)
        for own in by.values():
            where = where_of(own[0])
            self.audience.start(where)
            for row in own:
                self.audience.row(row)
            early = own[-1]["virtual_time"] < budgets[tuple(where.values())[1:]]
            self.audience.end(where, len(own), early)

    def begin(self, policy: str, worlds: Sequence[Mapping[str, Any]]) -> None:
        """A policy begins in some worlds, named by their values."""
        for values in worlds:
            self.audience.start(plain({"policy": policy, **values}))

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self.log.append(row)
        if self.audience.listeners:
            key = tuple(where_of(row).values())
            self._rows[key] = self._rows.get(key, 0) + 1
            self.audience.row(row)

    def end(self, policy: str, worlds: Sequence[Mapping[str, Any]], stopped: bool) -> None:
        """A policy has ended in some worlds; all its rows have been added."""
        for values in worlds:
            where = plain({"policy": policy, **values})
            self.audience.end(where, self._rows.pop(tuple(where.values()), 0), stopped)
