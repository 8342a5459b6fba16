"""What every worker holds at one absolute time: the reference by hand, and the engine against it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from dbwjax.engine.randomness import Stream, stream
from dbwjax.network import graphs
from dbwjax.policies import build_policy
from dbwjax.tasks import from_arrays
from tests.reference.held import World, account, held, rows, run, run_until

PAIR = [[1], [0]]
TRIANGLE = [[1, 2], [0, 2], [0, 1]]
PATH3 = [[1], [0, 2], [1]]
RING4 = [[1, 3], [0, 2], [1, 3], [0, 2]]

# Computation 0 takes 1, 2, 4 s, computation 1 takes 1, 4, 2 s, each later one 1 s.
UNEVEN = np.array([[1, 1, 1, 1], [2, 4, 1, 1], [4, 2, 1, 1]], float)

LATES = ("drop", "carry", "apply")
GLOBAL = ["full:late=drop"] + [
    f"{rule}late={late}" for rule in ("dybw:", "fastest:k=3,", "deadline:seconds=0.75,") for late in LATES
]
FLOODS = [f"dybw:flood_latency=0.0625,late={late}" for late in LATES]
DRIFTING = ["full:barrier=neighbours", "backup:b=1,gap=inf", "backup:b=1,gap=2", "dpsgd:barrier=neighbours"]
POLICIES = [*GLOBAL, *FLOODS, *DRIFTING, "dpsgd:barrier=global"]


def by_hand(seconds, updates, losses, x0, neighbours, **settings):
    """A world of one parameter: constant updates and losses by worker, and delays by worker or by computation."""
    table = np.asarray(seconds, float)

    def gradient(i, n, x):
        return np.array([-float(updates[i])]), losses[i]

    return World(
        (lambda i, n: table[i]) if table.ndim == 1 else (lambda i, n: table[i, n]),
        gradient,
        np.array(x0, float)[:, None],
        neighbours,
        **settings,
    )


def column(found, name):
    return [row[name] for row in found]


def spent(history, t):
    """[N, 3] seconds computing, wasted, and between a finish and the next start."""
    found = account(history, t)
    return np.column_stack([found[:, :2], found[:, 2:].sum(axis=1)])


def test_three_workers_of_which_one_is_five_times_slower_with_backup():
    # Workers 0 and 1 wait for each other only. They hold k from second k on: what worker 2 sends in iteration k comes
    # at 5 (k + 1) > k + 1. Worker 2 mixes what the others have sent in the same iteration, long before: at 5 s
    # (0 + 10)/3 + 2 (0 + 1)/3 = 4, at 10 s (4 + 10)/3 + 2 (1 + 1)/3 = 6.
    world = by_hand([1, 1, 5], updates=[1, 1, 10], losses=[2.0, 2.0, 5.0], x0=[0, 0, 0], neighbours=TRIANGLE)
    history = run_until("backup:b=1", 12, world)
    expected = {
        0: [0, 0, 0],
        0.5: [0, 0, 0],
        4.5: [4, 4, 0],
        5: [5, 5, 4],
        7: [7, 7, 4],
        9.75: [9, 9, 4],
        10: [10, 10, 6],
    }
    for t, x in expected.items():
        np.testing.assert_allclose(held(history, t)[:, 0], x, rtol=0, atol=1e-14)
    found = rows(history, [0, 0.5, 5, 7, 7.25])
    assert column(found, "iterations") == [[0, 0, 0], [0, 0, 0], [5, 5, 1], [7, 7, 1], [7, 7, 1]]
    assert column(found, "step") == [0, 0, 11 / 3, 5, 5]
    assert column(found, "drift") == [0, 0, 4, 6, 6]
    means, distances = column(found, "mean"), column(found, "consensus_distance")
    np.testing.assert_allclose([float(mean[0]) for mean in means], [0, 0, 14 / 3, 6, 6], rtol=1e-14)
    np.testing.assert_allclose(distances, [0, 0, np.sqrt(2) / 3, np.sqrt(2), np.sqrt(2)], rtol=1e-14)
    assert column(found, "train_loss") == [None, None, (10 * 2 + 5) / 11, 2, None]
    assert column(found, "gradients") == [0, 0, 11, 15, 15]
    assert column(found, "computing") == [0, 0, 15, 19, 19]
    assert column(found, "waiting") == column(found, "wasted") == [0] * 5
    assert column(found, "active_fraction") == [None, None, 1, 1, None]
    assert column(found, "backup_workers") == [None, None, 10 / 11, 1, None]
    assert column(found, "iteration_length") == [None, None, 15 / 11, 19 / 15, 19 / 15]


def test_a_gap_makes_the_fast_ones_wait():
    # Nobody starts iteration 3 before worker 2 starts iteration 1, at 5 s: two seconds after its iteration 2 is done.
    world = by_hand([1, 1, 5], updates=[1, 1, 10], losses=[2.0, 2.0, 5.0], x0=[0, 0, 0], neighbours=TRIANGLE)
    history = run_until("backup:b=1,gap=2", 12, world)
    assert [[one.end for one in history.workers[0]][:4], [one.end for one in history.workers[2]][:2]] == [
        [1, 2, 5, 10],
        [5, 10],
    ]
    found = rows(history, [0, 2, 4, 5, 6])
    assert column(found, "iterations") == [[0, 0, 0], [2, 2, 0], [2, 2, 0], [3, 3, 1], [3, 3, 1]]
    assert column(found, "drift") == [0, 2, 2, 2, 2]
    assert spent(history, 5).tolist() == [[3, 0, 2], [3, 0, 2], [5, 0, 0]]


def test_two_workers_of_which_one_is_five_times_slower_with_full():
    # Both need each other's message, so both end at 5, 10, ...: worker 0 waits 4 of 5 s. (0 + 1 + 0 + 10)/2 = 5.5.
    world = by_hand([1, 5], updates=[1, 10], losses=[2.0, 5.0], x0=[0, 0], neighbours=PAIR)
    history = run_until("full:barrier=neighbours", 12, world)
    assert [held(history, t)[:, 0].tolist() for t in (4.75, 5, 9, 10)] == [[0, 0], [5.5, 5.5], [5.5, 5.5], [11, 11]]
    found = rows(history, [0, 4, 10, 11])
    assert column(found, "iterations") == [[0, 0], [0, 0], [2, 2], [2, 2]]
    assert column(found, "train_loss") == [None, None, 3.5, None]
    assert column(found, "computing") == [0, 0, 12, 12]
    assert column(found, "waiting") == [0, 0, 8, 8]
    assert column(found, "iteration_length") == [None, None, 5, 5]
    assert column(found, "backup_workers") == [None, None, 0, None]


def test_messages_of_different_latency_let_workers_drift():
    # D-PSGD sends when an iteration starts; 3 s from worker 1 to 0, 0.5 s back. Worker 0 needs 1 s, worker 1 2 s.
    # T_0 = max(1, 3) = 3, max(3 + 1, 2 + 3) = 5, ...; T_1 = max(2, 0.5) = 2, max(2 + 2, 3 + 0.5) = 4, ...
    # x_0 = (0 + 10)/2 + 1 = 6, then (6 + 7)/2 + 1 = 7.5; x_1 = (0 + 10)/2 + 2 = 7, then (6 + 7)/2 + 2 = 8.5.
    world = by_hand(
        [1, 2], [1, 2], [1.0, 4.0], [0, 10], PAIR, latency=lambda receiver, sender: 3.0 if receiver == 0 else 0.5
    )
    history = run_until("dpsgd:barrier=neighbours", 6, world)
    expected = [[0, 10], [0, 7], [6, 7], [6, 8.5], [7.5, 8.5]]
    assert [held(history, t)[:, 0].tolist() for t in (1.5, 2, 3, 4, 5)] == expected
    found = rows(history, [0, 2, 3, 5])
    assert column(found, "iterations") == [[0, 0], [0, 1], [1, 1], [2, 2]]
    assert column(found, "train_loss") == [None, 4, 1, 2.5]
    assert spent(history, 5).tolist() == [[2, 0, 3], [4, 0, 0]]
    # Under a global barrier both end when the last message is in: at 3, 6, ...
    history = run_until("dpsgd:barrier=global", 6, world)
    assert [held(history, t)[:, 0].tolist() for t in (2.5, 3, 5)] == [[0, 10], [6, 7], [6, 7]]
    assert spent(history, 3).tolist() == [[1, 0, 2], [2, 0, 1]]


@pytest.mark.parametrize(
    ("late", "x", "accounts", "losses", "gradients"),
    [
        # Iteration 0 ends at 2 s by the link 0-1; worker 2 is cut. Iteration 1 ends at 6 s by the link 1-2: worker 1
        # finishes at 2 + 4, worker 2 at 2 + 2.
        (
            "drop",
            # (0 + 1 + 0 + 2)/2 = 1.5; then W = [[2, 1, 0], [1, 1, 1], [0, 1, 2]]/3 on [2.5, 3.5, 12 + 3].
            [[1.5, 1.5, 12], [(5 + 3.5) / 3, 21 / 3, (3.5 + 30) / 3]],
            [[[1, 0, 1], [2, 0, 0], [0, 2, 0]], [[2, 0, 4], [6, 0, 0], [2, 2, 2]]],
            [1.5, 2],
            [2, 5],
        ),
        (
            # Worker 2 goes on with computation 0, finishes at 4 s and takes part in iteration 1; until then nothing is
            # said of it, and at 2 s the accounts of the others alone add up.
            "carry",
            [[1.5, 1.5, 12], [(5 + 3.5) / 3, 21 / 3, (3.5 + 30) / 3]],
            [[[1, 0, 1], [2, 0, 0], [0, 0, 0]], [[2, 0, 4], [6, 0, 0], [4, 0, 2]]],
            [1.5, 2],
            [2, 5],
        ),
        (
            # Worker 2's own update counts at 2 s, two seconds before it would be ready.
            "apply",
            [[1.5, 1.5, 15], [(5 + 3.5) / 3, (2.5 + 3.5 + 18) / 3, (3.5 + 36) / 3]],
            [[[1, 0, 1], [2, 0, 0], [2, 0, 0]], [[2, 0, 4], [6, 0, 0], [4, 0, 2]]],
            [2, 2],
            [3, 6],
        ),
    ],
)
def test_three_workers_with_dtur(late, x, accounts, losses, gradients):
    world = by_hand(UNEVEN, [1, 2, 3], [1.0, 2.0, 3.0], [0, 0, 12], PATH3, path=[(0, 1), (1, 2)])
    history = run(f"dybw:late={late}", 3, world)
    assert held(history, 1.75)[:, 0].tolist() == [0, 0, 12]
    for t, expected in zip((2, 6), x, strict=True):
        np.testing.assert_allclose(held(history, t)[:, 0], expected, rtol=0, atol=1e-14)
        assert np.array_equal(held(history, t + 0.5), held(history, t))
    assert [spent(history, t).tolist() for t in (2, 6)] == accounts
    assert spent(history, 5.75).tolist() == accounts[0]
    found = rows(history, [0, 2, 6])
    assert column(found, "train_loss") == [None, *losses]
    assert column(found, "gradients") == [0, *gradients]
    assert column(found, "active_fraction") == [None, 2 / 3, 1]
    assert column(found, "backup_workers") == [None, (0 + 1 + 1) / 3, 0]  # worker 1 does not hear 2, and 2 hears nobody
    assert column(found, "iteration_length") == [None, 2, 3]
    assert column(found, "drift") == [0, 0, 0]


def test_who_arrives_during_the_announcement_has_finished_all_the_same():
    # The link 0-1 cuts at 2 s, worker 1 announces it over one hop of half a second, so the iteration ends at 2.5 s.
    # Worker 2 finishes at 2.25 s: late, and from then on it waits.
    seconds = [[1, 1, 9, 9], [2, 1, 9, 9], [2.25, 1, 9, 9]]
    world = by_hand(
        seconds, [1, 2, 3], [1.0, 2.0, 3.0], [0, 0, 0], PATH3, path=[(0, 1), (1, 2)], eccentricity=[2, 1, 2]
    )
    dropped = run("dybw:late=drop,flood_latency=0.5", 2, world)
    assert spent(dropped, 2.5).tolist() == [[1, 0, 1.5], [2, 0, 0.5], [0, 2.25, 0.25]]
    # Carried over it is there when iteration 1 begins. That ends at 4 s: at 3.5 worker 1 arrives and announces.
    carried = run("dybw:late=carry,flood_latency=0.5", 3, world)
    assert spent(carried, 2.5).tolist() == [[1, 0, 1.5], [2, 0, 0.5], [0, 0, 0]]
    assert spent(carried, 4).tolist() == [[2, 0, 2], [3, 0, 1], [2.25, 0, 1.75]]
    assert column(rows(carried, [2.5, 4]), "train_loss") == [1.5, 2]


def test_a_message_under_way_at_the_end_is_wasted_in_full():
    # A message needs a second. Worker 0 arrives at 2 s, which ends the iteration; worker 1 has finished at 1.5 s.
    world = by_hand([1, 1.5], [1, 1], [1.0, 1.0], [0, 0], PAIR, latency=lambda receiver, sender: 1.0)
    history = run("fastest:k=1,late=drop", 2, world)
    assert spent(history, 2).tolist() == [[1, 0, 1], [0, 1.5, 0.5]]
    assert account(history, 2)[:, 3].tolist() == [1, 0.5]  # all of which its message is on its way
    # Carried over, its message arrives at 2.5 s, which ends iteration 1.
    history = run("fastest:k=1,late=carry", 2, world)
    assert spent(history, 2).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert spent(history, 2.5).tolist() == [[1, 0, 1], [1.5, 0, 1]]


def test_mean_over_nobody_is_none():
    # Iterations end every quarter of a second; all four workers take part in the fourth of each second.
    world = by_hand([1] * 4, [1] * 4, [3.0] * 4, [0] * 4, RING4)
    history = run_until("deadline:seconds=0.25,late=carry", 3, world)
    found = rows(history, np.arange(9) / 4)
    nobody, everybody = [None, 0, 2], [3, 1, 0]
    expected = [[None, None, None], *([nobody] * 3 + [everybody]) * 2]
    names = ("train_loss", "active_fraction", "backup_workers")
    assert [[row[name] for name in names] for row in found] == expected
    assert column(found, "gradients") == column(found, "computing") == [0, 0, 0, 0, 4, 4, 4, 4, 8]
    assert column(found, "iteration_length") == [None] + [0.25] * 8
    # Coarser than the seconds, and between the ends.
    found = rows(history, [0, 0.125, 0.875, 1.625, 2.125])
    assert column(found, "train_loss") == [None, None, None, 3, 3]
    assert column(found, "active_fraction") == [None, None, 0, 1 / 3, 1 / 2]
    assert column(found, "step") == [0, 0, 3, 6, 8]


@pytest.mark.parametrize("late", LATES)
def test_deadline_cuts_computations_short(late):
    # Half a second each, a computation of 0.25 s and one of 0.75 s. Dropped, the slow one is never heard.
    world = by_hand([0.25, 0.75], [1, 1], [1.0, 2.0], [0, 0], PAIR)
    found = rows(run_until(f"deadline:seconds=0.5,late={late}", 2, world), [0, 0.5, 1.5])
    expected = {
        # Seconds computing, wasted, waiting; gradients; mean loss.
        "drop": [(0.25, 0.5, 0.25, 1, 1), (0.75, 1.5, 0.75, 3, 1)],
        # It takes part at 0.75 s, when both are there and the iteration ends early; so does the next one at 1.5 s.
        "carry": [(0.25, 0, 0.25, 1, 1), (1 + 1.5, 0, 0.5, 6, 7 / 5)],
        "apply": [(0.75, 0, 0.25, 2, 1.5), (2.25, 0, 0.75, 6, 1.5)],
    }[late]
    names = ("computing", "wasted", "waiting", "gradients", "train_loss")
    assert [tuple(row[name] for name in names) for row in found[1:]] == expected


@pytest.mark.parametrize(
    ("t", "message"), [(-0.5, "before the beginning"), (3.0, "after the history ends"), (9.0, "simulate longer")]
)
def test_times_of_which_nothing_is_known_are_refused(t, message):
    world = by_hand([1, 1], [1, 1], [0.0, 0.0], [0, 0], PAIR)
    with pytest.raises(ValueError, match=message):
        held(run("full:late=drop", 3, world), t)


@pytest.mark.parametrize(
    ("policy", "message"),
    [("none", "not told here"), ("dybw:", "late=None"), ("full:late=drop,k=3", "nothing reads")],
)
def test_policies_that_are_not_said_in_full_are_refused(policy, message):
    world = by_hand([1, 1], [1, 1], [0.0, 0.0], [0, 0], PAIR, path=[(0, 1)])
    with pytest.raises(ValueError, match=message):
        run_until(policy, 3, world)


def test_time_that_stands_still_is_refused():
    world = by_hand([0, 0], [1, 1], [0.0, 0.0], [0, 0], PAIR)
    with pytest.raises(ValueError, match="time stands still"):
        run_until("full:late=drop", 3, world)


P, DRAWS, RATE = 3, 300, 0.1
START = (0.5, -1.0, 2.0)
SEED = 3


def lookup(table, key, worker, started):
    del key
    return table[worker, started]


def initial(key):
    del key
    return jnp.asarray(START)


def coordinates(params, batch):
    """The mean model itself, seen through `evaluate`."""
    del batch
    return {f"x{place}": params[place] for place in range(P)}


def squares(params, batch):
    return 0.5 * ((params[None] - batch["target"]) ** 2).sum(axis=1).mean()


def logistic(params, batch):
    return jnp.logaddexp(0.0, -(batch["target"] @ params)).mean()


def squares_by_hand(x, batch):
    error = x - batch["target"]
    return error.mean(axis=0), 0.5 * (error**2).sum(axis=1).mean()


def logistic_by_hand(x, batch):
    margin = batch["target"] @ x
    return -(batch["target"] / (1 + np.exp(margin))[:, None]).mean(axis=0), np.log1p(np.exp(-margin)).mean()


LOSSES = {"squares": (squares, squares_by_hand), "logistic": (logistic, logistic_by_hand)}


class Case:
    """A network with delays and batches, as the engine and as the reference take them.

    Args:
      exact: every delay and latency is a multiple of 1/16 s, so that times that should be equal are.
      loss: of `LOSSES`.
    """

    def __init__(self, exact, loss="squares"):
        rng = np.random.default_rng(SEED)
        graph = graphs.erdos_renyi(7, p=0.5, seed=4)
        links, sources = np.asarray(graph.links), np.asarray(graph.neighbours)
        nodes = len(links)
        slow = np.where(np.arange(nodes) == 2, 4.0, 1.0)[:, None]
        seconds = slow * (0.2 + rng.exponential(0.4, (nodes, DRAWS)))
        latency = rng.uniform(0, 0.3, links.shape) * links
        if exact:
            seconds, latency = np.ceil(seconds * 16) / 16, np.ceil(latency * 16) / 16
        self.graph = graph._replace(latency=jnp.asarray(latency))
        self.delays = Partial(lookup, jnp.asarray(seconds))
        targets = rng.normal(size=(nodes * 5, P)) + np.repeat(rng.normal(size=(nodes, P)), 5, axis=0)
        of_engine, self.by_hand = LOSSES[loss]
        self.task = from_arrays(
            of_engine,
            initial,
            {"target": targets},
            workers=nodes,
            batch_size=2,
            partition=np.split(np.arange(nodes * 5), nodes),
            test={"target": targets[:1]},
            metrics=coordinates,
        )
        each = jax.vmap(jax.vmap(self.task.batches, (None, None, 0)), (None, 0, None))
        key = stream(jax.random.key(SEED), Stream.BATCHES)
        batches = np.asarray(each(key, jnp.arange(nodes), jnp.arange(DRAWS))["target"])
        self.test = {"target": targets[:1]}
        near = [dict(zip(sources[i], latency[i], strict=True)) for i in range(nodes)]
        neighbours = [sorted(int(j) for j in sources[i][links[i]]) for i in range(nodes)]
        hops = nx.eccentricity(nx.Graph([(i, j) for i in range(nodes) for j in neighbours[i]]))
        path = np.asarray(build_policy("dybw").init(graph).rule.path)  # which of the paths is the rule's own choice
        self.world = World(
            seconds=lambda i, n: float(seconds[i, n]),
            gradient=lambda i, n, x: self.by_hand(x, {"target": batches[i, n]}),
            x0=np.tile(START, (nodes, 1)),
            neighbours=neighbours,
            rate=RATE,
            latency=lambda i, j: float(near[i][j]),
            path=[tuple(int(v) for v in link) for link in path],
            eccentricity=[hops[i] for i in range(nodes)],
        )


ROWS = 30


def grids(case, policy, exact):
    """Grids of `ROWS` intervals from 0 on: of random spacing, offset, finer and coarser than iterations; or the ends
    themselves and times between them."""
    rng = np.random.default_rng(1)
    if exact:
        history = run_until(policy, 80.0, case.world)
        ends = np.unique([one.end for own in history.workers for one in own if one.end <= 80])
        chosen = rng.choice(ends, 2 * ROWS // 3, replace=False)
        between = chosen[: ROWS // 3] + 1 / 32
        return {"ends": np.concatenate([[0.0], np.sort([*chosen, *between])])}
    return {
        "random": np.concatenate([[0.0], np.sort(rng.uniform(0.0, 15.0, ROWS))]),
        "offset": np.concatenate([[0.0], 0.37 + 0.4 * np.arange(ROWS)]),
        "fine": np.linspace(0.0, 2.1, ROWS + 1),
        "coarse": np.linspace(0.0, 61.0, ROWS + 1),
    }


def engine_rows(policy, case, grid):
    """Rows of the engine: the one place that knows how it is called."""
    from dbwjax.experiments.compare import train_policy

    built = build_policy(policy) if isinstance(policy, str) else policy
    sgd = optax.sgd(RATE)
    return train_policy(built, case.task, case.graph, case.delays, sgd, times=grid[1:], seed=SEED).rows


def assert_rows_agree(engine, reference, case):
    assert len(engine) == len(reference)
    for number, (ours, theirs) in enumerate(zip(engine, reference, strict=True)):
        assert ours["row"] == number
        assert not ours["diverged"]
        for name in ("drift", "gradients"):
            assert ours[name] == theirs[name], (number, name)
        expected = {name: theirs[name] for name in COMPARED}
        expected |= {f"test_x{place}": theirs["mean"][place] for place in range(P)}
        expected["test_loss"] = case.by_hand(theirs["mean"], case.test)[1]
        nothing = {name for name, value in expected.items() if value is None}
        assert {name for name in expected if ours[name] is None} == nothing, number
        for name in expected.keys() - nothing:
            message = f"row {number} at {theirs['virtual_time']} s: {name}"
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-12, atol=1e-12, err_msg=message)


COMPARED = (
    "virtual_time",
    "step",
    "train_loss",
    "consensus_distance",
    "active_fraction",
    "backup_workers",
    "communicating",
    "staleness",
    "computing",
    "wasted",
    "waiting",
    "iteration_length",
)


@pytest.fixture(scope="module")
def cases():
    """Built once: `(exact, loss)` to the case."""
    with jax.enable_x64(True):
        return {pair: Case(*pair) for pair in [(False, "squares"), (True, "squares"), (False, "logistic")]}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("exact", [False, True])
def test_seconds_add_up_and_windows_too(cases, exact, policy):
    case = cases[exact, "squares"]
    history = run_until(policy, 15.0, case.world)
    for t in (0.0, 3.3, 15.0):
        last = [max([one.end for one in own if one.restarted and one.end <= t], default=0.0) for own in history.workers]
        np.testing.assert_allclose(spent(history, t).sum(axis=1), last, rtol=1e-12, atol=1e-12)
    coarse = np.array([0.0, 3.3, 4.0, 15.0])
    fine = np.unique(np.concatenate([coarse, np.random.default_rng(0).uniform(0, 15, 40)]))
    many, few = rows(history, fine), rows(history, coarse)
    own = np.searchsorted(fine, coarse)
    for row, place in zip(few, own, strict=True):
        for name in ("virtual_time", "step", "drift", "gradients", "computing", "wasted", "waiting", "iterations"):
            assert row[name] == many[place][name]
        assert np.array_equal(row["mean"], many[place]["mean"])
    for i in range(1, len(coarse)):
        inside = range(own[i - 1] + 1, own[i] + 1)
        ended = [sum(many[k]["iterations"]) - sum(many[k - 1]["iterations"]) for k in inside]
        counted = [many[k]["gradients"] - many[k - 1]["gradients"] for k in inside]
        weights = {"train_loss": counted, "active_fraction": ended, "backup_workers": ended}
        for name, by in weights.items():
            total = sum(many[k][name] * weight for k, weight in zip(inside, by, strict=True) if weight)
            assert (few[i][name] is None) == (sum(by) == 0)
            np.testing.assert_allclose((few[i][name] or 0) * sum(by), total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_at_its_end_an_iteration_is_held(cases, policy):
    history = run_until(policy, 12.0, cases[True, "squares"].world)
    known = min(own[-1].end for own in history.workers)
    for j, own in enumerate(history.workers):
        before = history.x0[j]
        for one, following in itertools.pairwise(own):
            assert one.begin < one.end == following.begin
            if following.end > known:
                break
            assert np.array_equal(held(history, np.nextafter(one.end, 0))[j], before)
            assert np.array_equal(held(history, one.end)[j], one.x)
            assert np.array_equal(held(history, np.nextafter(following.end, 0))[j], one.x)
            before = one.x


def test_under_a_global_barrier_all_move_together_and_neighbours_drift(cases):
    world = cases[False, "squares"].world
    grid = np.linspace(0, 15, 31)
    for policy in [*GLOBAL, *FLOODS, "dpsgd:barrier=global"]:
        assert {row["drift"] for row in rows(run_until(policy, 15.0, world), grid)} == {0}, policy
    largest = {policy: max(column(rows(run_until(policy, 15.0, world), grid), "drift")) for policy in DRIFTING}
    assert largest["backup:b=1,gap=inf"] > 5
    assert largest["full:barrier=neighbours"] >= 1
    assert largest["dpsgd:barrier=neighbours"] >= 1


def compare(policy, case, exact):
    """Every grid of a policy, with one policy object, so that nothing is compiled twice."""
    built = build_policy(policy)
    for name, grid in grids(case, policy, exact).items():
        history = run_until(policy, grid[-1], case.world)
        ends = np.unique([one.end for own in history.workers for one in own])
        gaps = np.abs(ends[:, None] - grid[None]).min(axis=0)
        if exact:
            assert (gaps == 0).sum() == 2 * ROWS // 3
        else:
            assert gaps[1:].min() > 1e-9, f"{name}: a time of the grid is an end but for rounding; take another seed"
        assert_rows_agree(engine_rows(built, case, grid), rows(history, grid), case)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("policy", POLICIES)
def test_engine_on_grids_of_any_spacing(cases, policy):
    compare(policy, cases[False, "squares"], exact=False)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("policy", POLICIES)
def test_engine_on_grids_that_hit_the_ends(cases, policy):
    compare(policy, cases[True, "squares"], exact=True)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("policy", ["dybw:late=carry", "full:barrier=neighbours"])
def test_engine_with_another_loss(cases, policy):
    compare(policy, cases[False, "logistic"], exact=False)
