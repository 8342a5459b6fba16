"""Traces and graphs from files: what a file says is kept or refused, and never misread. One row a case."""

from __future__ import annotations

import json
import os

import jax
import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbwjax import build_delays, build_graph, build_policy, train_policy
from dbwjax.cli import sweep, train
from dbwjax.engine import clock
from dbwjax.engine.simulate import World
from dbwjax.engine.timeline import timeline
from dbwjax.network import graphs, tables
from dbwjax.network.node_names import names_of
from dbwjax.network.numbering import natural, number
from dbwjax.network.once import once
from dbwjax.network.trace_files import read_trace
from dbwjax.report.network import GraphPicture, draw_graph


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files into the working directory, as text or as bytes."""
    monkeypatch.chdir(tmp_path)

    def to(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return to


def refused(call, *parts):
    """The one line that a call is refused with; it has all of the parts in it."""
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


# Traces: text, workers, settings, the times [computation][worker], and the workers' names.
TRACES = [
    ("1,2\n3,4\n", 2, "", [[1, 2], [3, 4]], None),
    ("1,2\r\n3,4\r\n", 2, "", [[1, 2], [3, 4]], None),
    ("1,2\r3,4", 2, "", [[1, 2], [3, 4]], None),
    (" 1 , 2\n\n3,4\n  \n", 2, "", [[1, 2], [3, 4]], None),
    ('"1","2"\n', 2, "", [[1, 2]], None),
    (b"\xef\xbb\xbf1,2\n3,4\n", 2, "", [[1, 2], [3, 4]], None),
    (b"\xef\xbb\xbfa,b\n3,4\n", 2, "", [[3, 4]], ("a", "b")),
    ("+1e-3,2.5E+2,1e1\n", 3, "", [[0.001, 250, 10]], None),
    ("a,b\n1,2\n", 2, "", [[1, 2]], ("a", "b")),
    ("_a,é\n1,2\n", 2, "", [[1, 2]], ("_a", "é")),
    ("b,a\n1,2\n", 2, "", [[2, 1]], ("a", "b")),
    ("w10,w2\n1,2\n", 2, "", [[2, 1]], ("w2", "w10")),
    ("b,a\n1,2\n", 2, "columns=order", [[1, 2]], ("b", "a")),
    ("b,a,c\n1,2,x\n", 2, "columns=first", [[2, 1]], ("a", "b")),
    ("b,a,c\n1,2,x\n", 2, "columns=first+order", [[1, 2]], ("b", "a")),
    ("1,2,x\n", 2, "columns=first", [[1, 2]], None),
    ("0,1\n3,4\n", 2, "", [[0, 1], [3, 4]], None),  # two columns are data
    ("0,1,2\n3,4,5\n", 3, "header=yes", [[3, 4, 5]], ("0", "1", "2")),
    ("0,1,2\n3,4,5\n", 3, "header=no", [[0, 1, 2], [3, 4, 5]], None),
    ("1,2,3\n3,4,5\n", 3, "header=no", [[1, 2, 3], [3, 4, 5]], None),
    ("1,2,3\n3,4,5\n", 3, "header=yes", [[3, 4, 5]], ("1", "2", "3")),
    ("2,1,0\n3,4,5\n", 3, "header=yes", [[5, 4, 3]], ("0", "1", "2")),
    ("1,2,4\n3,4,5\n", 3, "", [[1, 2, 4], [3, 4, 5]], None),
    ("1.0,2.0,3.0\n", 3, "", [[1, 2, 3]], None),
    ("w0_ms,w1_ms\n1500,2\n", 2, "", [[1.5, 0.002]], ("w0", "w1")),
    ("w0 (us),w1 (us)\n1500,2\n", 2, "", [[0.0015, 2e-6]], ("w0", "w1")),
    ("w0_ms,w1_s\n1500,2\n", 2, "", [[1.5, 2]], ("w0", "w1")),
    ("a,b\n1500,2\n", 2, "unit=ms", [[1.5, 0.002]], ("a", "b")),
    ("1500,2\n", 2, "unit=us", [[0.0015, 2e-6]], None),
    ("w0_ms,w1_ms\n1500,2\n", 2, "unit=ms", [[1.5, 0.002]], ("w0", "w1")),
    ("gpu_us,gpu_eu\n1,2\n", 2, "unit=s", [[2, 1]], ("gpu_eu", "gpu_us")),
    ("step,worker,seconds\n0,0,1\n0,1,2\n1,0,3\n1,1,4\n", 2, "", [[1, 2], [3, 4]], ("0", "1")),
    ("Worker,Seconds,Step\nb,1,5\na,2,5\nb,3,6\na,4,6\n", 2, "", [[2, 1], [4, 3]], ("a", "b")),
    ("step,worker,seconds_ms\n10,b,1\n20,b,3\n10,a,2\n20,a,4\n", 2, "", [[0.002, 0.001], [0.004, 0.003]], ("a", "b")),
    ("step,worker,seconds\n0,b,1\n0,a,2\n", 2, "columns=order,unit=us", [[1e-6, 2e-6]], ("b", "a")),
    ("step,worker,seconds\n0,b,1\n0,a,2\n0,c,9\n", 2, "columns=first", [[2, 1]], ("a", "b")),
]


@pytest.mark.parametrize(("text", "workers", "words", "expected", "names"), TRACES)
def test_a_trace_is_what_the_file_says(write, text, workers, words, expected, names):
    write("t.csv", text)
    model = build_delays(f"trace:path=t.csv,{words}", workers)
    found = [[float(model(jax.random.key(0), w, n)) for w in range(workers)] for n in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    settings_ = dict(word.split("=") for word in words.split(",") if word)
    assert read_trace(workers, path="t.csv", **settings_).names == names


# Text, workers, settings, and what the refusal says.
BAD_TRACES = [
    ("1s,2\n3,4\n", 2, "", ["line 1, column 1: '1s' is not a time"]),
    (",2\n3,4\n", 2, "", ["line 1, column 1: '' is not a time"]),
    (",w0,w1\n0,1,2\n", 3, "", ["line 1, column 1: '' is not a time", "to_csv(index=False)"]),  # DataFrame.to_csv()
    (",w0,w1\n0,1,2\n", 2, "", ["3 columns, and there are 2 workers"]),
    ("NA,NaN\n1,2\n", 2, "", ["line 1, column 1: 'NA' is not a time"]),
    ("nan,a\n1,2\n", 2, "", ["'nan' is not a time"]),
    ("inf,inf\n1,2\n", 2, "", ["'inf' is not a time"]),
    ("null,None\n1,2\n", 2, "", ["'null' is not a time"]),
    ("a,1\n1,2\n", 2, "", ["line 1, column 1: 'a' is not a time"]),
    ("a,b\na,b\n1,2\n", 2, "", ["line 2, column 1: 'a' is not a time"]),
    ("1,2\n1_000,2\n", 2, "", ["line 2, column 1: '1_000' is not a time"]),
    ('1,2\n"1,000",2\n', 2, "", ["'1,000' is not a time"]),
    ("1,٣\n", 2, "", ["line 1, column 2: '٣' is not a time"]),
    ("1,\uff12\n", 2, "", ["'\uff12' is not a time"]),
    ("1,\xa02\n", 2, "", ["is not a time"]),
    ("1,.5\n", 2, "", ["'.5' is not a time"]),
    ("1,5.\n", 2, "", ["'5.' is not a time"]),
    ('1, "2"\n', 2, "", ["'\"2\"' is not a time"]),
    ("1,0x10\n", 2, "", ["'0x10' is not a time"]),
    ("1,1e\n", 2, "", ["'1e' is not a time"]),
    ("1,--1\n", 2, "", ["'--1' is not a time"]),
    ("1,infinity\n", 2, "", ["'infinity' is not a time"]),
    ("1,-2\n", 2, "", ["'-2' is not a time"]),
    ("1,1e-46\n", 2, "", ["'1e-46' is out of range"]),
    ("1,1e-999\n", 2, "", ["'1e-999' is out of range"]),
    ("1,1e39\n", 2, "", ["'1e39' is out of range"]),
    ("1,1e999\n", 2, "", ["'1e999' is out of range"]),
    ("1,1e-37\n", 2, "unit=ms", ["'1e-37' is out of range"]),
    ("1,2\n3\n", 2, "", ["line 2 has 1 columns, line 1 has 2"]),
    ("1,2\n3,4,5\n", 2, "", ["line 2 has 3 columns, line 1 has 2"]),
    ("1,2\n,\n", 2, "", ["line 2, column 1: ''"]),
    ('1\n""\n2\n', 1, "", ["line 2, column 1: ''"]),  # pandas writes a missing value of a single column so
    ("1;2\n3;4\n", 2, "", ["separated by ';'"]),
    ("w0;w1\n1;2\n", 1, "", ["separated by ';'"]),
    ("0,5;1\n", 2, "", ["separated by ';'"]),
    ("1\t2\n", 2, "", ["separated by tabs"]),
    ("1,2\n1\t2,3\n", 2, "", ["separated by tabs"]),
    ("1,2\n".encode("utf-16"), 2, "", ["is UTF-16"]),
    ("1,2\n".encode("utf-16-le"), 2, "", ["UTF-16"]),
    ("1,2\n".encode("utf-32"), 2, "", ["UTF-16"]),
    (b"1,2\n\xff,2\n", 2, "", ["line 2: not UTF-8"]),
    (b"\xef\xbb\xbf\xef\xbb\xbf1,2\n", 2, "", [r"'\ufeff1' is not a time"]),
    ('1,2\n"3,4\n', 2, "", ["line 2"]),
    ('1,2\n3,"4"5\n', 2, "", ["line 2"]),
    ("0,1,2\n3,4,5\n", 3, "", ["line 1: '0,1,2' may be a header or data; add header=yes or header=no"]),
    ("1,2,3,4\n3,4,5,6\n", 4, "", ["header=yes or header=no"]),
    ('"0","1","2"\n3,4,5\n', 3, "", ["header=yes or header=no"]),
    ("00,01,02\n3,4,5\n", 3, "", ["header=yes or header=no"]),
    ("0,1,2\n3,4,5\n", 2, "columns=first", ["header=yes or header=no"]),
    ("1,2,3\n", 10, "", ["line 1 has 3 columns; 10 workers need 10"]),
    ("a,,b\n1,2,3\n", 3, "header=yes", ["line 1, column 2: the header has an empty cell"]),
    ("a,a\n1,2\n", 2, "", ["column 2: 'a' is named twice"]),
    ("a,a_ms\n1,2\n", 2, "", ["'a_ms' ends in a unit and 'a' does not", "add unit="]),
    ("a_us,b_us\n1,2\n", 2, "unit=ms", ["another unit than unit=ms"]),
    ("01,1\n1,2\n", 2, "header=yes", ["'01' and '1' differ in leading zeros alone"]),
    ("0,00\n1,2\n", 2, "header=yes", ["leading zeros"]),
    ("a1,a01\n1,2\n", 2, "", ["leading zeros"]),
    ("1.5,2.5\n1,2\n", 2, "header=yes", ["'1.5' is no name of a worker"]),
    ("-1,0\n1,2\n", 2, "header=yes", ["'-1' is no name"]),
    ("step,w0,w1\n0,1,2\n", 3, "", ["column 1: 'step' is no worker's column"]),
    ("step,w0,w1\n0,1,2\n", 2, "", ["3 columns, and there are 2 workers", "'step' is no worker's"]),
    ("timestamp,w0\n0,1\n", 2, "", ["'timestamp' is no worker's column"]),
    ("w0,Time\n0,1\n", 2, "", ["'Time' is no worker's column"]),
    ("step,w0,w1\n0,1,2\n", 2, "columns=first", ["'step' is no worker's column"]),
    ("Unnamed: 0,w0\n0,1\n", 2, "", ["'Unnamed: 0' is no worker's column"]),
    ("a,b,c\n1,2,3\n", 2, "", ["3 columns, and there are 2 workers", "columns=first"]),
    ("a\n1\n", 2, "", ["line 1 has 1 columns; 2 workers need 2"]),
    ("0,0\n", 2, "", ["every time of column 1 is 0"]),
    ("b,a\n1,0\n", 2, "", ["every time of worker 'a' is 0"]),
    ("a,b\n", 2, "", ["has no rows"]),
    ("", 2, "", ["has no rows"]),
    ("\n \n", 2, "", ["has no rows"]),
    ("step,worker,seconds\n", 2, "", ["has no rows"]),
    ("step,worker,seconds\n0,0,1\n0,1,2\n1,0,3\n", 2, "", ["step 1 of worker '1' is missing"]),
    ("step,worker,seconds\n0,0,1\n0,1,2\n0,1,2\n", 2, "", ["line 4: step 0 of worker '1' is given twice"]),
    ("step,worker,seconds\n0,0,1\n1,0,2\n3,0,2\n", 1, "", ["step 2 is missing"]),
    ("step,worker,seconds\n0.0,0,1\n", 1, "", ["'0.0' is not a step"]),
    ("step,worker,seconds\n0,0,1s\n", 1, "", ["line 2, column 3: '1s' is not a time"]),
    ("step,worker,seconds\n0,NaN,1\n", 1, "", ["'NaN' is no name"]),
    ("step,worker,seconds,host\n0,0,1,x\n", 1, "", ["'host' is not known", "take it out"]),
    ("worker,seconds\n0,1\n", 1, "", ["no column step"]),
    ("step,worker,seconds,seconds_ms\n0,0,1,1\n", 1, "", ["'seconds' and 'seconds_ms' are the same"]),
    ("step,worker,seconds_ms\n0,0,1\n", 1, "unit=s", ["another unit"]),
    ("step,worker,seconds\n0,a,1\n0,b,1\n", 1, "", ["2 workers ('a', 'b'), and there are 1"]),
    ("step,worker,seconds\n0,a,1\n", 2, "", ["1 workers ('a'); 2 are needed"]),
    ("a,b\n1,2\n", 2, "columns=second", ["is not a choice"]),
    ("a,b\n1,2\n", 2, "header=maybe", ["is not a choice"]),
    ("a,b\n1,2\n", 2, "unit=minutes", ["is not a choice"]),
    ("a,b\n1," + "9" * 100_000 + "x\n", 2, "", ["is not a time"]),
    ("a,b\n1," + "9" * 200_000 + "\n", 2, "", ["field larger"]),
    ("a,b\n1,2\x07\n", 2, "", [r"'2\x07' is not a time"]),
]


@pytest.mark.parametrize(("text", "workers", "words", "parts"), BAD_TRACES)
def test_a_trace_that_is_none_is_one_line(write, text, workers, words, parts):
    write("t.csv", text)
    said = refused(lambda: build_delays(f"trace:path=t.csv,{words}", workers), *parts)
    assert len(said) < 400
    assert said.isprintable()


def links_of(graph):
    """`{(sender, receiver): latency}`."""
    graph = jax.device_get(graph)
    return {
        (int(sender), receiver): float(latency)
        for receiver, row in enumerate(graph.neighbours)
        for sender, kept, latency in zip(row, graph.links[receiver], graph.latency[receiver], strict=True)
        if kept
    }


def both(links):
    return {one: value for (i, j), value in links.items() for one in ((i, j), (j, i))}


PATH = both({(0, 1): 0, (1, 2): 0})
XML = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="d0" for="edge" attr.name="{name}" attr.type="double">{default}</key>
<key id="d1" for="node" attr.name="x" attr.type="double"/>
<graph edgedefault="{kind}"><node id="a"><data key="d1">3</data></node><node id="b"/>{edges}</graph></graphml>"""


