"""Being one of several processes: joining them, agreeing with them, and what happens when one is lost.

JAX's own runtime (`jax.distributed`) does all the talking; with its flags, or with its own detection of Slurm, Open
MPI and Cloud TPU. With one process everything here is trivial and nothing is sent. With several, all of them call
these functions in the same order.

It is lockstep by design, so the end of one process is the end of all: of one that dies or raises the others hear at
once (its connections close), of one that freezes after `patience` seconds, of one that never comes after `patience` and
about 5 more. One that ends before all have joined, or in the moment when Orbax begins a checkpoint (1 of 20 kills at
random, where every 10 short steps were followed by one), is heard of as one that freezes. Each says one line, and the
checkpoint stays.
"""

from __future__ import annotations

import inspect
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from dbwjax.runtime import stderr_filter

_ROOM, _SHORT = 1 << 16, 1 << 8  # bytes for one process's facts, and for a text of the first
_joined = False  # whether this is one of several; JAX is not imported to find out that it is not


LOST_EXIT = 4
"""Exit code where another process was lost; the abort of a native thread gives 134 (or -6) instead."""


class ProcessOptions(Protocol):
    """What is said about processes; read only."""

    @property
    def distributed(self) -> bool: ...  # noqa: D102
    @property
    def coordinator(self) -> str | None: ...  # noqa: D102
    @property
    def processes(self) -> int | None: ...  # noqa: D102
    @property
    def process_id(self) -> int | None: ...  # noqa: D102
    @property
    def patience(self) -> int: ...  # noqa: D102


def check(options: ProcessOptions) -> None:
    """Checks the words about hosts.

    Raises:
      ValueError: one line about the first that is wrong.
    """
    given = {
        "--coordinator": options.coordinator,
        "--processes": options.processes,
        "--process-id": options.process_id,
    }
    named = [word for word, value in given.items() if value is not None]
    if named and not options.distributed:
        raise ValueError(f"{named[0]} says nothing without --distributed; add it, or leave {named[0]} out")
    missing = [word for word, value in given.items() if value is None]
    if named and missing:
        raise ValueError(f"{named[0]} needs {' and '.join(missing)} too; or leave all three to the cluster's own words")
    if options.patience < 1:
        raise ValueError(f"--patience {options.patience} is out of range; use 1 or more seconds")
    if not named:
        return
    processes, own = int(options.processes or 0), int(options.process_id or 0)
    if processes < 1:
        raise ValueError(f"--processes {processes} is out of range; use 1 or more")
    if not 0 <= own < processes:
        raise ValueError(f"--process-id {own} is out of range; use 0 to {processes - 1}")
    host, _, port = str(options.coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator {options.coordinator} is no address; write HOST:PORT, as in 10.0.0.1:8476")


def connect(options: ProcessOptions) -> None:
    """Joins the other processes; nothing without `--distributed`. Call it before anything touches a device.

    Raises:
      ValueError: what `check` refuses, a port in use, or no cluster that JAX knows.
    """
    check(options)
    if not options.distributed:
        return
    import jax

    global _joined
    stderr_filter.stand_between()
    if options.process_id == 0:
        _require_free(str(options.coordinator))
    patience: dict[str, Any] = {
        "initialization_timeout": options.patience,
        "heartbeat_timeout_seconds": options.patience,
        "shutdown_timeout_seconds": options.patience,
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    waits = {name: seconds for name, seconds in patience.items() if name in known}
    address: dict[str, Any] = {
        "coordinator_address": options.coordinator,
        "num_processes": options.processes,
        "process_id": options.process_id,
    }
    try:
        jax.distributed.initialize(**(address if options.coordinator else {}), **waits)
    except (ValueError, RuntimeError) as error:
        if options.coordinator:
            raise ValueError(f"cannot join {options.coordinator} ({_first_line(error)}); check the address") from error
        raise ValueError(
            "--distributed finds no Slurm, Open MPI or Cloud TPU around it; add --coordinator HOST:PORT, --processes "
            "and --process-id"
        ) from error
    _joined = True


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    words = ("Gloo", "onnection closed", "onnection reset", "UNAVAILABLE", "DEADLINE_EXCEEDED", "NCCL")
    return _joined and any(word in str(error) for word in words)


def lost_line() -> str:
    """What is said then."""
    return stderr_filter.LOST.decode().strip().removeprefix("error: ")


def leave(code: int) -> int:
    """Ends a process of several at once, without waiting for the others; returns the code where there is only one.

    The usual way out waits for all processes; one that has failed must not, or the others would wait for it.
    """
    if _joined and code:
        sys.stdout.flush()
        sys.stderr.flush()
        if is_first():
            time.sleep(1)  # its end ends the others, who may have a line of their own to say
        os._exit(code)
    return code


def _require_free(address: str) -> None:
    # JAX's server shares a port that another one listens on, and then neither works; a plain socket does not.
    port = address.rpartition(":")[2]
    try:
        with socket.socket() as probe:
            # Connections that the last run left closing do not count: the same command is to be started again at once.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(port)))
    except OSError as error:
        raise ValueError(
            f"--coordinator {address}: port {port} of this machine is in use ({error.strerror}); choose another port"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def count() -> int:
    """How many processes there are."""
    if not _joined:
        return 1
    import jax

    return jax.process_count()


def is_first() -> bool:
    """Whether this is the process that writes the records."""
    if not _joined:
        return True
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes are here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if count() == 1:
        return flag
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.int32(flag))))


