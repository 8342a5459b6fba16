"""What every worker holds at one absolute time, and what a row of metrics at that time says.

The simulations of this package give one record per iteration. Here each record is taken apart by worker, into
iterations that begin and end at that worker's own absolute times. Everything else is read off those by looking
through all of them: slow, and nothing to get wrong.

How things are dated. Worker `j` ends its iteration `k` at `T_j(k+1)`, and holds `x_j(k+1)` from `T_j(k+1)` (inclusive)
to `T_j(k+2)` (exclusive). Whatever belongs to an iteration is dated by its end:

- a gradient, and its loss, by the end of the iteration that it moves the parameters in;
- a computation by the end of the iteration after which the worker starts its next one. Its seconds until it finished,
  or until it was cut at that end if that is earlier, are *computing* if its gradient counted and *wasted* if not. The
  seconds between its finish and that end are *waiting*, but *communicating* as far as a message was on its way: its own
  to its neighbours under a global barrier, the last that let it go on otherwise. So a computation that is carried over
  says nothing until it takes part. With `late="apply"` every gradient counts, and the seconds of a late worker are
  computing, though its gradient would have needed longer.

Row `m` of a grid speaks of the iterations that end in `(t[m-1], t[m]]`, row 0 of those that end up to `t[0]`.
"""

import numpy as np

from . import drifting, gossip
from .queue import no_latency


class World:
    """What all policies share.

    Args:
      seconds: `seconds(i, n)`, how long worker `i` needs for its `n`-th computation.
      gradient: `gradient(i, n, x)`, gradient and loss of that computation at `x`.
      x0: [N, P] parameters at time 0.
      neighbours: for each worker the sorted list of its neighbours.
      rate: learning rate of SGD.
      latency: `latency(i, j)`, seconds of a message from `j` to `i`.
      path: the links of a spanning path (or tree), for `dybw`.
      eccentricity: of each worker, for `dybw` with `flood_latency`.
    """

    def __init__(self, seconds, gradient, x0, neighbours, rate=1.0, latency=no_latency, path=None, eccentricity=None):
        self.seconds, self.gradient, self.rate, self.latency = seconds, gradient, rate, latency
        self.x0 = np.array(x0, dtype=np.float64)
        self.neighbours = [list(near) for near in neighbours]
        self.path, self.eccentricity = path, eccentricity


class Iteration:
    """One iteration of one worker.

    Attributes:
      begin, end: absolute seconds.
      x: [P] what the worker holds from `end` on.
      active: whether it took part.
      missed: neighbours that it did not hear.
      loss: of its gradient that counted in this iteration; None: none did.
      restarted: whether a computation was over at `end` and the next one began.
      computing, wasted, waiting, communicating: seconds of that computation; 0 where it goes on.
      staleness: iterations between the start of the computation and this one.
    """

    def __init__(self, begin, end, x, active, missed, loss, restarted):
        self.begin, self.end, self.x = begin, end, np.array(x, dtype=np.float64)
        self.active, self.missed, self.loss, self.restarted = active, missed, loss, restarted
        self.computing = self.wasted = self.waiting = self.communicating = 0.0
        self.staleness = 0

    def account(self, began, finish, flight):
        """Enters the computation that is over, which began and would have finished at these absolute seconds, and for
        how long a message was on its way after that."""
        over = min(finish, self.end)
        self.communicating = min(flight, self.end - over)
        self.waiting = self.end - over - self.communicating
        if self.loss is None:
            self.wasted = over - began
        else:
            self.computing = over - began


class History:
    """All that happened.

    Attributes:
      x0: [N, P] parameters at time 0.
      workers: for each worker the list of its iterations.
    """

    def __init__(self, x0, workers):
        self.x0, self.workers = x0, workers

    def until(self, budget):
        """The same without iterations that begin after `budget`."""
        return History(self.x0, [[one for one in own if one.begin <= budget] for own in self.workers])