def graphml(edges, kind="undirected", name="latency", default=""):
    shown = "".join(
        f'<edge id="e{n}" source="{source}" target="{target}">'
        + (f'<data key="d0">{value}</data>' if value is not None else "")
        + "</edge>"
        for n, (source, target, value) in enumerate(edges)
    )
    return XML.format(edges=shown, kind=kind, name=name, default=default)


def gml(edges, directed=0, labels=("a", "b"), name="latency", more=""):
    named = ["" if label is None else f'label "{label}"' for label in labels]
    nodes = "".join(f"node [ id {n} {label} ]\n" for n, label in enumerate(named))
    shown = "".join(
        f"edge [ source {i} target {j} {'' if value is None else f'{name} {value}'} ]\n" for i, j, value in edges
    )
    return f"graph [ directed {directed}\n{more}{nodes}{shown}]\n"


# File, text, workers, settings, latency by (sender, receiver).
GRAPHS = [
    ("g.csv", "0,1\n1,2\n", 3, "", PATH),
    ("g.CSV", "0,1\r\n1,2\r\n", 3, "", PATH),
    ("g.csv", b"\xef\xbb\xbf0,1\n1,2\n2,3\n3,0\n", 4, "", both({(0, 1): 0, (1, 2): 0, (2, 3): 0, (3, 0): 0})),
    ("g.csv", "0,1\n1,0\n0,1\n1,2\n", 3, "", PATH),
    ("g.csv", "0,1,0.5\n", 2, "", both({(0, 1): 0.5})),
    ("g.csv", "0,1,0.5\n1,0,0.1\n", 2, "", {(0, 1): 0.5, (1, 0): 0.1}),
    ("g.csv", "1,0,0.1\n0,1,0.5\n", 2, "", {(0, 1): 0.5, (1, 0): 0.1}),
    ("g.csv", "source,target\n0,1\n1,2\n", 3, "", PATH),
    ("g.csv", "From,TO,Seconds\n0,1,0.5\n", 2, "", both({(0, 1): 0.5})),
    ("g.csv", "latency,receiver,sender\n0.5,1,0\n0.1,0,1\n", 2, "", {(0, 1): 0.5, (1, 0): 0.1}),
    ("g.csv", "source,target,latency_ms\n0,1,500\n", 2, "", both({(0, 1): 0.5})),
    ("g.csv", "source,target,seconds_us\n0,1,500\n", 2, "", both({(0, 1): 0.0005})),
    ("g.csv", "source,target,latency (ms)\n0,1,500\n", 2, "", both({(0, 1): 0.5})),
    ("g.csv", "source,target,latency\n0,1,500\n", 2, "unit=ms", both({(0, 1): 0.5})),
    ("g.csv", "0,1,500\n", 2, "unit=us", both({(0, 1): 0.0005})),
    ("g.csv", "a,b\nb,c\n", 3, "header=no", PATH),
    ("g.csv", "source,target\nn2,n10\nn10,n1\n", 3, "", both({(1, 2): 0, (2, 0): 0})),
    ("g.csv", "1,2\n2,3\n", 3, "", PATH),  # numbered from 1
    ("g.csv", "01,02\n02,10\n", 3, "", PATH),
    ("g.csv", "0,1,1\n1,2,1\n2,0,1\n", 3, "directed=true", {(0, 1): 1, (1, 2): 1, (2, 0): 1}),
    ("g.csv", "0,1,1\n1,2,1\n2,0,1\n", 3, "undirected=false", {(0, 1): 1, (1, 2): 1, (2, 0): 1}),
    ("g.csv", "0,1,1\n1,2,1\n2,0,1\n", 3, "undirected=true", both({(0, 1): 1, (1, 2): 1, (2, 0): 1})),
    ("g.csv", "0,1,1\n1,0,2\n", 2, "directed=true", {(0, 1): 1, (1, 0): 2}),
    ("g.csv", "0,1,1\n1,0,2\n", 2, "directed=false", {(0, 1): 1, (1, 0): 2}),
    ("g.edgelist", "# by hand\n0 1\n1 2  # and here\n", 3, "", PATH),
    ("g.edgelist", "0 1 0.5\n1 2 0.1\n", 3, "", both({(0, 1): 0.5, (1, 2): 0.1})),
    ("g.edgelist", "0\t1\t0.5\n", 2, "", both({(0, 1): 0.5})),
    ("g.edgelist", "0 1 {}\n1 2 {}\n", 3, "", PATH),
    ("g.edgelist", "0 1 {'latency': 0.5}\n1 0 {'latency': 0.1}\n", 2, "", {(0, 1): 0.5, (1, 0): 0.1}),
    ("g.edgelist", "0 1 {'latency_ms': '500'}\n", 2, "", both({(0, 1): 0.5})),
    ("g.edgelist", "source target latency\n0 1 0.5\n", 2, "", both({(0, 1): 0.5})),
    ("g.edgelist", "alice bob {}\n", 2, "", both({(0, 1): 0})),
    ("g.adjlist", "# by networkx\n0 1 2\n1 2\n2\n", 3, "", both({(0, 1): 0, (0, 2): 0, (1, 2): 0})),
    ("g.adjlist", "0 1\n1 2\n2 0\n", 3, "directed=true", {(0, 1): 0, (1, 2): 0, (2, 0): 0}),
    ("g.graphml", graphml([("a", "b", 0.5)]), 2, "", both({(0, 1): 0.5})),
    ("g.graphml", '<?xml version="1.0" encoding="utf-8"?>' + graphml([("a", "b", 1)]), 2, "", both({(0, 1): 1})),
    ("g.graphml", graphml([("a", "b", "500")], name="latency_ms"), 2, "", both({(0, 1): 0.5})),
    ("g.graphml", graphml([("a", "b", 500)]), 2, "unit=ms", both({(0, 1): 0.5})),
    ("g.graphml", graphml([("a", "b", 0.5), ("b", "a", 0.1)], "directed"), 2, "", {(0, 1): 0.5, (1, 0): 0.1}),
    ("g.graphml", graphml([("a", "b", None)], default="<default>0.5</default>"), 2, "", both({(0, 1): 0.5})),
    ("g.graphml", graphml([("a", "b", 0.5)], "directed"), 2, "undirected=true", both({(0, 1): 0.5})),
    ("g.graphml", graphml([("a", "b", None)]).replace(' xmlns="', ' x="'), 2, "", both({(0, 1): 0})),
    ("g.gml", gml([(0, 1, 0.5)]), 2, "", both({(0, 1): 0.5})),
    ("g.gml", gml([(1, 0, 1)], labels=(None, None)), 2, "", both({(0, 1): 1})),
    ("g.gml", gml([(0, 1, 0.5), (1, 0, 0.1)], 1), 2, "", {(0, 1): 0.5, (1, 0): 0.1}),
    ("g.gml", gml([(0, 1, 0.5), (1, 0, 0.1)], 1, ("b", "a")), 2, "", {(1, 0): 0.5, (0, 1): 0.1}),
    ("g.gml", gml([(0, 1, 0.5)], 1), 2, "undirected=true", both({(0, 1): 0.5})),
    ("g.gml", gml([(0, 1, 500)]), 2, "unit=ms", both({(0, 1): 0.5})),
]


