"""Pages in a browser: every control by mouse and keyboard, for everybody, on every screen, and nothing leaves them."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from dbwjax.report.page.make import page_of
from dbwjax.report.page.several import page_of_several
from dbwjax.report.statistics import summarise
from tests.browser.conftest import SIZES
from tests.pages import EVIL, material

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

FOUR = ["dybw", "fastest:k=6", "full:barrier=neighbours", "full"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A page of a run, of names that are markup, of a comparison, and of a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    run = material(FOUR, worlds=3, rows_each=30)
    evil = material([EVIL, f"full:{EVIL}"], EVIL, worlds=3, rows_each=10, unreached={EVIL: 1})
    graphs = ("ring", "complete")
    worlds = [{"graph": graph, "seed": one["world"], "hashes": one["hashes"]} for graph in graphs for one in run.worlds]
    rows = [
        {"policy": row["policy"], "graph": graph, "seed": row["world"], **rest(row)}
        for graph in graphs
        for row in run.rows
    ]
    cells = run._replace(rows=rows, worlds=worlds, summary=summarise(rows, worlds, FOUR, "full", 0.9))
    texts = {
        "run": page_of(run),
        "evil": page_of(evil),
        "several": page_of_several([run, evil._replace(name="b")], "today"),
        "sweep": page_of(cells),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


def rest(row):
    return {name: value for name, value in row.items() if name not in ("policy", "world")}


@pytest.mark.parametrize("kind", ["run", "evil", "several", "sweep"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_everybody_can_read_it(files, opened, accessible, kind, scheme, width, height):
    page = opened(files[kind], width, height, scheme)
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg.drawing text')].filter((t) => t.getClientRects().length)"
        ".map((t) => [t.getScreenCTM(), parseFloat(getComputedStyle(t).fontSize)])"
        ".map(([m, size]) => size * Math.hypot(m.a, m.b))"
    )
    assert min(sizes) > 6
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_names_that_are_markup_stay_text(files, opened):
    for kind in ("evil", "several"):
        page = opened(files[kind])
        assert page.locator("img").count() == 0
        assert EVIL in page.locator("body").inner_text()


def test_every_section_with_a_script_has_started(files, opened):
    for file in files.values():
        page = opened(file)
        scripted = page.evaluate('[...document.scripts].at(-1).textContent.match(/page\\.section\\("[a-z-]+"/g)')
        assert scripted
        assert page.locator("[data-started]").count() == len(scripted)


def column(page, place):
    return page.locator(f"#comparison tbody tr > :nth-child({place})").all_inner_texts()


def test_the_table_is_sorted_by_mouse_and_keyboard(files, opened):
    page = opened(files["run"])
    page.locator("#comparison thead button").nth(1).click()
    times = [float(text) for text in column(page, 2)]
    assert times == sorted(times)
    assert page.locator("#comparison th[aria-sort=ascending]").inner_text().startswith("to target")
    page.keyboard.press("Enter")
    assert [float(text) for text in column(page, 2)] == sorted(times, reverse=True)
    assert "descending" in page.locator("#live").inner_text()
    page.locator("#comparison thead button").nth(0).press(" ")
    names = [text.split()[0] for text in column(page, 1)]
    assert names == sorted(names)
    page.locator("#comparison thead button").nth(2).click()  # what has no ratio stands last, both ways
    assert column(page, 3)[-1] == "-"
    page.locator("#comparison thead button").nth(2).click()
    assert column(page, 3)[-1] == "-"


def shown(page):
    return [one.get_attribute("data-chart") for one in page.locator("#curves .chart").all() if one.is_visible()]


def test_curves_change_by_mouse_and_keyboard(files, opened):
    page = opened(files["run"])
    assert shown(page) == ["accuracy-time-log"]
    page.get_by_label("loss", exact=True).check()
    page.get_by_label("iterations", exact=True).check()
    assert shown(page) == ["loss-iterations-log"]
    page.get_by_role("radio", name="log").focus()
    page.keyboard.press("ArrowRight")
    assert shown(page) == ["loss-iterations-linear"]
    line = page.locator("#loss-iterations-linear-rule-1")
    assert line.is_visible()
    box = page.locator('#curves input[type="checkbox"]').nth(1)
    box.focus()
    page.keyboard.press(" ")
    assert not line.is_visible()
    assert "fastest:k=6" not in page.locator(".readout").inner_text()
    box.check()
    assert line.is_visible()


def test_values_are_told_by_hover_and_by_keyboard(files, opened):
    page = opened(files["run"])
    cursor = page.locator("#curves-cursor")
    cursor.focus()
    page.keyboard.press("Home")
    assert cursor.get_attribute("aria-valuetext") == "0 s"
    at_start = page.locator(".readout tbody tr").all_inner_texts()
    assert len(at_start) == len(FOUR)
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    assert page.locator(".readout tbody tr").all_inner_texts() != at_start
    assert page.locator(".cursor-mark circle:visible").count() == len(FOUR)
    before = cursor.input_value()
    page.locator('[data-chart="accuracy-time-log"] svg').hover(position={"x": 300, "y": 100})
    assert cursor.input_value() != before
    # At the end of the axis every rule still has a value.
    page.keyboard.press("End")
    values = [float(text) for text in page.locator(".readout tbody td:nth-child(2)").all_inner_texts()]
    assert values == sorted(values, reverse=True)


def test_a_focus_is_seen_and_everything_is_reached_by_tab(files, opened):
    page = opened(files["run"])
    wanted = page.evaluate(
        "[...document.querySelectorAll('a, button, input, summary')].filter((e) => e.checkVisibility()).length"
    )
    seen, radios = set(), page.locator("input[type=radio]:not(:checked)").count()
    for _ in range(wanted + 20):
        page.keyboard.press("Tab")
        told = page.evaluate(
            "(() => { const e = document.activeElement; if (e === document.body) return null;"
            " const all = [...document.querySelectorAll('*')];"
            " return [all.indexOf(e), getComputedStyle(e).outlineStyle]; })()"
        )
        if told is None:
            break
        seen.add(told[0])
        assert told[1] != "none"
    assert len(seen) >= wanted - radios


def test_filters_hide_what_does_not_match(files, opened):
    page = opened(files["sweep"])
    page.locator("#filter").fill("no such cell")
    assert page.locator(".cell:visible").count() == 0
    page.locator("#filter").fill("COMPLETE")
    assert page.locator(".cell:visible").count() == 1
    page = opened(files["several"])
    page.locator("#filter").fill("made-up")
    assert page.locator("#comparison tbody tr:visible").count() == len(FOUR)


def test_downloads_are_in_the_page(files, opened):
    page = opened(files["run"])
    with page.expect_download() as waiting:
        page.get_by_role("link", name="table.csv").click()
    assert waiting.value.suggested_filename == "table.csv"
    assert waiting.value.path().read_text().startswith("policy,time_to_target")


def test_paper_shows_everything(files, opened):
    page = opened(files["run"], scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert len(shown(page)) == 8
    assert not page.locator("#curves .controls").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("details:not([open])").count() == 0


def test_a_thousand_workers_and_iterations_stay_small(opened, tmp_path):
    policies, rng = ["dybw", "full"], np.random.default_rng(0)
    made = material(policies, worlds=2, rows_each=100, workers=10)
    arrays = {
        "length": rng.exponential(size=1000).astype(np.float32),
        "backup_workers": rng.random(1000).astype(np.float32),
        "active": rng.random((1000, 1000)) < 0.5,
        "worker_age": rng.random(1000),
        "worker_counted": rng.integers(1, 1000, 1000).astype(np.float64),
    }
    made = made._replace(timelines={spec: {str(world): arrays for world in range(2)} for spec in policies})
    before = time.process_time()
    text = page_of(made)
    print(f"\n1,000 workers x 1,000 iterations: {time.process_time() - before:.2f} s, {len(text.encode()):,} bytes")
    assert len(text.encode()) < 2_000_000
    (tmp_path / "page.html").write_text(text)
    opened(tmp_path / "page.html")