def run_until(policy, budget, world):
    """Simulates until every worker has ended an iteration later than `budget` seconds.

    Args:
      policy: as in a SPEC of the library, with Metropolis weights: `dybw:late=`[`,flood_latency=`], `full:late=`,
        `full:barrier=neighbours`, `fastest:k=,late=`, `deadline:seconds=,late=`, `backup:b=`[`,gap=`],
        `dpsgd:barrier=`. Nothing has a default, except that `flood_latency` is 0 and `gap` infinite.
      budget: seconds.
      world: a `World`.

    Returns:
      A `History` in which each worker's last iteration is the first that ends after `budget`.

    Raises:
      ValueError: a policy that is not there, or time that does not pass.
    """
    steps, before = 8, 0.0
    while True:
        history = run(policy, steps, world)
        reached = min(own[-1].end for own in history.workers)
        if reached > budget:
            return history.until(budget)
        if reached == before:
            raise ValueError(
                f"time stands still at {reached} s, before budget={budget}; give computations that take time"
            )
        steps, before = 2 * steps, reached


def run(policy, steps, world):
    """The `History` of `steps` iterations of every worker; see `run_until`."""
    losses = {}

    def update(i, n, x):
        gradient, loss = world.gradient(i, n, x)
        losses[i, n] = float(loss)
        return -world.rate * np.asarray(gradient, dtype=np.float64)

    name, settings = _read(policy)
    common = {
        "delay": world.seconds,
        "update": update,
        "x0": world.x0,
        "neighbours": world.neighbours,
        "steps": steps,
        "latency": world.latency,
    }
    late = settings.pop("late", None)
    flight = _delivery
    if name == "dpsgd":
        flight = _sent_at_the_start
        records = drifting.run_dpsgd(settings.pop("barrier"), **common)
    elif name == "backup" or (name, settings.pop("barrier", None)) == ("full", "neighbours"):
        flight = _sent_at_the_finish
        records = drifting.run_backup(int(settings.pop("b", 0)), **_gap(settings), **common)
    else:
        records = gossip.run_global(_rule(name, settings, world), late, **common)
    if settings:
        raise ValueError(f"{policy!r} has a setting {sorted(settings)} that nothing reads; leave it out")
    return _history(records, late, losses, world, flight)


def _delivery(world, j, k, starts, finish, end):
    """Until the last neighbour has the message of worker j."""
    return max((world.latency(i, j) for i in world.neighbours[j]), default=0.0)


def _sent_at_the_start(world, j, k, starts, finish, end):
    """Until worker j has the last of its neighbours' messages."""
    return _in_flight([(starts[i], starts[i] + world.latency(j, i)) for i in world.neighbours[j]], finish)


def _sent_at_the_finish(world, j, k, starts, finish, end):
    """Until worker j has the message at whose arrival it goes on."""
    sent = [(starts[i] + world.seconds(i, k), world.latency(j, i)) for i in world.neighbours[j]]
    return _in_flight([(out, out + wait) for out, wait in sent if out + wait == end], finish)


def _in_flight(messages, finish):
    """How long after `finish` the last of some messages, (set out, arrives), was on its way."""
    if not messages:
        return 0.0
    last = max(arrives for _, arrives in messages)
    out = min(out for out, arrives in messages if arrives == last)
    return max(last - max(finish, out), 0.0)


def _read(policy):
    """Name and settings of a SPEC."""
    name, _, rest = policy.partition(":")
    return name, dict(item.split("=") for item in rest.split(",") if item)


def _gap(settings):
    gap = settings.pop("gap", "inf")
    return {} if gap == "inf" else {"gap": int(gap)}


def _rule(name, settings, world):
    if name == "full":
        return gossip.Full()
    if name == "fastest":
        return gossip.Fastest(int(settings.pop("k")))
    if name == "deadline":
        return gossip.Deadline(float(settings.pop("seconds")))
    if name == "dybw":
        return gossip.Dtur(world.path, float(settings.pop("flood_latency", 0.0)), world.eccentricity)
    raise ValueError(f"policy {name!r} is not told here; see run_until")