@pytest.mark.parametrize(("name", "text", "workers", "words", "expected"), GRAPHS)
def test_a_graph_is_what_the_file_says(write, name, text, workers, words, expected):
    write(name, text)
    found = links_of(build_graph(f"from_file:path={name},{words}", workers))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[ends] for ends in expected], list(expected.values()), rtol=1e-6)


BAD_GRAPHS = [
    ("g.csv", "1s,0\n0,1\n", 2, "", ["names 3 workers ('1s', '0', '1')"]),
    ("g.csv", ",0\n0,1\n", 2, "", ["line 1, column 1: '' is no name"]),
    ("g.csv", ",source,target\n0,0,1\n", 2, "", ["line 1, column 1: ''", "to_csv(index=False)"]),  # DataFrame.to_csv()
    ("g.csv", "index,source,target\n0,0,1\n", 2, "", ["column 'index' is not known; take it out"]),
    ("g.csv", "source,target,weight\n0,1,2\n", 2, "", ["column 'weight' is not known"]),
    ("g.csv", "source,target,latency_min\n0,1,2\n", 2, "", ["column 'latency_min' is not known"]),
    ("g.csv", "source,target,bandwidth_ms\n0,1,2\n", 2, "", ["column 'bandwidth_ms' is not known"]),
    ("g.csv", "source,target_ms\n0,1\n", 2, "", ["column 'target_ms' is not known"]),
    ("g.csv", "alice,bob\nbob,carol\n", 3, "", ["column 'alice' is not known", "if it is a link, add header=no"]),
    ("g.csv", "source,from\n0,1\n", 2, "", ["'source' and 'from' are the same"]),
    ("g.csv", "source,latency\n0,1\n", 2, "", ["no column is named target or to or receiver"]),
    ("g.csv", "source,target,latency,seconds_ms\n0,1,1,1\n", 2, "", ["'latency' and 'seconds_ms' are the same"]),
    ("g.csv", "source,target,latency\n0,1,\n", 2, "", ["line 2, column 3: '' is not a time"]),
    ("g.csv", "source,target,latency\n0,1,nan\n", 2, "", ["'nan' is not a time"]),
    ("g.csv", "source,target,bandwidth\n0,1,0\n", 2, "", ["'0' is not a bandwidth"]),
    ("g.csv", "source,target,bandwidth\n0,1,inf\n", 2, "", ["'inf' is not a bandwidth"]),
    ("g.csv", "source,target,bandwidth\n0,1,1e-300\n", 2, "", ["'1e-300' is not a bandwidth"]),
    ("g.csv", "0,1,1e-46\n", 2, "", ["'1e-46' is out of range"]),
    ("g.csv", "0,1,1_0\n", 2, "", ["'1_0' is not a time"]),
    ("g.csv", "0,1,2,3\n", 2, "", ["'0,1,2,3' is not a link"]),
    ("g.csv", "0\n", 2, "", ["'0' is not a link"]),
    ("g.csv", "0,1,0.5\n1,2\n", 3, "", ["line 2 has 2 columns, line 1 has 3"]),
    ("g.csv", "0,1,0.5\n0,1,0.4\n", 2, "", ["line 2: the link 0 to 1 is given twice with two values"]),
    ("g.csv", "0,1,0.5\n1,0,0.1\n1,0,0.5\n", 2, "", ["line 3: the link 1 to 0 is given twice"]),
    ("g.csv", "0,1\n1,5\n", 4, "", ["node 5 is not one of 4 workers"]),
    ("g.csv", "0,1\n1,-1\n", 3, "", ["line 2, column 2: '-1' is no name"]),
    ("g.csv", "0.0,1.0\n", 2, "", ["'0.0' is no name of a worker"]),
    ("g.csv", "0,NaN\n", 2, "", ["'NaN' is no name"]),
    ("g.csv", "0,1\n1,01\n", 3, "", ["leading zeros"]),
    ("g.csv", "0,1\n1,00\n", 3, "", ["leading zeros"]),
    ("g.csv", "0;1\n1;2\n", 3, "", ["separated by ';'"]),
    ("g.csv", "source;target\n1;2\n", 3, "", ["separated by ';'"]),
    ("g.csv", "0\t1\n1\t2\n", 3, "", ["separated by tabs"]),
    ("g.csv", "0,1\n1\t,2\n", 3, "", ["separate by commas"]),
    ("g.csv", "0,1\n1,2\n".encode("utf-16"), 3, "", ["UTF-16"]),
    ("g.csv", "0,1\n2,3\n", 4, "", ["in 2 pieces: node 2 cannot reach node 0"]),
    ("g.csv", "source,target\na,b\nc,d\n", 4, "", ["in 2 pieces: node c cannot reach node a"]),
    ("g.csv", "0,1\n1,2\n", 3, "directed=true", ["not from every node to every other", "undirected=true"]),
    ("g.csv", "0,1\n", 2, "directed=true,undirected=true", ["contradict each other"]),
    ("g.csv", "0,1\n", 2, "unit=ms", ["unit=ms changes nothing"]),
    ("g.csv", "source,target,latency_us\n0,1,1\n", 2, "unit=ms", ["another unit than unit=ms"]),
    ("g.csv", "0,1\n", 2, "directed=perhaps", ["is not a choice"]),
    ("g.csv", "0,1\n1,1\n", 2, "", ["line 2: node 1 is linked to itself"]),
    ("g.csv", "", 2, "", ["in 2 pieces"]),
    ("g.edgelist", "0 1 {'weight': 0.5}\n", 2, "", ["attribute 'weight' is not known"]),
    ("g.edgelist", "0 1 {'latency': 1_0}\n", 2, "", ["'1_0' is not a time"]),
    ("g.edgelist", "0 1 {'latency': 1, 'latency': 2}\n", 2, "", ["cannot be read as attributes"]),
    ("g.edgelist", "0 1 {'latency': __import__('os')}\n", 2, "", ["is not a time"]),
    ("g.edgelist", "0 1 {'a': " + "[" * 900 + "}\n", 2, "", ["cannot be read as attributes"]),
    ("g.edgelist", "0 1 {'latency': 1\n", 2, "", ["cannot be read as attributes"]),
    ("g.edgelist", "0 1 2 3\n", 2, "", ["is not a link"]),
    ("g.edgelist", "a b\nb c\n", 3, "", ["column 'a' is not known", "header=no"]),
    ("g.edgelist", "source target weight\n0 1 2\n", 2, "", ["column 'weight' is not known"]),
    ("g.adjlist", "0 1\n", 2, "header=yes", ["has no header"]),
    ("g.adjlist", "0 1\n", 2, "unit=ms", ["changes nothing"]),
    ("g.graphml", graphml([("a", "b", 1)], name="weight"), 2, "", ["attribute 'weight' is not known"]),
    ("g.graphml", graphml([("a", "b", "1_0")]), 2, "", ["'1_0' is not a time"]),
    ("g.graphml", graphml([("a", "b", "NaN")]), 2, "", ["'NaN' is not a time"]),
    ("g.graphml", graphml([("a", "b", "")]), 2, "", ["'' is not a time"]),
    ("g.graphml", graphml([("a", "b", 1), ("b", "a", 2)]), 2, "", ["edge 2: the link", "two values"]),
    ("g.graphml", graphml([("a", "b", 1), ("b", "a", None)], "directed"), 2, "", ["edge 2", "has no latency"]),
    ("g.graphml", graphml([("a", "c", 1)]), 2, "", ["'c' is not one of the nodes"]),
    ("g.graphml", graphml([("a", "b", 1)], "mixed"), 2, "", ["edgedefault is 'mixed'"]),
    ("g.graphml", graphml([("a", "b", 1)]).replace("<edge ", '<edge directed="true" ', 1), 2, "directed=true", []),
    ("g.graphml", graphml([("a", "b", 1)], "directed"), 2, "", ["not from every node to every other"]),
    ("g.graphml", graphml([("a", "b", 1)]), 2, "directed=true", ["says that its links are undirected"]),
    ("g.graphml", graphml([("a", "b", 1)]), 2, "header=no", ["has no header"]),
    ("g.graphml", graphml([("a", "a", 1), ("a", "b", 1)]), 2, "", ["linked to itself"]),
    ("g.graphml", graphml([("a", "b", 1)]).replace("</graph>", "<hyperedge/></graph>"), 2, "", ["hyperedge"]),
    ("g.graphml", graphml([("a", "b", 1)]).replace("</graphml>", "<graph/></graphml>"), 2, "", ["2 graphs"]),
    ("g.graphml", graphml([("a", "b", 1)]).replace('id="b"', 'id="a"'), 2, "", ["two nodes have one id"]),
    ("g.graphml", "<!DOCTYPE x [<!ENTITY a 'b'>]>" + graphml([("a", "b", 1)]), 2, "", ["document type"]),
    ("g.graphml", '<?xml version="1.0" encoding="latin-1"?>' + graphml([("a", "b", 1)]), 2, "", ["not in UTF-8"]),
    ("g.graphml", "<graphml>", 2, "", ["cannot be read as .graphml"]),
    ("g.graphml", "", 2, "", ["cannot be read as .graphml"]),
    ("g.graphml", "<html/>", 2, "", ["0 graphs in 'html'"]),
    ("g.gml", gml([(0, 1, 0.5)], name="weight"), 2, "", ["attribute 'weight' is not known"]),
    ("g.gml", gml([(0, 1, "NAN")]), 2, "", ["'nan' is not a time"]),
    ("g.gml", gml([(0, 1, "[ a 1 ]")]), 2, "", ["is not a time"]),
    ("g.gml", gml([(0, 1, 0.5), (1, 0, 0.1)]), 2, "", ["cannot be read as .gml"]),
    ("g.gml", gml([(0, 1, 0.5), (1, 0, 0.1)], more="multigraph 1\n"), 2, "", ["two values"]),
    ("g.gml", gml([(0, 1, None)], labels=("a", "a")), 2, "", ["two nodes have one label"]),
    ("g.gml", gml([(0, 1, None)], labels=("a", None)), 2, "", ["some have none"]),
    ("g.gml", gml([(0, 1, None)]).replace('label "a"', "label [ x 1 ]"), 2, "", ["label is no name"]),
    ("g.gml", gml([(0, 1, None)]) * 2, 2, "", ["cannot be read as .gml"]),
    ("g.gml", "graph [" * 5000, 2, "", ["cannot be read as .gml"]),
    ("g.gml", "graph 1", 2, "", ["cannot be read as .gml"]),
    ("g.gexf", "", 2, "", ["ends in '.gexf'; use one of .csv"]),
    ("g", "0,1\n", 2, "", ["ends in ''"]),
]


