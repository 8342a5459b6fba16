"""A sweep: a run of many cells, by the same blocks, the same driver and the same statistics."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dbwjax.engine import batch
from dbwjax.experiments.blocks import Block, Places, Sizes, blocks, sizes
from dbwjax.experiments.budget import grids, require_ends
from dbwjax.experiments.claim import REMEDY, claim
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.driver import Driver, Interrupted, agreed_sizes, unfinished
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.inputs import Inputs, inputs, say_sampled
from dbwjax.experiments.nets import listed
from dbwjax.experiments.pages import leave_page
from dbwjax.experiments.problem import Problem, World, problems
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.sweep.clocks import clock_rows, clocks_at_once, require_clocks_end
from dbwjax.experiments.sweep.config import SweepConfig, content, worlds
from dbwjax.experiments.sweep.shards import Jobs, Shard, plan_lines, share_out
from dbwjax.files import replace_file, write_json
from dbwjax.report.sweep_figures import QUANTITIES
from dbwjax.runtime import interrupts, memory, streams
from dbwjax.runtime.devices import cache_programs, cores_or
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.manifest import write_manifest
from dbwjax.storage.metrics_writer import MetricsWriter
from dbwjax.storage.parts import Parts
from dbwjax.storage.run_folder import RECORDS, RunFolder
from dbwjax.storage.shards import (
    ShardRecord,
    SharedFolder,
    Taken,
    delete_shards,
    keep_record,
    shard_folders,
    shard_name,
)
from dbwjax.storage.trackers import check_trackers, finish_trackers, opened

_ALL = Jobs()
_AXES = ("heatmap", "graph_seed", *(field.name for field in dataclasses.fields(TrainConfig)))

FIGURES = [f"{quantity}-{axis}" for quantity in QUANTITIES for axis in _AXES]
"""Figures that a sweep may leave, without their endings."""


class Prepared(NamedTuple):
    """A sweep built, and cut into blocks as this machine would."""

    told: list[World]
    devices: Sequence[Any]
    found: list[Problem]
    read: Inputs
    times: list[list[np.ndarray]]  # by problem, the grid of each world
    fits: list[Sizes]  # by problem


def prepare(config: SweepConfig, options: RunOptions, jobs: Jobs = _ALL) -> Prepared:
    """Builds a sweep; nothing is written.

    Raises:
      ValueError: something typed is wrong, or does not fit the memory.
    """
    if options.compile_cache is not None:
        cache_programs(options.compile_cache)
    told = worlds(config)
    devices = cores_or(options.devices)  # before anything else starts JAX's devices
    memory.require_graphs({(one.config.graph, one.config.workers, one.graph_seed) for one in told})
    found = problems(told, config.timing_only)
    _require_no_readers(found)
    read = inputs((one.config for one in told), data=not config.timing_only)
    # Clocks alone read nothing of a grid but its end.
    base = dataclasses.replace(config.base, rows=1, eval_every=None) if config.timing_only else config.base
    times = [grids(one, base) for one in found]
    fits = [
        clocks_at_once(one) if config.timing_only else sizes(one, devices, max(map(len, grid)))
        for one, grid in zip(found, times, strict=True)
    ]
    if jobs.at_once is not None:
        fits = [one._replace(size=min(one.size, jobs.at_once)) for one in fits]
    return Prepared(told, devices, found, read, times, fits)


def run_sweep(config: SweepConfig, options: RunOptions, jobs: Jobs = _ALL) -> int:
    """Runs what is not there yet, and leaves the table, the summary and the figures; of a shard, its parts.

    Returns:
      0.

    Raises:
      ValueError: something typed or found in the folder is wrong, or does not fit the memory.
      Interrupted: SIGINT or SIGTERM; the same command goes on.
    """
    check_trackers(options.tensorboard, options.wandb)
    made = prepare(config, options, jobs)
    say_sampled(made.read)
    out = out_of(config, options)
    shard = jobs.shard
    folder = out if shard is None else out / shard_name(*shard)
    fitting = list(blocks(config.base.policies, made.found, [fit.size for fit in made.fits]))
    if options.overwrite or not (folder / "config.json").exists():
        mine = fitting if shard is None else share_out(fitting, made.found, shard.of)[shard.number - 1]
        _require_ends(config, made, mine)
    kept = None if shard is None else _agree(SharedFolder(out), config, made)
    with RunFolder.open(folder, options.overwrite, FIGURES) as run:
        if shard is None and options.overwrite:
            delete_shards(run.path)
        name, cut = _claim(run, config, made) if kept is None else _adopt(run, kept)
        cut = agreed_sizes(cut, made.fits, REMEDY)
        if jobs.at_once is not None and max(cut) > jobs.at_once:
            raise ValueError(
                f"{out} was begun with blocks of {max(cut)} simulations, not of --at-once {jobs.at_once}; use "
                f"--at-once {max(cut)}, or another --out"
            )
        parts, every = Parts(run.path / "parts", name), list(blocks(config.base.policies, made.found, cut))
        if shard is None:
            _require_joined(run.path, parts, every)
            mine = every
        else:
            mine = share_out(every, made.found, shard.of)[shard.number - 1]
            keep_record(run, name, ShardRecord(*shard, [block.number for block in mine], len(every)))
        with opened(options.wandb, run.path, name, content(config)["base"]) as trackers:
            _run_blocks(config, options, made, cut, parts, mine, run.path, name, MetricsWriter(None, trackers))
        if shard is None:
            rows = [row for block in every for row in parts.rows(block.number)]
            leave(run.path, name, config, options, drawn_of(made.found), rows)
        else:
            write_json(run.path / "worlds.json", drawn_of(made.found))
            write_manifest(run.path, name, ["shard.json", *RECORDS])
            _say_done(run.path, shard, mine, every)
    return 0


def plan(config: SweepConfig, options: RunOptions, jobs: Jobs, shards: int) -> list[str]:
    """What each of so many shards would run, as JSON lines; nothing is written.

    Raises:
      ValueError: as `prepare`, or more shards than blocks.
    """
    made = prepare(config, options, jobs)
    every = list(blocks(config.base.policies, made.found, [fit.size for fit in made.fits]))
    return plan_lines(config, every, made.found, share_out(every, made.found, shards))


def out_of(config: SweepConfig, options: RunOptions) -> Path:
    """Where a sweep is kept."""
    return Path(options.out) if options.out is not None else Path("runs") / f"sweep-{config.base.preset}"


def _claim(folder: RunFolder | SharedFolder, config: SweepConfig, made: Prepared) -> tuple[str, list[int]]:
    words = json.loads(json.dumps(content(config)))
    cut, same = [one.size for one in made.fits], _differences(words)
    return claim(folder, "sweep", words, same, made.read, cut, len(made.devices), listed(made.told))


def _agree(shared: SharedFolder, config: SweepConfig, made: Prepared) -> tuple[dict[str, Any], str]:
    """The configuration that all shards have, and the identity of its run.

    Raises:
      ValueError: the folder is of another sweep, or was begun with other versions or on another machine.
    """
    try:
        _claim(shared, config, made)
    except Taken:
        _claim(shared, config, made)
    kept = shared.read_config()
    if kept is None:
        raise ValueError(f"{shared.path}/config.json is gone; start the command again")
    return kept


def _adopt(folder: RunFolder, agreed: tuple[dict[str, Any], str]) -> tuple[str, list[int]]:
    """Gives a shard the configuration of its sweep; its identity, and the sizes of blocks.

    Raises:
      ValueError: the shard is of another sweep.
    """
    before = folder.read_config()
    if before is None:
        folder.write_config(agreed[0])
    elif before[1] != agreed[1]:
        raise ValueError(f"{folder.path} is of another sweep than the folder it lies in; {REMEDY}")
    return agreed[1], agreed[0]["blocks"]


def _require_joined(path: Path, parts: Parts, every: list[Block]) -> None:
    """Refuses to compute what shards are there for."""
    shards = shard_folders(path)
    if shards and not all(parts.done(block.number) for block in every):
        raise ValueError(
            f"{path} holds shards of this sweep, as {shards[0].name}; join them with python -m dbwjax.sweep --join "
            f"{path}/shard-*, or use --overwrite to start anew, or another --out"
        )


def _say_done(path: Path, shard: Shard, mine: list[Block], every: list[Block]) -> None:
    amount = f"{len(mine)} of {len(every)} blocks, {sum(len(block.which) for block in mine)} simulations"
    streams.show(
        f"Shard {shard.word}: {amount}, in {path}\n"
        f"When all {shard.of} are there: python -m dbwjax.sweep --join {path.parent}/shard-*-of-{shard.of}"
    )


def _run_blocks(
    config: SweepConfig,
    options: RunOptions,
    made: Prepared,
    cut: list[int],
    parts: Parts,
    mine: list[Block],
    path: Path,
    name: str,
    writer: MetricsWriter,
) -> None:
    """Computes the blocks that are not finished."""
    if config.timing_only:
        _run_clocks(options, made, cut, parts, mine, writer)
        return
    devices = made.devices
    places = [Places(one, devices, fit.cut, size) for one, fit, size in zip(made.found, made.fits, cut, strict=True)]
    with Checkpoints(path / "checkpoint", name) as checkpoints, interrupts.collected() as pending:
        driver = Driver(
            config.base, options, made.found, made.times, places, parts, checkpoints, writer, pending, stops=False
        )
        driver.run(mine)


def _require_ends(config: SweepConfig, made: Prepared, every: list[Block]) -> None:
    """Raises `ValueError` for budgets that would take too many steps."""
    found, devices, cut = made.found, made.devices, [fit.size for fit in made.fits]
    if config.timing_only:
        require_clocks_end(found, every, cut, made.times, devices)
    else:
        places = [Places(one, devices, fit.cut, fit.size) for one, fit in zip(found, made.fits, strict=True)]
        require_ends(found, places, every, made.times)


def _require_no_readers(found: list[Problem]) -> None:
    for spec, policy in found[0].policies.items():
        if policy.reads_training:
            raise ValueError(f"policy '{spec}' reads training and cannot be swept; use python -m dbwjax.train")


def _run_clocks(
    options: RunOptions, made: Prepared, cut: list[int], parts: Parts, mine: list[Block], writer: MetricsWriter
) -> None:
    meshes = [batch.mesh_of(made.devices[: min(len(made.devices), size)]) for size in cut]
    budgets = [np.array([grid[-1] for grid in own]) for own in made.times]
    with Progress(options, sum(len(block.which) for block in mine)) as bar, interrupts.collected() as pending:
        todo = {block.number for block in unfinished(parts, mine)}
        for block in mine:
            place, fresh = block.problem, block.number in todo
            if fresh:
                rows = clock_rows(made.found[place], block, budgets[place], cut[place], meshes[place])
                parts.keep(block.number, rows)
            else:
                rows = parts.rows(block.number)
            _tell(writer, made, block, rows)
            if fresh and pending:
                raise Interrupted(pending[0], f"a block of policy '{block.spec}'")
            bar.update(len(block.which))
            bar.at(block.spec)


def _tell(writer: MetricsWriter, made: Prepared, block: Block, rows: list[dict[str, Any]]) -> None:
    told = [made.found[block.problem].told[int(which)].values for which in block.which]
    writer.begin(block.spec, told)
    for row in rows:
        writer.append(row)
    writer.end(block.spec, told, stopped=False)


def _differences(told: dict[str, Any]) -> Callable[[Any], list[str]]:
    """Where the data lie does not count."""

    def placeless(sweep: Any) -> Any:
        base = sweep.get("base") if isinstance(sweep, dict) else None
        return {**sweep, "base": {**base, "data_dir": None}} if isinstance(base, dict) else sweep

    return lambda kept: [] if placeless(kept) == placeless(told) else ["its axes or options are others"]


def drawn_of(found: list[Problem]) -> list[dict[str, Any]]:
    """What `worlds.json` holds."""
    return [one for problem in found for one in fingerprints(problem)]


def leave(path: Path, run: str, config: SweepConfig, options: RunOptions, drawn: list[dict], rows: list[dict]) -> None:
    """Writes the rows, the summary, the tables, the figures and the manifest, and prints the table.

    Args:
      path: the folder.
      run: identity of the sweep.
      config, options: the sweep's.
      drawn: what `worlds.json` holds.
      rows: of all blocks, in their order.
    """
    from dbwjax.report.statistics import summarise
    from dbwjax.report.sweep_figures import write_figures
    from dbwjax.report.table import format_table, to_csv, to_tex

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    has_accuracy = any(row.get("test_accuracy") is not None for row in rows)
    target = config.base.target_accuracy if has_accuracy else None
    summary = summarise(rows, drawn, config.base.policies, config.base.over, target)
    write_json(path / "worlds.json", drawn)
    write_json(path / "summary.json", summary)
    texts = (("results.csv", text.getvalue()), ("table.csv", to_csv(summary)), ("table.tex", to_tex(summary)))
    for name, written in texts:
        replace_file(path / name, lambda file, written=written: file.write(written.encode()))  # type: ignore[misc]
    kinds = tuple(kind.strip() for kind in options.figures.split(","))
    figures = write_figures(path, summary, rows, formats=kinds)
    finish_trackers(path, options.tensorboard, rows)
    drawn_as = ", ".join(figure.name for figure in figures) or "none"
    page = leave_page(path, config, rows, drawn, summary)
    told = f"{format_table(summary)}\npage: {page}\n{len(rows)} rows in {path / 'results.csv'}; figures: {drawn_as}"
    write_manifest(path, run, [*RECORDS, page.name, *(figure.name for figure in figures)])
    streams.show(told, elsewhere=str(path / "table.csv"))
