"""Neighbours average once per iteration under a neighbour barrier, so that workers drift apart; and D-PSGD.

Sources, as recalled: backup workers and tokens from Luo et al., arXiv 1902.01064; D-PSGD from Lian et al., arXiv
1705.09056.
"""

import numpy as np

from .gossip import average, metropolis
from .queue import EventQueue, Record, Worker, no_latency

FINISH, MESSAGE = 0, 1


class DriftingWorker(Worker):
    """A worker under a neighbour barrier: it goes on when its own neighbours let it.

    Messages carry the iteration they belong to and wait in the mailbox of that iteration.
    """

    def __init__(self, index, x, neighbours, needed, simulation):
        super().__init__(index, x, neighbours)
        self.needed = needed  # messages of an iteration without which it cannot go on
        self.simulation = simulation
        self.iteration = -1
        self.mailbox: dict[int, dict] = {}
        self.finished = False
        self.result = np.zeros_like(self.x)  # update of the present iteration, once that is finished

    def start(self, time):
        self.iteration += 1
        self.finished = False
        finish = self.begin(time, self.simulation.delay)
        if not finish > time:
            raise ValueError(f"worker {self.index} computes in no time; with drifting workers use positive delays")
        self.simulation.queue.push(finish, FINISH, self.index)

    def finish(self, time):
        self.finished = True
        self.result = self.compute(self.simulation.update)

    def send(self, time, vector):
        for receiver in self.neighbours:
            arrival = time + self.simulation.latency(receiver, self.index)
            self.simulation.queue.push(arrival, MESSAGE, receiver, (self.iteration, self.index, vector.copy()))

    def receive(self, iteration, sender, vector):
        """Keeps a message for its iteration; one of an iteration already ended comes too late for any use."""
        if iteration >= self.iteration:
            self.mailbox.setdefault(iteration, {})[sender] = vector

    def may_go_on(self):
        return self.finished and len(self.mailbox.get(self.iteration, {})) >= self.needed and self.has_tokens()

    def has_tokens(self):
        """Whether, once started on the next iteration, it is not more than `gap` ahead of any neighbour."""
        workers = self.simulation.workers
        return all(self.iteration + 1 - workers[i].iteration <= self.simulation.gap for i in self.neighbours)

    def combine(self):
        """Ends the iteration: sets `x` from the mailbox; returns how many neighbours were heard."""
        letters = self.mailbox.pop(self.iteration, {})
        degrees = self.simulation.degrees
        weights = {sender: metropolis(degrees[self.index], degrees[sender]) for sender in sorted(letters)}
        self.x = self.mix(weights, letters)
        return len(letters)

    def mix(self, weights, letters):
        """The parameters after the iteration, from the weight and the letter of each neighbour heard."""
        raise NotImplementedError


class AdaptThenCombine(DriftingWorker):
    """Sends `x + update` when it has finished, and averages what has been sent to it."""

    def finish(self, time):
        super().finish(time)
        self.send(time, self.x + self.result)

    def mix(self, weights, letters):
        return average(self.x + self.result, weights, letters)


class CombineThenAdapt(DriftingWorker):
    """Sends `x` when it starts, and adds its update to the average of what has been sent to it."""

    def start(self, time):
        super().start(time)
        self.send(time, self.x)

    def mix(self, weights, letters):
        return average(self.x, weights, letters) + self.result


class Drift:
    """A simulation of drifting workers, each of which goes through the same number of iterations."""

    def __init__(self, kind, backup, delay, update, x0, neighbours, latency, gap=float("inf")):
        self.delay, self.update, self.latency, self.gap = delay, update, latency, gap
        self.queue = EventQueue()
        self.degrees = [len(peers) for peers in neighbours]
        # Whoever has neighbours waits for one of them at least.
        needed = [max(degree - backup, min(degree, 1)) for degree in self.degrees]
        self.workers = [kind(i, x, neighbours[i], needed[i], simulation=self) for i, x in enumerate(x0)]

    def run(self, steps):
        iterations: list[dict] = [{} for _ in range(steps)]  # of each: what every worker had at its end
        for worker in self.workers:
            worker.start(0.0)
        while len(self.queue):
            now = self.queue.next_time()
            while self.queue.next_time() == now:
                self.happen(*self.queue.pop())
            # Only now: a message that arrives at the instant at which its receiver goes on is still used. Whoever
            # goes on may be the one that others have waited for.
            while any(self.go_on(worker, now, steps, iterations) for worker in self.workers):
                pass
        return [self.record(k, ends) for k, ends in enumerate(iterations)]

    def go_on(self, worker, now, steps, iterations):
        """Lets a worker end its iteration if it may; says whether it did."""
        if worker.iteration >= steps or not worker.may_go_on():
            return False
        heard = worker.combine()
        iterations[worker.iteration][worker.index] = (worker.x.copy(), now, heard)
        self.proceed(worker, now, steps)
        return True

    def happen(self, time, kind, index, content):
        if kind == FINISH:
            self.workers[index].finish(time)
        else:
            self.workers[index].receive(*content)

    def proceed(self, worker, now, steps):
        if worker.iteration + 1 < steps:
            worker.start(now)
        else:
            worker.iteration = steps  # all done: nothing more to compute or to receive

    def record(self, k, ends):
        everybody = range(len(self.workers))
        times = [ends[j][1] for j in everybody]
        return Record(
            time=max(times),
            active=everybody,
            x=[ends[j][0] for j in everybody],
            restarted=everybody,
            started=[k + 1 for _ in everybody],
            received=[ends[j][2] for j in everybody],
            ends=times,
        )


