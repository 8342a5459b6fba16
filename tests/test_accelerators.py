"""What a GPU or TPU is given, as far as a machine without one can tell: every program can be lowered for them, to
plain StableHLO (no call of a library that only some have) with the fence that they respect."""

from __future__ import annotations

import re

import jax
import pytest

from dbwjax.engine import batch, ensemble, simulate
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import build
from dbwjax.policies import build_policy


@pytest.fixture(scope="module")
def setting():
    return build(TrainConfig(dataset="logistic", batch_size=4))


def lowered(program, platform, *arguments):
    text = program.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    called = re.findall(r"custom_call @(\w+)", text)
    # Random bits have one of their own where JAX's plugin for CUDA is installed.
    assert all("threefry" in name for name in called), called
    return text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("spec", ["dybw", "dybw:late=carry", "backup:b=1", "dpsgd"])
def test_a_run_lowers(setting, spec, platform):
    policy, (world, learner) = build_policy(spec), setting[:2]
    state = simulate.init(policy, learner, world, setting.params)
    fences = lowered(simulate.run, platform, policy, learner, world, state, 3).count("stablehlo.optimization_barrier")
    # D-PSGD mixes what was there before, so nothing has to be written first.
    assert fences == (0 if spec == "dpsgd" else 1)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_batch_and_its_clocks_lower(setting, platform):
    policy, (world, learner) = build_policy("dybw"), setting[:2]
    worlds = batch.stack([world, world._replace(key=jax.random.key(1))])
    states = batch.stack_all([policy.init(world.graph)] * 2)
    axes, clocks = batch.Axes(worlds.axes), ensemble.start(worlds, states)
    sims = ensemble.init(policy, learner, worlds, states, batch.stack_all([setting.params] * 2))
    lowered(ensemble._run, platform, policy, learner, worlds.tree, axes, sims, 3, None)
    lean = ensemble._lean(worlds)
    lowered(ensemble._clocks, platform, policy, lean.tree, batch.Axes(lean.axes), clocks, 3, None)
