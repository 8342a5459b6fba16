"""What is concluded from rows: times to target, paired intervals, censoring, and the tables that print them."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks import coverage
from dbwjax.report.digits import interval_text
from dbwjax.report.intervals import cluster
from dbwjax.report.statistics import Crossing, Time, crossing, difference, ratio, summarise
from dbwjax.report.table import WIDTH, format_table, to_csv, to_tex

T9, T4 = 2.2621571628, 2.7764451052  # Student's t at 97.5 %, 9 and 4 degrees of freedom, from a printed table
NOTHING = {"estimate": None, "low": None, "high": None, "bound": "none"}


def hashes(world, graph=None, delays=None, learning=None):
    """A world of its own, but for what is given."""
    drew = {"graph": graph, "delays": delays, "learning": learning}
    drew = {name: f"{name} {world if value is None else value}" for name, value in drew.items()}
    return {**drew, "timing": f"{drew['graph']}, {drew['delays']}"}


def own(count):
    return [hashes(world) for world in range(count)]


def times(*seconds):
    return [Time(float(each)) for each in seconds]


def row_of(policy, world, number, seconds, accuracy, **more):
    """A row; `world` is its number or its axis values. A pace of 2 s an iteration, ten workers."""
    first = number == 0
    row = {
        "policy": policy,
        **({"world": world} if isinstance(world, int) else world),
        "row": number,
        "virtual_time": float(seconds),
        "step": seconds / 2,
        "drift": 0,
        "wall_time": 0.5,
        "train_loss": None if first else 1.0,
        "test_loss": 2.0,
        "test_accuracy": accuracy,
        "consensus_distance": 0.0,
        "active_fraction": None if first else 0.5,
        "backup_workers": None if first else 1.0,
        "gradients": int(5 * seconds),
        "computing": 6.0 * seconds,
        "wasted": 1.0 * seconds,
        "waiting": 3.0 * seconds,
        "communicating": 0.0,
        "staleness": None if first else 0.0,
        "bytes_sent": 1000.0 * seconds,
        "heard_least": None if first else 0.9,
        "spectral_gap": None if first else 0.1,
        "iteration_length": None if first else 2.0,
        "worker_accuracy_min": None,
        "worker_accuracy_median": None,
        "diverged": False,
    }
    return {**row, **more}


def line_to(policy, world, time, budget=100, pace=2.0, rows=10):
    """Accuracy rises in a line through 0.5 at `time` (None: it stays at 0.1)."""
    found = []
    for number in range(rows + 1):
        seconds = budget * number / rows
        accuracy = 0.1 if time is None else 0.1 + 0.4 * seconds / time
        length = pace if number else None
        more = {"iteration_length": length, "step": seconds / pace}
        found.append(row_of(policy, world, number, seconds, accuracy, **more))
    return found


def comparison(ours, rivals, drew=None, **options):
    """Rows and worlds of `dybw` and `full` with these times to 0.5."""
    rows = [
        row
        for world, pair in enumerate(zip(ours, rivals, strict=True))
        for policy, time in zip(("dybw", "full"), pair, strict=True)
        for row in line_to(policy, world, time, **options)
    ]
    drew = own(len(ours)) if drew is None else drew
    return rows, [{"world": world, "hashes": each} for world, each in enumerate(drew)]


def summary_of(ours, rivals, drew=None, target=0.5, **options):
    rows, worlds = comparison(ours, rivals, drew, **options)
    return summarise(rows, worlds, ["dybw", "full"], "full", target)


# The time to a target


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.8, 1.0, 1.0], Crossing(15.0, 10.0)),
        ([0.1, 0.9, 0.9, 0.1], Crossing(10.0, 10.0)),  # exactly at it
        ([0.0, 1.0, 0.8, 1.0, 1.0], Crossing(25.0, 10.0)),  # the first crossing is taken back
        ([0.9, 0.9, 0.1], Crossing(0.0, 0.0)),
        ([0.9, 0.1, 0.9], None),
        ([0.1, 0.2, 1.0], None),  # in the last row: not confirmed
        ([1.0], None),
        ([], None),
        ([0.1, 1.0, None, None], None),  # diverged before it was confirmed
        ([0.1, 1.0, math.nan, 1.0], None),
        ([0.1, math.inf, math.inf, 0.2], None),
        ([0.1, None, 1.0, 1.0], Crossing(20.0, 10.0)),  # nothing to interpolate from
        ([None, None, None], None),
        ([0.1, 1.0, 1.0, None, None], Crossing(10 * 8 / 9, 10.0)),  # reached, and diverged later
    ],
)
def test_a_target_is_reached_where_the_next_row_confirms_it(values, expected):
    found = crossing([10.0 * row for row in range(len(values))], values, 0.9)
    assert found == (expected and Crossing(pytest.approx(expected.seconds), expected.resolution))


def test_uneven_rows_tell_their_own_resolution():
    assert crossing([0, 1, 5, 6], [0.0, 0.5, 1.0, 1.0], 0.75) == Crossing(3.0, 4.0)


def test_an_accuracy_that_is_the_target_in_float32_is_at_the_target():
    """9,000 of 10,000 right is 0.9; as float32 it is 2e-8 less."""
    at = float(np.float32(9000 / 10000))
    assert at < 0.9
    assert crossing([0, 1, 2], [0.1, at, at], 0.9) == Crossing(1.0, 1.0)
    assert crossing([0, 1, 2], [0.1, 0.8999, 0.8999], 0.9) is None


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.floats(0.05, 0.95),
    st.integers(1, 5),
)
def test_a_line_between_rows_is_found_wherever_rows_are_put_on_it(values, target, between):
    """Rows added on the straight lines between rows confirm a crossing at least as early, never later."""
    fine = np.interp(np.arange((len(values) - 1) * between + 1) / between, np.arange(len(values)), values)
    coarse_found = crossing(range(len(values)), values, target)
    found = crossing(np.arange(len(fine)) / between, fine.tolist(), target)
    if coarse_found is not None:
        assert found is not None
        assert found.seconds <= coarse_found.seconds + 1e-9


# Ratios and differences


def test_ratio_by_hand():
    rivals, ours = (2.0, 4, 8, 2, 4, 8, 2, 4, 8, 4), (1.0, 2, 1, 2, 2, 4, 1, 8, 2, 1)
    logs = np.log(np.divide(rivals, ours))
    reach = T9 * logs.std(ddof=1) / math.sqrt(10)
    found = ratio(times(*rivals), times(*ours), own(10))
    assert found == {
        "estimate": pytest.approx(math.exp(logs.mean()), rel=1e-12),
        "low": pytest.approx(math.exp(logs.mean() - reach), rel=1e-9),
        "high": pytest.approx(math.exp(logs.mean() + reach), rel=1e-9),
        "bound": None,
        "worlds": 10,
        "clusters": 10,
    }


def test_difference_by_hand():
    rivals, ours = [0.5, 0.6, 0.7, 0.8, 0.9], [0.6, 0.6, 0.9, 0.8, 0.8]
    gaps = np.subtract(ours, rivals)
    reach = T4 * gaps.std(ddof=1) / math.sqrt(5)
    found = difference(rivals, ours, own(5))
    assert found["estimate"] == pytest.approx(gaps.mean())
    assert (found["low"], found["high"]) == pytest.approx((gaps.mean() - reach, gaps.mean() + reach))
    assert (found["bound"], found["worlds"], found["clusters"]) == (None, 5, 5)
    assert difference([], [], []) == {**NOTHING, "worlds": 0, "clusters": 0}
    assert difference([0.5], [math.nan], own(1))["bound"] == "none"


def test_a_world_short_of_the_target_makes_a_bound():
    short = Time(100.0, False)
    rivals, ours = [Time(50.0), short, Time(80.0)], times(25, 40, 20)
    full = ratio(times(50, 100, 80), ours, own(3))
    assert ratio(rivals, ours, own(3)) == {**full, "high": None, "bound": "at least"}
    mirrored = ratio(ours, rivals, own(3))
    assert (mirrored["bound"], mirrored["low"]) == ("at most", None)
    assert mirrored["high"] == pytest.approx(1 / full["low"])
    both = ratio(rivals, [*times(25, 40), short], own(3))
    assert both == {**NOTHING, "worlds": 3, "clusters": 3}
    assert ratio([short] * 3, [short] * 3, own(3))["bound"] == "none"


@pytest.mark.parametrize("pair", [(0, 5), (5, 0), (0, 0), (math.inf, 5), (5, math.nan)])
def test_no_ratio_where_a_time_is_zero_or_not_finite(pair):
    found = ratio(times(pair[0], 4), times(pair[1], 2), own(2))
    assert found == {**NOTHING, "worlds": 2, "clusters": 2}


def test_one_world_and_no_world():
    one = {"estimate": pytest.approx(2.0), "low": None, "high": None, "bound": None, "worlds": 1, "clusters": 1}
    assert ratio(times(4), times(2), own(1)) == one
    assert ratio([], [], []) == {**NOTHING, "worlds": 0, "clusters": 0}
    alike = [hashes(0)] * 3
    assert ratio(times(4, 4, 4), times(2, 2, 2), alike) == one


def test_shared_delays_are_one_cluster_and_count_as_one():
    """Five delays under two graphs each: five clusters of two, whose interval is that of the five means."""
    drew = [hashes(world, delays=world // 2, graph=world) for world in range(10)]
    rivals, ours = times(*np.exp(np.arange(10.0) % 7)), times(*[1.0] * 10)
    logs = np.log([time.seconds for time in rivals])
    means = times(*np.exp(logs.reshape(5, 2).mean(axis=1)))
    found = ratio(rivals, ours, drew)
    assert (found["worlds"], found["clusters"]) == (10, 5)
    expected = ratio(means, times(*[1.0] * 5), own(5))
    assert [found[name] for name in ("estimate", "low", "high")] == pytest.approx(
        [expected[name] for name in ("estimate", "low", "high")]
    )


@pytest.mark.parametrize("graphs_differ", [True, False])
def test_where_graphs_and_delays_cross_the_wider_interval_is_kept(graphs_differ):
    rng = np.random.default_rng(0)
    big, small = rng.normal(0, 1, 6), rng.normal(0, 0.01, 6)
    pairs = [(graph, delays) for graph in range(6) for delays in range(6)]
    of_graph, of_delays = (big, small) if graphs_differ else (small, big)
    rivals = times(*[math.exp(of_graph[graph] + of_delays[delays]) for graph, delays in pairs])
    drew = [hashes(number, graph=graph, delays=delays) for number, (graph, delays) in enumerate(pairs)]
    found = ratio(rivals, times(*[1.0] * 36), drew)
    # By what differs much: six values of it.
    expected = ratio(times(*np.exp(big + small.mean())), times(*[1.0] * 6), own(6))
    assert (found["worlds"], found["clusters"]) == (36, 6)
    assert [found[name] for name in ("estimate", "low", "high")] == pytest.approx(
        [expected[name] for name in ("estimate", "low", "high")]
    )


def test_one_graph_for_all_worlds_is_no_cluster():
    assert len(cluster([hashes(world, graph="ring") for world in range(4)], "learning").ways) == 1
    assert [len(way) for way in cluster([hashes(world, delays="trace") for world in range(4)], "learning").ways] == [1]


WORLDS = st.lists(
    st.tuples(
        *(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)),  # rival's and our seconds
        *(st.sampled_from([True, True, True, False]), st.sampled_from([True, True, True, False])),  # reached
        *(st.integers(0, 3), st.integers(0, 3)),  # which graph and delays
    ),
    min_size=1,
    max_size=12,
)


def drawn(worlds):
    rivals = [Time(each[0], each[2]) for each in worlds]
    ours = [Time(each[1], each[3]) for each in worlds]
    return rivals, ours, [hashes(number, graph=each[4], delays=each[5]) for number, each in enumerate(worlds)]


def close(found, expected):
    return found == {
        name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in expected.items()
    }


@settings(deadline=None, max_examples=200)
@given(WORLDS, st.randoms())
def test_the_order_of_worlds_does_not_matter(worlds, random):
    rivals, ours, drew = drawn(worlds)
    order = list(range(len(worlds)))
    random.shuffle(order)
    shuffled = [[each[i] for i in order] for each in (rivals, ours, drew)]
    assert close(ratio(*shuffled), ratio(rivals, ours, drew))


@settings(deadline=None, max_examples=200)
@given(WORLDS, st.data())
def test_an_equal_world_changes_nothing(worlds, data):
    rivals, ours, drew = drawn(worlds)
    again = data.draw(st.lists(st.integers(0, len(worlds) - 1), min_size=1, max_size=5))
    more = [[*each, *(each[i] for i in again)] for each in (rivals, ours, drew)]
    assert close(ratio(*more), ratio(rivals, ours, drew))
    seconds = [[time.seconds for time in each] for each in (*more[:2], rivals, ours)]
    assert close(difference(*seconds[:2], more[2]), difference(*seconds[2:], drew))


@settings(deadline=None, max_examples=200)
@given(WORLDS, st.floats(1e-3, 1e3))
def test_a_change_of_unit_changes_no_ratio(worlds, scale):
    rivals, ours, drew = drawn(worlds)
    scaled = [[time._replace(seconds=scale * time.seconds) for time in each] for each in (rivals, ours)]
    expected = ratio(rivals, ours, drew)
    found = ratio(*scaled, drew)
    # Rounding may carry a limit over the largest float.
    assume(all(value is None or 1e-200 < value < 1e200 for value in (expected["low"], expected["high"])))
    assert close(found, expected)


@settings(deadline=None, max_examples=200)
@given(WORLDS)
def test_swapping_the_two_mirrors_estimate_limits_and_bound(worlds):
    rivals, ours, drew = drawn(worlds)
    one, other = ratio(rivals, ours, drew), ratio(ours, rivals, drew)
    mirrored = {"at least": "at most", "at most": "at least"}
    assert other["bound"] == mirrored.get(one["bound"], one["bound"])
    assume(all(value is None or 1e-200 < value < 1e200 for value in (one["low"], one["high"])))
    for name, mirror in (("estimate", "estimate"), ("low", "high"), ("high", "low")):
        expected = None if one[name] is None else pytest.approx(1 / one[name], rel=1e-9)
        assert other[mirror] == expected


@settings(deadline=None, max_examples=200)
@given(WORLDS)
def test_limits_are_ordered_and_a_bound_has_its_limit_on_the_safe_side_alone(worlds):
    found = ratio(*drawn(worlds))
    json.dumps(found, allow_nan=False)
    if found["low"] is not None:
        assert found["low"] <= found["estimate"] * (1 + 1e-12)
        assert found["bound"] in (None, "at least")
    if found["high"] is not None:
        assert found["high"] >= found["estimate"] * (1 - 1e-12)
        assert found["bound"] in (None, "at most")
    assert found["clusters"] <= found["worlds"]


def test_limits_beyond_every_float_are_no_limits():
    found = ratio(times(1e300, 1e-300), times(1e-300, 1e300), own(2))
    assert (found["estimate"], found["low"], found["high"]) == (pytest.approx(1.0), 0.0, None)


def test_the_simulated_coverage_keeps_its_promise():
    """Small, with a fixed seed; the figures that are quoted come from `python -m benchmarks coverage`."""
    figures = coverage.measure(quick=True)
    whole = {case: found["interval"] for case, found in figures.items() if case.startswith("n=")}
    assert len(whole) == 16
    for case, found in whole.items():
        assert found["coverage [%]"] >= 93
        if " 0% " in case:
            assert found["coverage [%]"] <= 98
            assert found["no ratio [%]"] == 0
    shared = figures["5 delays under 20 graphs each"]
    assert shared["as clusters"]["coverage [%]"] > 88
    assert shared["as pairs"]["coverage [%]"] < 60


# The summary


def test_summary_by_hand():
    summary = summary_of([20, 25, 40], [40, 50, 80])
    assert list(summary) == ["kind", "target_accuracy", "baseline", "rule", "cells", "policies"]
    assert (summary["kind"], summary["target_accuracy"], summary["baseline"]) == ("learning", 0.5, "full")
    assert "10 s apart" in summary["rule"]
    (cell,) = summary["cells"]
    assert {name: value for name, value in cell.items() if name != "policies"} == {
        "values": {},
        "worlds": 3,
        "distinct": 3,
        "clusters": 3,
        "budget": [100, 100],
        "equal_time": True,
        "resolution": 10,
        "shortest": pytest.approx(20),
    }
    mine, rival = cell["policies"]["dybw"], cell["policies"]["full"]
    assert summary["policies"] == cell["policies"]
    assert mine["time_to_target"] == pytest.approx((20 * 25 * 40) ** (1 / 3))
    assert rival["time_to_target"] == pytest.approx(2 * mine["time_to_target"])
    assert mine["reached"] == rival["reached"] == [3, 3]
    assert mine["ratio"]["estimate"] == pytest.approx(2)
    assert (mine["ratio"]["low"], mine["ratio"]["high"]) == pytest.approx((2, 2))
    at_end = [0.1 + 40 / time for time in (20, 25, 40, 40, 50, 80)]
    assert mine["test_accuracy"] == pytest.approx(np.mean(at_end[:3]))
    gap = np.mean(at_end[:3]) - np.mean(at_end[3:])
    assert mine["accuracy_difference"]["estimate"] == pytest.approx(gap)
    assert mine["accuracy_difference"]["low"] < gap < mine["accuracy_difference"]["high"]
    assert [rival[name] for name in ("ratio", "accuracy_difference", "iteration_ratio")] == [None] * 3
    assert (mine["test_loss"], mine["iterations"], mine["iteration_length"]) == (2, 50, 2)
    assert mine["iteration_ratio"]["estimate"] == 1
    assert mine["gradients_per_second"] == pytest.approx(5)
    assert [mine[name] for name in ("computing", "wasted", "waiting")] == pytest.approx([0.6, 0.1, 0.3])
    assert (mine["drift"], mine["active_fraction"], mine["backup_workers"]) == (0, 0.5, 1)
    assert (mine["worker_accuracy"], mine["diverged"]) == (None, 0)


def test_a_world_that_fell_short_stays_in_every_number():
    summary = summary_of([20, 25, 40], [40, None, None])
    mine, rival = summary["policies"]["dybw"], summary["policies"]["full"]
    assert (rival["time_to_target"], rival["reached"], mine["reached"]) == (None, [1, 3], [3, 3])
    found = mine["ratio"]
    assert (found["bound"], found["high"], found["worlds"]) == ("at least", None, 3)
    assert found["estimate"] == pytest.approx((2 * 100 / 25 * 100 / 40) ** (1 / 3))
    assert rival["test_accuracy"] == pytest.approx(np.mean([1.1, 0.1, 0.1]))
    text = format_table(summary)
    assert "at least 2.71 [" in text
    assert ", -]" in text
    assert "1 of 3" in text
    assert "full in 2 of 3" in text
    both = summary_of([20, None], [40, None])
    assert both["policies"]["dybw"]["ratio"] == {**NOTHING, "worlds": 2, "clusters": 2}
    assert "no ratio" in format_table(both)


def test_the_order_of_rows_and_worlds_does_not_matter():
    rng = np.random.default_rng(3)
    rows, worlds = comparison(rng.uniform(15, 90, 8), rng.uniform(15, 90, 8))
    straight = summarise(rows, worlds, ["dybw", "full"], "full", 0.5)
    shuffled = summarise(
        rng.permutation(rows).tolist(), rng.permutation(worlds).tolist(), ["dybw", "full"], "full", 0.5
    )
    assert json.dumps(shuffled) == json.dumps(straight)


def test_equal_worlds_count_once_in_all_numbers():
    """A trace of two rows under four seeds: two worlds, and the first does not weigh three times."""
    drew = [hashes(0), hashes(1), hashes(0), hashes(0)]
    four, two = summary_of([20, 25, 20, 20], [40, 75, 40, 40], drew), summary_of([20, 25], [40, 75])
    assert four["policies"] == two["policies"]
    cell = four["cells"][0]
    assert (cell["worlds"], cell["distinct"], cell["clusters"]) == (4, 2, 2)
    assert "Worlds: 4 drawn, 2 distinct, 2 clusters" in format_table(four)
    # For seconds alone, worlds that differ in batches only are one.
    alike = [hashes(0, graph=0, delays=0), hashes(1, graph=0, delays=0), hashes(2)]
    found = summary_of([20, 25, 30], [40, 50, 60], alike)
    assert found["policies"]["dybw"]["iteration_ratio"]["worlds"] == 2
    assert (found["policies"]["dybw"]["ratio"]["worlds"], found["policies"]["dybw"]["ratio"]["clusters"]) == (3, 2)


def test_shown_means_agree_with_the_paired_ratio():
    """Also where clusters are of different sizes, whoever divides one column's numbers finds the ratio."""
    drew = [hashes(world, delays=min(world, 2)) for world in range(5)]
    policies = summary_of([20, 25, 40, 22, 31], [40, 75, 41, 80, 33], drew)["policies"]
    divided = policies["full"]["time_to_target"] / policies["dybw"]["time_to_target"]
    assert policies["dybw"]["ratio"]["estimate"] == pytest.approx(divided)
    gap = policies["dybw"]["test_accuracy"] - policies["full"]["test_accuracy"]
    assert policies["dybw"]["accuracy_difference"]["estimate"] == pytest.approx(gap)


