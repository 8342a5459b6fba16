"""What Python is given wrongly is one `ValueError` of one line, with value and remedy, before anything is compiled.

One row a case. The words of the row are the argument that is wrong; all others are right.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dbwjax import (
    build_delays,
    build_graph,
    build_optimizer,
    build_policy,
    compare,
    compare_cells,
    from_arrays,
    gossip,
    train_policy,
)
from dbwjax.engine import simulate
from dbwjax.experiments import compare as comparing
from dbwjax.experiments import given
from dbwjax.experiments.probe import require_decision
from dbwjax.experiments.training import Training
from dbwjax.network import graphs, properties, weights
from dbwjax.policies import POLICIES, dtur, neighbours, rules
from dbwjax.policies.gossip import require_graph
from dbwjax.policies.method import build_weights
from dbwjax.tasks import Task, build_task
from dbwjax.types import Plan, Policy, WaitRule

N, COUNT, NAN = 4, 20, float("nan")
DATA = {"x": np.arange(2.0 * COUNT, dtype=np.float32).reshape(COUNT, 2), "label": np.arange(COUNT) % 3}


def loss(params, batch):
    return ((batch["x"] @ params - batch["label"]) ** 2).mean()


def init(key):
    return jnp.zeros(2)


class Begun(Exception):
    """Everything was accepted, and training would begin."""


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    def begin(self, *args, **named):
        raise Begun

    monkeypatch.setattr(Training, "__init__", begin)


def refused(call):
    """The one line that a call is refused with; `None`: it was accepted."""
    try:
        call()
    except Begun:
        return None
    except ValueError as error:
        said = str(error)
        assert said
        assert "\n" not in said
        assert len(said) < 600
        assert "Tracer" not in said
        return said
    return None


def task(**settings):
    words = {"loss": loss, "init": init, "train": DATA, "workers": N, "batch_size": 5, **settings}
    return from_arrays(words.pop("loss"), words.pop("init"), words.pop("train"), **words)


TASKS = [
    ({"loss": 3}, "loss=3 is not a function; give one that is called as loss(params, batch)"),
    ({"loss": lambda params: 1.0}, "loss cannot be called as loss(params, batch): TypeError: "),
    ({"loss": lambda p, b: b["x"] @ p}, "loss returns float32[5]; return one number, the mean over the batch"),
    ({"loss": lambda p, b: loss(p, b)[None]}, "loss returns float32[1]; return one number"),
    ({"loss": lambda p, b: (loss(p, b), {})}, "loss returns a tuple of 2; return one number (other figures belong to"),
    ({"loss": lambda p, b: {"loss": loss(p, b)}}, "loss returns a dict of 1; return one number"),
    ({"loss": lambda p, b: None}, "loss returns nothing; return one number"),
    ({"loss": lambda p, b: jnp.int32(1)}, "loss returns int32, of which there is no gradient; return a float"),
    ({"loss": lambda p, b: loss(p, b) > 0}, "loss returns bool, of which there is no gradient"),
    ({"loss": lambda p, b: b["y"].mean()}, "loss cannot be called as loss(params, batch): KeyError: 'y'"),
    ({"loss": lambda p, b: p @ jnp.ones(3)}, "loss cannot be called as loss(params, batch): TypeError: "),
    (
        {"loss": lambda p, b: p.sum() if p[0] > 0 else 0.0},
        "use jnp in place of np and float(), jnp.where in place of if",
    ),
    ({"loss": lambda p, b: float(p[0])}, "loss cannot be traced as loss(params, batch)"),
    ({"loss": lambda p, b: np.asarray(p).sum()}, "loss cannot be traced as loss(params, batch)"),
    ({"init": jnp.zeros(2)}, "is not a function; give one that is called as init(key)"),
    ({"init": lambda: jnp.zeros(2)}, "init cannot be called as init(key): TypeError: "),
    ({"init": lambda key: None}, "init returns nothing without any array; return one worker's parameters"),
    ({"init": lambda key: {}}, "init returns a dict of 0 without any array"),
    ({"init": lambda key: {"w": "x"}}, "init cannot be called as init(key): TypeError: "),
    ({"init": lambda key: jnp.zeros(2, int)}, "init returns int32[2]; parameters are arrays of floats"),
    ({"metrics": 3}, "metrics=3 is not a function"),
    ({"metrics": lambda p: {}}, "metrics cannot be called as metrics(params, batch): TypeError: "),
    ({"metrics": lambda p, b: 1.0}, "metrics returns float32; return a dict of numbers"),
    ({"metrics": lambda p, b: {1: 1.0}}, "metrics returns a dict of 1; return a dict of numbers"),
    ({"metrics": lambda p, b: {"hits": b["x"]}}, "metrics returns 'hits' of float32[5, 2]; return one number"),
    ({"metrics": lambda p, b: {"loss": 0.0}}, "metrics returns 'loss', and test_loss is the loss itself"),
    ({"preprocess": 3}, "preprocess=3 is not a function; give batch -> batch, or leave it out"),
    ({"preprocess": lambda batch: batch["z"]}, "preprocess cannot be called as preprocess(batch): KeyError: 'z'"),
    ({"preprocess": lambda batch: batch["x"]}, "loss cannot be called as loss(params, batch): "),
    ({"workers": 2.5}, "workers=2.5 is not a whole number; use 1 or more"),
    ({"workers": True}, "workers=True is not a whole number"),
    ({"workers": None}, "workers=None is not a whole number"),
    ({"workers": -1}, "workers=-1 is out of range"),
    ({"batch_size": "5"}, "batch_size='5' is not a whole number"),
    ({"batch_size": 5.0}, "batch_size=5.0 is not a whole number"),
    ({"batch_size": 2**40}, "batch_size=1099511627776 is out of range; use 1 or more (at most 2147483647)"),
    ({"seed": -1}, "seed=-1 is no seed"),
    ({"seed": 2**32}, "seed=4294967296 is no seed"),
    ({"train": None}, "train must be arrays with a leading axis of samples"),
    ({"train": "digits"}, "train must be arrays"),
    ({"train": {"x": [[1, 2], [3]]}}, "train must be arrays"),
    ({"train": np.array([[1, None]] * COUNT, object)}, "train is an array of object; give numbers"),
    ({"train": np.array(["a"] * COUNT)}, "train is an array of <U1; give numbers"),
    ({"train": np.zeros(COUNT, "datetime64[s]")}, "train is an array of datetime64[s]; give numbers"),
    ({"train": {**DATA, "label": np.arange(19)}}, "train has arrays of 19 and 20 samples"),
    (
        {"train": {**DATA, "label": np.full(COUNT, NAN)}},
        "train['label'] is not finite in sample 0; leave it out, or rep",
    ),
    ({"train": {**DATA, "x": np.where(DATA["x"] == 7, np.inf, 1.0)}}, "train['x'] is not finite in sample 3"),
    ({"train": {**DATA, "x": jnp.asarray(DATA["x"]).at[9, 1].set(NAN)}}, "train['x'] is not finite in sample 9"),
    ({"train": {**DATA, "x": 1e39 * (1 + DATA["x"].astype(float))}}, "train['x'] holds 4e+40, which float32 does not"),
    (
        {"train": {**DATA, "label": np.full(COUNT, 2**40)}},
        "train['label'] holds 1.09951e+12, which int32 does not; scale",
    ),
    ({"test": 3}, "test must be arrays"),
    ({"test": {**DATA, "x": DATA["x"] * NAN}}, "test['x'] is not finite in sample 0"),
    ({"partition": None}, "partition=None is none; use a SPEC, as 'iid', or one array of samples a worker"),
    ({"partition": 5}, "partition=5 is none"),
    ({"partition": {"iid": 1}}, "partition={'iid': 1} is none"),
    ({"partition": [[0.5], [1], [2], [3]]}, "partition gives worker 0 no list of sample numbers"),
    ({"partition": "shards", "labels": np.full(COUNT, NAN)}, "are not classes; give [n] integers"),
    ({"labels": 3}, "labels of shape () do not name one class"),
]


@pytest.mark.parametrize(("settings", "expected"), TASKS, ids=[said[:60] for _, said in TASKS])
def test_tasks(settings, expected):
    assert expected in (refused(lambda: task(**settings)) or "accepted")


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": np.int64(N), "batch_size": np.uint8(5), "seed": np.int32(0)},
        {"init": lambda key: np.zeros(2)},
        {"metrics": lambda p, b: {"accuracy": (p > 0).mean(), "ones": jnp.int8(1), "all": (p > 0).all()}},
        {"train": {**DATA, "x": DATA["x"] * NAN}, "preprocess": lambda b: {**b, "x": jnp.nan_to_num(b["x"])}},
        {"partition": np.arange(COUNT).reshape(N, 5)},
        {"loss": lambda p, b: loss(p, b).astype(jnp.bfloat16)},
    ],
)
def test_tasks_that_are_right(settings):
    assert isinstance(task(**settings), Task)


GIVEN = build_task("quadratic:dimension=2", workers=N, batch_size=2)
RING = build_graph("ring", N)
ONE_WAY = graphs.from_adjacency(np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]], bool))
PIECES = graphs.from_links(4, [(0, 1), (2, 3)])
BASE = {"policy": "full", "task": GIVEN, "graph": RING, "delays": "constant", "optimizer": optax.sgd(0.1)}


def moving(fresh=None, mix=None, duration=None, state=None):
    """A policy of one's own, parts of whose plans are given."""

    def decide(key, graph, kept, remaining, feedback):
        plan = Plan(
            remaining.max() if duration is None else duration,
            jnp.ones(N, bool) if fresh is None else fresh,
            jnp.eye(N) if mix is None else mix,
        )
        return plan, kept if state is None else state

    return Policy(lambda graph: jnp.zeros(2), decide)


