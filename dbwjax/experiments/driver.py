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
from dbwjax.experiments.extent import KEPT_SPANS
from dbwjax.experiments.problem import Problem
from dbwjax.experiments.progress import Progress
from dbwjax.experiments.timing import NotATime, Standstill
from dbwjax.experiments.training import SINGLE_WORKERS, Diverged, Stalled, Training
from dbwjax.report.statistics import crossing
from dbwjax.runtime import processes, streams
from dbwjax.storage.checkpoint import Checkpoints
from dbwjax.storage.metrics_log import MetricsLog, plain
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


class Computation:
    """Blocks computed, and nothing kept.

    Args:
      config: what all worlds have in common.
      found: the problems.
      grids: by problem, the grid of each of its worlds.
      places: by problem, where its blocks run.
      stops: whether the divergence of a single world ends everything.
    """

    def __init__(
        self,
        config: TrainConfig,
        found: Sequence[Problem],
        grids: Sequence[list[np.ndarray]],
        places: Sequence[Places],
        stops: bool = True,
    ):
        self.config, self.found, self.grids, self.places, self.stops = config, found, grids, places, stops

    def compute(self, block: Block) -> tuple[list[dict[str, Any]], dict[str, np.ndarray] | None]:
        """A block's rows and timelines, from virtual time 0.

        Raises:
          Diverged: the loss of the only world is not finite.
        """
        training = self.training(block)
        rows: list[dict[str, Any]] = []
        while not self.ended(block, training, rows):
            rows += self.advance(block, training)
            self.require_finite(training)
        return rows, self.timelines(block, training)

    def training(self, block: Block) -> Training:
        """A block at virtual time 0."""
        problem, places = self.found[block.problem], self.places[block.problem]
        filled = block.which[:1] if places.cut else places.filled(block.which)
        grids = [self.grids[block.problem][which] for which in filled]
        roles = problem.roles(block.spec)
        few = roles.computes.sum() <= SINGLE_WORKERS and processes.count() == 1
        evaluate = evaluate_own(problem, filled) if few else None
        told, real = self.config.puts_together, len(block.which)
        spans = KEPT_SPANS[self.config.timelines] if "world" in problem.told[0].values else 0  # a sweep keeps none
        return Training(places.place(block), grids, roles, few, evaluate, real=real, wide=told, spans=spans)

    def ended(self, block: Block, training: Training, rows: list[dict[str, Any]]) -> bool:
        """Whether a block is past its budget, or has reached the target where that ends it."""
        return training.done or self._arrived(rows, len(block.which))

    def advance(self, block: Block, training: Training) -> list[dict[str, Any]]:
        """Runs one chunk; the rows that are whole now."""
        told = self.found[block.problem].told
        return [
            plain({"policy": block.spec, **told[int(block.which[sim])].values, **row})
            for sim, row in training.advance()
        ]

    def timelines(self, block: Block, training: Training) -> dict[str, np.ndarray] | None:
        """What a finished block's accounts remember, `WORLD/name`; `None` in a sweep."""
        told = self.found[block.problem].told
        if "world" not in told[0].values:
            return None
        return {
            f"{told[int(which)].values['world']}/{name}": array
            for which, account in zip(block.which, training.accounts, strict=False)
            for name, array in account.timeline().items()
        }

    def require_finite(self, training: Training) -> None:
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


class Driver(Computation):
    """Trains every block that is not finished.

    Args:
      config, found, grids, places, stops: as of `Computation`.
      options: the run's.
      parts: finished blocks.
      checkpoints: of the running block.
      log: gets every row as it comes.
      pending: signals that have arrived.
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
        super().__init__(config, found, grids, places, stops)
        self.options = options
        self.parts, self.checkpoints, self.log, self.pending = parts, checkpoints, log, pending
        self.saved = 0  # number of the last checkpoint

    def run(self, blocks: Sequence[Block]) -> None:
        """Goes through the blocks, from where an earlier call was stopped.

        Raises:
          Diverged: the loss of the only world is not finite; the last checkpoint is kept.
          Interrupted: SIGINT or SIGTERM; a checkpoint is kept.
        """
        open_ones = unfinished(self.parts, blocks)
        begun = self._begun({block.number for block in open_ones})
        # The block of the checkpoint first: the checkpoints of another would take its place.
        todo = sorted(open_ones, key=lambda block: begun is None or block.number != begun["block"])
        if processes.is_first():
            numbers = {block.number for block in open_ones}
            kept = [block.number for block in blocks if block.number not in numbers]
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
        if processes.is_first():
            self._in_order([*kept, *(block.number for block in todo)])

    def _in_order(self, logged: list[int]) -> None:
        """Writes the log anew where blocks were not computed in their order."""
        if logged != sorted(logged):
            self.log.restart([row for number in sorted(logged) for row in self.parts.rows(number)])

    def _begun(self, todo: set[int]) -> dict[str, Any] | None:
        """What the newest checkpoint says about the block that was running; `None`: begin at a block's beginning."""
        meta = self.checkpoints.meta() if todo else None
        if meta is None:
            return None
        self.saved = meta["number"]
        return meta if meta["block"] in todo else None

    def _block(self, block: Block, begun: dict[str, Any] | None, bar: Progress, last: bool) -> None:
        training, rows = self.training(block), []
        if begun is not None:
            state, meta = self.checkpoints.load(resuming.like(training, begun))
            resuming.restore(training, state, meta)
            rows = list(meta["rows"])
            for row in rows:
                self.log.append(row)
        chunks = 0
        ended = self.ended(block, training, rows)
        while not ended:
            for row in self.advance(block, training):
                rows.append(row)
                self.log.append(row)
            self.require_finite(training)
            chunks += 1
            self._show(bar, block, training)
            ended = self.ended(block, training, rows)
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
            self.parts.keep(block.number, rows, self.timelines(block, training))
        bar.update(len(block.which))
        if processes.any_process(bool(self.pending)):
            self.checkpoints.close()
            raise Interrupted(self.pending[0] if self.pending else signal.SIGTERM, f"the end of policy '{block.spec}'")

    def _save(self, block: Block, training: Training, rows: list[dict[str, Any]]) -> None:
        self.saved += 1
        meta = {"number": self.saved, "block": block.number, "rows": rows}
        self.checkpoints.save(self.saved, resuming.saved(training), {**meta, **resuming.facts(training)})

    def _show(self, bar: Progress, block: Block, training: Training) -> None:
        bar.at(block.spec, training.seconds, max(float(account.grid[-1]) for account in training.accounts))


def unfinished(parts: Parts, blocks: Sequence[Block]) -> list[Block]:
    """The blocks that are to be computed: those that are not finished, and those whose files do not count."""
    first = processes.is_first()
    done = [first and parts.done(block.number) for block in blocks]
    for place, block in enumerate(blocks):
        trouble = parts.trouble(block.number) if done[place] else None
        if trouble is not None:
            streams.note(f"{trouble}; computing that block again")
            done[place] = False
    return [block for block, whole in zip(blocks, processes.of_first(done), strict=True) if not whole]


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