def test_one_world_has_no_interval_and_says_so():
    summary = summary_of([20], [40])
    found = summary["policies"]["dybw"]["ratio"]
    assert (found["estimate"], found["low"], found["high"]) == (pytest.approx(2), None, None)
    text = format_table(summary)
    assert "2.00 [-]" in text
    assert "One world: no interval" in text
    shared = format_table(summary_of([20, 25], [40, 50], [hashes(0, delays=0), hashes(1, delays=0)]))
    assert "All worlds share their delays: no interval" in shared


def test_no_accuracy_is_compared_where_times_differ():
    """That is --until-target: rows end when all have arrived."""
    rows, worlds = comparison([20, 25], [40, 50])
    rows = [row for row in rows if row["policy"] == "full" or row["virtual_time"] <= 40]
    summary = summarise(rows, worlds, ["dybw", "full"], "full", 0.5)
    mine = summary["policies"]["dybw"]
    assert summary["cells"][0]["equal_time"] is False
    assert [mine[name] for name in ("test_accuracy", "test_loss", "accuracy_difference", "worker_accuracy")] == [
        None
    ] * 4
    assert mine["ratio"]["estimate"] == pytest.approx(2)
    assert "different times" in format_table(summary)


def test_budgets_may_differ_between_worlds():
    rows, worlds = comparison([20], [40])
    more = [{**row, "world": 1} for row in comparison([30], [60], budget=200)[0]]
    worlds.append({"world": 1, "hashes": hashes(1)})
    cell = summarise(rows + more, worlds, ["dybw", "full"], "full", 0.5)["cells"][0]
    assert (cell["budget"], cell["equal_time"], cell["resolution"]) == ([100, 200], True, 20)
    assert cell["policies"]["dybw"]["ratio"]["estimate"] == pytest.approx(2)


