"""What a command's process finds around it, checked before anything heavy is imported: each fault is one line.

Standard library only, until `start_jax`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from importlib.machinery import PathFinder
from typing import Any

from dbwjax.runtime import streams

PACKAGES = (
    *("jax", "jaxlib", "numpy", "scipy", "jaxtyping", "flax", "optax", "orbax", "tqdm", "matplotlib", "networkx"),
    *("PIL", "tensorflow_datasets", "array_record", "importlib_resources"),
)
"""What the house imports, by the names of its packages."""


def prepare(here: str | None) -> None:
    """Checks the surroundings of a command's process, and makes them what the house counts on.

    Args:
      here: the folder that `python -m` has put before all others on `sys.path`, which is taken off it by now: what lies
        beside a person is data, and none of it is imported.

    Raises:
      ValueError: one line about what is wrong.
    """
    warnings.showwarning = _as_note
    logging.lastResort = _Notes(logging.WARNING)
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a window's backend may not be there
    _require_folder()
    for name in PACKAGES:
        _require_package(name, here)
    _require_writable("JAX_COMPILATION_CACHE_DIR")


def start_jax() -> None:
    """Imports JAX, which reads its variables.

    Raises:
      ValueError: it cannot be imported, or not with these variables.
    """
    if "jax" in sys.modules:
        return
    _require_flags()
    try:
        import jax  # noqa: F401
    except Exception as error:  # a broken installation fails in any way
        raise ValueError(f"JAX does not start ({_reason(error)}); {_remedy()}") from error


def trouble(error: BaseException) -> str | None:
    """What an error says about the environment, if it is of JAX's search for devices; else `None`."""
    if isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error):
        return no_devices(error)
    return None


def no_devices(error: BaseException) -> str:
    """The line for devices that JAX cannot find or start."""
    reason = "no platform can be used" if isinstance(error, AssertionError) else _reason(error)
    return f"JAX finds no devices ({reason}); {_remedy()}"


def _require_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise ValueError(f"the current folder cannot be used ({error.strerror}); cd to one that exists") from error


def _require_package(name: str, here: str | None) -> None:
    """Nothing beside the person may stand for a package, also where it lies on `sys.path` a second time."""
    spec = importlib.util.find_spec(name)
    beside = PathFinder.find_spec(name, [here]) if here is not None else None
    if beside is not None and beside.origin is not None and (spec is None or beside.origin != spec.origin):
        raise ValueError(f"{beside.origin} has the name of a package that is needed; rename it, or start elsewhere")
    if spec is None:
        raise ValueError(f"{name} is not installed; run python -m pip install -e . where dbwjax lies")
    if spec.submodule_search_locations is None:
        raise ValueError(f"{spec.origin} has the name of a package that is needed; rename it, or take it off the path")


def _require_writable(variable: str) -> None:
    place = os.environ.get(variable, "")
    if not place or "://" in place:
        return
    found = os.path.abspath(place)
    while not os.path.lexists(found):
        found = os.path.dirname(found)
    if not os.path.isdir(found) or not os.access(found, os.W_OK):
        raise ValueError(f"{variable}={place}: {found} cannot be written; name another folder, or unset it")


def _require_flags() -> None:
    """XLA aborts the process at a flag that it does not know, so a child is asked first."""
    if not os.environ.get("XLA_FLAGS", "").strip():
        return
    import subprocess

    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, errors="replace")
    if done.returncode and "Traceback" not in done.stderr:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0].rpartition("] ")[2]
        raise ValueError(f"XLA_FLAGS={os.environ['XLA_FLAGS']} is refused by XLA ({reason}); correct or unset it")


def _remedy() -> str:
    given = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_")]
    return f"check {', '.join(given)}" if given else "check the installation, as in python -c 'import jax'"


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(" (set JAX_PLATFORMS=")[0] or type(error).__name__


class _Notes(logging.Handler):
    """What libraries log, for which nobody has named a place."""

    def emit(self, record: logging.LogRecord) -> None:
        streams.note(record.getMessage())


def _as_note(message: Any, *rest: Any, **more: Any) -> None:
    """A warning as one line, without the place in the code."""
    streams.note(message)
