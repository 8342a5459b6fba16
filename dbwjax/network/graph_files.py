"""Reading the links of a graph from a file; `graphs.from_file` makes a graph of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dbwjax.network import tables
from dbwjax.network.graphml import read_graphml
from dbwjax.network.numbering import checked, number
from dbwjax.network.once import once
from dbwjax.network.tables import Column, Header, Row, Table, Unit, quoted, where

Says = Literal["auto", "true", "false"]
"""What the SPEC says of a file; `auto`: nothing."""

LARGEST = 16 << 20
"""Bytes of a GraphML or GML file."""

_REMEDY = "give the path of a file of links"
_ENDS: dict[str, tuple[str, ...]] = {"sender": ("source", "from", "sender"), "receiver": ("target", "to", "receiver")}
_VALUES: dict[str, tuple[str, ...]] = {"latency": ("latency", "seconds"), "bandwidth": ("bandwidth",)}
_UNNAMED = {"sender": Column(0), "receiver": Column(1), "latency": Column(2)}
_NO_VALUES = ("id", "key")  # of GraphML and GML: what a link is called


class Value(NamedTuple):
    """A value of a link as a file has it."""

    at: str  # where, for errors
    text: str
    second: float | None  # how many of its units are a second, by its name


class Link(NamedTuple):
    """A link as a file has it."""

    at: str  # where, for errors
    sender: str
    receiver: str
    latency: float | None  # s
    bandwidth: float | None  # bytes/s


class Found(NamedTuple):
    """A file as it is."""

    links: list[Link]
    nodes: list[str]  # that it names, beside those of its links
    directed: bool | None  # None: it does not say


class Links(NamedTuple):
    """The links between workers 0..N-1."""

    names: tuple[str, ...]  # of the workers, by number
    latency: dict[tuple[int, int], float]  # s, by receiver and sender; a link that goes both ways is here twice
    bandwidth: dict[tuple[int, int], float] | None  # bytes/s; None: the file has none


@once
def read_links(
    workers: int,
    *,
    path: str,
    header: Header = "auto",
    unit: Unit = "auto",
    directed: Says = "auto",
    undirected: Says = "auto",
) -> Links:
    """The links in a file.

    Args:
      workers: N.
      path: its ending says what it is: .csv, .edgelist, .adjlist, .graphml or .gml.
      header: whether the first row of a CSV or edge list is one.
      unit: of latencies.
      directed: `true`: links go one way, from sender to receiver.
      undirected: `true`: links go both ways, whatever the file says.

    Raises:
      ValueError: a row or value that cannot be read, a column that is not known, a node that is not one of the workers,
        a self loop, a link given twice with two values, or a SPEC that contradicts the file.
    """
    header, unit = tables.choice("header", header, Header), tables.choice("unit", unit, Unit)
    directed, undirected = tables.choice("directed", directed, Says), tables.choice("undirected", undirected, Says)
    kind = Path(path).suffix.casefold()
    if kind not in _READERS:
        raise ValueError(f"{path} ends in '{Path(path).suffix}'; use one of {' '.join(_READERS)}")
    found = _READERS[kind](path, header, unit)
    one_way = _one_way(path, found.directed, directed, undirected)
    _require_all_or_none(found.links)
    names = [name for link in found.links for name in (link.sender, link.receiver)]
    numbers = number([*found.nodes, *names], workers, path)
    for link in found.links:
        if link.sender == link.receiver:
            raise ValueError(f"{link.at}: node {link.sender} is linked to itself; leave such links out")
    once_each = _both_ways(found.links) if found.directed is False else found.links
    values = _values(once_each, numbers)
    if not one_way:
        values |= {(j, i): value for (i, j), value in values.items() if (j, i) not in values}
    shown = {place: name for name, place in numbers.items()}
    has_bandwidth = any(link.bandwidth is not None for link in found.links)
    return Links(
        tuple(shown.get(place, str(place)) for place in range(workers)),
        {ends: latency for ends, (latency, _) in values.items()},
        {ends: width for ends, (_, width) in values.items()} if has_bandwidth else None,
    )


def _one_way(path: str, says: bool | None, directed: Says, undirected: Says) -> bool:
    """Whether links go one way: as the SPEC says, else as the file does, else not."""
    told = {word == "true" for word in (directed,) if word != "auto"}
    told |= {word == "false" for word in (undirected,) if word != "auto"}
    if len(told) == 2:
        raise ValueError(f"directed={directed} and undirected={undirected} contradict each other; keep one")
    if told == {True} and says is False:
        raise ValueError(f"{path} says that its links are undirected; leave directed= out")
    return told.pop() if told else bool(says)


def _both_ways(links: Iterable[Link]) -> list[Link]:
    """Links of a file that says that they are undirected, each in both directions."""
    return [one for link in links for one in (link, link._replace(sender=link.receiver, receiver=link.sender))]


def _values(links: Iterable[Link], numbers: Mapping[str, int]) -> dict[tuple[int, int], tuple[float, float]]:
    """Latency and bandwidth by receiver and sender."""
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for link in links:
        ends = numbers[link.receiver], numbers[link.sender]
        value = (link.latency or 0.0, float("inf") if link.bandwidth is None else link.bandwidth)
        if found.setdefault(ends, value) != value:
            raise ValueError(
                f"{link.at}: the link {link.sender} to {link.receiver} is given twice with two values; keep one"
            )
    return found


def _require_all_or_none(links: list[Link]) -> None:
    for name in ("latency", "bandwidth"):
        has = [getattr(link, name) is not None for link in links]
        if any(has) and not all(has):
            link = links[has.index(False)]
            raise ValueError(
                f"{link.at}: the link {link.sender} to {link.receiver} has no {name}, and others have; give it to all"
            )


def _read_csv(path: str, header: Header, unit: Unit) -> Found:
    return _from_table(tables.read_csv(path, _REMEDY, header), unit)


def _read_edges(path: str, header: Header, unit: Unit) -> Found:
    return _from_table(tables.read_spaced(path, _REMEDY, header), unit)


def _from_table(table: Table, unit: Unit) -> Found:
    """Sender, receiver[, seconds]; or columns by name."""
    path = table.path
    known = _UNNAMED if table.header is None else _named(path, table.header)
    links: list[Link] = []
    for row in table.rows:
        try:
            links.append(_of_row(table, row, known, unit))
        except ValueError as error:
            raise table.explained(row, error) from None
    _require_use_of_unit(path, links, unit)
    return Found(links, [], None)


def _of_row(table: Table, row: Row, known: Mapping[str, Column], unit: Unit) -> Link:
    path, cells = table.path, row.cells
    if table.header is None and len(cells) not in (2, 3):
        raise ValueError(
            f"{where(path, row)}: {quoted(','.join(cells))} is not a link; write sender, receiver and, if messages "
            "take time, seconds; or name the columns"
        )
    ends = [known[role].place for role in _ENDS]
    sender, receiver = (checked(cells[place], where(path, row, place)) for place in ends)
    if table.header is None and cells[-1].startswith("{"):
        values = _literal(where(path, row, 2), cells[-1])
    else:
        values = {
            role: Value(where(path, row, column.place), cells[column.place], column.second)
            for role, column in known.items()
            if role in _VALUES and column.place < len(cells)
        }
    return _link(where(path, row), sender, receiver, values, unit)


def _named(path: str, header: Row) -> dict[str, Column]:
    """The columns that a header names."""
    at, remedy = where(path, header), "if it is a link, add header=no"
    try:
        known = tables.columns(at, header.cells, _ENDS | _VALUES, times=("latency",))
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    for role, words in _ENDS.items():
        if role not in known:
            raise ValueError(f"{at}: no column is named {' or '.join(words)}; name one so, or {remedy}")
    return known


def _link(at: str, sender: str, receiver: str, values: Mapping[str, Value], unit: Unit) -> Link:
    """A link from the text of its values."""
    latency = bandwidth = None
    if "latency" in values:
        found = values["latency"]
        latency = tables.time(found.at, found.text, tables.second_of(found.at, unit, found.second))
    if "bandwidth" in values:
        bandwidth = tables.bandwidth(values["bandwidth"].at, values["bandwidth"].text)
    return Link(at, sender, receiver, latency, bandwidth)


def _require_use_of_unit(path: str, links: list[Link], unit: Unit) -> None:
    if unit != "auto" and all(link.latency is None for link in links):
        raise ValueError(f"{path} has no latencies, so unit={unit} changes nothing; leave it out")


def _literal(at: str, text: str) -> dict[str, Value]:
    """The attributes that networkx writes at the end of a line, as a dictionary of Python."""
    try:
        found = _dictionary(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        remedy = "write {'latency': 0.5}, or a number of seconds"
        raise ValueError(f"{at}: {quoted(text)} cannot be read as attributes; {remedy}") from None
    return _attributes(at, found)


def _dictionary(text: str) -> dict[str, str]:
    """A dictionary from words to words or numbers, as they are written."""
    body = ast.parse(text, mode="eval").body if len(text) < 1000 and "\\" not in text else None
    if not isinstance(body, ast.Dict):
        raise ValueError("not a dictionary")
    found: dict[str, str] = {}
    for key, value in zip(body.keys, body.values, strict=True):
        name = key.value if isinstance(key, ast.Constant) else None
        if not isinstance(name, str) or name in found:
            raise ValueError("a key that is no word, or is given twice")
        is_word = isinstance(value, ast.Constant) and isinstance(value.value, str)
        found[name] = str(value.value) if is_word else str(ast.get_source_segment(text, value))  # type: ignore[attr-defined]
    return found


def _attributes(at: str, found: Mapping[str, Any]) -> dict[str, Value]:
    """A link's attributes by role; what is not known is refused."""
    names = [name for name in found if name not in _NO_VALUES]
    known = tables.columns(at, names, _VALUES, times=("latency",), kind="attribute")
    return {role: Value(at, str(found[names[one.place]]), one.second) for role, one in known.items()}