def test_a_diverged_world_is_not_left_out():
    rows, worlds = comparison([20, 25, 40], [40, 50, 80])
    for row in rows:
        if (row["policy"], row["world"]) == ("dybw", 1) and row["virtual_time"] >= 20:
            row |= {"test_accuracy": None, "test_loss": None, "diverged": True}
    summary = summarise(rows, worlds, ["dybw", "full"], "full", 0.5)
    mine = summary["policies"]["dybw"]
    assert (mine["diverged"], mine["reached"]) == (1, [2, 3])
    assert (mine["test_accuracy"], mine["test_loss"], mine["accuracy_difference"]) == (None, None, None)
    assert (mine["ratio"]["bound"], mine["ratio"]["worlds"]) == ("at most", 3)
    assert "Diverged, of 3 worlds: dybw in 1" in format_table(summary)


def test_a_mean_over_nothing_is_null():
    rows, worlds = comparison([20, 25], [40, 50])
    bare = [{**row, "active_fraction": None, "backup_workers": None, "iteration_length": None} for row in rows]
    start = [row for row in bare if row["row"] == 0]
    for some in (bare, start):
        mine = summarise(some, worlds, ["dybw", "full"], "full", 0.5)["policies"]["dybw"]
        names = ("active_fraction", "backup_workers", "iteration_length", "iteration_ratio")
        assert [mine[name] for name in names] == [None] * 4
    assert [mine[name] for name in ("gradients_per_second", "computing", "wasted", "waiting")] == [None] * 4
    assert (mine["ratio"]["bound"], mine["reached"]) == ("none", [0, 2])
    one = [row if row["world"] else {**row, "iteration_length": None} for row in rows]
    mine = summarise(one, worlds, ["dybw", "full"], "full", 0.5)["policies"]["dybw"]
    assert mine["iteration_length"] is None  # the other world alone would flatter


