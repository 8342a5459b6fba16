"""The references themselves, against cases worked out by hand and against closed forms of the papers."""

import ast
import pathlib

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import EventQueue, Worker, drifting, gossip, pairwise, server

INF = float("inf")
PATH3 = [[1], [0, 2], [1]]
COMPLETE3 = [[1, 2], [0, 2], [0, 1]]
RING4 = [[1, 3], [0, 2], [1, 3], [0, 2]]
X3 = [[0.0], [60.0], [120.0]]


def table(*rows):
    """Delays written out: one row per worker, one entry per computation."""
    return lambda i, n: rows[i][n]


def stamp(i, n, x):
    """Updates that tell who computed what: 6, 12, 18, ... in computation 0, 60 more in each later one."""
    return np.array([6.0 * (i + 1) + 60.0 * n])


def halve(i, n, x):
    """The update that moves half of the way to 0, so that it matters at which parameters it is computed."""
    return -x / 2.0


def columns(records):
    return [record.x[:, 0].tolist() for record in records]


def times(records):
    return [record.time for record in records]


def actives(records):
    return [sorted(record.active) for record in records]


def assert_columns(records, expected):
    np.testing.assert_allclose([record.x[:, 0] for record in records], expected, rtol=0, atol=1e-12)


# Delays of the three-worker cases: computation 0 takes 1, 2, 4 s, computation 1 takes 1, 4, 2 s.
UNEVEN = table([1.0, 1.0, 1.0, 1.0], [2.0, 4.0, 1.0, 1.0], [4.0, 2.0, 1.0, 1.0])


def run3(rule, late, steps=2, delay=UNEVEN, update=stamp, **kwargs):
    return gossip.run_global(rule, late, delay, update, X3, PATH3, steps, **kwargs)


@pytest.mark.parametrize("late", ["drop", "carry", "apply"])
def test_full_waits_for_the_last(late):
    records = run3(gossip.Full(), late)
    # Iteration 1 ends at max(1, 2, 4) = 4, iteration 2 at 4 + max(1, 4, 2) = 8.
    assert times(records) == [4.0, 8.0]
    assert actives(records) == [[0, 1, 2]] * 2
    assert records[0].heard == [1, 2, 1]
    assert [record.started for record in records] == [[1, 1, 1], [2, 2, 2]]
    # x + u = 6, 72, 138. Degrees 1, 2, 1: both links weigh 1/3. Ends: (2*6 + 72)/3 = 28, (2*138 + 72)/3 = 116;
    # middle: (6 + 72 + 138)/3 = 72. Then x + u = 94, 144, 194: (188 + 144)/3, 432/3, (388 + 144)/3.
    assert_columns(records, [[28.0, 72.0, 116.0], [332.0 / 3.0, 144.0, 532.0 / 3.0]])


def test_update_is_computed_at_the_workers_own_parameters():
    # x + u = 0, 30, 60: (0 + 30)/3 = 10, 90/3 = 30, (120 + 30)/3 = 50.
    assert_columns(run3(gossip.Full(), "drop", steps=1, update=halve), [[10.0, 30.0, 50.0]])


def test_fastest_drop():
    records = run3(gossip.Fastest(2), "drop")
    # The second of 1, 2, 4 is 2; all start again at 2 and finish at 3, 6, 4: the second is 4.
    assert times(records) == [2.0, 4.0]
    assert actives(records) == [[0, 1], [0, 2]]
    assert [record.heard for record in records] == [[1, 1, 0], [0, 0, 0]]
    assert [record.restarted for record in records] == [[0, 1, 2]] * 2
    # 0 and 1 have one active neighbour each, weight 1/2: (6 + 72)/2 = 39. Then 0 and 2 are active but not
    # neighbours: 39 + 66 and 120 + 78, each for itself.
    assert_columns(records, [[39.0, 39.0, 120.0], [105.0, 39.0, 198.0]])


def test_fastest_carry():
    records = run3(gossip.Fastest(2), "carry")
    # Worker 2 goes on and finishes computation 0 at 4; 0 and 1 begin at 2 and finish at 3 and 6.
    assert times(records) == [2.0, 4.0]
    assert actives(records) == [[0, 1], [0, 2]]
    assert [record.restarted for record in records] == [[0, 1], [0, 2]]
    assert [record.started for record in records] == [[1, 1, 0], [2, 1, 1]]
    # Worker 2 adds its update of computation 0: 120 + 18.
    assert_columns(records, [[39.0, 39.0, 120.0], [105.0, 39.0, 138.0]])


def test_fastest_apply():
    records = run3(gossip.Fastest(2), "apply")
    assert times(records) == [2.0, 4.0]
    # As with drop, and the late add their own: 120 + 18 = 138; then 39 + 72 = 111, and 138 + 78 = 216.
    assert_columns(records, [[39.0, 39.0, 138.0], [105.0, 111.0, 216.0]])


