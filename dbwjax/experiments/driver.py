"""The loop over blocks and chunks that runs and sweeps share, and what is kept so that it can go on.

A finished block is one file. Between chunks of the running block its simulations, accounts and rows go into one
checkpoint. A command killed at any instant goes on from there and ends with bitwise the same numbers: delays and
batches are functions of the seed, and all sums are taken in order.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dbwjax.experiments import resuming
from dbwjax.experiments.blocks import Block, Places, Sizes
from dbwjax.experiments.config import RunOptions, TrainConfig
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.timing import NotATime, Standstill
from dbwjax.experiments.training import SINGLE_WORKERS, Diverged, Stalled, Training
from dbwjax.report.statistics import crossing
from dbwjax.runtime import processes
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.metrics_log import MetricsLog
from dbwjax.storage.parts import Parts


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived, and a checkpoint was kept."""

    def __init__(self, signum: int, where: str):
        super().__init__(f"stopped by {signal.Signals(signum).name} at {where}; the same command goes on from there")
        self.exit_code = 128 + signum


class NoLog:
    """A `MetricsLog` that keeps nothing: that of every process but the first."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def restart(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to write."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Nothing to keep."""


class Driver:
    """Trains every block that is not finished.

    Args:
      config: what all worlds have in common.
      options: the run's.
      found: the problems.
      grids: by problem, the grid of each of its worlds.
      places: by problem, where its blocks run.
      parts: finished blocks.
      checkpoints: of the running block.
      log: gets every row as it comes.
      pending: signals that have arrived.
      stops: whether the divergence of a single world ends everything.
    """

    def __init__(
        self,
        config: TrainConfig,
        options: RunOptions,
        found: Sequence[Problem],
        grids: Sequence[list[np.ndarray]],
        places: Sequence[Places],
        parts: Parts,
        checkpoints: Checkpoints,
        log: MetricsLog | NoLog,
        pending: list[int],
        stops: bool = True,
    ):
        self.stops = stops
        self.config, self.options, self.found, self.grids, self.places = config, options, found, grids, places
        self.parts, self.checkpoints, self.log, self.pending = parts, checkpoints, log, pending
        self.saved = 0  # number of the last checkpoint

    def run(self, blocks: Sequence[Block]) -> None:
        """Goes through the blocks, from where an earlier call was stopped.

        Raises:
          Diverged: the loss of the only world is not finite; the last checkpoint is kept.
          Interrupted: SIGINT or SIGTERM; a checkpoint is kept.
        """
        finished = processes.of_first([self.parts.done(block.number) for block in blocks])
        todo = [block for block, done in zip(blocks, finished, strict=True) if not done]
        begun = self._begun({block.number for block in todo})
        if processes.is_first():
            kept = [block.number for block, done in zip(blocks, finished, strict=True) if done]
            self.log.restart([row for number in kept for row in self.parts.rows(number)])
        with Progress(self.options, sum(len(block.which) for block in blocks)) as bar:
            bar.update(sum(len(block.which) for block in blocks) - sum(len(block.which) for block in todo))
            for block in todo:
                here = begun if begun and begun["block"] == block.number else None
                try:
                    self._block(block, here, bar, last=block is todo[-1])
                except (Diverged, NotATime, Stalled, Standstill) as error:
                    stays = "the last checkpoint stays" if self.saved else "no checkpoint was due yet"
                    error.args = (f"policy '{block.spec}': {error}; {stays}",)
                    raise

    def _begun(self, todo: set[int]) -> dict[str, Any] | None:
        """What the newest checkpoint says about the block that was running; `None`: begin at a block's beginning."""
        meta = self.checkpoints.meta()
        if meta is None:
            return None
        self.saved = meta["number"]
        return meta if meta["block"] in todo else None

    def training(self, block: Block) -> Training:
        """A block at virtual time 0."""
        problem, places = self.found[block.problem], self.places[block.problem]
        filled = block.which[:1] if places.cut else places.filled(block.which)
        grids = [self.grids[block.problem][which] for which in filled]
        computes = np.asarray(problem.alone(int(filled[0])).graph.computes)
        few = computes.sum() <= SINGLE_WORKERS and processes.count() == 1
        evaluate = evaluate_own(problem, filled) if few else None
        return Training(places.place(block), grids, computes, few, evaluate, real=len(block.which))

    def _block(self, block: Block, begun: dict[str, Any] | None, bar: Progress, last: bool) -> None:
        training, rows = self.training(block), []
        if begun is not None:
            state, meta = self.checkpoints.load(resuming.like(training, begun))
            resuming.restore(training, state, meta)
            rows = list(meta["rows"])
            for row in rows:
                self.log.append(row)
        chunks = 0
        told = self.found[block.problem].told
        ended = training.done or self._arrived(rows, len(block.which))
        while not ended:
            for sim, row in training.advance():
                rows.append({"policy": block.spec, **told[int(block.which[sim])].values, **row})
                self.log.append(rows[-1])
            self._require_finite(training)
            chunks += 1
            self._show(bar, block, training)
            ended = training.done or self._arrived(rows, len(block.which))
            stopping = processes.any_process(bool(self.pending))
            if (ended and last) or (not ended and (stopping or chunks % self.options.checkpoint_every == 0)):
                self._save(block, training, rows)
            if stopping and not ended:
                self.checkpoints.close()
                where = f"{training.seconds:.6g} s of policy '{block.spec}'"
                raise Interrupted(self.pending[0] if self.pending else signal.SIGTERM, where)
        if last:
            self.checkpoints.latest()  # returns when it is on disk: what says that all is finished comes after it
        if processes.is_first():
            self.parts.keep(block.number, rows, self._timelines(block, training))
        bar.update(len(block.which))
        if processes.any_process(bool(self.pending)):
            self.checkpoints.close()
            raise Interrupted(self.pending[0] if self.pending else signal.SIGTERM, f"the end of policy '{block.spec}'")

    def _timelines(self, block: Block, training: Training) -> dict[str, np.ndarray] | None:
        told = self.found[block.problem].told
        if "world" not in told[0].values:
            return None
        return {
            f"{told[int(which)].values['world']}/{name}": getattr(account, name)
            for which, account in zip(block.which, training.accounts, strict=False)
            for name in ("duration", "active", "backup_workers", "length")
        }

    def _require_finite(self, training: Training) -> None:
        """A run of one world stops where it diverges; of several, that world's rows say so and the others go on.

        Raises:
          Diverged: it has.
        """
        account = training.accounts[0]
        if self.config.seeds == 1 and self.stops and account.diverged < len(account.grid):
            raise Diverged(float(account.grid[account.diverged]))

    def _arrived(self, rows: list[dict[str, Any]], worlds: int) -> bool:
        """Whether every world of the block has reached the target, where that ends it."""
        if not self.config.until_target or self.config.target_accuracy is None:
            return False
        by_world: dict[tuple, list[dict[str, Any]]] = {}
        for row in rows:
            by_world.setdefault(_world_of(row), []).append(row)
        return len(by_world) == worlds and all(
            crossing(
                [row["virtual_time"] for row in own],
                [row["test_accuracy"] for row in own],
                self.config.target_accuracy,
            )
            is not None
            for own in by_world.values()
        )

    def _save(self, block: Block, training: Training, rows: list[dict[str, Any]]) -> None:
        self.saved += 1
        meta = {"number": self.saved, "block": block.number, "rows": rows}
        self.checkpoints.save(self.saved, resuming.saved(training), {**meta, **resuming.facts(training)})

    def _show(self, bar: Progress, block: Block, training: Training) -> None:
        bar.at(block.spec, training.seconds, max(float(account.grid[-1]) for account in training.accounts))


