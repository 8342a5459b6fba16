"""Neighbours average once per iteration, which begins and ends for everybody at the same time: the waiting rules.

Source: cb-DyBW, cb-Full and DTUR from Xiong, Yan, Singh and Li, arXiv 2102.06280. The rules under which workers drift
apart are in `drifting.py`.
"""

import numpy as np

from .queue import EventQueue, Record, Worker, no_latency

FINISH, MESSAGE, ALARM = 0, 1, 2


class Full:
    """The iteration ends when all workers have arrived."""

    def prepare(self, workers):
        """Forgets earlier runs; `workers` is how many there will be."""
        self.workers = workers

    def open(self, start):
        """A new iteration begins. Returns at what time the rule wants to be asked whatever happens, or None."""
        return None

    def end(self, now, arrival):
        """Asked at every instant, after everything of that instant has happened.

        Args:
          now: the present time.
          arrival: time of arrival by worker, of those that have arrived.

        Returns:
          None to wait on, or the time at which the iteration ends; those that have arrived by now are then active.
        """
        return now if len(arrival) == self.workers else None

    def close(self, active):
        """The iteration is over."""


class Fastest(Full):
    """The iteration ends when `k` workers have arrived; whoever arrives at that very instant is active too."""

    def __init__(self, k):
        self.k = k

    def prepare(self, workers):
        super().prepare(workers)
        if not 1 <= self.k <= workers:
            raise ValueError(f"k={self.k} of {workers} workers; use 1 to {workers}")

    def end(self, now, arrival):
        return now if len(arrival) >= self.k else None


class Deadline(Full):
    """The iteration ends after `seconds`, or when all have arrived if that is earlier."""

    def __init__(self, seconds):
        self.seconds = seconds

    def open(self, start):
        self.alarm = start + self.seconds
        return None if self.alarm == float("inf") else self.alarm

    def end(self, now, arrival):
        return now if len(arrival) == self.workers or now >= self.alarm else None


class Dtur(Full):
    """The threshold rule of cb-DyBW over the links of a spanning path (or tree).

    The iteration is cut at the first instant at which both ends of a link not yet established in this epoch have
    arrived. The end of that link that arrived last announces the cut; the announcement reaches everybody after
    `flood_latency * eccentricity` of the announcer, and only then does the iteration end. Who arrived after the cut is
    late. Every link between active workers is then established; when all are, a new epoch begins.

    A worker that arrived during the announcement of the iteration before, and carries its computation over, counts
    as arrived at the start of the iteration: nobody can announce an end before the beginning.

    `epoch_lengths` lists how many iterations each completed epoch took.
    """

    def __init__(self, path_links, flood_latency=0.0, eccentricity=None):
        if flood_latency > 0 and eccentricity is None:
            raise ValueError(f"flood_latency={flood_latency} needs the eccentricity of every worker")
        self.links = [tuple(link) for link in path_links]
        self.flood_latency = flood_latency
        self.eccentricity = eccentricity

    def prepare(self, workers):
        super().prepare(workers)
        self.established = set()
        self.iterations = 0
        self.epoch_lengths = []

    def open(self, start):
        self.start = start

    def end(self, now, arrival):
        if not self.links:
            return super().end(now, arrival)
        for i, j in self.links:
            if (i, j) in self.established or i not in arrival or j not in arrival:
                continue
            # The rule is asked at every instant, so a link that is ready has become so just now.
            return now + self.announcement(min(i, j), max(i, j), arrival)
        return None

    def announcement(self, lower, higher, arrival):
        if self.flood_latency == 0:
            return 0.0
        later = max(arrival[higher], self.start) > max(arrival[lower], self.start)
        return self.flood_latency * self.eccentricity[higher if later else lower]

    def close(self, active):
        self.iterations += 1
        for i, j in self.links:
            if i in active and j in active:
                self.established.add((i, j))
        if len(self.established) == len(self.links):
            self.established.clear()
            self.epoch_lengths.append(self.iterations)
            self.iterations = 0


