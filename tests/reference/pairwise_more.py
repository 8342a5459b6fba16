"""Further methods without a barrier: AD-PSGD with latency and two sides, Poisson ticks, a token, SWIFT, A2CiD2.

Sources, as recalled: AD-PSGD from Lian et al., arXiv 1710.06952; randomized gossip from Boyd et al. 2006; the token
from Johansson et al. 2009. SWIFT (arXiv 2210.14026) and A2CiD2 (arXiv 2306.08289) follow their authors' code.

What is drawn at random is passed in; times, running means and constants are worked out here.
"""

import numpy as np

from .gossip import metropolis
from .queue import EventQueue, Record, Worker, no_latency

FINISH, EXCHANGE = 0, 1


def run_adpsgd(partner, asks, delay, update, x0, neighbours, steps, latency=no_latency):
    """AD-PSGD, one record per applied gradient.

    When worker `i` has finished its computation `n`, it and its partner send each other their parameters; once both
    messages are there, both take the mean of what they have at that instant, the update (computed at what `i` started
    from) is added to `i` alone, and `i` starts anew. Who does not ask others applies its update at once.

    Args:
      partner: `partner(i, n)`, with whom worker `i` averages after its computation `n`.
      asks: the set of workers that ask others.
    """
    queue = EventQueue()
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    while len(records) < steps:
        time, kind, i, j = queue.pop()
        worker = workers[i]
        if kind == FINISH:
            wait, other = 0.0, None
            if i in asks and worker.neighbours:
                other = partner(i, worker.number)
                if other not in worker.neighbours:
                    raise ValueError(f"worker {i} picked {other}; its neighbours are {worker.neighbours}")
                wait = max(latency(i, other), latency(other, i))
            queue.push(time + wait, EXCHANGE, i, other)
            continue
        if j is not None:
            worker.x = workers[j].x = (worker.x + workers[j].x) / 2.0
        worker.x = worker.x + worker.compute(update)
        queue.push(worker.begin(time, delay), FINISH, i)
        records.append(_record(time, {i}, workers, [i]))
    return records


class Clocks:
    """Finishes in a queue, and Poisson ticks at `rate` per worker and mean of the computations begun so far."""

    def __init__(self, draw, rate, delay, workers):
        self.draw, self.rate, self.delay, self.workers = draw, rate, delay, workers
        self.queue = EventQueue()
        self.lengths: list[float] = []  # of the computations begun
        self.now, self.event = 0.0, 0
        for worker in workers:
            self.begin(worker)

    def begin(self, worker):
        self.queue.push(worker.begin(self.now, self.delay), FINISH, worker.index)
        self.lengths.append(self.delay(worker.index, worker.number))

    def mean(self):
        return sum(self.lengths) / len(self.lengths)

    def next(self):
        """`(i, j)`: the pair that averages, or the worker that has finished and None."""
        unit, i, j = self.draw(self.event)
        self.event += 1
        if len(self.workers) > 1:
            tick = self.now + unit * self.mean() / (self.rate * len(self.workers))
            if tick < self.queue.next_time():
                self.now = tick
                return i, j
        self.now, _, i, _ = self.queue.pop()
        return i, None


def run_gossip(draw, rate, delay, update, x0, neighbours, steps):
    """Randomized gossip with gradients, one record per tick or finish (of a tick nobody is active).

    Args:
      draw: `draw(event) -> (unit, i, j)`: an exponential number of mean 1, the worker of a tick and its neighbour.
      rate: ticks per worker and mean computation.
    """
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    clocks = Clocks(draw, rate, delay, workers)
    records = []
    for _ in range(steps):
        i, j = clocks.next()
        if j is None:
            workers[i].x = workers[i].x + workers[i].compute(update)
            clocks.begin(workers[i])
        else:
            if j not in neighbours[i]:
                raise ValueError(f"worker {i} picked {j}; its neighbours are {neighbours[i]}")
            workers[i].x = workers[j].x = (workers[i].x + workers[j].x) / 2.0
        records.append(_record(clocks.now, {i} if j is None else set(), workers, [i] if j is None else []))
    return records


def run_token(follower, delay, update, x0, neighbours, steps, latency=no_latency):
    """A token walks; one record per gradient, whose `x` is what the token carries, [1, P].

    Computation 0 of a worker that does not hold the token at time 0 never takes place.

    Args:
      follower: `follower(event, i)`, to whom worker `i` passes the token.
    """
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    for worker in workers[1:]:
        worker.number = 0
    carried = workers[0].x
    holder, time = workers[0], 0.0
    records = []
    for event in range(steps):
        time = holder.begin(time, delay)
        carried = carried + update(holder.index, holder.number, carried.copy())
        j = follower(event, holder.index)
        if j != holder.index and j not in holder.neighbours:
            raise ValueError(f"worker {holder.index} passes the token to {j}; its neighbours are {holder.neighbours}")
        records.append(Record(time, {holder.index}, [carried], [j], [worker.number for worker in workers]))
        if j != holder.index:
            time += latency(j, holder.index)
        holder = workers[j]
    return records


