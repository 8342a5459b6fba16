"""Checkpoints of a run: the only module that knows Orbax.

    DIR/<step>/state/       one pytree, written by Orbax
    DIR/<step>/facts.json   the caller's facts, the leaves' names, dtypes and shapes, and a checksum of every file; it
                            carries the run's identity and a checksum of its own, see `manifest`

A step is built under another name and renamed when it is whole and on disk, so a process killed at any instant leaves
whole steps and leftovers, which the next save removes. The checksums are compared before Orbax reads: alone it notices
a missing or truncated file late and at length, and a flipped bit in an array not at all. Orbax refuses arrays without
elements; they are facts here. It is imported when the first checkpoint is written or read.

Several processes (`jax.distributed`) write one checkpoint into a folder that all of them see: each its own pieces of
the arrays, the first one everything else. They call `save`, `latest` and `load` together.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from dbwjax.files import delete, is_stray, make_folder, refused, require_folder
from dbwjax.runtime import processes
from dbwjax.storage import manifest

_FACTS = "facts.json"
_STATE = "state"
_STEP = re.compile("0|[1-9][0-9]{0,15}")  # a folder's name
_READ_REMEDY = "delete that folder to go on from the checkpoint before it, or use --overwrite to start anew"
_WRITE_REMEDY = "free some space or use another --out"


class Checkpoints:
    """The newest checkpoints of one folder, for one process.

    `save` returns as soon as the state may be donated and writes on in the background; what it writes is durable when
    the next `save`, `latest`, `load` or `close` returns. Also a context manager that closes itself; close it, for Orbax
    hangs at the end of a process that is still writing.

    Args:
      directory: the folder; the first `save` makes it. No link in its place or below is followed.
      run: identity of the run; a checkpoint of another one is refused.
      keep: how many steps stay, at least 1.
    """

    def __init__(self, directory: str | Path, run: str, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep={keep} keeps no checkpoint; use 1 or more")
        self.directory = Path(directory).absolute()
        self.run, self.keep = run, keep
        self._writer: ThreadPoolExecutor | None = None
        self._pending: Future | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest(self) -> int | None:
        """The newest whole step, `None` where there is none.

        Raises:
          ValueError: the folder cannot be read, or the last save failed.
        """
        self._wait()
        newest = max(self._steps(), default=None)
        if jax.process_count() == 1:
            return newest
        # What the first process sees counts: a shared file system may show the others an older folder.
        from jax.experimental import multihost_utils

        told = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if newest is None else newest)))
        return None if told < 0 else told

    def meta(self) -> dict | None:
        """The `meta` of the newest step, `None` where there is none; for deciding how to `load` it.

        Raises:
          ValueError: it is damaged or of another run, or the last save failed.
        """
        step = self.latest()
        return None if step is None else self._facts(step)["meta"]

    def save(self, step: int, state: PyTree, meta: dict) -> None:
        """Starts to write a step; it replaces one of the same number, and the oldest beyond `keep` go once it is whole.

        Args:
          step: names the checkpoint, 0 or more; the newest is the one with the largest number.
          state: pytree of JAX arrays (random keys too), NumPy arrays of any numeric dtype and Python numbers. NumPy
            arrays must not be changed before it is durable.
          meta: plain JSON values, finite; floats come back bit for bit.

        Raises:
          ValueError: this save or the last one failed (no space, no permission).
        """
        self._wait()
        leaves = _named(state)
        facts = {"step": step, "meta": meta, "leaves": {name: _kind(leaf) for name, leaf in leaves.items()}}
        # What is not JSON fails here, and later changes of `meta` do not matter.
        facts = json.loads(json.dumps(facts, allow_nan=False))
        filled = {name: leaf for name, leaf in leaves.items() if np.size(leaf)}
        draft = self.directory / f"{step}.draft"
        with _one_line(f"checkpoint {step} cannot be written to {self.directory}", _WRITE_REMEDY):
            if jax.process_index() == 0:
                self._prepare(draft)
            _together(f"draft {step}")
            written = _orbax().save_async(draft / _STATE, filled)
            if self._writer is not None and jax.process_count() == 1:
                self._pending = self._writer.submit(self._finish, step, draft, facts, written)
                return
            # Not in the background: while the training goes on, no other thread may speak to the other processes.
            processes.watched(written.result)
            if jax.process_index() == 0:
                self._finish(step, draft, facts, written)
            _together(f"whole {step}")

    def _prepare(self, draft: Path) -> None:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self._clean()
        delete(draft)
        make_folder(self.directory, _WRITE_REMEDY)
        draft.mkdir()

    def load(self, like: PyTree) -> tuple[PyTree, dict]:
        """Reads the newest step.

        Args:
          like: a pytree of the structure that was saved. A JAX array or `jax.ShapeDtypeStruct` fixes dtype, shape and
            sharding of its leaf; of a NumPy array only the dtype must agree, since a host array (a history) grows.

        Returns:
          The state, and the `meta` that was saved with it.

        Raises:
          ValueError: there is no checkpoint, it is damaged or of another run, or it holds something else than `like`.
        """
        step = self.latest()
        if step is None:
            raise ValueError(f"{self.directory} holds no checkpoint; use --overwrite to start anew")
        folder, facts = self.directory / str(step), self._facts(step)
        found = manifest.checksums(folder / _STATE, self.directory.parent, _READ_REMEDY)
        manifest.require_same(found, facts["files"], f"checkpoint {folder / _STATE}", _READ_REMEDY)
        leaves, saved = _named(like), facts["leaves"]
        _check_same(folder, {name: _kind(leaf) for name, leaf in leaves.items()}, saved, leaves)
        filled = {name: _abstract(leaf, *saved[name]) for name, leaf in leaves.items() if 0 not in saved[name][1]}
        with _one_line(f"checkpoint {folder} cannot be read", _READ_REMEDY):
            read = _orbax().load(folder / _STATE, filled)
        empty = {name: _empty(leaf, *saved[name]) for name, leaf in leaves.items() if name not in filled}
        state = jax.tree.unflatten(jax.tree.structure(like), [{**read, **empty}[name] for name in leaves])
        return state, facts["meta"]

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          ValueError: the last save failed.
        """
        try:
            self._wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None

    def _finish(self, step: int, draft: Path, facts: dict, written: Any) -> None:
        """Makes a draft durable, gives it its name and removes what is too old; in the background."""
        written.result()
        files = manifest.checksums(draft / _STATE, self.directory.parent, _WRITE_REMEDY)
        manifest.write_sealed(draft / _FACTS, self.run, {**facts, "files": files})
        _sync(*(path for path in draft.rglob("*") if not is_stray(path.name)), draft)
        self._remove(self.directory / str(step))
        os.rename(draft, self.directory / str(step))
        _sync(self.directory)
        for old in sorted(self._steps())[: -self.keep]:
            self._remove(self.directory / str(old))

    def _remove(self, folder: Path) -> None:
        """Renamed first, so that no half-deleted folder ever bears a step's name."""
        if os.path.lexists(folder):
            doomed = folder.with_suffix(".old")
            delete(doomed)
            os.rename(folder, doomed)
            delete(doomed)

    def _clean(self) -> None:
        """Removes what killed processes left: drafts, and Orbax's own temporary folders inside them."""
        for pattern in ("*.draft", "*.old"):
            for leftover in self.directory.glob(pattern):
                delete(leftover)

    def _steps(self) -> list[int]:
        require_folder(self.directory, "delete it, or use another --out")
        with refused(f"{self.directory} cannot be read", "use another --out"):
            if not self.directory.exists():
                return []
            return [int(entry.name) for entry in self.directory.iterdir() if _STEP.fullmatch(entry.name)]

    def _facts(self, step: int) -> dict[str, Any]:
        """The facts of a step, without a look at its state."""
        path = self.directory / str(step) / _FACTS
        facts = manifest.read_sealed(path, self.run, _READ_REMEDY, self.directory.parent)
        if facts.get("step") != step:
            raise ValueError(f"{path} is of checkpoint {facts.get('step')}; {_READ_REMEDY}")
        if not all(isinstance(facts.get(name), dict) for name in ("meta", "leaves", "files")):
            raise ValueError(f"{path} is corrupt; {_READ_REMEDY}")
        return facts

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            with _one_line(f"a checkpoint cannot be written to {self.directory}", _WRITE_REMEDY):
                pending.result()