def test_fastest_takes_all_who_arrive_at_the_same_instant():
    records = run3(gossip.Fastest(1), "drop", steps=1, delay=table([2.0] * 2, [3.0] * 2, [2.0] * 2))
    assert times(records) == [2.0]
    assert actives(records) == [[0, 2]]


def test_deadline_drop():
    records = run3(gossip.Deadline(3.0), "drop", steps=3)
    # Cut at 3 (arrivals 1, 2, 4), at 6 (arrivals 4, 7, 5); the third begins at 6 and all have arrived at 7.
    assert times(records) == [3.0, 6.0, 7.0]
    assert actives(records) == [[0, 1], [0, 2], [0, 1, 2]]
    assert_columns(records[:2], [[39.0, 39.0, 120.0], [105.0, 39.0, 198.0]])


def test_deadline_carry():
    delay = table([1.0, 1.0, 1.0, 9.0], [2.0, 4.0, 9.0], [4.0, 2.0, 9.0])
    records = run3(gossip.Deadline(3.0), "carry", steps=3, delay=delay)
    # From 3 on: 0 finishes at 4, 2 (since 0 s) at 4, 1 at 7: the cut at 6 takes 0 and 2. From 6 on: 0 at 7,
    # 1 (since 3 s) at 7, 2 at 8: all have arrived at 8, before the deadline at 9.
    assert times(records) == [3.0, 6.0, 8.0]
    assert actives(records) == [[0, 1], [0, 2], [0, 1, 2]]
    assert records[2].started == [3, 2, 2]
    # 105 + 6 + 120, 39 + 72, 138 + 78 = 231, 111, 216 and then the weights of the whole path.
    expected = [(2 * 231.0 + 111.0) / 3, (231.0 + 111.0 + 216.0) / 3, (2 * 216.0 + 111.0) / 3]
    assert_columns(records, [[39.0, 39.0, 120.0], [105.0, 39.0, 138.0], expected])


def test_deadline_apply():
    records = run3(gossip.Deadline(3.0), "apply")
    assert times(records) == [3.0, 6.0]
    assert_columns(records, [[39.0, 39.0, 138.0], [105.0, 111.0, 216.0]])


def test_deadline_is_inclusive():
    assert actives(run3(gossip.Deadline(2.0), "drop", steps=1)) == [[0, 1]]


def test_deadline_without_any_arrival():
    slow = table([5.0] * 4, [5.0] * 4, [5.0] * 4)
    carried = run3(gossip.Deadline(2.0), "carry", steps=3, delay=slow)
    # Cut at 2 and 4 with nobody there; all finish at 5, before the deadline at 6.
    assert times(carried) == [2.0, 4.0, 5.0]
    assert actives(carried) == [[], [], [0, 1, 2]]
    assert columns(carried)[:2] == [[0.0, 60.0, 120.0]] * 2
    assert carried[1].started == [0, 0, 0]
    dropped = run3(gossip.Deadline(2.0), "drop", steps=3, delay=slow)
    assert times(dropped) == [2.0, 4.0, 6.0]
    assert columns(dropped) == [[0.0, 60.0, 120.0]] * 3
    assert dropped[1].started == [2, 2, 2]
    applied = run3(gossip.Deadline(2.0), "apply", steps=1, delay=slow)
    assert_columns(applied, [[6.0, 72.0, 138.0]])


X4 = [[0.0], [0.0], [0.0], [0.0]]
LINKS4 = [(0, 1), (1, 2), (2, 3)]
DELAY4 = table(
    [1.0, 4.0, 2.0, 1.0, 1.0], [5.0, 1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.5, 4.0, 1.0], [3.0, 1.0, 8.0, 4.0, 1.0]
)


def test_dtur_drop():
    rule = gossip.Dtur(LINKS4)
    records = gossip.run_global(rule, "drop", DELAY4, stamp, X4, RING4, 4)
    # 1: links have max 5, 5, 3: cut at 3, active 0, 2, 3; establishes (2, 3).
    # 2: 4, 1, 2, 1: of (0, 1) -> 4 and (1, 2) -> 2 the least is 2: active 1, 2, 3; establishes (1, 2).
    # 3: 2, 1, 0.5, 8: only (0, 1) is left: 2, active 0, 1, 2; the epoch is complete after 3 iterations.
    # 4: 1, 1, 4, 4: all links anew: 1, active 0, 1.
    assert times(records) == [3.0, 5.0, 7.0, 8.0]
    assert actives(records) == [[0, 2, 3], [1, 2, 3], [0, 1, 2], [0, 1]]
    assert rule.epoch_lengths == [3]
    # The ring's link (0, 3) is not in the path but is used: p = 1, -, 1, 2, both links weigh 1/3. x + u = 6, -, 18, 24:
    # 0: (12 + 24)/3 = 12; 2: (36 + 24)/3 = 20; 3: (6 + 18 + 24)/3 = 16.
    assert records[0].heard == [1, 0, 1, 2]
    assert_columns(records[:1], [[12.0, 0.0, 20.0, 16.0]])


