"""What the parts train: one world, and one worker's initial parameters in it."""

from __future__ import annotations

from typing import Any

import jax

from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.types import DelayModel, Graph


def make_world(task: Any, graph: Graph, delays: DelayModel, seed: int = 0) -> World:
    """A world of a seed, as the command makes it."""
    return World(graph, delays, task.batches, jax.random.key(seed))


def initial_params(task: Any, world: World) -> Any:
    """One worker's parameters in that world."""
    return task.init(stream(world.key, Stream.PARAMETERS))