def ruled(cut):
    return gossip(WaitRule(lambda graph: None, cut))


def transform(init_fn, update_fn):
    return optax.GradientTransformation(init_fn, update_fn)


CALLS = [
    # numbers
    ({"steps": 2.5}, "steps=2.5 is not a whole number; use 1 or more"),
    ({"steps": True}, "steps=True is not a whole number"),
    ({"steps": "5"}, "steps='5' is not a whole number"),
    ({"steps": 0}, "steps=0 is out of range; use 1 or more"),
    ({"steps": np.float64(5)}, "is not a whole number"),
    ({"seconds": "5"}, "seconds='5' is not a number"),
    ({"seconds": NAN}, "seconds=nan is not a number"),
    ({"seconds": np.ones(2)}, "is not a number"),
    ({"seconds": True}, "seconds=True is not a number"),
    ({"seconds": -1}, "seconds=-1 is no budget; use a finite time above 0"),
    ({"seconds": float("inf")}, "seconds=inf is no budget"),
    ({}, "seconds=None, steps=None: give one budget"),
    ({"seconds": 1.0, "steps": 5}, "seconds=1.0, steps=5: give one budget"),
    ({"seconds": 1.0, "rows": 1.5}, "rows=1.5 is not a whole number"),
    ({"seconds": 1.0, "rows": None}, "rows=None is not a whole number"),
    ({"seconds": 1.0, "eval_every": 1}, "eval_every counts iterations"),
    ({"steps": 5, "eval_every": 6}, "eval_every=6 is out of range; use 1 to steps=5"),
    ({"times": "abc"}, "times='abc' are not ascending finite times"),
    ({"times": [1, NAN]}, "times=[1, nan] are not ascending finite times"),
    ({"times": [2, 1]}, "times=[2, 1] are not ascending"),
    ({"times": 5}, "times=5 are not ascending"),
    ({"steps": 5, "seed": 1.5}, "seed=1.5 is no seed"),
    ({"steps": 5, "seed": -1}, "seed=-1 is no seed"),
    ({"steps": 5, "workers": 5}, "workers=5, and what is given is of 4 workers; leave workers= out"),
    ({"steps": 5, "workers": 4.0}, "workers=4.0 is not a whole number"),
    ({"steps": 5, "task": "quadratic", "graph": "ring"}, "nothing says how many workers there are; give workers="),
    ({"steps": 5, "optimizer": "sgd", "learning_rate": 0}, "learning_rate=0 is out of range"),
    ({"steps": 5, "optimizer": "sgd", "learning_rate": "fast"}, "learning_rate='fast' is not a number"),
    # delays
    ({"delays": 1.0}, "delays=1.0 are no delays; use a SPEC, as 'constant:seconds=1', or a function"),
    ({"delays": None}, "delays=None are no delays"),
    ({"delays": "expo"}, "unknown delays 'expo'"),
    ({"delays": lambda key: 1.0}, "delays cannot be called as delays(key, worker, started): TypeError: "),
    ({"delays": lambda k, w, s: jnp.ones(2)}, "delays return float32[2]; return one number of seconds"),
    ({"delays": lambda k, w, s: w > 0}, "delays return bool; return one number of seconds"),
    ({"delays": lambda k, w, s: (1.0,)}, "delays return a tuple of 1; return one number of seconds"),
    ({"delays": lambda k, w, s: None}, "delays return nothing; return one number of seconds"),
    ({"delays": lambda k, w, s: 2.0 if w > 0 else 1.0}, "delays cannot be traced as delays(key, worker, started)"),
    (
        {"delays": build_delays("constant", 5)},
        "numbers of workers differ (the task is of 4, the graph is of 4, the delays",
    ),
    # optimisers
    ({"optimizer": 0.1}, "optimizer=0.1 is no optimiser; use optax.sgd(0.1), or a SPEC, as 'sgd'"),
    ({"optimizer": None}, "optimizer=None is no optimiser"),
    ({"optimizer": optax.sgd}, "is no optimiser; call it, as in sgd(0.1)"),
    ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'?"),
    (
        {"optimizer": transform(lambda p: 0, lambda g, s: (g, s))},
        "optimizer cannot be called as optimizer.update(gradie",
    ),
    (
        {"optimizer": transform(lambda p: 0, lambda g, s, p: g)},
        "optimizer.update returns float32[2]; return (updates, st",
    ),
    (
        {"optimizer": transform(lambda p: 0, lambda g, s, p: (g[:1], s))},
        "optimizer.update returns float32[1] for param",
    ),
    (
        {"optimizer": transform(lambda p: jnp.zeros(1), lambda g, s, p: (g, g))},
        "the optimizer's state changes from float32[1] to float32[2]",
    ),
    # policies
    ({"policy": "ful"}, "unknown policy 'ful'; did you mean 'full'?"),
    ({"policy": None}, "policy 'policy' is None; use a SPEC, as 'full', or a Policy, as from build_policy"),
    ({"policy": rules.full}, "it is a function: call it, as in full()"),
    ({"policy": rules.full()}, "it is a waiting rule: give gossip(rule)"),
    ({"policy": Policy(3, 4)}, "use a SPEC, as 'full', or a Policy"),
    ({"policy": Policy(lambda: None, lambda *a: None)}, "policy 'policy': init(graph) fails: TypeError: "),
    (
        {"policy": Policy(lambda g: None, lambda key: None)},
        "policy 'policy' cannot be called as decide(key, graph, stat",
    ),
    (
        {"policy": Policy(lambda g: None, lambda *a: jnp.ones(3))},
        "policy 'policy' decides float32[3]; return (Plan, st",
    ),
    (
        {"policy": moving(fresh=jnp.ones(3, bool))},
        "a plan's fresh is bool[3]; give one truth value for each of 4 workers",
    ),
    ({"policy": moving(fresh=jnp.ones(N))}, "a plan's fresh is float32[4]; give one truth value"),
    ({"policy": moving(mix=jnp.eye(3))}, "a plan's mix is float32[3, 3]; give [4, 4]"),
    ({"policy": moving(duration=jnp.ones(N))}, "a plan's duration is float32[4]; give one number of seconds"),
    ({"policy": moving(state=jnp.zeros(3))}, "its state changes from float32[2] to float32[3]"),
    ({"policy": moving(state=jnp.zeros(2, int))}, "its state changes from float32[2] to int32[2]"),
    (
        {"policy": ruled(lambda k, g, s, a: (a < 1, 1.0))},
        "the rule's cut returns 2 values; return (active, end, state)",
    ),
    ({"policy": ruled(lambda k, g, s, a: a < 1)}, "return (active, end, state)"),
    ({"policy": ruled(lambda k, g, s, a: (a, 1.0, s))}, "the rule's active is float32[4]; return one truth value for"),
    ({"policy": ruled(lambda k, g, s, a: (True, 1.0, s))}, "the rule's active is bool[]; return one truth value for"),
    ({"policy": ruled(lambda k, g, s, a: (a < 1, a, s))}, "the rule's end is float32[4]; return one number of seconds"),
    ({"policy": ruled(lambda k, g, s, a: (a < 1, None, s))}, "the rule's cut returns None, which is no array"),
    ({"policy": ruled(lambda k, g, s, a: (a < 1, "x", s))}, "the rule's cut returns 'x', which is no array"),
    # graphs
    ({"graph": np.eye(N)}, "is no graph; use a SPEC, as 'ring', or network.graphs.from_adjacency(matrix)"),
    ({"graph": None}, "graph=None is no graph"),
    ({"graph": "rng"}, "unknown graph 'rng'; did you mean 'ring'?"),
    ({"graph": build_graph("ring", 5)}, "numbers of workers differ (the task is of 4, the graph is of 5"),
    ({"graph": lambda: RING}, "graph(seed) fails for seed 0: TypeError: "),
    ({"graph": lambda seed: 3}, "graph=3 is no graph"),
    (
        {"graph": RING._replace(neighbours=RING.neighbours.at[0, 1].set(7))},
        "names node 7, which is not there; use 0 to 3",
    ),
    (
        {"graph": RING._replace(neighbours=RING.neighbours.at[0, 1].set(-1))},
        "the graph names node -1, which is not there",
    ),
    ({"graph": RING._replace(neighbours=RING.neighbours.at[0, 1].set(3))}, "node 0 hears a node twice"),
    ({"graph": RING._replace(neighbours=RING.neighbours.at[0, 1].set(0))}, "the graph links a node to itself"),
    ({"graph": RING._replace(neighbours=RING.neighbours.at[0, 0].set(2))}, "slot 0 is another node"),
    (
        {"graph": RING._replace(latency=RING.latency[:2])},
        "the graph's arrays are of shapes neighbours [4, 3], links [4, 3]",
    ),
    ({"graph": RING._replace(latency=RING.latency - 1)}, "the graph's latency holds -1, which is no time"),
    ({"graph": RING._replace(latency=RING.latency * NAN)}, "the graph's latency holds nan, which is no time"),
    ({"graph": RING._replace(latency=RING.latency + np.inf)}, "the graph's latency holds inf, which is no time"),
    (
        {"graph": RING._replace(latency=RING.latency.astype(int))},
        "the graph's latency is of int32; give seconds as floats",
    ),
    (
        {"graph": RING._replace(links=RING.links.astype(int))},
        "links and computes are int32, int32 and bool; give integers",
    ),
    ({"graph": RING._replace(neighbours=[[0, 1], [1]])}, "the graph's lists are of different lengths"),
    ({"graph": RING._replace(computes=RING.computes & False)}, "no node of the graph computes"),
    ({"graph": PIECES}, "policy 'policy': the graph is not connected: worker 2 never hears worker 0"),
    ({"graph": ONE_WAY}, "policy 'policy': worker 0 hears worker 1 and not the other way round"),
    # tasks
    ({"task": None}, "task=None is no task; use a SPEC, as 'digits', or from_arrays(...)"),
    ({"task": DATA}, "is no task; use a SPEC"),
    ({"task": "quadratc"}, "unknown dataset 'quadratc'; did you mean 'quadratic'?"),
    ({"task": lambda: GIVEN}, "task(seed) fails for seed 0: TypeError: "),
    ({"task": lambda seed: 3}, "task=3 is no task"),
    (
        {"task": GIVEN._replace(init=lambda key: jnp.zeros(2, int))},
        "init returns int32[2]; parameters are arrays of floats",
    ),
    ({"task": GIVEN._replace(loss=lambda p, b: p)}, "loss returns float32[2]; return one number"),
    (
        {"task": GIVEN._replace(loss=lambda p, b: jax.lax.while_loop(lambda x: x < 1, lambda x: x + 1, p.sum()))},
        "loss has no",
    ),
    ({"task": GIVEN._replace(batches=3)}, "batches=3 is not a function"),
    ({"task": GIVEN._replace(batches=lambda key: key)}, "batches cannot be called as batches(key, worker, started)"),
    (
        {"task": GIVEN._replace(evaluate=lambda p: p.sum())},
        "evaluate returns float32; return a dict of numbers with 'test",
    ),
    ({"task": GIVEN._replace(evaluate=lambda p: {"accuracy": 1.0})}, "return a dict of numbers with 'test_loss' in it"),
    (
        {"task": GIVEN._replace(evaluate=lambda p: {"test_loss": p})},
        "evaluate returns 'test_loss' of float32[2]; return",
    ),
    (
        {"task": GIVEN._replace(evaluate=lambda p: {"test_loss": 0.0, "step": 0.0})},
        "evaluate returns 'step', which is a col",
    ),
    ({"task": GIVEN._replace(sizes=np.ones(3, int))}, "numbers of workers differ (the task is of 3, the graph is of 4"),
    ({"task": GIVEN._replace(sizes=np.ones((N, 1)))}, "the task's sizes are float64[4, 1]"),
]


