"""Step times from a real training loop, in the file that `plan` reads."""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dbwjax import files
from dbwjax.limits import whole

_HEADER = b"step,machine,seconds\n"
_REMEDY = "give another path"
_STEP = TypeVar("_STEP", bound=Callable[..., Any])


def measure(
    step_fn: _STEP,
    path: str | os.PathLike = "times.csv",
    *,
    steps: int | None = None,
    machine: str | None = None,
    warm_up: int = 2,
) -> _STEP:
    """The same step function, which writes down how long it takes.

        step = dbwjax.measure(step, f"times-{jax.process_index()}.csv")
        for batch in batches:
            state = step(state, batch)

    A step's time runs from the moment its arguments are there until its result is (`jax.block_until_ready`), so it
    holds what the step computes and sends, and not what runs before. Waiting for the result takes away what JAX would
    have overlapped: measure some hundred steps, then leave it out again. The first `warm_up` calls, in which JAX
    compiles, are left out. A step that raises leaves no line.

    A line is appended in one write and is there at once, so a loop that is killed loses nothing. Give each process a
    file of its own: `python -m dbwjax.plan times-*.csv` joins them by step. On one machine, processes may share a file.

    Args:
      step_fn: any function; what it takes and returns is passed on.
      path: of a CSV `step,machine,seconds`, made where there is none; a file that is there goes on, with this machine's
        steps counted from its last.
      steps: how many are written down; `None`: all.
      machine: its name; `None`: the host's name and the number of the process, `host-0`.
      warm_up: calls that are left out.

    Raises:
      ValueError: a file that is no such file or cannot be written, `steps` below 1, `warm_up` below 0, a name with a
        comma, a quote or a line break.
    """
    if not callable(step_fn):
        raise ValueError(f"step_fn={step_fn!r} is no function; give the function of a training step")
    limit = None if steps is None else whole("steps", steps, 1)
    left_out = whole("warm_up", warm_up, 0)
    if machine is not None:
        _require_name(machine)
    state = {"calls": 0, "written": 0, "next": -1}
    name = machine

    @functools.wraps(step_fn)
    def measured(*args: Any, **named: Any) -> Any:
        nonlocal name
        if limit is not None and state["written"] >= limit:
            return step_fn(*args, **named)
        import jax

        jax.block_until_ready((args, named))
        began = time.perf_counter()
        found = jax.block_until_ready(step_fn(*args, **named))
        seconds = time.perf_counter() - began
        state["calls"] += 1
        if state["calls"] <= left_out:
            return found
        if name is None:
            name = _require_name(f"{socket.gethostname()}-{jax.process_index()}")
        if state["next"] < 0:
            state["next"] = _begin(os.fspath(path), name)
        _append(os.fspath(path), f"{state['next']},{name},{max(seconds, 1e-9):.9f}\n".encode())
        state["next"] += 1
        state["written"] += 1
        return found

    _require_file(os.fspath(path))
    return measured  # type: ignore[return-value]


def _require_name(machine: str) -> str:
    if not machine or any(mark in machine for mark in ',"\r\n') or machine != machine.strip():
        raise ValueError(f"machine={machine!r} is no name for a column; use letters and digits")
    return machine


def _require_file(path: str) -> None:
    """Makes the file, or makes sure that it is one of these.

    Raises:
      ValueError: it is not, or it cannot be written.
    """
    descriptor = files.hold(_path(path), _REMEDY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with files.refused(f"{path} cannot be written", _REMEDY):
            begin = os.pread(descriptor, len(_HEADER), 0)
            if not begin:
                os.write(descriptor, _HEADER)
            elif begin != _HEADER:
                raise ValueError(f"{path} is not a file of step times ('step,machine,seconds'); {_REMEDY}")
    finally:
        os.close(descriptor)


def _begin(path: str, machine: str) -> int:
    """This machine's next step; a last line that was begun only is taken away."""
    _require_file(path)
    text = files.read(path, _REMEDY, files.DATA)
    if not text.endswith(b"\n"):
        descriptor = files.hold(_path(path), _REMEDY)
        os.ftruncate(descriptor, text.rfind(b"\n") + 1)
        os.close(descriptor)
    mine = [line.split(b",") for line in text.split(b"\n")[1:-1]]
    return max((int(cells[0]) + 1 for cells in mine if cells[1:2] == [machine.encode()]), default=0)


def _append(path: str, line: bytes) -> None:
    descriptor = files.hold(_path(path), _REMEDY)
    try:
        with files.refused(f"{path} cannot be written", "free some space or give another path"):
            os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _path(path: str) -> Any:
    from pathlib import Path

    return Path(path)
