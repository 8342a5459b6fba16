"""Checkpoints: what was saved comes back bit for bit, a killed process leaves whole ones, damage is one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax.storage.checkpoint import Checkpoints

RUN = "this run"


class State(NamedTuple):
    params: Any
    origin: Any
    history: Any


def state_of(seed: int, steps: int = 7) -> dict:
    """All kinds of leaves that a run has."""
    rng = np.random.default_rng(seed)
    return {
        "simulation": State(
            params={
                "Dense_0": {"kernel": jnp.asarray(rng.normal(size=(4, 3, 5)), jnp.float32), "bias": jnp.zeros((4, 5))}
            },
            origin=None,
            history=(rng.random((steps, 4)) < 0.5, rng.exponential(size=steps).astype(np.float32)),
        ),
        "keys": jax.random.split(jax.random.key(seed), 3),
        "key": jax.random.key(seed),
        "mask": jnp.asarray(rng.random(6) < 0.5),
        "count": jnp.int32(seed),
        "nothing": jnp.zeros((0, 3)),
        "times": rng.random(5),
        "virtual_time": np.float64(1 / 3 + seed),
        "large": np.array([2**53 + 1, -1]),
        "number": 0.1 + 0.2,
        "turn": 11,
    }


def bits(leaf: Any) -> tuple:
    """Kind, dtype, shape and bytes."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return ("key", str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes())
    if isinstance(leaf, float | int) and not isinstance(leaf, np.generic):
        return (type(leaf).__name__, leaf.hex() if isinstance(leaf, float) else leaf)
    return (isinstance(leaf, jax.Array), str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert bits(left) == bits(right)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    with Checkpoints(folder, RUN) as checkpoints:
        checkpoints.save(3, state_of(3), {"lines": 3})
        checkpoints.save(5, state_of(5), {"lines": 9})
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def test_everything_comes_back_bit_for_bit_and_a_host_history_may_have_grown(saved):
    with Checkpoints(saved, RUN) as checkpoints:
        state, meta = checkpoints.load(state_of(0, steps=0))
    assert_same(state, state_of(5))
    assert meta == {"lines": 9}
    assert state["simulation"].params["Dense_0"]["kernel"].sharding == jnp.zeros(1).sharding


def test_an_abstract_state_will_do(saved):
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf, state_of(0)
    )
    with Checkpoints(saved, RUN) as checkpoints:
        assert_same(checkpoints.load(like)[0], state_of(5))


def test_float64_of_the_facts_is_exact(tmp_path):
    meta = {
        "virtual_time": 0.1 + 0.2,
        "tiny": 5e-324,
        "none": None,
        "policy": "full:weights=lazy",
    }
    with Checkpoints(tmp_path, RUN) as checkpoints:
        checkpoints.save(0, {"x": jnp.ones(1)}, meta)
        meta["policy"] = "changed after the save"
        assert checkpoints.load({"x": jnp.ones(1)})[1] == {**meta, "policy": "full:weights=lazy"}


def test_only_the_newest_stay_and_a_step_can_be_replaced(tmp_path):
    with Checkpoints(tmp_path / "deep" / "checkpoint", RUN, keep=2) as checkpoints:
        assert checkpoints.latest() is None
        for step in (0, 9, 10, 10):
            checkpoints.save(step, {"x": jnp.full(3, step + 0.5)}, {"step": step})
            assert checkpoints.latest() == step
        checkpoints.save(10, {"x": jnp.full(3, 7.0)}, {"step": "again"})
        state, meta = checkpoints.load({"x": jnp.zeros(3)})
        assert (float(state["x"][0]), meta) == (7.0, {"step": "again"})
    assert sorted(entry.name for entry in (tmp_path / "deep" / "checkpoint").iterdir()) == ["10", "9"]


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    step = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with Checkpoints(tmp_path, RUN) as checkpoints:
        x = jax.random.normal(jax.random.key(0), (400, 500))
        expected = np.array(x)
        checkpoints.save(1, {"x": x}, {})
        x = step(x)
        np.testing.assert_array_equal(checkpoints.load({"x": x})[0]["x"], expected)


