"""Which cells a Gantt chart shows: a few stretches of time laid end to end, and a few workers where there are many.

Where iterations end for everybody at once, a stretch is made of whole iterations. Where they do not, it is as long as
so many mean times between two starts of a worker, and "iteration" means a worker's own computations, by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dbwjax.report.waits import Cells

MOST = 2_000
"""Cells of one view."""

ITERATIONS = 20
"""Of a view."""


EDGE = 1e-5
"""Of a stretch: what reaches no further into it lies beside it, but for rounding."""


class View(NamedTuple):
    """What is shown."""

    key: str
    title: str
    note: str  # what is not shown, and why
    rows: np.ndarray  # [R] workers, from top to bottom
    windows: np.ndarray  # [W, 2] s, the stretches of time, ascending
    marks: tuple[str, ...]  # [W] what each stretch is called
    cells: np.ndarray  # numbers of the cells that lie in them, at least in part


def views(cells: Cells, most: int = MOST) -> list[View]:
    """The first 20 iterations, the slowest 20, and 20 spread evenly; fewer where there are no more.

    Args:
      cells: of one policy in one world.
      most: cells of a view; where there are more, some workers are shown.
    """
    if cells.ends is not None:
        count = len(cells.ends)
        some = min(ITERATIONS, count)
        length = np.diff(cells.ends, prepend=0.0)
        slow = np.sort(np.argsort(-length, kind="stable")[:some])
        even = np.unique(np.linspace(0, count - 1, some).round().astype(int))
        first = _of_iterations(cells, "first", f"the first {some} iterations", np.arange(some), most)
        if count <= ITERATIONS:
            return [first]
        return [
            first,
            _of_iterations(cells, "slowest", f"the {some} longest iterations", slow, most),
            _of_iterations(cells, "even", f"{len(even)} iterations, evenly spread", even, most),
        ]
    return _of_times(cells, most)


def asked(cells: Cells, first: int, last: int, most: int = MOST) -> View:
    """Iterations `first` to `last` (from 0, both shown).

    Raises:
      ValueError: there are none of them.
    """
    count = int(cells.step[-1] if cells.ends is not None else cells.number.max()) + 1
    if not 0 <= first <= last or first >= count:
        raise ValueError(
            f"--iterations {first}:{last} names none of {count} iterations; use a:b with 0 <= a <= b < {count}"
        )
    last = min(last, count - 1)
    title = f"iterations {first} to {last}"
    if cells.ends is not None:
        return _of_iterations(cells, "asked", title, np.arange(first, last + 1), most)
    some = (cells.number >= first) & (cells.number <= last)
    window = np.array([[cells.start[some].min(), cells.released[some].max()]])
    return _view(cells, "asked", f"{title} of each worker", window, (f"{first}",), most)


def _of_iterations(cells: Cells, key: str, title: str, which: np.ndarray, most: int) -> View:
    """Whole iterations; those that follow each other are one stretch."""
    assert cells.ends is not None
    begins = np.concatenate([[0.0], cells.ends])
    windows: list[list[float]] = []
    marks: list[str] = []
    for k in which:
        if windows and begins[k] == windows[-1][1]:
            windows[-1][1] = begins[k + 1]
            marks[-1] = f"{marks[-1].partition('-')[0]}-{k}"
        else:
            windows.append([begins[k], begins[k + 1]])
            marks.append(str(k))
    return _view(cells, key, title, np.array(windows), tuple(marks), most)


def _of_times(cells: Cells, most: int) -> list[View]:
    """Stretches of 20 mean times between two starts of a worker: the first, that in which fewest workers went on, and
    four that are a fourth as long."""
    end = float(cells.released.max())
    mean = float((cells.released - cells.start).sum() / len(cells.worker))
    length = ITERATIONS * mean
    told = f"as long as {ITERATIONS} mean iterations"
    if end <= 1.5 * length:
        return [_view(cells, "first", "the whole time", np.array([[0.0, end]]), ("",), most)]
    starts = np.arange(0, end - length, mean)
    released = np.sort(cells.released)
    ended = np.searchsorted(released, starts + length) - np.searchsorted(released, starts)
    slow = float(starts[np.argmin(ended)])
    fourths = np.linspace(0, end - length / 4, 4)
    return [
        _view(cells, "first", f"the first stretch {told}", np.array([[0.0, length]]), ("",), most),
        _view(cells, "slowest", f"the slowest stretch {told}", np.array([[slow, slow + length]]), ("",), most),
        _view(
            *(cells, "even", f"four stretches {ITERATIONS // 4} mean iterations long, evenly spread"),
            *(np.stack([fourths, fourths + length / 4], axis=1), ("",) * 4, most),
        ),
    ]


def _view(cells: Cells, key: str, title: str, windows: np.ndarray, marks: Sequence[str], most: int) -> View:
    inside = np.zeros(len(cells.worker), bool)
    for low, high in windows:
        edge = EDGE * (high - low)
        inside |= (cells.start < high - edge) & (cells.released > low + edge)
    which = np.flatnonzero(inside)
    rows, note = np.arange(cells.workers), ""
    if len(which) > most:
        count = max(1, int(cells.workers * most / len(which)))
        rows = _some_workers(cells, count)
        which = which[np.isin(cells.worker[which], rows)]
        note = f"{len(rows)} of {cells.workers:,} workers: the slowest, the median and the fastest by mean computation"
    if len(which) > most:  # some workers compute more often than others
        which = which[np.argsort(cells.start[which], kind="stable")[:most]]
        note = "; ".join(filter(None, [note, f"the first {most:,} cells of them"]))
    return View(key, title, note, rows, windows, tuple(marks), which)


def _some_workers(cells: Cells, count: int) -> np.ndarray:
    """A third of them the slowest, a third about the median, a third the fastest; the slowest first."""
    done = np.bincount(cells.worker, minlength=cells.workers)
    mean = np.bincount(cells.worker, cells.finish - cells.start, cells.workers) / np.maximum(done, 1)
    order = np.argsort(-mean, kind="stable")
    if count >= len(order):
        return order
    third, rest = count // 3, count - 2 * (count // 3)
    middle = (len(order) - third) // 2
    return np.concatenate([order[:rest], order[middle : middle + third], order[len(order) - third :]])
