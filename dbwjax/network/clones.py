"""Cloned tasks: several machines for a worker, the first result counts (Ananthanarayanan et al. 2013, as recalled)."""

from __future__ import annotations

from collections.abc import Sequence

from dbwjax import specs
from dbwjax.limits import whole
from dbwjax.network.times import Law
from dbwjax.types import DelayModel

MOST = 1024
"""Machines for one worker; the number is ours, and bounds the work of a draw."""


def cloned(workers: int, *, copies: int) -> DelayModel:
    """`copies` machines for each worker, the first result counts; before its law, as in `cloned:copies=2*pareto`.

    All that is written after it is the law of one machine. A computation takes the least of `copies` independent draws
    of it; of exponential times with mean m that is `m / copies` on average. The first machine's draws are those of the
    law alone, so `copies=1` is the law alone. What is fixed for a worker (`slow_workers`) is the same on all its
    machines; a chain (`markov`) runs on each by itself.

    Raises:
      ValueError: always: `delays.build_delays` finds the law and wraps it.
    """
    whole("copies", copies, 1, MOST)
    raise ValueError("it wraps the law that follows it; write one, as in cloned:copies=2*shifted_exponential")


def copies_of(delays: DelayModel) -> int:
    """On how many machines each computation runs; static. Their seconds are so many times a worker's."""
    return delays.copies if isinstance(delays, Law) else 1


def split(spec: str, parts: Sequence[str]) -> tuple[int, Sequence[str]]:
    """On how many machines each computation of a SPEC runs, and the factors of one machine's law.

    Raises:
      ValueError: `cloned` that is not first or is there twice, or measured times behind it.
    """
    names = [specs.parse(part)[0] for part in parts]
    if names[0] != "cloned":
        if "cloned" in names:
            raise ValueError(f"delays '{spec}': cloned wraps the law that follows it; write it first")
        return 1, parts
    if len(parts) == 1:
        return 1, parts
    copies = specs.build(parts[0], {"cloned": _copies}, "delays")
    if "cloned" in names[1:]:
        raise ValueError(f"delays '{spec}': cloned is given twice; keep one, with copies= multiplied")
    if "trace" in names[1:]:
        raise ValueError(
            f"delays '{spec}': a trace measured each computation once, so there is no second draw to clone; use a law, "
            "or leave cloned out"
        )
    return copies, parts[1:]


def _copies(*, copies: int) -> int:
    return whole("copies", copies, 1, MOST)
