"""Every type that two rooms share, with its axes and units.

The axes, everywhere: `N` nodes, `M` workers computing in a step, `R` rows written, `D` slots of a row
(largest degree + 1, padded), `T` steps, `B` samples of a batch, `S` samples of a worker. The receiver comes
first: `mix[i, j]` is what `i` takes from `j`. Times are seconds of virtual time; a name says which clock it
is: `duration`, `remaining`, `virtual_time`, `wall_time`.

Pytrees are `NamedTuple`s. They do not validate themselves, because JAX rebuilds them with tracers; the
builders that fill them do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, PyTree

Key = Array
"""A typed JAX random key, shape ()."""

DelayModel = Callable[[Key, Array, Array], Array]
"""`(key, worker, started) -> seconds`: how long the `started`-th computation of `worker` takes.

A pure function of its arguments, so that no policy, chunk or device layout can change a delay. `key` is the one
key of the delay stream; the model folds `worker` and `started` into it. All three are scalars; the engine maps
it over workers. The shipped models are `jax.tree_util.Partial`s: callable pytrees whose parameters are arrays.

Seconds are 0 or more; `inf` says that the computation never ends. A delay that is negative or not a number ends the
run and is named. Time must pass: not all delays may be 0.
"""

Batches = Callable[[Key, Array, Array], PyTree]
"""`(key, worker, started) -> batch`: the samples of the `started`-th computation of `worker`; pure, as above."""


class Known(NamedTuple):
    """What is known while a step of a world that breaks is decided. Seconds after the step's origin."""

    away: Bool[Array, " N"]  # who is believed absent, or is cut off from the server
    floor: Float[Array, " N"]  # nobody goes on before that: what the decision rests on was not known earlier
    back: Float[Array, " N"]  # when it came back in this step; -inf: it has been there


class Graph(NamedTuple):
    """Who hears whom, as padded lists of sources, and how long a message takes.

    Slot 0 of every row is the node itself. The other slots hold its neighbours in ascending order; unused slots
    repeat the node itself and are not links.
    """

    neighbours: Int[Array, "N D"]  # node heard in each slot; slot 0 is the node itself
    links: Bool[Array, "N D"]  # which slots are links to another node (slot 0 and padding: False)
    latency: Float[Array, "N D"]  # seconds a message needs from neighbours[i, s] to i; 0 where links is False
    computes: Bool[Array, " N"]  # False for nodes that never compute (a server, a mailbox)
    known: Known | None = None  # where things break: `links` and `computes` are then what is believed to be there


class Events(NamedTuple):
    """What breaks at given times of the world, whatever the policy. Seconds of virtual time; `inf`: never.

    A computation that a worker's absence cuts short is lost, and is done again from the worker's return on. The others
    know of an absence `patience` seconds after it began, and of a return at once.
    """

    away_from: Float[Array, "N A"]  # each worker's absences in order of time; inf: padding
    away_until: Float[Array, "N A"]  # inf: it never comes back
    patience: Float[Array, "N A"]
    cut_from: Float[Array, " C"]  # partitions: while one lasts, no link between two sides carries a message
    cut_until: Float[Array, " C"]
    side: Int[Array, "C N"]  # each worker's side
    loss: Float[Array, ""]  # probability that what a link carries in a step is lost


