"""DSGD-AAU, Xiong, Yan, Wang and Li, arXiv 2306.06559, as recalled: late workers compute on (`late="carry"`)."""

from .gossip import Full


class Growing(Full):
    """The iteration ends when two neighbours that have arrived are not yet connected by the epoch's links.

    Every link between workers that take part is then an epoch's link. When all workers are connected, the epoch is
    over and has no links.

    `epoch_lengths` lists how many iterations each completed epoch took; `joined` how many components each iteration
    did away with.
    """

    def __init__(self, neighbours):
        self.links = [(i, j) for i, near in enumerate(neighbours) for j in near if i < j]

    def prepare(self, workers):
        super().prepare(workers)
        self.groups = [{i} for i in range(workers)]
        self.iterations = 0
        self.epoch_lengths = []
        self.joined = []

    def end(self, now, arrival):
        if self.workers == 1:
            return super().end(now, arrival)
        wanted = any(i in arrival and j in arrival and self.group(i) is not self.group(j) for i, j in self.links)
        return now if wanted else None

    def group(self, worker):
        return next(group for group in self.groups if worker in group)

    def close(self, active):
        self.iterations += 1
        before = len(self.groups)
        for i, j in self.links:
            if i in active and j in active and self.group(i) is not self.group(j):
                one, other = self.group(i), self.group(j)
                self.groups = [group for group in self.groups if group is not one and group is not other]
                self.groups.append(one | other)
        self.joined.append(before - len(self.groups))
        if len(self.groups) == 1:
            self.groups = [{i} for i in range(self.workers)]
            self.epoch_lengths.append(self.iterations)
            self.iterations = 0