def with_budget(words):
    """The numbers of a row, and a budget where it is not about budgets."""
    about = {"seconds", "steps", "rows", "times", "eval_every"} & set(words)
    return words if about or not words else {"steps": 5, **words}


@pytest.mark.parametrize(("words", "expected"), CALLS, ids=[said[:70] for _, said in CALLS])
def test_train_policy(words, expected):
    assert expected in (refused(lambda: train_policy(**{**BASE, **with_budget(words)})) or "accepted")


ACCEPTED = [
    {"steps": np.int64(5), "rows": np.int8(2), "seed": np.uint32(3)},
    {"seconds": np.float32(5)},
    {"seconds": jnp.asarray(5.0)},
    {"times": (0, 1, 2)},
    {"optimizer": "momentum:beta=0.5", "learning_rate": 0.2},
    {"optimizer": optax.chain(optax.clip(1.0), optax.adam(0.1))},
    {"delays": lambda key, worker, started: 1},
    {"delays": lambda key, worker, started: 1.0 + worker},
    {"task": "quadratic:dimension=2"},
    {"task": lambda seed: "quadratic:dimension=2"},
    {"task": "quadratic:dimension=2", "graph": "ring", "workers": np.int64(N)},
    {"graph": lambda seed: "ring"},
    {"graph": jax.tree.map(np.asarray, RING)},
    {"graph": ONE_WAY, "policy": "backup"},
    {"policy": ruled(lambda key, graph, state, arrival: (arrival <= 1, 1, state))},
    {"policy": moving(duration=2.0)},
]