def _history(records, late, losses, world, flight):
    """Takes the records apart by worker."""
    workers = []
    for j, near in enumerate(world.neighbours):
        number, began, since = 0, 0.0, 0  # of the computation it is busy with
        begin, own = 0.0, []  # of the iteration
        for k, record in enumerate(records):
            counts = j in record.active or late == "apply"
            one = Iteration(
                begin=begin,
                end=record.ends[j],
                x=record.x[j],
                active=j in record.active,
                missed=len(near) - record.heard[j],
                loss=losses[j, number] if counts else None,
                restarted=j in record.restarted,
            )
            one.staleness = k - since if counts else 0
            if one.restarted:
                finish = began + world.seconds(j, number)
                starts = records[k - 1].ends if k else [0.0] * len(world.neighbours)
                one.account(began, finish, flight(world, j, k, starts, finish, one.end))
                number, began, since = record.started[j], one.end, k + 1
            own.append(one)
            begin = one.end
        workers.append(own)
    return History(world.x0, workers)


def held(history, t):
    """[N, P] what each worker holds at the absolute second `t`.

    Raises:
      ValueError: a time before 0, or at which the history of some worker has ended already.
    """
    if t < 0:
        raise ValueError(f"t={t} is before the beginning; use 0 or more seconds")
    found = []
    for x, own in zip(history.x0, history.workers, strict=True):
        if own[-1].end <= t:
            raise ValueError(f"t={t} is after the history ends ({own[-1].end} s); simulate longer")
        for one in own:
            if one.end <= t:
                x = one.x
        found.append(x)
    return np.array(found)


def account(history, t):
    """[N, 4] seconds computing, wasted, waiting and communicating of each worker, of the computations that are over by
    `t`."""
    names = ("computing", "wasted", "waiting", "communicating")
    return np.array(
        [[sum(getattr(one, name) for one in own if one.end <= t) for name in names] for own in history.workers]
    )


def rows(history, grid):
    """What is known at each time of an ascending grid.

    Returns:
      For each time a dict: `virtual_time`; `mean` [P], the mean over workers of what they hold; `consensus_distance`,
      the root mean square of their Euclidean distances to it; `iterations` [N] ended by then, `step` their mean and
      `drift` their most less their least; `iteration_length`, the mean length of those; `gradients` that counted by
      then; `computing`, `wasted`, `waiting`, `communicating`, the seconds of all workers by then; and of the window
      that ends here `train_loss` and `staleness`, means over its gradients that counted, `active_fraction` and
      `backup_workers`, means over its iterations. A mean over nothing is None.
    """
    found = []
    before = -np.inf
    for t in grid:
        x = held(history, t)
        mean = x.sum(axis=0) / len(x)
        ended = [[one for one in own if one.end <= t] for own in history.workers]
        every = [one for own in ended for one in own]
        window = [one for one in every if one.end > before]
        iterations = [len(own) for own in ended]
        computing, wasted, waiting, communicating = account(history, t).sum(axis=0)
        found.append(
            {
                "virtual_time": float(t),
                "mean": mean,
                "consensus_distance": float(np.sqrt(((x - mean) ** 2).sum() / len(x))),
                "iterations": iterations,
                "step": sum(iterations) / len(iterations),
                "drift": max(iterations) - min(iterations),
                "iteration_length": _mean([one.end - one.begin for one in every]),
                "gradients": sum(one.loss is not None for one in every),
                "computing": float(computing),
                "wasted": float(wasted),
                "waiting": float(waiting),
                "communicating": float(communicating),
                "staleness": _mean([one.staleness for one in window if one.loss is not None]),
                "train_loss": _mean([one.loss for one in window if one.loss is not None]),
                "active_fraction": _mean([one.active for one in window]),
                "backup_workers": _mean([one.missed for one in window]),
            }
        )
        before = t
    return found


def _mean(values):
    return float(sum(values) / len(values)) if values else None
