"""The graphs of worlds, and the names that files give to their workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbwjax import specs
from dbwjax.network import graphs
from dbwjax.network.node_names import names_of
from dbwjax.types import Graph

if TYPE_CHECKING:
    from dbwjax.experiments.problem import World


class Nets:
    """The graphs of worlds, each built once and padded to one width; worlds that share one share its arrays.

    Args:
      told: the worlds.
      message_bytes: of a message, as far as it is known; `None`: there will be none.
    """

    def __init__(self, told: list[World], message_bytes: float | None):
        bare = {key: graphs.build_graph(*key, message_bytes) for key in dict.fromkeys(map(self.key, told))}
        self._slots = max(net.neighbours.shape[1] for net in bare.values())
        self.bare = {key: graphs.pad(net, self._slots) for key, net in bare.items()}
        self._linked: dict[tuple, Graph] = {}

    @staticmethod
    def key(world: World) -> tuple[str, int, int]:
        """What a graph depends on."""
        return world.config.graph, world.config.workers, world.graph_seed

    def of(self, world: World, size: float) -> Graph:
        """A world's graph, its links being as slow as they are for messages of `size` bytes."""
        latency, bandwidth = world.config.latency, world.config.bandwidth
        key = (*self.key(world), latency, bandwidth, size)
        if key not in self._linked:
            net = self.bare[key[:3]]
            if size and specs.parse(world.config.graph)[0] == "from_file":  # its links may have their own bandwidth
                net = graphs.pad(graphs.build_graph(*key[:3], size), self._slots)
            self._linked[key] = graphs.with_links(net, latency=latency, bandwidth=bandwidth, message_bytes=size)
        return self._linked[key]


def named(told: Sequence[World]) -> dict[tuple[str, str, int], list[str]]:
    """The names that files give to workers, by number; by graph, delays and workers, where there are any.

    Raises:
      ValueError: a trace and a graph that name other workers.
    """
    every = {words: names_of(*words) for words in dict.fromkeys(map(files_of, told))}
    return {words: names for words, names in every.items() if names is not None}


def listed(told: Sequence[World]) -> list[dict[str, Any]]:
    """The same as plain JSON."""
    words = ("graph", "delays", "workers")
    return [{**dict(zip(words, key, strict=True)), "names": names} for key, names in named(told).items()]


def files_of(world: World) -> tuple[str, str, int]:
    """Graph, delays and workers: what the names of a world's workers depend on."""
    return world.config.graph, world.config.delays, world.config.workers
