"""Files of events: what a file says is kept or refused, and never misread. One row a case."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbwjax import compare_clocks
from dbwjax.cli import train
from dbwjax.experiments import inputs
from dbwjax.experiments.config import TrainConfig
from dbwjax.experiments.problem import of_seeds, problems
from dbwjax.network import tables
from dbwjax.network.breakage import build_events
from dbwjax.network.event_files import read_events

INF = math.inf
HEADER = "event,worker,at,until\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files into the working directory, as text or as bytes."""
    monkeypatch.chdir(tmp_path)

    def to(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return to


# Text, and of 4 workers: absences (worker, from, until, patience, line), partitions (from, until, sides).
FILES = [
    (HEADER + "leave,1,5,9\n", [(1, 5, 9, 0, 2)], []),
    (HEADER + "crash,1,5,9\n", [(1, 5, 9, 5, 2)], []),
    (HEADER + "crash,1,5,\n", [(1, 5, INF, 5, 2)], []),
    (HEADER + "join,3,7.5,\n", [(3, 0, 7.5, 0, 2)], []),
    (HEADER + "leave,1,0,\n", [(1, 0, INF, 0, 2)], []),
    ("event,worker,at\ncrash,0,2\nleave,3,1\n", [(0, 2, INF, 5, 2), (3, 1, INF, 0, 3)], []),
    ("event,worker,at,until,patience\ncrash,0,2,,0\nleave,3,1,,\n", [(0, 2, INF, 0, 2), (3, 1, INF, 0, 3)], []),
    ("event,worker,at_ms,until_s,patience_us\ncrash,0,2000,4,5e5\n", [(0, 2, 4, 0.5, 2)], []),
    ("event,worker,at (ms),until (ms)\nleave,0,2000,4000\n", [(0, 2, 4, 0, 2)], []),
    ("until,Event,AT,Worker\n9,LEAVE,5,1\n", [(1, 5, 9, 0, 2)], []),
    (HEADER + "\n leave , 1 , 5 , 9 \n\n", [(1, 5, 9, 0, 3)], []),
    (b"\xef\xbb\xbf" + HEADER.encode() + b"leave,1,5,9\r\n", [(1, 5, 9, 0, 2)], []),
    (HEADER + "partition,,5,9\n", [], [(5, 9, [0, 0, 1, 1])]),
    (HEADER + "partition,2,5,9\n", [], [(5, 9, [0, 0, 1, 0])]),
    (HEADER + "partition,2,5,\npartition,0,5,\n", [], [(5, INF, [1, 0, 1, 0])]),
    (
        HEADER + "partition,2,5,9\npartition,0,6,9\nleave,1,1,2\n",
        [(1, 1, 2, 0, 4)],
        [(5, 9, [0, 0, 1, 0]), (6, 9, [1, 0, 0, 0])],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "absences", "cuts"), FILES)
def test_events_are_what_the_file_says(write, text, absences, cuts):
    write("e.csv", text)
    found = read_events(4, path="e.csv")
    assert list(zip(*(column.tolist() for column in found.away), strict=True)) == absences
    assert list(zip(*(column.tolist() for column in found.cuts), strict=True)) == cuts


# Text, and what the refusal says; of 4 workers.
BAD = [
    ("", ["e.csv is empty; write one row an event below event,worker,at,until"]),
    ("\n\n", ["e.csv is empty"]),
    (HEADER, ["has no rows of events"]),
    ("leave,1,5,9\n", ["line 1 is no header; begin the file with event,worker,at,until"]),
    ("event,worker\nleave,1\n", ["line 1: no column 'at'"]),
    ("event,worker,at,until,colour\nleave,1,5,9,red\n", ["line 1: column 'colour' is not known"]),
    ("event,worker,at,at_ms\nleave,1,5,9\n", ["columns 'at' and 'at_ms' are the same"]),
    (HEADER + "leaf,1,5,9\n", ["line 2, column 1: 'leaf' is no event; did you mean 'leave'?"]),
    (HEADER + ",1,5,9\n", ["line 2, column 1: '' is no event"]),
    (HEADER + "leave,1,5\n", ["line 2 has 3 columns, line 1 has 4"]),
    (HEADER + "leave,1,5,9,2\n", ["line 2 has 5 columns"]),
    (HEADER + "leave;1;5;9\n", ["line 2 has 1 columns, line 1 has 4"]),
    ("event;worker;at;until\nleave;1;5;9\n", ["separated by ';'"]),
    (HEADER + "leave,4,5,9\n", ["line 2, column 2: '4' is not one of 4 workers; use 0 to 3"]),
    (HEADER + "leave,01,5,9\n", ["'01' is not one of 4 workers"]),
    (HEADER + "leave,-1,5,9\n", ["'-1' is no name of a worker"]),
    (HEADER + "leave,1.0,5,9\n", ["'1.0' is no name of a worker"]),
    (HEADER + "leave,nan,5,9\n", ["'nan' is no name of a worker"]),
    (HEADER + "leave,w1,5,9\n", ["'w1' is not one of 4 workers"]),
    (HEADER + "leave,٣,5,9\n", ["is not one of 4 workers"]),
    (HEADER + f"leave,{'9' * 90},5,9\n", ["is not one of 4 workers"]),
    (HEADER + "leave,,5,9\n", ["line 2, column 2: leave of nobody; name a worker"]),
    (HEADER + "leave,1,,9\n", ["line 2, column 3: '' is not a time"]),
    (HEADER + "leave,1,-5,9\n", ["line 2, column 3: '-5' is not a time"]),
    (HEADER + "leave,1,nan,9\n", ["'nan' is not a time"]),
    (HEADER + "leave,1,inf,9\n", ["'inf' is not a time"]),
    (HEADER + "leave,1,5,inf\n", ["line 2, column 4: 'inf' is not a time"]),
    (HEADER + "leave,1,5,1e39\n", ["'1e39' is out of range"]),
    (HEADER + "leave,1,1e-50,9\n", ["'1e-50' is out of range"]),
    (HEADER + "leave,1,1_0,99\n", ["'1_0' is not a time"]),
    (HEADER + "leave,1,3,9\nleave,0,5,5s\n", ["line 3, column 4: '5s' is not a time"]),
    (HEADER + "leave,1,5,5\n", ["line 2, column 4: '5' is not after the row's at; write a later time"]),
    (HEADER + "leave,1,3,9\ncrash,0,9,5\n", ["line 3, column 4: '5' is not after"]),
    (HEADER + "leave,1,16777216,16777216.5\n", ["is not after the row's at"]),  # which float32 does not tell apart
    (HEADER + "join,1,5,9\n", ["line 2, column 4: join has no end; let the worker leave later"]),
    (HEADER + "join,1,0,\n", ["line 2, column 3: '0': all are there at 0; take the row out"]),
    ("event,worker,at,patience\nleave,1,5,3\n", ["line 2, column 4: leave has no patience; leave the cell empty"]),
    ("event,worker,at,patience\ncrash,1,5,-3\n", ["'-3' is not a time"]),
    (HEADER + "leave,1,5,9\nleave,1,8,12\n", ["line 3: at 8 s worker 1 is away already, from 5 s until 9 s", "line 2"]),
    (HEADER + "leave,1,8,12\nleave,1,5,9\n", ["line 2: at 8 s worker 1 is away already, from 5 s until 9 s"]),
    (HEADER + "join,1,9,\nleave,1,8,\n", ["line 3: at 8 s worker 1 is away already, from 0 s until 9 s"]),
    (HEADER + "crash,1,5,\ncrash,1,5,\n", ["worker 1 is away already, from 5 s for ever"]),
    (HEADER + "".join(f"crash,{i},{i},\n" for i in range(4)), ["from 3 s on all 4 workers are away"]),
    (HEADER + "".join(f"join,{i},{i + 1},\n" for i in range(4)), ["from 0 s on all 4 workers are away"]),
    (HEADER + "".join(f"partition,{i},1,2\n" for i in range(4)), ["names all 4 workers has no other side"]),
    (HEADER + "partition,1,5,9\npartition,1,5,9\n", ["line 3: line 2 is of the same times and workers; keep one"]),
    (HEADER + "partition,,5,9\npartition,,5,9\n", ["line 3: line 2 is of the same times"]),
    (HEADER + "partition,1,5,9\npartition,,5,9\n", ["line 3: other rows of the same times name workers"]),
    (HEADER + "partition,1,9,5\n", ["'5' is not after"]),
    (HEADER.encode("utf-16"), ["is UTF-16"]),
    (HEADER.encode() + b"leave,\xff,5,9\n", ["not UTF-8"]),
    (HEADER + "leave,1\0,5,9\n", ["has zero bytes"]),
    (HEADER + 'leave,"1,5,9\n', ["line 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), BAD)
def test_a_file_that_cannot_be_is_one_line(write, text, parts):
    write("e.csv", text)
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        build_events([], 4, "e.csv")
    for part in parts:
        assert part in str(caught.value)


def test_what_is_no_file_is_one_line(write, tmp_path, capsys):
    for path in ("nowhere.csv", ".", "/dev/zero"):
        with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
            build_events([], 4, path)
        assert path in str(caught.value)
    write("e.csv", HEADER + "leave,7,5,9\n")
    words = ["--events", "e.csv", "--workers", "4", "--graph", "ring", "--dataset", "quadratic"]
    assert train.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: e.csv, line 2, column 2: '7' is not one of 4 workers; use 0 to 3\n"
    assert os.listdir(tmp_path) == ["e.csv"]


def test_a_file_and_words_are_merged(write):
    write("e.csv", HEADER + "leave,1,9,12\njoin,1,2,\nleave,2,1,3\npartition,3,5,9\n")
    found = build_events(["crash:worker=1,at=30,patience=2", "partition:at=1,until=4"], 4, "e.csv")
    never = [INF] * 3
    np.testing.assert_array_equal(found.away_from, [never, [0, 9, 30], [1, INF, INF], never])
    np.testing.assert_array_equal(found.away_until, [never, [2, 12, INF], [3, INF, INF], never])
    np.testing.assert_array_equal(found.patience, [[0] * 3, [0, 0, 2], [0] * 3, [0] * 3])
    np.testing.assert_array_equal(found.cut_from, [1, 5])
    np.testing.assert_array_equal(found.side, [[0, 0, 1, 1], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match="world 'crash:worker=1,at=10': at 10 s worker 1 is away already, from 9 s"):
        build_events(["crash:worker=1,at=10"], 4, "e.csv")
    # A crash of everybody, over words and file together; one that comes back in time leaves somebody there.
    write("e.csv", HEADER + "leave,1,9,12\ncrash,2,5,\n")
    crashes = ["crash:worker=0,at=1"]
    assert build_events(crashes, 4, "e.csv") is not None
    with pytest.raises(ValueError, match="from 9 s on all 4 workers are away"):
        build_events([*crashes, "crash:worker=3,at=8"], 4, "e.csv")
    assert build_events([*crashes, "crash:worker=3,at=12"], 4, "e.csv") is not None
    back = build_events([*crashes, "crash:worker=1,at=12"], 4, "e.csv")  # at the time of its return
    np.testing.assert_array_equal(back.away_from[1], [9, 12])


def test_workers_have_the_names_of_the_other_files(write):
    write("g.csv", "from,to\nnode10,node2\nnode2,node1\n")
    write("t.csv", "node1,node2,node10\n1,2,3\n")
    write("e.csv", HEADER + "leave,node10,9,12\n")
    config = TrainConfig(policies=("full",), workers=3, delays="constant", seconds=5.0, seeds=1, events="e.csv")
    for change in ({"graph": "from_file:path=g.csv"}, {"graph": "ring", "delays": "trace:path=t.csv"}):
        (problem,) = problems(of_seeds(dataclasses.replace(config, **change)), clocks_only=True)
        np.testing.assert_array_equal(problem.worlds.tree.events.away_from, [[INF], [INF], [9]])
    ours = compare_clocks_refused("full", "ring", "constant", workers=3, seconds=5.0, events="e.csv")
    assert "'node10' is not one of 3 workers; use 0 to 2" in ours
    write("e.csv", HEADER + "leave,2,9,12\n")
    ours = compare_clocks_refused("full", "from_file:path=g.csv", "constant", workers=3, seconds=5.0, events="e.csv")
    assert "'2' is no worker of the graph or trace ('node1', 'node2', 'node10')" in ours


def compare_clocks_refused(*args, **given):
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        compare_clocks(*args, **given)
    return str(caught.value)


def test_the_file_is_an_input_of_the_run(write):
    write("e.csv", HEADER + "leave,1,9,12\n")
    config = TrainConfig(delays="constant", graph="ring", events="e.csv")
    read = inputs.inputs([config], data=False)
    assert list(read) == ["e.csv"]
    kept = json.loads(json.dumps(read))
    inputs.require_same(kept, inputs.inputs([config], data=False), "RUN", "or run it anew")
    write("e.csv", HEADER + "leave,1,9,13\n")
    with pytest.raises(ValueError, match="e.csv has changed since RUN was begun"):
        inputs.require_same(kept, inputs.inputs([config], data=False), "RUN", "or run it anew")


def test_a_file_is_an_axis_of_a_sweep(write):
    from dbwjax.cli import sweep
    from dbwjax.experiments.sweep.config import worlds

    write("a.csv", HEADER + "leave,1,9,12\n")
    write("b.csv", HEADER + "leave,1,9,12\nleave,1,20,22\n")
    words = [
        "--policies",
        "full",
        "--set",
        "events=a.csv,b.csv",
        "--workers",
        "4",
        "--graphs",
        "ring",
        "--delays",
        "constant",
    ]
    config, *_ = sweep.parse([*words, "--seconds", "9", "--timing-only", "--seeds", "1"])
    (problem,) = problems(worlds(config), clocks_only=True)  # padded, so that they are one batch
    np.testing.assert_array_equal(problem.worlds.tree.events.away_from[:, 1], [[9, INF], [9, 20]])
    assert [one.values["events"] for one in problem.told] == ["a.csv", "b.csv"]


def test_a_million_rows_are_read_in_seconds(write):
    rows, workers = 1_000_000, 1000
    at = np.arange(rows) // workers
    write("e.csv", HEADER + "".join(f"leave,{i % workers},{at[i]}.{i % 2}5,{at[i]}.{i % 2}75\n" for i in range(rows)))
    begin = time.process_time()
    found = build_events([], workers, "e.csv")
    assert time.process_time() - begin < 10
    assert found.away_from.shape == (1000, 1000)
    np.testing.assert_array_equal(found.away_from[3], np.float32(np.arange(1000) + 0.15))
    np.testing.assert_array_equal(found.away_until[998], np.float32(np.arange(1000) + 0.075))


def test_absences_for_which_there_is_no_room(write, monkeypatch):
    from dbwjax import limits

    monkeypatch.setattr(limits, "host_bytes", lambda: 32 << 20)
    write("e.csv", HEADER + "".join(f"leave,0,{i}.25,{i}.75\n" for i in range(2000)))
    with pytest.raises(ValueError, match="absences of one worker=2000 needs about"):
        build_events([], 1000, "e.csv")


CELLS = st.sampled_from(["leave", "crash", "join", "partition", "0", "3", "9", "", "-1", "nan", "x", '"', "1e400", "5"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=5).map(",".join), max_size=5))
def test_any_table_is_read_or_refused_in_one_line(tmp_path, rows):
    path = tmp_path / "any.csv"
    path.write_text("\n".join(["event,worker,at,until", *rows]))
    try:
        found = build_events([], 10, str(path))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert (np.diff(np.nan_to_num(np.asarray(found.away_from), posinf=1e30)) >= 0).all()
    assert (np.asarray(found.away_until) >= np.asarray(found.away_from)).all()


@given(st.lists(st.floats(0, 1e30).map(repr), max_size=6), st.sampled_from([1.0, 1e3]))
@settings(max_examples=100, deadline=None)
def test_many_times_are_read_as_one_by_one(cells, second):
    try:
        expected = [tables.time("", cell, second) for cell in cells]
    except ValueError:
        with pytest.raises(ValueError, match="in range|out of range"):
            tables.times(cells, second)
        return
    assert tables.times(cells, second).tolist() == expected