@pytest.mark.parametrize("words", ACCEPTED, ids=map(str, range(len(ACCEPTED))))
def test_what_is_right_is_not_refused(words):
    with pytest.raises(Begun):
        train_policy(**{**BASE, **with_budget(words)})


COMPARED = [
    ({"policies": []}, "policies names nobody; give at least one"),
    ({"policies": None}, "policies=None have no names"),
    ({"policies": build_policy("full")}, "have no names; give SPECs, or policies by name"),
    ({"policies": [build_policy("full")]}, "has no name; give policies by name, as {'mine': policy}"),
    ({"policies": {1: "full"}}, "policy 1 has no name"),
    ({"policies": ["full", "full"]}, "policy 'full' is named twice; name it once"),
    ({"policies": {"mine": rules.full()}}, "it is a waiting rule: give gossip(rule)"),
    ({"policies": "ful"}, "unknown policy 'ful'"),
    ({"baseline": "dybw"}, "baseline='dybw' is not among the policies ['full']"),
    ({"baseline": ["full"]}, "baseline=['full'] is not among the policies"),
    ({"seeds": 0}, "seeds=0 is out of range"),
    ({"seeds": 2.0}, "seeds=2.0 is not a whole number"),
    ({"seed": 2**32 - 1, "seeds": 2}, "2 seeds from seed=4294967295 on end at 4294967296"),
    ({"target_accuracy": 2}, "target_accuracy=2 is out of range; use more than 0 and at most 1"),
    ({"target_accuracy": "high"}, "target_accuracy='high' is not a number"),
    ({"learning_rate": NAN, "optimizer": "sgd"}, "learning_rate=nan is not a number"),
    ({"task": "quadratic", "graph": "ring", "workers": 4, "batch_size": 2.5}, "batch_size=2.5 is not a whole number"),
    ({"task": "quadratic", "graph": "ring", "workers": 4.0}, "workers=4.0 is not a whole number"),
    ({"graph": lambda seed: PIECES}, "the graph is not connected"),
    (
        {"task": lambda seed: build_task(f"quadratic:dimension={2 + seed}", workers=N)},
        "simulations of different shapes cannot",
    ),
    ({"graph": lambda seed: build_graph("ring", N + seed)}, "numbers of workers differ"),
]


