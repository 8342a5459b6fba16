"""Who is connected: builders of graphs, each connected or an error, and the table `GRAPHS`.

Every builder takes the number of workers and keyword settings and returns padded neighbour lists. The regular ones are
plain NumPy; random ones come from networkx, which is imported when it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dbwjax import numbers, specs
from dbwjax.network.graph_files import read_links
from dbwjax.network.properties import is_connected, pieces
from dbwjax.types import Graph

TRIES = 100
"""Random graphs are drawn again, so many times at most, until one is connected."""


def from_adjacency(adjacency: np.ndarray, computes: np.ndarray | None = None) -> Graph:
    """A graph from `adjacency [N, N]`: `adjacency[i, j]` says that `i` hears `j`; messages take no time.

    Args:
      adjacency: boolean, without self loops.
      computes: `[N]`, False for nodes that never compute; all compute by default.

    Raises:
      ValueError: not a square matrix with at least one node, or a self loop.
    """
    matrix = np.asarray(adjacency, bool)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"adjacency has shape {matrix.shape}; give a square matrix with at least one node")
    if matrix.diagonal().any():
        raise ValueError(f"node {int(np.argmax(matrix.diagonal()))} is linked to itself; clear the diagonal")
    return _from_lists([np.flatnonzero(row) for row in matrix], computes)


def from_links(nodes: int, links: Iterable[tuple[int, int]]) -> Graph:
    """An undirected graph from its links, given once each in either direction."""
    lists: list[set[int]] = [set() for _ in range(nodes)]
    for i, j in links:
        if i != j:
            lists[i].add(j)
            lists[j].add(i)
    return _from_lists([np.array(sorted(near), int) for near in lists], None)


def adjacency(graph: Graph) -> np.ndarray:
    """The matrix `[N, N]` of a graph: `[i, j]` says that `i` hears `j`."""
    links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
    matrix = np.zeros((len(links), len(links)), bool)
    rows, slots = np.nonzero(links)
    matrix[rows, sources[rows, slots]] = True
    return matrix


def pad(graph: Graph, slots: int) -> Graph:
    """The same graph with rows of `slots` slots, so that graphs of different degrees stack into a batch.

    Raises:
      ValueError: fewer slots than the graph has.
    """
    have = graph.neighbours.shape[1]
    if slots < have:
        raise ValueError(f"slots={slots} is less than the {have} that this graph needs; use {have} or more")
    more = ((0, 0), (0, slots - have))
    own = jnp.repeat(graph.neighbours[:, :1], slots - have, axis=1)
    return graph._replace(
        neighbours=jnp.concatenate([graph.neighbours, own], axis=1),
        links=jnp.pad(graph.links, more),
        latency=jnp.pad(graph.latency, more),
    )


def with_links(graph: Graph, *, latency: float = 0.0, bandwidth: float = math.inf, message_bytes: float = 0.0) -> Graph:
    """The same graph with messages that take `own latency + latency + message_bytes / bandwidth` seconds on every link.

    Raises:
      ValueError: a time, size or bandwidth that is not one, or a time on a link that float32 does not hold.
    """
    if not 0 <= latency < math.inf:
        raise ValueError(f"latency={latency:g} is not a time; use 0 or more seconds")
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth:g} moves nothing; use more than 0 bytes a second (inf: no limit)")
    if not 0 <= message_bytes < math.inf:
        raise ValueError(f"message_bytes={message_bytes:g} is not a size; use 0 or more bytes")
    said = f"bandwidth={bandwidth:g}, message_bytes={message_bytes:g}: seconds of a message"
    sending = numbers.require(said, message_bytes / bandwidth)
    seconds = numbers.require("latency", latency) + sending
    total = np.where(graph.links, np.asarray(graph.latency, np.float64) + seconds, 0)
    return _with_latency(graph, total)


def _with_latency(graph: Graph, seconds: np.ndarray) -> Graph:
    """The same graph with other latencies `[N, D]`.

    Raises:
      ValueError: one that is no time, or that float32 does not hold.
    """
    for node, slot in np.argwhere((seconds != 0) & ~((seconds >= numbers.LEAST) & (seconds <= numbers.MOST)))[:1]:
        sender = int(graph.neighbours[node, slot])
        numbers.not_negative(f"latency from node {sender} to node {node}", float(seconds[node, slot]))
    return graph._replace(latency=jnp.asarray(seconds, graph.latency.dtype))


@jax.jit
def delivery(graph: Graph) -> Float[Array, " N"]:
    """How long until all who hear a node have its message, in seconds; 0 for a node that nobody hears. Traceable."""
    return jnp.zeros_like(graph.latency[:, 0]).at[graph.neighbours].max(graph.latency)


def ring(workers: int) -> Graph:
    """Each worker hears the one before and the one after."""
    return _circulant(workers, [1])


def path(workers: int) -> Graph:
    """A ring without its last link."""
    _at_least(workers, 1)
    return from_links(workers, [(i, i + 1) for i in range(workers - 1)])


def star(workers: int) -> Graph:
    """Worker 0 hears everybody; the others hear worker 0."""
    _at_least(workers, 1)
    return from_links(workers, [(0, i) for i in range(1, workers)])


def complete(workers: int) -> Graph:
    """Everybody hears everybody."""
    _at_least(workers, 1)
    return from_adjacency(~np.eye(workers, dtype=bool))


def grid(workers: int, *, rows: int) -> Graph:
    """`rows` rows of equal length; each worker hears those above, below, left and right."""
    columns = _columns(workers, rows)
    across = [(i, i + 1) for i in range(workers) if (i + 1) % columns]
    return from_links(workers, across + [(i, i + columns) for i in range(workers - columns)])


def torus(workers: int, *, rows: int) -> Graph:
    """A grid whose opposite sides are joined."""
    columns = _columns(workers, rows)
    across = [(i, i // columns * columns + (i + 1) % columns) for i in range(workers)]
    return from_links(workers, across + [(i, (i + columns) % workers) for i in range(workers)])


def hypercube(workers: int) -> Graph:
    """Workers whose numbers differ in one binary digit hear one another; needs a power of two."""
    _at_least(workers, 1)
    if workers & (workers - 1):
        near = 1 << (workers.bit_length() - 1)
        raise ValueError(f"workers={workers} is not a power of two; use {near} or {2 * near}")
    digits = [1 << d for d in range(workers.bit_length() - 1)]
    return from_links(workers, [(i, i ^ digit) for i in range(workers) for digit in digits])


def exponential(workers: int) -> Graph:
    """Worker i hears i +- 1, i +- 2, i +- 4, ... (Assran et al. 2019, undirected)."""
    _at_least(workers, 1)
    return _circulant(workers, [1 << d for d in range(max(workers - 1, 1).bit_length())])


def erdos_renyi(workers: int, *, p: float = 0.4, seed: int = 0) -> Graph:
    """Each pair is linked with probability `p`; drawn again until connected."""
    _at_least(workers, 1)
    if not 0 < p <= 1:
        raise ValueError(f"p={p:g} is not a probability of a link; use more than 0 and at most 1")
    upper = np.triu_indices(workers, 1)

    def draw(rng: np.random.Generator) -> Graph:
        matrix = np.zeros((workers, workers), bool)
        matrix[upper] = rng.random(len(upper[0])) < p
        return from_adjacency(matrix | matrix.T)

    needed = math.log(workers) / workers
    return _connected(draw, seed, f"p={p:g} for {workers} workers", f"use a larger p (ln N / N = {needed:.3f})")


def random_regular(workers: int, *, degree: int = 4, seed: int = 0) -> Graph:
    """Everybody hears `degree` others, drawn at random; drawn again until connected."""
    _at_least(workers, 1)
    if not 0 <= degree < workers:
        raise ValueError(f"degree={degree} of {workers} workers; use 0 to {workers - 1}")
    if workers * degree % 2:
        raise ValueError(f"degree={degree} times {workers} workers is odd; use an even degree")

    def draw(rng: np.random.Generator) -> Graph:
        import networkx

        return from_links(workers, networkx.random_regular_graph(degree, workers, int(rng.integers(2**31))).edges)

    return _connected(draw, seed, f"degree={degree} for {workers} workers", "use a larger degree")


def small_world(workers: int, *, degree: int = 4, p: float = 0.1, seed: int = 0) -> Graph:
    """A ring with `degree` nearest neighbours, each link rewired with probability `p` (Watts and Strogatz 1998)."""
    _at_least(workers, 1)
    if not 2 <= degree < workers or degree % 2:
        raise ValueError(f"degree={degree} of {workers} workers; use an even number from 2 to {workers - 1}")
    if not 0 <= p <= 1:
        raise ValueError(f"p={p:g} is not a probability; use 0 to 1")

    def draw(rng: np.random.Generator) -> Graph:
        import networkx

        edges = networkx.watts_strogatz_graph(workers, degree, p, int(rng.integers(2**31))).edges
        return from_links(workers, edges)

    return _connected(draw, seed, f"degree={degree}, p={p:g} for {workers} workers", "use a larger degree or smaller p")


def from_file(workers: int, *, path: str) -> Graph:
    """A graph from a file: a CSV of links (two node numbers a row, and optionally seconds of latency), or what
    networkx reads.

    Nodes are numbered from 0; a file for networkx (.graphml .gexf .gml .adjlist .edgelist .net) may name them
    otherwise, and then they are numbered in sorted order.

    Raises:
      ValueError: no such file, a row that cannot be read, a node outside 0..N-1, a self loop, or a graph in pieces.
    """
    _at_least(workers, 1)
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{path} is not a file; give the path of an edge list")
    links, seconds = read_links(file, workers)
    graph = from_links(workers, links)
    found = pieces(graph)
    if len(found) > 1:
        raise ValueError(f"{path} is in {len(found)} pieces: node {found[1][0]} cannot reach node 0; add links")
    latency = np.zeros(graph.latency.shape)
    for i, row in enumerate(np.asarray(graph.neighbours)):
        for s in np.flatnonzero(np.asarray(graph.links)[i]):
            latency[i, s] = seconds.get((i, int(row[s])), 0.0)
    return _with_latency(graph, latency)


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


def build_graph(spec: str, workers: int, seed: int = 0) -> Graph:
    """The graph that a SPEC names, as in `ring`, `torus:rows=2`, `erdos_renyi:p=0.4`.

    Raises:
      ValueError: an unknown name or key, a value that does not fit the workers, or a graph that is not connected.
    """
    return specs.build(spec, GRAPHS, "graph", workers, seed=seed)


def _at_least(workers: int, least: int) -> None:
    if workers < least:
        raise ValueError(f"workers={workers} is too few; use {least} or more")


def _circulant(workers: int, steps: list[int]) -> Graph:
    _at_least(workers, 1)
    return from_links(workers, [(i, (i + step) % workers) for i in range(workers) for step in steps])


def _columns(workers: int, rows: int) -> int:
    _at_least(workers, 1)
    if rows < 1 or workers % rows:
        divisors = [d for d in range(1, workers + 1) if workers % d == 0]
        raise ValueError(f"rows={rows} does not divide {workers} workers; use one of {', '.join(map(str, divisors))}")
    return workers // rows


def _from_lists(lists: list[np.ndarray], computes: np.ndarray | None) -> Graph:
    nodes, slots = len(lists), 1 + max(len(near) for near in lists)
    neighbours = np.repeat(np.arange(nodes, dtype=np.int32)[:, None], slots, axis=1)
    links = np.zeros((nodes, slots), bool)
    for i, near in enumerate(lists):
        neighbours[i, 1 : 1 + len(near)] = near
        links[i, 1 : 1 + len(near)] = True
    return Graph(
        neighbours=jnp.asarray(neighbours),
        links=jnp.asarray(links),
        latency=jnp.asarray(np.zeros((nodes, slots)), jnp.result_type(float)),
        computes=jnp.asarray(np.ones(nodes, bool) if computes is None else np.asarray(computes, bool)),
    )


def _connected(draw: Callable[[np.random.Generator], Graph], seed: int, what: str, remedy: str) -> Graph:
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        graph = draw(rng)
        if is_connected(graph):
            return graph
    raise ValueError(f"{what}: none of {TRIES} random graphs is connected; {remedy}")
