"""The table of methods: name, builder, paper. The command line, the contract tests and the README read it.

A builder's keyword-only parameters are the keys of its SPEC. Rules that have only one barrier by nature still take
`barrier=`, to refuse the other with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from dbwjax import specs
from dbwjax.network.weights import WEIGHTS, Weights
from dbwjax.policies import neighbours
from dbwjax.policies.dtur import dtur
from dbwjax.policies.gossip import Late, gossip
from dbwjax.policies.rules import deadline, fastest, full
from dbwjax.types import Policy

Barrier = Literal["global", "neighbours"]


class Method(NamedTuple):
    """One row of the table."""

    name: str
    build: Callable[..., Policy]
    summary: str
    paper: str
    symmetric: bool = True  # promises doubly stochastic mixing (with symmetric weights)


def _weights(name: str) -> Weights:
    return specs.build(name, WEIGHTS, "weights")


def _only_global(barrier: Barrier) -> None:
    if barrier != "global":
        raise ValueError(
            "barrier=neighbours does not fit: this rule ends the iteration for everybody; leave barrier= out"
        )


def _dybw(
    *, late: Late = "drop", weights: str = "metropolis", flood_latency: float = 0.0, barrier: Barrier = "global"
) -> Policy:
    _only_global(barrier)
    return gossip(dtur(flood_latency), _weights(weights), late)


def _full(*, barrier: Barrier = "global", late: Late = "drop", weights: str = "metropolis") -> Policy:
    if barrier == "global":
        return gossip(full(), _weights(weights), late)
    if late != "drop":
        raise ValueError(f"late={late} has no meaning where nobody is late; leave late= out with barrier=neighbours")
    return neighbours.backup(0, _weights(weights))


def _backup(*, b: int = 1, weights: str = "metropolis", barrier: Barrier = "neighbours") -> Policy:
    if barrier != "neighbours":
        raise ValueError(
            "barrier=global does not fit: every worker's own finish would still be waited for; leave barrier= out, "
            "or use fastest:k= for a global rule"
        )
    return neighbours.backup(b, _weights(weights))


def _fastest(*, k: int, late: Late = "drop", weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    _only_global(barrier)
    return gossip(fastest(k), _weights(weights), late)


def _deadline(
    *, seconds: float, late: Late = "drop", weights: str = "metropolis", barrier: Barrier = "global"
) -> Policy:
    _only_global(barrier)
    return gossip(deadline(seconds), _weights(weights), late)


def _dpsgd(*, barrier: Barrier = "neighbours", weights: str = "metropolis") -> Policy:
    return neighbours.dpsgd(_weights(weights), everybody=barrier == "global")


_CB = "Xiong, Yan, Singh, Li 2021, arXiv 2102.06280"

POLICIES: dict[str, Method] = {
    method.name: method
    for method in (
        Method("dybw", _dybw, "cb-DyBW: dynamic backup workers by the threshold rule DTUR", _CB),
        Method("full", _full, "cb-Full: everybody waits for all neighbours", _CB),
        Method("backup", _backup, "static backup workers: all but the b slowest neighbours", _CB, symmetric=False),
        Method(
            "fastest", _fastest, "the iteration ends when k workers have finished", "Chen et al. 2016, arXiv 1604.00981"
        ),
        Method("deadline", _deadline, "the iteration ends after a fixed time", "Chen et al. 2016, arXiv 1604.00981"),
        Method("dpsgd", _dpsgd, "D-PSGD: combine, then adapt", "Lian et al. 2017, arXiv 1705.09056"),
    )
}


def build_policy(spec: str) -> Policy:
    """The policy that a SPEC names, as in `dybw`, `fastest:k=6,late=carry`, `full:barrier=neighbours`.

    Raises:
      ValueError: an unknown name or key, or a value that the policy refuses.
    """
    return specs.build(spec, {name: method.build for name, method in POLICIES.items()}, "policy")
