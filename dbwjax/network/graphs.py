"""Who is connected: builders of graphs, each connected or an error, and the table `GRAPHS`.

Every builder takes the number of workers and keyword settings and returns padded neighbour lists. The regular ones are
plain NumPy; random ones come from networkx, which is imported when it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dbwjax import numbers, specs
from dbwjax.limits import divisors, real, require_count, whole
from dbwjax.network.assembly import adjacency as adjacency
from dbwjax.network.assembly import delivery as delivery
from dbwjax.network.assembly import from_adjacency, from_links, from_lists, with_latency
from dbwjax.network.assembly import pad as pad
from dbwjax.network.assembly import with_links as with_links
from dbwjax.network.graph_files import Links, Says, read_links
from dbwjax.network.properties import is_connected, pieces
from dbwjax.network.tables import Header, Unit
from dbwjax.types import Graph

TRIES = 100
"""Random graphs are drawn again, so many times at most, until one is connected."""

HOPELESS = 14.0
"""Expected nodes without a link beyond which no random graph is drawn: one in a million is connected (e^-14)."""

_LISTED = 2000  # bytes of a worker's place in the graph's lists, the partition and the clock, a rough guess


def ring(workers: int) -> Graph:
    """Each worker hears the one before and the one after."""
    workers = _allowed("ring", workers)
    return _circulant(workers, [1])


def path(workers: int) -> Graph:
    """A ring without its last link."""
    workers = _allowed("path", workers)
    return from_links(workers, [(i, i + 1) for i in range(workers - 1)])


def star(workers: int) -> Graph:
    """Worker 0 hears everybody; the others hear worker 0."""
    workers = _allowed("star", workers)
    return from_links(workers, [(0, i) for i in range(1, workers)])


def complete(workers: int) -> Graph:
    """Everybody hears everybody."""
    workers = _allowed("complete", workers)
    return from_adjacency(~np.eye(workers, dtype=bool))


def grid(workers: int, *, rows: int) -> Graph:
    """`rows` rows of equal length; each worker hears those above, below, left and right."""
    workers = _allowed("grid", workers)
    columns = _columns(workers, rows)
    across = [(i, i + 1) for i in range(workers) if (i + 1) % columns]
    return from_links(workers, across + [(i, i + columns) for i in range(workers - columns)])


def torus(workers: int, *, rows: int) -> Graph:
    """A grid whose opposite sides are joined."""
    workers = _allowed("torus", workers)
    columns = _columns(workers, rows)
    across = [(i, i // columns * columns + (i + 1) % columns) for i in range(workers)]
    return from_links(workers, across + [(i, (i + columns) % workers) for i in range(workers)])


def hypercube(workers: int) -> Graph:
    """Workers whose numbers differ in one binary digit hear one another; needs a power of two."""
    workers = _allowed("hypercube", workers)
    if workers & (workers - 1):
        near = 1 << (workers.bit_length() - 1)
        raise ValueError(f"workers={workers} is not a power of two; use {near} or {2 * near}")
    digits = [1 << d for d in range(workers.bit_length() - 1)]
    return from_links(workers, [(i, i ^ digit) for i in range(workers) for digit in digits])


def exponential(workers: int) -> Graph:
    """Worker i hears i +- 1, i +- 2, i +- 4, ... (Assran et al. 2019, undirected)."""
    workers = _allowed("exponential", workers)
    return _circulant(workers, [1 << d for d in range(max(workers - 1, 1).bit_length())])


def erdos_renyi(workers: int, *, p: float = 0.4, seed: int = 0) -> Graph:
    """Each pair is linked with probability `p`; drawn again until connected.

    Raises:
      ValueError: `p` not in (0, 1], or so small that no graph would be connected.
    """
    workers = _allowed("erdos_renyi", workers)
    if not 0 < real("p", p) <= 1:
        raise ValueError(f"p={p:g} is not a probability of a link; use more than 0 and at most 1")
    needed = math.log(workers) / workers
    what, remedy = f"p={p:g} for {workers} workers", f"use a larger p (ln N / N = {needed:.3g})"
    alone = workers * (1 - p) ** (workers - 1)
    if alone > HOPELESS:
        raise ValueError(f"{what}: about {alone:.0f} of them would have no link; {remedy}")
    upper = np.triu_indices(workers, 1)

    def draw(rng: np.random.Generator) -> Graph:
        matrix = np.zeros((workers, workers), bool)
        matrix[upper] = rng.random(len(upper[0])) < p
        return from_adjacency(matrix | matrix.T)

    return _connected(draw, seed, what, remedy)


def random_regular(workers: int, *, degree: int = 4, seed: int = 0) -> Graph:
    """Everybody hears `degree` others, drawn at random; drawn again until connected."""
    workers = _allowed("random_regular", workers, degree)
    if not 0 <= degree < workers:
        raise ValueError(f"degree={degree} of {workers} workers; use 0 to {workers - 1}")
    if workers * degree % 2:
        raise ValueError(f"degree={degree} times {workers} workers is odd; use an even degree")
    if workers > degree + 1 and degree < 2:
        raise ValueError(f"degree={degree} connects no more than {degree + 1} of {workers} workers; use 2 or more")

    def draw(rng: np.random.Generator) -> Graph:
        import networkx

        return from_links(workers, networkx.random_regular_graph(degree, workers, int(rng.integers(2**31))).edges)

    return _connected(draw, seed, f"degree={degree} for {workers} workers", "use a larger degree")


def small_world(workers: int, *, degree: int = 4, p: float = 0.1, seed: int = 0) -> Graph:
    """A ring with `degree` nearest neighbours, each link rewired with probability `p` (Watts and Strogatz 1998)."""
    workers = _allowed("small_world", workers, degree)
    if not 2 <= degree < workers or degree % 2:
        raise ValueError(f"degree={degree} of {workers} workers; use an even number from 2 to {workers - 1}")
    if not 0 <= real("p", p) <= 1:
        raise ValueError(f"p={p:g} is not a probability; use 0 to 1")

    def draw(rng: np.random.Generator) -> Graph:
        import networkx

        edges = networkx.watts_strogatz_graph(workers, degree, p, int(rng.integers(2**31))).edges
        return from_links(workers, edges)

    return _connected(draw, seed, f"degree={degree}, p={p:g} for {workers} workers", "use a larger degree or smaller p")


def from_file(
    workers: int,
    *,
    path: str,
    header: Header = "auto",
    unit: Unit = "auto",
    directed: Says = "auto",
    undirected: Says = "auto",
    message_bytes: float | None = None,
) -> Graph:
    """A graph from a file: links as .csv, .edgelist or .adjlist, or a graph as .graphml or .gml.

    A row of a CSV or edge list is sender, receiver and, optionally, seconds; under a header, columns are `source`
    (`from`, `sender`), `target` (`to`, `receiver`), `latency` (`seconds`; s, or as in `latency_ms`) and `bandwidth`
    (bytes a second). Such a link goes both ways and its values hold for both, unless the reverse has a row of its own;
    with `directed=true` it goes one way. GraphML and GML say themselves whether they are directed, and have `latency`
    and `bandwidth` as attributes of links; `undirected=true` adds what is missing the other way. A message of
    `message_bytes` takes a link's latency and its own size over the link's bandwidth.

    Names that are not the numbers 0 to N-1 are numbered in natural order.

    Raises:
      ValueError: no such file, what cannot be read or is not known, more or fewer names than workers, a self loop, a
        link with two values, a graph in pieces, or bandwidths where messages have no size.
    """
    _at_least(workers, 1)
    found = read_links(workers, path=path, header=header, unit=unit, directed=directed, undirected=undirected)
    heard: list[list[int]] = [[] for _ in range(workers)]
    for receiver, sender in sorted(found.latency):
        heard[receiver].append(sender)
    graph = from_lists([np.array(near, int) for near in heard], None)
    _require_one_piece(graph, path, found.names)

    seconds = _seconds(found, path, message_bytes)
    latency = np.zeros(graph.links.shape)
    for receiver, near in enumerate(heard):
        latency[receiver, 1 : 1 + len(near)] = [seconds[receiver, sender] for sender in near]
    return with_latency(graph, latency)


def _seconds(found: Links, path: str, message_bytes: float | None) -> dict[tuple[int, int], float]:
    """How long a message takes, by receiver and sender."""
    if found.bandwidth is None:
        return found.latency
    if message_bytes is None:
        raise ValueError(
            f"{path} has bandwidths, and messages have no size here (--timing-only has none); take them out, or give "
            "message_bytes="
        )
    return {ends: latency + message_bytes / found.bandwidth[ends] for ends, latency in found.latency.items()}


GRAPHS: dict[str, Callable[..., Graph]] = {
    "ring": ring,
    "path": path,
    "star": star,
    "complete": complete,
    "grid": grid,
    "torus": torus,
    "hypercube": hypercube,
    "erdos_renyi": erdos_renyi,
    "random_regular": random_regular,
    "small_world": small_world,
    "exponential": exponential,
    "from_file": from_file,
}


def build_graph(spec: str, workers: int, seed: int = 0, message_bytes: float | None = None) -> Graph:
    """The graph that a SPEC names, as in `ring`, `torus:rows=2`, `erdos_renyi:p=0.4`.

    `message_bytes` is read by a file that gives the bandwidth of links, and by nobody else.

    Raises:
      ValueError: an unknown name or key, a value that does not fit the workers, or a graph that is not connected.
    """
    seed = numbers.seeds(seed).start
    return specs.build(spec, GRAPHS, "graph", workers, seed=seed, message_bytes=message_bytes)


def building_bytes(spec: str, workers: int) -> float:
    """Bytes needed while a graph is built, estimated from its SPEC; of some kinds every pair of workers takes some."""
    name, settings = specs.parse(spec)
    degree = settings.get("degree", "4")
    known = degree.isdecimal() and len(degree) < 19
    return _bytes(name, workers, min(int(degree), workers) if known else 0)


def _bytes(kind: str, workers: int, degree: int = 0) -> float:
    bits = workers.bit_length()
    pairs, drawn = dict.fromkeys(("complete", "star", "erdos_renyi"), 32 * workers), 300 * degree
    each = {**pairs, "hypercube": 100 * bits, "exponential": 200 * bits, "random_regular": drawn, "small_world": drawn}
    return float(workers * (_LISTED + each.get(kind, 0)))


def _allowed(kind: str, workers: Any, degree: Any = 0) -> int:
    """A number of workers for which a graph can be built.

    Raises:
      ValueError: not a whole number above 0 (`degree`: from 0), or more than fit the memory.
    """
    workers, degree = whole("workers", workers), whole("degree", degree, 0)
    require_count("workers", workers, lambda count: _bytes(kind, count, min(degree, count)))
    return workers


def _require_one_piece(graph: Graph, path: str, names: Sequence[str]) -> None:
    """Raises `ValueError` unless everybody reaches everybody."""
    found = pieces(graph)
    if len(found) > 1:
        lost, first = names[found[1][0]], names[0]
        raise ValueError(f"{path} is in {len(found)} pieces: node {lost} cannot reach node {first}; add links")
    if not is_connected(graph):
        raise ValueError(
            f"{path}: links go one way, and not from every node to every other; add links, or undirected=true"
        )


def _at_least(workers: int, least: int) -> None:
    if workers < least:
        raise ValueError(f"workers={workers} is too few; use {least} or more")


def _circulant(workers: int, steps: list[int]) -> Graph:
    return from_links(workers, [(i, (i + step) % workers) for i in range(workers) for step in steps])


def _columns(workers: int, rows: int) -> int:
    if whole("rows", rows, 0) < 1 or workers % rows:
        known = ", ".join(map(str, divisors(workers)))
        raise ValueError(f"rows={rows} does not divide {workers} workers; use one of {known}")
    return workers // rows


def _connected(draw: Callable[[np.random.Generator], Graph], seed: int, what: str, remedy: str) -> Graph:
    rng = np.random.default_rng(numbers.seeds(seed).start)
    for _ in range(TRIES):
        graph = draw(rng)
        if is_connected(graph):
            return graph
    raise ValueError(f"{what}: none of {TRIES} random graphs is connected; {remedy}")
