"""DBW: how many workers the server waits for is decided anew in every iteration (Xu et al. 2020, arXiv 2004.14696).

As recalled. The server waits for k updates computed at its present model, adds their mean and sends the model to those
k. Nobody is interrupted: a worker that is late finishes, its update is dropped, and it pulls the model of that moment
(*push and wait*). For the next iteration

    k = argmax of G(k) / T(h, k)        G(k) = (eta - L eta^2 / 2) |grad F|^2 - (L eta^2 / 2) V / k

with h the k before, T(h, k) the mean time of an iteration, and G the gain in the loss that one promises. Where no k
promises any, k = N. Ours, since the public descriptions leave them open:

- `eta` is |mean update| / |mean gradient|, so it is the step that the optimiser really makes; exact for plain SGD.
- `V` is the sample variance of the k gradients (k = 1 gives none and keeps the last), and |grad F|^2 is
  max(|mean gradient|^2 - V/k, 0); both are averaged over the last `WINDOW` iterations. L solves, summed over as many,
  `loss' - loss = -eta |grad F|^2 + L eta^2 |mean gradient|^2 / 2`, the loss being that of the k, and is kept between 0
  and 1/eta. Losses of batches are noisy, and beyond 2/eta no k would promise a gain: without the upper bound the server
  waits for all too often (logistic regression, batches of 64: 2.6 to 3 times the time to a suboptimality).
- T(h, k) are running means, made monotone (`isotonic.py`). An iteration that waited for k shows the times to its first,
  ..., k-th update. The times to further ones are seen as well: the j-th update to arrive of a computation that was
  begun since the iteration's beginning, one a worker, is there when it would have been had the server waited for j,
  since it is only who waits that differs. The server follows one iteration after another to its N-th such arrival.
- k = N until there is a first L. (The paper's rule for a loss that rises, if it has one, is not here.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from dbwjax.policies.isotonic import monotone
from dbwjax.policies.method import Method
from dbwjax.policies.papers import DBW
from dbwjax.policies.presence import at_most_there, end_not_before
from dbwjax.policies.selection import first_least
from dbwjax.policies.serving import first_of, pulled, served, travel, workers_of
from dbwjax.types import Graph, Key, Learner, Mix, Plan, Policy

WINDOW = 5
"""Iterations over which estimates are averaged, as in the paper."""

MOST_WORKERS = 64
"""The fit of T takes N^3 operations a sweep."""


class Gains(NamedTuple):
    """What is known of the loss. Of windows the last entries are the newest, and NaN those that are not filled."""

    variance: Float[Array, " W"]  # V
    slope: Float[Array, " W"]  # |grad F|^2
    change: Float[Array, " W"]  # 2 (loss' - loss + eta |grad F|^2)
    square: Float[Array, " W"]  # eta^2 |mean gradient|^2
    loss: Float[Array, ""]  # at the last model; NaN: none
    eta: Float[Array, ""]
    norm: Float[Array, ""]  # |mean gradient|^2 there


class Times(NamedTuple):
    """T(h, k), at [h - 1, k - 1]."""

    mean: Float[Array, "H K"]
    samples: Float[Array, "H K"]


class Followed(NamedTuple):
    """The iteration that is followed to its N-th arrival. Times are seconds from now."""

    on: Bool[Array, ""]
    h: Int[Array, ""]
    since: Float[Array, ""]  # it began
    again: Bool[Array, " N"]  # who has begun a computation since
    arrived: Float[Array, " N"]  # when the first such one's update arrived; inf: not yet


class Rounds(NamedTuple):
    """Where the server stands."""

    k: Int[Array, ""]  # it waits for
    h: Int[Array, ""]  # it waited for in the iteration before
    late: Bool[Array, " N"]  # who computes at an older model
    since: Float[Array, ""]  # this iteration began, seconds from now
    followed: Followed
    first: Bool[Array, ""]  # whether this is the iteration that is followed
    times: Times
    gains: Gains


def dbw() -> Policy:
    """Dynamic backup workers.

    A step is either the end of an iteration, or several late updates dropped at once: those among the k that arrive
    next. Before k updates at the present model have arrived the iteration does not end, whatever is drawn, so these are
    dropped before it does; each of their workers goes on at its own time. All rows hold the newest model at any time,
    as only what was computed at it is ever used.

    Latency: as for `server`; a late worker, too, starts l_i after its update arrived. Messages: an update and a model
    for each that arrives. With momentum or Adam the optimiser's state is each worker's own.

    Raises:
      ValueError: in `init`, more than `MOST_WORKERS` workers.
    """
    return push_and_wait(best)


def push_and_wait(choose: Any) -> Policy:
    """The protocol of DBW with any rule: `choose(times, gains, h) -> k`, traceable, after each iteration."""

    def init_fn(network: Graph) -> Rounds:
        workers = workers_of(network)
        if workers > MOST_WORKERS:
            raise ValueError(f"dbw of {workers} workers is too much to fit at each step; use at most {MOST_WORKERS}")
        return _start(workers, network.neighbours.shape[0])

    def decide_fn(key: Key, network: Graph, state: Rounds, remaining: Array, feedback: Any) -> tuple[Plan, Rounds]:
        del key
        state = jax.lax.cond(feedback.fresh.any(), lambda: _learned(choose, state, feedback), lambda: state)
        arrival = remaining + travel(network)
        k = at_most_there(network, state.k)
        taken, end = first_of(arrival, k)
        dropped = taken & state.late
        ends = ~dropped.any()
        duration = jnp.maximum(jnp.where(ends, end, jnp.where(dropped, arrival, -jnp.inf).max()), 0)
        duration = end_not_before(network, duration)
        again = jnp.where(ends, taken, dropped)
        plan = _plan(network, k, taken & ends, again, duration, jnp.where(ends, duration, arrival))
        state = _seen(state, arrival, again, ends, end)
        late = jnp.where(ends, network.computes & ~taken, state.late & ~dropped)
        return plan, _later(state._replace(late=late), duration)

    policy = Policy(init_fn, decide_fn, reads_training=True, idles=True, equip=measured)
    return served(policy)


def best(times: Times, gains: Gains, h: Array) -> Array:
    """The k that promises most gain a second."""
    everybody = times.mean.shape[0]
    k = jnp.arange(1, everybody + 1)
    gain = expected_gain(gains, k)
    seconds = monotone(times.mean, times.samples)[h - 1]
    place, _ = first_least(-gain / jnp.maximum(seconds, jnp.finfo(seconds.dtype).tiny))
    return jnp.where(gain.max() > 0, place + 1, everybody)  # NaN, which is no gain known, is not above 0


def expected_gain(gains: Gains, k: Array) -> Array:
    """G(k); NaN where too little is known."""
    smooth = jnp.nansum(gains.change) / jnp.nansum(gains.square)  # L
    half = jnp.clip(smooth * gains.eta, 0, 1) * gains.eta / 2
    return (gains.eta - half) * jnp.nanmean(gains.slope) - half * jnp.nanmean(gains.variance) / k


def measured(learner: Learner) -> Learner:
    """The learner, with what the server sees of the gradients: `(sum |g|^2, |mean g|^2, |mean u|^2)`."""

    def statistic(gradients: PyTree, updates: PyTree, fresh: Array, total: Mix) -> tuple[Array, Array, Array]:
        squares, count = total((_squares(gradients, fresh), fresh.sum()))
        means = total([_sums(tree, fresh) for tree in (gradients, updates)])
        norms = [sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)) for tree in means]
        return squares, *(norm / jnp.maximum(count, 1) ** 2 for norm in norms)

    return learner._replace(statistic=statistic)


def _wide(leaf: Array, fresh: Array) -> Array:
    """`[M, P]`, at least float32, zero where an update does not count."""
    flat = leaf.reshape(leaf.shape[0], -1)
    return jnp.where(fresh[:, None], flat.astype(jnp.promote_types(flat.dtype, jnp.float32)), 0)


def _squares(tree: PyTree, fresh: Array) -> Array:
    return sum((_wide(leaf, fresh) ** 2).sum() for leaf in jax.tree.leaves(tree))  # type: ignore[return-value]


def _sums(tree: PyTree, fresh: Array) -> PyTree:
    return jax.tree.map(lambda leaf: _wide(leaf, fresh).sum(axis=0), tree)


def _plan(network: Graph, k: Array, fresh: Array, again: Array, duration: Array, arrival: Array) -> Plan:
    return Plan(
        duration=duration,
        **pulled(network, fresh, k),
        restart=again,
        ready=jnp.where(again, arrival + travel(network), duration),
        updates=fresh.any(),
        messages=2 * again.sum(),
        info=k,
    )


def _start(workers: int, nodes: int) -> Rounds:
    zero = jnp.zeros(())
    many, unknown = jnp.full(nodes, jnp.inf, zero.dtype), jnp.full(WINDOW, jnp.nan, zero.dtype)
    nan, all_of = jnp.asarray(jnp.nan, zero.dtype), jnp.asarray(workers, jnp.int32)
    followed = Followed(jnp.zeros((), bool), all_of, zero, jnp.zeros(nodes, bool), many)
    table = jnp.zeros((workers, workers))
    return Rounds(
        k=all_of,
        h=all_of,
        late=jnp.zeros(nodes, bool),
        since=zero,
        followed=followed,
        first=jnp.zeros((), bool),
        times=Times(table, table),
        gains=Gains(unknown, unknown, unknown, unknown, nan, nan, nan),
    )


def _learned(choose: Any, state: Rounds, feedback: Any) -> Rounds:
    """The state once what the last iteration's workers sent is known: estimates, and the next k."""
    gains = _gained(state.gains, feedback)
    k = choose(state.times, gains, state.h)
    return state._replace(gains=gains, k=jnp.asarray(k, jnp.int32))


