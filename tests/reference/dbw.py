"""DBW, a server that decides for how many workers to wait: Xu, Neglia and Sebastianelli, arXiv 2004.14696, as recalled.

One arrival after another: an update at the server's present model is kept until there are k of them, an older one is
dropped, and its worker pulls. What the rule leaves open (windows, the table of times, its fit) is as `dbwjax` says it
does; it is told again here, with lists in place of running means and pooling in place of formulas.
"""

import numpy as np

from .queue import EventQueue, Record, Worker

ARRIVAL = 0
WINDOW, SWEEPS, UNSEEN = 5, 10, 1e-6


def run_dbw(delay, compute, rate, x0, steps, link, choose=None):
    """Plain SGD with step `rate`.

    Args:
      delay: `delay(i, n)` seconds.
      compute: `compute(i, n, x)` gives the gradient and the loss of worker i's n-th batch at x.
      x0: [P].
      steps: iterations.
      link: `link(i)` seconds of a message.
      choose: `choose(table, gains, h)`; by default DBW's rule.

    Returns:
      A record an iteration; its `x` is the server's, `active` the k workers, and `table` the means of T(h, k) by then
      and the numbers of samples.
    """
    choose = choose or best
    server = np.array(x0, dtype=np.float64)
    workers = [Worker(i, server) for i in range(link.workers)]
    everybody = len(workers)
    queue = EventQueue()
    model = [0] * everybody  # which model each computes at
    for worker in workers:
        queue.push(worker.begin(0.0, delay) + link(worker.index), ARRIVAL, worker.index)
    k = h = everybody
    iteration, began, kept, records = 0, 0.0, {}, []
    table, gains = Table(everybody), Gains(rate)
    follow = None

    def go_on(i, now):
        workers[i].x = server.copy()
        model[i] = iteration
        queue.push(workers[i].begin(now + link(i), delay) + link(i), ARRIVAL, i)

    while len(records) < steps:
        now, _, i, _ = queue.pop()
        if model[i] < iteration:
            follow = _heard(follow, i, now, table)
            go_on(i, now)
            continue
        kept[i] = (now, *compute(i, workers[i].number, server.copy()))
        if len(kept) < k:
            continue
        own = follow is not None and follow.began == began
        for j, (arrived, _, _) in kept.items():
            follow = _heard(follow, j, arrived, table)
        if not own:
            table.add(h, sorted(arrived - began for arrived, _, _ in kept.values()))
        gradients, losses = [g for _, g, _ in kept.values()], [loss for _, _, loss in kept.values()]
        server = server - rate * np.mean(gradients, axis=0)
        gains.add(gradients, losses)
        h, active, began, iteration = k, sorted(kept), now, iteration + 1
        if follow is None:
            follow = Follow(h, now)
        for j in active:
            follow.go_on(j)
            go_on(j, now)
        kept = {}
        records.append(Record(now, active, server, active, [worker.number for worker in workers]))
        records[-1].table = table.means()
        k = choose(table, gains, h)
    return records


class Follow:
    """Who has sent an update of a computation begun since an iteration began, and when the first such one arrived."""

    def __init__(self, h, began):
        self.h, self.began, self.since, self.arrived = h, began, set(), {}

    def go_on(self, i):
        """Worker i begins a computation."""
        self.since.add(i)


def _heard(follow, i, now, table):
    """What is followed once an update of worker i arrived, which then goes on; it is over when all have sent one."""
    if follow is None:
        return None
    if i in follow.since:
        follow.arrived.setdefault(i, now)
    follow.go_on(i)
    if len(follow.arrived) == table.everybody:
        table.add(follow.h, sorted(time - follow.began for time in follow.arrived.values()))
        return None
    return follow


class Table:
    """Samples of T(h, k)."""

    def __init__(self, everybody):
        self.everybody = everybody
        self.samples = {}

    def add(self, h, times):
        """The times to the first update, the second, ... of an iteration after one that waited for h."""
        for k, time in enumerate(times, start=1):
            self.samples.setdefault((h, k), []).append(time)

    def means(self):
        """Means and numbers of samples, [N, N]."""
        n = self.everybody
        means, counts = np.zeros((n, n)), np.zeros((n, n))
        for (h, k), times in self.samples.items():
            means[h - 1, k - 1], counts[h - 1, k - 1] = np.mean(times), len(times)
        return means, counts


class Gains:
    """Estimates of what an iteration gains."""

    def __init__(self, rate):
        self.rate = rate
        self.variance, self.slope, self.smooth = [], [], []
        self.last = None

    def add(self, gradients, losses):
        """An iteration's gradients and losses, all at one model."""
        k, mean, loss = len(gradients), np.mean(gradients, axis=0), np.mean(losses)
        if k > 1:
            self.variance.append(sum(((g - mean) ** 2).sum() for g in gradients) / (k - 1))
        noise = self.variance[-1] if k > 1 else np.mean(self.variance[-WINDOW:]) if self.variance else 0.0
        if self.last is not None:
            before, slope, square = self.last
            self.smooth.append((2 * (loss - before + self.rate * slope), self.rate**2 * square))
        self.slope.append(max((mean**2).sum() - noise / k, 0.0))
        self.last = loss, self.slope[-1], (mean**2).sum()

    def expected(self, k):
        """G(k); nothing before it can be known."""
        if not self.smooth or not self.variance:
            return None
        changes, squares = np.array(self.smooth[-WINDOW:]).T
        half = min(max(changes.sum() / squares.sum() * self.rate, 0), 1) * self.rate / 2
        return (self.rate - half) * np.mean(self.slope[-WINDOW:]) - half * np.mean(self.variance[-WINDOW:]) / k


def best(table, gains, h):
    """The k that promises most gain a second; all where none promises any."""
    everybody = table.everybody
    gain = [gains.expected(k) for k in range(1, everybody + 1)]
    if gain[0] is None or not max(gain) > 0:
        return everybody
    times = monotone(*table.means())[h - 1]
    return 1 + int(np.argmax([gain[k] / times[k] for k in range(everybody)]))


def pooled(values, weights):
    """Isotonic regression by pooling adjacent violators."""
    blocks = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            value, weight, size = blocks.pop()
            total = blocks[-1][1] + weight
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + value * weight) / total, total, blocks[-1][2] + size]
    return np.concatenate([[value] * size for value, _, size in blocks])


def monotone(means, counts, sweeps=SWEEPS, envelopes=True):
    """The nearest table that grows with k and falls with h, by alternating projections, then between its envelopes."""
    n, seen = len(means), counts > 0
    x, weights = means.copy(), np.where(seen, counts, UNSEEN)
    for h in range(n):
        for k in range(n):
            if not seen[h, k]:
                known = means[h:, : k + 1][seen[h:, : k + 1]]
                x[h, k] = known.max() if known.size else means[seen].min()
    along, down = np.zeros_like(x), np.zeros_like(x)
    for _ in range(sweeps):
        y = np.array([pooled(*pair) for pair in zip(x + along, weights, strict=True)])
        along = x + along - y
        z = y + down
        x = np.array([pooled(z[::-1, k], weights[::-1, k])[::-1] for k in range(n)]).T
        down = z - x
    if not envelopes:
        return x
    low = np.array([[x[h:, : k + 1].max() for k in range(n)] for h in range(n)])
    high = np.array([[x[: h + 1, k:].min() for k in range(n)] for h in range(n)])
    return (low + high) / 2
