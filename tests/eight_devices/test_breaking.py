"""A world that breaks on eight devices: the numbers of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.engine import simulate
from dbwjax.engine.sharding.shard import Devices
from tests.cases import LEARNER, Case, P, graphs, policy_of
from tests.reference.breaking import Absence, Partition
from tests.test_breaking import events_of


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spec", ["full", "server"])
def test_eight_devices_are_one(spec):
    case, policy = Case(graphs.random_regular(16, degree=4, seed=0), 0), policy_of(spec)
    absences = [Absence(3, 2.0, 7.0, 1.0), Absence(9, 4.0, float("inf"), 0.5)]
    events = events_of(16, absences, [Partition(5.0, 8.0, [i % 2 for i in range(16)])], loss=0.2)
    world = simulate.networked(policy, case.world._replace(events=events))
    alone, found = simulate.run(policy, LEARNER, world, simulate.init(policy, LEARNER, world, jnp.zeros(P)), 30)
    devices = Devices(world.graph, jax.devices())
    state = devices.init(policy, LEARNER, devices.replicate(world), jnp.zeros(P))
    shared, others = devices.run(policy, LEARNER, devices.replicate(world), state, 30)
    np.testing.assert_array_equal(found.duration, np.asarray(others.duration))
    np.testing.assert_array_equal(alone.clock.remaining, np.asarray(shared.clock.remaining))
    np.testing.assert_array_equal(found.unreachable, np.asarray(others.unreachable))
    rows = np.asarray(shared.model.params)
    place = {int(node): row for row, node in reversed(list(enumerate(devices.order)))}
    for node, one in enumerate(np.asarray(alone.model.params)):
        np.testing.assert_allclose(rows[place[node]], one, rtol=0, atol=1e-12)