@pytest.mark.parametrize(("name", "text", "workers", "words", "parts"), BAD_GRAPHS)
def test_a_graph_that_is_none_is_one_line(write, name, text, workers, words, parts):
    write(name, text)
    said = refused(lambda: build_graph(f"from_file:path={name},{words}", workers), *parts)
    assert len(said) < 400


@pytest.mark.parametrize("spec", ["graph", "delays"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "nul", "long"])
def test_what_is_no_file_is_refused_at_once(tmp_path, spec, kind):
    path = tmp_path / ("x" * 300 if kind == "long" else "a\0b.csv" if kind == "nul" else "a.csv")
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if spec == "graph":
        refused(lambda: graphs.from_file(2, path=f"{path}.csv" if kind == "long" else str(path)))
    else:
        refused(lambda: build_delays(f"trace:path={path}", 2))


def test_files_that_networkx_writes_are_read(tmp_path):
    oracle = nx.petersen_graph()
    for i, j in oracle.edges:
        oracle.edges[i, j]["latency"] = 0.25 + i + j / 16
    nx.write_graphml(oracle, tmp_path / "g.graphml")
    nx.write_gml(oracle, tmp_path / "g.gml")
    nx.write_edgelist(oracle, tmp_path / "g.edgelist")
    nx.write_weighted_edgelist(nx.Graph(oracle), tmp_path / "w.edgelist", "")
    directed = nx.DiGraph(oracle)
    for i, j in directed.edges:
        directed.edges[i, j]["latency"] = i + j / 16
    nx.write_graphml(directed, tmp_path / "d.graphml")
    nx.write_gml(directed, tmp_path / "d.gml")
    nx.write_edgelist(directed, tmp_path / "d.edgelist")
    for name, graph in (("g", oracle), ("d", directed)):
        expected = {(i, j): data["latency"] for i, j, data in nx.DiGraph(graph).edges(data=True)}
        for kind in ("graphml", "gml", "edgelist"):
            assert links_of(build_graph(f"from_file:path={tmp_path / name}.{kind}", 10)) == expected