def run_backup(backup, delay, update, x0, neighbours, steps, latency=no_latency, gap=float("inf")):
    """Adapt then combine under a neighbour barrier, with `backup` of each worker's neighbours not waited for.

    Worker `j` ends its iteration `k` when it has finished itself, the iteration-`k` messages of all but `backup` of
    its neighbours (of one at least) are in, and every neighbour has started iteration `k + 1 - gap`, which is known at
    once. It mixes every message of iteration `k` that is in by then, with the Metropolis weight of the whole graph; the
    diagonal takes the rest. With `backup=0` it is cb-Full under a neighbour barrier. A record's `x[j]` and `ends[j]`
    are worker `j`'s at the end of *its* iteration `k`. Delays must be positive.

    Raises:
      ValueError: `backup` is negative, or `gap` is below 1.
    """
    if backup < 0:
        raise ValueError(f"backup={backup} is not a number of workers; use 0 or more")
    if not gap >= 1:
        raise ValueError(f"gap={gap} lets nobody go on; use 1 or more")
    return Drift(AdaptThenCombine, backup, delay, update, x0, neighbours, latency, gap).run(steps)


def run_dpsgd(barrier, delay, update, x0, neighbours, steps, latency=no_latency):
    """D-PSGD, combine then adapt: `x_i' = sum_j W_ij x_j + update_i(x_i)` with Metropolis weights of the whole graph.

    The parameters are sent when an iteration starts, so messages travel while workers compute.

    Args:
      barrier: "neighbours": worker `i` goes on when it has finished and has its neighbours' parameters of this
        iteration. "global": everybody goes on when all have finished and all messages are in.
      delay, update, x0, neighbours, steps, latency: as in `gossip.run_global`; positive delays with "neighbours".

    Returns:
      A list of `steps` records.
    """
    if barrier == "neighbours":
        return Drift(CombineThenAdapt, 0, delay, update, x0, neighbours, latency).run(steps)
    if barrier != "global":
        raise ValueError(f"barrier={barrier!r} is not a choice; use 'global' or 'neighbours'")
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    records = []
    now = 0.0
    for k in range(steps):
        now, letters, results = _exchange(workers, now, delay, update, latency)
        for worker in workers:
            degree = len(worker.neighbours)
            weights = {j: metropolis(degree, len(workers[j].neighbours)) for j in worker.neighbours}
            worker.x = average(worker.x, weights, letters[worker.index]) + results[worker.index]
        everybody = range(len(workers))
        heard = [len(letters[i]) for i in everybody]
        x = [worker.x for worker in workers]
        records.append(Record(now, everybody, x, everybody, [k + 1 for _ in workers], heard, [now for _ in workers]))
    return records


def _exchange(workers, start, delay, update, latency):
    """All compute and send their parameters at once; returns when the last event is over, the letters, the updates."""
    queue = EventQueue()
    letters: list[dict] = [{} for _ in workers]
    results = {}
    for worker in workers:
        queue.push(worker.begin(start, delay), FINISH, worker.index)
        for receiver in worker.neighbours:
            sent = (worker.index, worker.x.copy())
            queue.push(start + latency(receiver, worker.index), MESSAGE, receiver, sent)
    time = start
    while len(queue):
        time, kind, index, content = queue.pop()
        if kind == FINISH:
            results[index] = workers[index].compute(update)
        else:
            sender, vector = content
            letters[index][sender] = vector
    return time, letters, results
