"""One call of the command: every policy trained in turn in one world, kept in a run folder that can be resumed.

Everything a person may have got wrong is checked by `build` before the folder is touched. Between chunks the state,
the history and the place in `metrics.jsonl` go into one checkpoint, so a run killed at any instant goes on from the
last one and ends with bitwise the same numbers: delays and batches are functions of the seed, and all sums are taken
in order.
"""

from __future__ import annotations

import platform
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dbwjax.experiments.config import RunOptions, TrainConfig, differences, from_json, to_json
from dbwjax.experiments.problem import Problem, build, place
from dbwjax.experiments.training import Diverged, History, Stalled, Training, chunk_of
from dbwjax.files import write_json
from dbwjax.network import spanning
from dbwjax.report.statistics import summary
from dbwjax.report.table import format_table
from dbwjax.runtime import processes
from dbwjax.runtime.devices import cache_programs
from dbwjax.storage import run_folder
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.metrics_log import MetricsLog, read_metrics
from dbwjax.storage.timelines import save_timeline
from dbwjax.storage.trackers import check_tensorboard, write_tensorboard


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived, and a checkpoint was kept."""

    def __init__(self, signum: int, where: str):
        super().__init__(f"stopped by {signal.Signals(signum).name} at {where}; the same command goes on from there")
        self.exit_code = 128 + signum


def run_experiment(config: TrainConfig, options: RunOptions) -> int:
    """Trains every policy, resuming where the run folder is, and leaves the records, the figures and the table.

    Returns:
      0.

    Raises:
      ValueError: something typed or found in the run folder is wrong.
      Diverged: a loss was not finite; the last good checkpoint is kept.
      Interrupted: SIGINT or SIGTERM; a checkpoint is kept.
    """
    if options.compile_cache is not None:
        cache_programs(options.compile_cache)
    if options.tensorboard:
        check_tensorboard()
    told = {"devices": options.devices, "checkpoint_every": options.checkpoint_every, "out": options.out}
    processes.agree({**_versions(), **to_json(config), **told})
    setting = place(build(config), options.devices)
    path = options.folder(config.preset).absolute()
    with run_folder.RunFolder.open(path, options.overwrite) if processes.is_first() else nullcontext() as folder:
        if folder is not None:
            _claim(folder, config, 1 if setting.devices is None else setting.devices.exchange.devices)
        processes.barrier("run folder")
        with (
            Checkpoints(path / "checkpoint") as checkpoints,
            MetricsLog(path / "metrics.jsonl") if processes.is_first() else _NoLog() as log,
            _signals() as pending,
        ):
            histories = _Run(config, options, setting, checkpoints, log, pending).all_policies()
        if processes.is_first():
            _leave(path, config, options, setting, histories)
        processes.barrier("end")
        return 0


class _NoLog:
    """A `MetricsLog` that keeps nothing: that of every process but the first."""

    def __enter__(self) -> _NoLog:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def truncate(self, lines: int) -> None:
        """Nothing to cut."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Nothing to keep."""

    def sync(self) -> None:
        """Nothing to wait for."""


