"""The streams of randomness: every draw is a pure function of (seed, stream, node, computation).

No key is carried in any state, so chunking, resuming, sharding or swapping the policy changes no delay and no batch.
"""

from __future__ import annotations

from enum import IntEnum

import jax

from dbwjax.types import Key


class Stream(IntEnum):
    """What a key is for; the numbers are part of a run's meaning and never change."""

    DELAYS = 0
    BATCHES = 1
    POLICY = 2
    PARAMETERS = 3
    MESSAGES = 4
    BEGINNING = 5
    LOSSES = 6


def stream(key: Key, purpose: Stream) -> Key:
    """The one key of a stream, from the simulation's key."""
    return jax.random.fold_in(key, int(purpose))