# Graph and trace: their text, settings of the trace, and the names by number.
MATCHED = [
    ("source,target\na,b\n", "a,b\n1,2\n", "", ["a", "b"]),
    ("source,target\na,b\n", "b,a\n1,2\n", "", ["a", "b"]),
    ("0,1\n", "1,2\n", "", None),
    ("0,1\n", "0,1\n1,2\n", "header=yes", None),
    ("1,2\n", "1,2\n3,4\n", "header=yes", ["1", "2"]),
    ("0,1\n", "w0,w1\n1,2\n", "columns=order", ["w0", "w1"]),
    ("source,target\na,b\n", "y,x\n1,2\n", "columns=order", ["a", "b"]),
    ("source,target\na,b\n", "1,2\n", "columns=order", ["a", "b"]),
    ("source,target\nw0,w1\n", "w0,w1,w2\n1,2,3\n", "columns=first", ["w0", "w1"]),
    ("0,1\n", "step,worker,seconds\n0,0,1\n0,1,1\n", "", None),
    ("source,target\nn9,n10\n", "step,worker,seconds\n0,n10,1\n0,n9,1\n", "", ["n9", "n10"]),
    (None, "w10,w9\n1,2\n", "", ["w9", "w10"]),
    ("source,target\na,b\n", None, "", ["a", "b"]),
]
UNMATCHED = [
    ("0,1\n", "w0,w1\n1,2\n", "", ["names '0', '1', and trace t.csv does not", "columns=order"]),
    ("source,target\na,b\n", "a,c\n1,2\n", "", ["names 'b', and"]),
    ("source,target\na,b\n", "1,2\n", "", ["and trace t.csv does not", "columns=order"]),
    ("1,2\n", "1,2\n", "", ["trace t.csv does not"]),
    ("1,2\n", "0,1\n3,4\n", "header=yes", ["names '2', and"]),
    ("source,target\na,B\n", "a,b\n1,2\n", "", ["names 'B', and"]),
    ("source,target\né,a\n".encode(), "e\u0301,a\n1,2\n", "", ["names 'é', and"]),
]


