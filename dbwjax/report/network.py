"""The picture of a graph: its links, and over them the spanning path or tree that DTUR establishes.

Of more nodes than can be told apart, the picture shows what their links do: how many workers a message has reached
after so many hops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dbwjax.report import style

_LARGEST_SPRINGS = 300
"""Nodes; a spring layout of more takes seconds and shows nothing, nor do thousands of links."""

_NAMED = 160
"""Characters for the names of workers below a figure's title."""

_STARTS = 64
"""Nodes from which messages are followed through a large graph."""


EDGE = 1.15
"""Limits of the axes on which a graph is drawn; nodes lie between -1 and 1."""


class GraphPicture(NamedTuple):
    """What is drawn of a network."""

    neighbours: np.ndarray  # [N, D] int: the nodes that each hears, itself in unused places; or [N, N] bool
    spanning: Sequence[tuple[int, int]] | np.ndarray = ()  # links of the path or tree that DTUR establishes
    is_path: bool = False  # whether they form one path through all nodes
    seconds: np.ndarray | None = None  # [N] mean seconds of each worker's computation; None: not known
    positions: np.ndarray | None = None  # [N, 2]; None: the spanning path goes round a circle, others as springs
    name: str = ""  # the graph's SPEC and, where worlds have graphs of their own, whose it is
    names: Sequence[str] | None = None  # of the workers, by number; None: their numbers


def draw_graph(ax: Any, graph: GraphPicture, letter: str = "", bar: bool = True) -> None:
    """Draws a graph on Matplotlib axes; nodes bear their numbers where there are at most 20.

    Nodes have the colour of their mean seconds of computation, slow ones are dark. A graph of more than 300 nodes
    without given positions is drawn as the share of workers within so many hops.

    Args:
      ax: the axes.
      graph: what to draw.
      letter: of the panel.
      bar: whether the colours get a bar.
    """
    nodes, links = len(graph.neighbours), _links(graph)
    title = f"{nodes:,} worker{'s' * (nodes > 1)}, {len(links):,} link{'s' * (len(links) != 1)}"
    one_way = 2 * len(links) - len(pairs_of(graph))
    title += f" ({one_way:,} one way)" if one_way else ""
    name = "\n".join(filter(None, [style.plain(graph.name, 44), style.plain(numbered(graph.names or (), _NAMED))]))
    places = positions_of(graph)
    if places is None:
        _draw_reach(ax, nodes, links)
        starts = f"bars: mean; whiskers: extremes of {min(_STARTS, nodes)} workers"
        style.heading(ax, title, "\n".join(filter(None, [name, starts, _speeds(graph.seconds)])), letter)
        return
    _draw_links(ax, places, links, np.asarray(graph.spanning, int).reshape(-1, 2), nodes)
    _draw_nodes(ax, places, graph.seconds, bar)
    ax.set(aspect="equal", xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE))
    ax.axis("off")
    bold = f"bold: DTUR's spanning {'path' if graph.is_path else 'tree'}" if len(graph.spanning) else ""
    # A square in the middle of its panel.
    style.heading(ax, title, "\n".join(filter(None, [name, bold])), letter, share=0.8)


def positions_of(graph: GraphPicture) -> np.ndarray | None:
    """`[N, 2]` where the nodes are drawn, between -1 and 1; `None`: too many to be told apart."""
    if graph.positions is None and len(graph.neighbours) > _LARGEST_SPRINGS:
        return None
    places = _layout(graph) if graph.positions is None else np.asarray(graph.positions, np.float64)
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    return places / (np.abs(places).max() or 1)


def numbered(names: Sequence[str], most: int) -> str:
    """Workers by number and name, in about `most` characters.

    >>> numbered(["alice", "bob"], 100), numbered(["alice", "bob"], 9)
    ('0 alice, 1 bob', '0 alice, ... (2 names in config.json)')
    """
    shown: list[str] = []
    length = 0
    for place, name in enumerate(names):
        length += len(f"{place} {name}, ")
        if shown and length > most + 2:
            return f"{', '.join(shown)}, ... ({len(names):,} names in config.json)"
        shown.append(f"{place} {name}")
    return ", ".join(shown)


def _speeds(seconds: np.ndarray | None) -> str:
    """Where nodes cannot be coloured, how far their speeds lie apart."""
    if seconds is None:
        return ""
    low, high = float(np.min(seconds)), float(np.max(seconds))
    return f"mean computation: {low:.3g} to {high:.3g} s a worker"


def _draw_links(ax: Any, places: np.ndarray, links: np.ndarray, spanning: np.ndarray, nodes: int) -> None:
    from matplotlib.collections import LineCollection

    weight = float(np.clip(60 / max(len(links), 1), 0.15, 1))
    look = {"linewidths": 0.4 + 0.5 * weight, "alpha": 0.25 + 0.6 * weight}
    ax.add_collection(LineCollection(list(places[links]), colors="#8c8c8c", **look))
    wide = 2.2 if nodes <= 50 else 1.1
    ax.add_collection(LineCollection(list(places[spanning]), colors="#3b3b3b", linewidths=wide))


