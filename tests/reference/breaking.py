"""Workers that leave and come back: a queue of events in absolute time, in which absences are events like any others.

An attempt at a computation ends at its finish or when its worker leaves; what was cut short is attempted anew when the
worker is back, and takes the same time. Others know of an absence `patience` seconds after it began, if it still lasts,
and of a return at once. Latency is zero here.
"""

from .gossip import average, metropolis
from .queue import EventQueue, Record, Worker

RETURN, FINISH, LEAVE, NOTICE, CUT, HEAL = range(6)


class Absence:
    """One absence of one worker."""

    def __init__(self, worker, leaves, returns=float("inf"), patience=0.0):
        self.worker, self.leaves, self.returns, self.patience = worker, leaves, returns, patience


class Partition:
    """While it lasts, workers of different sides do not hear one another."""

    def __init__(self, begins, heals, side):
        self.begins, self.heals, self.side = begins, heals, side


class Breaking:
    """What all methods share here: who is away, who is believed to be, and the attempts at computations."""

    def __init__(self, delay, update, x0, neighbours, absences=(), partitions=(), lost=None):
        self.queue, self.delay, self.update = EventQueue(), delay, update
        self.workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
        self.away, self.believed, self.cuts = set(), set(), set()
        self.attempt = [0] * len(self.workers)  # number of the attempt that is under way, or would be
        self.pending = {}  # seconds of the computations not done yet, by worker
        self.results = {}  # updates of those that have finished and not begun anew
        self.lost = lost or (lambda step, i, j: False)
        for one in absences:
            self.queue.push(one.leaves, LEAVE, one.worker)
            if one.leaves + one.patience < one.returns:
                self.queue.push(one.leaves + one.patience, NOTICE, one.worker)
            if one.returns < float("inf"):
                self.queue.push(one.returns, RETURN, one.worker)
        for one in partitions:
            self.queue.push(one.begins, CUT, 0, one)
            self.queue.push(one.heals, HEAL, 0, one)

    def begin(self, i, now):
        """Worker i is to begin its next computation."""
        worker = self.workers[i]
        self.pending[i] = worker.begin(now, self.delay) - now
        self.results.pop(i, None)
        if i not in self.away:
            self.try_again(i, now)

    def try_again(self, i, now):
        self.attempt[i] += 1
        self.queue.push(now + self.pending[i], FINISH, i, self.attempt[i])

    def happen(self):
        """The next event; the time, and who finished in it (None: nobody)."""
        now, kind, i, content = self.queue.pop()
        if kind == FINISH and content == self.attempt[i] and i in self.pending:
            del self.pending[i]
            self.results[i] = self.workers[i].compute(self.update)
            return now, i
        if kind == LEAVE:
            self.away.add(i)
            self.attempt[i] += 1
        elif kind == NOTICE:
            self.believed.add(i)
        elif kind == RETURN:
            self.away.discard(i)
            self.believed.discard(i)
            if i in self.pending:
                self.try_again(i, now)
        elif kind == CUT:
            self.cuts.add(content)
        elif kind == HEAL:
            self.cuts.discard(content)
        return now, None

    def linked(self, i, j):
        """Whether a link is believed to be there."""
        apart = any(cut.side[i] != cut.side[j] for cut in self.cuts)
        return not apart and i not in self.believed and j not in self.believed

    def carries(self, step, i, j):
        """Whether anything is carried between two workers now."""
        return self.linked(i, j) and i not in self.away and j not in self.away and not self.lost(step, i, j)

    @property
    def there(self):
        """Who is not believed absent."""
        return [i for i in range(len(self.workers)) if i not in self.believed]

    def record(self, now, active):
        return Record(
            now, active, [worker.x for worker in self.workers], active, [worker.number for worker in self.workers]
        )


def run_global(rule, steps, **world):
    """Adapt, then combine under a global barrier: Metropolis weights of the links that are believed to be there between
    active workers; what is not carried stays with the receiver. Who is late computes on.

    Args:
      rule: `(world, arrived, since) -> bool`, whether the iteration ends: asked after every instant, with the workers
        that have arrived and are believed to be there.
      steps: iterations.
      world: as for `Breaking`.
    """
    sim, records = Breaking(**world), []
    for i in range(len(sim.workers)):
        sim.begin(i, 0.0)
    now = 0.0
    while len(records) < steps:
        if not len(sim.queue):
            raise RuntimeError("nothing happens any more")
        now, _ = sim.happen()
        if sim.queue.next_time() == now:
            continue
        while len(records) < steps:  # several iterations may end at one instant
            active = [i for i in sim.there if i in sim.results]
            if not rule(sim, active):
                break
            _average_active(sim, active, len(records))
            for i in active:
                sim.begin(i, now)
            records.append(sim.record(now, active))
    return records


