"""Hop: update queues, token queues, backup workers, bounded staleness, skipping of iterations.

Source, as recalled: Luo, Lin, Zhuo and Qian, arXiv 1902.01064. The exact rule of skipping, and its notices, are the
library's own.
"""

import numpy as np

from .queue import EventQueue, Record, Worker, no_latency

FINISH = MESSAGE = 0


class HopWorker(Worker):
    """A worker with an update queue and, of each neighbour, a queue of tokens."""

    def __init__(self, index, x, heard, b, gap):
        super().__init__(index, x, heard)
        self.needed = len(heard) - min(b, max(len(heard) - 1, 0))
        self.iteration = 0
        self.finished = False
        self.own = None  # the message of this iteration
        self.updates: dict = {}  # (tag, sender) -> (arrival, message; None: a notice)
        self.tokens: dict = {}  # neighbour -> tokens it has put there
        self.gap = gap


class Hop:
    """A simulation of `steps` events, each the finish of a worker or the end of its iteration."""

    def __init__(self, b, gap, staleness, skip, delay, update, x0, neighbours, latency=no_latency):
        self.staleness, self.skip, self.delay, self.update, self.latency = staleness, skip, delay, update, latency
        self.workers = [HopWorker(i, x, neighbours[i], b, gap) for i, x in enumerate(x0)]
        self.queue, self.mail = EventQueue(), EventQueue()
        for worker in self.workers:
            for i in worker.neighbours:  # a link, used in both directions by tokens
                worker.tokens[i] = self.workers[i].tokens[worker.index] = gap
            self.queue.push(worker.begin(0.0, delay), FINISH, worker.index)
        self.now = 0.0
        self.jumps = 0

    def run(self, steps):
        records = []
        while len(records) < steps:
            while self.mail.next_time() <= self.now:
                self.receive(*self.mail.pop())
            able = [worker for worker in self.workers if self.may_go_on(worker)]
            if able:
                self.go_on(able[0])
                records.append(self.record(set(), [able[0].index]))
            elif self.mail.next_time() <= self.queue.next_time():
                self.now = self.mail.next_time()
            else:
                self.now, _, index, _ = self.queue.pop()
                self.finish(self.workers[index])
                records.append(self.record({index}, []))
        return records

    def record(self, active, restarted):
        x = [worker.x for worker in self.workers]
        record = Record(self.now, active, x, restarted, [worker.number for worker in self.workers])
        record.iteration = [worker.iteration for worker in self.workers]
        return record

    def receive(self, time, kind, index, content):
        tag, sender, message = content
        self.workers[index].updates[tag, sender] = (time, message)

    def send(self, sender, tag, message):
        for receiver in self.workers:
            if sender.index in receiver.neighbours:
                arrival = self.now + self.latency(receiver.index, sender.index)
                self.mail.push(arrival, MESSAGE, receiver.index, (tag, sender.index, message))

    def finish(self, worker):
        worker.finished = True
        worker.own = worker.x + worker.compute(self.update)
        self.send(worker, worker.iteration, worker.own.copy())

    def tags(self, worker, last):
        """The tags of interest, the newest first."""
        return range(last, max(worker.iteration - self.staleness, 0) - 1, -1)

    def there(self, worker):
        """The neighbours of which it has what it waits for, in the order in which that has come."""
        first = {}
        for i in worker.neighbours:
            times = [worker.updates[t, i][0] for t in self.tags(worker, worker.iteration) if (t, i) in worker.updates]
            if times:
                first[i] = min(times)
        return sorted(first, key=lambda i: (first[i], i))

    def may_go_on(self, worker):
        return (
            worker.finished
            and all(count > 0 for count in worker.tokens.values())
            and len(self.there(worker)) >= worker.needed
        )

    def newest(self, worker, i, last):
        """A neighbour's newest message up to a tag: `(tag, message)`, or `None`."""
        for t in self.tags(worker, last):
            if worker.updates.get((t, i), (0, None))[1] is not None:
                return t, worker.updates[t, i][1]
        return None

    def go_on(self, worker):
        k, s = worker.iteration, self.staleness
        around = [self.workers[i].iteration for i in worker.tokens]
        target = k + 1
        if self.skip and around and max(around) - k > self.skip:
            # As many tokens may be taken at once as all neighbours have put there.
            target = min(max(around), k + min(worker.tokens.values()))
        jumps = target > k + 1
        self.jumps += jumps
        heard = self.there(worker)[: worker.needed] if s == 0 and not jumps else worker.neighbours
        parts = [(1 if jumps else s + 1, worker.own)]
        for i in sorted(heard):
            found = self.newest(worker, i, target - 1)
            if found is not None:
                parts.append((1 if jumps else found[0] - (k - s) + 1, found[1]))
        total = sum(weight for weight, _ in parts)
        worker.x = np.sum([weight * message for weight, message in parts], axis=0) / total
        for tag in range(k + 1, target):
            self.send(worker, tag, None)
        for i in worker.tokens:
            worker.tokens[i] -= target - k
            self.workers[i].tokens[worker.index] += target - k
        worker.updates = {key: value for key, value in worker.updates.items() if key[0] >= target - s}
        worker.iteration, worker.finished = target, False
        self.queue.push(worker.begin(self.now, self.delay), FINISH, worker.index)


def run_hop(b, gap, staleness, skip, delay, update, x0, neighbours, steps, latency=no_latency):
    """Records of `steps` events: `active` is who finished, or nobody; `restarted` who ended its iteration, or nobody;
    `iteration` that which each worker is in afterwards.

    A finisher sends its message, tagged with its iteration, to those who hear it. Of workers that may go on the one
    with the lowest number does first, and before finishes of the same instant; of such finishes the lower worker's is
    first. Messages that arrive at an instant are there before anything else happens.
    """
    return Hop(b, gap, staleness, skip, delay, update, x0, neighbours, latency).run(steps)
