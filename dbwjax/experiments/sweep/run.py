"""A sweep: a run of many cells, by the same blocks, the same driver and the same statistics."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.engine import batch
from dbwjax.experiments.blocks import Block, Places, Sizes, blocks, sizes
from dbwjax.experiments.budget import grids, require_ends
from dbwjax.experiments.claim import REMEDY, claim
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.driver import Driver, Interrupted, NoLog, agreed_sizes, unfinished
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.inputs import inputs, say_sampled
from dbwjax.experiments.nets import listed
from dbwjax.experiments.pages import PAGE, leave_page
from dbwjax.experiments.problem import Problem, problems
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.sweep.clocks import clock_rows, clocks_at_once, require_clocks_end
from dbwjax.experiments.sweep.config import SweepConfig, content, worlds
from dbwjax.files import replace_file, write_json
from dbwjax.report.sweep_figures import QUANTITIES
from dbwjax.runtime import interrupts, memory, streams
from dbwjax.runtime.devices import cache_programs, cores_or
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.manifest import write_manifest
from dbwjax.storage.parts import Parts
from dbwjax.storage.run_folder import RECORDS, RunFolder


def run_sweep(config: SweepConfig, options: RunOptions) -> int:
    """Runs what is not there yet, and leaves the table, the summary and the figures.

    Returns:
      0.

    Raises:
      ValueError: something typed or found in the folder is wrong, or does not fit the memory.
      Interrupted: SIGINT or SIGTERM; the same command goes on.
    """
    if options.compile_cache is not None:
        cache_programs(options.compile_cache)
    told = worlds(config)
    devices = cores_or(options.devices)  # before anything else starts JAX's devices
    memory.require_graphs({(one.config.graph, one.config.workers, one.graph_seed) for one in told})
    found = problems(told, config.timing_only)
    _require_no_readers(found)
    read = inputs((one.config for one in told), data=not config.timing_only)
    say_sampled(read)
    # Clocks alone read nothing of a grid but its end.
    base = dataclasses.replace(config.base, rows=1, eval_every=None) if config.timing_only else config.base
    times = [grids(one, base) for one in found]
    fits = [
        clocks_at_once(one) if config.timing_only else sizes(one, devices, max(map(len, grid)))
        for one, grid in zip(found, times, strict=True)
    ]
    folder = Path(options.out) if options.out is not None else Path("runs") / f"sweep-{config.base.preset}"
    if options.overwrite or not (folder / "config.json").exists():
        _require_ends(config, found, fits, times, devices)
    axes = ("heatmap", "graph_seed", *(field.name for field in dataclasses.fields(TrainConfig)))
    figures = [f"{quantity}-{axis}" for quantity in QUANTITIES for axis in axes]
    with RunFolder.open(folder, options.overwrite, figures) as run:
        words = json.loads(json.dumps(content(config)))
        fitting = [one.size for one in fits]
        same, devices_used = _differences(words), len(devices)
        name, kept = claim(run, "sweep", words, same, read, fitting, devices_used, listed(told))
        cut = agreed_sizes(kept, fits, REMEDY)
        parts, every = Parts(run.path / "parts", name), list(blocks(config.base.policies, found, cut))
        if config.timing_only:
            _run_clocks(options, found, times, cut, parts, every, devices)
        else:
            places = [Places(one, devices, fit.cut, size) for one, fit, size in zip(found, fits, cut, strict=True)]
            with Checkpoints(run.path / "checkpoint", name) as checkpoints, interrupts.collected() as pending:
                driver = Driver(
                    config.base, options, found, times, places, parts, checkpoints, NoLog(), pending, stops=False
                )
                driver.run(every)
        rows = [row for block in every for row in parts.rows(block.number)]
        written = _leave(run.path, config, options, found, rows)
        write_manifest(run.path, name, [*RECORDS, PAGE, *(figure.name for figure in written)])
    return 0


def _require_ends(
    config: SweepConfig, found: list[Problem], fits: list[Sizes], times: list[list[np.ndarray]], devices: Any
) -> None:
    """Raises `ValueError` for budgets that would take too many steps."""
    cut = [fit.size for fit in fits]
    every = list(blocks(config.base.policies, found, cut))
    if config.timing_only:
        require_clocks_end(found, every, cut, times, devices)
    else:
        places = [Places(one, devices, fit.cut, fit.size) for one, fit in zip(found, fits, strict=True)]
        require_ends(found, places, every, times)


def _require_no_readers(found: list[Problem]) -> None:
    for spec, policy in found[0].policies.items():
        if policy.reads_training:
            raise ValueError(f"policy '{spec}' reads training and cannot be swept; use python -m dbwjax.train")


def _run_clocks(
    options: RunOptions,
    found: list[Problem],
    times: list[list[np.ndarray]],
    cut: list[int],
    parts: Parts,
    every: list[Block],
    devices: Any,
) -> None:
    meshes = [batch.mesh_of(devices[: min(len(devices), size)]) for size in cut]
    budgets = [np.array([grid[-1] for grid in own]) for own in times]
    with Progress(options, sum(len(block.which) for block in every)) as bar, interrupts.collected() as pending:
        todo = {block.number for block in unfinished(parts, every)}
        for block in every:
            if block.number in todo:
                place = block.problem
                rows = clock_rows(found[place], block, budgets[place], cut[place], meshes[place])
                parts.keep(block.number, rows)
                if pending:
                    raise Interrupted(pending[0], f"a block of policy '{block.spec}'")
            bar.update(len(block.which))
            bar.at(block.spec)


def _differences(told: dict[str, Any]) -> Callable[[Any], list[str]]:
    """Where the data lie does not count."""

    def placeless(sweep: Any) -> Any:
        base = sweep.get("base") if isinstance(sweep, dict) else None
        return {**sweep, "base": {**base, "data_dir": None}} if isinstance(base, dict) else sweep

    return lambda kept: [] if placeless(kept) == placeless(told) else ["its axes or options are others"]


def _leave(path: Path, config: SweepConfig, options: RunOptions, found: list[Problem], rows: list[dict]) -> list[Path]:
    """Writes the rows, the summary, the tables and the figures, and prints the table; the figures."""
    from dbwjax.report.statistics import summarise
    from dbwjax.report.sweep_figures import write_figures
    from dbwjax.report.table import format_table, to_csv, to_tex

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    drawn = [one for problem in found for one in fingerprints(problem)]
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
    drawn_as = ", ".join(figure.name for figure in figures) or "none"
    page = leave_page(path, config, rows, drawn, summary)
    told = f"{format_table(summary)}\npage: {page}\n{len(rows)} rows in {path / 'results.csv'}; figures: {drawn_as}"
    streams.show(told, elsewhere=str(path / "table.csv"))
    return figures
