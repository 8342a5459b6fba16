"""Methods for data that differ from worker to worker, as their papers' recursions on stacks of vectors; their times.

Sources: gradient tracking from Nedic, Olshevsky and Shi, arXiv 1607.03218, and Pu and Nedic, arXiv 1805.11454, as
recalled; D2 from Tang et al., arXiv 1803.07068, by the rule of public code; quasi-global momentum from Lin et al.,
arXiv 2102.04761, by the authors' code; dual averaging from Duchi, Agarwal and Wainwright, arXiv 1005.2012, as recalled.

`gradient(i, k, x)` is worker `i`'s in iteration `k` at `x`. A run is a list of stacks `[N, P]`, one an iteration.
"""

import numpy as np

from . import drifting, gossip


def metropolis_matrix(neighbours, lazy=False):
    """The mixing matrix `[N, N]` of a whole graph, from lists of neighbours."""
    nodes = len(neighbours)
    matrix = np.zeros((nodes, nodes))
    for i in range(nodes):
        for j in neighbours[i]:
            matrix[i, j] = gossip.metropolis(len(neighbours[i]), len(neighbours[j]))
        matrix[i, i] = 1 - matrix[i].sum()
    return (matrix + np.eye(nodes)) / 2 if lazy else matrix


def all_gradients(gradient, k, x):
    """The workers' gradients in iteration `k`, `[N, P]`."""
    return np.stack([gradient(i, k, x[i].copy()) for i in range(len(x))])


def run_tracking(mixing, rate, gradient, x0, steps):
    """Gradient tracking; returns the parameters, the trackers and the gradients after each iteration.

    y(k) = W y(k-1) + g(k) - g(k-1),   x(k+1) = W (x(k) - rate y(k));   the trackers returned are W y(k)
    """
    x, found, trackers, gradients = np.array(x0, float), [], [], []
    for k in range(steps):
        now = all_gradients(gradient, k, x)
        tracker = now if k == 0 else mixing @ tracker + now - gradients[-1]
        x = mixing @ (x - rate * tracker)
        found.append(x)
        trackers.append(mixing @ tracker)
        gradients.append(now)
    return found, trackers, gradients


def run_d2(mixing, rate, gradient, x0, steps):
    """D2: `x(k+1) = W (2 x(k) - x(k-1) - rate (g(k) - g(k-1)))`, and first `W (x - rate g)`."""
    course, gradients = [np.array(x0, float)], []
    for k in range(steps):
        gradients.append(all_gradients(gradient, k, course[-1]))
        if k == 0:
            half = course[0] - rate * gradients[0]
        else:
            half = 2 * course[-1] - course[-2] - rate * (gradients[-1] - gradients[-2])
        course.append(mixing @ half)
    return course[1:]


def run_quasi_global(beta, mixing, rate, gradient, x0, steps):
    """Quasi-global momentum, in the units of gradients:

    x(k+1) = W (x(k) - rate (beta m + g)),   m = beta m + (1 - beta) (x(k) - x(k+1)) / rate
    """
    x, found = np.array(x0, float), []
    buffer = np.zeros_like(x)
    for k in range(steps):
        step = beta * buffer + all_gradients(gradient, k, x)
        after = mixing @ (x - rate * step)
        buffer = beta * buffer + (1 - beta) * (x - after) / rate
        x = after
        found.append(x)
    return found


def run_dual(alpha, mixing, gradient, x0, steps):
    """Dual averaging; returns the parameters, and the means of those so far, after each iteration."""
    start = np.array(x0, float)
    x, found = start, []
    duals = np.zeros_like(x)
    for k in range(steps):
        duals = mixing @ duals + all_gradients(gradient, k, x)
        x = start - alpha / np.sqrt(k + 1) * duals
        found.append(x)
    return found, [np.mean(found[: k + 1], axis=0) for k in range(steps)]


def times_of_full(barrier, delay, neighbours, steps, latency):
    """Records of `full` under a barrier, for their times: the parameters in them are zeros."""
    given = {"delay": delay, "update": lambda i, n, x: 0 * x, "x0": np.zeros((len(neighbours), 1))}
    given |= {"neighbours": neighbours, "steps": steps, "latency": latency}
    if barrier == "global":
        return gossip.run_global(gossip.Full(), "carry", **given)
    return drifting.run_backup(0, **given)


def times_of_dpsgd(barrier, delay, neighbours, steps, latency):
    """Records of `dpsgd` under a barrier, for their times."""
    zeros = np.zeros((len(neighbours), 1))
    return drifting.run_dpsgd(barrier, delay, lambda i, n, x: 0 * x, zeros, neighbours, steps, latency)
