"""One worker as fast as the median, against the same with that worker's column of the trace replaced by hand."""

import numpy as np
import pytest

from dbwjax.cli import report
from dbwjax.experiments import pages, what_if
from dbwjax.experiments.blocks import Block
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.experiments.sweep.clocks import clock_rows
from dbwjax.report.page.lost_part import change_text
from tests.timelines import timeline

WORKERS, ROWS, BUDGET = 5, 40, 30.0
SECONDS = np.random.default_rng(0).pareto(2.5, (ROWS, WORKERS)).astype(np.float32) + np.float32(0.5)
POLICIES = ("dybw:late=carry", "ssp:bound=1", "full:barrier=neighbours")


def problem(folder, seconds, name, **more):
    path = folder / f"{name}.csv"
    np.savetxt(path, seconds, delimiter=",", fmt="%.9g")
    told = {
        "preset": "quickstart",
        "policies": POLICIES,
        "workers": WORKERS,
        "graph": "ring",
        "seconds": BUDGET,
        **more,
    }
    config = TrainConfig(**{"delays": f"trace:path={path}", **told})
    return problems(of_seeds(config), clocks_only=True)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def given(folder):
    return problem(folder, SECONDS, "given")


@pytest.mark.parametrize("spec", POLICIES)
def test_a_worker_that_is_repaired_is_one_whose_column_is_replaced(folder, given, spec):
    found = what_if.lengths_if(given, spec, np.array([BUDGET]), np.array([[what_if.NOBODY, 0, 3]]))[0]
    median = np.median(SECONDS, axis=1)
    for worker, length in zip((None, 0, 3), found, strict=True):
        table = SECONDS.copy()
        if worker is not None:
            table[:, worker] = median
        by_hand = problem(folder, table, f"replaced-{worker}")
        row = clock_rows(by_hand, Block(0, spec, 0, np.array([0])), np.array([BUDGET]), 1, None)[0]
        assert length == row["iteration_length"]
    assert len(set(found.tolist())) == 3


def test_a_repaired_worker_may_go_beyond_what_was_drawn_at_first(given, monkeypatch):
    whom = np.array([[what_if.NOBODY, 0, 3]])
    far = what_if.lengths_if(given, "ssp:bound=1", np.array([BUDGET]), whom)
    monkeypatch.setattr(what_if, "TICKS", 1)  # 4 computations are drawn, then twice what was needed
    np.testing.assert_array_equal(what_if.lengths_if(given, "ssp:bound=1", np.array([BUDGET]), whom), far)


def test_the_worst_are_asked_about_and_intervals_are_over_worlds(folder):
    several = problem(folder, SECONDS, "resampled", seeds=3, delays=f"trace:path={folder}/given.csv,resample=blocks:5")
    spec, worlds = (
        "full:barrier=neighbours",
        [{"world": n, "hashes": dict.fromkeys(("timing", "delays", "graph"), str(n))} for n in range(3)],
    )
    kept = {str(n): timeline(spec, several.alone(n).graph, SECONDS.T, 30) for n in range(3)}
    answer = what_if.what_if([several], [np.full(3, BUDGET)], {spec: kept}, worlds)
    assert list(answer["policies"]) == [spec]
    told = answer["policies"][spec]
    lost = what_if._lost(kept, worlds).mean(axis=0)
    assert [one["worker"] for one in told["workers"]] == np.argsort(-lost, kind="stable")[
        : np.count_nonzero(lost)
    ].tolist()
    by_hand = what_if.lengths_if(
        several, spec, np.full(3, BUDGET), np.array([[what_if.NOBODY, told["workers"][0]["worker"]]] * 3)
    )
    assert told["workers"][0]["estimate"] == pytest.approx(np.exp(np.log(by_hand[:, 1] / by_hand[:, 0]).mean()))
    assert all(one["low"] < one["estimate"] < one["high"] for one in (*told["workers"], told["worst"]))
    assert told["worst"]["clusters"] == 3


def test_how_a_change_is_told():
    assert change_text({"estimate": 0.79, "low": 0.75, "high": 0.834}) == "-21 % [-25, -17]"
    assert change_text({"estimate": 1.02, "low": None, "high": None}) == "+2 %"
    assert change_text(None) is None


@pytest.mark.usefixtures("no_figures")
def test_a_run_is_asked_shown_and_exported(tmp_path, capsys):
    from dbwjax import train

    run = tmp_path / "run"
    words = ["--workers", "4", "--graph", "complete", "--dataset", "logistic:dimension=4,samples=40", "--no-progress"]
    assert (
        train.main([*words, "--policies", "full", "--seconds", "20", "--rows", "3", "--seeds", "2", "--out", str(run)])
        == 0
    )
    trace = tmp_path / "trace.json.gz"
    assert report.main([str(run), "--what-if", "--iterations", "3:5", "--trace-events", str(trace)]) == 0
    assert "open it in ui.perfetto.dev" in capsys.readouterr().out
    material = pages.material_of(run)
    before = {row["world"]: row["iteration_length"] for row in material.rows}
    assert len(material.what_if["policies"]["full"]["workers"]) <= 4
    text = (run / "report.html").read_text()
    assert "iteration if as fast as the median" in text
    assert "iterations 3 to 5" in text
    assert trace.stat().st_size > 1000
    # What the clocks alone say is what the run itself measured.
    from dbwjax.experiments.config import from_json
    from dbwjax.storage.manifest import read_config

    config = from_json(read_config(run, "")[0]["config"])
    again = problems(of_seeds(config), clocks_only=True)[0]
    alone = what_if.lengths_if(again, "full", np.full(2, 20.0), np.full((2, 1), what_if.NOBODY))[:, 0]
    np.testing.assert_allclose(alone, [before[world] for world in sorted(before)], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--iterations", "5"], "--iterations '5' is no range; use A:B"),
        (["--iterations", "7:3"], "is no range"),
        (["other", "--what-if"], "--what-if is of one run, and 2 are named"),
        (["--trace-events", ""], "--trace-events names no file"),
    ],
)
def test_bad_words_are_one_line(tmp_path, capsys, words, said):
    assert report.main([str(tmp_path / "none"), *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
