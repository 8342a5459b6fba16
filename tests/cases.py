"""Cases that several tests share: a small learner, worlds, simulations seen step by step, batches of worlds.

Programs take worlds as arguments, so that one is compiled for a policy and a shape and not for every world.
"""

from __future__ import annotations

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dbwjax.engine import clock, simulate
from dbwjax.engine import learner as learning
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.network import delays as laws
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.types import Learner, Objective, Squares
from tests import handmade

STEPS = 60
"""Steps of a simulation that is seen step by step, unless a test says otherwise."""

P, RATE, NOISES = 3, 0.1, 4096

policy_of = functools.cache(build_policy)
"""A policy from its SPEC: one object, so one compilation for all the tests of it."""


def sample(targets, noise, key, worker, started):
    """One worker's 'batch': its own minimiser, and noise that differs in all that a batch may depend on.

    It is looked up: drawing it would be up to half of a program's compilation.
    """
    word = (jax.random.key_data(key)[-1] % NOISES).astype(jnp.int32)
    return {"target": targets[worker], "noise": noise[(word + 256 * worker + started) % NOISES]}


def samples(nodes: int, seed: int = 0) -> Partial:
    """Batches of `nodes` workers, in the default float type."""
    rng = np.random.default_rng(seed)
    return Partial(sample, jnp.asarray(rng.normal(size=(nodes, P))), jnp.asarray(rng.normal(size=(NOISES, P))))


def whole_objective(targets, key, worker, started):
    """One worker's whole objective: half the squared distance to its target, which is least squares."""
    root = jnp.sqrt(jnp.asarray(P, targets.dtype))
    rows = Squares(root * jnp.eye(P, dtype=targets.dtype), root * targets.at[worker].get(mode="clip"))
    return Objective(rows, jnp.ones((), targets.dtype), jnp.ones((), targets.dtype))


def exact_fn(objective, linear, centre, weight):
    """The oracle of `whole_objective`."""
    target = objective.data.target / jnp.sqrt(jnp.asarray(P, objective.data.target.dtype))
    return (target - linear + 2 * weight * centre) / (1 + 2 * weight)


def gradient_fn(x, local, batch):
    if isinstance(batch, Squares):
        error = batch.features @ x - batch.target
        return batch.features.T @ error / len(error), (error**2).mean() / 2, None
    error = x - batch["target"] + batch["noise"]
    return error, 0.5 * (error**2).sum(), None


def update_fn(gradient, local, x):
    return -RATE * gradient, local


LEARNER = Learner(lambda x: (), gradient_fn, update_fn, oracle=exact_fn)
"""SGD on half the squared distance to a noisy target; parameters are one array `[P]`."""


class Course(NamedTuple):
    """A simulation seen step by step."""

    ends: np.ndarray  # [T] when each step ends, seconds since the start
    own: np.ndarray  # [T, N] when each worker's own iteration ends
    active: np.ndarray  # [T, N] whom the rule made active
    x: np.ndarray  # [T, N, P] parameters after each step


@functools.partial(jax.jit, static_argnames=("policy", "steps"))
def watched(policy, steps, world, policy_state):
    """Durations, ends of the workers' iterations after each step's origin, active sets and parameters; `[T, ...]`."""
    state = simulate.init(policy._replace(init=lambda graph: policy_state), LEARNER, world, jnp.zeros(P))

    def one(state, _):
        plan, ticking = clock.tick(policy, world.graph, world.delays, world.key, state.clock, state.feedback)
        learner = learning.equipped(LEARNER, policy)
        model, info = learning.step(learner, world.batches, plan, state.model, world.key, idles=policy.idles)
        seen = simulate.by_node(plan, info, model) if policy.reads_training else None
        active = plan.fresh if plan.active is None else plan.active
        own = plan.ready is not None and not clock.is_numbered(plan)
        ready = plan.ready if own else jnp.full_like(state.clock.remaining, plan.duration)
        after = state._replace(clock=ticking, model=model, feedback=seen)
        return after, (plan.duration, ready, active, model.params)

    return jax.lax.scan(one, state, None, length=steps)[1]


@jax.jit
def table(draw, key, workers, computations):
    """What `draw` gives each worker for each of its computations, `[N, C, ...]`."""
    return jax.vmap(jax.vmap(draw, (None, None, 0)), (None, 0, None))(key, workers, computations)


