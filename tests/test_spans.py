"""When each worker computed and waited, computation by computation, against the delays themselves and the sums."""

import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax import compare
from dbwjax.experiments.accounting import Account
from dbwjax.experiments.extent import SPAN
from dbwjax.experiments.spans import SPANS

WORKERS, SECONDS = 6, 25
DELAYS = np.random.default_rng(0).pareto(2.5, (WORKERS, 100)).astype(np.float32) + np.float32(0.5)
CUT = ["dybw:late=drop", "server_backup:b=2"]
POLICIES = ["full", "dybw", "backup:b=1", "adpsgd", "ssp:bound=1", *CUT]


def delays(key, worker, started):
    return jnp.asarray(DELAYS)[worker, started]


@pytest.fixture(scope="module")
def timelines():
    found = compare(POLICIES, "quadratic", "ring", delays, workers=WORKERS, seconds=SECONDS, rows=5, seeds=1)
    return {policy: worlds["0"] for policy, worlds in found.timelines.items()}


def of_worker(spans, worker):
    mine = spans["span_worker"] == worker
    return {name.removeprefix("span_"): spans[name][mine] for name in SPANS}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_computation_is_the_one_that_was_drawn(timelines, policy):
    for worker in range(WORKERS):
        spans = of_worker(timelines[policy], worker)
        drawn = DELAYS[worker, : len(spans["step"])]
        assert len(drawn) > 3
        cut = ~np.isclose(spans["computing"], drawn, rtol=1e-5)
        assert (spans["computing"] <= drawn * 1.00001).all()
        assert cut.any() or policy not in CUT or worker not in np.argsort(DELAYS[:, :8].sum(axis=1))[-2:]
        assert not (cut & spans["used"]).any()  # only what is thrown away is cut short
        assert policy in CUT or not cut.any()


@pytest.mark.parametrize("policy", POLICIES)
def test_spans_add_up_to_what_each_worker_did(timelines, policy):
    found = timelines[policy]
    used = found["span_used"]
    parts = {"computing": used, "wasted": ~used, "waiting": used | ~used, "communicating": used | ~used}
    for name, mask in parts.items():
        seconds = found["span_computing" if name == "wasted" else f"span_{name}"]
        sums = np.bincount(found["span_worker"][mask], seconds[mask].astype(float), WORKERS)
        np.testing.assert_allclose(sums, found[f"worker_{name}"], rtol=1e-6, atol=1e-6)
    assert {name: found[name].dtype for name in SPANS} == {name: np.dtype(kind) for name, kind in SPANS.items()}
    assert sum(np.dtype(kind).itemsize for kind in SPANS.values()) == SPAN <= 24


def test_a_worker_goes_on_when_the_step_ends(timelines):
    found = timelines["full"]
    ends = np.cumsum(found["duration"].astype(float))
    for worker in range(WORKERS):
        spans = of_worker(found, worker)
        went_on = np.cumsum(sum(spans[name].astype(float) for name in ("computing", "waiting", "communicating")))
        np.testing.assert_allclose(went_on, ends[spans["step"]], rtol=1e-5)


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (7, 7), (10**6, 12)])
def test_no_more_are_kept_than_there_is_room_for(room, kept):
    account = Account(np.array([0.0, 10.0]), np.ones(3, bool), spans=room)
    for _ in range(2):
        ticks = ticks_of(steps=2, nodes=3)
        account.add(ticks, None, account.look(ticks), 2)
    found = account.timeline()
    assert ("span_step" in found) == (kept > 0)
    assert found.get("span_step", np.zeros(0)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3][:kept]
    again = Account(np.array([0.0, 10.0]), np.ones(3, bool), spans=room)
    again.restore(account.state())
    ticks = ticks_of(steps=2, nodes=3)
    again.add(ticks, None, again.look(ticks), 2)
    assert len(again.timeline().get("span_step", ())) == min(room, 18)


def ticks_of(steps, nodes):
    from dbwjax.types import Tick

    ones, zeros = np.ones((steps, nodes), np.float32), np.zeros((steps, nodes), np.float32)
    yes, none = ones > 0, zeros.astype(np.int32)
    return Tick(
        *(np.ones(steps, np.float32), None, None, None, yes, none, yes, ones, zeros, zeros, zeros, none),
        *(none[:, 0], none, None),
    )
