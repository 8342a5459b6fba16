"""Figures of runs: what they show is the data, a rule has one colour everywhere, and nothing is clipped or covered."""

from __future__ import annotations

import itertools
import re
import struct

import networkx
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from dbwjax.report import run_figures, run_panels, scales, style
from dbwjax.report.network import GraphPicture, _layout, draw_graph
from dbwjax.report.run_curves import Board, curves, quality, spread
from dbwjax.report.run_figures import write_figures
from tests import fakes

LONG = "dybw:late=carry,weights=metropolis,path=/somewhere/with/$a/very/long/name/of_a_file_with_links.csv"
FIVE = ["dybw", "dybw:late=carry", "fastest:k=6", "backup:b=1,gap=inf", "full"]
FORTY = [f"dybw:late={late},gap={gap}" for gap in range(10) for late in ("carry", "drop")]
FORTY += [f"rule{i}" for i in range(19)] + ["full"]
CASES = {
    "ten worlds": (FIVE, {"unreached": {"fastest:k=6": 3}, "diverged": {"backup:b=1,gap=inf": 2}}, {}),
    "one world": (FIVE, {"worlds": 1}, {}),
    "one policy": (["dybw"], {}, {}),
    "no accuracy": (["dybw", "full"], {"accuracy": False}, {"path": False}),
    "bounds": (["dybw", "backup:b=2", "full"], {"unreached": {"full": 4, "backup:b=2": 2}}, {"speeds": False}),
    "never reached": (["dybw", "full"], {"unreached": {"dybw": 10, "full": 10}}, {}),
    "all diverged": (["dybw", "full"], {"diverged": {"dybw": 10}}, {}),
    "until the target": (["dybw", "full"], {"equal_time": False}, {"nodes": 1, "extra": 0}),
    "names": (
        ["g$\\nosuch$_x.csv", LONG, LONG + "2", "a\nb", "日本", "full"],
        {},
        {"name": "file:path=g$\\nosuch$.csv"},
    ),
    "256 workers": (["dybw", "full"], {"worlds": 2}, {"nodes": 256, "extra": 200}),
    "forty": (FORTY, {"worlds": 2, "rows_each": 10}, {"nodes": 30}),
}


def board(case, seed=0):
    policies, options, network = CASES[case]
    return Board(*fakes.run(policies, seed=seed, **options), fakes.network(**network))


