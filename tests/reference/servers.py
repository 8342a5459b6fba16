"""Parameter servers that wait for k updates, or for nobody, with messages that take time.

Sources: Chen et al., arXiv 1604.00981 (backup workers); Dutta et al., arXiv 1803.01113 (K-sync, K-batch-sync, K-async,
K-batch-async); Dean et al., NIPS 2012 (Downpour); Ho et al., NIPS 2013 (SSP). Nodes and `x0` are as in `server.py`:
workers `0..N-1`, then the server. `link(i)` are the seconds of a message between worker i and the server, either way.
An update reaches the server `link(i)` after its worker's finish, and a worker starts `link(i)` after the server sent it
the model. Of updates that arrive at the same time that of the lower number is served first.
"""

from .queue import EventQueue
from .server import _nodes, _record

ARRIVAL = 0


def no_time(worker):
    """Messages take no time."""
    return 0.0


def run_first(k, delay, update, x0, steps, link=no_time):
    """The mean of the first k workers' updates; all others are cancelled, and everybody pulls.

    Returns:
      One record an iteration; `active` are the k.
    """
    workers, server = _nodes(x0)
    records = []
    arrival = [worker.begin(0.0, delay) + link(worker.index) for worker in workers]
    for _ in range(steps):
        queue = EventQueue()
        for worker in workers:
            queue.push(arrival[worker.index], ARRIVAL, worker.index)
        active, total, now = [], 0.0, 0.0
        for _ in range(k):
            now, _, i, _ = queue.pop()
            active.append(i)
            total = total + workers[i].compute(update)
        server = server + total / k
        for worker in workers:
            worker.x = server.copy()
        arrival = [_sent(worker, now, delay, link) for worker in workers]
        records.append(_record(now, active, workers, server, range(len(workers))))
    return records


def run_batches(k, delay, update, x0, steps, link=no_time):
    """K-batch-sync: the first k mini-batches at one model, and who finishes draws another at the same model.

    At the k-th all are cancelled. What a worker begins while a message of its own is on its way is not drawn.

    Returns:
      One record an update that arrives. Only the server's row is told: the others hold the same model.
    """
    workers, server = _nodes(x0)
    gathered, records = [], []
    queue = _first(workers, delay, link)
    for _ in range(steps):
        now, _, i, _ = queue.pop()
        gathered.append(workers[i].compute(update))
        if len(gathered) < k:
            # It went on when it finished, at the model that it had; the message follows.
            queue.push(workers[i].begin(now, delay), ARRIVAL, i)
            records.append(_record(now, {i}, workers, server, [i]))
            continue
        server = server + sum(gathered) / k
        gathered, queue = [], EventQueue()
        for worker in workers:
            worker.x = server.copy()
            queue.push(_sent(worker, now, delay, link), ARRIVAL, worker.index)
        records.append(_record(now, {i}, workers, server, range(len(workers))))
    return records


def run_waiting(k, delay, update, x0, steps, link=no_time):
    """K-async: k different workers send an update and wait; then the server adds the mean, and those k pull.

    Returns:
      One record an update that arrives; `restarted` are those who pull then.
    """
    workers, server = _nodes(x0)
    gathered, records = {}, []
    queue = _first(workers, delay, link)
    for _ in range(steps):
        now, _, i, _ = queue.pop()
        assert i not in gathered
        gathered[i] = workers[i].compute(update)
        restarted = []
        if len(gathered) == k:
            server = server + sum(gathered.values()) / k
            restarted, gathered = sorted(gathered), {}
        for j in restarted:
            workers[j].x = server.copy()
            queue.push(_sent(workers[j], now, delay, link), ARRIVAL, j)
        records.append(_record(now, {i}, workers, server, restarted))
    return records


def run_streaming(k, delay, update, x0, steps, link=no_time, weight=1.0):
    """K-batch-async; with k = 1 an asynchronous server: nobody waits, and every k-th update the server adds the mean of
    the last k, times `weight`.

    Returns:
      One record an update that arrives.
    """
    workers, server = _nodes(x0)
    gathered, records = [], []
    queue = _first(workers, delay, link)
    for _ in range(steps):
        now, _, i, _ = queue.pop()
        gathered.append(workers[i].compute(update))
        if len(gathered) == k:
            server = server + weight * sum(gathered) / k
            gathered = []
        workers[i].x = server.copy()
        queue.push(_sent(workers[i], now, delay, link), ARRIVAL, i)
        records.append(_record(now, {i}, workers, server, [i]))
    return records


def run_bounded(bound, delay, update, x0, steps, link=no_time, weight=1.0):
    """SSP: who is more than `bound` clocks ahead of the slowest waits, and pulls when it goes on.

    Returns:
      One record an update that arrives; `restarted` are those who pull then.
    """
    workers, server = _nodes(x0)
    clock, waiting, records = [0] * len(workers), set(), []
    queue = _first(workers, delay, link)
    for _ in range(steps):
        now, _, i, _ = queue.pop()
        server = server + weight * workers[i].compute(update)
        clock[i] += 1
        waiting.add(i)
        restarted = [j for j in sorted(waiting) if clock[j] - min(clock) <= bound]
        for j in restarted:
            waiting.remove(j)
            workers[j].x = server.copy()
            queue.push(_sent(workers[j], now, delay, link), ARRIVAL, j)
        records.append(_record(now, {i}, workers, server, restarted))
    return records


def _first(workers, delay, link):
    """A queue with everybody's first arrival: all begin at time 0."""
    queue = EventQueue()
    for worker in workers:
        queue.push(worker.begin(0.0, delay) + link(worker.index), ARRIVAL, worker.index)
    return queue


def _sent(worker, now, delay, link):
    """When the next update of a worker arrives, to which the server sends the model now."""
    return worker.begin(now + link(worker.index), delay) + link(worker.index)
