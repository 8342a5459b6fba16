"""The picture of a graph: its links, and over them the spanning path or tree that DTUR establishes.

Of more nodes than can be told apart, the picture shows what their links do: how many workers a message has reached
after so many hops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_LARGEST_SPRINGS = 300
"""Nodes; a spring layout of more takes seconds and shows nothing, nor do thousands of links."""

_STARTS = 64
"""Nodes from which messages are followed through a large graph."""


class GraphPicture(NamedTuple):
    """What is drawn."""

    adjacency: np.ndarray  # [N, N] bool, or [N, D] int: the nodes that each hears, and itself in unused places
    spanning: Sequence[tuple[int, int]] = ()  # links of the spanning path or tree
    positions: np.ndarray | None = None  # [N, 2]; None: the spanning path goes round a circle, others as springs


def draw_graph(ax: Any, graph: GraphPicture, scale: float = 1) -> None:
    """Draws a graph on Matplotlib axes; nodes bear their numbers where there are at most 20.

    A graph of more than 300 nodes without given positions is drawn as the share of workers within so many hops.

    Args:
      ax: the axes.
      graph: what to draw.
      scale: of nodes and numbers; 1 suits axes two inches wide.
    """
    from matplotlib.collections import LineCollection

    nodes, links = len(graph.adjacency), _links(graph)
    bold = f"; bold: {'path' if _is_path(graph) else 'tree'}" if len(graph.spanning) else ""
    title = f"{nodes:,} worker{'s' * (nodes > 1)}, {len(links):,} link{'s' * (len(links) != 1)}"
    if graph.positions is None and nodes > _LARGEST_SPRINGS:
        _draw_reach(ax, nodes, links)
        ax.set_title(title)
        return
    places = _layout(graph) if graph.positions is None else np.asarray(graph.positions, np.float64)
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    places = places / (np.abs(places).max() or 1)
    spanning = np.asarray(graph.spanning, int).reshape(-1, 2)
    weight = float(np.clip(60 / max(len(links), 1), 0.15, 1))
    few = nodes <= 50
    ax.add_collection(
        LineCollection(list(places[links]), colors="#9a9a9a", linewidths=0.4 + 0.6 * weight, alpha=0.25 + 0.6 * weight)
    )
    ax.add_collection(LineCollection(list(places[spanning]), colors="#3b3b3b", linewidths=2.4 if few else 1.1))
    size = scale**2 * float(np.clip(2200 / nodes, 6, 130))
    ax.scatter(*places.T, s=size, color="white", edgecolors="black", linewidths=0.9 if few else 0.4, zorder=3)
    if nodes <= 20:
        for node, place in enumerate(places):
            ax.annotate(str(node), place, ha="center", va="center_baseline", fontsize=6.5 * scale, zorder=4)
    ax.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
    ax.axis("off")
    ax.set_title(title + bold)


def _links(graph: GraphPicture) -> np.ndarray:
    """Every link once, `[L, 2]`, the lower number first."""
    given = np.asarray(graph.adjacency)
    if given.dtype == bool or given.dtype.kind == "f":
        return np.argwhere(np.triu((given != 0) | (given != 0).T, 1))
    pairs = np.stack([np.repeat(np.arange(len(given)), given.shape[1]), given.reshape(-1)], axis=1)
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _draw_reach(ax: Any, nodes: int, links: np.ndarray) -> None:
    """Bars: the mean share of workers within so many hops of a worker; whiskers from the least to the greatest."""
    degree = np.bincount(links.reshape(-1), minlength=nodes)
    reached = _reach(nodes, links)
    hops = np.arange(len(reached))
    mean = reached.mean(axis=1)
    whiskers = [mean - reached.min(axis=1), reached.max(axis=1) - mean]
    look = {"color": "#9a9a9a", "error_kw": {"ecolor": "black", "elinewidth": 0.9}}
    ax.bar(hops, mean, 0.8 if len(hops) <= 60 else 1, yerr=whiskers if len(hops) <= 60 else None, **look)
    of = f"{degree.min()}" if degree.min() == degree.max() else f"{degree.min()} to {degree.max()}"
    ax.set(xlabel=f"hops (degree {of})", ylabel="share of workers within", ylim=(0, 1.03), xlim=(-0.6, len(hops) - 0.4))
    ax.xaxis.get_major_locator().set_params(integer=True)


def _reach(nodes: int, links: np.ndarray) -> np.ndarray:
    """The share of nodes within 0, 1, ... hops of some nodes, `[hops, starts]`, until no more are found."""
    starts = np.unique(np.linspace(0, nodes - 1, _STARTS).astype(int))
    both = np.concatenate([links, links[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    hearers, first = np.unique(both[:, 0], return_index=True)
    within = np.zeros((nodes, len(starts)), bool)
    within[starts, np.arange(len(starts))] = True
    shares = [within.mean(axis=0)]
    while shares[-1].min() < 1 and (len(shares) < 2 or (shares[-1] > shares[-2]).any()):
        heard = np.logical_or.reduceat(within[both[:, 1]], first, axis=0)
        within[hearers] |= heard
        shares.append(within.mean(axis=0))
    return np.stack(shares)


def _layout(graph: GraphPicture) -> np.ndarray:
    """Places [N, 2]: a spanning path goes round a circle, other graphs as springs, large ones in a circle."""
    nodes = len(graph.adjacency)
    if not _is_path(graph) and 1 < nodes <= _LARGEST_SPRINGS:
        import networkx

        # The links of the tree pull harder, so that it unfolds.
        pull = np.zeros((nodes, nodes))
        for i, j in _links(graph):
            pull[i, j] = pull[j, i] = 0.2
        for i, j in graph.spanning:
            pull[i, j] = pull[j, i] = 1
        placed = networkx.spring_layout(networkx.from_numpy_array(pull), seed=0, iterations=200)
        return np.array([placed[node] for node in range(nodes)])
    order = _path_order(graph) if _is_path(graph) else list(range(nodes))
    angles = np.empty(nodes)
    angles[order] = np.pi / 2 - 2 * np.pi * np.arange(nodes) / nodes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _is_path(graph: GraphPicture) -> bool:
    """Whether the spanning links form one path through all nodes (they are a tree, so degrees of at most 2 suffice)."""
    ends = np.asarray(graph.spanning, int).reshape(-1)
    return len(ends) == 2 * (len(graph.adjacency) - 1) > 0 and bool(np.bincount(ends).max() <= 2)


def _path_order(graph: GraphPicture) -> list[int]:
    """The nodes from one end of the spanning path to the other."""
    beside: dict[int, list[int]] = {node: [] for node in range(len(graph.adjacency))}
    for i, j in graph.spanning:
        beside[int(i)].append(int(j))
        beside[int(j)].append(int(i))
    order = [next(node for node, near in beside.items() if len(near) == 1)]
    while len(order) < len(beside):
        order.append(next(node for node in beside[order[-1]] if node not in order[-2:]))
    return order
