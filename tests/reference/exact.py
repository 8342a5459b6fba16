"""Exact methods on convex tasks: ADMM, SSDA, MSDA, MSPD; and gradient descent at a server on blocks of data.

Sources, as recalled: Shi et al., arXiv 1307.5561; Scaman et al., arXiv 1702.08704 and 1806.00291; Karakus et al., arXiv
1711.04969. Every iteration ends for everybody: when all have finished and all messages are in, and further exchanges
take the longest latency each. Polynomials of the gossip matrix are taken of its eigenvalues.
"""

import numpy as np

from .gossip import metropolis
from .queue import no_latency


def mixing(neighbours):
    """Metropolis weights as a matrix."""
    nodes = len(neighbours)
    found = np.zeros((nodes, nodes))
    for i, peers in enumerate(neighbours):
        for j in peers:
            found[i, j] = metropolis(len(peers), len(neighbours[j]))
        found[i, i] = 1 - found[i].sum()
    return found


class Gossip:
    """`I - W`, its spectrum, and its Chebyshev polynomials."""

    def __init__(self, neighbours):
        self.matrix = np.eye(len(neighbours)) - mixing(neighbours)
        self.values, self.vectors = np.linalg.eigh(self.matrix)
        self.largest, self.smallest = self.values[-1], self.values[1]
        self.gap = self.smallest / self.largest

    def polynomial(self, rounds):
        """P_K of the matrix: 1 minus the Chebyshev polynomial of degree K that is 1 at 0 and smallest between its
        smallest and largest eigenvalue. Also the largest and the smallest value that it can have there."""
        middle, half = (self.largest + self.smallest) / 2, (self.largest - self.smallest) / 2
        if half < 1e-14:  # a complete graph: it is 1 at 0, and 0 at the one other eigenvalue
            return self.matrix / self.largest, 1.0, 1.0
        outside = np.cosh(rounds * np.arccosh(middle / half))
        at = (middle - self.values) / half
        inside = np.where(np.abs(at) <= 1, np.cos(rounds * np.arccos(np.clip(at, -1, 1))), 0)
        inside = np.where(at > 1, np.cosh(rounds * np.arccosh(np.maximum(at, 1))), inside)
        found = (self.vectors * (1 - inside / outside)) @ self.vectors.T
        return found, 1 + 1 / outside, 1 - 1 / outside


def times(delay, neighbours, steps, rounds=1, latency=no_latency):
    """When each iteration ends."""
    nodes, ends, now = len(neighbours), [], 0.0
    longest = max((latency(i, j) for i, peers in enumerate(neighbours) for j in peers), default=0.0)
    for k in range(steps):
        sent = [now + delay(i, k) for i in range(nodes)]
        heard = [sent[j] + latency(i, j) for i, peers in enumerate(neighbours) for j in peers]
        now = max([*sent, *heard]) + (rounds - 1) * longest
        ends.append(now)
    return ends


def run_admm(argmin, rho, neighbours, start, steps):
    """Models and duals after each iteration; `argmin(i, linear, centre, weight)` is worker i's exact minimiser."""
    weights, x = mixing(neighbours), np.array(start, float)
    dual, models, duals = np.zeros_like(x), [], []
    for _ in range(steps):
        centre = (x + weights @ x) / 2
        x = np.array([argmin(i, dual[i], centre[i], rho) for i in range(len(x))])
        dual = dual + rho * (x - weights @ x)
        models.append(x)
        duals.append(dual)
    return np.array(models), np.array(duals)


def run_dual(argmin, strong, smooth, neighbours, start, steps, rounds=None):
    """SSDA (no rounds), or MSDA: Nesterov's accelerated gradient on the dual, with the polynomial as its gossip."""
    gossip = Gossip(neighbours)
    matrix, largest, smallest = gossip.matrix, gossip.largest, gossip.smallest
    if rounds is not None:
        matrix, largest, smallest = gossip.polynomial(rounds)
    kappa, gap = smooth / strong, smallest / largest
    momentum = (np.sqrt(kappa) - np.sqrt(gap)) / (np.sqrt(kappa) + np.sqrt(gap))
    x = y = np.zeros_like(np.array(start, float))
    models = []
    for _ in range(steps):
        theta = np.array([argmin(i, -x[i], np.zeros_like(x[i]), 0.0) for i in range(len(x))])
        ahead = x - strong / largest * matrix @ theta
        x, y = (1 + momentum) * ahead - momentum * y, ahead
        models.append(theta)
    return np.array(models)


def run_mspd(argmin, eta, neighbours, start, steps, rounds):
    """Chambolle and Pock's method: a dual step along the extrapolated model, then a proximal step."""
    matrix, largest, _ = Gossip(neighbours).polynomial(rounds)
    x = before = np.array(start, float)
    y, models = np.zeros_like(x), []
    for _ in range(steps):
        y = y - matrix @ (2 * x - before) / (eta * largest)
        before, x = x, np.array([argmin(i, -y[i], x[i], 1 / (2 * eta)) for i in range(len(x))])
        models.append(x)
    return np.array(models)


def run_blocks(blocks, redundancy, smooth, k, delay, start, steps, latency=0.0):
    """Gradient descent at a server that takes the gradients of the k blocks that arrive first. Times and models.

    Args:
      blocks: `[((S A)_i, (S b)_i), ...]`, one for each worker, with `S' S = redundancy * I`.
      redundancy: that number.
      smooth: largest eigenvalue of `A' A`.
      k: blocks waited for.
      delay: as everywhere; late workers are cancelled and start the next iteration with the others.
      start: the server's parameters.
      steps: iterations.
      latency: seconds of a message between the server and a worker, either way.
    """
    x, begin, ends, models = np.array(start, float), 0.0, [], []
    for step in range(steps):
        arrival = [(begin + delay(i, step) + latency, i) for i in range(len(blocks))]
        first = sorted(arrival)[:k]
        gradient = sum(blocks[i][0].T @ (blocks[i][0] @ x - blocks[i][1]) for _, i in first)
        x = x - len(blocks) / k / redundancy / smooth * gradient
        ends.append(first[-1][0])
        models.append(x)
        begin = first[-1][0] + latency
    return ends, np.array(models)
