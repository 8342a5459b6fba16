"""A timeline in the Trace Event Format, which Perfetto and Chrome's tracing open.

A process is a policy, a thread a worker, a slice what it did; times are microseconds of virtual time. A flow goes from
the computation whose finish ended a wait to that wait. Counters show how many workers compute and wait, and the test
accuracy.

Format: "Trace Event Format", the Chromium project; phases M, X, s, f and C.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dbwjax.report.waits import Cells, cells_of

MOST = 200_000
"""Computations of a file, over all policies: about 100 MB of text, a tenth of it packed."""

_MICRO = 1e6


def trace_events(
    timelines: Mapping[str, Mapping[str, Mapping[str, Any]]],
    rows: Sequence[Mapping[str, Any]],
    pairs: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    most: int = MOST,
) -> tuple[dict[str, Any], str]:
    """The file's content, of each policy's first world, and what was left out of it ("": nothing).

    Args:
      timelines: by policy and world, as in `timeline.npz`.
      rows: of `metrics.jsonl`, for the accuracy.
      pairs: as for `cells_of`.
      names: of the workers.
      most: computations, shared evenly among the policies; of each the first are kept.

    Raises:
      ValueError: no timeline holds computations.
    """
    found = {
        spec: (next(iter(worlds)), cells_of(next(iter(worlds.values())), pairs))
        for spec, worlds in timelines.items()
        if worlds and len(next(iter(worlds.values())).get("span_worker", ()))
    }
    if not found:
        raise ValueError("the run kept no computations one by one; run it again with --timelines auto")
    each, events, left = max(1, most // len(found)), list[dict[str, Any]](), []
    for pid, (spec, (world, cells)) in enumerate(found.items()):
        kept = np.argsort(cells.start, kind="stable")[:each]
        if len(kept) < len(cells.worker):
            end = float(cells.released[kept].max())
            left.append(f"{spec}: the first {len(kept):,} of {len(cells.worker):,} computations, until {end:.4g} s")
        own = [row for row in rows if row["policy"] == spec and str(row.get("world")) == str(world)]
        events += _named(pid, f"{spec}, world {world}", cells.workers, names)
        events += _slices(pid, cells, kept)
        events += _flows(pid, cells, kept)
        events += _counters(pid, cells, kept, own)
    missing = [spec for spec in timelines if spec not in found]
    left += [f"{spec}: it kept no computations one by one" for spec in missing]
    told = "; ".join(left)
    other = {"clock": "virtual time", "left_out": told}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}, told


def packed(content: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a file of that name: compressed where it ends in `.gz`."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return gzip.compress(text, mtime=0) if name.endswith(".gz") else text


def _named(pid: int, title: str, workers: int, names: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": title}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
    for worker in range(workers):
        name = f"worker {worker}" + (f" {names[worker]}" if names else "")
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": worker, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": worker, "args": {"sort_index": worker}}


def _slices(pid: int, cells: Cells, kept: np.ndarray) -> Iterator[dict[str, Any]]:
    """What a worker did, one slice after the other; of no length none."""
    sent = cells.released - cells.flight
    for cell in kept.tolist():
        about = {"computation": int(cells.number[cell]), "step": int(cells.step[cell])}
        if cells.cause[cell] >= 0:
            about["due to worker"] = int(cells.cause[cell])
        times = (cells.start[cell], cells.finish[cell], sent[cell], cells.released[cell])
        names = ("computing" if cells.used[cell] else "wasted", "waiting", "communicating")
        for name, begin, end in zip(names, times[:-1], times[1:], strict=True):
            if end > begin:
                event = {"ph": "X", "name": name, "cat": "worker", "pid": pid, "tid": int(cells.worker[cell])}
                yield {**event, "ts": begin * _MICRO, "dur": (end - begin) * _MICRO, "args": about}


def _flows(pid: int, cells: Cells, kept: np.ndarray) -> Iterator[dict[str, Any]]:
    """From inside the cause's computation, at its end, to inside the wait, at its own: a flow's ends bind to slices."""
    known = np.zeros(len(cells.worker), bool)
    known[kept] = True
    for cell in kept.tolist():
        cause = int(cells.cause_cell[cell])
        if cause < 0 or not known[cause]:
            continue
        common = {"name": "waited for", "cat": "wait", "pid": pid, "id": f"{pid}-{cell}"}
        begin = cells.finish[cause] - 1e-3 * (cells.finish[cause] - cells.start[cause])
        end = cells.released[cell] - 1e-3 * (cells.flight[cell] or cells.waited[cell])
        yield {**common, "ph": "s", "tid": int(cells.worker[cause]), "ts": begin * _MICRO}
        yield {**common, "ph": "f", "bp": "e", "tid": int(cells.worker[cell]), "ts": max(begin, end) * _MICRO}


def _counters(pid: int, cells: Cells, kept: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    common = {"ph": "C", "pid": pid, "tid": 0}
    changes = np.concatenate([cells.start[kept], cells.finish[kept], cells.released[kept]])
    one, zero = np.ones(len(kept), int), np.zeros(len(kept), int)
    order = np.argsort(changes, kind="stable")
    computing = np.cumsum(np.concatenate([one, -one, zero])[order])
    waiting = np.cumsum(np.concatenate([zero, one, -one])[order])
    times = changes[order]
    last = np.flatnonzero(np.diff(times, append=np.inf) > 0)  # of what happens at one instant the end
    for at in last.tolist():
        values = {"computing": int(computing[at]), "waiting": int(waiting[at])}
        yield {**common, "name": "workers", "ts": times[at] * _MICRO, "args": values}
    for row in rows:
        if row.get("test_accuracy") is not None:
            event = {**common, "name": "test accuracy", "ts": row["virtual_time"] * _MICRO}
            yield {**event, "args": {"accuracy": row["test_accuracy"]}}
