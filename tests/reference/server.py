"""A parameter server: synchronous with backup workers, asynchronous, and stale-synchronous.

Sources: Chen et al., arXiv 1604.00981 (backup workers); Dean et al., NeurIPS 2012 (Downpour); Ho et al., NeurIPS 2013
(SSP). Nodes `0..N-1` are workers, node `N` is the server, which never computes. `x0` is [N + 1, P], and all its rows
are equal: everybody starts from the server's parameters. A worker's row is what it pulled last. Pushing and pulling
take no time; of workers that finish at the same time the one with the lower number is served first.
"""

import numpy as np

from .queue import EventQueue, Record, Worker

FINISH = 0


def run_synchronous(backup, delay, update, x0, steps):
    """The server adds the mean of the first `N - backup` updates; the rest are thrown away and all workers pull.

    Exactly `N - backup` updates count, even where the last of them finishes together with others.

    Returns:
      A list of `steps` records, one per iteration; `x` is [N + 1, P], `active` those whose updates counted.
    """
    workers, server = _nodes(x0)
    if not 0 <= backup < len(workers):
        raise ValueError(f"backup={backup} of {len(workers)} workers; use 0 to {len(workers) - 1}")
    records = []
    now = 0.0
    finish = [worker.begin(now, delay) for worker in workers]
    for _ in range(steps):
        queue = EventQueue()  # a new one each time: whatever is unfinished is thrown away
        for worker in workers:
            queue.push(finish[worker.index], FINISH, worker.index)
        active: list[int] = []
        total = np.zeros_like(server)
        while len(active) < len(workers) - backup:
            now, _, index, _ = queue.pop()
            active.append(index)
            total += workers[index].compute(update)
        server = server + total / len(active)
        for worker in workers:
            worker.x = server.copy()
        finish = [worker.begin(now, delay) for worker in workers]
        records.append(_record(now, active, workers, server, [worker.index for worker in workers]))
    return records


def run_asynchronous(delay, update, x0, steps):
    """A worker that finishes adds its (stale) update to the server, pulls and starts anew; nobody waits.

    Returns:
      A list of `steps` records, one per finished computation.
    """
    workers, server = _nodes(x0)
    queue = EventQueue()
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    for _ in range(steps):
        time, _, index, _ = queue.pop()
        worker = workers[index]
        server = server + worker.compute(update)
        worker.x = server.copy()
        queue.push(worker.begin(time, delay), FINISH, index)
        records.append(_record(time, {index}, workers, server, [index]))
    return records


def run_stale(bound, delay, update, x0, steps):
    """Stale-synchronous: as asynchronous, but who is too far ahead waits.

    A worker's clock is how many computations it has finished. With its clock at `c` it goes on iff `c` less the
    smallest clock is at most `bound`; otherwise it waits until that holds. It pulls when it goes on, so one that
    waited has the updates of those it waited for.

    Returns:
      A list of `steps` records, one per finished computation; `restarted` are those who go on at that moment.
    """
    if not bound >= 0:
        raise ValueError(f"bound={bound} lets nobody go on; use 0 or more")
    workers, server = _nodes(x0)
    clock = [0 for _ in workers]
    waiting = set()
    queue = EventQueue()
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    for _ in range(steps):
        time, _, index, _ = queue.pop()
        server = server + workers[index].compute(update)
        clock[index] += 1
        waiting.add(index)
        released = [i for i in sorted(waiting) if clock[i] - min(clock) <= bound]
        for i in released:
            waiting.remove(i)
            workers[i].x = server.copy()
            queue.push(workers[i].begin(time, delay), FINISH, i)
        records.append(_record(time, {index}, workers, server, released))
    return records


def _nodes(x0):
    """The workers, and the server's parameters."""
    rows = [np.array(x, dtype=np.float64) for x in x0]
    if len(rows) < 2:
        raise ValueError(f"x0 has {len(rows)} rows; give one for each worker and one for the server")
    if any(not np.array_equal(row, rows[-1]) for row in rows):
        raise ValueError("x0 has rows that differ; all workers start from the server's parameters")
    return [Worker(i, x) for i, x in enumerate(rows[:-1])], rows[-1]


def _record(time, active, workers, server, restarted):
    x = [worker.x for worker in workers] + [server]
    return Record(time, active, x, restarted, [worker.number for worker in workers])
