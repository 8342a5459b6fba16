"""`dbwjax.measure`: step times of a real loop, in the file that `plan` reads."""

from __future__ import annotations

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

import dbwjax
from dbwjax.planning import times


def lines(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def test_a_jitted_step_is_waited_for(tmp_path):
    """What it returns is ready when the clock stops, and the calls in which it compiles are left out."""
    path = tmp_path / "times.csv"

    @jax.jit
    def step(x, *, scale):
        return {"x": jnp.tanh(x @ x) * scale}

    measured = dbwjax.measure(step, path, machine="w0", warm_up=1)
    x = jnp.ones((600, 600))
    for _ in range(6):
        found = measured(x, scale=2.0)
    assert jnp.allclose(found["x"], step(x, scale=2.0)["x"])
    assert lines(path)[0] == ["step", "machine", "seconds"]
    assert [row[:2] for row in lines(path)[1:]] == [[str(i), "w0"] for i in range(5)]
    began = time.perf_counter()
    jax.block_until_ready(step(x, scale=2.0))
    alone = time.perf_counter() - began
    assert max(float(row[2]) for row in lines(path)[1:]) > alone / 20  # an asynchronous return takes far less


def test_a_plain_function_is_timed_and_an_exception_leaves_no_line(tmp_path):
    path, fail = tmp_path / "times.csv", []

    def step(value):
        time.sleep(0.02)
        if fail:
            raise RuntimeError("out of data")
        return value + 1

    measured = dbwjax.measure(step, path, machine="w0", warm_up=0, steps=2)
    assert measured(1) == 2
    fail.append(True)
    with pytest.raises(RuntimeError, match="out of data"):
        measured(1)
    fail.clear()
    assert [measured(2), measured(3)] == [3, 4]  # the last is not written down
    assert [row[0] for row in lines(path)[1:]] == ["0", "1"]
    assert all(0.02 <= float(row[2]) < 2 for row in lines(path)[1:])
    assert measured.__name__ == "step"


def test_a_loop_that_starts_again_goes_on_and_plan_reads_it(tmp_path):
    """A line that was begun only is taken away; processes that share a file have their own steps."""
    path = tmp_path / "times.csv"
    for count in (3, 25):
        for machine in ("w0", "w1"):
            measured = dbwjax.measure(lambda: None, path, machine=machine, warm_up=0)
            for _ in range(count):
                measured()
            with path.open("a") as file:
                file.write("77,w0,0.1")
    path.write_text(path.read_text().removesuffix("77,w0,0.1"))
    found = times.read(str(path))
    assert found.seconds.shape == (28, 2)
    assert (found.seconds > 0).all()


def test_processes_write_at_once(tmp_path):
    path = tmp_path / "times.csv"
    code = (
        "import sys, dbwjax\n"
        f"step = dbwjax.measure(lambda: None, {str(path)!r}, machine=sys.argv[1], warm_up=0)\n"
        "for _ in range(200): step()\n"
    )
    every = [subprocess.Popen([sys.executable, "-c", code, f"w{i}"]) for i in range(2)]
    assert [one.wait(60) for one in every] == [0, 0]
    assert times.read(str(path)).seconds.shape == (200, 2)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"step_fn": 3}, "step_fn=3 is no function"),
        ({"machine": "a,b"}, "machine='a,b' is no name"),
        ({"steps": 0}, "steps=0"),
        ({"warm_up": -1}, "warm_up=-1"),
        ({"path": "other.csv"}, "is not a file of step times"),
    ],
)
def test_what_cannot_be_is_refused_before_the_loop(told, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("a,b,c,d,e,f,g,h,i,j,k\n")
    with pytest.raises(ValueError, match=said):
        dbwjax.measure(**{"step_fn": print, "path": "times.csv", **told})