def test_dtur_carry():
    rule = gossip.Dtur(LINKS4)
    records = gossip.run_global(rule, "carry", DELAY4, stamp, X4, RING4, 4)
    # 1: as above; 1 goes on until 5. 0, 2, 3 begin at 3 and finish at 7, 5, 4.
    # 2: (0, 1) -> 7, (1, 2) -> 5: cut at 5, active 1, 2, 3. They begin at 5: 1 at 6, 2 at 5.5, 3 at 13.
    # 3: (0, 1) -> max(7, 6) = 7, active 0, 1, 2; epoch complete. They begin at 7: 0 at 9, 1 at 8, 2 at 11.
    # 4: (0, 1) -> 9, (1, 2) -> 11, (2, 3) -> 13: cut at 9, active 0, 1.
    assert times(records) == [3.0, 5.0, 7.0, 9.0]
    assert actives(records) == [[0, 2, 3], [1, 2, 3], [0, 1, 2], [0, 1]]
    assert records[-1].started == [3, 3, 3, 2]
    # 2: x + u = 0 + 12 (computation 0), 20 + 78, 16 + 84 = 12, 98, 100; p = 1, 2, 1.
    assert_columns(records[1:2], [[12.0, (24.0 + 98.0) / 3, 210.0 / 3, (200.0 + 98.0) / 3]])


def test_dtur_apply():
    records = gossip.run_global(gossip.Dtur(LINKS4), "apply", DELAY4, stamp, X4, RING4, 2)
    assert times(records) == [3.0, 5.0]
    # 1: worker 1 adds its own 12. 2: x + u = 12 + 66, 12 + 72, 20 + 78, 16 + 84 = 78, 84, 98, 100; 0 is late.
    second = [78.0, (2 * 84.0 + 98.0) / 3, (84.0 + 98.0 + 100.0) / 3, (200.0 + 98.0) / 3]
    assert_columns(records, [[12.0, 12.0, 20.0, 16.0], second])


def test_dtur_announcement_takes_time():
    def rule():
        return gossip.Dtur([(0, 1), (1, 2)], flood_latency=0.5, eccentricity=[2, 1, 2])

    # Cut at 2 by worker 1 with eccentricity 1: ends at 2.5. Worker 2 arrives at 2.25 and stays late.
    delay = table([1.0, 4.0, 1.0], [2.0, 1.0, 1.0], [2.25, 8.0, 1.0])
    records = run3(rule(), "carry", delay=delay)
    assert actives(records)[0] == [0, 1]
    # Carried over, worker 2 is there from the start; (1, 2) is ready when 1 finishes at 3.5; 1 announces: 4.
    assert times(records) == [2.5, 4.0]
    assert actives(records)[1] == [1, 2]
    # Dropped, worker 2 begins anew at 2.5 and needs until 10.5; announced by 2 with eccentricity 2: 11.5.
    dropped = run3(rule(), "drop", delay=delay)
    assert times(dropped) == [2.5, 11.5]
    assert actives(dropped) == [[0, 1], [0, 1, 2]]
    # Both ends at the same instant: the lower number announces, eccentricity 2: 2 + 0.5 * 2.
    assert times(run3(rule(), "drop", steps=1, delay=table([2.0, 1], [2.0, 1], [9.0, 1]))) == [3.0]


def test_dtur_first_of_equal_links_announces():
    # All arrive at 1. Link (1, 2) comes first in the list, its lower end is 1 with eccentricity 1: 1 + 0.5.
    rule = gossip.Dtur([(1, 2), (0, 1)], flood_latency=0.5, eccentricity=[2, 1, 2])
    records = run3(rule, "drop", steps=1, delay=lambda i, n: 1.0)
    assert times(records) == [1.5]
    assert rule.epoch_lengths == [1]


def test_dtur_does_not_end_an_iteration_before_it_begins():
    path = [[1], [0, 2], [1, 3], [2, 4], [3]]
    links = [(0, 1), (1, 2), (2, 3), (3, 4)]
    rule = gossip.Dtur(links, flood_latency=1.0, eccentricity=[4, 3, 2, 3, 4])
    delay = table([1.0, 10.0], [0.5, 10.0], [1.25, 10.0], [1.5, 10.0], [20.0, 10.0])
    records = gossip.run_global(rule, "carry", delay, stamp, [[0.0]] * 5, path, 2)
    # 1: cut at 1 by worker 0 with eccentricity 4: ends at 5; 2 and 3 arrive meanwhile, at 1.25 and 1.5.
    # 2: (2, 3) is ready as it begins, at 5; a tie, so 2 announces with eccentricity 2: ends at 7.
    assert times(records) == [5.0, 7.0]
    assert actives(records) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("late", ["drop", "carry", "apply"])
