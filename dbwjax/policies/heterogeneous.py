"""Methods for data that differ from worker to worker, on the clock of `full`: `tracking`, `d2` and `qgm`.

Each is the policy `full` with another learner at the workers (`learners/tracking.py`).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import PyTree

from dbwjax.learners.tracking import corrected, quasi_global, require_beta, tracked
from dbwjax.network.fastest_mixing import lowest, sparse
from dbwjax.network.weights import Weights
from dbwjax.policies.gossip import gossip
from dbwjax.policies.method import Barrier, Method, build_weights
from dbwjax.policies.neighbours import backup
from dbwjax.policies.papers_on_messages import D2, DIGING, DSGT, QUASI_GLOBAL
from dbwjax.policies.rules import full
from dbwjax.types import Graph, Policy

D2_EDGE = -1 / 3
"""D2 diverges where the smallest eigenvalue of the mixing matrix is this or less (arXiv 1803.07068)."""

D2_ROUNDING = 1e-6
"""A smallest eigenvalue that is so close to `D2_EDGE` counts as being on it: weights are float32."""


def tracking(weights: Weights | str | None = None, everybody: bool = True) -> Policy:
    """Gradient tracking on the clock of `full`: everybody adapts, sends parameters and tracker, and mixes both.

    `learners.tracking.tracked` states the rule. A message is parameters and tracker: twice as large (in bfloat16 three
    times), and on links of finite bandwidth as much slower.

    Args:
      weights: of the whole graph; Metropolis by default.
      everybody: the global barrier; otherwise each worker waits for its neighbours alone, which changes the times and
        no parameter.

    Raises:
      ValueError: in `init`, a graph that `require_graph` refuses, or weights that `require_symmetric` refuses.
    """
    scheme = build_weights(weights)
    return _checked(_full(scheme, everybody), scheme, "tracking")._replace(equip=tracked)


def d2(weights: Weights | str | None = "lazy", everybody: bool = True) -> Policy:
    """D2 on the clock of `full`; `learners.tracking.corrected` states the rule.

    Args:
      weights: of the whole graph. Lazy by default: D2 diverges where the smallest eigenvalue of the mixing matrix is
        -1/3 or less, as that of Metropolis weights on a ring of an even number of workers.
      everybody: as for `tracking`.

    Raises:
      ValueError: in `init`, a graph that `require_graph` refuses, weights that `require_symmetric` refuses, or a
        smallest eigenvalue of at most -1/3.
    """
    scheme = build_weights(weights)
    base = _checked(_full(scheme, everybody), scheme, "d2")

    def init_fn(graph: Graph) -> PyTree:
        state = base.init(graph)
        least = float(lowest(sparse(_slots(scheme, state, graph), graph), 1)[0])
        if least <= D2_EDGE + D2_ROUNDING:
            raise ValueError(
                f"d2 diverges where the smallest eigenvalue of the mixing matrix is at most -1/3, and here it is "
                f"{least:.4f}; use weights=lazy"
            )
        return state

    return base._replace(init=init_fn, equip=corrected)


def qgm(beta: float = 0.9, weights: Weights | str | None = None, everybody: bool = True) -> Policy:
    """Quasi-global momentum on the clock of `full`; `learners.tracking.quasi_global` states the rule.

    `beta` is a constant of the program, not of the state: a sweep over it compiles each.

    Args:
      beta: 0 to less than 1; 0 is `full`.
      weights: of the whole graph; Metropolis by default.
      everybody: as for `tracking`.

    Raises:
      ValueError: `beta` out of range; in `init`, a graph that `require_graph` refuses.
    """
    require_beta(beta)
    return _full(build_weights(weights), everybody)._replace(equip=lambda learner: quasi_global(learner, beta))


def require_symmetric(slots: PyTree, graph: Graph, method: str) -> None:
    """Refuses weights that are not the same both ways: what the method keeps in the mean would be lost.

    Args:
      slots: [N, D] weights of the whole graph.
      graph: who hears whom.
      method: named in the error.

    Raises:
      ValueError: one line, with a link.
    """
    matrix = sparse(slots, graph).tocoo()
    odd = abs(matrix - matrix.T).tocoo()
    if odd.nnz and odd.data.max() > 0:
        place = int(np.argmax(odd.data))
        i, j = int(odd.row[place]), int(odd.col[place])
        raise ValueError(
            f"{method} needs weights that are the same both ways, and worker {i} takes another share of worker {j} "
            f"than {j} of {i}; use weights=metropolis"
        )


def _full(scheme: Weights, everybody: bool) -> Policy:
    """The policy `full` under either barrier."""
    return gossip(full(), scheme) if everybody else backup(0, math.inf, scheme, mixing="doubly")


def _checked(base: Policy, scheme: Weights, method: str) -> Policy:
    def init_fn(graph: Graph) -> PyTree:
        state = base.init(graph)
        require_symmetric(_slots(scheme, state, graph), graph, method)
        return state

    return base._replace(init=init_fn)


def _slots(scheme: Weights, state: PyTree, graph: Graph) -> PyTree:
    """The weights [N, D] of the whole graph, from the constants that the state of either barrier holds."""
    constants = state.weights if hasattr(state, "weights") else state.own.weights
    return scheme.apply(constants, graph, graph.links)


def _tracking(*, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    return tracking(weights, everybody=barrier == "global")


def _d2(*, weights: str = "lazy", barrier: Barrier = "global") -> Policy:
    return d2(weights, everybody=barrier == "global")


def _qgm(*, beta: float = 0.9, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    return qgm(beta, weights, everybody=barrier == "global")


METHODS = (
    Method(
        "tracking",
        _tracking,
        "gradient tracking: workers average parameters and estimates of the mean gradient",
        (DIGING, DSGT),
        family="gossip",
        mixing="doubly",
        absence="everybody waits for it until its absence is known, then for those that are there; it keeps parameters "
        "and tracker, so the mean of trackers goes on holding its last gradient",
    ),
    Method(
        "d2",
        _d2,
        "D2: each worker takes back what its own data pulled it aside by",
        (D2,),
        family="gossip",
        mixing="doubly",
        absence="as under full; it keeps parameters and correction, whose mean stays zero; that D2 converges is known "
        "of a network that stays as it is",
    ),
    Method(
        "qgm",
        _qgm,
        "quasi-global momentum: full, with a momentum of how the mixed parameters moved",
        (QUASI_GLOBAL,),
        family="gossip",
        mixing="doubly",
        absence="as under full; back again, its momentum takes what it has moved as one iteration",
    ),
)