def run_swift(every, delay, update, x0, neighbours, steps):
    """SWIFT with mailboxes: a worker that starts an iteration sends its parameters to all its neighbours.

    At its finish, in each `every`-th of its iterations, it takes what its mailboxes hold with Metropolis weights, and
    then adds its update, computed at what it had.
    """
    queue = EventQueue()
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    boxes = [{j: np.array(x0[j], float) for j in near} for near in neighbours]
    for worker in workers:
        queue.push(worker.begin(0.0, delay), FINISH, worker.index)
    records = []
    for _ in range(steps):
        time, _, i, _ = queue.pop()
        worker = workers[i]
        result = worker.compute(update)
        if (worker.number + 1) % every == 0:
            weights = {j: metropolis(len(neighbours[i]), len(neighbours[j])) for j in neighbours[i]}
            total = (1 - sum(weights.values())) * worker.x
            for j, weight in weights.items():
                total = total + weight * boxes[i][j]
            worker.x = total
        worker.x = worker.x + result
        queue.push(worker.begin(time, delay), FINISH, i)
        for j in neighbours[i]:
            boxes[j][i] = worker.x.copy()
        records.append(_record(time, {i}, workers, [i]))
    return records


def acid_constants(neighbours, rate):
    """`h` and `gain`: by grounding a node of the network of resistors and solving, one link after another."""
    nodes = len(neighbours)
    if nodes == 1:
        return 0.0, 0.0
    laplacian = np.zeros((nodes, nodes))
    for i, near in enumerate(neighbours):
        for j in near:  # i picks j so often, and both move
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                laplacian[a, b] += sign * rate / len(near)
    worst = 0.0
    for i, near in enumerate(neighbours):
        for j in near:
            kept = [k for k in range(nodes) if k != j]
            current = np.array([float(k == i) for k in kept])
            worst = max(worst, np.linalg.solve(laplacian[np.ix_(kept, kept)], current)[kept.index(i)])
    chi1, chi2 = 1 / np.sort(np.linalg.eigvalsh(laplacian))[1], worst / 2
    return 1 / (2 * np.sqrt(chi1 * chi2)), np.sqrt(chi1 / chi2) / 2


def run_acid(draw, rate, delay, update, x0, neighbours, steps, constants=None):
    """A2CiD2, one record per tick or finish; `x` is [2 N, P], the x of all workers and then their x~.

    Args:
      draw, rate: as for `run_gossip`.
      constants: `(h, gain)`; None: those of the graph.
    """
    h, gain = acid_constants(neighbours, rate) if constants is None else constants
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    others = [worker.x.copy() for worker in workers]
    last = [0.0 for _ in workers]
    clocks = Clocks(draw, rate, delay, workers)
    records = []

    def make_up(i):
        time = (clocks.now - last[i]) / clocks.mean()
        flow = exponential(time * np.array([[-h, h], [h, -h]]))
        both = flow @ np.stack([workers[i].x, others[i]])
        workers[i].x, others[i] = both[0], both[1]
        last[i] = clocks.now

    for _ in range(steps):
        i, j = clocks.next()
        make_up(i)
        if j is None:
            result = workers[i].compute(update)
            workers[i].x, others[i] = workers[i].x + result, others[i] + result
            clocks.begin(workers[i])
        else:
            make_up(j)
            difference = workers[j].x - workers[i].x
            others[i], others[j] = others[i] + gain * difference, others[j] - gain * difference
            workers[i].x = workers[j].x = (workers[i].x + workers[j].x) / 2.0
        record = _record(clocks.now, {i} if j is None else set(), workers, [i] if j is None else [])
        record.x = np.array([worker.x for worker in workers] + others)
        records.append(record)
    return records


def exponential(matrix):
    """The exponential of a small matrix, by its series, after halving it until that converges fast."""
    halvings = max(0, int(np.ceil(np.log2(max(np.abs(matrix).sum(), 1e-300)))) + 4)
    small = matrix / 2.0**halvings
    total = term = np.eye(len(matrix))
    for k in range(1, 12):
        term = term @ small / k
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total


def _record(time, active, workers, restarted):
    return Record(time, active, [worker.x for worker in workers], restarted, [worker.number for worker in workers])