def specs_of(write, graph, trace, words):
    for name, content in (("g.csv", graph), ("t.csv", trace)):
        if content is not None:
            write(name, content)
    return (
        "ring" if graph is None else "from_file:path=g.csv",
        "constant" if trace is None else f"constant:seconds=2 * trace:path=t.csv,{words}",
    )


@pytest.mark.parametrize(("graph", "trace", "words", "names"), MATCHED)
def test_names_of_trace_and_graph_are_matched(write, graph, trace, words, names):
    assert names_of(*specs_of(write, graph, trace, words), 2) == names


@pytest.mark.parametrize(("graph", "trace", "words", "parts"), UNMATCHED)
def test_names_that_only_one_of_them_has_are_an_error(write, graph, trace, words, parts):
    refused(lambda: names_of(*specs_of(write, graph, trace, words), 2), *parts)


def test_two_traces_name_the_same_workers(write):
    write("a.csv", "x,y\n1,2\n")
    write("b.csv", "y,x\n1,2\n")
    write("c.csv", "z,y\n1,2\n")
    assert names_of("ring", "trace:path=a.csv*trace:path=b.csv", 2) == ["x", "y"]
    refused(lambda: names_of("ring", "trace:path=a.csv*trace:path=c.csv", 2), "names 'x', and trace c.csv does not")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["worker10", "worker2"], ["worker2", "worker10"]),
        (["a10b2", "a10b10", "a9b3"], ["a9b3", "a10b2", "a10b10"]),
        (["10", "9", "x"], ["9", "10", "x"]),
        (["node" + "9" * 90, "node" + "8" * 90, "node1"], ["node1", "node" + "8" * 90, "node" + "9" * 90]),
        (["3", "1", "2"], ["1", "2", "3"]),
        (["2", "0", "1"], ["0", "1", "2"]),
        (["01", "02", "00"], ["00", "01", "02"]),
    ],
)
def test_numbering_is_natural(names, expected):
    assert sorted(number(names, len(names), "here").items(), key=lambda item: item[1]) == [
        (name, place) for place, name in enumerate(expected)
    ]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("ab01 9", min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
def test_numbering_is_one_to_one_and_does_not_depend_on_the_order(names):
    try:
        found = number(names, len(names), "here")
    except ValueError:
        assert len({tuple(natural(name)) for name in names}) < len(names)
        return
    assert sorted(found.values()) == sorted(set(found.values()))
    assert number(names[::-1], len(names), "here") == found


def iteration_length(spec, delays="constant", workers=2, graph="from_file:path=g.csv"):
    """Mean seconds of the last 20 of 40 iterations."""
    world = World(build_graph(graph, workers), build_delays(delays, workers), None, jax.random.key(0))
    policy = build_policy(spec)
    state = clock.init(policy, world.graph, world.delays, world.key)
    _, plans = timeline(policy, world, state, 40)
    return float(np.asarray(plans.duration, np.float64)[20:].mean())


@pytest.mark.parametrize("text", ["0,1,0.5\n1,0,0.1\n", "1,0,0.1\n0,1,0.5\n", "from,to,latency_ms\n1,0,100\n0,1,500\n"])
def test_latency_is_kept_by_direction(write, text):
    write("g.csv", text)
    assert iteration_length("full") == pytest.approx(1.5, rel=1e-5)
    assert iteration_length("full:barrier=neighbours") == pytest.approx(1.3, rel=1e-5)


DIRECTED = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 0)]