def test_active_fraction_weighs_iterations_not_rows():
    rows, worlds = comparison([20], [40], rows=2)
    for row in rows:
        row |= {"step": [0, 10, 40][row["row"]], "active_fraction": [None, 1.0, 0.2][row["row"]]}
    assert summarise(rows, worlds, ["dybw", "full"], "full", 0.5)["policies"]["dybw"]["active_fraction"] == (
        pytest.approx((10 * 1.0 + 30 * 0.2) / 40)
    )


def test_drift_is_the_largest_and_single_workers_are_those_of_the_last_row():
    rows, worlds = comparison([20, 25], [40, 50])
    for row in rows:
        row["drift"] = 7 if (row["world"], row["row"]) == (1, 3) else 2
        if row["row"] == 10:
            row |= {"worker_accuracy_min": 0.2 + 0.2 * row["world"], "worker_accuracy_median": 0.7}
    mine = summarise(rows, worlds, ["dybw", "full"], "full", 0.5)["policies"]["dybw"]
    assert (mine["drift"], mine["worker_accuracy"]) == (7, pytest.approx([0.3, 0.7]))


def test_a_target_met_at_time_zero_gives_no_ratio():
    rows, worlds = comparison([20, 25], [40, 50])
    at_once = [{**row, "test_accuracy": 0.9} if row["world"] == 0 else row for row in rows]
    summary = summarise(at_once, worlds, ["dybw", "full"], "full", 0.5)
    mine = summary["policies"]["dybw"]
    assert (mine["time_to_target"], mine["reached"], mine["ratio"]["bound"]) == (None, [2, 2], "none")
    assert "met at time 0" in format_table(summary)
    everywhere = summarise([{**row, "test_accuracy": 0.9} for row in rows], worlds, ["dybw", "full"], "full", 0.5)
    assert everywhere["policies"]["full"]["time_to_target"] == 0
    json.dumps(everywhere, allow_nan=False)


