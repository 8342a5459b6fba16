"""What a GPU or TPU is given, as far as a machine without one can tell: every program can be lowered for them, to
plain StableHLO (no call of a library that only some have) with the fence that they respect."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from dbwjax.engine import batch, ensemble, readings, simulate
from dbwjax.engine.readings import Due
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.policies import build_policy


@pytest.fixture(scope="module")
def problem():
    return problems(of_seeds(TrainConfig(dataset="logistic", batch_size=4, seconds=1.0, seeds=2)))[0]


def lowered(program, platform, *arguments):
    text = program.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    called = re.findall(r"custom_call @(\w+)", text)
    # Random bits have one of their own where JAX's plugin for CUDA is installed.
    assert all("threefry" in name for name in called), called
    return text


DUE = Due(
    jnp.zeros(4, jnp.int32), *[jnp.zeros(1, jnp.int32)] * 2, jnp.zeros((1, 10)), jnp.zeros(1), jnp.zeros(4, jnp.int32),
    *[jnp.zeros(1, jnp.int32)] * 2
)  # fmt: skip


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("spec", ["dybw", "dybw:late=carry", "backup:b=1", "dpsgd"])
def test_a_run_lowers(problem, spec, platform):
    policy, world, learner = build_policy(spec), problem.alone(0), problem.learner
    params = jax.tree.map(lambda leaf: leaf[0], problem.params)
    state = simulate.init(policy, learner, world, params)
    fences = lowered(simulate.run, platform, policy, learner, world, state, 3).count("stablehlo.optimization_barrier")
    # D-PSGD mixes what was there before, so nothing has to be written first.
    assert fences == (0 if spec == "dpsgd" else 1)
    program = jax.jit(simulate.advance, static_argnums=(0, 1))
    lowered(program, platform, policy, learner, world, state, readings.empty(params, 2), DUE, jnp.zeros((), jnp.int32))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_batch_and_its_clocks_lower(problem, platform):
    policy, learner = build_policy("dybw"), problem.learner
    worlds, states = problem.worlds, batch.stack_all([policy.init(problem.alone(i).graph) for i in (0, 1)])
    axes, clocks = batch.Axes(worlds.axes), ensemble.start(policy, worlds, states)
    sims = ensemble.init(policy, learner, worlds, states, problem.params)
    lowered(ensemble._run, platform, policy, learner, worlds.tree, axes, sims, 3, None)
    held = readings.empty(jax.tree.map(lambda leaf: leaf[0], problem.params), 4)
    due = jax.tree.map(lambda leaf: leaf[None], DUE)
    one = jnp.zeros(1, jnp.int32)
    lowered(ensemble._advance, platform, policy, learner, worlds.tree, axes, sims, held, due, one, None)
    lean = ensemble._lean(worlds)
    left = jnp.ones(2), jnp.zeros(2)
    program = ensemble._clocks, platform, policy, lean.tree, batch.Axes(lean.axes), clocks, left, 3, None
    lowered(*program, ensemble.ClockRecord._fields)
