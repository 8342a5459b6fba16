"""One call of the command: every policy in every world, kept in a run folder that can be resumed.

Everything a person may have got wrong is checked before the folder is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dbwjax import specs
from dbwjax.engine.batch import rows_of
from dbwjax.experiments.blocks import Block, Places, blocks, sizes
from dbwjax.experiments.budget import grids, require_ends
from dbwjax.experiments.claim import REMEDY, claim, versions
from dbwjax.experiments.config import (
    RunOptions,
    TrainConfig,
    differences,
    extent_of,
    from_json,
    require_fit,
    to_json,
)
from dbwjax.experiments.driver import Driver, agreed_sizes
from dbwjax.experiments.fingerprints import fingerprints
from dbwjax.experiments.inputs import Inputs, inputs, say_sampled
from dbwjax.experiments.pages import leave_page
from dbwjax.experiments.problem import Problem, of_seeds, problems
from dbwjax.files import replace_file, write_json
from dbwjax.policies.table import POLICIES, notes
from dbwjax.report.run_figures import FIGURES, write_figures
from dbwjax.runtime import interrupts, processes, streams
from dbwjax.runtime.devices import cache_programs, choose, cores_or
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.manifest import write_manifest
from dbwjax.storage.metrics_log import MetricsLog, NoLog
from dbwjax.storage.metrics_writer import MetricsWriter
from dbwjax.storage.parts import Parts
from dbwjax.storage.run_folder import RECORDS, RunFolder
from dbwjax.storage.timelines import Timelines, save_timeline
from dbwjax.storage.trackers import check_trackers, finish_trackers, opened


def run_experiment(config: TrainConfig, options: RunOptions) -> int:
    """Trains every policy in every world, resuming where the run folder is, and leaves records, figures and the table.

    Returns:
      0.

    Raises:
      ValueError: something typed or found in the run folder is wrong.
      Diverged: losses of all worlds of a policy were not finite; the last good checkpoint is kept.
      Interrupted: SIGINT or SIGTERM; a checkpoint is kept.
    """
    if options.compile_cache is not None:
        cache_programs(options.compile_cache)
    check_trackers(options.tensorboard, options.wandb)
    require_fit(extent_of(config), config)
    told = {"devices": options.devices, "checkpoint_every": options.checkpoint_every, "out": options.out}
    processes.agree({**versions(), **to_json(config), **told})
    several = config.seeds > 1 and not options.distributed
    devices = cores_or(options.devices) if several else choose(options.devices)
    found = problems(of_seeds(config))
    if options.debug:
        found = [looked_at(problem) for problem in found]
    read = inputs([config])
    processes.agree({f"the content of {name}": told["sha256"] for name, told in read.items()})
    times = [grids(problem, config) for problem in found]
    fits = [sizes(one, devices, max(map(len, grid))) for one, grid in zip(found, times, strict=True)]
    places = [Places(one, devices, fit.cut, fit.size) for one, fit in zip(found, fits, strict=True)]
    path = options.folder(config.preset).absolute()
    if options.overwrite or not (path / "config.json").exists():
        require_ends(found, places, list(blocks(config.policies, found, [fit.size for fit in fits])), times)
    _say_notes(config, found, read)
    with RunFolder.open(path, options.overwrite, FIGURES) if processes.is_first() else nullcontext() as folder:
        run, kept = "", None
        sized = [fit.size for fit in fits]
        if folder is not None:
            told, names = to_json(config), found[0].names
            run, kept = claim(folder, "config", told, _differences(config), read, sized, len(devices), names)
        run = processes.text_of_first(run)
        cut = agreed_sizes(kept, fits, REMEDY)
        if cut != sized:  # it was begun with others
            places = [Places(one, devices, fit.cut, size) for one, fit, size in zip(found, fits, cut, strict=True)]
        parts, every = Parts(path / "parts", run), list(blocks(config.policies, found, cut))
        with (
            Checkpoints(path / "checkpoint", run) as checkpoints,
            MetricsLog(path / "metrics.jsonl") if processes.is_first() else NoLog() as log,
            interrupts.collected() as pending,
            opened(options.wandb if processes.is_first() else None, path, run, to_json(config)) as trackers,
        ):
            writer = MetricsWriter(log, trackers)
            Driver(config, options, found, times, places, parts, checkpoints, writer, pending).run(every)
        if processes.is_first():
            _leave(path, run, config, options, found, parts, every)
        processes.barrier("end")
        return 0


def looked_at(problem: Problem) -> Problem:
    """The problem with policies of which every mixing matrix is looked at (`--debug`)."""
    promised = {spec: POLICIES[specs.parse(spec)[0]].mixing for spec in problem.policies}
    policies = {spec: policy._replace(debug=promised[spec]) for spec, policy in problem.policies.items()}
    return problem._replace(policies=policies)


def _differences(config: TrainConfig) -> Callable[[Any], list[str]]:
    return lambda kept: differences(from_json(kept), config)


def _say_notes(config: TrainConfig, found: list[Problem], read: Inputs) -> None:
    """What a policy makes of a graph where its settings do not fit every worker, once for each policy; and which inputs
    are too large to be hashed."""
    if not processes.is_first():
        return
    say_sampled(read)
    for spec in config.policies:
        first = rows_of(found[0].states[spec], 0)
        for note in notes(spec, found[0].alone(0).graph, first):
            streams.note(note)


def _leave(
    path: Path,
    run: str,
    config: TrainConfig,
    options: RunOptions,
    found: list[Problem],
    parts: Parts,
    every: list[Block],
) -> None:
    """Writes the summary, the timeline, the tables, the figures, the page and the manifest, and prints the table."""
    from dbwjax.experiments.picture import picture_of
    from dbwjax.report.statistics import summarise
    from dbwjax.report.table import format_table, to_csv, to_tex

    rows = [row for block in every for row in parts.rows(block.number)]
    worlds = [one for problem in found for one in fingerprints(problem)]
    has_accuracy = any(row["test_accuracy"] is not None for row in rows)
    target = config.target_accuracy if has_accuracy else None
    summary = summarise(rows, worlds, config.policies, config.over, target)
    if found[0].names is not None:
        summary["names"] = found[0].names
    timelines = _timelines(parts, every)
    save_timeline(path / "timeline.npz", timelines)
    write_json(path / "worlds.json", worlds)
    write_json(path / "summary.json", summary)
    for name, text in (("table.csv", to_csv(summary)), ("table.tex", to_tex(summary))):
        replace_file(path / name, _writer(text))
    kinds = tuple(kind.strip() for kind in options.figures.split(","))
    picture = picture_of(found[0], config.graph, config.seeds > 1)
    figures = write_figures(path, rows, summary, timelines, picture, formats=kinds)
    finish_trackers(path, options.tensorboard, rows)
    page = leave_page(path, config, rows, worlds, summary, timelines, picture)
    write_manifest(path, run, [*RECORDS, page.name, *(figure.name for figure in figures)])
    told = f"{format_table(summary)}\npage: {page}\nfigures: {figures[0]} and {len(figures) - 1} more in {path}"
    streams.show(told, elsewhere=str(path / "table.csv"))


def _timelines(parts: Parts, every: list[Block]) -> Timelines:
    """`{policy: {world: {name: array}}}` from the finished blocks."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for block in every:
        for key, array in parts.timelines(block.number).items():
            world, _, name = key.partition("/")
            found.setdefault(block.spec, {}).setdefault(world, {})[name] = array
    return found


def _writer(text: str) -> Any:
    return lambda file: file.write(text.encode())