def _world_of(row: Mapping[str, Any]) -> tuple:
    """The axis values of a row: what stands before its number in the grid."""
    names = list(row)
    return tuple(row[name] for name in names[1 : names.index("row")])


def evaluate_own(problem: Problem, filled: np.ndarray) -> Callable[[int, Any], np.ndarray | None]:
    """Accuracies `[N]` of single workers of one simulation; `None` for a task without."""
    evaluate = problem.trained()[1]

    def accuracies(sim: int, models: Any) -> np.ndarray | None:
        from dbwjax.engine import batch

        one = batch.alone(evaluate, int(filled[sim]))
        # On one device, whichever hold the stack.
        found = _each(one, jax.tree.map(np.asarray, models))
        return np.asarray(found["test_accuracy"]) if "test_accuracy" in found else None

    return accuracies


@jax.jit
def _each(evaluate: Any, models: Any) -> dict[str, jax.Array]:
    return jax.lax.map(evaluate, models)


def agreed_sizes(kept: Sequence[int] | None, fits: Sequence[Sizes], remedy: str) -> list[int]:
    """The sizes of blocks: those that a run began with, because finished blocks are of that size.

    Raises:
      ValueError: so many cannot run at once any more.
    """
    if kept is None:
        return [one.size for one in fits]
    for size, one in zip(kept, fits, strict=True):
        if size > one.most:
            raise ValueError(
                f"it was begun {size} simulations at a time and {one.most} can run at once now (memory, processes); "
                f"{remedy}"
            )
    return list(kept)
