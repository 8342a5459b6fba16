"""The distributed (projected) subgradient method: D-PSGD with steps that fall, and a projection."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from dbwjax import numbers
from dbwjax.limits import real
from dbwjax.network.weights import Weights
from dbwjax.policies.drifting import Drift
from dbwjax.policies.method import Barrier, Method, build_weights
from dbwjax.policies.neighbours import dpsgd
from dbwjax.policies.papers import SUBGRADIENT
from dbwjax.types import Combine, Graph, Key, Learner, Mix, Plan, Policy


class SubgradientState(NamedTuple):
    """D-PSGD's state, and how many iterations each worker has done."""

    own: Drift
    done: Int[Array, ""]


def subgradient(radius: float = math.inf, weights: Weights | str | None = None, everybody: bool = False) -> Policy:
    """Combine, then adapt, with a step that falls, then project (Nedic and Ozdaglar 2009, as recalled).

        x_i(k+1) = P( sum_j W_ij x_j(k) + u_i(k) / sqrt(k) ),  k = 1, 2, ... the worker's iteration

    `u` is the worker's update: with SGD `-eta * g`, which gives the paper's rule with steps `eta / sqrt(k)`. With
    momentum or Adam the state is the worker's, and its update is what falls; a schedule of the learning rate falls on
    top of it. `P` is the projection onto the ball of `radius` around 0, all parameters of a worker being one vector.
    Times and messages are those of `dpsgd`.

    The choice of `1 / sqrt(k)` is ours (`1 / k` learns too little). A radius is a constant of the program, not of the
    state: a sweep over radii compiles each.

    Args:
      radius: of the ball; `inf`: no projection.
      weights: of the whole graph; Metropolis by default.
      everybody: a global barrier, as for `dpsgd`.

    Raises:
      ValueError: a radius not above 0; in `init`, a graph that `require_graph` refuses; when traced, with a radius, a
        learner that mixes more than parameters.
    """
    if not real("radius", radius) > 0:
        raise ValueError(f"radius={radius:g} leaves no ball; use a number above 0 (inf projects nowhere)")
    if radius != math.inf:
        numbers.require("radius", radius)
    base = dpsgd(weights, everybody)

    def init_fn(graph: Graph) -> SubgradientState:
        return SubgradientState(base.init(graph), jnp.zeros((), jnp.int32))

    def decide_fn(
        key: Key, graph: Graph, state: SubgradientState, remaining: Array, feedback: Any
    ) -> tuple[Plan, SubgradientState]:
        plan, own = base.decide(key, graph, state.own, remaining, feedback)
        step = 1 / jnp.sqrt((state.done + 1).astype(remaining.dtype))
        scaled = plan._replace(push=jnp.broadcast_to(step, remaining.shape))
        return scaled, SubgradientState(own, state.done + 1)

    return Policy(init_fn, decide_fn, equip=None if radius == math.inf else lambda learner: projected(learner, radius))


def projected(learner: Learner, radius: float) -> Learner:
    """A learner whose workers project their parameters onto a ball around 0 after every step.

    Raises:
      ValueError: one that mixes more than parameters.
    """
    if learner.combine is not None:
        raise ValueError("radius= projects plain parameters, and this learner mixes more; leave radius= out")

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: PyTree, constants: Array | None
    ) -> tuple[PyTree, PyTree]:
        del keys, constants
        moved = jax.tree.map(jnp.add, mix(params), updates)
        squares = [(leaf**2).reshape(leaf.shape[0], -1).sum(axis=1) for leaf in jax.tree.leaves(moved)]
        norm = jnp.sqrt(sum(squares[1:], squares[0]))
        # Where the norm is within the radius, nothing is touched; there it may be 0, too.
        inside = norm <= radius
        share = jnp.where(inside, 1, radius / jnp.where(inside, 1, norm))
        return jax.tree.map(lambda leaf: leaf * share.reshape(-1, *[1] * (leaf.ndim - 1)), moved), local

    return learner._replace(combine=Combine(apply, adapts_first=False))


def _subgradient(*, radius: float = math.inf, weights: str = "metropolis", barrier: Barrier = "neighbours") -> Policy:
    return subgradient(radius, build_weights(weights), everybody=barrier == "global")


METHODS = (
    Method(
        "subgradient",
        _subgradient,
        "distributed subgradient method: D-PSGD with steps 1/sqrt(k), and a projection onto a ball",
        (SUBGRADIENT,),
        family="gossip",
        mixing="doubly",
        absence="as under dpsgd; its step has become smaller when it is back, since the iterations are counted for all",
    ),
)
