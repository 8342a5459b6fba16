"""Replicates of a trace, and the clocks of a candidate over all of them in one program.

A replicate is the trace with its rows redrawn in blocks (circular block bootstrap, Politis and Romano 1992): rows stay
whole, so what machines have in common stays, and blocks keep spells together. A replicate has as many rows as the
trace, at most `ROWS`; after the last comes its first again. All candidates see the same replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from dbwjax.engine import batch, ensemble
from dbwjax.engine.programs import canonical
from dbwjax.engine.simulate import World
from dbwjax.experiments.networks import networks_of, states_of
from dbwjax.network import draws
from dbwjax.network.assembly import pad, with_links
from dbwjax.network.graphs import build_graph
from dbwjax.network.times import Law
from dbwjax.planning.describe import Data
from dbwjax.policies import build_policy
from dbwjax.types import Graph, Key, Policy

ROWS = 2000
"""Rows of a replicate at most; of a longer trace intervals are those of so many rows, which are wider than need be."""

PADDED = 33
"""Graphs of at most so many slots share one program."""

SCENARIOS = ("as measured", "one more straggler", "slowest machine repaired", "twice the latency")

_FIELDS = ("duration", "ended", "gradients", "length", "computing", "wasted", "waiting", "communicating")
_PATIENCE = 64  # calls of the device in which everybody must have done a replicate's iterations


class Links(NamedTuple):
    """What a message needs."""

    latency: float = 0.0  # seconds
    bandwidth: float = float("inf")  # bytes a second
    message_bytes: float = 0.0

    def of(self, graph: Graph, times: float = 1.0) -> Graph:
        """A graph with these latencies, the first so many times as long."""
        return with_links(
            graph, latency=times * self.latency, bandwidth=self.bandwidth, message_bytes=self.message_bytes
        )

    @property
    def any(self) -> bool:
        """Whether messages take time."""
        return self.latency > 0 or (self.message_bytes > 0 and np.isfinite(self.bandwidth))


class Clocks(NamedTuple):
    """What the clocks of one candidate say, by scenario and replicate."""

    length: np.ndarray  # [S, B] seconds of an iteration, mean over workers and iterations
    gradients: np.ndarray  # [S, B] gradients that counted in an iteration of all workers
    shares: np.ndarray  # [4] of a worker's time as measured: computing, wasted, waiting, communicating


def tables(seconds: np.ndarray, data: Data) -> np.ndarray:
    """The trace, the trace with one more straggler, and with the slowest machine repaired, `[3, rows, N]`.

    The straggler is the typical machine at the slowest one's pace, at least half its own. A repaired machine has the
    typical machine's times, put in the order of its own: its slowest step is the typical machine's slowest.
    """
    more, repaired = seconds.copy(), seconds.copy()
    means = [one.mean for one in data.machines]
    more[:, data.typical] *= max(2.0, means[data.slowest] / means[data.typical])
    order = np.argsort(np.argsort(seconds[:, data.slowest], kind="stable"), kind="stable")
    repaired[:, data.slowest] = np.sort(seconds[:, data.typical])[order]
    return np.stack([seconds, more, repaired])


def law_of(table: np.ndarray | Array, block: int, rows: int, which: int | np.ndarray = 0) -> Law:
    """The delays of a replicate, drawn by the world's key.

    Args:
      table: `[tables, rows, N]`.
      block: rows kept together.
      rows: of a replicate.
      which: of the tables.
    """
    whole = jnp.asarray(table, jnp.result_type(float))
    every = jnp.asarray([block, min(rows, ROWS)], jnp.int32)
    model = Partial(_replicate, whole, every, jnp.asarray(which, jnp.int32))
    return Law(model, whole.shape[2], sure=True, zero=False)


def _replicate(table: Array, sizes: Array, which: Array, key: Key, worker: Array, started: Array) -> Array:
    at = started % sizes[1]
    word, _ = draws.words(key, jnp.uint32(0), at // sizes[0])  # one draw for a block, whoever asks
    first = (word % np.uint32(table.shape[1])).astype(jnp.int32)
    row = first + at % sizes[0]
    row = jnp.where(row < table.shape[1], row, row - table.shape[1])
    return table[which, row, jnp.minimum(worker, table.shape[2] - 1)]


def graphs_of(spec: str, machines: int, seeds: Sequence[int]) -> list[Graph]:
    """A graph for each replicate: one for all, or, of a random SPEC, one drawn for each.

    Raises:
      ValueError: as `build_graph`.
    """
    first = build_graph(spec, machines, seeds[0])
    others = build_graph(spec, machines, seeds[0] + 1)
    same = first.neighbours.shape == others.neighbours.shape and bool(
        (first.neighbours == others.neighbours).all() and (first.links == others.links).all()
    )
    return [first] * len(seeds) if same else [first, *(build_graph(spec, machines, seed) for seed in seeds[1:])]


def simulate(
    graphs: dict[str, list[Graph]],
    policies: Sequence[str],
    seconds: np.ndarray,
    data: Data,
    links: Links,
    scenarios: int,
    seed: int,
    done: Callable[[str], None] = lambda what: None,
) -> dict[tuple[str, str], Clocks]:
    """The clocks of every candidate.

    Args:
      graphs: a graph for each replicate, by SPEC.
      policies: SPECs.
      seconds: `[rows, N]`, the trace or what a law drew.
      data: about the trace.
      links: what messages need.
      scenarios: how many of `SCENARIOS`.
      seed: of the replicates.
      done: is told each rule that is done.

    Returns:
      Clocks by policy and graph.

    Raises:
      ValueError: a policy that reads training, or that a graph does not allow.
    """
    found: dict[tuple[str, str], Clocks] = {}
    known = tables(seconds, data)
    for spec in policies:
        policy = canonical(build_policy(spec))
        if policy.reads_training:
            raise ValueError(f"policy '{spec}' reads training and has no clock of its own; leave it out")
        for group in _groups(graphs):
            clocks = _clocks(spec, policy, group, known, data, links, scenarios, seed)
            found |= {(spec, name): one for name, one in clocks.items()}
        done(spec)
    return found


def _groups(graphs: dict[str, list[Graph]]) -> list[dict[str, list[Graph]]]:
    """Graphs that share a program, padded to one width where that costs little; a graph that is one stays one."""
    widths = {name: max(one.neighbours.shape[1] for one in own) for name, own in graphs.items()}
    small = max((width for width in widths.values() if width <= PADDED), default=0)
    found: dict[int, dict[str, list[Graph]]] = {}
    for name, own in graphs.items():
        width = small if widths[name] <= PADDED else widths[name]
        made = {id(one): one if one.neighbours.shape[1] == width else pad(one, width) for one in own}
        found.setdefault(width, {})[name] = [made[id(one)] for one in own]
    return list(found.values())


def _clocks(
    spec: str,
    policy: Policy,
    group: dict[str, list[Graph]],
    known: np.ndarray,
    data: Data,
    links: Links,
    scenarios: int,
    seed: int,
) -> dict[str, Clocks]:
    """One policy over graphs x scenarios x replicates, as one batch."""
    replicates = len(next(iter(group.values())))
    # Every graph is built, and looked at by the policy, once, however many simulations share it.
    made: dict[tuple[int, float], Graph] = {}
    places: list[int] = []
    order: dict[tuple[int, float], int] = {}
    for own in group.values():
        for scenario in range(scenarios):
            times = 2.0 if scenario == 3 else 1.0
            for graph in own:
                key = id(graph), times
                if key not in made:
                    made[key], order[key] = links.of(graph, times), len(order)
                places.append(order[key])
    networks = networks_of(spec, policy, list(made.values()))
    which = np.tile(np.repeat([0, 1, 2, 0][:scenarios], replicates), len(group))
    keys = jax.random.split(jax.random.key(seed), replicates)[np.tile(np.arange(replicates), len(group) * scenarios)]
    graphs = batch.rows_of(batch.stack_all(networks), np.array(places))
    law = law_of(known, data.block, data.rows, which)
    tree = World(graphs, law, None, keys)  # type: ignore[arg-type]
    axes = [0] * len(jax.tree.leaves(graphs)) + [None, None, 0] + [0]
    some = batch.Batch(tree, jax.tree.unflatten(jax.tree.structure(tree), axes))
    states = batch.rows_of(states_of(spec, policy, networks), np.array(places))
    totals = _run(spec, policy, some, states, min(data.rows, ROWS), known.shape[2])
    shape = (len(group), scenarios, replicates)
    found = {}
    for place, name in enumerate(group):
        sums = {field: totals[at].reshape(shape)[place] for at, field in enumerate(_FIELDS[1:])}
        spent = np.array([sums[field][0].sum() for field in _FIELDS[4:]])
        length = sums["length"] / sums["ended"]
        found[name] = Clocks(
            length, sums["gradients"] / sums["ended"] * known.shape[2], spent / max(spent.sum(), 1e-300)
        )
    return found


def _run(spec: str, policy: Policy, some: batch.Batch, states: object, rows: int, machines: int) -> np.ndarray:
    """Sums of `_FIELDS` over as many iterations of everybody as a replicate has rows, `[fields, B]` float64."""
    clocks = ensemble.start(policy, some, states)
    sums = np.zeros((len(_FIELDS) - 1, clocks.step.shape[0]))
    wanted = rows * machines
    for _ in range(_PATIENCE * machines):
        clocks, record, _ = ensemble.clock_batch(policy, some, clocks, rows, fields=_FIELDS)
        record = jax.device_get(record)
        if not np.isfinite(record.duration).all():
            raise ValueError(f"policy '{spec}' lets no time pass under these times; leave it out")
        sums += [np.asarray(getattr(record, name), np.float64).sum(axis=1) for name in _FIELDS[1:]]
        if (sums[0] >= wanted).all():
            return sums
    raise ValueError(f"policy '{spec}' ends no iterations under these times; leave it out")