def write_directed(links):
    """The same graph as g.csv, g.graphml and g.gml; their SPECs."""
    (graph := nx.DiGraph()).add_edges_from(links)
    nx.write_graphml(graph, "g.graphml")
    nx.write_gml(graph, "g.gml")
    with open("g.csv", "w") as file:
        file.writelines(f"{i},{j}\n" for i, j in links)
    return ["from_file:path=g.csv,directed=true", "from_file:path=g.graphml", "from_file:path=g.gml"]


@pytest.mark.parametrize(
    ("policy", "fits"),
    [
        *[(spec, False) for spec in ("full", "full:barrier=neighbours", "dybw", "fastest:k=2", "deadline:seconds=1")],
        *[("dpsgd", False), ("dpsgd:barrier=global", False), ("backup:b=1", True), ("backup:b=0", True)],
    ],
)
def test_directed_graphs_are_for_policies_that_can_take_them(tmp_path, monkeypatch, policy, fits):
    monkeypatch.chdir(tmp_path)
    rule = build_policy(policy)
    for spec in write_directed(DIRECTED):
        graph = build_graph(spec, 4)
        assert set(links_of(graph)) == set(DIRECTED)
        if fits:
            rule.init(graph)
        else:
            refused(lambda graph=graph: rule.init(graph), "undirected=true")
        undirected = build_graph(f"{spec.removesuffix(',directed=true')},undirected=true", 4)
        assert set(links_of(undirected)) == set(both(dict.fromkeys(DIRECTED)))
        rule.init(undirected)
    # A directed file that holds every reverse counts as undirected.
    for spec in write_directed(list(both(dict.fromkeys(DIRECTED)))):
        rule.init(build_graph(spec, 4))


def test_a_directed_graph_runs(write, capsys):
    write("g.csv", "".join(f"{i},{j},0.5\n" for i, j in DIRECTED))
    spec = "from_file:path=g.csv,directed=true"
    assert iteration_length("backup:b=0", workers=4, graph=spec) == pytest.approx(1.5)
    words = ["--workers", "4", "--dataset", "quadratic", "--seeds", "1", "--rows", "2", "--no-progress", "--steps", "3"]
    assert train.main([*words, "--graph", spec, "--policies", "backup:b=1", "--out", "run"]) == 0
    assert train.main([*words, "--graph", spec, "--policies", "backup:b=1", "full", "--out", "not"]) == 2
    assert "undirected=true" in capsys.readouterr().err
    assert not os.path.exists("not")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.csv", "source,target,latency,bandwidth\n0,1,0.5,100\n1,0,0.1,400\n"),
        ("g.edgelist", "0 1 {'latency': 0.5, 'bandwidth': 100}\n1 0 {'latency': 0.1, 'bandwidth': 400}\n"),
        ("g.gml", gml([(0, 1, "0.5 bandwidth 100"), (1, 0, "0.1 bandwidth 400")], 1)),
    ],
)
def test_a_link_has_its_own_bandwidth(write, name, text):
    write(name, text)
    spec = f"from_file:path={name}"
    graph = build_graph(spec, 2, message_bytes=200)
    assert links_of(graph) == pytest.approx({(0, 1): 2.5, (1, 0): 0.6})
    assert links_of(build_graph(spec, 2, message_bytes=0)) == pytest.approx({(0, 1): 0.5, (1, 0): 0.1})
    linked = graphs.with_links(graphs.pad(graph, 4), latency=1, bandwidth=200, message_bytes=200)
    assert links_of(linked) == pytest.approx({(0, 1): 4.5, (1, 0): 2.6})
    refused(lambda: build_graph(spec, 2), "has bandwidths, and messages have no size", "message_bytes=")
    refused(lambda: build_graph(spec, 2, message_bytes=1e300), "is too large for float32")
    refused(lambda: build_graph(f"{spec},message_bytes=200", 2), "unknown key 'message_bytes'")