class Case:
    """A graph with delays and batches, as the engine and as the references take them."""

    def __init__(self, graph, seed=0, law="shifted_exponential:shift=0.2,rate=1"):
        self.nodes = graph.neighbours.shape[0]  # the workers
        delays, batches = laws.build_delays(law, self.nodes, seed), samples(self.nodes, seed)
        self.world = World(graph, delays, batches, jax.random.key(seed))
        everything = jnp.arange(self.nodes), jnp.arange(3 * STEPS)
        self.seconds = np.asarray(table(delays, stream(self.world.key, Stream.DELAYS), *everything))
        self.samples = jax.device_get(table(batches, stream(self.world.key, Stream.BATCHES), *everything))
        lists, links, latency = (np.asarray(part) for part in (graph.neighbours, graph.links, graph.latency))
        self.neighbours = [sorted(int(j) for j in lists[i][links[i]]) for i in range(self.nodes)]
        wait = {(i, int(j)): float(latency[i, s]) for i in range(self.nodes) for s, j in enumerate(lists[i])}
        self.latency = lambda i, j: wait[i, j]

    def delay(self, i, n):
        return float(self.seconds[i, n])

    def update(self, i, n, x):
        return -RATE * (x - self.samples["target"][i, n] + self.samples["noise"][i, n])

    @property
    def common(self):
        return {"delay": self.delay, "update": self.update, "x0": np.zeros((self.nodes, P)), "steps": STEPS}

    def simulate(self, policy, steps=STEPS) -> Course:
        """The engine's run of the case."""
        world = simulate.networked(policy, self.world)
        seen = watched(policy, steps, world, policy.init(world.graph))
        duration, ready, active, x = (np.asarray(part) for part in seen)
        ends = np.cumsum(duration)
        return Course(ends, (ends - duration)[:, None] + ready, active, x)


NINE = 9
GRAPHS = {
    "ring": lambda: graphs.ring(NINE),
    "random": lambda: graphs.erdos_renyi(NINE, p=0.4, seed=3),
    "star": lambda: graphs.star(NINE),
    "complete": lambda: graphs.complete(NINE),
    "slow links": lambda: graphs.with_links(graphs.grid(NINE, rows=3), latency=0.6),
}
"""Nine workers in graphs that differ in what could hide a fault: degrees, centres, latency."""


@functools.cache  # only called under the x64 fixture
def nine(graph, law="shifted_exponential:shift=0.2,rate=1"):
    """One of `GRAPHS` as a `Case`, all padded to one width, so that they share programs."""
    return Case(graphs.pad(GRAPHS[graph](), NINE), 1, law)


