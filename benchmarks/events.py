"""Event-driven methods, one event after another and many in one wide step, against an event queue in Python.

    python -m benchmarks events

AD-PSGD (events of different pairs: waves) and a stale-synchronous server (every event writes the server: blocks) train
the product's `digits` (scikit-learn's, 64 features, 10 classes) with a linear model. All take turns in one process:

- `one by one`: `simulate.run`, a scan over clock and learner;
- `wide`: `engine.wide.advance`: the clock alone, the wide steps made on the host, and the learner over them;
- `queue`: a heap in Python that calls one jitted, donating update per event. Delays and partners lie in tables and
  parameters are those of the engine (checked). Workers' parameters are arrays of their own, or rows of one stack:
  whichever is faster;
- the limits: the gradient alone, and the rows that an event moves at the speed of a copy;
- the clock alone, and with the ledger that `train` keeps.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.worlds import initial_params, make_world
from dbwjax.engine import ahead, batch, clock, ensemble, ledger, simulate, timeline, wide
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.readings import Due
from dbwjax.engine.simulate import World
from dbwjax.network import delays, graphs
from dbwjax.policies import build_policy
from dbwjax.tasks import build_task
from dbwjax.types import Policy

RATE, BOUND = 0.05, 3
METHODS = {"AD-PSGD": "adpsgd", "SSP": f"ssp:bound={BOUND}"}
ROWS = {"AD-PSGD": 6, "SSP": 4}
"""Rows of parameters that an event reads and writes."""
ROUNDS = 9
QUEUE, CLOCK, WAVES, GROWTH = 15.0, 1.5, 2.0, 1.3
"""What is wanted: so many times the queue, microseconds of the clock alone, times one by one with a batch of one, and
the cost of an event with the most workers over that with the fewest."""


class Case(NamedTuple):
    """One method with N workers and batches of B."""

    name: str
    policy: Policy
    learner: Any
    world: World
    task: Any
    one: Any  # a worker's initial parameters
    start: simulate.SimState


def case_of(name: str, workers: int, size: int) -> Case:
    """A method on a random regular graph of degree 4 (its links do not matter to a server)."""
    task = build_task("digits", model="lrm", workers=workers, batch_size=size)
    graph = graphs.random_regular(workers, degree=4, seed=0)
    policy, learner = build_policy(METHODS[name]), from_optimizer(task.loss, optax.sgd(RATE))
    law = delays.build_delays("shifted_exponential", workers, 0)
    world = simulate.networked(policy, make_world(task, graph, law))
    one = initial_params(task, world)
    return Case(name, policy, learner, world, task, one, simulate.init(policy, learner, world, one))


def measure(quick: bool) -> dict:
    """Every method and batch size, all numbers of workers in turns with the limits."""
    sizes, counts = ((1,), (16, 32)) if quick else ((32, 1), (64, 256, 1024))
    steps, few = (40, 20) if quick else (2000, 400)
    figures: dict[str, Any] = {}
    missed: dict[str, dict[str, float]] = {}
    for name in METHODS:
        for size in sizes:
            cases = {count: case_of(name, count, size) for count in counts}
            found, seconds = _of_cases(cases, steps, few, quick)
            figures[f"{name}, batch={size}"] = found
            missed |= _missed(f"{name}, batch={size}", name, size, counts, (steps, few), seconds)
    return {**figures, "missed": missed}


def _of_cases(cases: dict[int, Case], steps: int, few: int, quick: bool) -> tuple[dict, dict]:
    work: dict[str, Callable[[], Any]] = {}
    apart: dict[str, float] = {}
    for count, case in cases.items():
        own, apart[f"N={count}"] = _work(case, steps, few)
        work |= {f"N={count} {name}": call for name, call in own.items()}
    first = next(iter(cases.values()))
    work["gradient alone"] = _gradient(first.task, first.one, steps)
    work["copy"], copied = timing.copy(64 if quick else 512)
    seconds = timing.take_turns(work, 3 if quick else ROUNDS)
    row = sum(leaf.nbytes for leaf in jax.tree.leaves(first.one))
    figures: dict[str, Any] = {
        "limit: copy bandwidth [GB/s]": timing.rates(seconds["copy"], copied / 1e9),
        "limit: gradients a second": timing.rates(seconds["gradient alone"], steps),
    }
    for count in cases:
        at = f"N={count} "
        queue = _faster(seconds, at)
        figures[f"N={count}"] = {
            "events a second": {
                **{name: timing.rates(seconds[at + name], steps) for name in ("one by one", "wide")},
                queue.removeprefix(at): timing.rates(seconds[queue], few),
            },
            "times the queue": {
                name: timing.ratios(seconds, at + name, queue, steps / few) for name in ("one by one", "wide")
            },
            "wide over one by one": timing.ratios(seconds, at + "wide", at + "one by one"),
            "fraction of the gradient alone": {
                name: timing.ratios(seconds, at + name, "gradient alone") for name in ("one by one", "wide")
            },
            "fraction of a copy of the rows moved": timing.ratios(
                seconds, at + "one by one", "copy", steps * ROWS[first.name] * row / copied
            ),
            "an event of the clock alone [us]": _micro(seconds[at + "clock"], steps),
            "an event of the clock with the ledger [us]": _micro(seconds[at + "ledger"], steps),
            "making an event's part of a wide step [us]": _micro(seconds[at + "made"], steps),
            "largest difference of the queue's parameters": apart[f"N={count}"],
        }
    least, most = min(cases), max(cases)
    figures[f"an event at N={most} over N={least}"] = {
        name: timing.ratios(seconds, f"N={least} {name}", f"N={most} {name}")
        for name in ("one by one", "wide", "clock")
    }
    return figures, seconds


def _micro(seconds: list[float], steps: int) -> timing.Figure:
    return timing.spread([1e6 * taken / steps for taken in seconds])


def _faster(seconds: dict[str, list[float]], at: str) -> str:
    return min((at + "queue of arrays", at + "queue of rows"), key=lambda name: float(np.median(seconds[name])))


def _missed(
    title: str, name: str, size: int, counts: tuple[int, ...], steps: tuple[int, int], seconds: dict[str, list[float]]
) -> dict[str, dict[str, float]]:
    """What is wanted and was not found, by medians."""
    middle = {key: float(np.median(taken)) for key, taken in seconds.items()}
    least, most, here = f"N={counts[0]} ", f"N={counts[-1]} ", f"N={counts[1]} "
    best = min(middle[here + "one by one"], middle[here + "wide"])
    found = {
        f"{here}times the queue": (QUEUE, middle[_faster(seconds, here)] / best * steps[0] / steps[1], 1),
        f"{here}microseconds of the clock": (CLOCK, 1e6 * middle[here + "clock"] / steps[0], -1),
        f"{most}over {least}": (GROWTH, middle[most + "one by one"] / middle[least + "one by one"], -1),
    }
    if size == 1 and name == "AD-PSGD":
        found[f"{here}wide over one by one"] = WAVES, middle[here + "one by one"] / middle[here + "wide"], 1
    return {
        f"{title}: {what}": {"wanted": wanted, "found": value}
        for what, (wanted, value, sign) in found.items()
        if sign * value < sign * wanted
    }


def _work(case: Case, steps: int, few: int) -> tuple[dict[str, Callable[[], Any]], float]:
    """What takes turns, and how far the queue's parameters are from the engine's after `few` events."""
    policy, learner, world, start = case.policy, case.learner, case.world, case.start
    lean: Any = world._replace(batches=None)
    queues = {f"queue of {kind}": Queue(case, few, ROUNDS + 2, kind == "rows") for kind in ("arrays", "rows")}
    exact = simulate.run(policy, learner, world, jax.tree.map(jnp.copy, start), few)[0].model.params
    for queue in queues.values():
        queue.run()
    apart = max(_apart(exact, queue.stack()) for queue in queues.values())
    box = [jax.tree.map(jnp.copy, start)]

    def one_by_one() -> jax.Array:
        box[0], record = simulate.run(policy, learner, world, box[0], steps)
        return record.loss

    together, made = _wide(case, steps)
    look = jax.jit(lambda world, state: ledger.look_ahead(policy, world, state, steps))
    work: dict[str, Callable[[], Any]] = {
        "one by one": one_by_one,
        "wide": together,
        "made": made,
        **{name: queue.run for name, queue in queues.items()},
        "clock": lambda: _clock(policy, lean, start.clock, steps),
        "ledger": lambda: look(lean, start.clock),
    }
    return work, apart


def _apart(first: Any, second: Any) -> float:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)


@partial(jax.jit, static_argnames=("policy", "steps"))
def _clock(policy: Policy, world: World, state: Any, steps: int) -> Any:
    def one(state: Any, _: None) -> tuple[Any, jax.Array]:
        plan, state = clock.tick(policy, world.graph, world.delays, world.key, state)
        return state, plan.duration

    return jax.lax.scan(one, state, None, length=steps)


def _wide(case: Case, steps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Wide steps: all of it, and making them alone."""
    policy, world = case.policy, case.world
    worlds, computes = batch.stack([world]), np.asarray(world.graph.computes)
    every = jax.tree.map(lambda leaf: jnp.copy(leaf)[None], case.start)
    _, plans = ahead.plans_of(policy, worlds, every.clock, np.array([steps]), steps)
    plans = jax.tree.map(lambda leaf: leaf[0], plans)
    way = ahead.chosen(policy, plans, computes, forced=True)
    first, one = np.zeros((1, steps + 1), np.int32), np.zeros((1, 1), np.int32)
    weights = np.zeros((1, 1, len(computes)), np.float32)
    due: Any = Due(first, one, one, weights, np.zeros((1, 1), np.float32), first, one, one)
    box = [every, ensemble.no_readings(case.one, 1, None)]

    def run() -> np.ndarray:
        box[0], box[1], seen = wide.advance(policy, case.learner, worlds, box[0], box[1], due, np.array([steps]), way)
        return seen.loss

    return run, lambda: ahead.made(policy, way, plans, steps, np.zeros(steps, bool), len(computes)).events