def test_a_file_is_read_once_as_long_as_it_stays_as_it_is(tmp_path):
    seen = []

    @once
    def read(workers, *, path, more=0):
        seen.append(path)
        return (workers, more)

    file = tmp_path / "a"
    file.write_text("1")
    for _ in range(3):
        assert read(2, path=str(file)) == (2, 0)
    assert read(3, path=str(file), more=1) == (3, 1)
    assert len(seen) == 2
    file.write_text("12")
    assert read(2, path=str(file)) == (2, 0)
    assert len(seen) == 3


def test_compare_gives_links_their_bandwidth_and_checks_names(write):
    write("g.csv", "source,target,bandwidth\na,b,40\n")
    write("t.csv", "a,b\n1,1\n")
    write("u.csv", "a,c\n1,1\n")
    arguments = ("full", "quadratic:dimension=10", "from_file:path=g.csv")
    import optax

    found = train_policy(*arguments, "trace:path=t.csv", optax.sgd(0.1), steps=3, rows=1, workers=2)
    np.testing.assert_allclose(found.duration[:3], 2, rtol=1e-6)  # 10 float32 at 40 bytes/s
    refused(
        lambda: train_policy(*arguments, "trace:path=u.csv", optax.sgd(0.1), steps=3, rows=1, workers=2), "names 'b'"
    )


RUN = ["--dataset", "quadratic", "--workers", "3", "--seeds", "2", "--rows", "2", "--no-progress", "--steps", "3"]


def test_names_are_in_the_run_and_a_run_of_other_names_is_refused(write, tmp_path, capsys):
    write("g.csv", "source,target,latency_ms\nalice,bob,10\nbob,carol,20\ncarol,alice,5\n")
    write("t.csv", "carol,alice,bob\n1,2,3\n1.5,2,3\n")
    words = [
        "--graph",
        "from_file:path=g.csv",
        "--delays",
        "trace:path=t.csv",
        *RUN,
        "--policies",
        "backup:b=1",
        "full",
    ]
    assert train.main([*words, "--out", "run"]) == 0
    assert "Workers: 0 alice, 1 bob, 2 carol." in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["names"] == ["alice", "bob", "carol"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["names"] == ["alice", "bob", "carol"]
    assert "0 alice, 1 bob" in (tmp_path / "run" / "table.tex").read_text()
    for name in ("g.csv", "t.csv"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("bob", "beth"))
    assert train.main([*words, "--out", "run"]) == 2
    assert "g.csv has changed since" in capsys.readouterr().err
    write("t.csv", "w0,w1,w2\n1,2,3\n")
    assert train.main([*words, "--out", "other"]) == 2
    assert "columns=order" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_sweep_keeps_names_and_has_no_bandwidth_without_messages(write, tmp_path, capsys):
    write("g.csv", "source,target\na,b\nb,c\n")
    write("b.csv", "source,target,bandwidth\na,b,5\nb,c,5\n")
    words = ["--workers", "3", "--seeds", "2", "--steps", "3", "--no-progress", "--policies", "full", "--timing-only"]
    assert sweep.main([*words, "--graphs", "ring", "from_file:path=g.csv", "--out", "out"]) == 0
    (kept,) = json.loads((tmp_path / "out" / "config.json").read_text())["names"]
    assert kept["graph"] == "from_file:path=g.csv"
    assert kept["names"] == ["a", "b", "c"]
    assert sweep.main([*words, "--graphs", "from_file:path=b.csv", "--out", "more"]) == 2
    assert "has bandwidths, and messages have no size here" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "shown"), [(3, "0 w0, 1 w$1, 2 w2"), (50, "(50 names in config.json)")])
def test_a_picture_names_workers_and_says_what_goes_one_way(count, shown):
    from matplotlib.figure import Figure

    hears = np.stack([np.arange(count), (np.arange(count) + 1) % count], axis=1)
    names = [f"w{'$' * (place == 1)}{place}" for place in range(count)]
    ax = Figure().subplots(squeeze=False)[0, 0]
    draw_graph(ax, GraphPicture(hears, names=names))
    assert ax.get_title(loc="left") == f"{count} workers, {count} links ({count} one way)"
    assert shown.replace("$", r"\$") in " ".join(text.get_text().replace("\n", " ") for text in ax.texts)


CELLS = st.one_of(
    st.sampled_from(["", "0", "1", "2", "0.5", "1e3", "1e39", "nan", "a", "b", "step", "worker", "seconds", "source"]),
    st.sampled_from(["target", "latency_ms", "bandwidth", "1_0", "٣", "-1", '"', "01", "{}", "{'latency': 1}", ";"]),
    st.text(max_size=4),
)
FILES = st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=4)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=FILES,
    name=st.sampled_from(["a.csv", "a.edgelist", "a.adjlist"]),
    workers=st.integers(1, 3),
    more=st.binary(max_size=2),
)
def test_any_table_is_read_or_refused_in_one_line(tmp_path, rows, name, workers, more):
    separator = "," if name == "a.csv" else " "
    file = tmp_path / name
    file.write_bytes("\n".join(separator.join(row) for row in rows).encode("utf-8", "surrogatepass") + more)
    for read in (lambda: graphs.from_file(workers, path=str(file)), lambda: read_trace(workers, path=str(file))):
        try:
            read()
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_settings_in_python(write):
    write("g.csv", "0,1\n1,2\n2,0\n")
    write("t.csv", "1,2\n")
    assert len(links_of(graphs.from_file(3, path="g.csv", directed=True))) == 3
    assert len(links_of(graphs.from_file(3, path="g.csv", directed=False))) == 6
    assert len(links_of(graphs.from_file(3, path="g.csv", undirected=True))) == 6
    for name in ("header", "unit", "directed", "undirected"):
        refused(lambda name=name: graphs.from_file(3, path="g.csv", **{name: "perhaps"}), f"{name}=perhaps")
    for name in ("header", "unit", "columns"):
        refused(lambda name=name: read_trace(2, path="t.csv", **{name: "perhaps"}), f"{name}=perhaps")


def test_a_cell_is_shown_on_one_line():
    assert tables.quoted("a\nb\x1b[31m\u2028") == r"'a\nb\x1b[31m\u2028'"
    assert len(tables.quoted("x" * 10_000)) < 70