def _read_adjacency(path: str, header: Header, unit: Unit) -> Found:
    """A line a node: its name, and those of the receivers of its links."""
    if header == "yes":
        raise ValueError(f"{path} has no header; leave header= out")
    links, nodes = [], []
    for line, text in enumerate(tables.read_text(path, _REMEDY).split("\n"), start=1):
        at = f"{path}, line {line}"
        names = [checked(name, at) for name in text.partition("#")[0].split()]
        nodes += names[:1]
        links += [Link(at, names[0], name, None, None) for name in names[1:]]
    _require_use_of_unit(path, links, unit)
    return Found(links, nodes, None)


def _read_graphml(path: str, header: Header, unit: Unit) -> Found:
    read = read_graphml(path, tables.read_text(path, _REMEDY, LARGEST))
    return _from_attributes(path, header, unit, *read)


def _read_gml(path: str, header: Header, unit: Unit) -> Found:
    import networkx

    text = tables.read_text(path, _REMEDY, LARGEST)
    try:
        graph = networkx.parse_gml(text, label="id")
        labels = {node: content.get("label") for node, content in graph.nodes(data=True)}
    except Exception as error:  # a parser's errors are of many kinds
        told = str(error).strip().partition("\n")[0] if isinstance(error, networkx.NetworkXError) else ""
        reason = quoted(told, 150) if told else "not the structure of GML, or nested too deeply"
        raise ValueError(
            f"{path} cannot be read as .gml ({reason}); write graph [ node [ id 0 ] edge [ ... ] ]"
        ) from error
    if not all(label is None or isinstance(label, str | int | float) for label in labels.values()):
        raise ValueError(f"{path}: a node's label is no name; write text or a number")
    if None in labels.values() and set(labels.values()) != {None}:
        raise ValueError(f"{path}: some nodes have a label and some have none; give one to all")
    names = {node: str(node if label is None else label) for node, label in labels.items()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"{path}: two nodes have one label; name each once")
    edges = [
        (f"{path}, edge {count}", names[source], names[target], found)
        for count, (source, target, found) in enumerate(graph.edges(data=True), start=1)
    ]
    return _from_attributes(path, header, unit, list(names.values()), edges, graph.is_directed())


def _from_attributes(
    path: str,
    header: Header,
    unit: Unit,
    nodes: list[str],
    edges: Iterable[tuple[str, str, str, Mapping[str, Any]]],
    directed: bool,
) -> Found:
    """Links of a file whose links have attributes by name."""
    if header != "auto":
        raise ValueError(f"{path} has no header; leave header= out")
    links = []
    for at, *ends, found in edges:
        sender, receiver = (checked(name, at) for name in ends)
        links.append(_link(at, sender, receiver, _attributes(at, found), unit))
    _require_use_of_unit(path, links, unit)
    return Found(links, [checked(name, path) for name in nodes], directed)


_READERS: dict[str, Callable[[str, Header, Unit], Found]] = {
    ".csv": _read_csv,
    ".edgelist": _read_edges,
    ".adjlist": _read_adjacency,
    ".graphml": _read_graphml,
    ".gml": _read_gml,
}
