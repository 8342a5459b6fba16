"""Plans from files: what `save` wrote comes back; shapes, kinds, ranges and sums that are no plan's are refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dbwjax.engine import timeline
from dbwjax.types import Plan

T, N = 3, 4
RING = np.array([[i, (i + 1) % N, (i - 1) % N] for i in range(N)])
EVEN = np.full((T, N, N), 1 / N, np.float32)
DENSE = {"duration": np.ones(T, np.float32), "fresh": np.ones((T, N), bool), "mix": EVEN}
SPARSE = {
    **DENSE,
    "mix": np.full((T, N, 3), 1 / 3, np.float32),
    "sources": np.broadcast_to(RING, (T, N, 3)).astype(np.int32),
    "ready": np.full((T, N), -0.5, np.float32),
    "active": np.ones((T, N), bool),
    "received": np.full((T, N), 2),
    "restart": np.ones((T, N), bool),
}
# Events: one computes and two rows are written, a row of them padding; N is told by nobody.
EVENTS = {
    "duration": np.zeros(T, np.float32),
    "fresh": np.ones((T, 1), bool),
    "mix": np.full((T, 2, 2), 0.5, np.float32),
    "sources": np.array([[[0, 1], [1, 0]]] * T),
    "push": np.ones((T, 2, 1), np.float32),
    "workers": np.zeros((T, 1), np.int32),
    "rows": np.array([[0, N]] * T),
    "restart": np.array([[0]] * T),
}
COLUMNS = np.array([[0.5, 0, 0, 0], [0.5, 1, 0, 0], [0, 0, 0.25, 1], [0, 0, 0.75, 0]], np.float32)


def but(plans, **changes):
    kept = {**plans, **changes}
    return {name: array for name, array in kept.items() if array is not None}


def at(array, place, value):
    """An array with another value at one place."""
    changed = np.array(array)
    changed[place] = value
    return changed


def dated(**changes):
    return but(DENSE, **changes)


@pytest.mark.parametrize(
    "plans",
    [
        DENSE,
        SPARSE,
        EVENTS,
        but(DENSE, push=np.ones((T, N), np.float32)),
        but(DENSE, mix=np.broadcast_to(COLUMNS, (T, N, N))),  # push-sum moves mass: its columns sum to one
        but(EVENTS, active=np.ones((T, N), bool), mix=at(EVENTS["mix"], (0, 1), 7)),  # padding may hold anything
        but(DENSE, duration=np.ones(T, np.float64)),
        {name: array[:0] for name, array in SPARSE.items()},
    ],
)
def test_what_was_saved_comes_back(tmp_path, plans):
    timeline.save(tmp_path / "plans.npz", Plan(**plans))
    found = timeline.load(tmp_path / "plans.npz")
    for name, value in found._asdict().items():
        if name in plans:
            assert value.dtype == plans[name].dtype
            np.testing.assert_array_equal(value, plans[name])
        else:
            assert value is None
    assert [path.name for path in tmp_path.iterdir()] == ["plans.npz"]


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        ({}, "missing ['duration', 'fresh', 'mix']"),
        (dated(mix=None), "missing ['mix']"),
        (dated(speed=np.ones(T)), "unknown fields ['speed']"),
        (dated(duration=np.ones((T, 1), np.float32)), "duration has the shape (3, 1)"),
        (dated(duration=np.float32(1)), "duration has the shape ()"),
        (dated(duration=np.ones(T, int)), "duration is of int64; write floats"),
        (dated(duration=np.array(["1"] * T)), "duration is of <U1"),
        (dated(duration=np.ones(T, complex)), "duration is of complex128"),
        (dated(duration=np.ones(T + 1, np.float32)), "number of steps"),
        (dated(duration=at(DENSE["duration"], 1, -1)), "duration is below 0"),
        (dated(duration=at(DENSE["duration"], 1, np.nan)), "duration is not finite"),
        (dated(duration=at(DENSE["duration"], 1, np.inf)), "duration is not finite"),
        (dated(fresh=np.ones((T, N), np.uint8)), "fresh is of uint8; write booleans"),
        (dated(fresh=np.ones((T, N + 1), bool)), "beside the others"),
        (dated(fresh=np.ones((T, 0), bool)), "a step has nobody"),
        (dated(mix=np.ones((T, N), np.float32)), "mix has the shape (3, 4)"),
        (dated(mix=EVEN[:, :3]), "mix has the shape (3, 3, 4)"),
        (dated(mix=EVEN[:, :, :3] * 4 / 3), "mix has the shape (3, 4, 3)"),
        (dated(mix=at(EVEN, (2, 1, 0), 0.5)), "the weights of step 2, row 1 sum to 1.25"),
        (dated(mix=at(EVEN, (2, 1, 0), np.nan)), "mix is not finite"),
        (dated(mix=EVEN * np.float32(1.001)), "the weights of step 0, row 0 sum to 1.001"),
        (dated(mix=EVEN.astype(np.float64) * 1e300), "sum to"),
        (dated(push=np.ones((T, N + 1), np.float32)), "push has the shape (3, 5)"),
        (dated(push=np.ones((T, N, 2), np.float32)), "push has the shape (3, 4, 2)"),
        (dated(ready=np.ones((T, N - 1), np.float32)), "beside the others"),
        (dated(active=np.ones((T, 2), bool)), "beside the others"),
        (but(SPARSE, sources=at(SPARSE["sources"], (0, 0, 0), N)), "sources has 0 to 4; use 0 to 3"),
        (but(SPARSE, sources=at(SPARSE["sources"], (0, 0, 0), -1)), "sources has -1 to 3; use 0 to 3"),
        (but(SPARSE, sources=SPARSE["sources"][:, :, :2]), "sources has the shape (3, 4, 2)"),
        (but(SPARSE, sources=SPARSE["sources"].astype(float)), "sources is of float64; write whole numbers"),
        (but(SPARSE, received=at(SPARSE["received"], (1, 1), -2)), "received has -2 to 2"),
        (but(SPARSE, restart=np.full((T, 2), N + 1), ready=None), "restart has 5 to 5; use 0 to 4"),
        (but(SPARSE, restart=np.ones((T, 2), bool)), "beside the others"),
        (but(SPARSE, restart=np.zeros((T, 2), int)), "ready has the shape"),
        (but(SPARSE, flight=np.zeros((T, 2), np.float32)), "flight has the shape"),
        (but(EVENTS, at=np.full((T, 1), -1)), "at has -1 to -1"),
        (but(EVENTS, workers=np.full((T, 1), -1)), "workers has -1 to -1"),
        (but(EVENTS, workers=np.full((T, 1), 2**40)), "workers has 1099511627776"),
        (but(EVENTS, workers=np.zeros((T, 2), int)), "workers has the shape (3, 2)"),
        (but(EVENTS, rows=np.zeros((T, 3), int)), "rows has the shape (3, 3)"),
        (but(EVENTS, push=None), "fresh has the shape"),
        (but(EVENTS, active=np.ones((T, N), bool), rows=np.full((T, 2), N + 1)), "rows has 5 to 5; use 0 to 4"),
    ],
)
def test_what_is_no_plan_is_one_line(tmp_path, plans, said):
    np.savez(tmp_path / "plans.npz", **plans)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        timeline.load(tmp_path / "plans.npz")
    assert str(tmp_path / "plans.npz") in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_archive(tmp_path):
    for name, content in (("none", None), ("empty", b""), ("text", b"duration"), ("cut", b"PK\x03\x04")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} .*; write it with timeline.save$"):
            timeline.load(tmp_path / name)
    np.savez(tmp_path / "large.npz", **DENSE)
    with pytest.raises(ValueError, match="is larger than 100 bytes"):
        timeline.load(tmp_path / "large.npz", most=100)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="is corrupt"):
        timeline.load(tmp_path / "objects.npy")