@pytest.mark.parametrize("rule", [gossip.Full(), gossip.Fastest(1), gossip.Deadline(INF), gossip.Dtur([])])
def test_a_worker_alone_computes_one_update_after_another(rule, late):
    records = gossip.run_global(rule, late, table([1.0, 2.0, 4.0, 8.0]), halve, [[8.0]], [[]], 3)
    assert times(records) == [1.0, 3.0, 7.0]
    assert columns(records) == [[4.0], [2.0], [1.0]]


def slow_to_zero(receiver, sender):
    """Messages to worker 0 need half a second, others none."""
    return 0.5 if receiver == 0 else 0.0


def test_arrival_waits_for_the_slowest_message():
    # Worker 1 finishes at 1 and is heard by 2 at 1, by 0 at 1.5: it has arrived at 1.5. 0 and 2 finish at 1.25 and 8.
    delay = table([1.25, 4.0, 4.0], [1.0, 1.0, 1.0], [8.0, 8.0, 8.0])
    assert times(run3(gossip.Full(), "drop", steps=1, delay=delay, latency=slow_to_zero)) == [8.0]
    records = run3(gossip.Fastest(1), "carry", delay=delay, latency=slow_to_zero)
    # Cut at 1.25 by worker 0; worker 1 has finished but not arrived, and arrives at 1.5 with computation 0.
    assert times(records) == [1.25, 1.5]
    assert actives(records) == [[0], [1]]
    assert records[1].started == [1, 1, 0]
    # Thrown away, computation 0 of worker 1 and its message under way no longer count: 1.25 + 1 + 0.5.
    dropped = run3(gossip.Fastest(1), "drop", delay=delay, latency=slow_to_zero)
    assert times(dropped) == [1.25, 2.75]
    assert actives(dropped) == [[0], [1]]


def test_deadline_counts_messages_that_are_in():
    records = run3(gossip.Deadline(1.25), "apply", steps=1, delay=lambda i, n: 1.0, latency=slow_to_zero)
    # All finish at 1; worker 1 is heard by 0 only at 1.5.
    assert times(records) == [1.25]
    assert actives(records) == [[0, 2]]


def test_full_with_neighbour_barrier():
    delay = table([1.0, 1.0], [2.0, 1.0], [4.0, 3.0])
    records = drifting.run_backup(0, delay, stamp, X3, PATH3, 2)
    # T(1): 0: max(1, 2) = 2; 1: max(2, 1, 4) = 4; 2: max(4, 2) = 4. They finish again at 3, 5, 7.
    # T(2): 0: max(3, 5) = 5; 1: max(5, 3, 7) = 7; 2: max(7, 5) = 7.
    assert [record.ends for record in records] == [[2.0, 4.0, 4.0], [5.0, 7.0, 7.0]]
    assert times(records) == [4.0, 7.0]
    assert [record.heard for record in records] == [[1, 2, 1]] * 2
    assert_columns(records, [[28.0, 72.0, 116.0], [332.0 / 3.0, 144.0, 532.0 / 3.0]])


def test_neighbour_barrier_waits_for_messages_under_way():
    # 1 -> 0 takes half a second: T_0(1) = max(1, 2 + 0.5). The others hear at once.
    records = drifting.run_backup(0, UNEVEN, stamp, X3, PATH3, 1, latency=slow_to_zero)
    assert records[0].ends == [2.5, 4.0, 4.0]


def test_backup_with_neighbour_barrier():
    delay = table([1.0, 1.0], [2.0, 3.0], [4.0, 1.0])
    records = drifting.run_backup(1, delay, stamp, X3, COMPLETE3, 2)
    # One message is enough. T(1): 0: max(1, min(2, 4)) = 2; 1: max(2, min(1, 4)) = 2; 2: max(4, min(1, 2)) = 4,
    # and by then it has heard both. They finish again at 3, 5, 5.
    # T(2): 0: max(3, min(5, 5)) = 5; 1: max(5, 3) = 5; 2: max(5, 3) = 5. What arrives at 5 sharp is heard.
    assert [record.ends for record in records] == [[2.0, 2.0, 4.0], [5.0, 5.0, 5.0]]
    assert [record.heard for record in records] == [[1, 1, 2], [2, 2, 2]]
    # x + u = 6, 72, 138, weights 1/3: (12 + 72)/3 = 28, (6 + 144)/3 = 50, 216/3 = 72. Then x + u = 94, 122, 150 with
    # mean 122. Worker 2's message of iteration 1, in at 4, has no part in it; worker 0's of iteration 2,
    # which reaches worker 2 at 3 while that is still in iteration 1, has.
    assert_columns(records, [[28.0, 50.0, 72.0], [122.0, 122.0, 122.0]])


