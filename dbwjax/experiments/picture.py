"""The network of a comparison's first world, as the figures draw it."""

from __future__ import annotations

import numpy as np

from dbwjax.experiments.fingerprints import drawn_delays
from dbwjax.experiments.problem import Problem
from dbwjax.network.properties import links_of_one_direction
from dbwjax.network.spanning import spanning_links
from dbwjax.report.network import GraphPicture


def picture_of(problem: Problem, name: str = "", several: bool = False) -> GraphPicture:
    """Who hears whom in the first world, how slow the workers are, and DTUR's spanning path or tree (if undirected).

    Args:
      problem: the worlds.
      name: the graph's SPEC.
      several: whether there are more worlds, so that it is said whose graph it is.
    """
    world = problem.alone(0)
    links, is_path = ((), False) if len(links_of_one_direction(world.graph)) else spanning_links(world.graph)
    pairs = [(int(i), int(j)) for i, j in links]
    seconds = drawn_delays(world).mean(axis=1)
    which = f", world {problem.told[0].values['world']}" if several and name else ""
    return GraphPicture(
        np.asarray(world.graph.neighbours), pairs, is_path, seconds, None, f"{name}{which}", problem.names
    )