def drawn(figure):
    """Draws a figure, so that its layout is settled."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas.get_renderer()


def texts_of(figure):
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in found if text.get_text()]


def assert_nothing_is_cut(figure, renderer):
    """No text leaves the figure, no legend and no title lies on something else, and no two tick labels touch."""
    width, height = figure.canvas.get_width_height()
    ticks = [tick for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.majorTicks + axis.minorTicks]
    of_ticks = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    for text in texts_of(figure):
        if id(text) in of_ticks:
            continue
        box = text.get_window_extent(renderer)
        inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
        assert inside, f"'{text.get_text()}' is cut: {box} in {width} x {height}"
        assert "\\mathdefault" not in text.get_text()
    heads = [text for ax in figure.axes for text in (ax._left_title, *ax.texts) if _is_head(ax, text)]
    boxes = [head.get_window_extent(renderer) for head in heads]
    for (i, one), (j, other) in itertools.combinations(enumerate(boxes), 2):
        assert not one.padded(-1.5).overlaps(other), (heads[i].get_text(), heads[j].get_text())
    for legend in figure.legends:
        for ax in figure.axes:
            assert not legend.get_window_extent(renderer).overlaps(ax.get_window_extent(renderer))
    for ax in figure.axes:
        shown = [label for label in ax.get_xticklabels() if label.get_text()]
        spans = sorted((label.get_window_extent(renderer) for label in shown), key=lambda box: box.x0)
        assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(spans)), [t.get_text() for t in shown]


def _is_head(ax, text):
    return bool(text.get_text()) and (text is ax._left_title or getattr(text, "xy", None) == (0, 1))


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_cut_or_covered_in_the_summary(case):
    with style.house_style():
        assert_nothing_is_cut(*drawn(run_figures.draw_summary(board(case))))


@pytest.mark.parametrize("width", [85, 120, 300])
def test_nothing_is_cut_at_other_widths(width):
    whole = board("ten worlds")
    with style.house_style():
        figure, renderer = drawn(run_figures.draw_summary(whole, width))
        assert figure.get_figwidth() == pytest.approx(width / 25.4)
        assert_nothing_is_cut(figure, renderer)


@pytest.mark.parametrize("case", ["ten worlds", "one world", "no accuracy", "names"])
def test_nothing_is_cut_in_single_figures(case):
    whole = board(case)
    draws = [run_figures._accuracy] if whole.has_accuracy else []
    draws += [run_figures._loss, run_figures._iteration_length, run_figures._backup_workers, run_figures._network]
    with style.house_style():
        for draw in draws:
            for width in (style.COLUMN, style.PAGE):
                assert_nothing_is_cut(*drawn(draw(whole, width)))


def said_in(ax):
    return " ".join([ax.get_title("left"), *(text.get_text() for text in ax.texts)])


def panels(case):
    with style.house_style():
        return run_figures.draw_summary(board(case)).axes


def test_the_summary_says_how_it_is_to_be_read():
    axes = panels("ten worlds")
    for letter, ax in zip("abcdef", axes, strict=False):
        assert ax.get_title("left").startswith(f"({letter}) ")
    assert axes[0].get_yscale() == "log"
    assert "median of 10 worlds; band: 10 to 90 %" in said_in(axes[0]).replace("\n", " ")
    assert "target: accuracy 0.9" in said_in(axes[0])
    assert "7 of 10" in said_in(axes[1])
    assert "2 diverged" in said_in(axes[1])
    assert "DTUR's spanning path" in said_in(axes[4])
    assert axes[0].get_xlabel() == "virtual time [s]"
    assert any(ax.get_ylabel() == "mean computation [s]" for ax in axes)
    assert "DTUR's spanning tree" in said_in(panels("no accuracy")[4])


def test_what_is_not_known_is_said():
    assert "no interval" in said_in(panels("one world")[1])
    assert "no ratio" in said_in(panels("never reached")[1])
    assert "0 of 10" in said_in(panels("never reached")[1])
    assert "no equal time" in said_in(panels("until the target")[5])
    assert "speed, not learning" in said_in(panels("no accuracy")[1]).replace("\n", " ")
    assert "10 diverged" in said_in(panels("all diverged")[5])


def test_bounds_are_arrows_to_the_side_of_the_truth():
    from matplotlib.figure import Figure

    base = {"estimate": 2.0, "worlds": 5, "clusters": 5}
    for bound, low, high, side in (("at least", 1.5, None, 1), ("at most", None, 3.0, -1), (None, 1.5, 3.0, 0)):
        ax = Figure().subplots()
        ends = run_panels.draw_interval(ax, 0, base | {"low": low, "high": high, "bound": bound}, "#000000", "o")
        assert [np.sign(text.xyann[0]) for text in ax.texts] == ([side] if side else [])
        assert min(ends) <= (low or 2) <= 2 <= (high or 2) <= max(ends)
    assert run_panels.draw_interval(ax, 0, None, "#000000", "o") == []
    one = base | {"low": None, "high": None, "bound": None}
    assert set(run_panels.draw_interval(ax, 0, one, "#000000", "o")) == {2.0}
    texts = [run_panels.ratio_text(base | {"bound": bound}) for bound in ("at least", "at most", None)]
    assert texts == ["≥ 2.00", "≤ 2.00", "2.00"]


def rows_of(values, times, diverged=()):
    return [
        {"virtual_time": t, "test_accuracy": v, "diverged": i in diverged}
        for i, (t, v) in enumerate(zip(times, values, strict=True))
    ]


def test_bands_are_quantiles_at_common_times():
    worlds = {w: rows_of([0, w / 10], [0, 10 + w]) for w in range(11)}
    found = spread(worlds, "virtual_time", "test_accuracy")
    assert found.worlds == 11
    assert found.x[-1] == 10
    expected = np.quantile([w / 10 * 10 / (10 + w) for w in range(11)], [0.1, 0.5, 0.9])
    np.testing.assert_allclose([found.low[-1], found.middle[-1], found.high[-1]], expected)
    one = spread({3: rows_of([0.1, 0.5, 0.7], [0, 1, 5])}, "virtual_time", "error")
    np.testing.assert_allclose(one.x, [0, 1, 5])
    np.testing.assert_allclose(one.middle, [0.9, 0.5, 0.3])
    assert spread({0: rows_of([None], [0])}, "virtual_time", "error") is None


def test_a_diverged_world_is_the_worst_and_does_not_vanish():
    good, bad = rows_of([0.1, 0.5, 0.9], [0, 1, 2]), rows_of([0.1, 0.5, None], [0, 1, 2], {2})
    few = spread({0: good, 1: good, 2: bad}, "virtual_time", "error")
    np.testing.assert_allclose(few.middle, [0.9, 0.5, 0.1])
    assert few.high[-1] == np.inf
    most = spread({0: good, 1: bad, 2: bad}, "virtual_time", "test_accuracy")
    assert most.middle[-1] == -np.inf
    assert np.isfinite(most.middle[:2]).all()


def test_time_is_cropped_to_the_shortest_run_that_reached_the_target():
    whole = board("ten worlds")
    ends = {name: min(rows[-1]["virtual_time"] for rows in of.values()) for name, of in whole.by.items()}
    assert whole.end() == min(ends.values())
    for rows in whole.by["full"].values():
        for row in rows:
            row["virtual_time"] /= 2
    assert whole.end() == ends["full"] / 2
    whole.facts["full"]["reached"] = [0, 10]
    assert whole.end() == ends["dybw"]
    never = board("never reached")
    assert never.end() == max(rows[-1]["virtual_time"] for of in never.by.values() for rows in of.values())


def test_the_error_is_drawn_at_the_rows():
    from matplotlib.figure import Figure

    whole = board("one world")
    ax = Figure().subplots()
    curves(ax, whole, "virtual_time", "error")
    for line, name in zip(ax.get_lines(), whole.policies, strict=True):
        rows = whole.by[name][0]
        np.testing.assert_array_equal(line.get_xdata(), [row["virtual_time"] for row in rows])
        np.testing.assert_allclose(line.get_ydata(), [1 - row["test_accuracy"] for row in rows])


def test_an_accuracy_of_one_fits_a_log_axis():
    rows, summary, timelines = fakes.run(["dybw", "full"])
    for row in rows:
        row["test_accuracy"] = min(1.0, row["test_accuracy"] * 1.05)
    whole = Board(rows, summary, timelines, fakes.network())
    with style.house_style():
        figure, axes = style.new_figure(85, 60)
        quality(axes[0, 0], whole)
        drawn(figure)
    assert axes[0, 0].get_ylim()[0] > 0


def test_iteration_lengths_are_printed_and_marked():
    whole = board("ten worlds")
    with style.house_style():
        left, right = run_figures._iteration_length(whole, style.PAGE).axes
    for name in FIVE:
        pooled = np.concatenate([world["length"] for world in whole.timelines[name].values()]).astype(np.float64)
        middle, most = np.quantile(pooled, [0.5, 0.95])
        assert f"{middle:.3g} | {most:.3g}" in said_in(right)
        marks = [line.get_xdata() for line in left.get_lines() if list(line.get_ydata()) == [0.5, 0.95]]
        assert any(np.allclose(mark, [middle, most]) for mark in marks)
    whole.timelines["dybw"] = {}
    with style.house_style():
        _, right = run_figures._iteration_length(whole, style.PAGE).axes
    assert "no iteration ended" in said_in(right)


def test_a_rule_has_one_colour_whatever_else_is_drawn():
    everything = style.looks(FIVE + FORTY)
    for some in (["full", "dybw"], FIVE[::-1], ["rule3", "dybw:late=carry"]):
        for name, look in style.looks(some).items():
            assert look["color"] == style.colour(name) == everything.get(name, look)["color"]
    assert style.colour("dybw:late=carry") == style.colour("dybw") != style.colour("full")
    first = [style.looks([name])[name] for name in ("dybw", "full", "backup:b=1", "fastest:k=2", "deadline:seconds=1")]
    assert len({look["color"] for look in first}) == len({str(look["linestyle"]) for look in first}) == 5
    others = {style.colour(f"rule{i}") for i in range(100)}
    assert len(others) == 6
    assert not others & {look["color"] for look in first}


def test_lines_of_one_colour_differ_in_dashes_and_markers():
    variants = ["dybw", *(f"dybw:late=carry,gap={gap}" for gap in range(6))]
    looks, markers = style.looks(variants), style.markers(variants)
    assert len({str(look["linestyle"]) for look in looks.values()}) == len(variants) == len(set(markers.values()))


def test_figures_keep_the_colours():
    whole = board("ten worlds")
    with style.house_style():
        figure = run_figures.draw_summary(whole)
        for line, policy in zip(figure.legends[0].get_lines(), FIVE, strict=True):
            assert to_hex(line.get_color()) == style.colour(policy).lower()
        curve = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 50]
        assert [to_hex(line.get_color()) for line in curve] == [style.colour(name).lower() for name in FIVE]


def test_colours_have_contrast_on_white():
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert style.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    for shade in (*style._COLOURS.values(), *style._OTHERS, style.GREY):
        assert style.contrast(shade, "#ffffff") >= 3, shade
    for shade in ("#ffffff", "#08306b", "#67000d", "#f7fbff", "#6baed6"):
        assert style.contrast(to_hex(style.ink_on(shade)), shade) >= 4.5


@pytest.mark.parametrize(
    ("name", "shown"),
    [("g$\\nosuch$.csv", "g$\\nosuch$.csv"), ("a_b^c", "a_b^c"), ("$", "$"), ("\\$x$", "\\$x$"), ("a\nb", "a\\nb")],
)
def test_names_are_drawn_as_they_stand(name, shown):
    """The picture of a name is the picture of its characters, with Matplotlib's mathematics switched off."""
    pictures = []
    for text, parsed in ((style.plain(name), True), (shown, False)):
        with style.house_style():
            figure, axes = style.new_figure(85, 20)
            axes[0, 0].set_axis_off()
            axes[0, 0].text(0, 0.5, text, parse_math=parsed)
            drawn(figure)
            pictures.append(np.asarray(figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)


def test_long_names_keep_their_ends_and_stay_distinct():
    assert style.plain("x" * 30 + "$end", 11) == "xxxxx…x\\$end"
    assert style.plain("short", 11) == "short"
    shown = style.labels([LONG, LONG.replace("weights", "w_ights"), "full"], 20)
    assert len(set(shown.values())) == 3
    assert all(len(label.replace("\\$", "$")) <= 20 for label in shown.values())


def test_files_are_whole_and_the_same_every_time(tmp_path):
    policies, options, network = CASES["ten worlds"]
    kept = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        data = fakes.run(policies, **options, rows_each=10)
        files = write_figures(folder, *data, fakes.network(**network), ("png", "pdf", "svg"))
        assert [path.name for path in files[:3]] == ["summary.png", "summary.pdf", "summary.svg"]
        assert sorted(path.name for path in files) == sorted(path.name for path in folder.iterdir())
        kept.append({path.name: path.read_bytes() for path in files})
    assert kept[0] == kept[1]
    assert {name.split(".")[0] for name in kept[0]} == set(run_figures.FIGURES)
    for name, content in kept[0].items():
        if name.endswith("png"):
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            assert content.endswith(b"IEND\xaeB`\x82")
            width, _ = struct.unpack(">II", content[16:24])
            assert abs(width - (85 if name == "network.png" else 180) / 25.4 * 200) <= 1
            assert b"tEXt" not in content
        else:
            assert content.startswith(b"%PDF" if name.endswith("pdf") else b"<?xml")
            assert not re.search(rb"CreationDate|<dc:date>|20[2-9]\d-\d\d-\d\d", content)


def test_a_task_without_accuracy_has_no_such_figure(tmp_path):
    data = fakes.run(["full"], accuracy=False, rows_each=10)
    names = [path.stem for path in write_figures(tmp_path, *data, fakes.network())]
    assert names == [name for name in run_figures.FIGURES if name != "accuracy"]


def test_what_cannot_be_drawn_is_one_line(tmp_path):
    rows, summary, timelines = fakes.run(["full"], rows_each=10)
    graph = fakes.network()
    with pytest.raises(ValueError, match=r"summary\.png cannot be written \(No such file"):
        write_figures(tmp_path / "none", rows, summary, timelines, graph)
    with pytest.raises(ValueError, match="as 'jpg'; use png, pdf, svg"):
        write_figures(tmp_path, rows, summary, timelines, graph, ("jpg",))
    with pytest.raises(ValueError, match="20 mm wide; use 60 to 600"):
        write_figures(tmp_path, rows, summary, timelines, graph, width_mm=20)
    with pytest.raises(ValueError, match="no rows to draw"):
        write_figures(tmp_path, [], summary, timelines, graph)
    with pytest.raises(ValueError, match="one cell, not 2"):
        write_figures(tmp_path, rows, summary | {"cells": summary["cells"] * 2}, timelines, graph)
    assert list(tmp_path.iterdir()) == []


def test_a_spanning_path_goes_round_the_circle():
    rng = np.random.default_rng(0)
    order = rng.permutation(12)
    path = list(itertools.pairwise(order.tolist()))
    rng.shuffle(path)
    graph = networkx.compose(networkx.Graph(map(tuple, path)), networkx.gnp_random_graph(12, 0.3, seed=2))
    adjacency = networkx.to_numpy_array(graph, nodelist=range(12), dtype=bool)
    places = _layout(GraphPicture(adjacency, path, is_path=True))
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1)
    steps = [np.linalg.norm(places[i] - places[j]) for i, j in path]
    np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 12))  # each link of the path is a side of the 12-gon