class Plan(NamedTuple):
    """What one step does, in the language of `X' = mix @ X + push @ U`.

    `None` stands for "everyone" and keeps the synchronous path free of gathers:

    - `sources=None`: `mix` is dense, `[R, N]`. Otherwise `mix[r, s]` weighs node `sources[r, s]`.
    - `push=None`: the updates are mixed with the parameters, `X' = mix @ (X + U)` (needs `M = N`).
      A vector `[R]` is diagonal (`rows[r]` takes `push[r]` of its own update; needs `M = N`), or, with `pushers`, row r
      takes `push[r]` of the update `pushers[r]` of the `M`. A matrix is `[R, M]`, or `[1, M]`: the same for every row.
    - `workers=None`: all nodes compute, `M = N`. `rows=None`: all rows are written, `R = N`. An entry of `rows` equal
      to `N` is padding and writes nothing.
    - `at=None`: a worker's update is computed at the parameters that it started from. Otherwise at those that node
      `at[m]` has now, which needs no copy of where anybody started.
    - `restart=None`: every node starts its next computation. A mask `[N]`, or node numbers `[K]` (N is padding) where
      so few restart that a pass over all nodes would cost more than the step. `ready=None`: at the end of the step.
    - `active=None`: the workers whose updates count took part, and nobody else.
    - `received=None`: counted from `mix` and `sources`. A policy that knows it by less work makes clocks that run alone
      faster; the count must be the same.

    The others are for the accounts, and change no number of the training:

    - `backups=None`: the neighbours that a row takes nothing from. A server says how many workers it did not wait for.
    - `updates=None`: staleness is counted in steps in which an update counts. Otherwise in those where this is true.
    - `idle=None`: everybody who restarts had been computing. Otherwise the marked ones had not: their time is waiting.
    - `flight=None`: nobody waited for a message in flight. Otherwise so many of the seconds from a worker's finish to
      its restart were that, by node, or by entry of `restart` where that is numbers.
    - `messages=None`: a message for each other node that a row takes from. Otherwise so many were sent in the step.
    - `heard=None`: a row hears a node that it takes from, and an event's worker whose update it takes. Otherwise these
      nodes were heard (N: nobody); for methods that keep messages in nodes of their own.
    - `info`: whatever a rule wants kept of each step (`timeline` keeps it).

    `constants` are for the learner's `combine`: what the method knows of this graph (step sizes, rounds of mixing).
    """

    duration: Float[Array, ""]  # seconds by which the step moves the clock's origin
    fresh: Bool[Array, " M"]  # whose update counts
    mix: Float[Array, "R N"] | Float[Array, "R D"]
    sources: Int[Array, "R D"] | None = None
    push: Float[Array, "R M"] | Float[Array, "1 M"] | Float[Array, " R"] | None = None
    pushers: Int[Array, " R"] | None = None  # whose update each row takes, counted among the M; None: its own
    workers: Int[Array, " M"] | None = None
    at: Int[Array, " M"] | None = None  # the node at whose parameters each update is computed
    rows: Int[Array, " R"] | None = None
    restart: Bool[Array, " N"] | Int[Array, " K"] | None = None  # who starts its next computation
    ready: Float[Array, " N"] | Float[Array, " K"] | None = None  # when it starts, seconds after the step's origin
    active: Bool[Array, " N"] | None = None  # who took part in the step
    received: Int[Array, " R"] | None = None  # how many other nodes each row takes from
    backups: Int[Array, ""] | None = None  # workers that the step did not wait for
    updates: Bool[Array, ""] | None = None  # whether the step is one more update of the model
    idle: Bool[Array, " N"] | None = None  # who had not been computing
    flight: Float[Array, " N"] | Float[Array, " K"] | None = None  # seconds
    messages: Int[Array, ""] | None = None  # sent in the step
    heard: Int[Array, " H"] | None = None  # of an event
    info: PyTree = None
    constants: Float[Array, " C"] | None = None


class Policy(NamedTuple):
    """Who waits for whom: a pair of pure functions and some facts about them.

    `init(graph) -> state` runs on the host once, with NumPy allowed; hyperparameters that do not change a shape
    (how many backups, a deadline) belong in the state as arrays. `decide(key, graph, state, remaining, feedback)
    -> (Plan, state)` is traceable; `remaining[i]` is when node `i` finishes, in seconds after the step's origin
    (`inf` for a node that does not compute), and `feedback` is the learner's last `StepInfo` by node, `[N, ...]`, or
    `None`.

    A method may bring its own network (`network`): a server, mailboxes, links of its own. Workers keep their numbers,
    and nodes that are added come after them. `init` and `decide` see that network.
    """

    init: Callable[[Graph], PyTree]
    decide: Callable[[Key, Graph, PyTree, Array, Any], tuple[Plan, PyTree]]
    stale: bool = False  # updates are computed at a copy of the parameters at the computation's start
    pushsum: bool = False  # parameters are read as X / mass
    reads_training: bool = False  # needs `feedback`, so its clock cannot run ahead of training
    idles: bool = False  # has steps in which no update counts: there no gradient is computed
    network: Callable[[Graph], Graph] | None = None  # from the workers' graph, on the host; None: that graph
    evaluated: Callable[[Graph], Array] | None = None  # of `network`: [N] bool, whose mean is the model; None: workers
    begin: Callable[[Key, Graph, PyTree], PyTree] | None = None  # the state at time 0, where some of it is random
    equip: Callable[[Learner], Learner] | None = None  # what the method makes of the workers' learner
    whole: Callable[[Batches, int], Batches] | None = None  # (the task's objectives, workers) -> on what it computes
    unbroken: str | None = None  # why it refuses a world that breaks, and what else there is; None: it lives with one
    debug: str | None = None  # which sums of its matrices are looked at in every step; None: none
    housed: Callable[[Array, int], Array] | None = None  # (node, N) -> the worker beside which it is; N: the server,
    # which all added nodes are by default; -1: wherever it is needed, so that nothing is lost on the way


