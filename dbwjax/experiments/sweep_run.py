"""A sweep: worlds that agree in every shape are one batch, batches are walked in blocks, blocks are what is resumed.

On a CPU a block holds as many simulations as fit the cache beside one another, on an accelerator all of them, or as
many as fit its memory. A finished block is one file, written whole; the same command goes on with those that are
missing. A simulation whose loss stops being finite leaves blank cells from then on, and the others go on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dbwjax.engine import batch, simulate
from dbwjax.engine.batch import Batch
from dbwjax.experiments import memory_check, records
from dbwjax.experiments.config import RunOptions
from dbwjax.experiments.files import replace_file, write_json
from dbwjax.experiments.metrics import measure
from dbwjax.experiments.sweep_config import SweepConfig, content, worlds
from dbwjax.experiments.sweep_groups import Group, build_group, same_shapes
from dbwjax.experiments.training import chunk_of
from dbwjax.policies import build_policy
from dbwjax.types import Learner, Policy

CACHE = 2 << 20
"""Bytes of parameters that run side by side on a CPU: beyond the cache a batch is slower than its simulations alone."""

CLOCKS = 1024
"""Clocks that run side by side."""


def run_sweep(config: SweepConfig, options: RunOptions) -> int:
    """Runs what is not there yet, and leaves the table, the summary and the figures.

    Returns:
      0.

    Raises:
      ValueError: something typed or found in the folder is wrong, or does not fit the memory.
    """
    everything = worlds(config)
    policies = {spec: build_policy(spec) for spec in config.base.policies}
    groups = [build_group(config, everything, members, policies) for members in same_shapes(everything)]
    fits = [_block_size(group) for group in groups]
    folder = Path(options.out) if options.out is not None else Path("runs") / f"sweep-{config.base.preset}"
    with records.RunFolder.open(folder, options.overwrite) as run:
        blocks = _claim(run, content(config), fits)
        parts = run.path / "parts"
        parts.mkdir(exist_ok=True)
        todo = list(_blocks(policies, groups, blocks))
        with _bar(options, sum(len(which) for *_, which in todo)) as bar:
            for spec, number, size, which in todo:
                part = parts / f"{list(policies).index(spec)}-{number}-{which[0]}.json"
                if not part.exists():
                    rows = _run_block(config, spec, policies[spec], groups[number], which, size)
                    found = [{"policy": spec, **everything[place].values, **row} for place, row in rows]
                    write_json(part, found)
                bar.update(len(which))
        everywhere = [
            row
            for spec, number, _, which in todo
            for row in json.loads((parts / f"{list(policies).index(spec)}-{number}-{which[0]}.json").read_text())
        ]
        _leave(run.path, config, everywhere)
    return 0


def _block_size(group: Group) -> tuple[int, int]:
    """How many simulations run at once, and how many would fit the memory.

    Raises:
      ValueError: not even one fits the memory.
    """
    if group.params is None or group.learner is None or group.evaluate is None:
        return min(CLOCKS, len(group.members)), CLOCKS
    one = jax.tree.map(lambda leaf: leaf[0], group.params)
    local = jax.eval_shape(group.learner.init, one)
    workers = group.workers
    stack = float(workers * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((one, local))))
    held = float(sum(leaf.nbytes for leaf in jax.tree.leaves((group.worlds.tree.batches, group.evaluate.tree))))
    # As much again for gradients and what lies between: activations of a batch.
    each = stack * (memory_check.COPIES + 1)
    free = memory_check.available_bytes()
    most = int((free - held) // each)
    if most < 1:
        remedy = f"use at most {max(int(workers * (free - held) // each), 0)} workers, or a smaller --model"
        memory_check.require_memory(held + each, f"a simulation of --workers {workers}", remedy)
    wanted = len(group.members) if jax.default_backend() != "cpu" else max(1, int(CACHE // stack))
    return min(wanted, most, len(group.members)), most


def _blocks(
    policies: dict[str, Policy], groups: list[Group], sizes: list[int]
) -> Iterator[tuple[str, int, int, np.ndarray]]:
    for spec in policies:
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            for begin in range(0, len(group.members), size):
                yield spec, number, size, np.arange(begin, min(begin + size, len(group.members)))


def _run_block(
    config: SweepConfig, spec: str, policy: Policy, group: Group, which: np.ndarray, size: int
) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a block's simulations, each with its world's place."""
    filled = np.resize(which, size)  # a last block that is shorter repeats itself, so that nothing is compiled anew
    some = batch.take(group.worlds, filled)
    states = jax.tree.map(lambda leaf: leaf[filled], group.states[spec])
    if group.params is None or group.learner is None:
        rows = _clock_rows(config, policy, some, states, group.workers)
    else:
        rows = _training_rows(config, policy, group, some, states, filled)
    return [(group.members[place], row) for place, of_one in zip(which, rows, strict=False) for row in of_one]


