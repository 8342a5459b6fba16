"""Clocks alone in Python: the same clocks as where something is learned, in cells, and refused in one line."""

from __future__ import annotations

import re
import sys
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax import Policy, build_delays, build_graph, build_policy, compare, compare_clocks, from_arrays
from dbwjax.experiments.config import RunOptions
from dbwjax.experiments.progress import Progress, in_notebook

N, LAW = 6, "shifted_exponential:shift=0.5,rate=1"
RULES = ["fastest:k=4", "full"]


def clocks(graph="erdos_renyi:p=0.5", delays=LAW, policies=RULES, **given):
    return compare_clocks(policies, graph, delays, **{"workers": N, "seconds": 20.0, "seeds": 3, **given})


def told(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


@pytest.fixture(scope="module")
def found():
    return clocks(["erdos_renyi:p=0.5", "complete"])


def test_they_are_the_clocks_of_training(found):
    def task(seed):
        data = {"x": np.ones((60, 2), np.float32), "y": np.ones(60, np.float32)}
        loss = lambda params, batch: jnp.mean((batch["x"] @ params - batch["y"]) ** 2)  # noqa: E731
        return from_arrays(loss, lambda key: jnp.zeros(2), data, workers=N, batch_size=4, seed=seed)

    trained = compare(RULES[0], task, "erdos_renyi:p=0.5", LAW, seconds=20.0, rows=1, seeds=3, workers=N)
    ours = [row for row in found.rows if row["graph"] == "erdos_renyi:p=0.5" and row["policy"] == RULES[0]]
    theirs = [row for row in trained.rows if row["row"] == 1]
    exact = ("policy", "step", "gradients", "drift")
    assert told(ours, "seed", *exact) == told(theirs, "world", *exact)
    near = ("computing", "waiting", "wasted", "iteration_length", "active_fraction")
    np.testing.assert_allclose(told(ours, *near), told(theirs, *near), rtol=1e-5)
    hashes = [world["hashes"]["delays"] for world in found.worlds if world["graph"] == "erdos_renyi:p=0.5"]
    assert hashes == [world["hashes"]["delays"] for world in trained.worlds]


def test_cells_are_as_if_each_were_alone(found):
    """Their graphs lie in lists of one width, and none of them notices."""
    alone = clocks(["erdos_renyi:p=0.5"])
    assert alone.rows == [row for row in found.rows if row["graph"] == "erdos_renyi:p=0.5"]
    assert [cell["values"]["graph"] for cell in found.summary["cells"]] == ["erdos_renyi:p=0.5", "complete"]
    assert found.summary["kind"] == "timing"
    assert "this ranks speed, not learning" in found.table()
    assert len({world["hashes"]["graph"] for world in found.worlds}) == 4  # three random ones and a fixed one


def test_every_combination_is_a_cell():
    many = clocks(
        {"ours": lambda seed: build_graph("ring", N, seed), "star": "star"},
        {"quick": "constant:seconds=1", "slow": build_delays("constant:seconds=2", N)},
        seconds=6.0,
        seeds=1,
        policies="full",
    )
    lengths = {(row["graph"], row["delays"]): row["iteration_length"] for row in many.rows}
    assert lengths == {("ours", "quick"): 1, ("ours", "slow"): 2, ("star", "quick"): 1, ("star", "slow"): 2}
    sizes = compare_clocks("full", "ring", "constant", workers=[3, 5], seconds=4.0, seeds=1)
    assert told(sizes.rows, "workers", "step", "gradients") == [(3, 4.0, 12), (5, 4.0, 20)]
    one = compare_clocks("full", build_graph("ring", N), "constant", workers=N, steps=4, seeds=1)
    assert one.rows[0]["graph"] == "given"


READS = build_policy("full")._replace(reads_training=True)
WRONG = [
    ({"graph": []}, "axis 'graph' has no values"),
    ({"graph": "rng"}, "unknown graph 'rng'"),
    ({"graph": ["ring", "rng"]}, "unknown graph 'rng'"),
    ({"graph": [build_graph("ring", N)]}, "axis 'graph' has values without a name"),
    ({"graph": build_graph("ring", N + 1)}, f"workers={N}, and what is given is of {N + 1} workers"),
    ({"delays": build_delays(LAW, N + 1)}, "numbers of workers differ"),
    ({"delays": "constnat"}, "unknown delays 'constnat'; did you mean 'constant'?"),
    ({"delays": 3}, "3"),
    ({"workers": 2.5}, "workers=2.5 is not a whole number"),
    ({"seconds": None}, "give one budget"),
    ({"seconds": -1.0}, "seconds=-1 is no budget"),
    ({"seeds": 0}, "seeds=0"),
    ({"baseline": "dybw"}, "baseline='dybw' is not among the policies ['fastest:k=4', 'full']"),
    ({"policies": ["fastest:k=9"]}, "k=9"),
    ({"policies": {"mine": READS}}, "policy 'mine' reads training, which clocks alone do not have; use compare"),
    ({"seconds": 1e12}, "1e+12 s"),
]


@pytest.mark.parametrize(("given", "expected"), WRONG, ids=[said[:50] for _, said in WRONG])
def test_what_is_wrong_is_one_line(given, expected):
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        clocks(**given)
    assert "\n" not in str(caught.value)


class Shell:
    """What IPython says in a notebook."""

    kernel = None


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=Shell))


def test_a_notebook_has_a_bar_that_goes_when_the_work_is_done(notebook, capsys):
    with warnings.catch_warnings(record=True) as caught, Progress(RunOptions(), 4) as bar:
        bar.update(4)
    assert not caught  # ipywidgets are not here
    shown = capsys.readouterr().err
    assert "0/4" in shown
    assert shown.split("\r")[-2].strip() == ""


def test_silence_is_the_default(notebook, capsys):
    clocks("ring", "constant", "full", seeds=1)
    assert capsys.readouterr().err == ""
    clocks("ring", "constant", "full", seeds=1, progress=True)
    assert "0/1" in capsys.readouterr().err


def test_a_script_is_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_a_policy_of_ones_own_enters():
    own = clocks("ring", "constant", {"mine": build_policy("full")}, seeds=1)
    assert isinstance(READS, Policy)
    assert own.summary["baseline"] == "mine"