class WaitRule(NamedTuple):
    """A waiting rule of the gossip family: a pair of pure functions.

    `init(graph) -> state` runs on the host. `cut(key, graph, state, arrival) -> (active, end, state)` is traceable:
    `arrival[i]` is when worker `i` has finished the iteration and all its neighbours have its message (seconds after
    the iteration's origin), `active` [N] says who takes part and `end` () when the iteration ends for everybody.
    """

    init: Callable[[Graph], PyTree]
    cut: Callable[[Key, Graph, PyTree, Array], tuple[Array, Array, PyTree]]


Mix = Callable[[PyTree], PyTree]
"""`mix @ tree` for any stack, leaves `[N, ...]`: sums at least float32, not rounded to the type of the leaves."""


class Combine(NamedTuple):
    """How a step mixes where the message is more than `x + u`; under plans in which everybody is written.

    `apply(mix, keys, params, updates, local, constants) -> (params, local)` is of all workers at once: leaves `[N,
    ...]`, a key for each, and the plan's `constants`. The engine rounds the parameters to their type, and leaves who
    took no part in the step as they were. `sent(params) -> bytes` of one worker's message, from parameters of which
    shapes and types are read; `None`: of its parameters.
    """

    apply: Callable[[Mix, Key, PyTree, PyTree, PyTree, Array | None], tuple[PyTree, PyTree]]
    adapts_first: bool  # whether the message holds this iteration's update: under plans of `push=None`, and only there
    sent: Callable[[PyTree], float] | None = None


class Objective(NamedTuple):
    """One worker's whole objective f_i, where it is convex and known: what an exact method computes on."""

    data: PyTree  # a batch on which the task's loss is f_i, with whatever more the task's `oracle` reads
    strong: Float[Array, ""]  # every worker's objective is so strongly convex at least; the same number for all
    smooth: Float[Array, ""]  # and its gradient has this Lipschitz constant at most


class Squares(NamedTuple):
    """A batch of least squares: the loss is the mean of `(features @ x - target)^2 / 2`. Rows of zeros are padding."""

    features: Float[Array, "B d"]
    target: Float[Array, " B"]
    solved: PyTree = None  # what the oracle makes use of


Oracle = Callable[[Objective, PyTree, PyTree, Array], PyTree]
"""`(objective, linear, centre, weight) -> params`, the minimiser of `f(x) + <linear, x> + weight |x - centre|^2`, exact
to rounding; `weight` is 0 or more."""


class Learner(NamedTuple):
    """What one worker does with one batch; the engine maps it over workers.

    `init(params) -> local` builds the worker's own state (the optimiser's). `gradient(params, local, batch) ->
    (gradient, loss, observed)`: the loss () and any further pytree that a policy may want to read as feedback (`None`:
    nothing). `update(gradient, local, params) -> (update, local)` gives what to add to the parameters (for SGD, `-lr *
    gradient`). `block` is how many workers' batches are drawn and gradients computed at a time (`None`: all); results
    do not depend on it, beyond rounding.

    `statistic(gradients, updates, fresh, total) -> pytree` is feedback that is computed over workers: of leaves `[M,
    ...]`, those that do not count being zero in `updates` and anything in `gradients`; `total` adds up over devices.
    `report(params, local) -> params` is the model that is evaluated in a worker's place (a running mean). `oracle` is
    the task's; `None`: it has none. A method that computes on whole objectives gets an `Objective` as its batch.
    """

    init: Callable[[PyTree], PyTree]
    gradient: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Array, Any]]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    block: int | None = None
    combine: Combine | None = None
    statistic: Callable[[PyTree, PyTree, Array, Mix], PyTree] | None = None
    report: Callable[[PyTree, PyTree], PyTree] | None = None
    oracle: Oracle | None = None


class ClockState(NamedTuple):
    """Where the clock stands. Only relative times live on the device; absolute time is summed on the host in
    float64."""

    remaining: Float[Array, " N"]  # when each node finishes, seconds after the coming step's origin; inf: never
    started: Int[Array, " N"]  # index of the computation each node is busy with
    step: Int[Array, ""]  # steps done
    policy: PyTree  # the policy's own state
    begun: Float[Array, " N"]  # when each node's computation began, seconds after the coming step's origin (0 or less)
    counted: Bool[Array, " N"]  # whether its update has counted already, though it has not been restarted
    updates: Int[Array, ""]  # of the model so far
    born: Int[Array, " N"]  # how many there were when each node's computation began
    # Only where things break:
    elapsed: Float[Array, " 2"] | None = None  # seconds until the coming step's origin, as the sum of two floats
    cut: Float[Array, "2 N"] | None = None  # of each node's computation: seconds away, and in attempts cut short


