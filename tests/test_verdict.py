"""The verdict in words: every branch, from made-up rows; nothing is said that the intervals do not allow."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from dbwjax.report.intervals import inverse, ratio, unpaired_ratio
from dbwjax.report.page.verdict import verdict_of
from dbwjax.report.progress import progress_of
from dbwjax.report.statistics import Time, summarise
from tests.test_statistics import hashes, line_to, own, row_of

NEAR = (1.0, 1.02, 0.98, 1.01, 0.99)  # worlds differ by so much


def verdict(times, paces=None, target=0.5, drew=None, baseline="full", **more):
    """Of policies by their times to 0.5 in each world, or None where it is not reached."""
    worlds = len(next(iter(times.values())))
    rows = [
        row | more.get("row", {})
        for spec, own_times in times.items()
        for world, time in enumerate(own_times)
        for row in line_to(spec, world, time, pace=(paces or {}).get(spec, 2.0), rows=50)
    ]
    rows = more.get("change", lambda rows: rows)(rows)
    told = [{"world": world, "hashes": one} for world, one in enumerate(drew or own(worlds))]
    summary = summarise(rows, told, list(times), baseline, target)
    found = verdict_of(summary, summary["cells"][0], rows, told)
    return found, [plain(one) for one in found.statements], [plain(one) for one in found.warnings]


def plain(markup):
    return re.sub(r"<[^>]+>", "", str(markup)).replace("&gt;", ">").replace("&lt;", "<")


def scaled(seconds):
    return [seconds * each for each in NEAR]


def test_who_is_first_by_how_much_and_why():
    # An iteration of 1 s against 2 s, and 1.25 times as many of them.
    found, said, warned = verdict({"fast": scaled(25), "full": [40.0] * 5}, {"fast": 1.0})
    assert (found.kind, found.first, found.alike, found.sure) == ("target", "fast", [], True)
    assert re.fullmatch(
        r"fast reaches 0\.5 in 25\.0 s: 1\.60 times \[1\.56, 1\.64\] sooner than full in 5 worlds\.", said[0]
    )
    assert re.search(r"an iteration of fast is 2\.00 times \[2\.00, 2\.00\] shorter than one of full", said[1])
    assert re.search(r"it needs 1\.25 times \[1\.22, 1\.28\] as many of them", said[1])
    assert (
        said[2] == "Workers of fast wait 30.0 % of their time and waste 10.0 %, those of full wait 30.0 % of their "
        "time and waste 10.0 %."
    )
    assert warned == []


def test_the_two_factors_multiply_to_the_ratio_of_times():
    rows = [
        row
        for world in range(5)
        for spec, time, pace in (("a", 25 * NEAR[world], 1.0), ("b", 40, 2.0))
        for row in line_to(spec, world, time, pace=pace, rows=50)
    ]
    found = progress_of(rows, own(5), range(5), ["a", "b"], "b", 0.5)
    whole = ratio([Time(40.0)] * 5, [Time(25 * each) for each in NEAR], own(5))
    assert found["a"].length["estimate"] * found["a"].gain["estimate"] == pytest.approx(whole["estimate"])
    assert found["b"][2:] == (None, None)
    assert found["a"].iterations * found["a"].seconds == pytest.approx(25.0, rel=1e-3)
    rows = [row for row in rows if row["policy"] == "b"] + [r for w in range(5) for r in line_to("a", w, None)]
    assert progress_of(rows, own(5), range(5), ["a", "b"], "b", 0.5)["a"] == (None, None, None, None)


def test_a_difference_within_the_noise_is_none():
    found, said, _ = verdict({"fast": [30, 60, 40, 20, 50], "other": scaled(41), "full": scaled(42)})
    assert (found.first, sorted(found.alike), found.sure) == ("fast", ["full", "other"], False)
    assert "it cannot be told from full: 1.13 times [0.656, 1.94]" in said[0]
    assert "sooner" not in said[0]
    assert said[1] == "other cannot be told from fast: the interval of their ratio includes 1."


def test_the_baseline_may_be_first_and_is_compared_with_the_next():
    _, said, _ = verdict({"slow": scaled(60), "slower": scaled(70), "full": [30.0] * 5})
    assert said[0].startswith("full reaches 0.5 in 30.0 s (the baseline): 2.00 times [1.9")
    assert "sooner than slow in 5 worlds" in said[0]
    assert not any("Why" in one for one in said)


def test_shortest_iterations_are_not_the_soonest_target():
    _, said, _ = verdict({"hasty": scaled(60), "fast": [30.0] * 5, "full": scaled(90)}, {"hasty": 0.5, "fast": 1.0})
    assert (
        said[-1] == "hasty has the shortest iterations (0.500 s, 2.00 [2.00, 2.00] times shorter than fast) but "
        "learns less in each."
    )


def test_one_world_has_no_interval():
    found, said, warned = verdict({"fast": [20.0], "full": [40.0]})
    assert (
        said[0]
        == "fast reaches 0.5 in 20.0 s: 2.00 times sooner than full in the one world that was run (no interval)."
    )
    assert not found.sure
    assert warned[0].startswith("One world was run: no interval")
    _, said, warned = verdict({"fast": [20.0] * 3, "full": [40.0] * 3}, drew=[hashes(i, delays=7) for i in range(3)])
    assert "(no interval)" in said[0]
    assert warned[0].startswith("All worlds share their delays")


def test_a_world_that_falls_short_makes_a_bound():
    found, said, warned = verdict({"fast": [20, 21, 22, 20.5], "full": [50, 51, 49, None]})
    assert "fast reaches 0.5 in 20.9 s: at least 2." in said[0]
    assert said[0].endswith("(a bound: full did not reach it in every world).")
    assert "Target 0.5 not reached, of worlds: full in 1 of 4." in warned[0]
    assert found.progress["fast"].gain is None


def test_nobody_reached_the_target_everywhere():
    found, said, _ = verdict({"fast": [20, 21, None], "full": [50, None, None]})
    assert found.first is None
    assert said == ["No rule reached 0.5 in every world. fast did so in most: 2 of 3."]


def test_nobody_reached_the_target_so_accuracy_at_equal_time_is_compared():
    found, said, warned = verdict({"fast": scaled(60), "full": scaled(90)}, target=0.95)
    assert (found.kind, found.first) == ("accuracy", "fast")
    assert said[0] == "No rule reached 0.95 within 100 s."
    assert re.match(
        r"After 100 s, fast is at test accuracy 0\.767: 0\.222 \[0\.2\d+, 0\.2\d+\] more than full in 5", said[1]
    )
    assert any("not reached" in one for one in warned)
    _, said, warned = verdict({"fast": scaled(60), "full": scaled(90)}, target=None)
    assert said[0].startswith("After 100 s, fast is at")
    assert "There was no target" in warned[0]


def test_a_task_without_accuracy_is_ranked_by_loss():
    def losses(rows):
        return [
            {**row, "test_accuracy": None, "test_loss": 1.0 + (row["policy"] == "full") + 0.01 * row["world"]}
            for row in rows
        ]

    found, said, warned = verdict({"fast": scaled(60), "full": scaled(90)}, target=None, change=losses)
    assert (found.kind, found.first) == ("loss", "fast")
    assert said[0] == "After 100 s, fast is at test loss 1.02: 1.00 [1.00, 1.00] less than full in 5 worlds."
    assert "no accuracy" in warned[0]


def test_clocks_alone_rank_speed():
    def clocks(rows):
        return [
            {name: value for name, value in row.items() if not name.startswith(("test_", "worker_a"))} for row in rows
        ]

    found, said, warned = verdict({"fast": scaled(1), "full": scaled(1)}, {"fast": 0.5}, change=clocks)
    assert (found.kind, found.first) == ("timing", "fast")
    assert (
        said[0] == "An iteration of fast takes 0.500 s: 4.00 times [4.00, 4.00] shorter than those of full in 5 worlds."
    )
    assert warned[0] == "Clocks alone ran: this ranks speed, not learning."


def test_a_single_policy_is_compared_with_nobody():
    _, said, _ = verdict({"full": scaled(40)})
    assert said == ["full reaches 0.5 in 40.0 s. No other rule was run, so nothing is compared."]


def test_what_must_be_known_before_a_number_is_quoted():
    def diverged(rows):
        return [
            row
            | (
                {"diverged": True, "test_accuracy": None, "test_loss": None}
                if row["policy"] == "ssp" and row["world"] == 1 and row["row"] > 10
                else {}
            )
            for row in rows
        ]

    _, _, warned = verdict({"dybw:late=apply": scaled(30), "ssp": scaled(40), "full": scaled(50)}, change=diverged)
    text = "\n".join(warned)
    assert "Diverged, of 5 worlds: ssp in 1." in text
    assert "dybw:late=apply counts gradients before they are ready, which no cluster can do." in text
    assert "an update of ssp moves the model by more than 1/N of it" in text
    _, _, warned = verdict({"fast": scaled(8), "full": scaled(9)})
    assert warned[0].startswith("Coarse: the shortest time to target is")


def test_a_target_that_is_met_at_once_ranks_nobody():
    found, said, warned = verdict({"fast": scaled(30), "full": scaled(50)}, target=0.05)
    assert found.first is None
    assert said == ["No rule can be called first: the target 0.05 is met before training begins."]
    assert "use a higher target" in warned[0]


def test_times_that_differ_and_no_target_rank_nobody():
    rows = [row_of("a", 0, i, s, 0.1) for i, s in enumerate((0, 10))]
    rows += [row_of("b", 0, i, s, 0.1) for i, s in enumerate((0, 20))]
    told = [{"world": 0, "hashes": hashes(0)}]
    summary = summarise(rows, told, ["a", "b"], "b", 0.9)
    found = verdict_of(summary, summary["cells"][0], rows, told)
    assert (found.kind, found.first) == ("none", None)
    assert plain(found.warnings[0]).startswith("Rules ended at different times")


def test_names_are_text():
    found, _, _ = verdict({"<b>fast</b>": scaled(20), "full": scaled(40)})
    assert "<b>" not in found.statements[0]
    assert "&lt;b&gt;fast" in found.statements[0]


def test_an_inverse_swaps_limits_and_bounds():
    times = [Time(2.0), Time(3.0), Time(9.0, False)], [Time(1.0), Time(2.0), Time(3.0)]
    assert inverse(ratio(*times, own(3))) == pytest.approx(ratio(*times[::-1], own(3)))
    assert inverse(None) is None


def test_an_unpaired_interval_is_welch_s():
    rivals, ours = [2.0, 4.0, 3.0], [1.0, 1.1, 0.9, 1.3]
    found = unpaired_ratio([Time(x) for x in rivals], [Time(x) for x in ours], (own(3), own(4)))
    truth = stats.ttest_ind(np.log(rivals), np.log(ours), equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((np.exp(truth.low), np.exp(truth.high)))
    assert (found["worlds"], found["clusters"]) == (3, 3)
    found = unpaired_ratio([Time(2.0, False), Time(2.0)], [Time(1.0), Time(1.1)], (own(2), own(2)))
    assert (found["bound"], found["high"]) == ("at least", None)
    alone = unpaired_ratio([Time(2.0)], [Time(1.0), Time(1.1)], (own(1), own(2)))
    assert (alone["low"], alone["high"]) == (None, None)
