"""Which devices are used, and where compiled programs are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from dbwjax.engine.sharding.schedule import Exchange
from dbwjax.runtime import environment, processes, streams


def here() -> Sequence[Any]:
    """All devices, which JAX starts now if it has not yet.

    Raises:
      ValueError: there are none, or none of the kind that JAX is told to use.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(environment.no_devices(error)) from error


def choose(count: int | None) -> Sequence[Any]:
    """The devices to use: all that are here, or `count` of them, the same number of each process.

    Raises:
      ValueError: more than there are, or a number that the processes cannot share; or as `here`.
    """
    everything, several = here(), processes.count()
    if count is None:
        return everything
    if count > len(everything):
        remedy = "; on a CPU, start with JAX_NUM_CPU_DEVICES set" if jax.default_backend() == "cpu" else ""
        raise ValueError(
            f"--devices {count} is more than the {len(everything)} that are here; use 1 to {len(everything)}{remedy}"
        )
    if count % several:
        raise ValueError(f"--devices {count} cannot be shared by {several} processes; use a multiple of {several}")
    each = count // several
    return [one for process in range(several) for one in _of_process(everything, process)[:each]]


def _of_process(devices: Sequence[Any], process: int) -> list[Any]:
    return [one for one in devices if one.process_index == process]


def note_padding(exchange: Exchange) -> None:
    """Says on stderr that the workers do not divide among the devices, where they do not."""
    rows = exchange.devices * exchange.height
    if rows == exchange.nodes:
        return
    fits = [count for count in range(1, exchange.devices) if exchange.nodes % count == 0]
    streams.note(
        f"{exchange.nodes} workers on {exchange.devices} devices are padded to {rows} rows; "
        f"--devices {max(fits)} needs no padding"
    )


def cache_programs(folder: str) -> None:
    """Keeps compiled programs in a folder, for later starts.

    Raises:
      ValueError: it cannot be written to.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"{place} cannot hold compiled programs; use another --compile-cache, or leave it out")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cores_or(count: int | None) -> Sequence[Any]:
    """The devices to use. A CPU that JAX has not started yet is made as many as it has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        told = os.environ.get("JAX_NUM_CPU_DEVICES"), os.environ.get("XLA_FLAGS", "")
        if not told[0] and "xla_force_host_platform_device_count" not in told[1]:
            jax.config.update("jax_num_cpu_devices", cores or 1)
    except RuntimeError:
        pass  # JAX has started: its devices are those that are here
    return choose(count)