def test_leftovers_of_a_killed_process_are_ignored_and_removed(copy):
    shutil.copytree(copy / "5", copy / "8.draft")
    (copy / "9.draft" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    shutil.copytree(copy / "5", copy / "2.old")
    with Checkpoints(copy, RUN) as checkpoints:
        assert checkpoints.latest() == 5
        assert_same(checkpoints.load(state_of(0))[0], state_of(5))
        checkpoints.save(8, state_of(8), {})
    assert sorted(entry.name for entry in copy.iterdir()) == ["5", "8"]


def damages(folder: Path) -> list[tuple[str, Path]]:
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [(how, path) for path in files for how in ("remove", "halve", "flip")]


def test_any_damage_to_any_file_is_one_line_with_the_remedies(saved, copy):
    """Every file of the newest step removed, halved, and with one bit changed: never a wrong state."""
    silent = []
    with Checkpoints(copy, RUN) as checkpoints:
        for how, path in damages(saved / "5"):
            target = copy / "5" / path
            content = target.read_bytes()
            if not content and how != "remove":
                continue
            if how == "remove":
                target.unlink()
            elif how == "halve":
                target.write_bytes(content[: len(content) // 2])
            else:
                middle = len(content) // 2
                target.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
            try:
                checkpoints.load(state_of(0))
                silent.append((how, path))
            except ValueError as error:
                message = str(error)
                assert str(copy / "5") in message
                assert "--overwrite" in message
                assert "delete that folder" in message
                assert "\n" not in message
            target.write_bytes(content)
        assert not silent
        assert_same(checkpoints.load(state_of(0))[0], state_of(5))
        shutil.rmtree(copy / "5")  # the remedy
        assert_same(checkpoints.load(state_of(0))[0], state_of(3))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: {**state, "mask": jnp.zeros(7, bool)}, "mask"),
        (lambda state: {**state, "count": jnp.float32(1)}, "count"),
        (lambda state: {**state, "times": np.zeros(5, np.float32)}, "times"),
        (lambda state: {**state, "more": jnp.zeros(1)}, "more"),
        (lambda state: {name: leaf for name, leaf in state.items() if name != "keys"}, "keys"),
    ],
)
def test_another_state_is_refused_by_name(saved, change, named):
    with (
        Checkpoints(saved, RUN) as checkpoints,
        pytest.raises(ValueError, match=rf"(?s)holds another state.*\b{named}\b"),
    ):
        checkpoints.load(change(state_of(0)))


def test_what_cannot_be_written_or_read(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(tmp_path / "file", RUN)
    for action in (checkpoints.latest, lambda: checkpoints.save(1, {"x": jnp.ones(1)}, {})):
        with pytest.raises(ValueError, match=r"file is no folder.*another --out|cannot be written"):
            action()
    with pytest.raises(ValueError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "none", RUN).load({})
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, RUN, keep=0)


def test_a_failed_write_is_told_by_the_next_call_and_keeps_the_old_checkpoint(tmp_path, monkeypatch, capfd):
    with Checkpoints(tmp_path, RUN) as checkpoints:
        checkpoints.save(1, {"x": jnp.ones(2)}, {})
        assert checkpoints.latest() == 1

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "rename", full)
        checkpoints.save(2, {"x": jnp.zeros(2)}, {})
        with pytest.raises(ValueError, match=r"cannot be written to .* \(No space left on device\); free some space"):
            checkpoints.latest()
        monkeypatch.undo()
        np.testing.assert_array_equal(checkpoints.load({"x": jnp.zeros(2)})[0]["x"], np.ones(2))
        checkpoints.save(2, {"x": jnp.zeros(2)}, {})
        assert checkpoints.latest() == 2
    assert capfd.readouterr().err == ""


LATE = """
import asyncio, sys, tensorstore
import jax.numpy as jnp
from dbwjax.storage.checkpoint import Checkpoints

def ends_after_its_loop():
    promise, write = tensorstore.Promise.new()
    async def wait():
        await write
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(wait())
    waiting._log_destroy_pending = False
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    promise.set_result(0)

class Other:
    def __del__(self):
        raise RuntimeError("another error")

print("before", file=sys.stderr)
ends_after_its_loop()
with Checkpoints(sys.argv[1], "this run") as checkpoints:
    checkpoints.save(1, {"x": jnp.zeros(2)}, {})
print("after", file=sys.stderr)
ends_after_its_loop()
Other()
"""


def test_late_news_of_a_failed_write_is_not_printed(tmp_path):
    """TensorStore's own traceback: printed without us, dropped with us; other errors of its kind are not."""
    done = subprocess.run([sys.executable, "-c", LATE, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = done.stderr.removeprefix("before\n").split("after\n")
    assert "Event loop is closed" in before
    assert "Event loop is closed" not in after
    assert "another error" in after


WRITER = """
import sys, jax, jax.numpy as jnp
from dbwjax.storage.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], "this run")
step = (checkpoints.latest() or 0)
while True:
    step += 1
    checkpoints.save(step, {"x": jnp.full((200, 500), step, jnp.float32), "y": jnp.full(9, -step)}, {"step": step})
    print(step, flush=True)
"""


def test_a_process_killed_at_any_instant_leaves_a_whole_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    root = Path(__file__).resolve().parent.parent
    before = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "c")],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        started = [int(process.stdout.readline()) for _ in range(4)][-1]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Checkpoints(tmp_path / "c", RUN) as checkpoints:
            state, meta = checkpoints.load({"x": jnp.zeros((200, 500)), "y": jnp.zeros(9, jnp.int32)})
        # The save before the last one announced had ended when the last one began.
        assert meta["step"] >= max(started - 1, before)
        before = meta["step"]
        assert (np.asarray(state["x"]) == before).all()
        assert (np.asarray(state["y"]) == -before).all()