class BarrierWorker(Worker):
    """A worker under a global barrier; it has arrived when it has finished and all neighbours have its message."""

    def launch(self, time, delay, queue):
        """Starts the next computation; whatever is still on its way of the one before no longer counts."""
        self.arrival = None
        self.undelivered = len(self.neighbours)
        queue.push(self.begin(time, delay), FINISH, self.index, self.number)

    def finish(self, time, latency, queue):
        if not self.neighbours:
            self.arrival = time
        for receiver in self.neighbours:
            queue.push(time + latency(receiver, self.index), MESSAGE, self.index, self.number)

    def delivered(self, time):
        self.undelivered -= 1
        if self.undelivered == 0:
            self.arrival = time


def run_global(rule, late, delay, update, x0, neighbours, steps, latency=no_latency):
    """Adapt then combine, every iteration beginning and ending for everybody at the same time.

    Active workers average `x + update` with Metropolis weights over all graph edges between active workers.

    Args:
      rule: `Full()`, `Fastest(k)`, `Deadline(seconds)` or `Dtur(path_links, flood_latency, eccentricity)`.
      late: what becomes of the workers that are not active. "drop": their computation is thrown away, they keep their
        parameters and start the next one with the others. "carry": they go on computing into the next iteration.
        "apply": their own update is added to their own parameters all the same, and they start anew.
      delay, update, latency: see the package.
      x0: [N, P] initial parameters.
      neighbours: for each worker the sorted list of its neighbours.
      steps: number of iterations.

    Returns:
      A list of `steps` records.
    """
    if late not in ("drop", "carry", "apply"):
        raise ValueError(f"late={late!r} is not a choice; use 'drop', 'carry' or 'apply'")
    queue = EventQueue()
    workers = [BarrierWorker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    rule.prepare(len(workers))
    for worker in workers:
        worker.launch(0.0, delay, queue)
    records = []
    now = 0.0
    for _ in range(steps):
        active, now = _wait(rule, now, workers, latency, queue)
        rule.close(active)
        heard = _combine(workers, active, late, update)
        restarted = [worker for worker in workers if late != "carry" or worker.index in active]
        for worker in restarted:
            worker.launch(now, delay, queue)
        records.append(
            Record(
                time=now,
                active=active,
                x=[worker.x for worker in workers],
                restarted=[worker.index for worker in restarted],
                started=[worker.number for worker in workers],
                received=heard,
                ends=[now for _ in workers],
            )
        )
    return records


def _wait(rule, start, workers, latency, queue):
    """Lets events happen until the rule ends the iteration; returns who is active and the end."""
    alarm = rule.open(start)
    if alarm is not None:
        queue.push(alarm, ALARM, -1)
    now = start
    while True:
        _happen(now, workers, latency, queue)
        arrival = {worker.index: worker.arrival for worker in workers if worker.arrival is not None}
        end = rule.end(now, arrival)
        if end is not None:
            # Who arrives between now and the end stays late; those events happen as the next iteration opens.
            return set(arrival), end
        now = queue.next_time()


def _happen(until, workers, latency, queue):
    """Everything that happens up to and including the time `until`."""
    while len(queue) and queue.next_time() <= until:
        time, kind, index, number = queue.pop()
        # An alarm only makes the rule be asked; events of a computation that was thrown away are void.
        if kind == ALARM or workers[index].number != number:
            continue
        if kind == FINISH:
            workers[index].finish(time, latency, queue)
        else:
            workers[index].delivered(time)


def _combine(workers, active, late, update):
    """Moves the parameters at the end of an iteration; returns how many neighbours each worker heard."""
    adapted = {}
    for worker in workers:
        if worker.index in active or late == "apply":
            adapted[worker.index] = worker.x + worker.compute(update)
    peers = {i: [j for j in workers[i].neighbours if j in active] for i in active}
    for worker in workers:
        if worker.index in active:
            own = adapted[worker.index]
            weights = {j: metropolis(len(peers[worker.index]), len(peers[j])) for j in peers[worker.index]}
            worker.x = average(own, weights, adapted)
        elif late == "apply":
            worker.x = adapted[worker.index]
    return [len(peers.get(worker.index, ())) for worker in workers]


def metropolis(degree, other_degree):
    """Weight of a link between two workers with so many links."""
    return 1.0 / (1.0 + max(degree, other_degree))


def average(own, weights, vectors):
    """Weighted mean of the vectors heard; what their weights leave of one falls to the own vector."""
    total = np.zeros_like(own)
    rest = 1.0
    for sender, weight in weights.items():
        total += weight * vectors[sender]
        rest -= weight
    return total + rest * own
