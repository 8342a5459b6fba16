"""Not every link in every iteration: MATCHA, local SGD, DSpodFL; and the subgradient method.

Sources: MATCHA from Wang et al., arXiv 1905.09435; local SGD from Stich, arXiv 1805.09767; DSpodFL from Zehtabi et al.,
arXiv 2402.03448; the subgradient method from Nedic and Ozdaglar 2009, as recalled. What is drawn (matchings, links, who
computes) comes in as functions.
"""

import numpy as np

from .drifting import CombineThenAdapt, Drift
from .gossip import average, metropolis
from .queue import EventQueue, Record, Worker, no_latency

FINISH, MESSAGE = 0, 1


class Exchanger(Worker):
    """A worker that adapts, sends the result to this iteration's partners, and averages what they send."""

    def __init__(self, index, x):
        super().__init__(index, x)
        self.iteration = -1
        self.letters: dict[int, dict] = {}

    def start(self, time, simulation):
        self.iteration += 1
        self.adapted = None
        simulation.queue.push(self.begin(time, simulation.delay), FINISH, self.index)

    def finish(self, time, simulation):
        self.adapted = self.x + self.compute(simulation.update)
        for receiver in simulation.partners(self.iteration, self.index):
            arrival = time + simulation.latency(receiver, self.index)
            letter = (self.iteration, self.index, self.adapted.copy())
            simulation.queue.push(arrival, MESSAGE, receiver, letter)

    def is_done(self, simulation):
        """Whether it has finished and heard all its partners of this iteration."""
        heard = self.letters.get(self.iteration, {})
        return self.adapted is not None and set(simulation.partners(self.iteration, self.index)) <= set(heard)

    def end(self, simulation):
        letters = self.letters.pop(self.iteration, {})
        weights = {j: simulation.weight(self.iteration, self.index, j) for j in sorted(letters)}
        self.x = average(self.adapted, weights, letters)
        return len(letters)


class Exchanges:
    """Iterations with partners that change.

    `partners(k, i)` is whom worker `i` hears in iteration `k`, `weight(k, i, j)` what it takes from each, and
    `together(k)` whether iteration `k` ends for everybody at once.
    """

    def __init__(self, partners, weight, together, delay, update, latency):
        self.partners, self.weight, self.together = partners, weight, together
        self.delay, self.update, self.latency = delay, update, latency

    def run(self, x0, steps):
        self.queue = EventQueue()
        workers = [Exchanger(i, x) for i, x in enumerate(x0)]
        ended: list[dict] = [{} for _ in range(steps)]
        for worker in workers:
            worker.start(0.0, self)
        while len(self.queue) and any(len(one) < len(workers) for one in ended):
            now = self.queue.next_time()
            while self.queue.next_time() == now:
                _, kind, index, content = self.queue.pop()
                if kind == FINISH:
                    workers[index].finish(now, self)
                else:
                    iteration, sender, vector = content
                    workers[index].letters.setdefault(iteration, {})[sender] = vector
            for worker in self.free(workers, steps):
                k = worker.iteration
                heard = worker.end(self)
                ended[k][worker.index] = (worker.x.copy(), now, heard)
                worker.start(now, self)
        return [self.record(k, one, len(workers)) for k, one in enumerate(ended)]

    def free(self, workers, steps):
        """Who ends its iteration now."""
        done = [worker for worker in workers if worker.iteration < steps and worker.is_done(self)]
        everybody = {k: sum(worker.iteration == k for worker in done) == len(workers) for k in range(steps)}
        return [worker for worker in done if not self.together(worker.iteration) or everybody[worker.iteration]]

    def record(self, k, ended, workers):
        ends = [ended[i][1] for i in range(workers)]
        x, heard = [ended[i][0] for i in range(workers)], [ended[i][2] for i in range(workers)]
        everybody = range(workers)
        return Record(max(ends), everybody, x, everybody, [k + 1 for _ in everybody], heard, ends)


def run_matcha(barrier, used, step, delay, update, x0, neighbours, steps, latency=no_latency):
    """MATCHA: in iteration `k` the links of `used(k)`, pairs of workers, are averaged over with the weight `step`.

    Args:
      barrier: "global": an iteration ends for everybody when all have finished and all messages are in;
        "neighbours": for each worker when it has finished and has heard those it is linked with in it.
      used, step: see above.
      delay, update, x0, neighbours, steps, latency: as in `gossip.run_global`.
    """
    near = []
    for k in range(steps + 1):
        links = used(k)
        near.append([[j for j in peers if (min(i, j), max(i, j)) in links] for i, peers in enumerate(neighbours)])
    simulation = Exchanges(
        lambda k, i: near[min(k, steps)][i],
        lambda k, i, j: step,
        lambda k: barrier == "global",
        delay,
        update,
        latency,
    )
    return simulation.run(x0, steps)


