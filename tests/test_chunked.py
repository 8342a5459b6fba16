"""A run in chunks is the run in one, bit for bit, as users compile it, for one policy of each kind of plan. (All
policies, compiled with little optimisation: `test_contract.py`.)"""

from __future__ import annotations

import pytest

from dbwjax.engine import simulate
from tests.cases import PAIR_LEARNER, assert_chunks_are_the_run

pytestmark = pytest.mark.optimised

KINDS = {
    "the active subgraph, late workers go on": "dybw:late=carry",
    "a neighbour barrier": "backup:b=1",
    "combine, then adapt": "dpsgd",
    "events of two nodes, stale updates": "pairwise, numbered",
    "mass, dense": "push-sum",
}


@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
def test_chunks_are_the_run_bitwise(name):
    def run(policy, world, state, steps):
        return simulate.run(policy, PAIR_LEARNER, world, state, steps)

    assert_chunks_are_the_run(run, name, 24, chunks=2)
