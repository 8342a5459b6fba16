"""The engineer's question: whom should fast machines wait for, on this cluster?"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dbwjax import limits, numbers, specs
from dbwjax.limits import divisors, whole
from dbwjax.planning import describe, laws, ranking, times
from dbwjax.planning.describe import Data
from dbwjax.planning.laws import Fit
from dbwjax.planning.progress import Training, train
from dbwjax.planning.ranking import Entry, Interval, Ranking
from dbwjax.planning.replicates import Links, graphs_of, law_of, simulate
from dbwjax.planning.times import Times
from dbwjax.policies import build_policies

BY = ("iteration", "gradients")
"""What clocks alone are ranked by."""

_DENSE = 32  # machines, beyond which everybody hearing everybody is not considered unless it is asked for


class Plan(NamedTuple):
    """What `plan` found."""

    ranking: Ranking
    times: Times
    data: Data
    fits: list[Fit]  # the best first; empty where none was asked for
    law: str  # `trace`, or the law whose draws were used
    links: Links
    training: Training | None  # None: clocks alone
    target: float | None
    reference: Entry  # the rule that waits for all, or the first that was named
    gain: Interval  # its seconds over the winner's
    replicates: int
    seed: int

    @property
    def best(self) -> Entry:
        """The winner."""
        return self.ranking.entries[0]

    def answer(self) -> str:
        """The answer in a sentence or two."""
        from dbwjax.planning.words import answer

        return " ".join(answer(self))

    def table(self) -> str:
        """The answer, the ranking, what would change it, and how sure it is, as text."""
        from dbwjax.planning.words import text

        return text(self)

    def report(self, path: str | os.PathLike) -> None:
        """Writes the page.

        Raises:
          ValueError: the file cannot be written.
        """
        from pathlib import Path

        from dbwjax import files
        from dbwjax.planning.page import page

        content = page(self).encode()
        files.replace_file(Path(path), lambda file: file.write(content), "give another path")


def default_policies(machines: int) -> list[str]:
    """The rules that are considered where none are named: of those that wait for k machines, the half and 3/4."""
    counts = sorted({max(1, math.ceil(machines / 2)), max(1, math.ceil(3 * machines / 4))} - {machines})
    backups = ["backup:b=1"] if machines > 2 else []
    return ["full", "full:barrier=neighbours", *backups, "dybw", *(f"fastest:k={k}" for k in counts)]


def default_graphs(machines: int) -> list[str]:
    """The topologies that are considered where none are named, the sparsest first."""
    if machines < 4:
        return ["ring"] if machines == 2 else ["path", "ring"]
    rows = max(one for one in divisors(machines) if one * one <= machines)
    torus = [f"torus:rows={rows}"] if rows > 2 else []
    p = min(1.0, math.ceil(200 * math.log(machines) / machines) / 100)
    random = [f"erdos_renyi:p={p:g}"] if p < 0.7 else []
    dense = ["complete"] if machines <= _DENSE else []
    return ["ring", *torus, *random, "exponential", *dense]


def plan_cluster(
    measured: Any,
    *,
    policies: Sequence[str] | None = None,
    graphs: Sequence[str] | None = None,
    unit: str = "auto",
    drop_gaps: bool = False,
    latency: float = 0.0,
    bandwidth: float = math.inf,
    message_bytes: float = 0.0,
    law: str = "trace",
    timing_only: bool = False,
    by: str = "iteration",
    training: Training | Mapping[str, Any] | None = None,
    replicates: int = 200,
    sensitivity: bool = True,
    fit: bool = True,
    seed: int = 0,
    progress: Callable[[str], None] = lambda what: None,
) -> Plan:
    """Ranks waiting rules and topologies for a cluster whose step times were measured.

    Args:
      measured: the path of a CSV, several of them, an array `[steps, machines]` of seconds, or columns by name.
      policies: SPECs of rules to consider; `None`: `default_policies`.
      graphs: SPECs of topologies to consider; `None`: `default_graphs`.
      unit: of a file's times: `s`, `ms`, `us`, `ns`; `auto`: what its columns say.
      drop_gaps: leave out steps in which a machine has no time.
      latency: of a message, seconds.
      bandwidth: bytes a second.
      message_bytes: of a message.
      law: `trace` redraws the trace in blocks; a family of `laws.FAMILIES`, or `best`, draws from the fitted law.
      timing_only: rank by the clocks alone, and leave out what a rule learns in an iteration.
      by: of clocks alone: `iteration`, or `gradients` (seconds for as many gradients as there are machines).
      training: what is trained, a `Training` or its settings; `None`: a stand-in, softmax regression of digits.
      replicates: how often the trace is redrawn.
      sensitivity: ask whether one more straggler, a repair or twice the latency would change the winner.
      fit: fit laws, too, which takes a few seconds.
      seed: of replicates, graphs and trainings.
      progress: is told what has been done.

    Returns:
      `.table()`, `.report(path)`, `.ranking`, `.best`, and what they are made from.

    Raises:
      ValueError: one line with the value and the remedy.
    """
    seen = measured if isinstance(measured, Times) else _read(measured, unit, drop_gaps)
    machines = len(seen.names)
    links = _links(latency, bandwidth, message_bytes)
    if by not in BY:
        raise ValueError(f"by={by} is not a choice; use {' or '.join(BY)}")
    if law not in ("trace", "best", *laws.FAMILIES):
        raise ValueError(f"unknown law '{law}'; {specs.nearest(law, ['trace', 'best', *laws.FAMILIES])}")
    whole("replicates", replicates, 20)
    seed = numbers.seeds(seed).start
    rules, nets = _candidates(policies, graphs, machines)
    learned = None if timing_only else _training(training)
    limits.require_count("replicates", replicates, lambda count: 400.0 * count * machines * len(nets))
    drawn = _graphs(nets, machines, replicates, seed)
    data = describe.describe(seen.seconds, seen.names)
    fits = laws.fit_all(seen.seconds) if fit or law != "trace" else []
    seconds, about = _source(law, fits, seen, data, seed)
    progress(f"{len(rules) * len(nets)} candidates, {replicates} replicates of {data.rows} steps")
    scenarios = (4 if links.any else 3) if sensitivity else 1
    clocks = simulate(drawn, rules, seconds, about, links, scenarios, seed, progress)
    trained = target = None
    if learned is not None:
        own = law_of(seconds[None], about.block, about.rows)
        trained, target = train(learned, nets, rules, clocks, own, links, seed, progress)
    measure = "target" if trained else by
    found = ranking.rank(clocks, trained, measure, machines, about.blocks)
    best = found.entries[0]
    reference = _reference(found, best)
    rival, ours = (reference.policy, reference.graph), (best.policy, best.graph)
    gain = ranking.ratio(clocks, trained, measure, machines, about.blocks, rival, ours)
    return Plan(found, seen, data, fits, law, links, learned, target, reference, gain, replicates, seed)


def _read(measured: Any, unit: str, drop_gaps: bool) -> Times:
    if isinstance(measured, str | os.PathLike):
        return times.read(os.fspath(measured), unit, drop_gaps)
    if isinstance(measured, list | tuple) and measured and all(isinstance(one, str | os.PathLike) for one in measured):
        return times.read([os.fspath(one) for one in measured], unit, drop_gaps)
    return times.of_array(measured)


def _links(latency: float, bandwidth: float, message_bytes: float) -> Links:
    if not 0 <= latency < math.inf:
        raise ValueError(f"latency={latency:g} is not a time; use 0 or more seconds")
    if not bandwidth > 0:
        raise ValueError(f"bandwidth={bandwidth:g} moves nothing; use more than 0 bytes a second")
    if not 0 <= message_bytes < math.inf:
        raise ValueError(f"message_bytes={message_bytes:g} is not a size; use 0 or more bytes")
    if message_bytes and bandwidth == math.inf:
        raise ValueError(f"message_bytes={message_bytes:g} takes no time without a bandwidth; give --bandwidth, too")
    if not message_bytes and bandwidth < math.inf:
        raise ValueError(f"bandwidth={bandwidth:g} slows nothing without a message; give --message-bytes, too")
    return Links(latency, bandwidth, message_bytes)


def _training(training: Training | Mapping[str, Any] | None) -> Training:
    found = training if isinstance(training, Training) else Training(**(training or {}))
    whole("steps", found.steps, 10)
    whole("worlds", found.worlds, 3)
    if found.target_accuracy is not None and not 0 < found.target_accuracy <= 1:
        raise ValueError(f"target_accuracy={found.target_accuracy:g} is out of range; use above 0 and at most 1")
    return found


def _candidates(
    policies: Sequence[str] | None, graphs: Sequence[str] | None, machines: int
) -> tuple[list[str], list[str]]:
    rules = list(policies) if policies is not None else default_policies(machines)
    nets = list(graphs) if graphs is not None else default_graphs(machines)
    for kind, given in (("policies", rules), ("graphs", nets)):
        if not given:
            raise ValueError(f"{kind} names none; give at least one, or leave it out")
        twice = next((one for one in given if given.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"{kind}: '{twice}' is named twice; name it once")
    build_policies(rules)
    return rules, nets


def _graphs(nets: Sequence[str], machines: int, count: int, seed: int) -> dict[str, list]:
    return {spec: graphs_of(spec, machines, range(seed, seed + count)) for spec in nets}


def _source(law: str, fits: list[Fit], seen: Times, data: Data, seed: int) -> tuple[Any, Data]:
    """The rows that are redrawn, and what is known of them."""
    if law == "trace":
        return seen.seconds, data
    import numpy as np

    found = laws.chosen(law, fits, seen.seconds, seen.names)
    table = laws.table_of(found, np.random.default_rng(seed))
    return table, data._replace(block=1)


def _reference(found: Ranking, best: Entry) -> Entry:
    """Who waits for all on the winner's topology, else anywhere; else the slowest candidate."""
    waits = [one for one in found.entries if one.policy in ("full", "server")]
    same = [one for one in waits if one.graph == best.graph]
    return (same or waits or found.entries[-1:])[0]
