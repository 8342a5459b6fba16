"""What is equal is compiled once, and nothing else is taken for it."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import types
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from dbwjax.engine import programs, simulate, structure
from dbwjax.engine.blocks import in_slices
from dbwjax.engine.learner import from_optimizer
from dbwjax.engine.programs import canonical
from dbwjax.engine.randomness import Stream, stream
from dbwjax.engine.simulate import World
from dbwjax.engine.structure import digest
from dbwjax.learners import OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule
from dbwjax.network.delays import shifted_exponential
from dbwjax.network.graphs import build_graph
from dbwjax.network.weights import metropolis
from dbwjax.policies import POLICIES, build_policy
from dbwjax.policies.gossip import gossip
from dbwjax.policies.rules import fastest
from dbwjax.tasks import from_arrays
from dbwjax.tasks.models import build_model
from dbwjax.types import WaitRule

SETTINGS = {
    "dybw": ["dybw", "dybw:flood_latency=0.1", "dybw:late=drop", "dybw:weights=lazy"],
    "full": ["full", "full:barrier=neighbours", "full:late=apply", "full:weights=max_degree"],
    "backup": ["backup:b=1", "backup:b=2", "backup:b=1,weights=uniform"],
    "fastest": ["fastest:k=2", "fastest:k=3", "fastest:k=2,late=drop", "fastest:k=2,weights=best_constant"],
    "deadline": ["deadline:seconds=1", "deadline:seconds=1.5", "deadline:seconds=1,late=apply"],
    "dpsgd": ["dpsgd", "dpsgd:barrier=global", "dpsgd:weights=lazy"],
    "dsgd_aau": ["dsgd_aau", "dsgd_aau:weights=lazy"],
    "matcha": ["matcha", "matcha:budget=0.4", "matcha:barrier=neighbours"],
    "local_sgd": ["local_sgd", "local_sgd:h=5", "local_sgd:barrier=neighbours", "local_sgd:weights=lazy"],
    "dspodfl": ["dspodfl", "dspodfl:gradients=0.4", "dspodfl:links=0.4"],
    "subgradient": ["subgradient", "subgradient:radius=2", "subgradient:radius=3", "subgradient:barrier=global"],
    "tracking": ["tracking", "tracking:weights=lazy", "tracking:barrier=neighbours"],
    "d2": ["d2", "d2:weights=max_degree", "d2:barrier=neighbours"],
    "qgm": ["qgm", "qgm:beta=0.5", "qgm:weights=lazy", "qgm:barrier=neighbours"],
    "dual_averaging": ["dual_averaging", "dual_averaging:weights=lazy", "dual_averaging:barrier=global"],
    "choco": ["choco", "choco:gamma=0.5", "choco:codec=quantize:bits=4", "choco:codec=identity", "choco:weights=lazy"],
    "dcd": ["dcd", "dcd:codec=random_k:fraction=0.5", "dcd:codec=random_k:fraction=0.4", "dcd:barrier=global"],
    "ecd": ["ecd", "ecd:codec=quantize:bits=4", "ecd:codec=identity"],
    "adpsgd": ["adpsgd", "adpsgd:bipartite=true"],
    "randomized_gossip": ["randomized_gossip", "randomized_gossip:rate=2"],
    "token": ["token"],
    "swift": ["swift", "swift:every=2"],
    "acid": ["acid", "acid:rate=2"],
    "sgp": ["sgp", "sgp:graph=exponential", "sgp:graph=one_peer", "sgp:barrier=global"],
    "agp": ["agp"],
    "hop": ["hop", "hop:b=2", "hop:gap=4", "hop:staleness=1", "hop:skip=2"],
    "prague": ["prague:group=3", "prague:group=4"],
    "server": ["server"],
    "server_backup": ["server_backup", "server_backup:b=2"],
    "k_sync": ["k_sync:k=2", "k_sync:k=3"],
    "k_batch_sync": ["k_batch_sync:k=2", "k_batch_sync:k=3"],
    "k_async": ["k_async:k=2", "k_async:k=3"],
    "k_batch_async": ["k_batch_async:k=2", "k_batch_async:k=3"],
    "async_server": ["async_server", "async_server:weight=mean"],
    "ssp": ["ssp", "ssp:bound=2", "ssp:weight=mean"],
    "dbw": ["dbw"],
    "admm": ["admm", "admm:rho=0.3", "admm:weights=lazy"],
    "ssda": ["ssda", "ssda:weights=lazy"],
    "msda": ["msda", "msda:rounds=2"],
    "mspd": ["mspd", "mspd:eta=2", "mspd:rounds=2"],
    "encoded": ["encoded", "encoded:redundancy=3", "encoded:k=3"],
}
RATES = {
    "sgd": ["sgd"],
    "momentum": ["momentum:beta=0.9", "momentum:beta=0.8", "momentum:beta=0"],
    "adam": ["adam"],
}
COURSES = {
    "constant": ["constant"],
    "cosine": ["cosine:steps=10", "cosine:steps=11", "cosine:steps=10,alpha=0.5"],
    "step": ["step:every=10", "step:every=11", "step:every=10,factor=0.5"],
    "warmup": ["warmup:steps=10", "warmup:steps=11", "warmup:steps=10,start=0.5", "warmup:steps=10*cosine:steps=10"],
    "warmup_cosine": ["warmup_cosine:warmup=5,steps=10", "warmup_cosine:warmup=5,steps=11"],
}


def equal(one: Any, other: Any) -> bool:
    """Whether jit takes them for the same static argument, once they are canonical."""
    one, other = canonical(one), canonical(other)
    assert one == canonical(one)  # it is canonical already
    assert (one == other) == (digest(one) == digest(other))
    assert one != other or hash(one) == hash(other)
    return one == other


def all_different(build, specs):
    made, again = ([canonical(build(spec)) for spec in specs] for _ in range(2))
    for (one, spec), (other, another) in itertools.product(
        zip(made, specs, strict=True), zip(again, specs, strict=True)
    ):
        assert (one == other) == (spec == another), (spec, another)
        assert one != other or hash(one) == hash(other)


def test_every_row_of_the_tables_is_tested():
    for table, tested in ((POLICIES, SETTINGS), (OPTIMIZERS, RATES), (SCHEDULES, COURSES)):
        assert set(table) == set(tested)
        assert all(spec.split(":")[0] == name for name in tested for spec in tested[name])


def test_policies_of_equal_settings_are_one_and_the_others_are_not():
    all_different(build_policy, [spec for specs in SETTINGS.values() for spec in specs])


def test_optimisers_of_equal_settings_are_one_and_the_others_are_not():
    """Also their rates, which are constants of the optimiser until its state is made."""
    every = itertools.product([spec for specs in RATES.values() for spec in specs], (0.1, 0.2))
    all_different(lambda how: build_optimizer(*how), list(every))
    courses = [spec for specs in COURSES.values() for spec in specs]
    all_different(build_schedule, courses)
    all_different(lambda how: build_optimizer("adam", 0.1, how), courses)


def test_own_chains_of_optax():
    def build(how):
        clip, rate, decay = how
        return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=decay))

    all_different(build, [(1.0, 0.1, 0.0), (2.0, 0.1, 0.0), (1.0, 0.2, 0.0), (1.0, 0.1, 0.01)])
    all_different(lambda build: build(0.1), [optax.sgd, optax.adam, optax.lion, optax.rmsprop])


def squares(power):
    def loss(params, batch):
        return (jnp.abs(batch["x"] @ params - batch["y"]) ** power).mean()

    return loss


def task_of(loss, metrics=None, seed=0, preprocess=None):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 3)).astype(np.float32)
    data = {"x": inputs, "y": inputs.sum(axis=1)}
    return from_arrays(
        loss, lambda key: jnp.zeros(3), data, workers=4, batch_size=5, seed=seed, metrics=metrics, preprocess=preprocess
    )


def learner_of(power=2.0, optimizer="momentum", rate=0.1, schedule="constant", slices=1):
    loss = squares(power)
    return from_optimizer(in_slices(loss, slices) if slices > 1 else loss, build_optimizer(optimizer, rate, schedule))


def test_learners():
    settings = [
        {},
        {"power": 3.0},
        {"optimizer": "sgd"},
        {"rate": 0.2},
        {"schedule": "cosine:steps=7"},
        {"schedule": "cosine:steps=8"},
        {"slices": 5},
        {"slices": 1, "power": 2},  # a whole number is traced otherwise
    ]
    all_different(lambda how: learner_of(**how), settings)


def test_losses_of_the_shipped_models():
    """Flax modules are told apart by what they are; the builders are called past their cache."""

    def build(name):
        model = build_model(name, (8, 8, 1), 10)

        def loss(params, batch):
            return model.apply(params, batch).sum()

        return loss

    all_different(build, ["lrm", "2nn"])
    before = digest(build("2nn"))
    model = build_model("2nn", (8, 8, 1), 10)
    jax.eval_shape(lambda key: model.apply(model.init(key), jnp.zeros((1, 64))), jax.random.key(0))
    assert digest(build("2nn")) == before  # use leaves no mark on it


def test_own_tasks_and_lambdas():
    def metrics(scale):
        return lambda params, batch: {"size": scale * params.sum()}

    all_different(lambda scale: task_of(squares(2), metrics(scale)).evaluate.func, [1.0, 2.0])
    one, other = (lambda x: x + 1), (lambda x: x + 1)
    assert one.__code__ is not other.__code__
    assert equal(one, other)  # one line, one text
    another = lambda x: x + 1  # noqa: E731
    assert not equal(one, another)  # another line
    assert not equal(lambda x: x + 1, lambda x: x + 2)
    assert not equal(lambda x: x.sum(), lambda x: x.max())
    assert not equal(lambda x, axis=0: x, lambda x, axis=1: x)
    assert not equal(lambda x, *, axis=0: x, lambda x, *, axis=0.0: x)


def test_a_task_s_data_stay_data():
    """Of a pytree only the functions are replaced: arrays are neither read nor shared."""
    task = task_of(squares(2.0), preprocess=lambda batch: batch)
    found = canonical(task.batches)
    assert isinstance(found, Partial)
    assert all(new is old for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(task.batches), strict=True))
    again = canonical(task_of(squares(2.0), preprocess=task.batches.args[0].func).batches)
    assert jax.tree.structure(found) == jax.tree.structure(again)
    one, other, another = (canonical(task_of(squares(power)).evaluate) for power in (2.0, 2.0, 3.0))
    assert jax.tree.structure(one) == jax.tree.structure(other) != jax.tree.structure(another)


def test_containers_keep_their_kinds():
    class Pair(NamedTuple):
        function: Any
        number: float

    @dataclass(frozen=True)
    class Frozen:
        function: Any
        number: float = 1.0

    @dataclass
    class Loose:
        function: Any

    tree = {"a": [Pair(squares(1), 2.0), (squares(2), None)], "b": Frozen(squares(3))}
    found = canonical(tree)
    assert type(found["a"][0]) is Pair
    assert found["a"][0].number == 2.0
    assert type(found["b"]) is Frozen
    assert found == canonical({"a": [Pair(squares(1), 2.0), (squares(2), None)], "b": Frozen(squares(3))})
    assert hash(found["b"]) == hash(canonical(Frozen(squares(3))))
    assert canonical(Frozen(squares(3))) != canonical(Frozen(squares(3), -1.0))
    loose, array = Loose(squares(1)), jnp.zeros(3)
    assert canonical(loose) is loose
    assert canonical(array) is array
    assert canonical((1, "a", None, array))[3] is array
    assert canonical(optax.sgd) is canonical(optax.sgd)


# Numbers and containers, against an equality of our own.


def strictly(value):
    """What a value is, with its type: the equality that is promised."""
    if isinstance(value, dict):
        return "dict", [(strictly(key), strictly(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [strictly(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(repr(strictly(item)) for item in value)
    return type(value).__name__, repr(value)


SMALL = st.sampled_from(
    [None, True, False, 0, 1, 2, -1, 0.0, -0.0, 1.0, float("nan"), float("inf"), 1j, "", "1", "True", b"1", ..., 2**70]
)
VALUES = st.recursive(
    SMALL | st.text(max_size=2) | st.floats() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", 1, 1.5]), inner, max_size=2)
        | st.frozensets(SMALL, max_size=2)
    ),
    max_leaves=6,
)


def captures(value):
    return lambda: value


def keyword(value):
    def function(*, it=value):
        return it

    return function


MAKERS = [captures, keyword, lambda value: partial(captures, value), lambda value: captures(captures(value))]


@given(one=VALUES, other=VALUES, maker=st.sampled_from(MAKERS))
@settings(deadline=None, max_examples=200)
def test_what_a_function_holds_decides(one, other, maker):
    assert equal(maker(one), maker(copy.deepcopy(one)))
    assert equal(maker(one), maker(other)) == (strictly(one) == strictly(other))


@given(one=SMALL, other=SMALL, third=SMALL)
@settings(deadline=None, max_examples=50)
def test_nested_containers_are_not_flattened(one, other, third):
    kinds = [
        (one, (other, third)),
        ((one, other), third),
        (one, other, third),
        [one, (other, third)],
        ((one, other, third),),
    ]
    for first, second in itertools.combinations(kinds, 2):
        assert not equal(captures(first), captures(second))


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=4), dtype=st.sampled_from(["float32", "float64"]))
@settings(deadline=None, max_examples=50)
def test_arrays_are_compared_by_type_shape_and_bytes(values, dtype):
    array = np.array(values, dtype)
    assert equal(captures(array), captures(array.copy()))
    assert not equal(captures(array), captures(array[None]))
    assert not equal(captures(array), captures(array.astype("complex64")))
    changed = array.copy()
    changed[-1] = 7 if changed[-1] != 7 else 8
    assert not equal(captures(array), captures(changed))
    assert not equal(captures(np.zeros(2)), captures(-np.zeros(2)))
    assert equal(captures(jnp.asarray(array)), captures(jnp.asarray(array)))
    assert not equal(captures(jnp.asarray(array)), captures(jnp.asarray(changed)))
    assert not equal(captures(jnp.asarray(array)), captures(array))


def test_large_arrays(monkeypatch):
    monkeypatch.setattr(structure, "LARGE_JAX", 100)
    monkeypatch.setattr(structure, "LARGE_NUMPY", 100)
    fixed, loose = jnp.zeros(100), np.zeros(100)
    assert equal(captures(fixed), captures(fixed))
    assert not equal(captures(fixed), captures(jnp.zeros(100)))
    function = captures(loose)
    assert digest(function) is None
    assert canonical(function) is function
    assert canonical(captures(loose)) is not canonical(captures(loose))


def test_arrays_of_other_types():
    for make in (
        lambda: jnp.ones(3, jnp.bfloat16),
        lambda: np.asarray(jnp.ones(3, jnp.bfloat16)),
        lambda: np.array([1, "a", None], object),
        lambda: np.array("2020-01-01", "datetime64[D]"),
        lambda: np.float32(2),
        lambda: np.dtype("float32"),
        lambda: np.array(3.0),
        lambda: np.zeros((0, 3)),
    ):
        assert equal(captures(make()), captures(make()))
    assert not equal(captures(np.float32(2)), captures(np.float64(2)))
    assert not equal(captures(np.dtype("float32")), captures(np.dtype("float64")))
    assert not equal(captures(np.array([1, "a"], object)), captures(np.array([1, "b"], object)))
    masked = [np.ma.array([1.0, 2.0], mask=mask) for mask in ([0, 0], [0, 1])]
    assert not equal(captures(masked[0]), captures(masked[1]))
    key = jax.random.key(0)
    assert equal(captures(key), captures(key))


# Compiled once.


class Counted:
    """The simulation's program, with a count of how often it was traced."""

    def __init__(self):
        self.traced = 0
        self.program = jax.jit(self._program, static_argnames=("policy", "learner", "steps"))

    def _program(self, policy, learner, world, state, steps):
        self.traced += 1
        return simulate.scan(policy, learner, world, state, steps)

    def start(self, policy, learner, task, seed=0):
        policy, learner = canonical((policy, learner))
        world = World(build_graph("ring", 4), shifted_exponential(4), task.batches, jax.random.key(seed))
        params = task.init(stream(world.key, Stream.PARAMETERS))
        return policy, learner, world, lambda: simulate.init(policy, learner, world, params)

    def run(self, policy, learner, task, seed=0):
        policy, learner, world, state = self.start(policy, learner, task, seed)
        return jax.device_get(self.program(policy, learner, world, state(), 3)[0].model.params)

    def trace(self, policy, learner, task, seed=0):
        """As `run`, without compiling."""
        policy, learner, world, state = self.start(policy, learner, task, seed)
        return str(self.program.trace(policy, learner, world, jax.eval_shape(state), 3).jaxpr)