def _gradient(task: Any, one: Any, steps: int) -> Any:
    sample = task.batches(jax.random.key(0), jnp.asarray(0), jnp.asarray(0))

    @jax.jit
    def many(params: Any) -> Any:
        def body(params: Any, _: None) -> tuple[Any, None]:
            return jax.tree.map(lambda p, g: p - 1e-6 * g, params, jax.grad(task.loss)(params, sample)), None

        return jax.lax.scan(body, params, None, length=steps)[0]

    return lambda: many(one)


class Queue:
    """A simulator as one writes it in Python: a heap of finishes, and one jitted update per event.

    Args:
      case: what is trained.
      events: how many are run at a time.
      times: how often that may be.
      rows: whether all parameters are one stack; otherwise every worker's are arrays of their own.
    """

    def __init__(self, case: Case, events: int, times: int, rows: bool):
        world, self.events, self.rows, self.serves = case.world, events, rows, case.name == "SSP"
        lean: Any = world._replace(batches=None)
        after, plans = timeline.timeline(case.policy, lean, case.start.clock, events * times)
        workers, most = int(world.graph.computes.sum()), int(after.started.max()) + 2
        draw = jax.jit(jax.vmap(jax.vmap(world.delays, (None, None, 0)), (None, 0, None)))
        drawn = draw(stream(world.key, Stream.DELAYS), jnp.arange(workers), jnp.arange(most))
        self.delays = np.asarray(drawn, float).tolist()
        self.partner: list[list[int]] = [[] for _ in range(workers)]
        if not self.serves:
            for i, j in zip(np.asarray(plans.workers)[:, 0], np.asarray(plans.info["partner"]), strict=True):
                self.partner[i].append(int(j))
        key, task = stream(world.key, Stream.BATCHES), case.task

        def update(params: Any, i: Any, n: Any) -> Any:
            gradient = jax.grad(task.loss)(params, task.batches(key, i, n))
            return jax.tree.map(lambda leaf: -RATE * leaf, gradient)

        nodes = workers + self.serves
        self.step = _steps(update)["SSP" if self.serves else "AD-PSGD", rows]
        self.x, self.origin = (
            jax.tree.map(lambda leaf: jnp.stack([leaf] * nodes), case.one)
            if rows
            else [jax.tree.map(jnp.copy, case.one) for _ in range(nodes)]
            for _ in range(2)
        )
        self.started, self.waiting = [0] * workers, []
        self.heap = [(self.delays[i][0], i) for i in range(workers)]
        heapq.heapify(self.heap)

    def run(self) -> Any:
        """Runs so many events more; the parameters."""
        one = self._serve if self.serves else self._pair
        for _ in range(self.events):
            one()
        return self.x

    def stack(self) -> Any:
        """The parameters of all nodes, leaves `[N, ...]`."""
        return self.x if self.rows else jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.x)

    def _begin(self, now: float, i: int) -> None:
        heapq.heappush(self.heap, (now + self.delays[i][self.started[i]], i))

    def _pair(self) -> None:
        now, i = heapq.heappop(self.heap)
        n = self.started[i]
        j = self.partner[i][n]
        if self.rows:
            self.x, self.origin = self.step(self.x, self.origin, np.int32(i), np.int32(j), np.int32(n))
        else:
            x, origin = self.x, self.origin
            x[i], x[j], origin[i] = self.step(x[i], x[j], origin[i], np.int32(i), np.int32(n))
        self.started[i] = n + 1
        self._begin(now, i)

    def _serve(self) -> None:
        least = min(self.started)
        free = [k for k in self.waiting if self.started[k] - least <= BOUND]
        if free:
            self._release(min(free))
            return
        self.now, i = heapq.heappop(self.heap)
        n = self.started[i]
        self.started[i] = n + 1
        goes = n + 1 - min(self.started) <= BOUND
        if self.rows:
            self.x = self.step(self.x, np.int32(i), np.int32(n), np.int32(i if goes else len(self.started) + 1))
        else:
            self.x[-1] = self.step(self.x[-1], self.x[i], np.int32(i), np.int32(n))
            if goes:
                self.x[i] = self.x[-1]
        if goes:
            self._begin(self.now, i)
        else:
            self.waiting.append(i)

    def _release(self, k: int) -> None:
        self.waiting.remove(k)
        if self.rows:
            self.x = _pulled(self.x, np.int32(k))
        else:
            self.x[k] = self.x[-1]
        self._begin(self.now, k)


