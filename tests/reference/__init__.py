"""The methods written a second time, in plain NumPy, as discrete-event simulations.

Every family is told here as one would tell it at a blackboard: workers are objects, computations and messages are
events in a queue, parameters are moved by loops over the workers that hear each other. Nothing of `dbwjax` is
imported, so that an agreement with the library is an agreement of two independent readings of the papers.

Common to all: `delay(i, n)` is how many seconds worker `i` needs for its `n`-th computation, where every start of a
computation takes the next `n`, even if the computation is later thrown away (those that start when the last iteration
ends are drawn too); `update(i, n, x)` is the update (for SGD, `-lr * gradient`) of that computation at the parameters
`x` it started from; `latency(i, j)` is how many seconds a message needs from `j` to `i`. A run is a list of `Record`s,
one per iteration or event. Where two times may be equal, choose delays that are sums of powers of two: the clock here
is absolute, and rounding would otherwise break the tie.
"""

from . import drifting, gossip, held, pairwise, pairwise_more, server
from .queue import EventQueue, Record, Worker, no_latency

__all__ = [
    "EventQueue",
    "Record",
    "Worker",
    "drifting",
    "gossip",
    "held",
    "no_latency",
    "pairwise",
    "pairwise_more",
    "server",
]
