"""A sweep shared out: which blocks each of so many machines computes.

The blocks are those of the whole sweep, so the rows are, too: every block is computed by the same program wherever it
is computed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from dbwjax.experiments.blocks import Block
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.sweep.config import SweepConfig

_SHARD = re.compile("([0-9]{1,9})/([0-9]{1,9})")


class Shard(NamedTuple):
    """One of the parts of a sweep."""

    number: int  # from 1
    of: int

    @property
    def word(self) -> str:
        """As it is typed: `1/4`."""
        return f"{self.number}/{self.of}"


class Jobs(NamedTuple):
    """How a sweep is cut and shared out; nothing of it changes a number but how many worlds run side by side."""

    shard: Shard | None = None  # None: all of it
    at_once: int | None = None  # simulations of a block at most; None: as many as fit


def shard_of(text: str) -> Shard:
    """A shard from its word.

    Raises:
      ValueError: it is none.

    >>> shard_of("1/4")
    Shard(number=1, of=4)
    """
    found = _SHARD.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"--shard {text} is no shard; write I/N, as in --shard 1/4 for the first of four")
    number, of = map(int, found.groups())
    if not 1 <= number <= of:
        last = max(of, 1)
        raise ValueError(f"--shard {text} is out of range; shards count from 1/{last} to {last}/{last}")
    return Shard(number, of)


def share_out(every: Sequence[Block], found: Sequence[Problem], count: int) -> list[list[Block]]:
    """The blocks of each of `count` shards: in their order, each to the shard that has least to do so far, counted in
    simulations times workers.

    Raises:
      ValueError: there are fewer blocks than shards.
    """
    if count > len(every):
        raise ValueError(
            f"{count} shards are more than the {len(every)} blocks of this sweep; use at most {len(every)}, or cut it "
            "into smaller blocks with --at-once"
        )
    shares: list[list[Block]] = [[] for _ in range(count)]
    work = [0] * count
    for block in every:
        least = work.index(min(work))
        shares[least].append(block)
        work[least] += len(block.which) * found[block.problem].workers
    return shares


def plan_lines(
    config: SweepConfig, every: Sequence[Block], found: Sequence[Problem], shares: Sequence[Sequence[Block]]
) -> list[str]:
    """The plan as JSON lines: the sweep, every block, every shard; `kind` says which."""
    axes = ("seed", "graph_seed")
    cells = {
        json.dumps({name: value for name, value in one.values.items() if name not in axes})
        for problem in found
        for one in problem.told
    }
    words = [Shard(number, len(shares)).word for number in range(1, len(shares) + 1)]
    mine = {block.number: word for word, share in zip(words, shares, strict=True) for block in share}
    lines: list[dict[str, Any]] = [
        {
            "kind": "sweep",
            "timing_only": config.timing_only,
            "policies": list(config.base.policies),
            "cells": len(cells),
            "worlds": sum(len(problem.told) for problem in found),
            "blocks": len(every),
            "shards": len(shares),
            **_amount(every),
        }
    ]
    for block in every:
        told = [found[block.problem].told[int(which)].values for which in block.which]
        same = {name: told[0][name] for name in told[0] if all(one[name] == told[0][name] for one in told)}
        sized = {"simulations": len(block.which), "workers": found[block.problem].workers}
        lines.append(
            {"kind": "block", "block": block.number, "shard": mine[block.number], "policy": block.spec}
            | {"program": [block.spec, block.problem], **sized, "values": same}
        )
    for word, share in zip(words, shares, strict=True):
        lines.append({"kind": "shard", "shard": word, "blocks": [block.number for block in share], **_amount(share)})
    return [json.dumps(line, allow_nan=False) for line in lines]


def _amount(blocks: Sequence[Block]) -> dict[str, int]:
    """Simulations, and how many programs are compiled for them: one a policy and shape."""
    programs = {(block.spec, block.problem) for block in blocks}
    return {"simulations": sum(len(block.which) for block in blocks), "programs": len(programs)}