@pytest.mark.parametrize(("words", "expected"), COMPARED, ids=[said[:70] for _, said in COMPARED])
def test_compare(words, expected):
    given = {"policies": ["full"], "task": GIVEN, "graph": RING, "delays": "constant", "seconds": 4.0, **words}
    assert expected in (refused(lambda: compare(**given)) or "accepted")


def test_one_spec_is_one_policy_and_not_its_letters():
    assert given.policies_of("full") == {"full": "full"}
    with pytest.raises(Begun):
        compare("full", GIVEN, RING, "constant", seconds=2.0, seeds=1)


CELLS = [
    ({"graph": "ring"}, {}, "axis 'graph' is 'ring'; give a list of values"),
    ({"graph": []}, {}, "axis 'graph' has no values"),
    ({"graph": 3}, {}, "axis 'graph' is 3; give a list of values"),
    ({"optimizer": [{}]}, {}, "axis 'optimizer' has values without a name"),
    ({"grph": ["ring"]}, {}, "compare has no argument 'grph'; did you mean 'graph'?"),
    ({"policies": ["full"]}, {}, "compare has no argument 'policies'"),
    ({"graph": ["ring"]}, {"graph": "star"}, "'graph' is an axis and given beside it"),
    ({"graph": ["ring"]}, {"stepps": 3}, "compare has no argument 'stepps'; did you mean 'steps'?"),
    (["graph"], {}, "axes=['graph'] have no names"),
    ({"graph": ["ring", "star", "rng"]}, {}, "unknown graph 'rng'"),  # the last cell, and none has run
    ({"learning_rate": [0.1, "fast"]}, {"graph": RING}, "learning_rate='fast' is not a number"),
    ({"seconds": [1.0, -1.0]}, {"graph": RING}, "seconds=-1 is no budget"),
    ({"learning_rate": [0.1]}, {}, "compare: missing a required argument: 'graph'"),
]