@contextlib.contextmanager
def _one_line(trouble: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many kinds, some of them bare
        source = error.__cause__ if isinstance(error.__cause__, OSError) else error
        code = re.search(r"os_error_code='(\d+)'", str(source))
        reason = (
            os.strerror(int(code[1])) if code else getattr(source, "strerror", None) or str(source).partition("\n")[0]
        )
        raise ValueError(f"{trouble} ({reason or type(error).__name__}); {remedy}") from error


def _orbax() -> Any:
    """Orbax's v1 interface, which moves to the top level with version 1."""
    try:
        from orbax.checkpoint import v1
    except ImportError:
        from orbax.checkpoint.experimental import v1
    logging.getLogger("absl").addFilter(_not_twice)
    _drop_late_news()
    return v1


def _not_twice(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that Orbax's threads print of errors that they also raise."""
    return "_SignalingThread.run() raised" not in record.getMessage()


@functools.cache
def _drop_late_news() -> None:
    """Drops the traceback that TensorStore prints when a write ends after Orbax gave up for the failure of another:
    nobody waits for its news any more, and the failure itself is raised."""
    before = sys.unraisablehook

    def hook(news: Any) -> None:
        late = isinstance(news.exc_value, RuntimeError) and str(news.exc_value) == "Event loop is closed"
        if not late or news.object is not None:
            before(news)

    sys.unraisablehook = hook


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, `model/params/w`: NumPy scalars as arrays, the rest as they are."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        if isinstance(leaf, np.generic)
        else leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _kind(leaf: Any) -> list:
    """dtype (or Python type) and shape, as JSON."""
    return [str(getattr(leaf, "dtype", type(leaf).__name__)), list(getattr(leaf, "shape", ()))]


def _check_same(folder: Path, wanted: dict[str, list], saved: dict[str, list], leaves: dict[str, Any]) -> None:
    remedy = "use --overwrite to start anew"
    for name in sorted(wanted.keys() ^ saved.keys()):
        where = "only the checkpoint has" if name in saved else "the checkpoint lacks"
        raise ValueError(f"checkpoint {folder} holds another state: {where} {name}; {remedy}")
    for name, kind in wanted.items():
        grows = isinstance(leaves[name], np.ndarray)
        if kind[0] != saved[name][0] or (kind[1] != saved[name][1] and not grows):
            raise ValueError(f"checkpoint {folder} holds another state: {name} is {saved[name]}, not {kind}; {remedy}")


def _abstract(leaf: Any, dtype: str, shape: list[int]) -> Any:
    """What Orbax is told to read."""
    if isinstance(leaf, np.ndarray):
        return np.empty(shape, dtype)
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return leaf


def _empty(leaf: Any, dtype: str, shape: list[int]) -> Any:
    """An array without elements, which Orbax does not write."""
    if isinstance(leaf, np.ndarray):
        return np.empty(shape, dtype)
    return jax.device_put(np.empty(shape, dtype), leaf.sharding)


def _together(name: str) -> None:
    """Returns when all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"checkpoint {name}")


def _sync(*paths: Path) -> None:
    """Makes files and folders survive a loss of power."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