class ModelState(NamedTuple):
    """What has been learned so far: stacked parameters and each worker's own state."""

    params: PyTree  # [N, ...]
    local: PyTree  # [N, ...] optimiser states
    started: Int[Array, " N"]  # index of the computation each node is busy with; names its batch
    origin: PyTree | None = None  # [N, ...] parameters each node started from; None: those it has now
    mass: Float[Array, " N"] | None = None  # push-sum's mass; None: 1


class StepInfo(NamedTuple):
    """What the learner tells about a step."""

    loss: Float[Array, " M"]  # each computing worker's loss on its batch, before the update; 0 where not fresh
    fresh: Bool[Array, " M"]  # whose loss that is
    observed: PyTree = None  # [M, ...] whatever the learner's gradient observed
    statistic: PyTree = None  # what the learner computed over the workers


class Tick(NamedTuple):
    """What the clock alone says about a step; stacked to [T, ...] by a scan.

    It has `E` entries: of all nodes, or, where a step is an event of a few, of those alone (`nodes`).
    """

    duration: Float[Array, ""]  # seconds by which the step moves the clock's origin
    ended: Float[Array, " N"] | None  # when each worker's iteration ends, seconds after the origin; None: at `duration`
    nodes: Int[Array, " E"] | None  # whom the entries are about (N: nobody); None: all nodes in order
    iterated: Bool[Array, " E"] | None  # whose iteration ends in this step; None: everybody's
    active: Bool[Array, " E"]  # who took part
    missed: Int[Array, " E"]  # neighbours not heard by whose iteration ends; 0 elsewhere
    counted: Bool[Array, " E"]  # whose update counted
    computing: Float[Array, " E"]  # seconds of the computations that end here and counted
    wasted: Float[Array, " E"]  # seconds of the computations that end here and were thrown away
    waiting: Float[Array, " E"]  # seconds from a finish to the restart that takes place here, without `communicating`
    communicating: Float[Array, " E"]  # seconds of that in which the message waited for was in flight
    age: Int[Array, " E"]  # updates of the model between the start and the counting of an update that counted
    messages: Int[Array, ""]  # sent
    heard: Int[Array, " N"] | Int[Array, " H"]  # by how many each node was; of events, the nodes heard (N: nobody)
    mixing: Mixing | None  # None: too many nodes, or nodes that are no workers
    fault: tuple[Int[Array, ""], Float[Array, ""]] | None = None  # as of `masks.faults`; None: not looked for


class Mixing(NamedTuple):
    """The mixing of a step, for its spectrum; as in `Plan`."""

    mix: Float[Array, "R N"] | Float[Array, "R D"]
    sources: Int[Array, "R D"] | None
    rows: Int[Array, " R"] | None


COLUMNS = (
    "policy",
    "world",
    "row",
    "virtual_time",
    "step",
    "drift",
    "wall_time",
    "train_loss",
    "test_loss",
    "test_accuracy",
    "consensus_distance",
    "active_fraction",
    "backup_workers",
    "gradients",
    "computing",
    "wasted",
    "waiting",
    "communicating",
    "staleness",
    "bytes_sent",
    "heard_least",
    "spectral_gap",
    "iteration_length",
    "worker_accuracy_min",
    "worker_accuracy_median",
    "diverged",
)
"""The columns of a run's `metrics.jsonl`, in order; a task's further figures follow them. In a sweep the axes stand in
place of `world`."""


class StepRecord(NamedTuple):
    """What a simulated step leaves for the records; stacked to [T, ...] by a scan."""

    duration: Float[Array, ""]
    active: Bool[Array, " N"] | Bool[Array, " M"]  # who took part; of an event, of `workers`
    workers: Int[Array, " M"] | None  # None: all nodes
    backup_workers: Float[Array, ""]  # mean over the rows written of the neighbours not heard
    gradients: Int[Array, ""]  # updates that counted
    loss: Float[Array, " M"]  # of each update that counted; 0 elsewhere
    diverged_worker: Int[Array, ""]  # first worker whose counted loss was not finite; -1: none
    unreachable: Bool[Array, ""]  # the plan reads a row that the placement does not move