def of_first(flags: list[bool]) -> list[bool]:
    """The flags as the first process has them: a shared file system may show the others an older folder."""
    if count() == 1:
        return flags
    import numpy as np
    from jax.experimental import multihost_utils

    return [bool(flag) for flag in np.asarray(multihost_utils.broadcast_one_to_all(np.array(flags, np.int32)))]


def text_of_first(text: str) -> str:
    """A short text as the first process has it."""
    if count() == 1:
        return text
    import numpy as np
    from jax.experimental import multihost_utils

    padded = np.zeros(_SHORT, np.uint8)
    padded[: len(text)] = np.frombuffer(text.encode(), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).rstrip(b"\0").decode()


def watched(work: Callable[[], Any]) -> None:
    """Runs `work`, which waits for the other processes, and returns when all are done with theirs.

    For work that does not hear of their end by itself: Orbax waits for keys of the coordination service, which is told
    late. So it is done in a thread, and meanwhile the processes ask one another, by collectives that fail at once,
    whether they are done. One whose work fails leaves, which ends the others.

    Args:
      work: must not use collectives.

    Raises:
      Exception: what `work` raises, or that another process is lost.
    """
    working: Future[None] = Future()

    def finish() -> None:
        try:
            work()
            working.set_result(None)
        except BaseException as error:
            working.set_exception(error)

    # A daemon: nobody may wait for it where another process is lost.
    threading.Thread(target=finish, daemon=True).start()
    while any_process(not working.done()):
        if working.done() and working.exception() is not None:
            break
        time.sleep(_ASKED_EVERY)
    working.result()


_ASKED_EVERY = 0.01  # seconds


def agree(facts: dict[str, Any]) -> None:
    """Makes sure that all processes have the same facts.

    Raises:
      ValueError: they differ; in every process, naming the first that differs from process 0.
    """
    if count() == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    text = json.dumps(facts, default=str).encode()
    padded = np.zeros(_ROOM, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    told = [json.loads(bytes(row).rstrip(b"\0")) for row in np.asarray(multihost_utils.process_allgather(padded))]
    for process, theirs in enumerate(told):
        for name in told[0]:
            if theirs.get(name) != told[0][name]:
                raise ValueError(
                    f"process {process} has {name}={theirs.get(name)} and process 0 has {told[0][name]}; "
                    "start all with the same command and the same versions"
                )
