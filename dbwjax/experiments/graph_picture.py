"""The picture of a graph: its links, and over them the spanning path or tree that DTUR establishes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_LARGEST_SPRINGS = 300
"""Nodes; a spring layout of more takes seconds and shows nothing."""


class GraphPicture(NamedTuple):
    """What is drawn."""

    adjacency: np.ndarray  # [N, N] bool
    spanning: Sequence[tuple[int, int]] = ()  # links of the spanning path or tree
    positions: np.ndarray | None = None  # [N, 2]; None: the spanning path goes round a circle, others as springs


def draw_graph(ax: Any, graph: GraphPicture, scale: float = 1) -> None:
    """Draws a graph on Matplotlib axes; nodes bear their numbers where there are at most 20.

    Args:
      ax: the axes.
      graph: what to draw.
      scale: of nodes and numbers; 1 suits axes two inches wide.
    """
    from matplotlib.collections import LineCollection

    adjacency = np.asarray(graph.adjacency, bool)
    nodes = len(adjacency)
    places = _layout(graph) if graph.positions is None else np.asarray(graph.positions, np.float64)
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    places = places / (np.abs(places).max() or 1)
    links = np.argwhere(np.triu(adjacency | adjacency.T, 1))
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
    bold = f"; bold: {'path' if _is_path(graph) else 'tree'}" if len(spanning) else ""
    ax.set_title(f"{nodes} worker{'s' * (nodes > 1)}, {len(links)} link{'s' * (len(links) != 1)}{bold}")


def _layout(graph: GraphPicture) -> np.ndarray:
    """Places [N, 2]: a spanning path goes round a circle, other graphs as springs, large ones in a circle."""
    nodes = len(graph.adjacency)
    if not _is_path(graph) and 1 < nodes <= _LARGEST_SPRINGS:
        import networkx

        # The links of the tree pull harder, so that it unfolds.
        pull = 0.2 * np.asarray(graph.adjacency, float)
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
