"""What workers do in methods that solve their own problem exactly: ADMM, SSDA, MSDA, MSPD.

A computation is one call of the task's oracle, and an iteration one exchange of what it gave (of MSDA and MSPD
several). The model that is evaluated is what the oracle gave last. Duals and past iterates are each worker's `local`
state. Step sizes come from the objectives' strong convexity and smoothness and from the graph: `Plan.constants` are a
`Network`. No learning rate and no optimiser is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dbwjax.engine.mixing import expand_to, upcast
from dbwjax.types import Combine, Key, Learner, Mix, Objective, Oracle

Solve = Callable[[Oracle, Objective, PyTree, PyTree], PyTree]
"""`(oracle, objective, params, local) -> params`: one worker's computation."""


class Network(NamedTuple):
    """What a method knows of its gossip matrix `G = I - W`."""

    largest: Float[Array, ""]  # its largest eigenvalue
    gap: Float[Array, ""]  # its smallest eigenvalue above 0, over that
    rounds: Float[Array, ""]  # K, exchanges an iteration


class Bounds(NamedTuple):
    """Of all workers' objectives, `[N]`, the same number for each."""

    strong: Float[Array, " N"]
    smooth: Float[Array, " N"]


Exchange = Callable[[Mix, Network, Bounds, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
"""`(mix, network, bounds, params, solved, local) -> (params, local)`, of all workers."""


def solving(learner: Learner, begin: Callable[[PyTree], PyTree], solve: Solve, exchange: Exchange) -> Learner:
    """A learner whose computations are calls of its oracle on a whole objective.

    The loss that it tells is the worker's objective at the model before the computation.

    Args:
      learner: the workers'; its loss and its oracle are used, its optimiser is not.
      begin: one worker's initial parameters -> its local state.
      solve: a worker's computation.
      exchange: what is done with all workers' results.

    Raises:
      ValueError: a learner without oracle, or one that mixes more than parameters.
    """
    if learner.oracle is None:
        raise ValueError(
            "the method computes exact minimisers, and the task has no oracle; use a convex task that has, as "
            "--dataset quadratic, logistic or least_squares"
        )
    if learner.combine is not None:
        raise ValueError("the method has messages of its own, and this learner mixes more than parameters; use another")
    oracle = learner.oracle

    def gradient(params: PyTree, local: PyTree, objective: Objective) -> tuple[PyTree, Array, Any]:
        _, loss, observed = learner.gradient(params, learner.init(params), objective.data)
        solved = solve(oracle, objective, params, local)
        return (solved, Bounds(objective.strong, objective.smooth)), loss, observed

    def update(gradient: PyTree, local: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        del params
        return gradient, local

    def apply(
        mix: Mix, keys: Key, params: PyTree, updates: PyTree, local: PyTree, constants: Array | None
    ) -> tuple[PyTree, PyTree]:
        del keys
        solved, limits = updates
        if constants is None:
            raise ValueError("these plans hold no constants, and the method reads its step sizes from them")
        return exchange(mix, Network(constants[0], constants[1], constants[2]), limits, params, solved, local)

    return learner._replace(
        init=lambda params: begin(jax.tree.map(upcast, params)),
        gradient=gradient,
        update=update,
        combine=Combine(apply, adapts_first=True, sent=sent),
    )


def sent(params: PyTree) -> float:
    """Bytes of a message: one iterate, as large as the parameters.

    Raises:
      ValueError: parameters narrower than 32 bits.
    """
    leaves = jax.tree.leaves(params)
    for leaf in leaves:
        if leaf.dtype.itemsize < 4:
            raise ValueError(
                f"the method is exact, and {leaf.dtype} holds three digits at most; leave dtype out, or use float32"
            )
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in leaves))


def admm(learner: Learner, rho: float) -> Learner:
    """Consensus ADMM; `policies.exact.admm` has the rule.

    Args:
      learner: the workers'.
      rho: the penalty; 0: the geometric mean of strong convexity and smoothness.
    """

    def penalty(limits: Bounds | Objective) -> Array:
        return jnp.sqrt(limits.strong * limits.smooth) if rho == 0 else jnp.full_like(limits.strong, rho)

    def solve(oracle: Oracle, objective: Objective, params: PyTree, local: PyTree) -> PyTree:
        del params
        dual, centre = local
        return oracle(objective, dual, centre, penalty(objective))

    def exchange(
        mix: Mix, network: Network, limits: Bounds, params: PyTree, solved: PyTree, local: PyTree
    ) -> tuple[PyTree, PyTree]:
        del network, params
        dual, mixed = local[0], mix(solved)
        dual = _add(dual, penalty(limits), _difference(solved, mixed))
        return solved, (dual, jax.tree.map(lambda one, other: (one + other) / 2, solved, mixed))

    return solving(learner, lambda params: (_zeros(params), params), solve, exchange)


def dual_ascent(learner: Learner, accelerated: bool) -> Learner:
    """SSDA and MSDA; `policies.exact` has the rules.

    Args:
      learner: the workers'.
      accelerated: whether gossip is a Chebyshev polynomial of K exchanges (MSDA).
    """

    def solve(oracle: Oracle, objective: Objective, params: PyTree, local: PyTree) -> PyTree:
        x, _ = local
        return oracle(objective, jax.tree.map(jnp.negative, x), _zeros(params), jnp.zeros_like(objective.strong))

    def exchange(
        mix: Mix, network: Network, limits: Bounds, params: PyTree, solved: PyTree, local: PyTree
    ) -> tuple[PyTree, PyTree]:
        del params
        x, y = local
        if accelerated:
            moved, largest, smallest = chebyshev(mix, network, solved), *_spectrum(network)
        else:
            moved, largest = _difference(solved, mix(solved)), network.largest
            smallest = network.gap * largest
        root, base = jnp.sqrt(limits.smooth / limits.strong), jnp.sqrt(smallest / largest)
        ahead = _add(x, -limits.strong / largest, moved)
        momentum = (root - base) / (root + base)
        return solved, (_add(ahead, momentum, _difference(ahead, y)), ahead)

    return solving(learner, lambda params: (_zeros(params), _zeros(params)), solve, exchange)


def primal_dual(learner: Learner, eta: float) -> Learner:
    """MSPD; `policies.exact.mspd` has the rule.

    Args:
      learner: the workers'.
      eta: the primal step; 0: one over the geometric mean of strong convexity and smoothness.
    """

    def primal(limits: Bounds | Objective) -> Array:
        return 1 / jnp.sqrt(limits.strong * limits.smooth) if eta == 0 else jnp.full_like(limits.strong, eta)

    def solve(oracle: Oracle, objective: Objective, params: PyTree, local: PyTree) -> PyTree:
        return oracle(objective, jax.tree.map(jnp.negative, local), params, 1 / (2 * primal(objective)))

    def exchange(
        mix: Mix, network: Network, limits: Bounds, params: PyTree, solved: PyTree, local: PyTree
    ) -> tuple[PyTree, PyTree]:
        further = jax.tree.map(lambda new, old: 2 * new - old, solved, params)
        step = 1 / (primal(limits) * _spectrum(network)[0])
        return solved, _add(local, -step, chebyshev(mix, network, further))

    return solving(learner, _zeros, solve, exchange)


def chebyshev(mix: Mix, network: Network, tree: PyTree) -> PyTree:
    """`P_K(G) @ tree` in K mixings: AcceleratedGossip of Scaman et al. 2017, as recalled, scaled so that nothing grows.

    With `T_K` the Chebyshev polynomial, `s = 2 / ((1 + gap) largest)` and `c = (1 + gap) / (1 - gap)`,
    `P_K(g) = 1 - T_K(c (1 - s g)) / T_K(c)`. Its eigenvalues on a connected graph lie in `1 -+ 1 / T_K(c)`, but for the
    one 0 of consensus.
    """
    inverse = (1 - network.gap) / (1 + network.gap)  # 1 / c, which is 0 on the complete graph
    scale = 2 / ((1 + network.gap) * network.largest)

    def smoothed(rows: PyTree) -> PyTree:
        def one(leaf: Array, mixed: Array) -> Array:
            return leaf - scale.astype(leaf.dtype) * (leaf - mixed)

        return jax.tree.map(one, rows, mix(rows))

    def further(_: Array, carry: tuple[PyTree, PyTree, Array]) -> tuple[PyTree, PyTree, Array]:
        before, now, ratio = carry  # ratio: T_(k-1)(c) / T_k(c)
        gain = 1 / (2 - inverse * ratio)

        def one(new: Array, old: Array) -> Array:
            return (2 * gain).astype(new.dtype) * new - (ratio * inverse * gain).astype(new.dtype) * old

        return now, jax.tree.map(one, smoothed(now), before), inverse * gain

    first = (tree, smoothed(tree), inverse)
    exchanges = jnp.round(network.rounds).astype(jnp.int32)
    _, rest, _ = jax.lax.fori_loop(1, exchanges, further, first)
    return _difference(tree, rest)


def _spectrum(network: Network) -> tuple[Array, Array]:
    """The largest and the smallest eigenvalue of `P_K(G)` that is not 0, by their bounds."""
    root = jnp.sqrt(network.gap)
    factor = ((1 - root) / (1 + root)) ** network.rounds
    reach = 2 * factor / (1 + factor**2)
    return 1 + reach, 1 - reach


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros_like(upcast(leaf)), tree)


def _difference(one: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, one, other)


def _add(tree: PyTree, factor: Float[Array, " N"], other: PyTree) -> PyTree:
    """`tree + factor * other`, a factor a worker."""
    return jax.tree.map(lambda a, b: a + expand_to(factor, b).astype(b.dtype) * b, tree, other)
