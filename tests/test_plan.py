"""`plan`: what it reads, what it says to traces whose best rule is known, and the page."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest
from scipy import stats

import dbwjax
from benchmarks import plan as benchmark
from dbwjax.cli.plan import main
from dbwjax.planning import describe, laws, times
from dbwjax.planning.plan import default_graphs, default_policies, plan_cluster
from dbwjax.policies import build_policies
from dbwjax.report.intervals import among_replicates, replicated

RULES = ["full", "fastest:k=2,late=drop"]


@pytest.fixture(scope="module")
def trace():
    """Exponential times of four machines, the last twice as slow; it has a name that is markup."""
    seconds = 0.1 + np.random.default_rng(0).exponential(1.0, (120, 4))
    seconds[:, 3] *= 2
    return dict(zip(["a", "b", "c", "<script>x</script>"], seconds.T, strict=True))


@pytest.fixture(scope="module")
def found(trace):
    return plan_cluster(trace, policies=RULES, graphs=["ring"], timing_only=True, replicates=40, latency=0.05)


def test_the_answer_comes_first(found):
    text = " ".join(found.table().split())
    assert text.startswith("Use fastest:k=2,late=drop on ring: an iteration takes ")
    assert re.search(r"\d\.\d+ times \[[\d.]+, [\d.]+\] shorter than waiting for all \(full on ring\)", text)
    assert "not what is learned in one" in text
    assert [one.scenario for one in found.ranking.changes] == list(benchmark.replicates.SCENARIOS[1:])


def test_the_figures_are_those_of_the_trace_itself(found, trace):
    """Waiting for all takes the mean of the rows' slowest, and a message; the gain is that over the second."""
    rows = np.sort(np.column_stack(list(trace.values())), axis=1)
    full = next(one for one in found.ranking.entries if one.policy == "full")
    assert full.iteration.estimate == pytest.approx(rows[:, -1].mean() + 0.05, rel=0.04)
    assert full.iteration.low < rows[:, -1].mean() + 0.05 < full.iteration.high
    assert found.best.iteration.estimate == pytest.approx(rows[:, 1].mean() + 0.05, rel=0.04)
    assert found.gain.estimate == pytest.approx(full.iteration.estimate / found.best.iteration.estimate, rel=1e-6)
    assert full.over_best == found.gain
    latency = found.ranking.changes[-1].gain.estimate
    assert latency == pytest.approx(found.best.iteration.estimate / (found.best.iteration.estimate + 0.05), rel=0.01)


