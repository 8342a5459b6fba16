"""Reading the links of a graph from a file; `graphs.from_file` makes a graph of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_links(file: Path, workers: int) -> tuple[list[tuple[int, int]], dict[tuple[int, int], float]]:
    """The links in a file, and the seconds of latency of those that state it.

    Raises:
      ValueError: a row that cannot be read, a node outside 0..N-1, a self loop, an unknown kind of file.
    """
    return _read_csv(file, workers) if file.suffix == ".csv" else _read_networkx(file, workers)


def _read_csv(file: Path, workers: int) -> tuple[list[tuple[int, int]], dict[tuple[int, int], float]]:
    links, seconds = [], {}
    with open(file, newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and not cells[0].lstrip("-").isdigit()):
                continue
            where = f"{file}, line {number}: '{','.join(cells)}'"
            try:
                i, j = int(cells[0]), int(cells[1])
                wait = float(cells[2]) if len(cells) > 2 else 0.0
            except (ValueError, IndexError):
                raise ValueError(f"{where} is not a link; write two node numbers (and seconds of latency)") from None
            _check_link(where, i, j, workers)
            if not 0 <= wait < math.inf:
                raise ValueError(f"{where}: latency {wait:g} is not a time; use 0 or more seconds")
            links.append((i, j))
            seconds[i, j] = seconds[j, i] = wait
    return links, seconds


def _read_networkx(file: Path, workers: int) -> tuple[list[tuple[int, int]], dict[tuple[int, int], float]]:
    import networkx

    readers: dict[str, Callable[..., Any]] = {
        ".graphml": networkx.read_graphml,
        ".gexf": networkx.read_gexf,
        ".gml": networkx.read_gml,
        ".adjlist": networkx.read_adjlist,
        ".edgelist": networkx.read_edgelist,
        ".net": networkx.read_pajek,
    }
    if file.suffix not in readers:
        raise ValueError(f"{file} ends in '{file.suffix}'; use .csv or one of {' '.join(readers)}")
    try:
        found = readers[file.suffix](file)
    except Exception as error:  # readers raise whatever their parsers raise
        raise ValueError(f"{file} cannot be read as {file.suffix}: {error}") from error
    names = list(found.nodes)
    if all(str(name).isdigit() for name in names):
        number = {name: int(str(name)) for name in names}
    else:
        number = {name: n for n, name in enumerate(sorted(names, key=str))}
    links = [(number[edge[0]], number[edge[1]]) for edge in found.edges]
    for i, j in links:
        _check_link(str(file), i, j, workers)
    return links, {}


def _check_link(where: str, i: int, j: int, workers: int) -> None:
    for node in (i, j):
        if not 0 <= node < workers:
            raise ValueError(
                f"{where}: node {node} is not one of {workers} workers; use 0 to {workers - 1}, or set workers"
            )
    if i == j:
        raise ValueError(f"{where}: node {i} is linked to itself; leave such links out")