def _draw_nodes(ax: Any, places: np.ndarray, seconds: np.ndarray | None, bar: bool) -> None:
    from matplotlib.colors import Normalize

    nodes = len(places)
    side = ax.get_position().width * ax.figure.get_figwidth()  # inches, before the layout is settled
    scale = float(np.clip(side / 2, 0.7, 1.8))
    size = scale**2 * float(np.clip(1400 / nodes, 5, 95))
    edge = {"edgecolors": "black", "linewidths": 0.7 if nodes <= 50 else 0.35, "zorder": 3}
    shades = np.ones((nodes, 4))
    if seconds is not None:
        speed = np.asarray(seconds, np.float64)
        low, high = float(speed.min()), float(speed.max())
        if high - low <= 1e-6 * abs(high):  # one colour for all, and a bar that says which
            low, high = 0.9 * low, 1.1 * high
        drawn = ax.scatter(*places.T, s=size, c=speed, cmap="YlOrBr", norm=Normalize(low, high), **edge)
        shades = drawn.to_rgba(speed)
        if bar:
            _bar(ax, drawn)
    else:
        ax.scatter(*places.T, s=size, color="white", **edge)
    if nodes <= 20:
        for node, place in enumerate(places):
            look = {"fontsize": 5.8 * scale, "color": style.ink_on(shades[node]), "zorder": 4}
            ax.annotate(str(node), place, ha="center", va="center_baseline", **look)


def _bar(ax: Any, drawn: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    place, figure = ax.get_position(), ax.figure
    high = place.height * figure.get_figheight()
    shrink = 0.85 * min(1.0, place.width * figure.get_figwidth() / high)  # no higher than the graph
    bar = figure.colorbar(drawn, ax=ax, shrink=shrink, aspect=18, pad=0.02)
    bar.set_label("mean computation [s]")
    bar.locator = MaxNLocator(4)
    bar.outline.set_linewidth(0.5)
    bar.update_ticks()


def _links(graph: GraphPicture) -> np.ndarray:
    """Every link once, `[L, 2]`, the lower number first."""
    return np.unique(np.sort(pairs_of(graph), axis=1), axis=0)


def pairs_of(graph: GraphPicture) -> np.ndarray:
    """Who hears whom, `[P, 2]`; a link that goes both ways is two pairs."""
    given = np.asarray(graph.neighbours)
    if given.dtype == bool or given.dtype.kind == "f":
        pairs = np.argwhere(given != 0)
    else:
        pairs = np.stack([np.repeat(np.arange(len(given)), given.shape[1]), given.reshape(-1)], axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def _draw_reach(ax: Any, nodes: int, links: np.ndarray) -> None:
    """Bars: the mean share of workers within so many hops of a worker; whiskers from the least to the greatest."""
    degree = np.bincount(links.reshape(-1), minlength=nodes)
    reached = _reach(nodes, links)
    hops = np.arange(len(reached))
    mean = reached.mean(axis=1)
    # A mean of equal shares may round to more than they are.
    whiskers = np.maximum([mean - reached.min(axis=1), reached.max(axis=1) - mean], 0)
    look = {"color": "#9a9a9a", "error_kw": {"ecolor": "black", "elinewidth": 0.8}}
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
    nodes = len(graph.neighbours)
    if not graph.is_path and 1 < nodes <= _LARGEST_SPRINGS:
        import networkx

        # The links of the tree pull harder, so that it unfolds.
        pull = np.zeros((nodes, nodes))
        for i, j in _links(graph):
            pull[i, j] = pull[j, i] = 0.2
        for i, j in graph.spanning:
            pull[i, j] = pull[j, i] = 1
        placed = networkx.spring_layout(networkx.from_numpy_array(pull), seed=0, iterations=200)
        return np.array([placed[node] for node in range(nodes)])
    order = _path_order(graph) if graph.is_path and nodes > 1 else list(range(nodes))
    angles = np.empty(nodes)
    angles[order] = np.pi / 2 - 2 * np.pi * np.arange(nodes) / nodes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _path_order(graph: GraphPicture) -> list[int]:
    """The nodes from one end of the spanning path to the other."""
    beside: dict[int, list[int]] = {node: [] for node in range(len(graph.neighbours))}
    for i, j in graph.spanning:
        beside[int(i)].append(int(j))
        beside[int(j)].append(int(i))
    order = [next(node for node, near in beside.items() if len(near) == 1)]
    while len(order) < len(beside):
        order.append(next(node for node in beside[order[-1]] if node not in order[-2:]))
    return order
