"""Figures of sweeps: cells are not pooled, categories have no lines, and a cell without a value says why."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from dbwjax.report import style, sweep_figures
from dbwjax.report.sweep_figures import _LENGTH, _TARGET, write_figures
from tests import fakes
from tests.test_plots import assert_nothing_is_cut, drawn, said_in

GRAPHS = ["ring", "random_regular:degree=4", "file:path=g$\\nosuch$_a.csv"]
DELAYS = ["exponential", "shifted_exponential:shift=1,scale=0.5*slow:factor=5"]
RATES = [0.01, 0.03, 0.1, 0.3]
CASES = {
    "timing": {"axes": {"graph": GRAPHS, "delays": DELAYS}, "kind": "timing"},
    "learning": {
        "axes": {"graph": GRAPHS, "learning_rate": RATES},
        "unreached": {(0, "full"): 10, (0, "dybw"): 10, (1, "full"): 4, (2, "dybw"): 2},
        "diverged": {(3, "backup:b=1"): 2},
    },
    "three axes": {
        "axes": {"graph": GRAPHS[:2], "delays": DELAYS, "learning_rate": [0.1, 0.3]},
        "policies": ("dybw", "full"),
        "worlds": 1,
    },
    "one policy": {"axes": {"learning_rate": RATES[:3]}, "policies": ("dybw",), "unreached": {(2, "dybw"): 3}},
    "numbers": {"axes": {"workers": [8, 16, 32, 64]}},
}


def figures(case):
    """Every figure of a sweep, by name, with its layout settled."""
    found = {}
    with pytest.MonkeyPatch.context() as patch, style.house_style():
        patch.setattr(style, "save", lambda figure, folder, name, formats: [found.setdefault(name, figure)])
        write_figures(".", *fakes.sweep(**CASES[case]))
        return {name: drawn(figure) for name, figure in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_cut_or_covered(case):
    for figure, renderer in figures(case).values():
        assert_nothing_is_cut(figure, renderer)


def test_there_is_one_figure_for_each_axis_and_a_heat_map(tmp_path):
    summary, rows = fakes.sweep(**CASES["timing"])
    names = ["iteration_length-graph", "iteration_length-delays", "iteration_length-heatmap"]
    kept = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        files = write_figures(folder, summary, rows, ("png", "pdf", "svg"))
        assert [path.name for path in files] == [f"{name}.{kind}" for name in names for kind in ("png", "pdf", "svg")]
        kept.append([path.read_bytes() for path in files])
    assert kept[0] == kept[1]
    alone = fakes.sweep({"graph": ["ring"]})
    assert write_figures(tmp_path, *alone) == []
    with pytest.raises(ValueError, match="as 'jpg'; use png, pdf, svg"):
        write_figures(tmp_path, summary, rows, ("jpg",))


def lines_between_points(ax):
    """Lines of a visible dash that join several categories or numbers."""
    joined = [line for line in ax.get_lines() if line.get_linestyle() != "None" and len(line.get_xdata()) > 2]
    return [line for line in joined if line.get_visible()]


def test_no_line_goes_through_categories_but_one_may_through_numbers():
    found = figures("learning")
    for ax in found["time_to_target-graph"][0].axes:
        assert lines_between_points(ax) == []
        assert {round(y) for line in ax.get_lines() for y in line.get_ydata() if len(line.get_xdata()) > 2} <= {0, 1, 2}
    left, right = found["time_to_target-learning_rate"][0].axes[:2]
    assert len(lines_between_points(left)) == 3
    assert len(lines_between_points(right)) == 2


def test_cells_are_not_pooled():
    figure, _ = figures("three axes")["time_to_target-graph"]
    assert len(figure.axes) == 2 * 4  # seconds and ratios for each of two delays and two learning rates
    notes = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert sum("learning rate: 0.1" in note for note in notes) == 2
    summary, _ = fakes.sweep(**CASES["three axes"])
    first = summary["cells"][0]["policies"]
    seconds = [line.get_xdata()[0] for line in figure.axes[0].get_lines()]
    np.testing.assert_allclose(seconds, [first["dybw"]["time_to_target"], first["full"]["time_to_target"]])


def test_whiskers_are_the_intervals_of_the_summary():
    figure, _ = figures("timing")["iteration_length-graph"]
    summary, _ = fakes.sweep(**CASES["timing"])
    drawn_ends = {
        tuple(line.get_xdata()) for ax in figure.axes for line in ax.get_lines() if len(line.get_xdata()) == 2
    }
    for cell in summary["cells"]:
        for name in ("dybw", "backup:b=1"):
            interval = cell["policies"][name]["iteration_ratio"]
            assert (interval["low"], interval["high"]) in drawn_ends
    assert "ranks speed, not learning" in said_in(figure.axes[1])
    assert "no interval" in said_in(figures("three axes")["time_to_target-graph"][0].axes[1])


def test_a_heat_map_is_neutral_at_one_and_every_cell_speaks():
    figure, _ = figures("learning")["time_to_target-heatmap"]
    maps = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title("left") for ax in maps] == ["dybw", "backup:b=1"]
    for ax in maps:
        norm = ax.images[0].norm
        assert isinstance(norm, LogNorm)
        assert norm(1.0) == pytest.approx(0.5)
        shade = ax.images[0].cmap(0.5)[:3]
        assert min(shade) > 0.95  # white
        centres = {
            (round(text.get_position()[0]), round(text.get_position()[1])) for text in ax.texts if text.get_text()
        }
        assert {(x, y) for x in range(3) for y in range(4)} <= centres
    said = said_in(maps[0]).replace("\n", " ")
    assert "reached 0 of 10" in said
    assert "n = 10" in said
    assert "≥ " in said
    assert "≤ " in said
    (bar,) = [ax for ax in figure.axes if "rule is faster" in ax.get_ylabel()]
    assert bar.get_ylabel().startswith("time to target: full / rule")


def test_why_a_cell_is_empty():
    facts = {"diverged": 0, "reached": [3, 10], "iteration_length": 1.0}
    cell = {"worlds": 10, "policies": {"dybw": facts}}
    assert sweep_figures._why(None, "dybw", _TARGET) == "not run"
    assert sweep_figures._why(cell, "dybw", _TARGET) == "reached 3 of 10"
    facts["diverged"] = 2
    assert sweep_figures._why(cell, "dybw", _TARGET) == "2 of 10 diverged"
    facts |= {"diverged": 0, "iteration_length": None}
    assert sweep_figures._why(cell, "dybw", _LENGTH) == "no iteration"


def test_small_print_names_the_limits_that_there_are():
    one = {"low": 1.0, "high": 2.0, "worlds": 10, "clusters": 10}
    assert sweep_figures._small_print(one) == "1.00 to 2.00\nn = 10"
    assert sweep_figures._small_print(one | {"high": None}) == "from 1.00\nn = 10"
    assert sweep_figures._small_print(one | {"low": None, "clusters": 5}) == "up to 2.00\nn = 10 in 5"
    assert sweep_figures._small_print(one | {"low": None, "high": None}) == "n = 10"


def test_more_panels_than_fit_are_counted():
    many = {"graph": ["ring", "path"], "delays": [f"law:x={i}" for i in range(30)]}
    summary, rows = fakes.sweep(many, ("dybw", "full"), "timing", worlds=2)
    found = {}
    with pytest.MonkeyPatch.context() as patch, style.house_style():
        patch.setattr(style, "save", lambda figure, folder, name, formats: [found.setdefault(name, figure)])
        write_figures(".", summary, rows)
    assert "24 of 30 combinations" in found["iteration_length-graph"]._suptitle.get_text()
    assert len(found["iteration_length-delays"].axes) == 4