def _average_active(sim, active, step):
    peers = {i: [j for j in sim.workers[i].neighbours if j in active and sim.linked(i, j)] for i in active}
    adapted = {i: sim.workers[i].x + sim.results[i] for i in active}
    for i in active:
        weights = {j: metropolis(len(peers[i]), len(peers[j])) for j in peers[i] if sim.carries(step, i, j)}
        sim.workers[i].x = average(adapted[i], weights, adapted)


def full(sim, arrived):
    """All that are there have arrived."""
    return bool(arrived) and len(arrived) == len(sim.there)


def fastest(k):
    """The rule of the k fastest, or of all that are there where those are fewer."""

    def rule(sim, arrived):
        return bool(arrived) and len(arrived) >= min(k, len(sim.there))

    return rule


class Path:
    """DTUR: the first link of a path that this epoch still wants; links that are not there are not wanted."""

    def __init__(self, links):
        self.links, self.established = [tuple(sorted(map(int, link))) for link in links], set()

    def __call__(self, sim, arrived):
        there = {link for link in self.links if sim.linked(*link)}
        had = set() if there <= self.established else self.established  # whether an epoch is over shows at its end
        offered = {link for link in there if set(link) <= set(arrived)}
        ends = full(sim, arrived) if not there else not offered <= had
        if ends:
            self.established = had | offered
        return ends


def run_adpsgd(partners, steps, **world):
    """AD-PSGD: a step is a finish. `partners[i]` are those that worker i picks, one computation after another."""
    sim, records = Breaking(**world), []
    done = [0] * len(sim.workers)
    for i in range(len(sim.workers)):
        sim.begin(i, 0.0)
    while len(records) < steps:
        now, i = sim.happen()
        if i is None:
            continue
        j, one = partners[i][done[i]], sim.workers[i]
        done[i] += 1
        if j != i and sim.carries(len(records), i, j):
            one.x = sim.workers[j].x = (one.x + sim.workers[j].x) / 2
        one.x = one.x + sim.results[i]
        sim.begin(i, now)
        records.append(sim.record(now, [i]))
    return records


def finish(start, seconds, absences):
    """When a computation is done that is begun at a time."""
    for one in absences:
        if start + seconds > one.leaves and start < one.returns:
            start = one.returns
    return start + seconds


def run_neighbours(steps, delay, update, x0, neighbours, absences):
    """Adapt, then combine under a neighbour barrier. Who takes part in an iteration is agreed upon: those believed to
    be there when it ends for the last of them. While it runs that changes; whoever has gone on by then has."""
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    own = [sorted((a for a in absences if a.worker == i), key=lambda a: a.leaves) for i in range(len(workers))]
    changes = sorted(
        {t for a in absences if a.leaves + a.patience < a.returns for t in (a.leaves + a.patience, a.returns)}
    )
    inf, origin, records = float("inf"), 0.0, []
    done = [finish(0.0, worker.begin(0.0, delay), own[worker.index]) for worker in workers]
    for _ in range(steps):
        asked, earliest = origin, [-inf] * len(workers)
        while True:
            out = {a.worker for a in absences if a.leaves + a.patience <= asked < a.returns}
            there = [i for i in range(len(workers)) if i not in out]
            peers = {i: [j for j in neighbours[i] if j in there] for i in there}
            goes = {i: max(earliest[i], *(done[j] for j in [i, *peers[i]])) for i in there}
            end = max(goes.values(), default=inf)
            change = min((t for t in changes if t > asked), default=inf)
            if end < change:
                break
            earliest = [min(goes.get(i, end), change) for i in range(len(workers))]
            asked = change
        gone = {a.worker for a in absences if a.leaves <= end < a.returns}
        adapted = {i: workers[i].x + workers[i].compute(update) for i in there}
        for i in there:
            weights = {j: metropolis(len(peers[i]), len(peers[j])) for j in peers[i] if not {i, j} & gone}
            workers[i].x = average(adapted[i], weights, adapted)
        for i in there:
            done[i] = finish(goes[i], workers[i].begin(0.0, delay), own[i])
        origin = end
        ends = [goes.get(i, end) for i in range(len(workers))]
        x, numbers = [worker.x for worker in workers], [worker.number for worker in workers]
        records.append(Record(end, there, x, there, numbers, ends=ends))
    return records
