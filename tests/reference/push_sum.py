"""Push-sum over directed links: SGP in iterations, and asynchronous gradient-push without.

Sources, as recalled: Assran, Loizou, Ballas and Rabbat, arXiv 1811.10792; Assran and Rabbat, arXiv 1803.08950. A worker
has `x` and a weight `w`, at first 1. It sends the same share of both to each of its receivers and keeps one such share;
what comes in is added up. Gradients are of `x / w`.
"""

import numpy as np

from .queue import EventQueue, Record, Worker, no_latency

FINISH, MESSAGE = 1, 0


class Pusher(Worker):
    """A worker with a weight."""

    def __init__(self, index, x):
        super().__init__(index, x)
        self.w = 1.0

    def begin(self, time, delay):
        finish = super().begin(time, delay)
        self.origin = self.x / self.w
        return finish

    def shares(self, receivers):
        """Keeps one share of `x` and `w`, and returns what each receiver gets."""
        part = 1.0 / (1 + len(receivers))
        self.x, self.w = part * self.x, part * self.w
        return self.x.copy(), self.w


def run_sgp(receivers, barrier, delay, update, x0, steps, latency=no_latency):
    """`steps` iterations of everybody.

    Worker `i` adds its update of iteration `k` to `x`, sends shares tagged `k` to `receivers(k, i)`, and goes on with
    the sum of its own share and of those with the tag `k` from everybody who sends to it in that iteration, as soon as
    they are there ("neighbours"), or when this holds of all workers ("global").

    Returns:
      A list of records, one per iteration; `x` is that of every worker at the end of *its* iteration, not divided by
      `w`, and `ends` its time. A further attribute `w` holds the weights.
    """
    workers = [Pusher(i, x) for i, x in enumerate(x0)]
    everybody = range(len(workers))
    senders = [[{i for i in everybody if j in receivers(k, i)} for j in everybody] for k in range(steps)]
    iteration = [0 for _ in workers]
    kept: list = [None for _ in workers]  # one's own share, once finished
    mailbox: list[dict] = [{} for _ in workers]  # (iteration, sender) -> share
    ends: list[dict] = [{} for _ in range(steps)]
    queue = EventQueue()
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)

    def complete(j):
        k = iteration[j]
        return kept[j] is not None and all((k, i) in mailbox[j] for i in senders[k][j])

    def go_on(j, now):
        k, worker = iteration[j], workers[j]
        worker.x, worker.w = kept[j]
        for i in sorted(senders[k][j]):
            x, w = mailbox[j].pop((k, i))
            worker.x, worker.w = worker.x + x, worker.w + w
        ends[k][j] = (worker.x.copy(), worker.w, now)
        iteration[j], kept[j] = k + 1, None
        if k + 1 < steps:
            queue.push(worker.begin(now, delay), FINISH, j)

    while len(queue):
        now, kind, j, content = queue.pop()
        if kind == FINISH:
            k, worker = iteration[j], workers[j]
            worker.x = worker.x + worker.compute(update)
            to = receivers(k, j)
            share = worker.shares(to)
            kept[j] = share
            for i in to:
                queue.push(now + latency(i, j), MESSAGE, i, ((k, j), share))
        else:
            mailbox[j][content[0]] = content[1]
        if barrier == "neighbours":
            for i in everybody:
                if iteration[i] < steps and complete(i):
                    go_on(i, now)
        elif all(iteration[i] < steps and complete(i) for i in everybody):
            for i in everybody:
                go_on(i, now)
    records = []
    for k, each in enumerate(ends):
        times = [each[j][2] for j in everybody]
        record = Record(max(times), everybody, [each[j][0] for j in everybody], everybody, [k + 1] * len(times))
        record.ends, record.w = times, np.array([each[j][1] for j in everybody])
        records.append(record)
    return records


def run_agp(receivers, delay, update, x0, steps):
    """`steps` finishes: the finisher adds its update, shares with `receivers[i]` at once, and goes on.

    Of workers that finish at the same time the one with the lower number goes first. A receiver keeps what comes in a
    buffer and looks into it when it has finished, before it sends.

    Returns:
      A list of records, one per finish; `x` and `w` are those of every worker, with what is in its buffer.
    """
    workers = [Pusher(i, x) for i, x in enumerate(x0)]
    buffer: list[list] = [[] for _ in workers]
    queue = EventQueue()
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    for _ in range(steps):
        now, _, i, _ = queue.pop()
        worker = workers[i]
        result = worker.compute(update)
        for x, w in buffer[i]:
            worker.x, worker.w = worker.x + x, worker.w + w
        buffer[i].clear()
        worker.x = worker.x + result
        share = worker.shares(receivers[i])
        for j in receivers[i]:
            buffer[j].append(share)
        queue.push(worker.begin(now, delay), FINISH, i)
        x = [other.x + sum(part[0] for part in buffer[other.index]) for other in workers]
        record = Record(now, {i}, x, [i], [other.number for other in workers])
        record.w = np.array([other.w + sum(part[1] for part in buffer[other.index]) for other in workers])
        records.append(record)
    return records