def timing_only(rows):
    return [{name: value for name, value in row.items() if not name.startswith("test_")} for row in rows]


def test_clocks_alone_rank_speed():
    rows = [
        row
        for world in range(4)
        for policy, pace in (("dybw", 1.0 + 0.1 * world), ("full", 2.0))
        for row in line_to(policy, world, None, pace=pace)
    ]
    worlds = [{"world": world, "hashes": hashes(world)} for world in range(4)]
    summary = summarise(timing_only(rows), worlds, ["dybw", "full"], "full", 0.9)
    mine = summary["policies"]["dybw"]
    assert (summary["kind"], summary["target_accuracy"]) == ("timing", None)
    assert [mine[name] for name in ("time_to_target", "reached", "ratio", "test_accuracy")] == [None] * 4
    expected = np.exp(np.mean(np.log(2 / np.array([1, 1.1, 1.2, 1.3]))))
    assert mine["iteration_ratio"]["estimate"] == pytest.approx(expected)
    assert mine["iteration_ratio"]["bound"] is None
    assert "speed, not learning" in summary["rule"]
    text = format_table(summary)
    assert "this ranks speed, not learning" in text
    assert "reached" not in text


def test_a_task_without_accuracy_has_no_target():
    rows, worlds = comparison([20, 25], [40, 50])
    rows = [{**row, "test_accuracy": None} for row in rows]
    summary = summarise(rows, worlds, ["dybw", "full"], "full", None)
    mine = summary["policies"]["dybw"]
    assert (summary["kind"], mine["reached"], mine["test_accuracy"], mine["test_loss"]) == ("learning", None, None, 2)
    assert "No target" in format_table(summary)


