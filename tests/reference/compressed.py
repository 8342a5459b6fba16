"""Compressed messages: CHOCO-SGD, DCD-PSGD and ECD-PSGD, and their codecs.

Sources: CHOCO from Koloskova, Stich and Jaggi, arXiv 1902.00340; DCD and ECD from Tang et al., arXiv 1803.06443, as
recalled. Only the random words come in from outside: `words(i, k, entries)` are those of the message that belongs
to worker `i`'s iteration `k`.
"""

import numpy as np

from .drifting import CombineThenAdapt, Drift
from .gossip import average, metropolis

BUCKET = 256


def identity(vector, words, unbiased):
    """Everything."""
    return vector.copy()


def quantize(bits):
    """Levels of a bucket's largest magnitude, rounded up with the probability that is the fraction."""
    most = 2 ** (bits - 1) - 1

    def code(vector, words, unbiased):
        decoded = np.zeros_like(vector)
        for begin in range(0, len(vector), BUCKET):
            levels, step = quantized(vector[begin : begin + BUCKET], words[begin : begin + BUCKET], most)
            decoded[begin : begin + BUCKET] = [level * step for level in levels]
        if not unbiased:
            decoded /= 1 + omega(bits, min(len(vector), BUCKET))
        return decoded

    return code


def quantized(bucket, words, most):
    """Whole signed levels, and the step between two."""
    step = max(abs(entry) for entry in bucket) / most
    if step == 0:
        return [0] * len(bucket), 0.0
    levels = []
    for entry, word in zip(bucket, words, strict=True):
        level, rest = divmod(abs(entry) * (1 / step), 1.0)
        level = min(int(level) + (int(word) / 2**32 < rest), most)
        levels.append(level if entry > 0 else -level)
    return levels, step


def omega(bits, entries):
    """The root of w^2 + w = (entries - 1) / (4 levels^2)."""
    most = 2 ** (bits - 1) - 1
    return float(max(np.roots([1.0, 1.0, -(entries - 1) / (4 * most**2)])))


def top_k(fraction):
    """The largest magnitudes, earlier ones first among equals."""

    def code(vector, words, unbiased):
        order = sorted(range(len(vector)), key=lambda entry: (-abs(vector[entry]), entry))
        return only(vector, order[: count(fraction, len(vector))], 1.0)

    return code


def random_k(fraction):
    """Those entries whose words are the smallest."""

    def code(vector, words, unbiased):
        k = count(fraction, len(vector))
        chosen = sorted(range(len(vector)), key=lambda entry: int(words[entry]))[:k]
        return only(vector, chosen, len(vector) / k if unbiased else 1.0)

    return code


def count(fraction, entries):
    """How many are kept: the least whole number that is not below the fraction."""
    return next(k for k in range(1, entries + 1) if k >= fraction * entries - 1e-6)


def only(vector, chosen, factor):
    """The chosen entries times `factor`, 0 elsewhere."""
    decoded = np.zeros_like(vector)
    for entry in chosen:
        decoded[entry] = vector[entry] * factor
    return decoded


def run_choco(code, gamma, words, update, x0, neighbours, steps):
    """CHOCO: every worker's public copy moves by a coded difference; then a step of `gamma` towards the copies.

    Args:
      code: `(vector, words, unbiased) -> decoded`.
      gamma: consensus step size.
      words: `(i, k, entries)`, see above.
      update, x0, neighbours, steps: as in `gossip.run_global`.

    Returns:
      `[steps, N, P]` parameters after each iteration.
    """
    x, copies, seen = [row.copy() for row in x0], [row.copy() for row in x0], []
    degrees = [len(peers) for peers in neighbours]
    for k in range(steps):
        half = [row + update(i, k, row) for i, row in enumerate(x)]
        for i, row in enumerate(half):
            copies[i] = copies[i] + code(row - copies[i], words(i, k, len(row)), False)
        x = [row.copy() for row in half]
        for i, peers in enumerate(neighbours):
            for j in peers:
                x[i] += gamma * metropolis(degrees[i], degrees[j]) * (copies[j] - copies[i])
        seen.append([row.copy() for row in x])
    return np.array(seen)


def run_dcd(code, words, delay, update, x0, neighbours, steps, latency):
    """DCD under a neighbour barrier: D-PSGD in which the change of x is coded, and x follows what is decoded."""

    class Differences(CombineThenAdapt):
        def mix(self, weights, letters):
            change = average(self.x, weights, letters) + self.result - self.x
            return self.x + code(change, words(self.index, self.iteration, len(change)), True)

    return Drift(Differences, 0, delay, update, x0, neighbours, latency).run(steps)


def run_ecd(code, words, delay, update, x0, neighbours, steps, latency):
    """ECD under a neighbour barrier: neighbours get coded extrapolations, of which they keep a weighted mean."""

    class Extrapolations(CombineThenAdapt):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.public = self.x.copy()

        def send(self, time, vector):
            super().send(time, self.public)

        def mix(self, weights, letters):
            t = self.iteration + 1
            new = average(self.public, weights, letters) + self.result
            told = code((1 - t / 2) * self.x + t / 2 * new, words(self.index, self.iteration, len(new)), True)
            self.public = (1 - 2 / t) * self.public + 2 / t * told
            return new

    return Drift(Extrapolations, 0, delay, update, x0, neighbours, latency).run(steps)
