"""A run in chunks is the run in one, bit for bit, as users compile it (`test_contract.py` compiles with little
optimisation)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from dbwjax.engine import simulate
from tests.test_contract import ALL, LEARNER, PARAMS, STEPS, bitwise, policy_of, world_of


@pytest.mark.parametrize("name", ALL)
def test_chunked_is_whole_bitwise(name):
    policy, world, pieces = policy_of(name), world_of(name), []
    start = simulate.init(policy, LEARNER, world, PARAMS)
    final, record = simulate.run(policy, LEARNER, world, start, STEPS)
    state = simulate.init(policy, LEARNER, world, PARAMS)
    for _ in range(2):
        state, piece = simulate.run(policy, LEARNER, world, state, STEPS // 2)
        pieces.append(piece)
    bitwise(final, state)
    bitwise(record, jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces))
