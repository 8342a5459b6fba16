"""Who waited for whom, against event simulations that know it; what is drawn and exported of it."""

import gzip
import heapq
import json

import jax.numpy as jnp
import numpy as np
import pytest
from markupsafe import Markup

from dbwjax.experiments.compare import Comparison
from dbwjax.network.graphs import build_graph, with_latency
from dbwjax.network.spanning import spanning_links
from dbwjax.policies.dtur import dtur
from dbwjax.report import gantt, style, trace_events, views, waits
from dbwjax.report.page.document import document
from dbwjax.report.page.lost_part import order_of
from dbwjax.report.page.network_part import heard_in
from dbwjax.report.page.waits_section import MOST, waits_section
from tests.pages import EVIL, material
from tests.timelines import timeline

WORKERS, STEPS = 6, 60
SECONDS = (np.random.default_rng(0).pareto(2.5, (WORKERS, 200)) + 0.5).astype(np.float32)
RING = build_graph("ring", WORKERS)
PAIRS = np.array([(i, j % WORKERS) for i in range(WORKERS) for j in (i - 1, i + 1)])
LINKS = [tuple(sorted(map(int, link))) for link in spanning_links(RING)[0]]


class Dtur:
    """Its rule in plain words: the first moment at which one more link of the path has both ends there."""

    def __init__(self):
        self.established = set()

    def __call__(self, arrival):
        ready = {link: max(arrival[i] for i in link) for link in LINKS}
        end = min(seconds for link, seconds in ready.items() if link not in self.established)
        self.established |= {link for link, seconds in ready.items() if seconds <= end}
        if len(self.established) == len(LINKS):
            self.established = set()
        return end


GLOBAL = {
    "full": lambda: lambda arrival: max(arrival),
    "fastest:k=4": lambda: lambda arrival: sorted(arrival)[3],
    "deadline:seconds=1.1": lambda: lambda arrival: min(max(arrival), 1.1),
    "dybw": Dtur,
}


def of_global(rule, late):
    """`{(worker, computation): cause}` under a global barrier, where somebody waited."""
    now, number, found = 0.0, [0] * WORKERS, {}
    finish = [float(SECONDS[i, 0]) for i in range(WORKERS)]
    for _ in range(STEPS):
        arrival = [max(seconds - now, 0.0) for seconds in finish]
        end = rule(arrival)
        setter = [i for i in range(WORKERS) if arrival[i] == end]
        for i in range(WORKERS):
            there = arrival[i] <= end
            if there and arrival[i] < end:
                found[i, number[i]] = setter[0] if setter else -1
            if there or late == "drop":
                number[i] += 1
                finish[i] = now + end + float(SECONDS[i, number[i]])
        now += end
    return found


def of_neighbours(backups, latency):
    """The same where each waits for all but so many of its neighbours' messages."""
    start, found = [0.0] * WORKERS, {}
    for k in range(STEPS):
        finish = [start[i] + float(SECONDS[i, k]) for i in range(WORKERS)]
        for i in range(WORKERS):
            near = sorted((finish[j % WORKERS] + latency, j % WORKERS) for j in (i - 1, i + 1))
            last, j = near[-1 - backups]
            start[i] = max(finish[i], last)
            if last > finish[i]:
                found[i, k] = j if finish[j] > finish[i] else -1  # -1: its message was on its way already
    return found


def of_ssp(bound):
    """The same where nobody is further ahead of the slowest than that."""
    queue, clock, waiting, found = [(float(SECONDS[i, 0]), i) for i in range(WORKERS)], [0] * WORKERS, {}, {}
    heapq.heapify(queue)
    for _ in range(STEPS * WORKERS):
        now, i = heapq.heappop(queue)
        clock[i] += 1
        waiting[i] = now
        for j in sorted(waiting):
            if clock[j] - min(clock) <= bound:
                if waiting.pop(j) < now:
                    found[j, clock[j] - 1] = i
                heapq.heappush(queue, (now + float(SECONDS[j, clock[j]]), j))
    return found


CASES = {
    **{
        f"{spec},late={late}".replace(",", ":", ":" not in spec): (of_global, make, late)
        for spec, make in GLOBAL.items()
        for late in ("carry", "drop")
    },
    "dybw:late=apply": (of_global, Dtur, "drop"),
    "full:barrier=neighbours": (of_neighbours, 0, 0.0),
    "backup:b=1,gap=inf": (of_neighbours, 1, 0.0),
    "ssp:bound=1": (of_ssp, 1),
}


@pytest.fixture(scope="module")
def timelines():
    return {spec: timeline(spec, RING, SECONDS, STEPS * (WORKERS if "ssp" in spec else 1)) for spec in CASES}