class _Run:
    """The loop over policies and chunks, with what it needs at hand."""

    def __init__(
        self,
        config: TrainConfig,
        options: RunOptions,
        setting: Problem,
        checkpoints: Checkpoints,
        log: MetricsLog | _NoLog,
        pending: list[int],
    ):
        self.config, self.options, self.setting = config, options, setting
        self.checkpoints, self.log, self.pending = checkpoints, log, pending
        self.histories: list[History] = []  # of the policies that are done
        self.lines = 0  # in metrics.jsonl
        self.saved = 0  # the step of the last checkpoint, counted through all policies

    def all_policies(self) -> list[History]:
        """Trains what is left to train; returns each policy's history."""
        training = self._resume()
        for index in range(len(self.histories), len(self.config.policies)):
            current = training or self._training(index)
            training = None
            try:
                self._policy(index, current)
            except (Diverged, Stalled) as error:
                name = self.config.policies[index]
                kept = f"the last good checkpoint is at step {self.saved - index * self.config.steps} and stays"
                error.args = (f"policy '{name}': {error}; {kept if self.saved else 'no checkpoint was due yet'}",)
                raise
            self.histories.append(current.history)
        return self.histories

    def _training(self, index: int) -> Training:
        setting = self.setting
        policy = setting.policies[self.config.policies[index]]
        return Training(policy, setting.learner, setting.world, setting.params, setting.task.evaluate, setting.devices)

    def _policy(self, index: int, training: Training) -> None:
        config = self.config
        with self._bar(index, training) as bar:
            if training.step == 0:
                self._row(index, training)
            chunks = 0
            while training.step < config.steps:
                due = min((training.step // config.eval_every + 1) * config.eval_every, config.steps)
                training.advance(min(chunk_of(config.eval_every), due - training.step))
                if training.step == due:
                    self._row(index, training)
                chunks += 1
                self._show(bar, training)
                stopping = processes.any_process(bool(self.pending))
                if stopping or training.step == config.steps or chunks % self.options.checkpoint_every == 0:
                    self._save(index, training)
                if stopping and not (training.step == config.steps and index == len(config.policies) - 1):
                    self.checkpoints.close()
                    where = f"step {training.step} of policy '{config.policies[index]}'"
                    raise Interrupted(self.pending[0] if self.pending else signal.SIGTERM, where)

    def _row(self, index: int, training: Training) -> None:
        self.log.append({"policy": self.config.policies[index], **training.measure()})
        self.lines += 1

    def _save(self, index: int, training: Training) -> None:
        self.log.sync()
        facts_of = {
            "virtual_time": training.virtual_time,
            "wall_time": training.wall_time,
            "evaluated": training.evaluated,
        }
        self.saved = index * self.config.steps + training.step
        state = {"simulation": training.state, "histories": [*self.histories, training.history]}
        self.checkpoints.save(self.saved, state, {**facts_of, "lines": self.lines, "order": training.order})

    def _resume(self) -> Training | None:
        """The training that the newest checkpoint was of, with the log cut back to it; None to begin at the
        beginning."""
        latest, meta = self.checkpoints.latest(), self.checkpoints.meta()
        if latest is None or meta is None:
            self.log.truncate(0)
            return None
        index = (latest - 1) // self.config.steps
        training = self._training(index)
        nodes = self.setting.world.graph.neighbours.shape[0]
        like = {"simulation": training.like(meta["order"]), "histories": [History.empty(nodes)] * (index + 1)}
        state, meta = self.checkpoints.load(like)
        self.lines, self.saved = meta["lines"], latest
        self.log.truncate(self.lines)
        *self.histories, history = state["histories"]
        simulation = training.reshard(state["simulation"], meta["order"])
        training.restore(simulation, history, meta["virtual_time"], meta["wall_time"], meta["evaluated"])
        return training

    def _bar(self, index: int, training: Training) -> Any:
        from tqdm import tqdm

        hidden = None if self.options.progress and processes.is_first() else True  # None: unless a person watches
        name = self.config.policies[index]
        return tqdm(total=self.config.steps, initial=training.step, desc=name, unit=" steps", disable=hidden)

    def _show(self, bar: Any, training: Training) -> None:
        bar.update(training.step - bar.n)
        bar.set_postfix_str(f"virtual time {training.virtual_time:.1f} s, loss {training.history.loss[-1]:.3f}")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, to be obeyed between chunks; a second one of a kind acts at once."""
    pending: list[int] = []

    def note(signum: int, frame: Any) -> None:
        pending.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pending
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _claim(folder: run_folder.RunFolder, config: TrainConfig, devices: int) -> None:
    """Writes `config.json`, or makes sure that the one there is of the same run.

    Raises:
      ValueError: it is of another configuration, or cannot be understood.
    """
    kept = folder.read_config()
    if kept is None:
        folder.write_config({"config": to_json(config), "environment": _environment(devices)})
        return
    try:
        changed = differences(from_json(kept.get("config")), config)
    except ValueError as error:
        raise ValueError(f"{folder.path}/config.json is {error}; use --overwrite, or another --out") from error
    if changed:
        raise ValueError(
            f"{folder.path} holds another run ({'; '.join(changed)}); use --overwrite to start anew, or another --out"
        )
    old, new = kept.get("environment"), _environment(devices)
    if old != new:
        print(f"note: begun with {old}, now {new}: numbers agree to rounding only", file=sys.stderr)


def _environment(devices: int) -> dict[str, str]:
    """What bitwise repetition depends on beside the configuration."""
    return {**_versions(), "device": jax.devices()[0].device_kind, "devices": str(devices)}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "dbwjax": version("dbwjax"),
        "jax": jax.__version__,
        "flax": version("flax"),
        "optax": version("optax"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _leave(path: Path, config: TrainConfig, options: RunOptions, setting: Problem, histories: list[History]) -> None:
    """Writes the summary, the timeline and the figures, and prints the table."""
    from dbwjax.report.network import GraphPicture
    from dbwjax.report.run_figures import write_figures

    rows = read_metrics(path / "metrics.jsonl")
    has_accuracy = any(row["test_accuracy"] is not None for row in rows)
    found = summary(rows, config.policies, config.target_accuracy if has_accuracy else None)
    kept = ("duration", "active", "backup_workers")
    timelines = {
        name: {field: getattr(history, field) for field in kept}
        for name, history in zip(config.policies, histories, strict=True)
    }
    save_timeline(path / "timeline.npz", timelines)
    write_json(path / "summary.json", found)
    graph = setting.world.graph
    links, _ = spanning.spanning_links(graph)
    picture = GraphPicture(np.asarray(graph.neighbours), [(int(i), int(j)) for i, j in links])
    figures = write_figures(path, rows, timelines, picture, config.target_accuracy if has_accuracy else None)
    if options.tensorboard:
        write_tensorboard(path / "tensorboard", rows)
    print(format_table(found))
    print(f"figures: {figures[0]} and {len(figures) - 1} more in {path}")
