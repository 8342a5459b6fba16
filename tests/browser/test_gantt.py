"""Who waited for whom in a browser: the chart by mouse and keyboard, its totals, and the network's slider."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dbwjax.network.graphs import build_graph
from dbwjax.report.network import GraphPicture
from dbwjax.report.page.make import page_of
from dbwjax.report.waits import cells_of, totals
from tests.browser.conftest import SIZES
from tests.pages import EVIL, material
from tests.timelines import timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WORKERS = 6
SPECS = ["dybw:late=drop", "ssp:bound=1", "full"]
RING = build_graph("ring", WORKERS)
PICTURE = GraphPicture(
    *(np.asarray(RING.neighbours), [(n, n + 1) for n in range(5)], True, np.arange(1.0, 7.0)),
    names=[EVIL, *map(str, range(1, WORKERS))],
)
CHART = ".gantt-figure:not([hidden]) .gantt"


@pytest.fixture(scope="module")
def kept():
    seconds = (np.random.default_rng(0).pareto(2.5, (WORKERS, 200)) + 0.5).astype(np.float32)
    return {spec: timeline(spec, RING, seconds, 420 if "ssp" in spec else 60) for spec in SPECS}


@pytest.fixture(scope="module")
def file(kept, tmp_path_factory):
    path = tmp_path_factory.mktemp("gantt") / "report.html"
    found = material(SPECS, workers=WORKERS, network=PICTURE)
    change = {"estimate": 0.79, "low": 0.75, "high": 0.83}
    told = {spec: {"workers": [{"worker": 0, **change}], "worst": change} for spec in SPECS[1:]}
    kept_by = {
        spec: {**found.timelines[spec], "0": {**found.timelines[spec]["0"], **one}} for spec, one in kept.items()
    }
    path.write_text(page_of(found._replace(timelines=kept_by, what_if={"policies": told}, iterations=(2, 4))))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_everybody_can_read_it(file, opened, accessible, scheme, width, height):
    page = opened(file, width, height, scheme)
    for spec in range(len(SPECS)):
        page.select_option(".gantt-policy", str(spec))
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() == 0
    assert EVIL in page.locator("#waits").inner_text()


def test_arrow_keys_walk_and_enter_goes_to_the_cause(file, opened, kept):
    cells = cells_of(kept["dybw:late=drop"])
    page = opened(file)
    page.focus(CHART)
    keyboard, told = page.keyboard, page.locator(".gantt-cell")
    for _ in range(40):
        keyboard.press("ArrowRight")
        if "due to worker" in told.inner_text() and page.locator(".gantt-cause").is_enabled():
            break
    words = re.match(r"Worker (\d+), iteration (\d+): .* due to worker (\d+)", told.inner_text())
    worker, step, cause = map(int, words.groups())
    cell = np.flatnonzero((cells.worker == worker) & (cells.step == step))[0]
    assert cause == cells.cause[cell]
    assert page.locator("#live").inner_text() == told.inner_text()
    assert page.locator(f"{CHART} .gantt-mark line").count() == 1  # the arrow
    keyboard.press("Enter")
    assert told.inner_text().startswith(f"Worker {cause}, iteration {step}:")
    keyboard.press("ArrowDown")
    below = min(cause + 1, WORKERS - 1)
    assert told.inner_text().startswith(f"Worker {below},")


def test_a_range_adds_up_by_keyboard_and_by_mouse(file, opened, kept):
    page = opened(file)
    page.select_option(".gantt-policy", "2")
    page.select_option(".gantt-view", "first")
    page.focus(CHART)
    for key in ("Home", "Home", "[", "End", "]"):
        page.keyboard.press(key)
    cells = cells_of(kept["full"])
    sums = totals(cells, cells.step < 20)
    rows = page.locator(".gantt-range tbody tr")
    assert rows.count() == WORKERS + 1
    shown = [float(text) for text in rows.first.locator("td").all_inner_texts()[:4]]
    assert shown == pytest.approx([sums.computing.sum(), 0, sums.waiting.sum(), 0], rel=0.006)
    most = int(sums.due.sum(axis=0).argmax())
    assert f"worker {most}" in rows.first.inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".gantt-range").is_hidden()
    box = page.locator(f"{CHART} svg").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60)
    page.mouse.up()
    assert page.locator(".gantt-range").is_visible()
    assert page.locator(".gantt-span").count() >= 1


def test_a_click_chooses_what_lies_there_and_zoom_keeps_it_in_sight(file, opened):
    page = opened(file)
    page.select_option(".gantt-view", "slowest")
    page.locator(CHART).scroll_into_view_if_needed()
    box = page.locator(f"{CHART} svg").bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
    text = page.locator(".gantt-cell").inner_text()
    assert text.startswith("Worker ")
    width = box["width"]
    page.click(".gantt-in")
    page.focus(CHART)
    page.keyboard.press("+")
    assert page.locator(f"{CHART} svg").bounding_box()["width"] == pytest.approx(4 * width, rel=0.02)
    frame, outer = page.locator(f"{CHART} .frame").bounding_box(), page.locator(CHART).bounding_box()
    assert outer["x"] - 2 <= frame["x"] <= outer["x"] + outer["width"]
    page.click(".gantt-out")
    page.keyboard.press("-")
    assert page.locator(".gantt-cell").inner_text() == text


def test_the_buttons_do_what_the_keys_do(file, opened):
    page = opened(file)
    assert page.locator(".gantt-cause").is_disabled()
    page.focus(CHART)
    page.keyboard.press("ArrowRight")
    page.click(".gantt-from")
    page.focus(CHART)
    page.keyboard.press("End")
    page.click(".gantt-to")
    assert page.locator(".gantt-range table").is_visible()
    page.click(".gantt-clear")
    assert page.locator(".gantt-range").is_hidden()


def test_rule_and_view_are_chosen_by_name(file, opened):
    page = opened(file)
    assert page.locator(".gantt-view option").all_inner_texts()[0] == "iterations 2 to 4"
    page.select_option(".gantt-policy", "1")
    page.select_option(".gantt-view", "even")
    assert page.locator(".gantt-figure:visible").count() == 1
    assert "four stretches" in page.locator(".gantt-figure:visible figcaption").inner_text()
    lost = page.locator(".by-policy:visible table")
    assert lost.count() == 1
    assert "ssp:bound=1" in lost.inner_text()
    assert "-21 % [-25, -17]" in lost.inner_text()


def test_the_slider_lights_who_is_active(file, opened, kept):
    page = opened(file)
    active = kept["dybw:late=drop"]["active"]
    slider = page.locator(".network-step")
    slider.focus()
    for step in (1, 2):
        page.keyboard.press("ArrowRight")
        assert page.locator(".node-active").count() == active[step].sum()
        assert f"Step {step} ends at" in page.locator(".network-told").inner_text()
    assert "of 5 links of the spanning path established" in page.locator(".network-told").inner_text()
    page.click(".network-play")
    for _ in range(50):  # (the page allows no script of others, so nothing can be waited for in it)
        if int(slider.input_value()) > 2:
            break
        page.wait_for_timeout(100)
    assert int(slider.input_value()) > 2
    page.click(".network-play")
    assert page.locator(".network-play").inner_text() == "Play"


def test_on_paper_every_rule_has_its_first_chart_and_its_table(file, opened):
    page = opened(file)
    page.emulate_media(media="print")
    assert page.locator(".gantt-figure:visible").count() == len(SPECS)
    assert page.locator("#waits table:visible").count() == len(SPECS)
    assert page.locator(".gantt-controls").is_hidden()
