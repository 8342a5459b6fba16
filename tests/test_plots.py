"""Figures: what they show is the data, a policy has one colour everywhere, and nothing is clipped or covered."""

from __future__ import annotations

import itertools
import struct

import networkx
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from dbwjax.report import run_figures
from dbwjax.report.network import GraphPicture, _layout
from dbwjax.report.run_figures import write_figures
from dbwjax.storage.run_folder import FIGURES

LONG = "dybw:late=carry,weights=metropolis,path=/somewhere/with/$a/very/long/name/of_a_file_with_links.csv"
EIGHT = [
    "dybw",
    "dybw:late=carry",
    "dybw:late=apply",
    "backup:b=2",
    "fastest:k=4",
    "deadline:seconds=1.5",
    "dpsgd",
    "full",
]


def fake(policies, steps=120, every=20, nodes=10, accuracy=True, scale=1.0, heavy=False):
    """Rows and timelines as a run leaves them."""
    rng = np.random.default_rng(0)
    compute = 0.5 + (rng.pareto(1.1, (steps, nodes)) if heavy else rng.exponential(1, (steps, nodes)))
    rows, timelines = [], {}
    for place, policy in enumerate(policies):
        heard = max(1, nodes * (place + 1) // len(policies))
        duration = np.sort(compute, axis=1)[:, heard - 1].astype(np.float32)
        active = compute <= duration[:, None]
        backups = (nodes - active.sum(axis=1)).astype(np.float32)
        timelines[policy] = {"duration": duration, "active": active, "backup_workers": backups}
        for step in range(0, steps + 1, every):
            progress = np.exp(-step / 40)
            rows.append(
                {
                    "policy": policy,
                    "step": step,
                    "virtual_time": float(duration[:step].sum(dtype=np.float64)),
                    "wall_time": 0.1 * step,
                    "train_loss": 2.2 * progress * scale + 0.01 if step else None,
                    "test_loss": 2.3 * progress * scale + 0.05 + 0.01 * place,
                    "test_accuracy": 1 - 0.9 * progress - 0.01 * place if accuracy else None,
                    "consensus_distance": progress,
                    "active_fraction": 0.5 if step else None,
                    "backup_workers": 1.5 if step else None,
                    "gradients": step,
                }
            )
    return rows, timelines


def picture(graph: networkx.Graph, spanning=()) -> GraphPicture:
    return GraphPicture(networkx.to_numpy_array(graph, dtype=bool), list(spanning))


RING = picture(networkx.cycle_graph(10), [(i, i + 1) for i in range(9)])
LARGE = networkx.random_regular_graph(4, 256, seed=1)
CASES = {
    "two": (["dybw", "full"], {}, RING),
    "one": (["dybw"], {}, RING),
    "eight": (EIGHT, {"heavy": True}, RING),
    "long names": ([LONG, LONG + "2", "full"], {}, RING),
    "one evaluation": (["dybw", "full"], {"steps": 5, "every": 10}, RING),
    "no accuracy": (["dybw", "full"], {"accuracy": False, "scale": 50}, RING),
    "one worker": (["dybw", "full"], {"nodes": 1}, picture(networkx.empty_graph(1))),
    "256 workers": (
        ["dybw", "full"],
        {"nodes": 256},
        picture(LARGE, networkx.minimum_spanning_edges(LARGE, data=False)),
    ),
}


def board(case: str) -> run_figures._Board:
    policies, options, graph = CASES[case]
    return run_figures._Board(*fake(policies, **options), graph, None if case == "no accuracy" else 0.9)


def drawn(figure):
    """Draws a figure, so that its layout is settled."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas.get_renderer()


@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut_and_none_covers_another_in_the_summary(case):
    with run_figures.house_style():
        figure, renderer = drawn(board(case).summary())
    width, height = figure.canvas.get_width_height()
    ticks = [tick for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.majorTicks + axis.minorTicks]
    of_ticks = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text())
    texts = [text for text in texts if id(text) not in of_ticks]
    assert len(texts) > 12
    for text in texts:
        box = text.get_window_extent(renderer)
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"'{text.get_text()}' is cut: {box} in {width} x {height}"
    titles = [text for text in texts if text.get_text().startswith(("(", "dashed"))]
    boxes = [title.get_window_extent(renderer) for title in titles]
    for i, one in enumerate(boxes):
        for j, other in enumerate(boxes[:i]):
            assert not one.overlaps(other), (titles[i].get_text(), titles[j].get_text())
    (legend,) = figure.legends
    for ax in figure.axes:
        assert not legend.get_window_extent(renderer).overlaps(ax.get_window_extent(renderer))
    for ax in figure.axes:
        shown = [label for label in ax.get_xticklabels() if 0 <= label.get_window_extent(renderer).x0 <= width]
        spans = sorted((label.get_window_extent(renderer) for label in shown), key=lambda box: box.x0)
        assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(spans)), "tick labels touch"


def test_a_policy_has_one_colour_and_all_colours_differ():
    whole = board("eight")
    looks = [(style["color"], str(style["linestyle"])) for style in whole.style.values()]
    assert len(set(looks)) == 8
    with run_figures.house_style():
        figure = whole.summary()
    for line, policy in zip(figure.legends[0].get_lines(), EIGHT, strict=True):
        assert to_hex(line.get_color()) == whole.style[policy]["color"].lower()
    loss = figure.axes[1].get_lines()
    assert [to_hex(line.get_color()) for line in loss] == [style["color"].lower() for style in whole.style.values()]


def test_curves_are_the_rows_and_the_dot_is_the_time_to_target():
    whole = board("two")
    with run_figures.house_style():
        (against_time, _) = whole.accuracy().axes
    rows = whole.rows["dybw"]
    line = against_time.get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [row["virtual_time"] for row in rows])
    np.testing.assert_array_equal(line.get_ydata(), [row["test_accuracy"] for row in rows])
    first = next(row for row in rows if row["test_accuracy"] >= 0.9)
    dots = [line for line in against_time.get_lines() if line.get_marker() == "o"]
    assert (dots[0].get_xdata()[0], dots[0].get_ydata()[0]) == (first["virtual_time"], first["test_accuracy"])
    assert against_time.get_xlabel() == "virtual time [s]"


def test_durations_are_the_distribution_function_with_the_mean_on_it():
    whole = board("two")
    with run_figures.house_style():
        (ax,) = whole.durations().axes
    seconds = whole.timelines["full"]["duration"].astype(np.float64)
    curve, dot = [line for line in ax.get_lines() if to_hex(line.get_color()) == whole.style["full"]["color"].lower()]
    x, y = np.asarray(curve.get_xdata())[1:], np.asarray(curve.get_ydata())[1:]
    np.testing.assert_allclose(y, [(seconds <= value).mean() for value in x])
    assert dot.get_xdata()[0] == pytest.approx(seconds.mean())
    assert dot.get_ydata()[0] == (seconds <= seconds.mean()).mean()


@pytest.mark.parametrize(("steps", "expected"), [(240, "log"), (120, "linear")])
def test_loss_is_logarithmic_where_it_spans_decades(steps, expected):
    rows, timelines = fake(["full"], steps=steps)
    for row in rows:
        row["train_loss"] = None
    with run_figures.house_style():
        for ax in run_figures._Board(rows, timelines, RING, None).loss().axes:
            assert ax.get_yscale() == expected


def test_backup_workers_are_means_of_windows():
    values = np.arange(7.0)
    np.testing.assert_array_equal(run_figures._window_means(values, 3), [1, 4, 6])
    assert run_figures._window_means(np.zeros(0), 3).shape == (0,)


def test_files_are_whole_pngs_and_the_same_every_time(tmp_path):
    policies, options, graph = CASES["two"]
    rows, timelines = fake(policies, **options)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = write_figures(tmp_path / name, rows, timelines, graph, 0.9)
        assert [path.name for path in files] == list(FIGURES)
    for path in files:
        content = path.read_bytes()
        assert content == (tmp_path / "one" / path.name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert min(struct.unpack(">II", content[16:24])) >= 500
        assert b"tEXt" not in content
    assert sorted(entry.name for entry in (tmp_path / "two").iterdir()) == sorted(FIGURES)


def test_a_task_without_accuracy_has_no_such_figure_and_a_missing_folder_is_one_line(tmp_path):
    rows, timelines = fake(["full"], accuracy=False)
    names = [path.name for path in write_figures(tmp_path, rows, timelines, RING, None)]
    assert names == [name for name in FIGURES if name != "accuracy.png"]
    with pytest.raises(ValueError, match=r"summary\.png cannot be written \(No such file"):
        write_figures(tmp_path / "none", rows, timelines, RING, None)


def test_a_spanning_path_goes_round_the_circle():
    rng = np.random.default_rng(0)
    order = rng.permutation(12)
    path = list(zip(order[:-1].tolist(), order[1:].tolist(), strict=True))
    rng.shuffle(path)
    graph = networkx.compose(networkx.Graph(map(tuple, path)), networkx.gnp_random_graph(12, 0.3, seed=2))
    adjacency = networkx.to_numpy_array(graph, nodelist=range(12), dtype=bool)
    places = _layout(GraphPicture(adjacency, path))
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1)
    steps = [np.linalg.norm(places[i] - places[j]) for i, j in path]
    np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 12))  # each link of the path is a side of the 12-gon


def test_positions_of_the_caller_are_kept_up_to_scale():
    from matplotlib.figure import Figure

    positions = np.array([[0, 0], [4, 0], [4, 2], [0, 2]], float)
    graph = GraphPicture(networkx.to_numpy_array(networkx.cycle_graph(4), dtype=bool), [], positions)
    ax = Figure().subplots()
    run_figures.draw_graph(ax, graph)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), [[-1, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]])
    assert len(ax.collections[0].get_segments()) == 4
