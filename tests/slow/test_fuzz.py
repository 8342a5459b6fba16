"""Ten thousand damaged inputs: each is read, or refused by a `ValueError` that says why, within little memory."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbwjax import files
from dbwjax.experiments.config import TrainConfig, from_json, to_json
from dbwjax.learners import build_optimizer, build_schedule
from dbwjax.network.delays import build_delays
from dbwjax.network.graphs import build_graph
from dbwjax.policies import build_policy
from dbwjax.storage.metrics_log import read_metrics
from dbwjax.storage.timelines import load_timeline, save_timeline

pytestmark = pytest.mark.slow

WORKERS, LITTLE = 4, 50 << 20
TOKENS = [
    *(b"", b" ", b"\t", b"\n", b"\r", b"\r\n", b",", b";", b'"', b"'", b"#", b"%", b"&", b":", b"=", b"*", b"\\", b"/"),
    *(b"-", b"+", b".", b"_", b"0", b"00", b"-0", b"1e400", b"1e-400", b"1e39", b"1_0", b"0x1", b"9" * 30, b"9" * 5000),
    *(b"nan", b"NA", b"inf", b"-Infinity", b"null", b"true", b"None", b"{}", b"[", b"]", b"[" * 200, b'{"a":' * 200),
    *(b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", "\u0661\u00b2\u2028".encode()),
    *(b"<", b">", b"</graph>", b"<node id='9'/>", b'<!DOCTYPE a [<!ENTITY b "cc">]>', b"&b;", b"edge [", b"id", b"ms"),
    *(b"step", b"worker,seconds", b"source,target,weight", b"0,0", b"0,4", b"1,0,0.5", b"latency", b"path=", b"k="),
]
EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 9), st.sampled_from(TOKENS) | st.binary(max_size=3)), max_size=4
)
"""Where, how many bytes go, and what comes in their place."""


def edited(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, put in edits:
        at %= len(content) + 1
        content = content[:at] + put + content[at + gone :]
    return content


def links_as(suffix: str) -> bytes:
    """A ring of four, as networkx writes it."""
    import networkx

    file = io.BytesIO()
    graph = networkx.cycle_graph(WORKERS)
    {".graphml": networkx.write_graphml, ".gml": networkx.write_gml, ".edgelist": networkx.write_edgelist}[suffix](
        graph, file
    )
    return file.getvalue()


def timeline(folder: Path) -> bytes:
    save_timeline(
        folder / "whole.npz",
        {"dybw:late=carry": {"0": {"duration": np.ones(3, np.float32), "active": np.ones((3, 4), bool)}}},
    )
    return (folder / "whole.npz").read_bytes()


def repacked(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """An archive that is whole, of members that are not."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, edited(old.read(name), edits))
    return packed.getvalue()


def spec(path: Path) -> None:
    """A SPEC of anything, to every builder."""
    text = path.read_bytes().decode(errors="surrogateescape")
    builders: list[Callable[[str], Any]] = [
        build_policy,
        lambda text: build_delays(text, WORKERS),
        lambda text: build_graph(text, WORKERS),
        lambda text: build_optimizer(text, 0.1),
        build_schedule,
    ]
    for build in builders:
        read_or_refused(build, text)


def config(path: Path) -> None:
    from_json(files.read_json(path, "write it anew"))


def trace(path: Path) -> None:
    build_delays(f"trace:path={path}", WORKERS)


def graph(path: Path) -> None:
    build_graph(f"from_file:path={path}", WORKERS)


class Reader(NamedTuple):
    read: Callable[[Path], Any]
    examples: int
    wholes: Callable[[Path], list[bytes]]
    damaged: Callable[[bytes, list[tuple[int, int, bytes]]], bytes] = edited


SPECS = [
    *("dybw:late=carry,flood_latency=0.1", "fastest:k=2", "deadline:seconds=0.5", "backup:b=1,gap=inf", "dpsgd"),
    *("shifted_exponential:shift=0.5,rate=1*slow_workers:fraction=0.2,factor=2", "markov:p_slow=0.1", "pareto:alpha=2"),
    *("erdos_renyi:p=0.9", "small_world:degree=2,p=0.1", "grid:rows=2", "ring", "from_file:path=x.csv", "trace:path=x"),
    *("momentum:beta=0.9", "adam", "warmup:steps=3*cosine:steps=5", "step:every=3,factor=0.5"),
]
ROWS = [{"policy": "full", "world": 0, "row": row, "virtual_time": row / 3, "test_loss": None} for row in range(4)]
READERS = {
    "trace.csv": Reader(trace, 1500, lambda _: [b"a,b,c,d\n1,2,3,4\n0.5,1e-3,2,1\n", b"2,1,3,1.5\n" * 3]),
    "links.csv": Reader(
        graph, 1500, lambda _: [b"0,1\n1,2\n2,3\n3,0\n", b"source,target,latency\n0,1,0.5\n1,2,0\n2,3,1\n"]
    ),
    "links.graphml": Reader(graph, 700, lambda _: [links_as(".graphml")]),
    "links.gml": Reader(graph, 700, lambda _: [links_as(".gml")]),
    "links.edgelist": Reader(graph, 600, lambda _: [links_as(".edgelist"), b"0 1 {}\n1 2 {}\n2 3 {}\n"]),
    "spec": Reader(spec, 2000, lambda _: [text.encode() for text in SPECS]),
    "config.json": Reader(config, 1500, lambda _: [json.dumps(to_json(TrainConfig(seconds=9.0))).encode()]),
    "metrics.jsonl": Reader(read_metrics, 700, lambda _: [b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)]),
    "timeline.npz": Reader(load_timeline, 300, lambda folder: [timeline(folder)]),
    "members.npz": Reader(load_timeline, 500, lambda folder: [timeline(folder)], repacked),
}


def read_or_refused(read: Callable[[Any], Any], what: Any) -> None:
    try:
        read(what)
        return
    except ValueError as error:
        refusal = error
    # What Python's own decoders raise names neither the file nor the remedy.
    assert not isinstance(refusal, UnicodeError | json.JSONDecodeError), repr(refusal)
    assert str(refusal)


def test_they_are_ten_thousand():
    assert sum(reader.examples for reader in READERS.values()) == 10_000


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore::UserWarning:networkx", "ignore::UserWarning:zipfile")
def test_damaged_inputs_are_read_or_refused(name, tmp_path):
    reader = READERS[name]
    wholes, place = reader.wholes(tmp_path), tmp_path / name
    for whole in wholes:
        place.write_bytes(whole)
        reader.read(place)  # and what is imported only then is not counted below

    @given(whole=st.sampled_from(wholes), edits=EDITS)
    @settings(
        max_examples=reader.examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def each(whole, edits):
        place.write_bytes(reader.damaged(whole, edits))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        read_or_refused(reader.read, place)
        assert tracemalloc.get_traced_memory()[1] - before < LITTLE

    tracemalloc.start()
    try:
        each()
    finally:
        tracemalloc.stop()