def assert_agree(course, records):
    """A run and a reference's records have the same times, of the workers too, and the same parameters."""
    np.testing.assert_allclose(course.ends, [record.time for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(course.own, [record.ends for record in records], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(course.x, [record.x for record in records], rtol=1e-12, atol=1e-12)


def pair_gradient(params, local, batch):
    gradient, loss, _ = gradient_fn(params["x"], local, batch)
    return {"x": gradient, "bias": params["bias"] - 0.1}, loss, None


def pair_update(gradient, local, params):
    return jax.tree.map(lambda leaf: -RATE * leaf, gradient), local + 1


def pair_exact(objective, linear, centre, weight):
    bias = (0.1 - linear["bias"] + 2 * weight * centre["bias"]) / (1 + 2 * weight)
    return {"x": exact_fn(objective, linear["x"], centre["x"], weight), "bias": bias}


PAIR_LEARNER = Learner(lambda params: jnp.zeros((), jnp.int32), pair_gradient, pair_update, oracle=pair_exact)
"""As `LEARNER`, with a second leaf of another shape, and a local state that counts updates."""

PAIR = {"x": jnp.zeros(P), "bias": jnp.ones(())}

SHIPPED = (
    "dybw",
    "dybw:late=carry",
    "dybw:late=apply",
    "dybw:flood_latency=0.05",
    "full",
    "full:barrier=neighbours",
    "full:weights=best_constant",
    "backup:b=1",
    "backup:b=1,gap=1",
    "backup:b=2,gap=inf,weights=max_degree",
    "fastest:k=4",
    "fastest:k=4,late=carry,weights=lazy",
    "deadline:seconds=1.2",
    "deadline:seconds=0.5,late=carry",
    "deadline:seconds=0.1,late=apply",
    "dpsgd",
    "dpsgd:barrier=global",
    "dsgd_aau",
    "matcha",
    "matcha:budget=0.3,barrier=neighbours",
    "local_sgd",
    "local_sgd:h=2,barrier=neighbours",
    "dspodfl",
    "subgradient",
    "subgradient:radius=0.5,barrier=global",
    "tracking",
    "tracking:barrier=neighbours,weights=best_constant",
    "d2",
    "d2:barrier=neighbours",
    "qgm",
    "qgm:beta=0.5,barrier=neighbours",
    "dual_averaging",
    "dual_averaging:alpha=0.5,barrier=global",
    "choco",
    "choco:codec=top_k:fraction=0.3,gamma=0.3,barrier=neighbours",
    "dcd",
    "dcd:codec=random_k:fraction=0.5,barrier=global",
    "ecd",
    "adpsgd",
    "randomized_gossip",
    "token",
    "swift:every=2",
    "acid:rate=0.5",
    "sgp",
    "sgp:graph=exponential",
    "sgp:graph=one_peer,barrier=global",
    "agp",
    "hop",
    "hop:b=1,gap=4,staleness=1,skip=1",
    "prague:group=3",
    "server",
    "server_backup:b=2",
    "k_sync:k=3",
    "k_batch_sync:k=5",
    "k_async:k=3",
    "k_batch_async:k=5",
    "async_server:weight=mean",
    "ssp:bound=1",
    "dbw",
    "admm:rho=0.3",
    "ssda",
    "msda",
    "mspd:eta=0.5,rounds=2",
    "encoded:redundancy=2,k=5",
)
"""SPECs that between them use every policy of the table, every barrier and every way with late workers."""

EIGHT, EVENTS = 8, 100
PARTNERS = (np.arange(EIGHT)[None] + np.random.default_rng(0).integers(1, EIGHT, (EVENTS, EIGHT))) % EIGHT
HANDMADE = {
    "pairwise": handmade.pairwise(PARTNERS),
    "pairwise, numbered": handmade.pairwise(PARTNERS, numbered=True),
    "server by hand": handmade.server(2),
    "asynchronous server": handmade.asynchronous_server(),
    "bounded staleness": handmade.bounded_staleness(1),
    "push-sum": handmade.push_sum(np.full((EIGHT, EIGHT), 1 / EIGHT)),
    "loudest": handmade.loudest(),
}
"""The policies of `handmade`, for eight nodes."""

EVERY_POLICY = (*SHIPPED, *HANDMADE)


TRACES: collections.Counter = collections.Counter()
"""How often JAX has traced the decision of each of `EVERY_POLICY`."""


@functools.cache
def named(name):
    """One of `EVERY_POLICY`, its traces being counted."""
    policy = HANDMADE[name] if name in HANDMADE else build_policy(name)

    def decide_fn(*arguments):
        TRACES[name] += 1
        return policy.decide(*arguments)

    return policy._replace(decide=decide_fn)


def has_server(name):
    return name in HANDMADE and ("server" in name or "staleness" in name)


def world_of(name, seed=0, slots=None):
    """Eight workers for one of `EVERY_POLICY`, and its own nodes; a server that is made by hand is the last of them."""
    graph = graphs.random_regular(EIGHT, degree=4, seed=seed)
    if has_server(name):
        graph = graphs.complete(EIGHT)._replace(computes=jnp.arange(EIGHT) < EIGHT - 1)
    if slots:
        graph = graphs.pad(graph, slots)
    delays, policy, batches = laws.build_delays("shifted_exponential:shift=0.2,rate=1", EIGHT, 0), named(name), None
    if policy.whole is not None:
        batches = policy.whole(Partial(whole_objective, samples(EIGHT).args[0]), EIGHT)
    return simulate.networked(policy, World(graph, delays, batches or samples(EIGHT), jax.random.key(seed)))


def assert_bitwise(first, second):
    """Two trees are the same to the last bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_chunks_are_the_run(run, name, steps, chunks):
    """`run(policy, world, state, steps)` in `chunks` chunks is the run in one, to the last bit, in the state and in
    every record, and all chunks are one trace."""
    policy, world = named(name), world_of(name)
    final, record = run(policy, world, simulate.init(policy, PAIR_LEARNER, world, PAIR), steps)
    state, pieces = simulate.init(policy, PAIR_LEARNER, world, PAIR), []
    before = TRACES[name]
    for _ in range(chunks):
        state, piece = run(policy, world, state, steps // chunks)
        pieces.append(piece)
    assert TRACES[name] == before + 1, "one of the chunks was traced again"
    assert_bitwise(final, state)
    assert_bitwise(record, jax.tree.map(lambda *parts: np.concatenate(parts), *pieces))


def stacked(trees):
    """Trees of one structure with a leading axis, put together on the host: nothing is compiled."""

    def stack(*leaves):
        if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(np.stack([jax.random.key_data(key) for key in leaves]))
        return np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(stack, *trees)


NETS = ("ring", "complete", "erdos_renyi:p=0.4", "star")


def several_worlds(task=None):
    """Sixteen worlds of eight workers: four graphs of different degrees, two laws' parameters and two seeds, with one
    data set: the task's, or the few numbers of `samples`."""
    batches = samples(EIGHT) if task is None else task.batches
    nets = [graphs.pad(graphs.build_graph(spec, EIGHT), EIGHT) for spec in NETS]
    lengths = [laws.build_delays(f"shifted_exponential:rate={rate}", EIGHT) for rate in (1, 2)]
    return [World(net, law, batches, jax.random.key(seed)) for net in nets for law in lengths for seed in (0, 1)]


def assert_same_course(records, place, record):
    """The times, active sets and counts of one simulation of a batch are those of the simulation alone, to the bit."""
    for field in ("duration", "active", "backup_workers", "gradients"):
        np.testing.assert_array_equal(getattr(records, field)[place], getattr(record, field), err_msg=field)
