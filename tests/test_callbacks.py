"""Three functions that watch a training: what they hear and when, that they change nothing, that they may stop it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from dbwjax import Callbacks, build_policy, compare, train_policy
from dbwjax.experiments import blocks
from dbwjax.experiments.compare import check

WHERE = ("quadratic", "ring", "shifted_exponential")
SIZE = {"workers": 5, "seconds": 12, "rows": 6}
WORLDS = {**SIZE, "seeds": 3, "batch_size": 2}
LEARNED = ("logistic:dimension=4,samples=40", "ring", "shifted_exponential")


@functools.cache
def plain():
    return compare(policies(), *WHERE, **WORLDS)


@functools.cache
def policies():
    """Two names of one policy, which is compiled once."""
    return dict.fromkeys(("one", "full"), build_policy("full"))


def numbers(rows):
    return [{**row, "wall_time": None} for row in rows]


class Watcher:
    """Hears everything; `stop` says which rows are the last."""

    def __init__(self, stop=lambda row: None):
        self.heard, self.stop = [], stop

    @property
    def callbacks(self):
        return Callbacks(self.start, self.row, self.end)

    def start(self, where):
        self.heard.append(("start", where))

    def row(self, row):
        self.heard.append(("row", row))
        return self.stop(row)

    def end(self, told):
        self.heard.append(("end", told))

    def of(self, policy, world):
        return [(kind, told) for kind, told in self.heard if (told["policy"], told["world"]) == (policy, world)]


def test_who_listens_hears_every_row_in_its_order_and_changes_nothing():
    watcher = Watcher(stop=lambda row: row.update(test_loss=0) or 1)  # neither what it does to a row nor a 1 counts
    found = compare(policies(), *WHERE, **WORLDS, callbacks=[watcher.callbacks, Callbacks()])
    assert numbers(found.rows) == numbers(plain().rows)
    assert found.summary == plain().summary
    for policy in ("one", "full"):
        for world in range(3):
            (first, where), *between, (last, told) = watcher.of(policy, world)
            assert (first, where) == ("start", {"policy": policy, "world": world})
            assert (last, told) == ("end", {"policy": policy, "world": world, "rows": 7, "stopped": False})
            assert [kind for kind, _ in between] == ["row"] * 7
            assert [row["row"] for _, row in between] == list(range(7))
    rows = [row for kind, row in watcher.heard if kind == "row"]
    assert len(rows) == len(plain().rows)
    by = {tuple(row[name] for name in ("policy", "world", "row")): row for row in plain().rows}
    assert numbers(rows) == numbers(by[row["policy"], row["world"], row["row"]] | {"test_loss": 0} for row in rows)


@pytest.mark.parametrize("cache", [0, 1 << 30], ids=["one at a time", "side by side"])
def test_a_row_that_is_the_last_is_so_in_its_world_however_worlds_are_put_together(cache, monkeypatch):
    monkeypatch.setattr(blocks, "CACHE", cache)
    last = {("one", 0): 2, ("one", 2): 4, ("full", 1): 3}
    watcher = Watcher(stop=lambda row: last.get((row["policy"], row["world"])) == row["row"])
    found = compare(policies(), *WHERE, **WORLDS, callbacks=watcher.callbacks)
    kept = [row for row in plain().rows if row["row"] <= last.get((row["policy"], row["world"]), 6)]
    for one, other in zip(found.rows, kept, strict=True):
        assert [one[name] for name in ("policy", "world", "row", "virtual_time", "step")] == [
            other[name] for name in ("policy", "world", "row", "virtual_time", "step")
        ]
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-4)
    for (policy, world), row in last.items():
        assert watcher.of(policy, world)[-1] == (
            "end",
            {"policy": policy, "world": world, "rows": row + 1, "stopped": True},
        )
    assert watcher.of("full", 0)[-1][1]["stopped"] is False
    # It is said, and no equal time is claimed.
    assert found.summary["stopped"] == {"one": 2, "full": 1}
    (cell,) = found.summary["cells"]
    assert not cell["equal_time"]
    assert cell["policies"]["one"]["test_loss"] is None
    assert "Stopped early, in worlds: one in 2; full in 1." in found.table()
    assert "nothing is compared at T" in found.table()
    assert "Stopped" not in plain().table()


def test_what_a_callback_raises_ends_it():
    def broken(row):
        raise KeyError(row["row"])

    with pytest.raises(KeyError, match="0"):
        compare(policies(), *WHERE, **WORLDS, callbacks=Callbacks(on_row=broken))
    with pytest.raises(ZeroDivisionError):
        train_policy("full", *WHERE, "sgd", **SIZE, callbacks=Callbacks(on_end=lambda told: 1 / 0))


PUSHED = "sgp:graph=given,barrier=global"  # read as a quotient: on a star workers' masses differ


@pytest.mark.parametrize(("policy", "graph"), [("full", "ring"), (PUSHED, "star")])
def test_one_world_in_memory_hears_the_same_and_holds_what_it_stopped_at(policy, graph):
    train = functools.partial(train_policy, policy, "quadratic", graph, "shifted_exponential", "sgd", workers=5)
    size = {"seconds": 900, "rows": 90}
    whole = train(**size)
    watcher = Watcher(stop=lambda row: row["row"] == 3)
    found = train(**size, callbacks=watcher.callbacks)
    assert (whole.stopped, found.stopped) == (False, True)
    assert numbers(found.rows) == numbers(whole.rows[:4])
    assert [kind for kind, _ in watcher.heard] == ["start", *["row"] * 4, "end"]
    assert watcher.heard[-1][1] == {"policy": policy, "world": 0, "rows": 4, "stopped": True}
    # What is held is what is held after the last step that was taken, of which the history tells.
    assert len(found.duration) < len(whole.duration)
    then = train(times=[float(np.cumsum(found.duration.astype(np.float64))[-1])])
    np.testing.assert_array_equal(found.params, then.params)
    np.testing.assert_array_equal(found.model, then.model)
    assert not np.array_equal(found.params, whole.params)


def test_until_the_target_is_what_the_command_does():
    size = {"workers": 5, "seconds": 900, "rows": 90, "learning_rate": 0.5, "target_accuracy": 0.7}
    whole = compare("full", *LEARNED, **size, seeds=1)
    found = compare("full", *LEARNED, **size, seeds=1, until_target=True)
    assert found.summary["stopped"] == {"full": 1}
    assert len(found.rows) < len(whole.rows) == 91
    assert numbers(found.rows[:-1]) == numbers(whole.rows[: len(found.rows) - 1])
    time, other = (one.summary["policies"]["full"]["time_to_target"] for one in (found, whole))
    assert time == other is not None
    one = train_policy("full", *LEARNED, "sgd", **size, until_target=True)
    assert one.stopped
    assert [row["test_accuracy"] for row in one.rows] == [row["test_accuracy"] for row in found.rows]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"callbacks": print}, "callbacks=<built-in function print> are none; use dbwjax.Callbacks"),
        ({"callbacks": [Callbacks(), {}]}, r"callbacks=\{\} are none"),
        ({"callbacks": Callbacks(on_row="print")}, "callbacks: on_row='print' is no function"),
        ({"until_target": True}, "until_target=True has no target; give target_accuracy="),
        ({"until_target": 1, "target_accuracy": 0.9}, "until_target=1 is no truth value"),
        ({"until_target": True, "target_accuracy": 2}, "target_accuracy=2 is out of range"),
    ],
)
def test_mistakes_are_one_line(words, line):
    for call in (compare, check):
        with pytest.raises(ValueError, match=line):
            call("full", *WHERE, **WORLDS, **words)
    with pytest.raises(ValueError, match=line):
        train_policy("full", *WHERE, "sgd", **SIZE, **words)