def test_a_page_tells_it_and_runs_no_name(found, tmp_path):
    found.report(tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text()
    assert "Use fastest:k=2,late=drop on ring" in page
    assert "<script>x" not in page
    assert page.count("&lt;script&gt;x") >= 2
    assert page.count("<svg") == 5


# Four closed forms, and slow spells by brute force.
@pytest.mark.parametrize("number", [0, 3, 9, 12, 8])
def test_the_best_rule_of_a_known_law_is_in_the_top_group(number):
    """Five of the hundred of `python -m benchmarks plan`, whose figures are in `benchmarks/results`."""
    done = benchmark.outcome(benchmark.cases()[number], number)
    assert done.right
    assert sum(done.held) >= len(done.held) - 1


def test_closed_form_of_the_benchmark():
    """The mean of sorted exponential times, by simulation."""
    case = benchmark.cases()[0]
    rows = np.sort(case.draw(np.random.default_rng(0), 50_000), axis=1).mean(axis=0)
    for (spec, _), truth in case.truth().items():
        k = int(re.search(r"k=(\d+)", spec)[1])
        assert truth == pytest.approx(rows[k - 1] * benchmark.MACHINES / k, rel=0.02)


def test_intervals_over_replicates():
    """Percentiles further out the fewer blocks there are; few replicates are no more certain for being many."""
    values = np.random.default_rng(0).standard_normal(20_000).tolist()
    mean, low, high = replicated(values, 1e9)
    assert (mean, low, high) == pytest.approx((0, -1.96, 1.96), abs=0.05)
    reach = stats.t.ppf(0.975, 9) * math.sqrt(10 / 9)
    assert replicated(values, 10)[2] == pytest.approx(reach, abs=0.1)
    mean, low, high = among_replicates([1.0, 2.0, 3.0])
    assert (mean, high) == pytest.approx((2.0, 2 + stats.t.ppf(0.975, 2) * math.sqrt(4 / 3)))
    assert among_replicates([1.0]) == (1.0, None, None)


def test_blocks_are_as_long_as_autocorrelation_asks():
    """Politis and White's length for an autoregression, from its closed form."""
    rng, rho, count = np.random.default_rng(1), 0.7, 4000
    noise = rng.standard_normal(count)
    series = np.empty(count)
    series[0] = noise[0] / math.sqrt(1 - rho**2)
    for i in range(1, count):
        series[i] = rho * series[i - 1] + noise[i]
    ratio = 2 * rho / (1 - rho**2)  # sum |k| R(k) over the sum of R(k)
    wanted = (1.5 * ratio**2 * count) ** (1 / 3)
    assert describe.block_length(series) == pytest.approx(wanted, rel=0.3)
    assert describe.block_length(noise) <= 3
    assert describe.block_length(np.ones(50)) == 1


def test_spells_and_correlation():
    seconds = np.ones((40, 2))
    seconds[10:15] = 3.0
    seconds[20, 0] = 3.0
    data = describe.describe(seconds, ("a", "b"))
    assert (data.machines[0].spells, data.machines[0].longest, data.machines[0].slow) == (2, 5, 6 / 40)
    assert data.correlation[0, 1] == pytest.approx(np.corrcoef(np.log(seconds).T)[0, 1])


@pytest.mark.parametrize("family", laws.FAMILIES)
def test_the_law_of_the_draws_is_found_again(family):
    rng = np.random.default_rng(3)
    draw = {
        "exponential": lambda: 0.5 + rng.exponential(1.0, (400, 3)),
        "lognormal": lambda: np.exp(0.5 * rng.standard_normal((400, 3))),
        "gamma": lambda: rng.gamma(3.0, 0.2, (400, 3)),
        "weibull": lambda: rng.weibull(2.5, (400, 3)),
        "pareto": lambda: 1 + rng.pareto(3.0, (400, 3)),
    }[family]
    seconds = draw()
    best = laws.fit_all(seconds)[0]
    assert best.family == family
    assert best.fits
    free = {"exponential": {}, "pareto": {"floc": 0, "fscale": seconds[:, 0].min()}}.get(family, {"floc": 0})
    named = getattr(stats, laws.FAMILIES[family][0])
    reached = named.logpdf(seconds[:, 0], *named.fit(seconds[:, 0], **free)).sum()
    assert best.of(0).logpdf(seconds[:, 0]).sum() >= reached - 1e-3


def test_a_law_is_used_only_where_it_fits(trace, found):
    seconds = np.column_stack(list(trace.values()))
    asked = {"policies": ["full"], "graphs": ["ring"], "timing_only": True, "replicates": 20, "sensitivity": False}
    used = plan_cluster(trace, law="exponential", **asked)
    assert used.best.iteration.estimate == pytest.approx(np.max(seconds, axis=1).mean(), rel=0.15)
    assert used.data.rows == 120
    with pytest.raises(ValueError, match="law pareto does not fit: .*leave --law out"):
        laws.chosen("pareto", found.fits, seconds, found.times.names)
    with pytest.raises(ValueError, match="unknown law 'exponentail'; did you mean 'exponential'"):
        plan_cluster(trace, law="exponentail", **asked)


def test_learning_is_trained_in_replicates(trace):
    """On the stand-in, which is said loudly; the ratio is between the times that rows show."""
    learned = plan_cluster(
        trace, policies=RULES, graphs=["ring"], replicates=20, training={"steps": 25, "worlds": 3}, fit=False
    )
    assert learned.ranking.by == "target"
    assert all(one.reached[1] == 3 for one in learned.ranking.entries)
    assert f"reaches accuracy {learned.target:g} in " in learned.answer()
    assert "STAND-IN" in learned.table()
    first, second = learned.ranking.entries
    if second.reached == (3, 3):
        assert second.over_best.estimate == pytest.approx(second.seconds.estimate / first.seconds.estimate)


@pytest.mark.parametrize("machines", [2, 3, 4, 7, 12, 36, 100])
def test_defaults_can_be_built(machines):
    rules = build_policies(default_policies(machines))
    assert {"full", "dybw"} <= set(rules)
    assert "ring" in default_graphs(machines)
    for spec in default_graphs(machines):
        graph = dbwjax.build_graph(spec, machines)
        for policy in rules.values():
            policy.init(graph)


WIDE = "w0_ms,w1_ms\n" + "10,20\n" * 30


def test_units_and_forms_say_the_same(tmp_path):
    (tmp_path / "wide.csv").write_text(WIDE)
    (tmp_path / "plain.csv").write_text("0.01,0.02\n" * 30)
    for machine, value in (("w0", 10), ("w1", 20)):
        rows = "".join(f"{step},{machine},{value}000\n" for step in range(30 + value))
        (tmp_path / f"{machine}.csv").write_text(f"step,machine,seconds_us\n{rows}")
    wide = times.read(str(tmp_path / "wide.csv"))
    assert wide.names == ("w0", "w1")
    np.testing.assert_allclose(wide.seconds, np.tile([0.01, 0.02], (30, 1)))
    np.testing.assert_array_equal(times.read(str(tmp_path / "plain.csv")).seconds, wide.seconds)
    joined = times.read([str(tmp_path / "w0.csv"), str(tmp_path / "w1.csv")])
    np.testing.assert_allclose(joined.seconds[:30], wide.seconds)
    assert joined.seconds.shape == (40, 2)  # the steps that both have


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (WIDE + "10,\n", [], r"line 32, column 2 \('w1_ms'|line 32, column 2 \('w1'\): no time .*--drop-gaps"),
        (WIDE + "nan,1\n", [], r"line 32, column 1 \('w0'\): no time"),
        (WIDE + "0,1\n", [], r"line 32, column 1 \('w0'\): 0 is not a step time; a step takes more than 0 seconds"),
        (WIDE + "1,-1\n", [], r"line 32, column 2 \('w1'\): -0.001 is not a step time"),
        (WIDE + "1,fast\n", [], r"line 32, column 2 \('w1'\): 'fast' is not a number"),
        (WIDE + "1,2,3\n", [], "line 32 has 3 columns, and there are 2 machines"),
        (WIDE, ["--unit", "m"], "unit 'm' is not known; .*known: ms, ns, s, us"),
        (WIDE, ["--unit", "us"], "'w0_ms' names another unit than --unit us; keep one"),
        (WIDE.replace("w1_ms", "w1_us"), [], "'w0_ms' and 'w1_us' have different units"),
        (WIDE.replace("w1_ms", "w1"), [], "'w0_ms' and 'w1' have different units"),
        (WIDE.replace("ms", "min"), [], "unit 'min' is not known"),
        (WIDE.replace("w1", "w0"), [], "column 2: 'w0' is named twice"),
        (WIDE.replace("w1_ms", "step"), [], "'step' is no machine's column"),
        ("w0\n" + "1\n" * 30, [], "has one machine, and nobody to wait for"),
        ("w0,w1\n1,2\n", [], "has a single step of every machine; measure at least 20"),
        ("w0,w1\n", [], "has no steps of every machine"),
        ("", [], "is empty; write a column a machine"),
        ("step,machine,seconds\n0,a,1\n0,a,2\n", [], "line 3: step 0 of machine 'a' is given twice"),
        ("step,machine,seconds\n0,a,1\n0,b,2\n1,a,1\n", [], "step 1 of 'b': no time"),
        ("step,machine\n0,a\n", [], "there is no column seconds"),
        (WIDE, ["--policies", "ful"], "unknown policy 'ful'; did you mean 'full'"),
        (WIDE, ["--graphs", "rnig"], "unknown graph 'rnig'; did you mean 'ring'"),
        (WIDE, ["--policies", "dbw"], "'dbw' reads training and has no clock of its own; leave it out"),
        (WIDE, ["--bandwidth", "10"], "give --message-bytes, too"),
        (WIDE, ["--latency", "-1"], "latency=-1 is not a time"),
        (WIDE, ["--steps", "20"], "--steps is of the training that --timing-only leaves out"),
        (WIDE, ["--replicates", "3"], "replicates=3"),
    ],
)
def test_bad_input_is_one_line(text, words, said, tmp_path, capsys):
    file = tmp_path / "times.csv"
    file.write_text(text)
    assert main([str(file), "--timing-only", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if not line.startswith("note:")]
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines[0]


def test_gaps_are_dropped_where_that_is_asked_for(tmp_path):
    file = tmp_path / "times.csv"
    file.write_text(WIDE + "10,\n")
    found = times.read(str(file), drop_gaps=True)
    assert (len(found.seconds), found.dropped) == (30, 1)


def test_a_million_steps_are_read_in_ten_seconds(tmp_path):
    file = tmp_path / "times.csv"
    file.write_text("a,b\n" + "0.25,0.5\n" * 1_000_000)
    began = time.process_time()
    assert times.read(str(file)).seconds.shape == (1_000_000, 2)
    assert time.process_time() - began < 10