def run_local(h, barrier, delay, update, x0, neighbours, steps, latency=no_latency):
    """Local SGD: every `h`-th iteration averages over all links with Metropolis weights, the others over none.

    Args:
      h: iterations of a period.
      barrier: how the averaging iterations end, as in `run_matcha`; the others end for each worker when it finishes.
      delay, update, x0, neighbours, steps, latency: as in `gossip.run_global`.
    """
    degrees = [len(peers) for peers in neighbours]

    def averages(k):
        return k % h == h - 1

    simulation = Exchanges(
        lambda k, i: neighbours[i] if averages(k) else [],
        lambda k, i, j: metropolis(degrees[i], degrees[j]),
        lambda k: barrier == "global" and averages(k),
        delay,
        update,
        latency,
    )
    return simulation.run(x0, steps)


def run_dspodfl(computes, used, delay, update, x0, neighbours, steps, latency=no_latency):
    """DSpodFL under a global barrier: in iteration `k` the workers `computes(k)` add an update to an average over the
    links `used(k)`, pairs of workers, with Metropolis weights of the whole graph.

    Parameters are sent when the iteration starts. It ends when the last of those that compute has finished and the
    last message is in; at once, if there are none. Computation `k` of a worker belongs to iteration `k`.
    """
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    records, now = [], 0.0
    for k in range(steps):
        queue, updates = EventQueue(), {}
        letters: list[dict] = [{} for _ in workers]
        for worker in workers:
            finish = worker.begin(now, delay)
            if worker.index in computes(k):
                queue.push(finish, FINISH, worker.index)
            for j in worker.neighbours:
                if (min(worker.index, j), max(worker.index, j)) in used(k):
                    queue.push(now + latency(j, worker.index), MESSAGE, j, (worker.index, worker.x.copy()))
        while len(queue):
            now, kind, index, content = queue.pop()
            if kind == FINISH:
                updates[index] = workers[index].compute(update)
            else:
                letters[index][content[0]] = content[1]
        for worker in workers:
            i, heard = worker.index, letters[worker.index]
            weights = {j: metropolis(len(neighbours[i]), len(neighbours[j])) for j in sorted(heard)}
            worker.x = average(worker.x, weights, heard) + updates.get(i, 0.0)
        everybody = range(len(workers))
        started, heard = [k + 1 for _ in everybody], [len(letters[i]) for i in everybody]
        x, ends = [worker.x for worker in workers], [now for _ in everybody]
        records.append(Record(now, set(updates), x, everybody, started, heard, ends))
    return records


def run_subgradient(radius, barrier, delay, update, x0, neighbours, steps, latency=no_latency):
    """Combine, then adapt with the update over `sqrt(k)`, `k = 1, 2, ...`; then the nearest point of the ball.

    Args:
      radius: of the ball around 0.
      barrier: "neighbours", or "global": as in `drifting.run_dpsgd`.
      delay, update, x0, neighbours, steps, latency: as in `gossip.run_global`.
    """

    def nearest(x):
        size = float(np.sqrt((x**2).sum()))
        return x if size <= radius else x * (radius / size)

    class Falling(CombineThenAdapt):
        def mix(self, weights, letters):
            return nearest(average(self.x, weights, letters) + self.result / np.sqrt(self.iteration + 1))

    if barrier == "neighbours":
        return Drift(Falling, 0, delay, update, x0, neighbours, latency).run(steps)
    workers = [Worker(i, x, neighbours[i]) for i, x in enumerate(x0)]
    degrees, records, now = [len(peers) for peers in neighbours], [], 0.0
    for k in range(steps):
        ends = [worker.begin(now, delay) for worker in workers]
        arrivals = [now + latency(i, j) for i, peers in enumerate(neighbours) for j in peers]
        old, now = [worker.x for worker in workers], max(ends + arrivals)
        for worker in workers:
            weights = {j: metropolis(degrees[worker.index], degrees[j]) for j in worker.neighbours}
            mixed = average(worker.x, weights, old)
            worker.x = nearest(mixed + worker.compute(update) / np.sqrt(k + 1))
        everybody = range(len(workers))
        x, started, last = [worker.x for worker in workers], [k + 1 for _ in everybody], [now for _ in everybody]
        records.append(Record(now, everybody, x, everybody, started, degrees, last))
    return records