def _clock_rows(config: SweepConfig, policy: Policy, some: Batch, states: Any, workers: int) -> list[list[dict]]:
    clocks, found = batch.start(some, states), []
    for _, chunks in _due(config):
        for steps in chunks:
            clocks, record = batch.clock_batch(policy, some, clocks, steps)
            found.append(jax.device_get(record))
    every = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *found)
    elapsed = np.cumsum(every.duration.astype(np.float64), axis=1)
    rows: list[list[dict]] = [[] for _ in elapsed]
    before = 0
    for due, _ in _due(config):
        for place, row in enumerate(rows):
            row.append(_clock_row(every, elapsed, place, before, due, workers))
        before = due
    return rows


def _clock_row(every: Any, elapsed: np.ndarray, place: int, before: int, due: int, workers: int) -> dict:
    since = slice(before, due)
    return {
        "step": due,
        "virtual_time": _finite(elapsed[place, due - 1]),
        "active_fraction": float(every.active[place, since].mean() / workers),
        "backup_workers": float(every.backup_workers[place, since].mean(dtype=np.float64)),
        "gradients": int(every.gradients[place, :due].sum()),
    }


def _training_rows(
    config: SweepConfig, policy: Policy, group: Group, some: Batch, states: Any, filled: np.ndarray
) -> list[list[dict]]:
    if policy.reads_training or group.learner is None or group.evaluate is None:
        raise ValueError("a policy that reads training cannot be swept; use python -m dbwjax.train")
    params = jax.tree.map(lambda leaf: leaf[filled], group.params)
    sims = batch.init(policy, group.learner, some, states, params)
    sims = sims._replace(model=sims.model._replace(local=_with_rates(sims.model.local, group.rates[filled])))
    evaluate = batch.take(group.evaluate, filled)
    nets = Batch(some.tree.graph, some.axes.graph)
    rows: list[list[dict]] = [[] for _ in filled]
    elapsed, gradients = np.zeros(len(filled)), np.zeros(len(filled), int)
    for due, chunks in [(0, []), *_due(config)]:
        seen = []
        for steps in chunks:
            sims, record = _advance(policy, group.learner, some, sims, steps)
            seen.append(jax.device_get(record))
        for record in seen:
            for duration in record.duration.astype(np.float64).T:  # in order, as `Training` adds them
                elapsed = elapsed + duration
            gradients = gradients + record.gradients.sum(axis=1)
        none = np.zeros((len(filled), 0))
        since = {
            "train_loss": np.concatenate([none, *(record.loss for record in seen)], axis=1),
            "active_fraction": np.concatenate([none, *(record.active.mean(axis=2) for record in seen)], axis=1),
            "backup_workers": np.concatenate([none, *(record.backup_workers for record in seen)], axis=1),
        }
        figures = jax.device_get(_measure(nets, evaluate, sims.model))
        for place, row in enumerate(rows):
            row.append(
                {
                    "step": due,
                    "virtual_time": _finite(elapsed[place]),
                    **{name: _mean(values[place]) for name, values in since.items()},
                    **{name: _finite(values[place]) for name, values in figures.items()},
                    "gradients": int(gradients[place]),
                }
            )
    return rows