@pytest.mark.parametrize(("axes", "common", "expected"), CELLS, ids=[said[:60] for *_, said in CELLS])
def test_compare_cells(axes, common, expected):
    words = {"task": GIVEN, "delays": "constant", **({} if "seconds" in axes else {"seconds": 4.0}), **common}
    assert expected in (refused(lambda: compare_cells(["full"], axes, **words)) or "accepted")


def test_no_cell_runs_before_the_last_was_asked(monkeypatch):
    monkeypatch.setattr(comparing, "train_all", None)
    with pytest.raises(ValueError, match="unknown graph 'rng'"):
        compare_cells(["full"], {"graph": ["ring", "rng"]}, task=GIVEN, delays="constant", seconds=4.0)


PARTS = [
    (lambda: gossip(rules.full), "is no waiting rule; call it, as in full()"),
    (lambda: gossip("full"), "rule='full' is no waiting rule; use build_policy('full') for a SPEC"),
    (lambda: gossip(build_policy("full")), "is no waiting rule; it is a policy already"),
    (lambda: gossip(3), "rule=3 is no waiting rule; give a WaitRule, as full()"),
    (
        lambda: gossip(WaitRule(lambda: None, lambda k, g, s, a: None)),
        "the rule's init cannot be called as init(graph)",
    ),
    (
        lambda: gossip(WaitRule(lambda g: None, lambda a: None)),
        "the rule's cut cannot be called as cut(key, graph, stat",
    ),
    (lambda: gossip(rules.full(), "metropolitan"), "unknown weights 'metropolitan'; did you mean 'metropolis'?"),
    (lambda: gossip(rules.full(), weights.metropolis), "are no weights; call it, as in metropolis()"),
    (lambda: gossip(rules.full(), 0.5), "weights=0.5 are no weights"),
    (lambda: gossip(rules.full(), late="never"), "unknown late='never'"),
    (lambda: gossip(rules.full(), late=None), "unknown late=None"),
    (lambda: rules.fastest(2.5), "k=2.5 is not a whole number"),
    (lambda: rules.fastest(True), "k=True is not a whole number"),
    (lambda: rules.deadline("1"), "seconds='1' is not a number"),
    (lambda: dtur.dtur(NAN), "flood_latency=nan is not a number"),
    (lambda: neighbours.backup(1.0), "b=1.0 is not a whole number"),
    (lambda: neighbours.backup(1, "inf"), "gap='inf' is not a number"),
    (lambda: neighbours.dpsgd(weights=3), "weights=3 are no weights"),
    (lambda: build_policy(None), "None is no SPEC; write name or name:key=value, as text"),
    (lambda: build_graph(RING, 4), "is no SPEC; write name or name:key=value"),
    (lambda: build_delays(1.0, 4), "1.0 is no SPEC"),
    (lambda: build_task(DATA, workers=4), "is no SPEC"),
    (lambda: build_optimizer(0.1, 0.1), "0.1 is no SPEC"),
    (lambda: graphs.erdos_renyi(4, seed=None), "seed=None is no seed"),
    (lambda: graphs.ring(4.0), "workers=4.0 is not a whole number"),
    (lambda: graphs.grid(4, rows=2.0), "rows=2.0 is not a whole number"),
    (lambda: graphs.random_regular(4, degree=2.0), "degree=2.0 is not a whole number"),
    (lambda: graphs.random_regular(10, degree=0), "degree=0 connects no more than 1 of 10 workers"),
    (lambda: graphs.erdos_renyi(4, p="half"), "p='half' is not a number"),
    (lambda: build_graph("ring", True), "workers=True is not a whole number"),
    (lambda: build_graph("ring", 4, seed=-1), "seed=-1 is no seed"),
    (lambda: build_delays("constant", 4.0), "workers=4.0 is not a whole number"),
    (lambda: build_task("quadratic", workers=4.0), "workers=4.0 is not a whole number"),
    (lambda: build_task("logistic", workers=4, batch_size=True), "batch_size=True is not a whole number"),
]


