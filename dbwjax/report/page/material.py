"""What a page is made of: the numbers of one comparison, and how to get them again. No configuration, no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

Row = Mapping[str, Any]
Timelines = Mapping[str, Mapping[str, Mapping[str, Any]]]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Provenance(NamedTuple):
    """How to get the same numbers again."""

    command: str | None = None  # as it is typed in a shell; None: made in Python
    config: str | None = None  # JSON for `--config`, where the command reads it as `config.json`
    versions: Mapping[str, str] = _NOTHING
    differs: Sequence[tuple[str, str, str]] = ()  # option, in the preset, here
    preset: str = ""
    settings: Sequence[tuple[str, str]] = ()  # every option and its value
    citation: str = ""  # BibTeX
    breaks: Sequence[tuple[str, str]] = ()  # what breaks: as it was typed, and in words


class Material(NamedTuple):
    """One run, one sweep, or one comparison in Python."""

    name: str  # of the folder, or what a caller calls it
    date: str  # when its numbers were complete
    rows: Sequence[Row]
    worlds: Sequence[Mapping[str, Any]]  # as in `worlds.json`
    summary: Mapping[str, Any]  # as in `summary.json`
    timelines: Timelines = _NOTHING  # by policy and world; empty: not kept
    picture: Any = None  # `network.GraphPicture`; None: not known
    provenance: Provenance = Provenance()
    what_if: Mapping[str, Any] | None = None  # as in `what_if.json`; None: not asked
    iterations: tuple[int, int] | None = None  # first and last of a Gantt chart that was asked for

    @property
    def policies(self) -> list[str]:
        """SPECs in the order in which they are shown."""
        return list(self.summary["cells"][0]["policies"])

    @property
    def is_sweep(self) -> bool:
        """Whether worlds are named by axes, not by number alone."""
        return "world" not in self.worlds[0]

    def cells(self) -> Iterator[tuple[Mapping[str, Any], list[Row], list[Mapping[str, Any]]]]:
        """Each cell of the summary, with its own rows and worlds."""
        names = list(self.summary["cells"][0]["values"])
        rows, worlds = (_grouped(every, names) for every in (self.rows, self.worlds))
        for cell in self.summary["cells"]:
            key = tuple(cell["values"].values())
            yield cell, rows[key], worlds[key]


def _grouped(every: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[tuple, list[Mapping[str, Any]]]:
    found: dict[tuple, list[Mapping[str, Any]]] = {}
    for one in every:
        found.setdefault(tuple(one[name] for name in names), []).append(one)
    return found
