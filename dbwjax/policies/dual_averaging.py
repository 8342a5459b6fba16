"""Distributed dual averaging on the clock of `dpsgd`: what workers send and mix are sums of gradients."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dbwjax import numbers
from dbwjax.learners.averaging import dual_averaged
from dbwjax.limits import real
from dbwjax.network.weights import Weights
from dbwjax.policies.drifting import Drift
from dbwjax.policies.heterogeneous import require_symmetric
from dbwjax.policies.method import Barrier, Method, build_weights
from dbwjax.policies.neighbours import dpsgd
from dbwjax.policies.papers_on_messages import DUAL_AVERAGING
from dbwjax.types import Graph, Key, Plan, Policy


class DualState(NamedTuple):
    """D-PSGD's state, and the size of the steps."""

    own: Drift
    alpha: Float[Array, ""]


def dual_averaging(alpha: float = 1.0, weights: Weights | str | None = None, everybody: bool = False) -> Policy:
    """Distributed dual averaging (Duchi, Agarwal, Wainwright 2012, as recalled): combine, then adapt.

        z_i = sum_j W_ij z_j + g_i        x_i = x0 - alpha / sqrt(t) z_i

    Steps are `alpha`'s alone: the learning rate, its schedule and the optimiser are *not* used. What is evaluated is
    the running mean of a worker's `x`. Times are those of `dpsgd`: `z` is sent when an iteration starts and travels
    while gradients are computed. `learners.averaging.dual_averaged` says more.

    Args:
      alpha: above 0.
      weights: of the whole graph; Metropolis by default.
      everybody: a global barrier, as for `dpsgd`.

    Raises:
      ValueError: `alpha` not above 0 or not finite; in `init`, a graph that `require_graph` refuses, or weights that
        `require_symmetric` refuses.
    """
    if not 0 < real("alpha", alpha) < math.inf:
        raise ValueError(f"alpha={alpha:g} is no size of steps; use a finite number above 0")
    numbers.require("alpha", alpha)
    scheme = build_weights(weights)
    base = dpsgd(scheme, everybody)

    def init_fn(graph: Graph) -> DualState:
        state = base.init(graph)
        require_symmetric(scheme.apply(state.own.weights, graph, graph.links), graph, "dual_averaging")
        return DualState(state, jnp.asarray(alpha, jnp.result_type(float)))

    def decide_fn(key: Key, graph: Graph, state: DualState, remaining: Array, feedback: Any) -> tuple[Plan, DualState]:
        plan, own = base.decide(key, graph, state.own, remaining, feedback)
        return plan._replace(constants=state.alpha[None]), state._replace(own=own)

    return Policy(init_fn, decide_fn, equip=dual_averaged)


def _notes(graph: Graph, state: PyTree) -> list[str]:
    del graph
    return [f"steps are alpha={float(state.alpha):g} over sqrt(t); the learning rate and the optimiser are not used"]


def _dual_averaging(*, alpha: float = 1.0, weights: str = "metropolis", barrier: Barrier = "neighbours") -> Policy:
    return dual_averaging(alpha, weights, everybody=barrier == "global")


METHODS = (
    Method(
        "dual_averaging",
        _dual_averaging,
        "dual averaging: workers average sums of gradients; reads alpha, not the learning rate",
        (DUAL_AVERAGING,),
        family="gossip",
        mixing="doubly",
        absence="as under dpsgd; it keeps its sum of gradients, and its step counts its own iterations alone",
        notes=_notes,
    ),
)
