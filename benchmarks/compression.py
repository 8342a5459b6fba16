"""Compressed messages: what a step costs, which gamma CHOCO bears, and who diverges with which codec.

    python -m benchmarks compression
    python -m benchmarks.compression [--write] [FILE]     the tables of docs/compression.md

The step is of 2nn, 64 workers, batches of 32, in turns with the plain one. Training is softmax regression on the
embedded digits, two shards of labels a worker, ten workers in a ring, in ten paired worlds. Gammas are tried on noisy
quadratics whose minimisers differ, in ten worlds, too.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import results, rule_table, timing
from benchmarks.step import RATE, STEPS, problem
from benchmarks.worlds import initial_params, make_world
from dbwjax import build_task, compare
from dbwjax.engine import simulate
from dbwjax.engine.learner import from_optimizer
from dbwjax.learners.codecs import build_codec, seeds_of
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.report.statistics import summarise

PAGE = Path(__file__).parents[1] / "docs" / "compression.md"
STEPPED = ("full", "choco:codec=identity", "choco", "dpsgd", "dcd", "ecd")
CODECS = (
    "identity",
    *(f"quantize:bits={bits}" for bits in (8, 4, 2)),
    *(f"random_k:fraction={fraction}" for fraction in (0.5, 0.1)),
    *(f"top_k:fraction={fraction}" for fraction in (0.1, 0.01)),
)
_BOTH = ("quantize:bits=8", "quantize:bits=4", "quantize:bits=2", "random_k:fraction=0.5")
_CHOCO = (
    *("quantize:bits=8", "quantize:bits=4", "quantize:bits=2", "quantize:bits=2,gamma=1"),
    *("top_k:fraction=0.1", "top_k:fraction=0.1,gamma=0.4"),
)
TRAINED = {"choco": _CHOCO, "dcd": _BOTH, "ecd": _BOTH}
GAMMAS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
NETS = {"ring": graphs.ring, "star": graphs.star, "complete": graphs.complete}
WORKERS, ENTRIES, TURNS = 16, 256, 9


def measure(quick: bool) -> dict[str, Any]:
    """The three tables."""
    return {"step": steps(quick), "gamma": gammas(quick), "training": training(quick)}


def steps(quick: bool) -> dict[str, Any]:
    """A step's time over the plain step's, round by round: of the wall clock, and of all cores together."""
    workers, rounds = (8, 3) if quick else (64, TURNS)
    work = {spec: _stepping(spec, workers) for spec in STEPPED}
    both = timing.take_turns(work, rounds, lambda: np.array([time.perf_counter(), time.process_time()]))
    found: dict[str, Any] = {}
    for at, name in enumerate(("wall", "cpu")):
        seconds = {spec: [float(taken[at]) for taken in turns] for spec, turns in both.items()}
        over = {spec: timing.ratios(seconds, "full", spec) for spec in STEPPED[1:]}
        found[name] = {"seconds of full": min(seconds["full"]) / STEPS, "over full": over}
    print("steps", found, flush=True)
    return found


def _stepping(spec: str, workers: int, batch: int = 32) -> Any:
    task = problem(workers, batch)
    graph = graphs.random_regular(workers, degree=4, seed=0)
    world = make_world(task, graph, delays.build_delays("shifted_exponential", workers, 0))
    learner, policy = from_optimizer(task.loss, optax.sgd(RATE)), build_policy(spec)
    box = [simulate.init(policy, learner, world, initial_params(task, world))]

    def call() -> Any:
        box[0], record = simulate.run(policy, learner, world, box[0], STEPS)
        return record.loss

    return call


def gammas(quick: bool) -> dict[str, Any]:
    """By codec: delta, and by graph the largest gamma of `GAMMAS` that all worlds bear, and the best one.

    A gamma is borne if the consensus distance at the end is at most that of nobody ever mixing.
    """
    seeds, found = 2 if quick else 10, {}
    # Nobody mixes: the same with every codec and every gamma.
    alone = np.asarray(_distances(build_codec("identity").contractive, jnp.eye(WORKERS), seeds))[:, :1]
    for spec in CODECS:
        codec = build_codec(spec)
        found[spec] = {"delta": codec.delta}
        for name, build in NETS.items():
            distance = np.asarray(_distances(codec.contractive, jnp.asarray(_metropolis(build(WORKERS))), seeds))
            worst = np.nan_to_num(distance / alone, nan=np.inf).max(axis=0)
            borne = [gamma for gamma, ratio in zip(GAMMAS, worst, strict=True) if ratio <= 1]
            found[spec][name] = {"largest": max(borne, default=0.0), "best": GAMMAS[int(worst.argmin())]}
        print(spec, found[spec], flush=True)
    return found


def _metropolis(graph: Any) -> np.ndarray:
    near = np.asarray(graphs.adjacency(graph)).astype(float)
    np.fill_diagonal(near, 0)
    degree = near.sum(axis=1)
    weights = near / (1 + np.maximum(degree[:, None], degree[None]))
    return weights + np.diag(1 - weights.sum(axis=1))


@partial(jax.jit, static_argnames=("code", "seeds"))
def _distances(code: Any, mixing: jax.Array, seeds: int, rate: float = 0.05, steps: int = 200) -> jax.Array:
    """`[seeds, gammas]` mean squared consensus distance over the last 50 iterations of CHOCO."""

    def of(seed: jax.Array, gamma: jax.Array) -> jax.Array:
        key = jax.random.key(seed)
        target = jax.random.normal(jax.random.fold_in(key, 0), (WORKERS, ENTRIES))
        target *= jnp.exp(jax.random.normal(jax.random.fold_in(key, 1), (ENTRIES,)))

        def step(carry: tuple, k: jax.Array) -> tuple:
            x, known = carry
            now = jax.random.fold_in(key, k + 2)
            half = x - rate * (x - target + jax.random.normal(now, x.shape))
            told = code(seeds_of(jax.random.split(now, WORKERS), 1), [half - known])[0]
            known += told
            x = half + gamma * (mixing @ known - known)
            return (x, known), ((x - x.mean(axis=0)) ** 2).sum()

        zero = jnp.zeros((WORKERS, ENTRIES))
        return jax.lax.scan(step, (zero, zero), jnp.arange(steps))[1][-50:].mean()

    return jax.lax.map(lambda gamma: jax.vmap(of, (0, None))(jnp.arange(seeds), gamma), jnp.asarray(GAMMAS)).T


def training(quick: bool) -> dict[str, Any]:
    """By method and codec: accuracy and loss at the time of 200 iterations of `full`, beside the plain method's."""
    seeds, steps = (2, 20) if quick else (10, 200)
    rivals = {"choco": "full", "dcd": "dpsgd", "ecd": "dpsgd"}
    specs = ["full", "dpsgd"]
    for method, codecs in TRAINED.items():
        specs += [f"{method}:codec={codec}" for codec in codecs]
    world = {"learning_rate": 0.1, "workers": 10, "seeds": seeds}
    # To the same virtual time, which is `full`'s.
    found = compare(specs, _digits, "ring", "shifted_exponential", steps=steps, rows=4, baseline="full", **world)
    table: dict[str, Any] = {}
    for spec in specs:
        rival = rivals.get(spec.split(":")[0])
        rows = [row for row in found.rows if row["policy"] == spec]
        first, last = (np.array([row["test_loss"] for row in rows if row["row"] == at]) for at in (0, 4))
        facts = summarise(found.rows, found.worlds, specs, rival or spec, None)["policies"][spec]
        sent = sum(row["bytes_sent"] for row in rows if row["row"] == 4)
        table[spec] = {
            "accuracy": facts["test_accuracy"],
            "difference": {name: facts["accuracy_difference"][name] for name in ("estimate", "low", "high")}
            if rival and facts["accuracy_difference"]
            else None,
            "loss": float(np.median(last)),
            "worse than at the start": int((~(last <= first)).sum()),
            "bytes": sent / sum(row["gradients"] for row in rows if row["row"] == 4),
        }
        print(spec, table[spec], flush=True)
    return table


