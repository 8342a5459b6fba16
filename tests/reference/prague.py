"""Prague: random groups average. From Luo, He, Zhuo and Qian, ASPLOS 2020, as recalled."""

import numpy as np

from .queue import EventQueue, Record, Worker

FINISH = 0


class Group:
    """Some workers that will average once."""

    def __init__(self, creator, members):
        self.creator, self.members = creator, sorted(members)


def run_prague(pick, delay, update, x0, steps):
    """`steps` events, each the finish of a worker or the average of a group.

    Who finishes adds its update to its own parameters. It waits for the oldest of the groups in its list; if the list
    is empty, it makes a group, of itself and of `pick(event, i)`, which is put on the lists of all its members. A group
    averages when all its members have finished and it is the first on the list of each; they start their next
    computation then. Averages come before finishes of the same instant, those of lower creators first; of workers that
    finish at the same time the one with the lower number goes first.

    Returns:
      A list of records; `active` is who finished, or nobody, `restarted` who averaged.
    """
    queue = EventQueue()
    workers = [Worker(i, x) for i, x in enumerate(x0)]
    lists: list[list[Group]] = [[] for _ in workers]
    waiting: set[int] = set()
    groups: list[Group] = []
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    now = 0.0
    while len(records) < steps:
        able = [g for g in groups if all(m in waiting and lists[m][0] is g for m in g.members)]
        if able:
            group = min(able, key=lambda g: g.creator)
            mean = np.mean([workers[m].x for m in group.members], axis=0)
            for m in group.members:
                workers[m].x = mean.copy()
                lists[m].pop(0)
                waiting.remove(m)
                queue.push(workers[m].begin(now, delay), FINISH, m)
            groups.remove(group)
            active, restarted = set(), group.members
        else:
            now, _, i, _ = queue.pop()
            workers[i].x = workers[i].x + workers[i].compute(update)
            waiting.add(i)
            if not lists[i]:
                group = Group(i, [i, *pick(len(records), i)])
                groups.append(group)
                for m in group.members:
                    lists[m].append(group)
            active, restarted = {i}, []
        x = [worker.x for worker in workers]
        records.append(Record(now, active, x, restarted, [worker.number for worker in workers]))
    return records