def _gained(gains: Gains, feedback: Any) -> Gains:
    squares, norm, moved = (jnp.asarray(each, gains.loss.dtype) for each in feedback.statistic)
    k = feedback.fresh.sum()
    loss = jnp.where(feedback.fresh, feedback.loss, 0).sum().astype(gains.loss.dtype) / k
    variance = jnp.maximum(squares - k * norm, 0) / jnp.maximum(k - 1, 1)
    kept = jnp.where(k > 1, _pushed(gains.variance, variance), gains.variance)
    noise = jnp.where(k > 1, variance, jnp.nan_to_num(jnp.nanmean(kept)))
    old = gains.slope[-1]
    change = 2 * (loss - gains.loss + gains.eta * old)
    known = jnp.isfinite(gains.loss)
    return Gains(
        variance=kept,
        slope=_pushed(gains.slope, jnp.maximum(norm - noise / k, 0)),
        change=jnp.where(known, _pushed(gains.change, change), gains.change),
        square=jnp.where(known, _pushed(gains.square, gains.eta**2 * gains.norm), gains.square),
        loss=loss,
        eta=jnp.sqrt(moved / jnp.where(norm > 0, norm, 1)),
        norm=norm,
    )


def _pushed(window: Array, value: Array) -> Array:
    return jnp.concatenate([window[1:], value[None]])


