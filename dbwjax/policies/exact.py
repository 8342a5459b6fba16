"""Exact methods on convex tasks: ADMM, SSDA, MSDA and MSPD, in the time of `full`.

    mix = W      a computation: one exact minimiser      an iteration: one exchange, or K of them

Each iteration ends for everybody when all have finished and all messages are in. Methods of K exchanges wait for the
longest latency K - 1 times more, since an exchange goes on from what the last one brought. What the workers compute and
send is in `learners/exact.py`. All of them need a task that tells its objectives and their oracle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dbwjax import numbers
from dbwjax.learners import exact as learners
from dbwjax.limits import real, whole
from dbwjax.network.fastest_mixing import lowest
from dbwjax.network.properties import mixing_matrix
from dbwjax.network.weights import Weights
from dbwjax.policies.gossip import GossipState, gossip
from dbwjax.policies.method import Barrier, Method, build_weights, only_global
from dbwjax.policies.papers_on_messages import CONSENSUS_ADMM, MSPD, SSDA
from dbwjax.policies.rules import full
from dbwjax.types import Batches, Graph, Key, Learner, Plan, Policy

MOST_ROUNDS = 10_000
"""Exchanges an iteration at most: a path of 10,000 workers has 1 / sqrt(gap) of 6,366."""

_CLOSE = 1e-6  # of weights that are to be symmetric, in float32


class ExactState(NamedTuple):
    """The state of `full`, and what is fixed once for a graph."""

    own: GossipState
    network: Float[Array, " 3"]  # `learners.exact.Network`
    rounds: Int[Array, ""]  # K
    further: Float[Array, ""]  # seconds of the exchanges after the first


def exact(
    equip: Callable[[Learner], Learner], rounds: int | None = None, weights: Weights | str | None = None
) -> Policy:
    """A method of exact computations and K exchanges an iteration, in the time of `full`.

    An iteration takes `max_i (c_i + the longest latency of i's links) + (K - 1) * the longest latency of all`. A
    message for each link is sent in each exchange.

    Args:
      equip: what workers do.
      rounds: K; 0: `1 / sqrt(gap)` of the graph, rounded down; `None`: 1.
      weights: W, of the whole graph; Metropolis by default. They must be symmetric.

    Raises:
      ValueError: in `init`, a graph that `require_graph` refuses, or weights that are not symmetric on it.
    """
    scheme = build_weights(weights)
    base = gossip(full(), scheme)

    def init_fn(graph: Graph) -> ExactState:
        own = base.init(graph)
        slots = np.asarray(scheme.apply(own.weights, graph, graph.links), np.float64)
        largest, gap = spectrum(mixing_matrix(graph, slots))
        count = 1 if rounds is None else rounds or rounds_of(gap)
        longest = np.where(graph.links, graph.latency, 0).max(initial=0)
        kind = jnp.result_type(float)
        return ExactState(
            own,
            jnp.asarray([largest, gap, count], kind),
            jnp.asarray(count, jnp.int32),
            jnp.asarray((count - 1) * float(longest), kind),
        )

    def decide_fn(
        key: Key, graph: Graph, state: ExactState, remaining: Array, feedback: Any
    ) -> tuple[Plan, ExactState]:
        plan, own = base.decide(key, graph, state.own, remaining, feedback)
        assert plan.flight is not None
        assert plan.messages is not None
        plan = plan._replace(
            duration=plan.duration + state.further,
            flight=plan.flight + state.further,
            messages=plan.messages * state.rounds,
            constants=state.network,
        )
        return plan, state._replace(own=own)

    return Policy(init_fn, decide_fn, equip=equip, whole=_as_they_are, unbroken=_UNBROKEN)


def _as_they_are(objectives: Batches, workers: int) -> Batches:
    del workers
    return objectives


def rounds_of(gap: float) -> int:
    """K of the methods with several exchanges: `1 / sqrt(gap)`, rounded down (Scaman et al. 2017, as recalled)."""
    return max(1, math.floor(1 / math.sqrt(gap) + 1e-9))


def spectrum(mixing: Any) -> tuple[float, float]:
    """The largest eigenvalue of `I - W`, and the smallest above 0 divided by it; `(1, 1)` for one worker. On the host.

    Args:
      mixing: W, a SciPy sparse matrix `[N, N]`, whose graph is connected.

    Raises:
      ValueError: W is not symmetric, or `I - W` has an eigenvalue below 0 or more than one that is 0.
    """
    from scipy import sparse

    nodes = mixing.shape[0]
    if nodes == 1:
        return 1.0, 1.0
    if abs(mixing - mixing.T).max() > _CLOSE:
        raise ValueError(
            "the weights are not symmetric on this graph, and the method needs a symmetric W; leave weights= out"
        )
    gossiping = sparse.csc_array(sparse.eye_array(nodes) - (mixing + mixing.T) / 2)
    smallest, largest = float(lowest(gossiping, 2)[1]), -float(lowest(-gossiping, 1)[0])
    if not smallest > 1e-12 * largest:
        raise ValueError(
            f"I - W has the eigenvalue {smallest:.3g} beside its 0, so it does not average; change weights="
        )
    return largest, smallest / largest


def admm(rho: float = 0.0, weights: Weights | str | None = None) -> Policy:
    """Consensus ADMM (Shi, Ling, Yuan, Wu, Yin 2014, arXiv 1307.5561, as recalled).

        x_i(k+1) = argmin f_i(x) + <a_i(k), x> + rho |x - (x_i(k) + sum_j W_ij x_j(k)) / 2|^2
        a_i(k+1) = a_i(k) + rho (x_i(k+1) - sum_j W_ij x_j(k+1)),   a_i(0) = 0

    The sum of all a stays 0. On a regular graph with `W_ij = 1 / degree` on links this is the paper's method, its
    penalty of a link being `rho / degree`; other weights are ours. One exchange an iteration, of x.

    Args:
      rho: above 0; 0: `sqrt(strong * smooth)`, the geometric mean of what the objectives' curvatures lie between. That
        default is ours.
      weights: W; Metropolis by default.

    Raises:
      ValueError: `rho` negative or not finite; in `init` as `exact`.
    """
    return exact(partial(learners.admm, rho=numbers.not_negative("rho", real("rho", rho))), None, weights)


def ssda(weights: Weights | str | None = None) -> Policy:
    """Single-step dual accelerated method (Scaman et al. 2017, arXiv 1702.08704, as recalled).

        t_i(k) = argmin f_i(t) - <x_i(k), t>
        y(k+1) = x(k) - (strong / l_1) G t(k),   x(k+1) = y(k+1) + m (y(k+1) - y(k)),   x(0) = y(0) = 0

    `G = I - W` has the largest eigenvalue `l_1`, and `gap` is its smallest above 0 divided by that;
    `m = (sqrt(kappa) - sqrt(gap)) / (sqrt(kappa) + sqrt(gap))` with `kappa = smooth / strong`. The model is t. Its
    distance to the optimum falls by `sqrt(1 - sqrt(gap / kappa))` an iteration at least. One exchange, of t.

    Args:
      weights: W; Metropolis by default.
    """
    return exact(partial(learners.dual_ascent, accelerated=False), None, weights)


def msda(rounds: int = 0, weights: Weights | str | None = None) -> Policy:
    """Multi-step dual accelerated method (Scaman et al. 2017, arXiv 1702.08704; authors' constants, as recalled).

    `ssda` with a polynomial of the gossip matrix, `P_K(G)`, in place of G. With `c1 = (1 - sqrt(gap)) / (1 +
    sqrt(gap))` and `c = c1^K` its eigenvalues lie between `1 -+ 2 c / (1 + c^2)`, from which steps follow as there.
    K exchanges an iteration, one after the other.

    Args:
      rounds: K; 0: `1 / sqrt(gap)` rounded down.
      weights: W; Metropolis by default.

    Raises:
      ValueError: `rounds` not a whole number from 0 to `MOST_ROUNDS`; in `init` as `exact`.
    """
    rounds = whole("rounds", rounds, 0, MOST_ROUNDS)
    return exact(partial(learners.dual_ascent, accelerated=True), rounds, weights)


def mspd(eta: float = 0.0, rounds: int = 0, weights: Weights | str | None = None) -> Policy:
    """Multi-step primal-dual method (Scaman et al. 2018, arXiv 1806.00291, as recalled).

        x_i(k+1) = argmin f_i(x) - <y_i(k), x> + |x - x_i(k)|^2 / (2 eta)
        y(k+1) = y(k) - s P_K(G) (2 x(k+1) - x(k)),   y(0) = 0,   s = 1 / (eta |P_K(G)|)

    The polynomial is that of `msda`. The paper is about objectives that need not be smooth; on those here, which are
    strongly convex, it converges linearly. K exchanges an iteration.

    Args:
      eta: the primal step, above 0; 0: `1 / sqrt(strong * smooth)`. That default is ours.
      rounds: K; 0: `1 / sqrt(gap)` rounded down.
      weights: W; Metropolis by default.

    Raises:
      ValueError: `eta` negative or not finite, `rounds` not a whole number from 0 to `MOST_ROUNDS`; in `init` as
        `exact`.
    """
    eta, rounds = numbers.not_negative("eta", real("eta", eta)), whole("rounds", rounds, 0, MOST_ROUNDS)
    return exact(partial(learners.primal_dual, eta=eta), rounds, weights)


def _notes(graph: Graph, state: PyTree) -> list[str]:
    del graph
    found = ["it solves each worker's own problem exactly, and reads no learning rate, optimiser or batch size"]
    gap = float(state.network[1])
    if int(state.rounds) > 1:
        found.append(
            f"an iteration has {int(state.rounds)} exchanges, one after the other (the gap of its gossip matrix is "
            f"{gap:.3g})"
        )
    return found


def _admm(*, rho: float = 0.0, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    only_global(barrier)
    return admm(rho, build_weights(weights))


def _ssda(*, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    only_global(barrier)
    return ssda(build_weights(weights))


def _msda(*, rounds: int = 0, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    only_global(barrier)
    return msda(rounds, build_weights(weights))


def _mspd(*, eta: float = 0.0, rounds: int = 0, weights: str = "metropolis", barrier: Barrier = "global") -> Policy:
    only_global(barrier)
    return mspd(eta, rounds, build_weights(weights))


_UNBROKEN = (
    "its step sizes are those of a network that stays as it is; leave --world and --events out, or use full or tracking"
)

_REFUSES = "it refuses a world that breaks: its step sizes are those of a network that stays as it is"


def _row(name: str, build: Callable[..., Policy], summary: str, paper: Any) -> Method:
    return Method(name, build, summary, (paper,), family="gossip", mixing="doubly", absence=_REFUSES, notes=_notes)


METHODS = (
    _row(
        "admm",
        _admm,
        "consensus ADMM on a convex task: exact local minimisers, and a dual for consensus",
        CONSENSUS_ADMM,
    ),
    _row("ssda", _ssda, "dual accelerated gradient on a convex task, with one exchange an iteration", SSDA),
    _row("msda", _msda, "the same with K exchanges an iteration, by a Chebyshev polynomial of the gossip matrix", SSDA),
    _row("mspd", _mspd, "primal-dual method on a convex task: proximal steps and K exchanges an iteration", MSPD),
)
