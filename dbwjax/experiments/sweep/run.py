"""A sweep: worlds that agree in every shape are one batch, batches are walked in blocks, blocks are what is resumed.

A block's simulations are shared among the devices (a CPU is as many as it has cores). On a CPU each device holds as
many as fit the cache beside one another, on an accelerator all of them, or as many as fit its memory. A finished block
is one file, written whole; the same command goes on with those that are missing, on any number of devices. A
simulation whose loss stops being finite leaves blank cells and `diverged` from then on, and the others go on.
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
from jax.sharding import Mesh

from dbwjax.engine import batch, ensemble
from dbwjax.engine.batch import Batch
from dbwjax.experiments.config import RunOptions
from dbwjax.experiments.metrics import measure_batch
from dbwjax.experiments.sweep.config import SweepConfig, content, worlds
from dbwjax.experiments.sweep.groups import Group, build_group, same_shapes
from dbwjax.experiments.training import chunk_of
from dbwjax.files import replace_file, write_json
from dbwjax.policies import build_policy
from dbwjax.runtime import memory
from dbwjax.runtime.devices import cache_programs, cores_or
from dbwjax.storage import run_folder
from dbwjax.types import Policy

CACHE = 2 << 20
"""Bytes of parameters that a CPU's device runs side by side: beyond the cache a batch is slower than its simulations
alone."""

CLOCKS = 1024
"""Clocks that run side by side."""

TICK = 32
"""Bytes of a clock for each worker and slot; `backup` needs most, 30 (what the compiler says, 5,000 workers)."""


def run_sweep(config: SweepConfig, options: RunOptions) -> int:
    """Runs what is not there yet, and leaves the table, the summary and the figures.

    Returns:
      0.

    Raises:
      ValueError: something typed or found in the folder is wrong, or does not fit the memory.
    """
    if options.compile_cache is not None:
        cache_programs(options.compile_cache)
    everything = worlds(config)
    memory.require_graphs({(one.config.graph, one.config.workers, one.graph_seed) for one in everything})
    devices = cores_or(options.devices)
    policies = {spec: build_policy(spec) for spec in config.base.policies}
    groups = [build_group(config, everything, members, policies) for members in same_shapes(everything)]
    fits = [_block_size(group, len(devices)) for group in groups]
    folder = Path(options.out) if options.out is not None else Path("runs") / f"sweep-{config.base.preset}"
    with run_folder.RunFolder.open(folder, options.overwrite) as run:
        blocks = _claim(run, content(config), fits)
        meshes = [batch.mesh_of(devices[:size]) for size in blocks]
        groups = [
            group._replace(
                worlds=batch.spread_common(group.worlds, mesh),
                evaluate=group.evaluate and batch.spread_common(group.evaluate, mesh),
            )
            for group, mesh in zip(groups, meshes, strict=True)
        ]
        parts = run.path / "parts"
        parts.mkdir(exist_ok=True)
        todo = list(_blocks(policies, groups, blocks))
        with _bar(options, sum(len(which) for *_, which in todo)) as bar:
            for spec, number, size, which in todo:
                part = parts / f"{list(policies).index(spec)}-{number}-{which[0]}.json"
                if not part.exists():
                    rows = _run_block(config, spec, policies[spec], groups[number], which, (size, meshes[number]))
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


def _block_size(group: Group, devices: int) -> tuple[int, int]:
    """How many simulations run at once, and how many would fit the memory.

    Raises:
      ValueError: not even one for each device fits the memory.
    """
    count = len(group.members)
    if group.params is None or group.learner is None or group.evaluate is None:
        return _clocks_at_once(group)
    one = jax.tree.map(lambda leaf: leaf[0], group.params)
    local = jax.eval_shape(group.learner.init, one)
    stack = float(group.workers * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((one, local))))
    held = float(sum(leaf.nbytes for leaf in jax.tree.leaves((group.worlds.tree.batches, group.evaluate.tree))))
    each = stack * (memory.COPIES + 1) + group.working
    on_cpu = jax.default_backend() == "cpu"
    used = min(devices, count)
    # A CPU's devices share one memory; each has its own copy of the data.
    free = memory.available_bytes() / (used if on_cpu else 1)
    most = int((free - held) // each)
    if most < 1:
        fits = max(int(group.workers * (free - held) // each), 0)
        fewer = "fewer --devices, " if used > 1 else ""
        remedy = f"use {fewer}at most {fits} workers, or a smaller --model"
        memory.require_memory(held + each, f"a simulation of --workers {group.workers}", remedy, int(free))
    wanted = max(1, int(CACHE // stack)) if on_cpu else count
    return min(used * min(wanted, most), count), used * most


def _clocks_at_once(group: Group) -> tuple[int, int]:
    """`_block_size` of clocks alone."""
    count, slots = len(group.members), group.worlds.tree.graph.neighbours.shape[-1]
    each, free = TICK * group.workers * slots, memory.available_bytes()
    most = min(int(free // each), CLOCKS)
    if most < 1:
        what = f"a clock of --workers {group.workers} and {slots - 1} neighbours"
        fits = memory.largest(lambda count: TICK * count * min(slots, count), free, group.workers)
        memory.require_memory(each, what, f"use at most {fits} workers", free)
    return min(most, count), most


def _blocks(
    policies: dict[str, Policy], groups: list[Group], sizes: list[int]
) -> Iterator[tuple[str, int, int, np.ndarray]]:
    for spec in policies:
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            for begin in range(0, len(group.members), size):
                yield spec, number, size, np.arange(begin, min(begin + size, len(group.members)))


def _run_block(
    config: SweepConfig, spec: str, policy: Policy, group: Group, which: np.ndarray, where: tuple[int, Mesh | None]
) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a block's simulations, each with its world's place.

    Args:
      config: the sweep.
      spec: the policy's.
      policy: who waits for whom.
      group: worlds of one shape.
      which: places in the group.
      where: the size of a full block, and the devices that share it; `None`: one.
    """
    size, mesh = where
    shares = 1 if mesh is None else mesh.size
    # A block that is shorter or does not divide repeats itself, so that nothing is compiled anew.
    filled = np.resize(which, -(-size // shares) * shares)
    some = batch.spread(batch.take(group.worlds, filled), mesh)
    states = jax.tree.map(lambda leaf: leaf[filled], group.states[spec])
    if group.params is None or group.learner is None:
        rows = _clock_rows(config, policy, some, states, group.workers, mesh)
    else:
        rows = _training_rows(config, policy, group, some, states, filled, mesh)
    return [(group.members[place], row) for place, of_one in zip(which, rows, strict=False) for row in of_one]


def _clock_rows(
    config: SweepConfig, policy: Policy, some: Batch, states: Any, workers: int, mesh: Mesh | None
) -> list[list[dict]]:
    clocks, found = ensemble.start(some, states, mesh), []
    for _, chunks in _due(config):
        for steps in chunks:
            clocks, record = ensemble.clock_batch(policy, some, clocks, steps, mesh)
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
    config: SweepConfig,
    policy: Policy,
    group: Group,
    some: Batch,
    states: Any,
    filled: np.ndarray,
    mesh: Mesh | None,
) -> list[list[dict]]:
    if policy.reads_training or group.learner is None or group.evaluate is None:
        raise ValueError("a policy that reads training cannot be swept; use python -m dbwjax.train")
    params = jax.tree.map(lambda leaf: leaf[filled], group.params)
    sims = ensemble.init(policy, group.learner, some, states, params, mesh)
    sims = sims._replace(model=sims.model._replace(local=_with_rates(sims.model.local, group.rates[filled])))
    evaluate = batch.spread(batch.take(group.evaluate, filled), mesh)
    nets = Batch(some.tree.graph, some.axes.graph)
    rows: list[list[dict]] = [[] for _ in filled]
    elapsed, gradients = np.zeros(len(filled)), np.zeros(len(filled), int)
    diverged = np.zeros(len(filled), bool)
    for due, chunks in [(0, []), *_due(config)]:
        seen = []
        for steps in chunks:
            sims, record = ensemble.run_batch(policy, group.learner, some, sims, steps, mesh)
            seen.append(jax.device_get(record))
        for record in seen:
            for duration in record.duration.astype(np.float64).T:  # in order, as `Training` adds them
                elapsed = elapsed + duration
            gradients = gradients + record.gradients.sum(axis=1)
            diverged |= (record.broken >= 0).any(axis=1)
        none = np.zeros((len(filled), 0))
        since = {
            "train_loss": np.concatenate([none, *(record.loss for record in seen)], axis=1),
            "active_fraction": np.concatenate([none, *(record.active.mean(axis=2) for record in seen)], axis=1),
            "backup_workers": np.concatenate([none, *(record.backup_workers for record in seen)], axis=1),
        }
        figures = jax.device_get(measure_batch(nets, evaluate, sims.model, mesh))
        diverged |= ~np.isfinite(figures["test_loss"])
        for place, row in enumerate(rows):
            row.append(
                {
                    "step": due,
                    "virtual_time": _finite(elapsed[place]),
                    **{name: _mean(values[place]) for name, values in since.items()},
                    **{name: _finite(values[place]) for name, values in figures.items()},
                    "gradients": int(gradients[place]),
                    "diverged": bool(diverged[place]),
                }
            )
    return rows


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


def _claim(run: run_folder.RunFolder, told: dict, fits: list[tuple[int, int]]) -> list[int]:
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
    from dbwjax.report import sweep_figures

    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path / "results.csv", lambda file: file.write(text.getvalue().encode()))
    summary = sweep_figures.summarise(config, rows)
    write_json(path / "summary.json", summary)
    figures = sweep_figures.write_figures(path, config, rows)
    print(sweep_figures.table(summary))
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