@pytest.mark.parametrize(("call", "expected"), PARTS, ids=[said[:60] for _, said in PARTS])
def test_parts(call, expected):
    assert expected in (refused(call) or "accepted")


def test_weights_may_be_named():
    named, given, other = (gossip(rules.full(), weights) for weights in ("lazy", build_weights("lazy"), None))
    require_decision("mine", named, RING, named.init(RING))
    remaining = jnp.arange(1.0, 1.0 + len(RING.computes))
    plans = [one.decide(jax.random.key(0), RING, one.init(RING), remaining, None)[0] for one in (named, given, other)]
    mixes = [plan.mix for plan in plans]
    np.testing.assert_array_equal(mixes[0], mixes[1])
    assert not np.array_equal(mixes[0], mixes[2])


DOUBLY = [method.name for method in POLICIES.values() if method.mixing == "doubly"]
SPECS = {"fastest": "fastest:k=2", "deadline": "deadline:seconds=1"}
SPECS |= {name: f"{name}:k=2" for name in ("k_sync", "k_async", "k_batch_sync", "k_batch_async")}


@pytest.mark.parametrize("spec", [*(SPECS.get(name, name) for name in POLICIES), "full:barrier=neighbours"])
def test_what_a_method_needs_of_a_graph(spec):
    """Connected, all that move over its links; links of both directions, those that promise doubly stochastic mixing,
    or weigh by it. A server and Prague's groups need workers only."""
    policy, name = build_policy(spec), spec.partition(":")[0]

    def init(graph):
        return policy.init(graph if policy.network is None else policy.network(graph))

    init(RING)
    anywhere = POLICIES[name].family == "server" or name == "prague"
    if "k=2" not in spec and name not in ("prague", "server_backup"):  # for which one worker is too few
        init(graphs.path(1))
    apart = refused(lambda: init(PIECES))
    assert (apart is None) == anywhere
    assert apart is None or "the graph is not connected: worker 2 never hears worker 0" in apart
    said = refused(lambda: init(ONE_WAY))
    assert (said is not None) == (not anywhere and (name in DOUBLY or name in ("token", "swift", "acid")))
    assert said is None or "use an undirected graph (of a file: undirected=true)" in said
    idle = RING._replace(computes=RING.computes.at[2].set(False))
    assert re.search("(node|worker) 2 never computes", refused(lambda: init(idle)) or "")


