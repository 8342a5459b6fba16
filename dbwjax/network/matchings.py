"""Cutting a graph into matchings: sets of links of which no two meet, so that all of one can be used at a time."""

from __future__ import annotations

import itertools

import numpy as np

from dbwjax.types import Graph

ORDERS = 64
"""Orders of the links in which as many matchings as the largest degree are tried for."""

_LINKS_IN_ALL = 20_000  # links coloured in those tries, beyond the first


def matchings(graph: Graph) -> np.ndarray:
    """The number of the matching that each link belongs to, `[N, D]`, from 0; -1 where there is no link.

    There are as many as the largest degree, which is the fewest possible, or one more (Vizing). The fewest are tried
    for with alternating paths, which find them on every bipartite graph, in several orders of the links (of a fixed
    seed); where they fail, Misra and Gries' colouring of 1992 gives one more.

    Args:
      graph: links of both directions.
    """
    sources, links = np.asarray(graph.neighbours), np.asarray(graph.links)
    rows, slots = np.nonzero(links)
    pairs = [(int(i), int(j)) for i, j in zip(rows, sources[rows, slots], strict=True) if i < j]
    nodes, degree, rng = len(links), int(links.sum(axis=1).max()), np.random.default_rng(0)
    found = _Colours(nodes, degree)
    orders = itertools.chain([pairs], (rng.permutation(pairs).tolist() for _ in range(ORDERS)))
    for order in itertools.islice(orders, 1 + _LINKS_IN_ALL // max(len(pairs), 1)):
        found = _Colours(nodes, degree)
        if all(found.by_path(u, v) for u, v in order):
            break
    else:
        found = _Colours(nodes, degree + 1)
        for u, v in pairs:
            found.by_fan(u, v)
    numbers = np.full(links.shape, -1, np.int32)
    for i, s in zip(rows, slots, strict=True):
        numbers[i, s] = found.of(int(i), int(sources[i, s]))
    return numbers


class _Colours:
    """A partial colouring of links: no two of a node are alike."""

    def __init__(self, nodes: int, colours: int) -> None:
        self.at: list[dict[int, int]] = [{} for _ in range(nodes)]  # of each node: the neighbour, by the link's colour
        self.colours = colours
        self._of: dict[tuple[int, int], int] = {}

    def of(self, i: int, j: int) -> int:
        return self._of[min(i, j), max(i, j)]

    def paint(self, i: int, j: int, colour: int) -> None:
        self._of[min(i, j), max(i, j)] = colour
        self.at[i][colour], self.at[j][colour] = j, i

    def clear(self, i: int, j: int) -> None:
        colour = self._of.pop((min(i, j), max(i, j)))
        del self.at[i][colour], self.at[j][colour]

    def free(self, i: int) -> list[int]:
        return [colour for colour in range(self.colours) if colour not in self.at[i]]

    def path(self, i: int, first: int, second: int) -> list[tuple[int, int, int]]:
        """The links from i whose colours are the first, the second, the first, ...: `(from, to, colour)`."""
        found, colour = [], first
        while colour in self.at[i]:
            found.append((i, self.at[i][colour], colour))
            i, colour = self.at[i][colour], second if colour == first else first
        return found

    def swap(self, path: list[tuple[int, int, int]], one: int, other: int) -> None:
        for i, j, _ in path:
            self.clear(i, j)
        for i, j, colour in path:
            self.paint(i, j, other if colour == one else one)

    def by_path(self, u: int, v: int) -> bool:
        """Paints a link with a colour that is free at both ends, if need be after a swap along a path from u that does
        not come to v; says whether there was one."""
        for c, d in itertools.product(self.free(u), self.free(v)):
            path = self.path(u, d, c)
            if not path or path[-1][1] != v:
                self.swap(path, c, d)
                self.paint(u, v, d)
                return True
        return False

    def by_fan(self, u: int, v: int) -> None:
        """Paints a link by Misra and Gries' step, which never fails where the colours are one more than any degree."""
        fan = [v]  # the colour of the link from u to each is free at the one before
        while more := [w for colour, w in self.at[u].items() if colour not in self.at[fan[-1]] and w not in fan]:
            fan.append(more[0])
        c, d = self.free(u)[0], self.free(fan[-1])[0]
        self.swap(self.path(u, d, c), c, d)
        end = 0
        while d in self.at[fan[end]]:
            end += 1
        turned = [self.of(u, w) for w in fan[1 : end + 1]]
        for w in fan[1 : end + 1]:
            self.clear(u, w)
        for w, colour in zip(fan[: end + 1], [*turned, d], strict=True):
            self.paint(u, w, colour)