def test_what_is_built_anew_is_traced_once():
    counted, task = Counted(), task_of(squares(2.0))

    def trace(seed=0, policy="fastest:k=3", optimizer="momentum", rate=0.1, schedule="warmup:steps=2", power=2.0):
        learner = from_optimizer(squares(power), build_optimizer(optimizer, rate, schedule))
        return counted.trace(build_policy(policy), learner, task, seed)

    first = trace()
    for seed in (0, 1, 2):
        assert trace(seed) == first
    assert counted.traced == 1
    anew = [
        {"policy": "fastest:k=2"},
        {"policy": "fastest:k=3,late=drop"},
        {"optimizer": "sgd"},
        {"rate": 0.2},
        {"schedule": "warmup:steps=3"},
        {"power": 3.0},
    ]
    for count, told in enumerate(anew, start=2):
        assert trace(**told) == trace(**told)
        assert counted.traced == count, told
    assert trace() == first
    assert counted.traced == 1 + len(anew)


def test_the_second_run_is_the_first_one_s_program():
    counted, task = Counted(), task_of(squares(2.0))
    first, again, other = (counted.run(build_policy("full"), learner_of(), task, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(other, first)
    assert counted.traced == 1


def test_own_rules_are_traced_once():
    counted, task = Counted(), task_of(squares(2.0))
    learner = learner_of()

    def half():
        return WaitRule(lambda graph: None, lambda key, graph, state, arrival: (arrival <= 2.0, jnp.array(2.0), state))

    counted.trace(gossip(half()), learner, task)
    counted.trace(gossip(half(), metropolis()), learner, task)
    counted.trace(gossip(half(), late="drop"), learner, task)
    assert counted.traced == 2


def test_programs_live_as_long_as_jax_keeps_them():
    """Nothing else holds a policy: not the user, and not the registry."""
    counted, task = Counted(), task_of(squares(2.0))
    counted.trace(build_policy("full"), learner_of(), task)
    gc.collect()
    counted.trace(build_policy("full"), learner_of(), task)
    assert counted.traced == 1
    before = len(programs._known)
    found = canonical([build_policy(f"deadline:seconds={seconds}") for seconds in range(1, 11)])
    assert len(programs._known) == before + 20
    assert found == canonical(found)
    del found
    gc.collect()
    assert len(programs._known) == before


# Nothing else is taken for it: what changes between two calls is traced again.


def value_of(function):
    """Traced as JAX does it: once for a function."""
    return float(jitted(canonical(function)))


@partial(jax.jit, static_argnums=0)
def jitted(function):
    return jnp.float32(function())


SCALE = 1.0
HOLDER = types.SimpleNamespace(scale=1.0)


def helper():
    return SCALE


class Namespace:
    """Settings as people write them in notebooks."""

    scale = 1.0

    def of_class(self):
        return self.scale + SCALE

    def __call__(self):
        return SCALE


THING = Namespace()


class Config:
    def __init__(self, scale):
        self.scale = scale


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale


def changing():
    """Pairs of a maker of functions and what changes their value from 1 to 2."""
    captured, number, array = {"scale": 1.0}, [1.0], np.ones(1)
    config, slotted, deep = Config(1.0), Slotted(1.0), Config([{"a": Config(1.0)}])
    ordered = __import__("collections").OrderedDict(scale=1.0)
    queue = __import__("collections").deque([1.0])
    proxy, raw = types.MappingProxyType(captured), bytearray([1])
    cell = 1.0

    def rebind():
        nonlocal cell
        cell = 2.0

    def later(name, value):
        return lambda: globals().__setitem__(name, value)

    return {
        "dict": (lambda: lambda: captured["scale"], lambda: captured.update(scale=2.0)),
        "list": (lambda: lambda: number[0], lambda: number.__setitem__(0, 2.0)),
        "array": (lambda: lambda: array[0], lambda: array.fill(2.0)),
        "object": (lambda: lambda: config.scale, lambda: setattr(config, "scale", 2.0)),
        "slots": (lambda: lambda: slotted.scale, lambda: setattr(slotted, "scale", 2.0)),
        "nested": (lambda: lambda: deep.scale[0]["a"].scale, lambda: setattr(deep.scale[0]["a"], "scale", 2.0)),
        "ordered": (lambda: lambda: ordered["scale"], lambda: ordered.update(scale=2.0)),
        "deque": (lambda: lambda: queue[0], lambda: queue.__setitem__(0, 2.0)),
        "proxy": (lambda: lambda: proxy["scale"], lambda: captured.update(scale=2.0)),
        "buffer": (lambda: lambda: raw[0], lambda: raw.__setitem__(0, 2)),
        "nonlocal": (lambda: lambda: cell, rebind),
        "partial": (lambda: partial(lambda held: held[0], number), lambda: number.__setitem__(0, 2.0)),
        "method": (lambda: config_method(config), lambda: setattr(config, "scale", 2.0)),
        "builtin": (lambda: partial(captured.__getitem__, "scale"), lambda: captured.update(scale=2.0)),
        "global": (lambda: lambda: SCALE, later("SCALE", 2.0)),
        "helper": (lambda: lambda: helper(), later("SCALE", 2.0)),
        "called": (lambda: lambda: THING(), later("SCALE", 2.0)),
        "holder": (lambda: lambda: HOLDER.scale, lambda: setattr(HOLDER, "scale", 2.0)),
        "class": (lambda: lambda: Namespace.scale, lambda: setattr(Namespace, "scale", 2.0)),
        "class of an object": (lambda: lambda: THING.of_class() - 1, lambda: setattr(Namespace, "scale", 2.0)),
        "module": (lambda: lambda: settings_module.SCALE, lambda: setattr(settings_module, "SCALE", 2.0)),
        "module's function": (lambda: lambda: settings_module.read(), lambda: setattr(settings_module, "SCALE", 2.0)),
        "nested function": (lambda: lambda: (lambda: SCALE)(), later("SCALE", 2.0)),
        "wrapped": (lambda: functools.wraps(helper)(lambda: helper()), later("SCALE", 2.0)),
    }


def config_method(config):
    return types.MethodType(lambda self: self.scale, config)


settings_module = types.ModuleType("settings_module")
exec("SCALE = 1.0\ndef read(): return SCALE", vars(settings_module))


@pytest.mark.parametrize("name", changing())
def test_what_changes_is_traced_again(name):
    make, change = changing()[name]
    saved = SCALE, HOLDER.scale, Namespace.scale, settings_module.SCALE
    try:
        same = make()
        assert (value_of(same), value_of(make())) == (1.0, 1.0)
        assert equal(same, make())
        change()
        assert value_of(same) == 2.0  # which JAX alone would not see
        assert value_of(make()) == 2.0
        assert equal(same, make())
    finally:
        globals()["SCALE"], HOLDER.scale, Namespace.scale, settings_module.SCALE = saved


def test_what_changed_back_finds_its_first_program():
    held = [1.0]
    found = []
    for value in (1.0, 2.0, 1.0, 2.0):
        held[0] = value
        found.append(canonical(captures(held)))
        assert value_of(captures(held[0])) == value
    assert found[0] is found[2]
    assert found[1] is found[3]
    assert found[0] is not found[1]


def test_a_function_that_changed_is_not_what_its_equals_find():
    """The first one's captured list changes; who is built as it was must not run with it."""
    first, second = [1.0], [1.0]
    assert value_of(lambda: first[0]) == 1.0

    def make(held):
        return lambda: held[0]

    stand_in = canonical(make(first))
    first[0] = 2.0
    other = canonical(make(second))
    assert other is not stand_in
    assert other() == 1.0


def test_unknown_objects_are_equal_to_themselves_only():
    config = Config(1.0)
    assert equal(captures(config), captures(config))
    assert not equal(captures(config), captures(Config(1.0)))
    assert not equal(captures(Config), captures(Slotted))
    assert not equal(captures(jax.jit(helper)), captures(jax.jit(helper)))
    assert not equal(captures(object()), captures(object()))
    method, other = config_method(config), config_method(Config(1.0))
    assert canonical(method)() == 1.0
    assert not equal(method, other)


def test_globals_of_two_modules_are_not_one():
    text = "def make():\n    return lambda: SCALE\n"
    code = compile(text, "somewhere.py", "exec")
    scopes = [{"SCALE": 1.0, "__name__": "a"}, {"SCALE": 1.0, "__name__": "b"}]
    for scope in scopes:
        exec(code, scope)
    one, other = (scope["make"] for scope in scopes)
    assert equal(one(), one())
    assert not equal(one(), other())
    exec(compile(text, "somewhere.py", "exec"), scopes[0])  # the same cell of a notebook, run again
    assert one is not scopes[0]["make"]
    assert equal(one(), scopes[0]["make"]())
    exec(compile(text, "elsewhere.py", "exec"), scopes[0])
    assert not equal(one(), scopes[0]["make"]())


def test_what_is_shared_differs_from_what_is_not():
    def pair(one, other):
        return lambda: (one, other)

    held = [1]
    assert not equal(pair(held, held), pair([1], [1]))
    assert equal(pair([1], [1]), pair([1], [1]))


def test_functions_that_hold_themselves_end():
    def recursive(depth):
        def function(n):
            return 0 if n == 0 else depth + function(n - 1)

        return function

    assert canonical(recursive(2))(3) == 6
    assert digest(recursive(2)) == digest(recursive(2)) != digest(recursive(3))
    loop: list = []
    loop.append(loop)
    assert equal(captures(loop), captures(loop))
    empty = types.FunctionType(captures(1).__code__, globals(), "empty", None, (types.CellType(),))
    assert canonical(empty) is canonical(empty)


class Nasty:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("no")

    def __hash__(self):
        raise RuntimeError("no")


class NastyList(list):
    def __iter__(self):
        raise KeyboardInterrupt


def test_nothing_raises():
    thing = captures(Nasty())
    assert canonical(thing)() is thing()
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    function = captures(deep)
    assert canonical(function) is function
    many = captures(list(range(1_000_000)))
    assert canonical(many) is many
    while deep:  # or it is freed by recursion
        deep = deep[0]
    generator = (number for number in range(3))
    assert canonical(captures(generator))() is generator
    assert next(generator) == 0  # it was not used up
    deleted = jnp.ones(3)
    deleted.delete()
    gone = captures(deleted)
    assert canonical(gone) is gone


def test_stand_ins_are_what_they_stand_for():
    def function(a, b=2, *, c: int = 3):
        """Says what it does."""
        return a, b, c, SCALE

    function.note = "kept"
    found = canonical(function)
    assert found is not function
    assert found(1) == function(1) == (1, 2, 3, SCALE)
    assert (found.__name__, found.__doc__, found.note) == ("function", "Says what it does.", "kept")
    assert found.__qualname__ == function.__qualname__
    half = canonical(partial(function, 1, c=5))
    assert half() == (1, 2, 5, SCALE)
    assert half is canonical(partial(function, 1, c=5))
    assert half is not canonical(partial(function, 1, c=6))


def test_tracers_are_compared_by_identity():
    @jax.jit
    def program(x, y):
        assert equal(captures(x), captures(x))
        assert not equal(captures(x), captures(y))
        return canonical(lambda: x + y)()

    assert program(1.0, 2.0) == 3.0


def test_a_schedule_that_changes_itself_is_only_compiled_again():
    """Optax's cosine turns a whole number into a float in its closure, at its first call."""
    first = optax.cosine_decay_schedule(1.0, 10)
    stand_in = canonical(first)
    stand_in(jnp.int32(3))
    assert canonical(optax.cosine_decay_schedule(1.0, 10)) is not stand_in
    ours = canonical(build_schedule("cosine:steps=10"))
    ours(jnp.int32(3))
    assert canonical(build_schedule("cosine:steps=10")) is ours


def test_waiting_rules_by_hand():
    all_different(lambda k: gossip(fastest(k)), [1, 2, 3])
