"""The gossip family under a global barrier: adapt, then combine over the active subgraph.

    mix = W of the active subgraph      push = mix      X' = mix @ (X + U)

An iteration ends at one time for everybody. Who is active then is the waiting rule's business (`rules.py`, `dtur.py`);
a new rule is two functions of about ten lines, and `gossip` turns it into a policy.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from dbwjax.network.graphs import delivery
from dbwjax.network.weights import Weights, dense, metropolis
from dbwjax.specs import nearest
from dbwjax.types import Graph, Key, Plan, Policy, WaitRule

Late = Literal["drop", "carry", "apply"]
"""What becomes of a worker that is not active when the iteration ends.

`drop`: its unfinished gradient is thrown away, its parameters stay, it starts the next iteration with the others (Chen
et al. 2016, arXiv 1604.00981). `carry`: it goes on computing and takes part in the iteration in which it finishes.
`apply`: its gradient enters its own parameters all the same, as in the recursion of the convergence analysis of arXiv
2102.06280; that counts a gradient before it is ready, so it is an idealisation.
"""

DENSE_ABOVE = 32
"""Rows with more slots than this are mixed by a dense matrix product, the others from padded neighbour lists."""


class GossipState(NamedTuple):
    """The rule's state and what is fixed once for a graph."""

    rule: PyTree
    weights: PyTree
    delivery: Float[Array, " N"]  # seconds until all neighbours have a worker's message


def gossip(rule: WaitRule, weights: Weights | None = None, late: Late = "drop") -> Policy:
    """A policy of the gossip family from a waiting rule (arXiv 2102.06280, Algorithm 1).

    A worker arrives when it has finished and all its neighbours have its message; the rule chooses among arrivals.

    Args:
      rule: who is active, and when an iteration ends.
      weights: of the active subgraph; Metropolis by default.
      late: what becomes of the others.

    Raises:
      ValueError: an unknown `late`; in `init`, a node that does not compute.
    """
    if late not in get_args(Late):
        raise ValueError(f"unknown late='{late}'; {nearest(late, get_args(Late))}")
    scheme = weights or metropolis()

    def init_fn(graph: Graph) -> GossipState:
        require_workers(graph)
        return GossipState(rule.init(graph), scheme.init(graph), delivery(graph))

    def decide_fn(
        key: Key, graph: Graph, state: GossipState, remaining: Array, feedback: Any
    ) -> tuple[Plan, GossipState]:
        del feedback
        # Who arrived during the announcement that ended the last iteration is simply there when this one begins.
        arrival = jnp.maximum(remaining + state.delivery, 0)
        active, end, rule_state = rule.cut(key, graph, state.rule, arrival)
        kept = graph.links & active[:, None] & active[graph.neighbours]
        mix, sources = matrix(scheme.apply(state.weights, graph, kept), graph, kept)
        plan = Plan(
            duration=end,
            fresh=jnp.ones_like(active) if late == "apply" else active,
            mix=mix,
            sources=sources,
            restart=active if late == "carry" else None,
            active=active,
        )
        return plan, state._replace(rule=rule_state)

    return Policy(init_fn, decide_fn)


def matrix(slots: Float[Array, "N D"], graph: Graph, kept: Bool[Array, "N D"]) -> tuple[Array, Array | None]:
    """A plan's `mix` and `sources` from slot weights: padded neighbour lists, or dense where rows are long.

    A slot that is not kept weighs nothing and points to the row's own node, so that nothing is read from afar for it
    and a neighbour that is not finite cannot leak through a zero.
    """
    if slots.shape[1] > DENSE_ABOVE:
        return dense(slots, graph), None
    return slots, jnp.where(kept, graph.neighbours, graph.neighbours[:, :1])


def require_workers(graph: Graph) -> None:
    """Raises `ValueError` unless every node computes: gossip has no place for a server."""
    if not np.asarray(graph.computes).all():
        idle = int(np.flatnonzero(~np.asarray(graph.computes))[0])
        raise ValueError(f"node {idle} never computes, and gossip averages workers only; use a graph of workers")