def swept():
    """Two delay laws, two seeds, two graph seeds each; `dybw` is twice as fast under one law, half under the other."""
    rows, worlds = [], []
    for law, factor in (("constant", 2), ("pareto:alpha=2", 0.5)):
        for graph_seed in range(2):
            for seed in range(2):
                values = {"graph": "random", "graph_seed": graph_seed, "delays": law, "seed": seed}
                time = 30 + 4 * seed + graph_seed
                rows += line_to("dybw", values, time) + line_to("full", values, time * factor)
                drew = hashes(seed, graph=graph_seed, delays=f"{law} {seed}", learning=f"{law} {graph_seed} {seed}")
                worlds.append({**values, "hashes": drew})
    return rows, worlds


def test_delay_laws_are_never_pooled():
    summary = summarise(*swept(), ["dybw", "full"], "full", 0.5)
    assert "policies" not in summary
    assert [cell["values"] for cell in summary["cells"]] == [
        {"graph": "random", "delays": "constant"},
        {"graph": "random", "delays": "pareto:alpha=2"},
    ]
    found = [cell["policies"]["dybw"]["ratio"] for cell in summary["cells"]]
    assert [each["estimate"] for each in found] == pytest.approx([2, 0.5])
    assert [(each["worlds"], each["clusters"]) for each in found] == [(4, 2), (4, 2)]
    text = format_table(summary)
    assert text.count("delays = ") == 2
    assert "graph = " not in text  # it is the same everywhere


