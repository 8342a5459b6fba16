"""Being one of several processes: who is first, waiting for one another, agreeing.

With one process everything here is trivial and nothing is sent. With several (`jax.distributed`) all of them call these
functions in the same order.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np

_ROOM = 1 << 16  # bytes for one process's facts


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is the process that writes the records."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes are here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.int32(flag))))


def agree(facts: dict[str, Any]) -> None:
    """Makes sure that all processes have the same facts.

    Raises:
      ValueError: they differ; in every process, naming the first that differs from process 0.
    """
    if count() == 1:
        return
    from jax.experimental import multihost_utils

    text = json.dumps(facts, default=str).encode()
    padded = np.zeros(_ROOM, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    told = [json.loads(bytes(row).rstrip(b"\0")) for row in np.asarray(multihost_utils.process_allgather(padded))]
    for process, theirs in enumerate(told):
        for name in told[0]:
            if theirs.get(name) != told[0][name]:
                raise ValueError(
                    f"process {process} has {name}={theirs.get(name)} and process 0 has {told[0][name]}; "
                    "start all with the same command and the same versions"
                )
