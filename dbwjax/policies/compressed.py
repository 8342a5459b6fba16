"""Compressed messages: `choco` on the clock of `full`, `dcd` and `ecd` on that of `dpsgd`.

What they send and keep is `learners/compressed.py`; the codecs are `learners/codecs.py`.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dbwjax import numbers
from dbwjax.learners import compressed
from dbwjax.learners.codecs import Codec, build_codec
from dbwjax.limits import real
from dbwjax.network.weights import Weights
from dbwjax.policies.gossip import gossip
from dbwjax.policies.method import Barrier, Method, build_weights
from dbwjax.policies.neighbours import backup, dpsgd
from dbwjax.policies.papers_on_messages import CHOCO, DCD_ECD
from dbwjax.policies.rules import full
from dbwjax.types import Graph, Key, Plan, Policy

_UNBROKEN = (
    "what a neighbour knows is a sum of messages, and one that misses a message would need it again; leave --world and "
    "--events out, or use full or dpsgd"
)

DEFAULT = "quantize:bits=8"
"""The codec of all three: a quarter of the bytes of float32."""


def choco(
    codec: Codec | str = DEFAULT,
    gamma: float | None = None,
    weights: Weights | str | None = None,
    everybody: bool = True,
) -> Policy:
    """CHOCO-SGD: adapt, then combine what is publicly known (Koloskova, Stich, Jaggi 2019, arXiv 1902.00340).

    `learners.compressed.choco` is the rule. Times and plans are those of `full`, the messages being smaller.

    Args:
      codec: its contractive form is used, or its SPEC.
      gamma: consensus step size, above 0, at most 1; `None`: `safe_gamma(codec.delta)`.
      weights: of the whole graph, or their name; Metropolis by default.
      everybody: a global barrier; otherwise each worker goes on when its own neighbours' messages are in.

    Raises:
      ValueError: an unknown codec, or gamma out of range; in `init`, a graph that `require_graph` refuses.
    """
    coded = build_codec(codec) if isinstance(codec, str) else codec
    step = safe_gamma(coded.delta) if gamma is None else real("gamma", gamma)
    if not 0 < step <= 1:
        raise ValueError(f"gamma={step:g} is no step towards the neighbours; use one above 0, at most 1")
    scheme = build_weights(weights)
    base = gossip(full(), scheme) if everybody else backup(0, math.inf, scheme, mixing="doubly")

    def decide_fn(key: Key, graph: Graph, state: Any, remaining: Array, feedback: Any) -> tuple[Plan, Any]:
        plan, state = base.decide(key, graph, state, remaining, feedback)
        # Everybody takes part in a step that ends. Said as a constant, nobody's copy is kept to be restored: 4 passes.
        return plan._replace(active=jnp.ones(remaining.shape, bool)), state

    return base._replace(
        decide=decide_fn, unbroken=_UNBROKEN, equip=lambda learner: compressed.choco(learner, coded, step)
    )


def safe_gamma(delta: float) -> float:
    """CHOCO's gamma for a codec that keeps `delta`: that number.

    The rule is ours, by trial: on five graphs of 16 workers, with quantisers of 2 to 8 bits, and with `top_k` and
    `random_k` of 0.5, 0.1 and 0.01, it never diverged. With a fraction of 0.1, gamma 0.4 (`top_k`) and 0.2 (`random_k`)
    did on some graph.
    """
    return delta


def dcd(codec: Codec | str = DEFAULT, weights: Weights | str | None = None, everybody: bool = False) -> Policy:
    """DCD-PSGD: D-PSGD with compressed differences (Tang et al. 2018, arXiv 1803.06443).

    `learners.compressed.dcd` is the rule. Times and plans are those of `dpsgd`, the messages being smaller.

    Args:
      codec: its unbiased form is used, or its SPEC.
      weights, everybody: as for `dpsgd`.

    Raises:
      ValueError: an unknown codec, or one without an unbiased form; in `init`, a graph that `require_graph` refuses.
    """
    coded = build_codec(codec) if isinstance(codec, str) else codec
    compressed.unbiased(coded)
    return dpsgd(weights, everybody)._replace(unbroken=_UNBROKEN, equip=lambda learner: compressed.dcd(learner, coded))


def ecd(codec: Codec | str = DEFAULT, weights: Weights | str | None = None, everybody: bool = False) -> Policy:
    """ECD-PSGD: D-PSGD with compressed extrapolations (Tang et al. 2018, arXiv 1803.06443).

    `learners.compressed.ecd` is the rule; the rest is as for `dcd`.
    """
    coded = build_codec(codec) if isinstance(codec, str) else codec
    compressed.unbiased(coded)
    return dpsgd(weights, everybody)._replace(unbroken=_UNBROKEN, equip=lambda learner: compressed.ecd(learner, coded))


def _choco(
    *, codec: str = DEFAULT, gamma: str = "auto", weights: str = "metropolis", barrier: Barrier = "global"
) -> Policy:
    step = None
    if gamma != "auto":
        try:
            step = numbers.real(gamma)
        except ValueError as error:
            raise ValueError(f"gamma={gamma} {error}") from None
    return choco(codec, step, build_weights(weights), barrier == "global")


def _dcd(*, codec: str = DEFAULT, weights: str = "metropolis", barrier: Barrier = "neighbours") -> Policy:
    return dcd(codec, build_weights(weights), barrier == "global")


def _ecd(*, codec: str = DEFAULT, weights: str = "metropolis", barrier: Barrier = "neighbours") -> Policy:
    return ecd(codec, build_weights(weights), barrier == "global")


_REFUSES = (
    "it refuses a world that breaks: neighbours add up the differences that they were sent, and one that misses a "
    "message would know another copy than the others"
)

METHODS = (
    Method(
        "choco",
        _choco,
        "CHOCO-SGD: compressed differences to what the neighbours know; adapt, then combine",
        (CHOCO,),
        family="gossip",
        mixing="doubly",
        absence=_REFUSES,
    ),
    Method(
        "dcd",
        _dcd,
        "DCD-PSGD: D-PSGD with compressed differences of parameters",
        (DCD_ECD,),
        family="gossip",
        mixing="doubly",
        absence=_REFUSES,
    ),
    Method(
        "ecd",
        _ecd,
        "ECD-PSGD: D-PSGD with compressed extrapolations of parameters",
        (DCD_ECD,),
        family="gossip",
        mixing="doubly",
        absence=_REFUSES,
    ),
)