def test_a_swept_target_is_that_of_its_cell():
    rows, worlds = [], []
    for target in (0.5, 0.3):
        values = {"target_accuracy": target, "seed": 0}
        rows += line_to("dybw", values, 40) + line_to("full", values, 80)
        worlds.append({**values, "hashes": hashes(0)})
    summary = summarise(rows, worlds, ["dybw", "full"], "full", 0.5)
    assert [cell["policies"]["dybw"]["time_to_target"] for cell in summary["cells"]] == pytest.approx([40, 20])
    assert "test accuracy 0.5 or 0.3;" in format_table(summary)


def test_what_does_not_belong_together_is_one_line():
    rows, worlds = comparison([20, 25], [40, 50])
    policies = ["dybw", "full"]
    with pytest.raises(ValueError, match=r"the baseline 'ful' is not among the policies \(dybw, full\); name one"):
        summarise(rows, worlds, policies, "ful", 0.5)
    with pytest.raises(ValueError, match="there are no rows"):
        summarise([], worlds, policies, "full", 0.5)
    with pytest.raises(ValueError, match=r"policy 'dybw' has no rows in world \(1,\)"):
        summarise([row for row in rows if (row["policy"], row["world"]) != ("dybw", 1)], worlds, policies, "full", 0.5)
    with pytest.raises(ValueError, match=r"rows of policy 'dybw' in world \(1,\) belong to no world"):
        summarise(rows, worlds[:1], policies, "full", 0.5)
    with pytest.raises(ValueError, match="worlds are named by seed, hashes, rows by world; they must agree"):
        summarise(rows, [{"seed": 0, "hashes": hashes(0)}], policies, "full", 0.5)


# The tables

LONG = "from_file:path=/somewhere/with/$a/100%/very/long/name/of_a_file_with_links#1.csv,late=apply,weights={lazy}&~^\\"
MAYBE = st.one_of(st.none(), st.floats(0, 1))


@st.composite
def any_rows(draw):
    """Rows as wild as a run may leave them."""
    policies = draw(st.lists(st.sampled_from(["dybw", "full", LONG]), min_size=1, max_size=3, unique=True))
    count, last, learned = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.booleans())
    rows, worlds = [], []
    for world in range(count):
        drew = hashes(*(draw(st.integers(0, 1)) for _ in range(4)))
        worlds.append({"world": world, "hashes": drew})
        for policy in policies:
            for number in range(draw(st.integers(0, last)) + 1):
                more = {name: draw(MAYBE) for name in ("active_fraction", "iteration_length", "worker_accuracy_min")}
                more |= {"diverged": draw(st.booleans()), "computing": draw(st.sampled_from([0.0, 5.0, None]))}
                accuracy = draw(st.one_of(MAYBE, st.just(math.nan)))
                rows.append(row_of(policy, world, number, number * draw(st.floats(0, 1e9)), accuracy, **more))
                rows[-1]["virtual_time"] = number * 10.0
    target = draw(st.one_of(st.none(), st.floats(0.01, 0.99)))
    return (rows if learned else timing_only(rows)), worlds, policies, draw(st.sampled_from(policies)), target


@settings(deadline=None, max_examples=150)
@given(any_rows())
def test_whatever_rows_say_the_summary_is_json_and_no_table_prints_nan_or_none(told):
    summary = summarise(*told)
    again = json.loads(json.dumps(summary, allow_nan=False))
    text = format_table(again)
    assert text == format_table(summary)
    assert all(len(line) <= max(WIDTH, len(LONG)) for line in text.splitlines() if LONG not in line)
    for shown in (text, to_csv(again), to_tex(again)):
        assert not re.search(r"\b(nan|NaN|None|inf|Infinity|null)\b", shown)


