"""Several processes of one command on this machine, each with a hard time limit, killed at the end whatever happens."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.compiling import light_environment
from tests.readme import ROOT


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def trained(folder: Path, processes: int, words: Sequence[str], port: int | None = None) -> list[list[str]]:
    """The command lines of one distributed run."""
    address = f"127.0.0.1:{port or free_port()}"
    hosts = ["--distributed", "--coordinator", address, "--processes", str(processes)]
    command = [sys.executable, "-m", "dbwjax.train", *words, *hosts, "--out", str(folder)]
    return [[*command, "--process-id", str(process)] for process in range(processes)]


@contextlib.contextmanager
def started(commands: Sequence[Sequence[str]], where: Path, **environment: str) -> Iterator[list[subprocess.Popen]]:
    """Starts the commands; their output goes to `where/<process>.out` and `.err`."""
    where.mkdir(parents=True, exist_ok=True)
    inherited = {**os.environ, **light_environment(), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **environment}
    running = []
    try:
        for number, command in enumerate(commands):
            with open(where / f"{number}.out", "wb") as out, open(where / f"{number}.err", "wb") as err:
                running.append(subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=out, stderr=err))
        yield running
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def ended(running: Sequence[subprocess.Popen], seconds: float) -> list[int]:
    """Exit codes once all have ended; fails if one is still there after `seconds`."""
    deadline = time.monotonic() + seconds
    return [process.wait(max(0.1, deadline - time.monotonic())) for process in running]


def said(where: Path, process: int) -> list[str]:
    """The lines on a process's standard error, once its filter has had time to write them."""
    time.sleep(0.3)
    return (where / f"{process}.err").read_text().splitlines()
