"""Joining the shards of a sweep: their blocks become those of one folder, as if one machine had computed them.

Nothing is built or computed: what the shards have left holds all that is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dbwjax.experiments import config as configs
from dbwjax.experiments.claim import environment_differences
from dbwjax.experiments.config import RunOptions
from dbwjax.experiments.sweep.config import SweepConfig, from_content
from dbwjax.experiments.sweep.run import FIGURES, leave
from dbwjax.files import read_json
from dbwjax.storage import manifest
from dbwjax.storage.parts import Parts
from dbwjax.storage.run_folder import RunFolder
from dbwjax.storage.shards import ShardRecord, SharedFolder, Taken, read_record


def join(folders: Sequence[Path], options: RunOptions) -> int:
    """Makes one sweep of its shards, and leaves what a sweep leaves.

    Args:
      folders: the shards'.
      options: `out` is where the sweep is kept; default: the folder that holds the shards.

    Returns:
      0.

    Raises:
      ValueError: the shards are not all those of one sweep, or `out` holds something else.
    """
    folders = [folder.absolute() for folder in folders]
    found = joined(folders)
    shared = SharedFolder(_out_of(folders, options))
    kept = shared.read_config()
    if kept is None:
        try:
            shared.write_config(found.content)
        except Taken:
            kept = shared.read_config()
    if kept is not None and kept[1] != found.run:
        raise ValueError(f"{shared.path} holds another sweep or run than the shards; use another --out")
    with RunFolder.open(shared.path, figures=FIGURES) as run:
        ours = Parts(run.path / "parts", found.run)
        for number, theirs in sorted(found.parts.items()):
            if not ours.done(number) or ours.trouble(number) is not None:
                ours.keep(number, theirs.rows(number))
        rows = [row for number in sorted(found.parts) for row in ours.rows(number)]
        leave(run.path, found.run, found.config, options, found.worlds, rows)
    return 0


def _out_of(folders: Sequence[Path], options: RunOptions) -> Path:
    parents = {folder.parent for folder in folders}
    if options.out is None and len(parents) > 1:
        raise ValueError("--join names shards in several folders; say with --out where the sweep is to be kept")
    return Path(options.out) if options.out is not None else parents.pop()


class Joined(NamedTuple):
    """What finished shards hold together."""

    content: dict[str, Any]  # of the sweep's config.json
    run: str  # its identity
    config: SweepConfig
    worlds: list[dict[str, Any]]  # as in `worlds.json`
    parts: dict[int, Parts]  # by number of a block: the shard's


def joined(folders: Sequence[Path]) -> Joined:
    """Finished shards, once they are known to be all those of one sweep.

    Raises:
      ValueError: one is of another sweep, of other versions or another machine, unfinished or damaged; or one is
        missing, or there twice.
    """
    content, run = _agreed(folders)
    records = [read_record(folder, run) for folder in folders]
    _require_all(folders, records)
    parts: dict[int, Parts] = {}
    for folder, record in zip(folders, records, strict=True):
        own = Parts(folder / "parts", run)
        for number in record.blocks:
            remedy = f"start it again with --shard {record.word}"
            if not own.done(number):
                raise ValueError(f"{folder} is not finished (block {number} is missing); {remedy}")
            trouble = own.trouble(number)
            if trouble is not None:
                raise ValueError(f"{trouble}; {remedy}")
            parts[number] = own
        manifest.require_whole(folder, run)
    worlds = [read_json(folder / "worlds.json", "start its command again", within=folder) for folder in folders]
    for folder, drawn in zip(folders, worlds, strict=True):
        if drawn != worlds[0]:
            raise ValueError(f"{folder} has drawn other worlds than {folders[0]}; run both on machines of one kind")
    told = content["sweep"]
    config = from_content(told, configs.from_json(told["base"]))
    return Joined(content, run, config, worlds[0], parts)


def _agreed(folders: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """The configuration that all have, and the identity of its run."""
    found = []
    for folder in folders:
        kept = manifest.read_config(folder, "start its command again")
        if kept is None or "sweep" not in kept[0]:
            what = "no sweep" if kept else "no run (no config.json)"
            raise ValueError(f"{folder} holds {what}; name folders that --shard wrote")
        found.append(kept)
    first, run = found[0]
    for folder, (content, other) in zip(folders, found, strict=True):
        if other == run:
            continue
        if content.get("environment") != first.get("environment"):
            changed = environment_differences(first.get("environment"), content.get("environment") or {})
            why = f"began with another environment than {folders[0]} ({changed})"
        else:
            kinds = {"sweep": "axes or options", "inputs": "inputs", "blocks": "sizes of blocks"}
            differ = [said for name, said in kinds.items() if content.get(name) != first.get(name)]
            why = f"is of another sweep than {folders[0]} (other {', '.join(differ) or 'names'})"
        raise ValueError(f"{folder} {why}; join shards of one sweep only")
    return first, run


def _require_all(folders: Sequence[Path], records: Sequence[ShardRecord]) -> None:
    """Every shard once, and every block."""
    count, total = records[0].of, records[0].total
    seen: dict[int, Path] = {}
    for folder, record in zip(folders, records, strict=True):
        if (record.of, record.total) != (count, total):
            raise ValueError(f"{folder} is one of {record.of} shards, {folders[0]} one of {count}; join one set only")
        if record.number in seen:
            raise ValueError(f"{seen[record.number]} and {folder} are both shard {record.word}; name it once")
        seen[record.number] = folder
    missing = [index for index in range(1, count + 1) if index not in seen]
    if missing:
        named = ", ".join(f"{index}/{count}" for index in missing)
        raise ValueError(f"of {count} shards these are missing: {named}; run them with --shard, and name their folders")
    numbers = sorted(number for record in records for number in record.blocks)
    if numbers != list(range(total)):
        raise ValueError(f"{folders[0]} and the others do not add up to the sweep's {total} blocks; run them anew")
