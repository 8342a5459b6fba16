"""Shards of a sweep on disk: what several machines compute of it at once, each in a folder of its own.

OUT/config.json              the sweep's; written once, by whichever shard begins first, and never replaced
OUT/shard-1-of-4/            a run folder with a lock of its own; its parts carry the identity of the whole sweep
OUT/shard-1-of-4/shard.json  which shard it is, and the numbers of its blocks
OUT/shard-1-of-4/worlds.json, manifest.json   written when all of its blocks are finished
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from dbwjax.files import delete, make_folder, refused, write_json_once
from dbwjax.storage import manifest
from dbwjax.storage.run_folder import SHARD, RunFolder, require_of_runs

_RECORD = "shard.json"
_REMEDY = "start that shard's command again"


class Taken(Exception):
    """Another process has written the configuration in between."""


class SharedFolder:
    """OUT, as its shards see it: they agree on its `config.json`, and write nothing else there.

    Args:
      path: OUT; made where there is none.

    Raises:
      ValueError: it cannot be made, or holds files that are not a run's.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        require_of_runs(self.path)
        make_folder(self.path, "use another --out")

    def read_config(self) -> tuple[dict[str, Any], str] | None:
        """What `write_config` wrote, and the identity of its run; `None` where nobody has yet.

        Raises:
          ValueError: the file has changed or cannot be read.
        """
        return manifest.read_config(self.path, "use another --out")

    def write_config(self, config: dict[str, Any]) -> str:
        """Writes `config.json` and returns the identity of its run.

        Raises:
          Taken: another shard was first.
        """
        run = manifest.identity(config)
        if not write_json_once(self.path / manifest.CONFIG, {**config, "run": run}):
            raise Taken
        return run


class ShardRecord(NamedTuple):
    """What `shard.json` holds."""

    number: int  # from 1
    of: int
    blocks: list[int]  # by their numbers
    total: int  # blocks of the whole sweep

    @property
    def word(self) -> str:
        """As it is typed: `1/4`."""
        return f"{self.number}/{self.of}"


def shard_name(number: int, of: int) -> str:
    """The name of a shard's folder.

    >>> shard_name(1, 4)
    'shard-1-of-4'
    """
    return f"shard-{number}-of-{of}"


def shard_folders(path: Path) -> list[Path]:
    """The shards' folders in OUT."""
    with refused(f"{path} cannot be read", "use another --out"):
        return sorted(entry for entry in (path.iterdir() if path.is_dir() else ()) if SHARD.fullmatch(entry.name))


def keep_record(folder: RunFolder, run: str, record: ShardRecord) -> None:
    """Writes `shard.json`, or makes sure that the one there says the same.

    Raises:
      ValueError: the folder is of another shard, or of a sweep that is not shared out.
    """
    kept = read_record(folder.path, run) if os.path.lexists(folder.path / _RECORD) else None
    if kept is None:
        manifest.write_sealed(folder.path / _RECORD, run, record._asdict())
    elif kept != record:
        raise ValueError(f"{folder.path} holds shard {kept.word}, not {record.word}; use --overwrite, or another --out")


def read_record(folder: Path, run: str) -> ShardRecord:
    """What `keep_record` wrote.

    Raises:
      ValueError: it is missing, damaged, or of another sweep.
    """
    if not os.path.lexists(folder / _RECORD):
        raise ValueError(f"{folder} holds no shard of a sweep (no {_RECORD}); name folders that --shard wrote")
    content = manifest.read_sealed(folder / _RECORD, run, _REMEDY, folder)
    try:
        return ShardRecord(**content)
    except TypeError:
        raise ValueError(f"{folder / _RECORD} is not of this version; {_REMEDY}") from None


def delete_shards(path: Path) -> None:
    """Deletes what shards have left in OUT.

    Raises:
      ValueError: one of them is at work.
    """
    folders = shard_folders(path)
    held = []
    try:
        held += [RunFolder.open(folder) for folder in folders]
        for folder in folders:
            delete(folder)
    finally:
        for one in held:
            one.close()