def _advance(policy: Policy, learner: Learner, some: Batch, sims: Any, steps: int) -> Any:
    """A block of one runs as `train` runs it, which is the fastest a CPU can do."""
    if jax.tree.leaves(sims)[0].shape[0] > 1:
        return batch.run_batch(policy, learner, some, sims, steps)
    one = jax.tree.map(lambda leaf: jnp.copy(leaf[0]), sims)
    state, record = simulate.run(policy, learner, batch.alone(some, 0), one, steps)
    return jax.tree.map(lambda leaf: leaf[None], (state, record))


def _measure(nets: Batch, evaluate: Batch, models: Any) -> dict[str, jax.Array]:
    if models.started.shape[0] == 1:
        one = measure(batch.alone(nets, 0), batch.alone(evaluate, 0), jax.tree.map(lambda leaf: leaf[0], models))
        return jax.tree.map(lambda leaf: leaf[None], one)
    return jax.vmap(measure, in_axes=(nets.axes, evaluate.axes, 0))(nets.tree, evaluate.tree, models)


def _with_rates(local: Any, rates: np.ndarray) -> Any:
    """Optimiser states whose learning rates are `rates [B]`."""
    old = local.hyperparams["learning_rate"]
    new = jnp.broadcast_to(jnp.asarray(rates, old.dtype)[:, None], old.shape)
    return local._replace(hyperparams={**local.hyperparams, "learning_rate": jnp.copy(new)})


def _due(config: SweepConfig) -> list[tuple[int, list[int]]]:
    """Steps at which rows are written, and the chunks that lead to each."""
    base, found, done = config.base, [], 0
    while done < base.steps:
        due = min(done + base.eval_every, base.steps)
        chunk, left, chunks = chunk_of(base.eval_every), due - done, []
        while left:
            chunks.append(min(chunk, left))
            left -= chunks[-1]
        found.append((due, chunks))
        done = due
    return found


def _claim(run: records.RunFolder, told: dict, fits: list[tuple[int, int]]) -> list[int]:
    """The sizes of the blocks: those that the sweep began with, because finished blocks are of that size.

    Raises:
      ValueError: the folder holds another sweep, or blocks that no longer fit the memory.
    """
    told, kept = json.loads(json.dumps(told)), run.read_config()
    if kept is None:
        run.write_config({"sweep": told, "blocks": [size for size, _ in fits]})
        return [size for size, _ in fits]
    remedy = "use --overwrite to start anew, or another --out"
    if kept.get("sweep") != told:
        raise ValueError(f"{run.path} holds another sweep; {remedy}")
    for size, (_, most) in zip(kept["blocks"], fits, strict=True):
        if size > most:
            raise ValueError(
                f"{run.path} was begun {size} simulations at a time and {most} fit the memory now; {remedy}"
            )
    return kept["blocks"]


def _leave(path: Path, config: SweepConfig, rows: list[dict]) -> None:
    from dbwjax.experiments import sweep_report

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path / "results.csv", lambda file: file.write(text.getvalue().encode()))
    summary = sweep_report.summarise(config, rows)
    write_json(path / "summary.json", summary)
    figures = sweep_report.write_figures(path, config, rows)
    print(sweep_report.table(summary))
    print(
        f"{len(rows)} rows in {path / 'results.csv'}; figures: {', '.join(figure.name for figure in figures) or 'none'}"
    )


def _bar(options: RunOptions, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="sweep", unit=" simulations", disable=None if options.progress else True)


def _mean(values: np.ndarray) -> float | None:
    return _finite(np.mean(values, dtype=np.float64)) if values.size else None


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