def compared(found, reference):
    """The causes as they were found and as they should be, of all cells that waited."""
    cells = waits.cells_of(found, PAIRS)
    shown = {
        (int(i), int(n)): int(j)
        for i, n, j, waited in zip(cells.worker, cells.number, cells.cause, cells.waited, strict=True)
        if waited > 1e-5
    }
    # At the end a cause may not have gone on yet itself, and is not in the timeline.
    last = min(cells.released[cells.worker == i].max() for i in range(WORKERS))
    early = {
        (int(i), int(n)) for i, n, end in zip(cells.worker, cells.number, cells.released, strict=True) if end < last
    }
    assert len(early) > 60
    return {key: shown.get(key, "no wait") for key in reference if key in early}, reference, shown, early


@pytest.mark.parametrize("spec", CASES)
def test_causes_are_those_of_a_simulation_that_knows_them(timelines, spec):
    simulate, setting, *more = CASES[spec]
    reference = simulate(setting() if simulate is of_global else setting, *more)
    found, reference, shown, early = compared(timelines[spec], reference)
    assert found == {key: reference[key] for key in found}
    assert len(found) > 20
    assert {key for key in shown if key in early} <= reference.keys()


@pytest.mark.parametrize(("spec", "backups"), [("full:barrier=neighbours", 0), ("backup:b=1,gap=inf", 1)])
def test_causes_with_messages_in_flight(spec, backups):
    late = with_latency(RING, np.where(np.asarray(RING.links), 0.3, 0))
    found, reference, _, _ = compared(timeline(spec, late, SECONDS, STEPS), of_neighbours(backups, 0.3))
    assert found == {key: reference[key] for key in found}
    assert {-1} < set(found.values())


def test_a_global_barrier_with_messages_in_flight_names_the_last_arrival():
    flights = np.random.default_rng(1).uniform(0.1, 0.6, WORKERS)  # of each worker's messages
    seconds = np.where(np.asarray(RING.links), flights[np.asarray(RING.neighbours)], 0)
    cells = waits.cells_of(timeline("full", with_latency(RING, seconds), SECONDS, STEPS), PAIRS)
    for k in range(STEPS):
        last = int(np.argmax(SECONDS[:, k] + flights))
        mine = (cells.step == k) & (cells.worker != last)
        assert set(cells.cause[mine]) == {last}
        assert cells.cause[(cells.step == k) & (cells.worker == last)] == -1


def test_nobody_waits_where_nobody_waits():
    cells = waits.cells_of(timeline("adpsgd", RING, SECONDS, 100), PAIRS)
    assert (cells.cause == -1).all()
    assert cells.ends is None