def _seen(state: Rounds, arrival: Array, again: Array, ends: Array, end: Array) -> Rounds:
    """The state with the arrivals of a step: of those who go `again`."""
    followed, workers = state.followed, state.times.mean.shape[0]
    hit = followed.on & again & followed.again & jnp.isinf(followed.arrived)
    arrived = jnp.where(hit, arrival, followed.arrived)
    whole = followed.on & jnp.isfinite(arrived[:workers]).all()
    times = _averaged(state.times, followed.h, arrived[:workers] - followed.since, whole)
    # The followed iteration's own times come with those of its further arrivals.
    own = jnp.where(again, arrival, jnp.inf)[:workers] - state.since
    times = _averaged(times, state.h, own, ends & ~state.first)
    begins = ends & (whole | ~followed.on)
    followed = Followed(
        on=begins | (followed.on & ~whole),
        h=jnp.where(begins, state.k, followed.h),
        since=jnp.where(begins, end, followed.since),
        again=jnp.where(begins, again, followed.again | again),
        arrived=jnp.where(begins, jnp.inf, arrived),
    )
    return state._replace(
        h=jnp.where(ends, state.k, state.h),
        since=jnp.where(ends, end, state.since),
        followed=followed,
        first=jnp.where(ends, begins, state.first),
        times=times,
    )


def _averaged(times: Times, h: Array, seconds: Float[Array, " K"], counts: Array) -> Times:
    """The means with one sample more of T(h, 1), T(h, 2), ...: of the first arrival, the second, ..., where finite."""
    places = jnp.arange(seconds.shape[0])
    before = (seconds[None, :] < seconds[:, None]) | (
        (seconds[None, :] == seconds[:, None]) & (places[None, :] < places[:, None])
    )
    in_order = jnp.zeros_like(seconds).at[before.sum(axis=1)].set(seconds)
    row = (places[:, None] == h - 1) & (counts & jnp.isfinite(in_order))[None, :]
    samples = times.samples + row
    step = jnp.where(row, in_order[None, :] - times.mean, 0) / jnp.maximum(samples, 1)
    return Times(times.mean + step, samples)


def _later(state: Rounds, duration: Array) -> Rounds:
    """Times counted from the end of the step."""
    followed = state.followed
    moved = followed._replace(since=followed.since - duration, arrived=followed.arrived - duration)
    return state._replace(since=state.since - duration, followed=moved)


def _dbw() -> Policy:
    return dbw()


METHODS = (
    Method(
        "dbw",
        _dbw,
        "the server decides at each step for how many workers to wait, by expected gain a second",
        (DBW,),
        family="server",
        mixing="row",
        absence="the server waits for the k of its choice, or for all that are there where those are fewer; times of "
        "more are not learned",
    ),
)
