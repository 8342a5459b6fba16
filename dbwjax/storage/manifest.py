"""Which run a file belongs to, and whether it is what was written.

A run's identity is a hash of its `config.json`: of the configuration, the inputs' hashes and the sizes of blocks. Every
record carries it with a checksum of its own content, and `RUN/manifest.json` has the checksums of what a finished run
left. This finds damage and what was mixed in from other runs, not an editor who computes the checksums again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dbwjax.files import TEXT, checksum, is_stray, read_json, write_json

MANIFEST = "manifest.json"
_CONFIG = "config.json"
_CONFIG_BYTES = 16 << 20


def memory_over(share: int) -> int:
    """A limit for what this machine itself may have written: a share of its memory, but what may always be read."""
    return max(TEXT, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // share)


def identity(content: Any) -> str:
    """A hash of plain JSON, however it is spaced and its keys are ordered."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_sealed(path: Path, run: str, content: dict[str, Any]) -> None:
    """Writes a record of a run whole: `content`, the run's identity, and a checksum of both."""
    record = {"run": run, **content}
    write_json(path, {**record, "checksum": identity(record)})


def read_sealed(path: Path, run: str, remedy: str, within: Path) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Args:
      path: the file.
      run: the identity that it must carry.
      remedy: ends the line of an error.
      within: the run folder; no link below it is followed.

    Raises:
      ValueError: it cannot be read, has changed, or belongs to another run.
    """
    # Rows take several times as much memory as their text, so nothing larger can have been written.
    record = read_json(path, remedy, memory_over(8), within)
    if not isinstance(record, dict) or record.pop("checksum", None) != identity(record):
        raise ValueError(f"{path} is corrupt (its checksum is another); {remedy}")
    if record.pop("run", None) != run:
        raise ValueError(f"{path} belongs to another run; {remedy}")
    return record


def write_config(folder: Path, config: dict[str, Any]) -> str:
    """Writes `config.json` and returns the identity of its run. Floats must be finite."""
    run = identity(config)
    write_json(folder / _CONFIG, {**config, "run": run})
    return run


def read_config(folder: Path, remedy: str) -> tuple[dict[str, Any], str] | None:
    """What `write_config` wrote, and the identity of its run; `None` in a new folder.

    Raises:
      ValueError: it cannot be read, or has changed.
    """
    path = folder / _CONFIG
    if not os.path.lexists(path):
        return None
    config = read_json(path, remedy, _CONFIG_BYTES, folder)
    if not isinstance(config, dict):
        raise ValueError(f"{path} is corrupt; {remedy}")
    run = config.pop("run", None)
    if run is None:
        raise ValueError(f"{path} is not of this version; {remedy}")
    if run != identity(config):
        raise ValueError(f"{path} has changed since it was written; {remedy}")
    return config, run


def write_manifest(folder: Path, run: str, names: Iterable[str]) -> None:
    """Keeps the checksums of what a finished run left in its folder."""
    remedy = "use another --out"
    found = {name: checksum(folder / name, remedy, folder) for name in names if (folder / name).is_file()}
    write_sealed(folder / MANIFEST, run, {"files": found})


def list_also(folder: Path, run: str, name: str) -> None:
    """Puts one more file of a finished run, or what it holds now, into the manifest."""
    remedy = "start the run's command again, which writes it anew"
    listed = read_sealed(folder / MANIFEST, run, remedy, folder)["files"]
    write_sealed(folder / MANIFEST, run, {"files": {**listed, name: checksum(folder / name, remedy, folder)}})


def require_whole(folder: Path, run: str) -> None:
    """Compares what a finished run left with its manifest; files that were deleted are not missed.

    Raises:
      ValueError: there is no manifest, or a file has changed.
    """
    remedy = "start the run's command again, which writes it anew"
    kept = read_sealed(folder / MANIFEST, run, remedy, folder)
    listed = kept.get("files")
    if not isinstance(listed, dict):
        raise ValueError(f"{folder / MANIFEST} is corrupt; {remedy}")
    for name, told in listed.items():
        if os.path.lexists(folder / name) and checksum(folder / name, remedy, folder) != told:
            raise ValueError(f"{folder / name} has changed since it was written; {remedy}")


def checksums(folder: Path, within: Path, remedy: str) -> dict[str, str]:
    """The checksum of every file below a folder, by relative path; strays are left out.

    Raises:
      ValueError: one cannot be read, or is a link.
    """
    found = {}
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(base, name)
            if (name in names or path.is_symlink()) and not is_stray(name):
                found[path.relative_to(folder).as_posix()] = checksum(path, remedy, within)
    return found


def require_same(found: dict[str, str], told: dict[str, str], where: str, remedy: str) -> None:
    """Compares the checksums of a folder's files with those that were kept.

    Raises:
      ValueError: a file has changed, is missing, or was added.
    """
    for name in sorted(found.keys() | told.keys()):
        if found.get(name) != told.get(name):
            how = "is missing" if name not in found else "was added" if name not in told else "has changed"
            raise ValueError(f"{where} is damaged ({name} {how}); {remedy}")