def _steps(update: Callable[[Any, Any, Any], Any]) -> dict[tuple[str, bool], Callable[..., Any]]:
    """The jitted update of an event, by method, and whether the parameters are rows of one stack."""

    def added(base: Any, found: Any) -> Any:
        return jax.tree.map(lambda leaf, u: leaf + u, base, found)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def paired(x: Any, y: Any, origin: Any, i: Any, n: Any) -> Any:
        mean = jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, x, y)
        new = added(mean, update(origin, i, n))
        return new, mean, jax.tree.map(jnp.copy, new)

    @partial(jax.jit, donate_argnums=(0, 1))
    def paired_rows(x: Any, origin: Any, i: Any, j: Any, n: Any) -> Any:
        mean = jax.tree.map(lambda leaf: 0.5 * leaf[i] + 0.5 * leaf[j], x)
        new = added(mean, update(jax.tree.map(lambda leaf: leaf[i], origin), i, n))
        x = jax.tree.map(lambda leaf, a, b: leaf.at[j].set(b).at[i].set(a), x, new, mean)
        return x, jax.tree.map(lambda leaf, a: leaf.at[i].set(a), origin, new)

    # The server's array is the worker's from then on: nothing is copied, so nothing can be donated.
    served = jax.jit(lambda server, at, i, n: added(server, update(at, i, n)))

    @partial(jax.jit, donate_argnums=(0,))
    def served_rows(x: Any, i: Any, n: Any, goes: Any) -> Any:
        server = added(jax.tree.map(lambda leaf: leaf[-1], x), update(jax.tree.map(lambda leaf: leaf[i], x), i, n))
        return jax.tree.map(lambda leaf, a: leaf.at[-1].set(a).at[goes].set(a, mode="drop"), x, server)

    return {
        ("AD-PSGD", False): paired,
        ("AD-PSGD", True): paired_rows,
        ("SSP", False): served,
        ("SSP", True): served_rows,
    }


@partial(jax.jit, donate_argnums=(0,))
def _pulled(x: Any, k: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.at[k].set(leaf[-1]), x)