def test_positions_of_the_caller_are_kept_up_to_scale():
    from matplotlib.figure import Figure

    positions = np.array([[0, 0], [4, 0], [4, 2], [0, 2]], float)
    adjacency = networkx.to_numpy_array(networkx.cycle_graph(4), dtype=bool)
    ax = Figure().subplots(squeeze=False)[0, 0]
    draw_graph(ax, GraphPicture(adjacency, positions=positions))
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), [[-1, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]])
    assert len(ax.collections[0].get_segments()) == 4


def test_nodes_have_the_colour_of_their_speed():
    with style.house_style():
        figure, axes = style.new_figure(85, 85)
        draw_graph(axes[0, 0], fakes.network())
        drawn(figure)
    (nodes,) = [found for found in axes[0, 0].collections if found.get_array() is not None]
    light = nodes.get_facecolors()[:, :3] @ (0.3, 0.6, 0.1)
    assert light.argmin() == 0  # the slow worker
    with style.house_style():
        figure, axes = style.new_figure(85, 85)
        draw_graph(axes[0, 0], fakes.network()._replace(seconds=np.ones(10)))
        assert_nothing_is_cut(*drawn(figure))


def test_a_large_network_is_quick(tmp_path):
    import time

    graph = networkx.random_regular_graph(4, 5000, seed=0)
    near = np.array([[node, *graph[node]] for node in range(5000)])
    picture = GraphPicture(near, [(i, i + 1) for i in range(4999)], True, np.linspace(1, 2, 5000))
    with style.house_style():
        figure, axes = style.new_figure(85, 85)
        begin = time.process_time()
        draw_graph(axes[0, 0], picture)
        assert time.process_time() - begin < 3
        assert_nothing_is_cut(*drawn(figure))
    assert "1 to 2 s a worker" in said_in(axes[0, 0])


@pytest.mark.parametrize(
    ("low", "high"), [(0.95, 1.06), (0.9, 1.3), (0.5, 4), (0.2, 9), (0.05, 40), (1e-4, 1e4), (0.99, 1.15)]
)
def test_ratios_have_few_round_ticks_and_one_is_neutral(low, high):
    ticks = scales.ratio_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert 1 in ticks
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(0.018, 1), (0.1, 0.13), (3.01, 3.04), (1e-6, 1e5), (0.5, 30)])
def test_log_axes_have_ticks(low, high):
    ticks = scales.log_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)