@pytest.mark.parametrize("spec", CASES)
def test_totals_add_up_to_the_spans(timelines, spec):
    found = timelines[spec]
    cells = waits.cells_of(found)
    sums = waits.totals(cells)
    for name in ("computing", "waiting", "wasted", "communicating"):
        np.testing.assert_allclose(getattr(sums, name), found[f"worker_{name}"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sums.due.sum(1) + sums.nobody, sums.waiting + sums.communicating, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.due.sum(0), waits.lost_to(cells))
    assert not np.diag(sums.due).any()
    half = cells.step < STEPS // 2
    parts = [waits.totals(cells, mask) for mask in (half, np.flatnonzero(~half))]
    np.testing.assert_allclose(parts[0].due + parts[1].due, sums.due)


def test_of_workers_that_finish_together_a_neighbour_is_the_cause():
    even = np.array([3.0, 1.0, 1.0, 3.0, 1.0, 1.0], np.float32)[:, None]
    cells = waits.cells_of(timeline("full", RING, even, 4), PAIRS)
    assert {(int(i), int(j)) for i, j in zip(cells.worker, cells.cause, strict=True) if j >= 0} == {
        (1, 0),
        (2, 3),
        (4, 3),
        (5, 0),
    }


def test_no_computations_are_one_line():
    with pytest.raises(ValueError, match="--timelines auto"):
        waits.cells_of({"duration": np.ones(3)})


def test_dturs_links_and_threshold_from_who_was_active(timelines):
    rule = dtur()
    state, kept, active = rule.init(RING), [], []
    for arrival in np.random.default_rng(2).pareto(2, (50, WORKERS)):
        now, _, state = rule.cut(None, RING, state, jnp.asarray(arrival))
        active.append(np.asarray(now))
        kept.append(np.asarray(state.established))
    np.testing.assert_array_equal(waits.established(np.array(active), np.asarray(state.path)), kept)
    assert 5 < sum(not links.any() for links in kept) < 50  # epochs ended
    found = timelines["dybw:late=carry"]
    np.testing.assert_allclose(waits.cells_of(found).ends, np.cumsum(found["duration"].astype(float)), rtol=1e-5)


def large(workers=400, steps=60):
    """A global barrier among many, as spans."""
    seconds = np.random.default_rng(3).pareto(2.5, (steps, workers)).astype(np.float32) + 0.5
    wait = seconds.max(axis=1, keepdims=True) - seconds
    zero = np.zeros(workers)
    return {
        **{"duration": seconds.max(axis=1), "active": np.ones((steps, workers), bool)},
        "span_worker": np.tile(np.arange(workers), steps),
        "span_step": np.repeat(np.arange(steps), workers),
        "span_used": np.ones(steps * workers, bool),
        **{"span_computing": seconds.ravel(), "span_waiting": wait.ravel(), "span_communicating": 0 * wait.ravel()},
        **{"worker_computing": seconds.sum(0, float), "worker_waiting": wait.sum(0, float)},
        **{"worker_wasted": zero, "worker_communicating": zero},
    }


def test_views_of_many_workers_are_some_of_them_and_say_so():
    cells = waits.cells_of(large())
    means = np.bincount(cells.worker, cells.finish - cells.start)
    for view in views.views(cells):
        assert views.MOST / 2 < len(view.cells) <= views.MOST
        assert "of 400 workers" in view.note
        assert {int(means.argmax()), int(means.argmin())} <= set(view.rows.tolist())
        assert (np.diff(view.windows.ravel()) >= 0).all()
    lengths = np.diff(cells.ends, prepend=0)
    slow = views.views(cells)[1]
    assert (slow.windows[:, 1] - slow.windows[:, 0]).sum() == pytest.approx(np.sort(lengths)[-20:].sum())
    assert len(views.asked(cells, 3, 4).cells) == 800
    with pytest.raises(ValueError, match="0 <= a <= b < 60"):
        views.asked(cells, 60, 70)


@pytest.mark.parametrize("spec", ["dybw:late=drop", "ssp:bound=1", "backup:b=1,gap=inf"])
def test_bars_are_the_spans_of_the_view(timelines, spec):
    cells = waits.cells_of(timelines[spec])
    for view in views.views(cells):
        place = gantt.layout(view)
        bars = gantt.bars_of(cells, view, place)
        shown = sum((one[:, 1] - one[:, 0]).sum() for one in bars.values())
        inside = sum(
            np.clip(np.minimum(cells.released, high) - np.maximum(cells.start, low), 0, None).sum()
            for low, high in view.windows
        )
        assert shown == pytest.approx(inside)
        assert all((one[:, :2] >= 0).all() and (one[:, 1] <= place.width + 1e-9).all() for one in bars.values())
        assert len(bars["wasted"]) > 0 or "drop" not in spec


def test_a_figure_is_drawn_and_gives_the_same_bytes(timelines, tmp_path):
    cells = waits.cells_of(timelines["dybw:late=carry"])
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with style.house_style():
            figure = gantt.figure(cells, views.views(cells)[0], threshold=True)
            style.save(figure, folder, "gantt", ("svg",))
    text = (tmp_path / "a" / "gantt.svg").read_bytes()
    assert text == (tmp_path / "b" / "gantt.svg").read_bytes()
    assert b'id="thresholds"' in text
    assert b'id="arrows"' in text


def page_material(timelines, **more):
    found = material(list(timelines), workers=more.pop("workers", WORKERS), **more)
    return found._replace(timelines={spec: {"0": one} for spec, one in timelines.items()})


def test_the_section_tells_the_script_what_the_cells_are(timelines):
    found = page_material({spec: timelines[spec] for spec in ("dybw:late=carry", "ssp:bound=1")})
    section = waits_section(found._replace(iterations=(2, 5)))
    for policy in section.data["policies"]:
        cells = waits.cells_of(timelines[policy["name"]])
        assert [view["key"] for view in policy["views"]] == ["asked", "first", "slowest", "even"]
        for view in policy["views"]:
            for n, (i, start) in enumerate(zip(view["worker"], view["start"], strict=True)):
                own = np.flatnonzero(cells.worker == i)
                cell = own[np.abs(cells.start[own] - start).argmin()]
                assert cells.start[cell] == pytest.approx(start, abs=1e-3)
                assert view["cause"][n] == cells.cause[cell]
                assert view["waiting"][n] + view["flight"][n] == pytest.approx(cells.waited[cell], abs=1e-3)
                back = view["from"][n]
                assert back < 0 or view["worker"][back] == cells.cause[cell]
    text = document("t", Markup(""), [section])
    assert text.count('<figure class="gantt-figure') == 8
    assert "established" in json.dumps(section.data["network"]["policies"][0])


def test_a_section_of_many_workers_stays_small_and_escapes_names():
    found = page_material({EVIL: large(), "full": large()}, workers=400)
    section = waits_section(found)
    cells = sum(len(view["worker"]) for policy in section.data["policies"] for view in policy["views"])
    assert MOST / 2 < cells <= MOST
    text = document("t", Markup(""), [section])
    assert len(text) < 1_200_000
    assert EVIL not in text
    assert "<script>alert" not in text


def test_a_page_without_computations_says_how_to_keep_them():
    section = waits_section(material(["dybw", "full"]))
    assert "--timelines auto" in section.body
    assert section.script == ""


def test_the_matrix_of_many_workers_is_of_the_worst():
    due = np.zeros((100, 100))
    due[7, 3], due[8, 3] = 5, 9
    rows, columns = order_of(due)
    assert len(rows) == len(columns) == 20
    assert {7, 8} <= set(rows.tolist())
    assert 3 in columns


def test_how_often_neighbours_heard_each_other(timelines):
    found = timelines["dybw:late=drop"]
    heard, _ = heard_in(waits.cells_of(found), found, PAIRS)
    active = found["active"].astype(int)
    i, j = PAIRS[0]
    assert heard[i, j] == (active[:, i] * active[:, j]).sum()
    assert heard[0, 3] == 0
    heard, _ = heard_in(waits.cells_of(timelines["ssp:bound=1"]), timelines["ssp:bound=1"], PAIRS)
    assert heard.sum() == (waits.cells_of(timelines["ssp:bound=1"]).cause >= 0).sum()


def test_trace_events_are_what_perfetto_reads(timelines, tmp_path):
    specs = ["dybw:late=drop", "ssp:bound=1"]
    rows = [{"policy": spec, "world": 0, "virtual_time": 2.0, "test_accuracy": 0.5} for spec in specs]
    content, left = trace_events.trace_events({spec: {"0": timelines[spec]} for spec in specs}, rows)
    assert left == ""
    assert json.loads(gzip.decompress(trace_events.packed(content, "x.json.gz"))) == content
    events = content["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "s", "f", "C"}
    assert all(isinstance(event["pid"], int) and isinstance(event["tid"], int) for event in events)
    assert all(event["ts"] >= 0 for event in events if event["ph"] != "M")
    for pid, spec in enumerate(specs):
        own = [event for event in events if event["pid"] == pid]
        cells = waits.cells_of(timelines[spec])
        slices = [event for event in own if event["ph"] == "X"]
        assert sum(event["dur"] for event in slices) == pytest.approx(1e6 * (cells.released - cells.start).sum())
        assert {event["name"] for event in slices} <= set(gantt.COLOURS)
        inside = {}
        for event in slices:
            inside.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"], event["name"]))
        flows = {kind: {event["id"]: event for event in own if event["ph"] == kind} for kind in "sf"}
        assert flows["s"].keys() == flows["f"].keys()
        assert len(flows["s"]) == (cells.cause >= 0).sum()
        for kind, names in (("s", {"computing", "wasted"}), ("f", {"waiting", "communicating"})):
            for event in flows[kind].values():  # each end lies inside one slice, to which it binds
                around = [name for a, b, name in inside[event["tid"]] if a < event["ts"] < b]
                assert len(around) == 1
                assert around[0] in names
        assert all(flows["s"][one]["ts"] <= flows["f"][one]["ts"] for one in flows["s"])
        counted = [event["args"] for event in own if event["name"] == "workers"]
        assert all(0 <= value["computing"] + value["waiting"] <= WORKERS for value in counted)
        assert max(value["computing"] for value in counted) == WORKERS
        assert [event["args"] for event in own if event["name"] == "test accuracy"] == [{"accuracy": 0.5}]


def test_what_a_trace_leaves_out_is_said(timelines):
    found = {"ssp:bound=1": {"0": timelines["ssp:bound=1"]}, "old": {"0": {"duration": np.ones(2)}}}
    content, left = trace_events.trace_events(found, [], most=50)
    assert "the first 50 of" in left
    assert "old: it kept no computations" in left
    assert content["otherData"]["left_out"] == left
    assert sum(event["ph"] == "X" and event["name"] == "computing" for event in content["traceEvents"]) == 50
    with pytest.raises(ValueError, match="--timelines auto"):
        trace_events.trace_events({"old": found["old"]}, [])


def test_comparisons_draw_the_first_iterations_of_the_first_world(timelines, tmp_path):
    made = page_material(timelines)
    found = Comparison(made.rows, made.worlds, made.summary, made.timelines, made.picture)
    policy = next(iter(made.timelines))
    figure = found.gantt(policy, tmp_path / "waits.svg")
    assert f"{policy}, world " in (tmp_path / "waits.svg").read_text()
    assert "the first" in figure.axes[0].get_title("left")
    with pytest.raises(ValueError, match="policy='nobody' was not compared; known: "):
        found.gantt("nobody")
