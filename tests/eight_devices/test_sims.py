"""A batch shared by devices is the batch on one: the same clocks to the last bit, the same parameters to rounding."""

from __future__ import annotations

import csv
import json

import jax
import numpy as np
import pytest

from dbwjax import sweep
from dbwjax.engine import batch, ensemble
from dbwjax.experiments import blocks, driver
from tests.test_batch import POLICIES, learned, many

pytestmark = pytest.mark.usefixtures("no_figures")

STEPS = 50


@pytest.mark.optimised
@pytest.mark.parametrize(("name", "count"), [("synchronous", 8), ("event-driven", 8), ("directed", 4)])
def test_a_shared_batch_is_the_batch(x64, name, count):
    policy = POLICIES[name]
    worlds, learner, params = learned(name)
    params = batch.stack_all(params)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    whole = batch.stack(worlds)
    found = {}
    for mesh in (None, batch.mesh_of(jax.devices()[:count])):
        some = batch.spread(whole, mesh)
        sims = ensemble.init(policy, learner, some, states, params, mesh)
        found[mesh] = ensemble.run_batch(policy, learner, some, sims, STEPS, mesh)
        _, clocks, _ = ensemble.clock_batch(policy, some, ensemble.start(policy, some, states, mesh), STEPS, mesh)
        np.testing.assert_array_equal(clocks.duration, found[mesh][1].duration)
    (one, records), (shared, others) = found.values()
    assert len(jax.tree.leaves(shared)[0].sharding.device_set) == count
    for field in ("duration", "active", "backup_workers", "gradients"):
        np.testing.assert_array_equal(getattr(records, field), getattr(others, field), err_msg=field)
    np.testing.assert_array_equal(one.clock.remaining, shared.clock.remaining)
    for ours, theirs in zip(jax.tree.leaves(one.model.params), jax.tree.leaves(shared.model.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.optimised
def test_nothing_is_sent_between_simulations():
    policy = POLICIES["synchronous"]
    _, worlds = many()
    mesh = batch.mesh_of(jax.devices())
    some = batch.spread(batch.stack(worlds), mesh)
    states = batch.stack_all([policy.init(world.graph) for world in worlds])
    lean = ensemble._lean(some)
    clocks = ensemble.start(policy, some, states, mesh)
    left = jax.numpy.ones(len(worlds)), jax.numpy.zeros(len(worlds))
    fields = ensemble.ClockRecord._fields
    program = ensemble._clocks.lower(policy, lean.tree, batch.Axes(lean.axes), clocks, left, 5, mesh, fields)
    text = program.compile().as_text()
    assert not [word for word in ("all-gather", "all-reduce", "collective-permute", "all-to-all") if word in text]


def rows_of(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_begun_on_some_devices_and_finished_on_others(tmp_path, monkeypatch):
    words = [
        "--dataset",
        "logistic",
        "--workers",
        "6",
        "--seconds",
        "20",
        "--rows",
        "4",
        "--batch-size",
        "4",
        "--policies",
        "dybw",
    ]
    words += ["--seeds", "5", "--learning-rates", "0.1", "0.3", "--no-progress"]
    assert sweep.main([*words, "--devices", "1", "--out", str(tmp_path / "one")]) == 0
    block, done = driver.Driver._block, []

    def dying(self, *arguments, **named):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return block(self, *arguments, **named)

    monkeypatch.setattr(blocks, "CACHE", 0)  # a block is one simulation for each device
    monkeypatch.setattr(driver.Driver, "_block", dying)
    assert sweep.main([*words, "--devices", "4", "--out", str(tmp_path / "many")]) == 130
    assert json.loads((tmp_path / "many" / "config.json").read_text())["blocks"] == [4]
    monkeypatch.setattr(driver.Driver, "_block", block)
    assert sweep.main([*words, "--devices", "3", "--out", str(tmp_path / "many")]) == 0
    one, many = (
        sorted(rows_of(tmp_path / name), key=lambda row: (row["learning_rate"], row["seed"], row["row"]))
        for name in ("one", "many")
    )
    for a, b in zip(one, many, strict=True):
        assert a["virtual_time"] == b["virtual_time"]
        assert float(a["test_loss"]) == pytest.approx(float(b["test_loss"]), rel=1e-4)


def test_devices_that_are_not_there(tmp_path, capsys):
    assert sweep.main(["--seconds", "9", "--devices", "9", "--out", str(tmp_path / "out")]) == 2
    assert "--devices 9 is more than the 8 that are here; use 1 to 8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
