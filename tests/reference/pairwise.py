"""Asynchronous gossip of pairs: AD-PSGD, from Lian, Zhang, Zhang and Liu, arXiv 1710.06952, Algorithm 1."""

from .queue import EventQueue, Record, Worker

FINISH = 0


def run_pairwise(pick, delay, update, x0, neighbours, steps):
    """One record per finished computation; nobody waits for anybody.

    When worker `i` finishes a computation, it picks a neighbour `j`; both take the mean of their present parameters,
    then the update, which was computed at the parameters that `i` *started* from, is added to `i` alone, and `i` starts
    its next computation from what it has now. `j` goes on computing at the parameters it started from. The exchange
    takes no time; of workers that finish at the same time the one with the lower number goes first.

    Args:
      pick: `pick(event, i)`, the neighbour that worker `i` exchanges with at the `event`-th event (from 0).
      delay, update: see the package.
      x0: [N, P] initial parameters.
      neighbours: for each worker the list of its neighbours.
      steps: number of events.

    Returns:
      A list of `steps` records; `active` holds `i`, and `heard` is 1 for `i` and `j`.
    """
    queue = EventQueue()
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    for event in range(steps):
        time, _, i, _ = queue.pop()
        j = pick(event, i)
        if j not in neighbours[i]:
            raise ValueError(f"worker {i} picked {j}; its neighbours are {neighbours[i]}")
        result = workers[i].compute(update)
        mean = (workers[i].x + workers[j].x) / 2.0
        workers[j].x = mean.copy()
        workers[i].x = mean + result
        queue.push(workers[i].begin(time, delay), FINISH, i)
        x = [worker.x for worker in workers]
        started = [worker.number for worker in workers]
        heard = [1 if worker.index in (i, j) else 0 for worker in workers]
        records.append(Record(time, {i}, x, [i], started, heard))
    return records