def test_backup_of_all_neighbours_waits_for_one_all_the_same():
    delay = table([1.0, 1.0], [2.0, 3.0], [4.0, 1.0])
    one, all_of_them = (drifting.run_backup(b, delay, stamp, X3, COMPLETE3, 2) for b in (1, 2))
    assert [record.ends for record in all_of_them] == [record.ends for record in one]


def test_tokens_hold_up_whoever_is_ahead_of_a_neighbour():
    # Without tokens worker 0 of the path 0 - 1 - 2 starts at 2, 3, 4, worker 1 at 2, 3, 4 and worker 2 at 8, 16, 24.
    delay = table([1.0] * 3, [1.0] * 3, [8.0] * 3)
    free = drifting.run_backup(1, delay, stamp, X3, PATH3, 3)
    assert [record.ends for record in free] == [[1.0, 1.0, 8.0], [2.0, 2.0, 16.0], [3.0, 3.0, 24.0]]
    # Gap 2: worker 1 may start 3 when worker 2 has started 1, at 8; worker 0 needs worker 1's iteration 2 only, at 3.
    two = drifting.run_backup(1, delay, stamp, X3, PATH3, 3, gap=2)
    assert [record.ends for record in two] == [[1.0, 1.0, 8.0], [2.0, 2.0, 16.0], [3.0, 8.0, 24.0]]
    # By then worker 1 has worker 0's message of iteration 2, but none of worker 2, which is still at iteration 1.
    assert [record.heard for record in two] == [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    # Gap 1: worker 1 starts 2 when worker 2 has started 1, at 8, and 3 at 16; worker 0 is one ahead of it at most.
    one = drifting.run_backup(1, delay, stamp, X3, PATH3, 3, gap=1)
    assert [record.ends for record in one] == [[1.0, 1.0, 8.0], [2.0, 8.0, 16.0], [9.0, 16.0, 24.0]]


def test_dpsgd_with_neighbour_barrier():
    delay = table([1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [4.0, 1.0, 1.0])
    records = drifting.run_dpsgd("neighbours", delay, halve, X3, PATH3, 3)
    # Parameters are sent at the start, so T(1) = 1, 2, 4. T(2): 0: max(1 + 1, 2) = 2; 1: max(2 + 1, 1, 4) = 4;
    # 2: max(4 + 1, 2) = 5. T(3): 0: max(2 + 1, 4) = 4; 1: max(4 + 1, 2, 5) = 5; 2: max(5 + 1, 4) = 6.
    assert [record.ends for record in records] == [[1.0, 2.0, 4.0], [2.0, 4.0, 5.0], [4.0, 5.0, 6.0]]
    # W x = (0 + 60)/3 = 20, 180/3 = 60, (240 + 60)/3 = 100 and u = 0, -30, -60: 20, 30, 40.
    # W x = (40 + 30)/3 = 70/3, 90/3 = 30, (80 + 30)/3 = 110/3 and u = -10, -15, -20: 40/3, 15, 50/3.
    assert_columns(records[:2], [[20.0, 30.0, 40.0], [40.0 / 3.0, 15.0, 50.0 / 3.0]])


def test_dpsgd_messages_travel_while_workers_compute():
    delay = table([1.0, 1.0], [2.0, 1.0], [4.0, 1.0])
    records = drifting.run_dpsgd("neighbours", delay, halve, X3, PATH3, 2, latency=lambda i, j: 1.5)
    # T(1) = max(1, 1.5), max(2, 1.5), max(4, 1.5). T(2): 0: max(1.5 + 1, 2 + 1.5); 1: max(2 + 1, 1.5 + 1.5, 4 + 1.5);
    # 2: max(4 + 1, 2 + 1.5).
    assert [record.ends for record in records] == [[1.5, 2.0, 4.0], [3.5, 5.5, 5.0]]


def test_dpsgd_with_global_barrier():
    delay = table([1.0, 1.0], [2.0, 1.0], [4.0, 1.0])
    records = drifting.run_dpsgd("global", delay, halve, X3, PATH3, 2, latency=lambda i, j: 1.5)
    # max(1, 2, 4, 1.5) = 4, then max(1, 1, 1, 1.5) = 1.5 more.
    assert times(records) == [4.0, 5.5]
    assert_columns(records, [[20.0, 30.0, 40.0], [40.0 / 3.0, 15.0, 50.0 / 3.0]])


def test_pairwise_adds_stale_updates():
    delay = table([1.0, 2.0, 8.0], [2.0, 4.0], [4.0, 8.0])
    choices = [1, 2, 2, 1]
    records = pairwise.run_pairwise(lambda event, i: choices[event], delay, halve, X3, COMPLETE3, 4)
    assert times(records) == [1.0, 2.0, 3.0, 4.0]
    assert actives(records) == [[0], [1], [0], [2]]
    assert [record.heard for record in records] == [[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 1, 1]]
    assert records[-1].started == [2, 1, 1]
    # 1 s: 0 and 1 mean (0 + 60)/2 = 30, 0 adds -0/2. 2 s: 1 and 2 mean (30 + 120)/2 = 75, 1 adds -60/2 (it started
    # from 60): 45. 3 s: 0 and 2 mean (30 + 75)/2 = 52.5, 0 adds -30/2. 4 s: 2 and 1 mean (52.5 + 45)/2 = 48.75, 2 adds
    # -120/2, as it has been computing since 0 s.
    expected = [[30.0, 30.0, 120.0], [30.0, 45.0, 75.0], [37.5, 45.0, 52.5], [37.5, 48.75, -11.25]]
    assert columns(records) == expected


X_SERVER = [[8.0]] * 4


def test_synchronous_server_with_backup():
    delay = table([1.0, 3.0, 1.0], [2.0, 1.0, 1.0], [4.0, 1.0, 1.0])
    records = server.run_synchronous(1, delay, stamp, X_SERVER, 2)
    # Two of three: 0 and 1 at 2, mean (6 + 12)/2 = 9; from 2 on 5, 3, 3: 1 and 2 at 3, mean (72 + 78)/2 = 75.
    assert times(records) == [2.0, 3.0]
    assert actives(records) == [[0, 1], [1, 2]]
    assert columns(records) == [[17.0] * 4, [92.0] * 4]
    assert records[1].started == [2, 2, 2]


def test_synchronous_server_without_backup():
    records = server.run_synchronous(0, lambda i, n: 2.0**i, halve, X_SERVER, 2)
    # All compute at the server's parameters: 8 - 4, 4 - 2.
    assert times(records) == [4.0, 8.0]
    assert columns(records) == [[4.0] * 4, [2.0] * 4]


def test_synchronous_server_takes_no_more_than_it_waits_for():
    assert actives(server.run_synchronous(1, lambda i, n: 1.0, stamp, X_SERVER, 1)) == [[0, 1]]


def test_asynchronous_server():
    delay = table([1.0, 1.0, 1.0], [1.5, 4.0], [8.0])
    records = server.run_asynchronous(delay, halve, X_SERVER, 3)
    # 1 s: 0 pushes -8/2: 4. 1.5 s: 1 pushes -8/2 (it started from 8): 0. 2 s: 0 pushes -4/2: -2.
    assert times(records) == [1.0, 1.5, 2.0]
    assert actives(records) == [[0], [1], [0]]
    assert columns(records) == [[4.0, 8.0, 8.0, 4.0], [4.0, 0.0, 8.0, 0.0], [-2.0, 0.0, 8.0, -2.0]]


def test_stale_synchronous_server():
    delay = table([1.0, 1.0, 1.0, 1.0], [5.0, 5.0])
    records = server.run_stale(1, delay, halve, [[8.0]] * 3, 4)
    # 1 s: clocks 1, 0: 0 may be one ahead; it pulls 4. 2 s: clocks 2, 0: 0 has pushed -2 and waits. 5 s: 1 pushes
    # -8/2: 2 - 4 = -2; clocks 2, 1: both go on from -2. 6 s: clocks 3, 1: 0 has pushed 1 and waits again.
    assert times(records) == [1.0, 2.0, 5.0, 6.0]
    assert actives(records) == [[0], [0], [1], [0]]
    assert [record.restarted for record in records] == [[0], [], [0, 1], []]
    assert [record.started for record in records] == [[1, 0], [1, 0], [2, 1], [2, 1]]
    assert columns(records) == [[4.0, 8.0, 4.0], [4.0, 8.0, 2.0], [-2.0, -2.0, -2.0], [-2.0, -2.0, -1.0]]


# Random cases: what holds whatever the delays.


def drawn(seed, workers, computations):
    """Delays and updates from a table of random numbers."""
    rng = np.random.default_rng(seed)
    seconds = 0.5 + rng.exponential(size=(workers, computations))
    kicks = rng.normal(size=(workers, computations, 3))

    def update(i, n, x):
        return kicks[i, n] - 0.1 * x

    return (lambda i, n: seconds[i, n]), update, rng.normal(size=(workers, 3))


def connected(seed, workers):
    """A random connected graph: a path through the workers in order, and some more links."""
    graph = nx.gnp_random_graph(workers, 0.3, seed=seed)
    nx.add_path(graph, range(workers))
    return graph, [sorted(graph[i]) for i in range(workers)]


def global_rules(workers):
    path = [(i, i + 1) for i in range(workers - 1)]
    return [gossip.Full(), gossip.Fastest(workers // 2), gossip.Deadline(1.0), gossip.Dtur(path)]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("late", ["drop", "carry", "apply"])
def test_averaging_preserves_the_mean(which, late):
    _, neighbours = connected(3, 7)
    delay, _, x0 = drawn(3, 7, 40)
    ones = np.ones(3)
    records = gossip.run_global(global_rules(7)[which], late, delay, lambda i, n, x: ones, x0, neighbours, 30)
    mean = x0.mean(axis=0)
    for record in records:
        counted = 7 if late == "apply" else len(record.active)
        mean = mean + counted / 7.0
        np.testing.assert_allclose(record.x.mean(axis=0), mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("late", ["drop", "carry", "apply"])
def test_rules_that_wait_for_all_agree(late):
    _, neighbours = connected(5, 6)
    delay, update, x0 = drawn(5, 6, 11)
    expected = gossip.run_global(gossip.Full(), late, delay, update, x0, neighbours, 10)
    for rule in [gossip.Fastest(6), gossip.Deadline(INF)]:
        records = gossip.run_global(rule, late, delay, update, x0, neighbours, 10)
        assert times(records) == times(expected)
        assert all(np.array_equal(a.x, b.x) for a, b in zip(records, expected, strict=True))
    drifted = drifting.run_backup(0, delay, update, x0, neighbours, 10)
    for record, other in zip(drifted, expected, strict=True):
        np.testing.assert_allclose(record.x, other.x, rtol=0, atol=1e-13)
        assert record.time <= other.time + 1e-12


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), workers=st.integers(2, 9), late=st.sampled_from(["drop", "carry", "apply"]))
def test_dtur_epochs_connect_the_graph_in_at_most_as_many_iterations_as_links(seed, workers, late):
    graph, neighbours = connected(seed, workers)
    delay, update, x0 = drawn(seed, workers, 31)
    rule = gossip.Dtur([(i, i + 1) for i in range(workers - 1)])
    records = gossip.run_global(rule, late, delay, update, x0, neighbours, 30)
    assert rule.epoch_lengths
    assert max(rule.epoch_lengths) <= workers - 1
    first = 0
    for length in rule.epoch_lengths:
        union = nx.empty_graph(workers)
        for record in records[first : first + length]:
            union.add_edges_from(graph.subgraph(record.active).edges)
        assert nx.is_connected(union)
        first += length


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), workers=st.integers(2, 8), backup=st.integers(0, 2))
def test_neighbour_barrier_follows_its_recursion(seed, workers, backup):
    _, neighbours = connected(seed, workers)
    delay, update, x0 = drawn(seed, workers, 12)
    latency = np.random.default_rng(seed + 1).exponential(size=(workers, workers))
    records = drifting.run_backup(backup, delay, update, x0, neighbours, 12, latency=lambda i, j: latency[i, j])
    begin = [0.0] * workers
    for k, record in enumerate(records):
        end = []
        for j, peers in enumerate(neighbours):
            arrivals = sorted(begin[i] + delay(i, k) + latency[j, i] for i in peers)
            needed = arrivals[max(len(peers) - backup, 1) - 1]
            end.append(max(begin[j] + delay(j, k), needed))
            assert record.heard[j] == sum(arrival <= end[j] for arrival in arrivals)
        assert record.ends == end
        begin = end


@pytest.mark.parametrize("seed", range(5))
def test_dpsgd_follows_its_recursion(seed):
    graph, neighbours = connected(seed, 6)
    delay, update, x0 = drawn(seed, 6, 12)
    latency = np.random.default_rng(seed + 1).exponential(size=(6, 6))
    drifted = drifting.run_dpsgd("neighbours", delay, update, x0, neighbours, 12, latency=lambda i, j: latency[i, j])
    together = drifting.run_dpsgd("global", delay, update, x0, neighbours, 12, latency=lambda i, j: latency[i, j])
    weights = np.zeros((6, 6))
    for i, j in graph.edges:
        weights[i, j] = weights[j, i] = 1.0 / (1.0 + max(graph.degree[i], graph.degree[j]))
    weights += np.diag(1.0 - weights.sum(axis=1))
    x, begin, now = x0, [0.0] * 6, 0.0
    for k in range(12):
        x = weights @ x + np.stack([update(i, k, x[i]) for i in range(6)])
        begin = [max(begin[i] + delay(i, k), max(begin[j] + latency[i, j] for j in neighbours[i])) for i in range(6)]
        now = max(now + max(delay(i, k), max(latency[j, i] for j in neighbours[i])) for i in range(6))
        assert drifted[k].ends == begin
        assert together[k].time == pytest.approx(now, abs=1e-12)
        np.testing.assert_allclose(drifted[k].x, x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(together[k].x, x, rtol=0, atol=1e-12)


def test_pairwise_moves_the_mean_by_the_update_alone():
    _, neighbours = connected(7, 6)
    delay, _, x0 = drawn(7, 6, 40)
    rng = np.random.default_rng(7)
    ones = np.ones(3)
    records = pairwise.run_pairwise(
        lambda event, i: int(rng.choice(neighbours[i])), delay, lambda i, n, x: ones, x0, neighbours, 60
    )
    for k, record in enumerate(records):
        np.testing.assert_allclose(record.x.mean(axis=0), x0.mean(axis=0) + (k + 1) / 6.0, rtol=0, atol=1e-12)
    assert times(records) == sorted(times(records))


def test_stale_bound_covers_both_ends():
    delay, update, _ = drawn(9, 4, 40)
    x0 = np.ones((5, 3))
    free = server.run_asynchronous(delay, update, x0, 60)
    unbounded = server.run_stale(INF, delay, update, x0, 60)
    assert times(free) == times(unbounded)
    assert all(np.array_equal(a.x, b.x) for a, b in zip(free, unbounded, strict=True))
    # Bound 0 is the synchronous server, with the sum of the updates in place of their mean.
    bound = server.run_stale(0, delay, update, x0, 40)[3::4]
    together = server.run_synchronous(0, delay, lambda i, n, x: 4.0 * update(i, n, x), x0, 10)
    assert times(bound) == times(together)
    for record, other in zip(bound, together, strict=True):
        assert record.restarted == [0, 1, 2, 3]
        np.testing.assert_allclose(record.x, other.x, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), bound=st.integers(0, 3))
def test_stale_bound_is_kept(seed, bound):
    delay, update, _ = drawn(seed, 4, 60)
    clock = np.zeros(4, dtype=int)
    for record in server.run_stale(bound, delay, update, np.ones((5, 3)), 60):
        (finished,) = record.active
        clock[finished] += 1
        # Whoever computes is at most `bound` ahead, so whoever has just finished is at most one more.
        assert clock.max() - clock.min() <= bound + 1
        assert all(clock[i] - clock.min() <= bound for i in record.restarted)


def test_events_come_in_order():
    queue = EventQueue()
    for event in [(2.0, 0, 0), (1.0, 1, 0), (1.0, 0, 5), (1.0, 0, 3)]:
        queue.push(*event)
    assert [queue.pop()[:3] for _ in range(4)] == [(1.0, 0, 3), (1.0, 0, 5), (1.0, 1, 0), (2.0, 0, 0)]
    assert queue.next_time() == INF
    with pytest.raises(ValueError, match="event at time nan"):
        queue.push(float("nan"), 0, 0)


def test_records_and_origins_are_copies():
    worker = Worker(0, np.zeros(2))
    worker.begin(0.0, lambda i, n: 1.0)
    worker.x += 1.0
    assert worker.compute(lambda i, n, x: x).tolist() == [0.0, 0.0]
    records = run3(gossip.Full(), "drop")
    assert not np.shares_memory(records[0].x, records[1].x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run3(gossip.Fastest(4), "drop"), "k=4 of 3 workers; use 1 to 3"),
        (lambda: run3(gossip.Full(), "wait"), "late='wait' is not a choice"),
        (lambda: run3(gossip.Full(), "drop", delay=lambda i, n: -1.0), "delay -1.0 of worker 0"),
        (lambda: gossip.Dtur([(0, 1)], flood_latency=1.0), "needs the eccentricity"),
        (lambda: drifting.run_backup(-1, UNEVEN, stamp, X3, PATH3, 1), "backup=-1 is not a number"),
        (lambda: drifting.run_backup(1, UNEVEN, stamp, X3, PATH3, 1, gap=0), "gap=0 lets nobody go on"),
        (lambda: drifting.run_backup(0, lambda i, n: 0.0, stamp, X3, PATH3, 1), "computes in no time"),
        (lambda: drifting.run_dpsgd("none", UNEVEN, stamp, X3, PATH3, 1), "barrier='none'"),
        (lambda: pairwise.run_pairwise(lambda e, i: 2, UNEVEN, stamp, X3, PATH3, 1), "worker 0 picked 2"),
        (lambda: server.run_synchronous(3, UNEVEN, stamp, X_SERVER, 1), "use 0 to 2"),
        (lambda: server.run_stale(-1, UNEVEN, stamp, X_SERVER, 1), "bound=-1"),
        (lambda: server.run_asynchronous(UNEVEN, stamp, X3, 1), "rows that differ"),
        (lambda: server.run_asynchronous(UNEVEN, stamp, [[1.0]], 1), "1 rows"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_references_import_nothing_but_numpy_and_heapq():
    for path in sorted((pathlib.Path(__file__).parent / "reference").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"numpy", "heapq"}, path
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1, path