def _digits(seed: int) -> Any:
    return build_task("digits", model="lrm", workers=10, batch_size=32, partition="shards:per_worker=2", seed=seed)


def tables(file: str | Path = rule_table.FILE) -> str:
    """The tables in Markdown.

    Raises:
      ValueError: not a result file.
    """
    entry = results.load(file)["parts"].get("compression")
    if entry is None:
        return "Not measured yet: `python -m benchmarks compression`, then `python -m benchmarks.compression --write`."
    figures = entry["figures"]
    said = f"Measured {entry['date']}, commit {entry['commit']}" + ", quick" * entry["quick"]
    plain = figures["training"]["full"]["bytes"], figures["training"]["dpsgd"]["bytes"]
    trained = [
        [
            f"`{spec}`",
            f"{facts['accuracy']:.3f}",
            _difference(facts["difference"]),
            f"{facts['loss']:.3g}",
            str(facts["worse than at the start"]),
            f"{facts['bytes'] / plain[spec[0] in 'de']:.3f}",
        ]
        for spec, facts in figures["training"].items()
    ]
    borne = [
        [f"`{spec}`", f"{of['delta']:.3f}", *(f"{of[net]['largest']:g}, {of[net]['best']:g}" for net in NETS)]
        for spec, of in figures["gamma"].items()
    ]
    step = [
        [f"`{spec}`", *(_spread(figures["step"][clock]["over full"][spec]) for clock in ("wall", "cpu"))]
        for spec in figures["step"]["wall"]["over full"]
    ]
    titles = ["method", "accuracy", "less the plain method's", "loss", "worse than at the start", "bytes"]
    return "\n\n".join(
        [
            f"{said}.",
            "At the time of 200 iterations of `full`, ten workers in a ring, ten paired worlds: accuracy of the mean "
            "model, its difference to `full` or `dpsgd` in the same worlds with its 95 % interval, the median loss, "
            "in how many worlds that is above the loss at the start, and bytes over those of the plain method.",
            rule_table.lines(titles, trained),
            "CHOCO's gamma: the largest of those tried that all ten worlds bear, and the best.",
            rule_table.lines(["codec", "delta", *NETS], borne),
            "Time of a step over that of `full` (2nn, 64 workers, batches of 32): median, least and greatest of "
            f"{TURNS} turns.",
            rule_table.lines(["method", "wall clock", "processor time"], step),
        ]
    )


def _difference(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['estimate']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _spread(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def main(given: list[str]) -> int:
    """Prints the tables, or writes them into the page."""
    write, files = "--write" in given, [word for word in given if word != "--write"]
    made = tables(files[0] if files else rule_table.FILE)
    if not write:
        print(made)
        return 0
    PAGE.write_text(rule_table.updated(PAGE.read_text(), files[0] if files else rule_table.FILE, tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