def test_the_table_is_aligned_and_announces_the_time_to_target_first():
    rows, worlds = comparison([20, 25, 40], [40, 50, 81])
    rows += [{**row, "policy": LONG} for row in rows if row["policy"] == "dybw"]
    text = format_table(summarise(rows, worlds, ["dybw", LONG, "full"], "full", 0.5))
    lines = text.splitlines()
    assert lines[0].split()[:5] == ["policy", "to", "target", "ratio", "reached"]
    assert lines[3].split()[:8] == ["dybw", "27.1", "2.01", "[1.97,", "2.05]", "3", "of", "3"]
    assert lines[4] == LONG
    assert lines[5].split()[:4] == ["27.1", "2.01", "[1.97,", "2.05]"]
    for word in ("to target", "ratio", "reached", "accuracy at T", "iteration ", "iterations", "gradients", "drift"):
        end = lines[0].index(word) + len(word.strip())
        assert all(len(line) == end or line[end] == " " for line in (lines[3], lines[5], lines[6]))
        assert all(line[end - 1] != " " for line in (lines[3], lines[5], lines[6]))
    assert "Baseline: full" in text
    assert f"Idealised: {LONG} counts gradients before they are ready" in " ".join(text.split())
    assert "Target: test accuracy 0.5; reached: the first crossing" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, "-"),
        ((1.2871, 1.0712, 1.5462, None), "1.29 [1.07, 1.55]"),
        ((1.2, 0.9996, 1.4404, None), "1.20 [0.999, 1.45]"),  # does not read as if it excluded 1
        ((1.407, None, None, "at least"), "at least 1.40"),
        ((1.407, 1.1, None, "at least"), "at least 1.40 [1.10, -]"),
        ((0.7001, None, 0.9, "at most"), "at most 0.701 [-, 0.900]"),
        ((1.29, None, None, None), "1.29 [-]"),
        ((None, None, None, "none"), "no ratio"),
        ((12345.6, 0.0, 1.234e9, None), "12346 [0, 1.24e+9]"),
    ],
)
def test_intervals_are_rounded_to_the_safe_side(values, expected):
    interval = values and dict(zip(("estimate", "low", "high", "bound"), values, strict=True))
    assert interval_text(interval) == expected


def test_csv_holds_every_digit():
    summary = summarise(*swept(), ["dybw", "full"], "full", 0.5)
    lines = list(csv.DictReader(io.StringIO(to_csv(summary))))
    assert [(line["delays"], line["policy"]) for line in lines] == [
        *(("constant", "dybw"), ("constant", "full"), ("pareto:alpha=2", "dybw"), ("pareto:alpha=2", "full"))
    ]
    facts = summary["cells"][0]["policies"]["dybw"]
    assert float(lines[0]["time_to_target"]) == facts["time_to_target"]
    assert float(lines[0]["ratio_low"]) == facts["ratio"]["low"]
    assert (lines[0]["reached"], lines[0]["reached_of"], lines[0]["ratio_bound"]) == ("4", "4", "")
    assert (lines[1]["ratio"], lines[1]["baseline"]) == ("", "full")
    assert len({len(line) for line in csv.reader(io.StringIO(to_csv(summary)))}) == 1


@pytest.mark.parametrize("timing", [False, True])
def test_tex_is_a_plain_tabular_with_every_special_character_escaped(timing):
    rows, worlds = comparison([20, 25, 40], [40, None, 80])
    rows += [{**row, "policy": LONG} for row in rows if row["policy"] == "dybw"]
    rows = timing_only(rows) if timing else rows
    text = to_tex(summarise(rows, worlds, ["dybw", LONG, "full"], "full", 0.5))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    columns = re.fullmatch(r"\\begin\{tabular\}\{(l[r]+)\}", body[0]).group(1)
    assert body[-1] == r"\end{tabular}"
    for line in body[1:-1]:
        bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[_$%&#{}]", "", line)
        assert not set("_$%#~^") & set(bare)
        assert bare.count("{") == bare.count("}")
        if line != r"\hline":
            assert line.endswith(r" \\")
            assert bare.count("&") == len(columns) - 1
    assert r"\texttt{from\_file:path=/somewhere/with/\$a/100\%/very" in text
    assert r"weights=\{lazy\}\&\textasciitilde{}\textasciicircum{}\textbackslash{}}" in text


@pytest.mark.parametrize(
    ("rival", "said"),
    [
        ("ssp:bound=1", True),
        ("k_async:k=3", True),
        ("token", True),
        ("ssp:weight=mean,bound=1", False),
        ("full", False),
    ],
)
def test_methods_of_other_steps_are_told_apart(rival, said):
    """One learning rate moves a server by whole updates, and the mean of workers by a share."""
    rows, worlds = comparison([20, 25], [40, 50])
    renamed = [{**row, "policy": rival if row["policy"] == "full" else row["policy"]} for row in rows]
    text = " ".join(format_table(summarise(renamed, worlds, ["dybw", rival], rival, 0.5)).split())
    assert (f"an update moves the model of {rival} by the whole of it" in text) == said