def test_connected_is_meant_by_direction():
    """Everybody hears worker 0, which hears nobody."""
    matrix = np.zeros((4, 4), bool)
    matrix[1:, 0] = True
    outwards = graphs.from_adjacency(matrix)
    assert not properties.is_connected(outwards)
    assert len(properties.pieces(outwards)) == 1
    with pytest.raises(ValueError, match="the graph is not connected: not everybody hears everybody"):
        require_graph(outwards, "row")
    assert properties.is_connected(ONE_WAY)
    assert properties.links_of_one_direction(RING).tolist() == []
    assert properties.links_of_one_direction(ONE_WAY).tolist() == [[0, 1], [1, 2], [2, 3], [3, 0], [3, 1]]


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (PIECES, "best_constant has no weight for a graph in pieces; connect it"),
        (ONE_WAY, "best_constant needs links of both directions"),
    ],
)
def test_the_best_constant_weight_needs_a_connected_graph(graph, expected):
    assert expected in (refused(lambda: weights.best_constant().init(graph)) or "accepted")
    assert float(weights.best_constant().init(graphs.path(400))) > 0
    assert float(weights.best_constant().init(graphs.path(1))) == 0


def test_a_rule_s_end_may_be_a_python_number():
    """The same numbers as of an array."""
    ends = []
    for end in (2.0, 2, jnp.asarray(2.0), np.float64(2.0)):
        policy = ruled(lambda key, graph, state, arrival, end=end: (arrival <= 2, end, state))
        world = simulate.World(RING, build_delays("constant:seconds=1.5", N), GIVEN.batches, jax.random.key(0))
        clock = simulate.start_clock(policy, world)
        plan, _ = simulate.clock.tick(policy, RING, world.delays, world.key, clock)
        ends.append(np.asarray(plan.duration))
    assert all(end.dtype == np.float32 for end in ends)
    assert all(end == 2 for end in ends)


def test_a_second_call_asks_without_tracing_anew():
    """JAX remembers what a function returned, also of policies and tasks that are built anew."""
    traced = []

    def counted(params, batch):
        traced.append(1)
        return loss(params, batch)

    whole = task(loss=counted)
    before = len(traced)
    assert before == 1
    with pytest.raises(Begun):
        train_policy("full", whole, RING, "constant", optax.sgd(0.1), steps=3)
    first = len(traced)
    with pytest.raises(Begun):
        train_policy("full", whole, RING, "constant", optax.sgd(0.1), steps=3, seed=1)
    # The gradient's size is asked at every call, as ever; the probe is not.
    assert len(traced) - first <= first - before
