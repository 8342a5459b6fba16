"""What all simulations share: the event queue, a worker that computes, and the record of an iteration."""

import heapq

import numpy as np


class EventQueue:
    """Events in order of time; at equal times by kind, then by worker, then in the order they were pushed."""

    def __init__(self):
        self._heap = []
        self._pushed = 0

    def __len__(self):
        return len(self._heap)

    def push(self, time, kind, worker, content=None):
        """Adds an event. `content` is whatever its receiver needs and has no influence on the order."""
        if not time >= 0:
            raise ValueError(f"event at time {time}; times are seconds from 0 on")
        heapq.heappush(self._heap, (time, kind, worker, self._pushed, content))
        self._pushed += 1

    def next_time(self):
        """Time of the next event; inf when there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def pop(self):
        """Takes the next event out: `(time, kind, worker, content)`."""
        time, kind, worker, _, content = heapq.heappop(self._heap)
        return time, kind, worker, content


class Worker:
    """One worker: its parameters and the computation that it is busy with."""

    def __init__(self, index, x, neighbours=()):
        self.index = index
        self.x = np.array(x, dtype=np.float64)
        self.neighbours = list(neighbours)
        self.number = -1  # of the computation it is busy with
        self.origin = self.x.copy()  # the parameters which that computation started from

    def begin(self, time, delay):
        """Starts the next computation at the present parameters and returns when it will finish."""
        self.number += 1
        self.origin = self.x.copy()
        seconds = delay(self.index, self.number)
        if not seconds >= 0:
            raise ValueError(f"delay {seconds} of worker {self.index}; use 0 seconds or more")
        return time + seconds

    def compute(self, update):
        """The update that the present computation yields, at the parameters which it started from."""
        return np.array(update(self.index, self.number, self.origin.copy()), dtype=np.float64)


class Record:
    """What is known when an iteration (or event) is over.

    Attributes:
      time: absolute second at which it ends (for the last worker, where workers end it at different times).
      active: set of the workers whose updates counted and who took part.
      x: [N, P] all parameters after it.
      restarted: sorted list of the workers that start their next computation at its end.
      started: for each worker the number of the computation it began last.
      heard: for each worker how many neighbours' parameters it mixed with its own.
      ends: for each worker the absolute second at which it ends the iteration.
    """

    def __init__(self, time, active, x, restarted, started, received=None, ends=None):
        self.time = time
        self.active = set(active)
        self.x = np.array(x, dtype=np.float64)
        self.restarted = sorted(restarted)
        self.started = list(started)
        self.heard = None if received is None else list(received)
        self.ends = None if ends is None else list(ends)


def no_latency(receiver, sender):
    """Messages take no time."""
    return 0.0
