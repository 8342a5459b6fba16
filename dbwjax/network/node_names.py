"""The names that a graph's file and a trace's give to the workers, which must be the same ones."""

from __future__ import annotations

from typing import NamedTuple

from dbwjax import specs
from dbwjax.network.graph_files import Says, read_links
from dbwjax.network.numbering import listed
from dbwjax.network.tables import Header, Unit
from dbwjax.network.trace_files import Columns, read_trace


class _Source(NamedTuple):
    """What one file says."""

    spec: str
    names: tuple[str, ...] | None  # by number; None: it names nobody, or only by their places
    in_order: bool = False  # its SPEC says that places count, whatever the names


def names_of(graph: str, delays: str, workers: int) -> list[str] | None:
    """The names of the workers, by number, from the files that two SPECs name; `None`: their numbers are their names.

    Raises:
      ValueError: as the files' readers, and where two files name other workers, or one names some and the other none.
    """
    sources = [specs.build(graph, {"from_file": _of_graph}, "graph", workers)] if _is(graph, "from_file") else []
    sources += [
        specs.build(one, {"trace": _of_trace}, "delays", workers) for one in delays.split("*") if _is(one, "trace")
    ]
    matched = [source for source in sources if not source.in_order]
    named = [source for source in matched if source.names is not None]
    for source in named[1:]:
        _require_same(named[0], source)
    own = tuple(map(str, range(workers)))
    silent = next((source for source in matched if source.names is None), None)
    if silent is not None and named and named[0].names != own:
        raise ValueError(
            f"{named[0].spec} names the workers ({listed(named[0].names or ())}) and {silent.spec} does not; name its "
            "columns, or add columns=order"
        )
    shown = next((source.names for source in [*named, *sources] if source.names not in (None, own)), None)
    return None if shown is None else list(shown)


def _require_same(one: _Source, other: _Source) -> None:
    assert one.names is not None
    assert other.names is not None
    for here, there in ((one, other), (other, one)):
        alone = [name for name in here.names or () if name not in (there.names or ())]
        if alone:
            raise ValueError(
                f"{here.spec} names {listed(alone)}, and {there.spec} does not; name workers alike, or add "
                "columns=order to the trace"
            )


def _is(spec: str, name: str) -> bool:
    return spec.strip().partition(":")[0].strip() == name


def _of_graph(
    workers: int,
    *,
    path: str,
    header: Header = "auto",
    unit: Unit = "auto",
    directed: Says = "auto",
    undirected: Says = "auto",
) -> _Source:
    found = read_links(workers, path=path, header=header, unit=unit, directed=directed, undirected=undirected)
    return _Source(f"graph {path}", found.names)


def _of_trace(
    workers: int,
    *,
    path: str,
    resample: str = "none",
    header: Header = "auto",
    columns: Columns = "match",
    unit: Unit = "auto",
) -> _Source:
    del resample
    found = read_trace(workers, path=path, header=header, columns=columns, unit=unit)
    return _Source(f"trace {path}", found.names, found.in_order)
