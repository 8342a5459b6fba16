"""The page that ends a run: its frame, its drawings, and what it says."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markupsafe import Markup, escape

from dbwjax import sweep, train
from dbwjax.cli import arguments, report
from dbwjax.cli import sweep as cli_sweep
from dbwjax.experiments import pages
from dbwjax.experiments.commands import command_of
from dbwjax.experiments.compare import Comparison
from dbwjax.experiments.config import TrainConfig, from_json
from dbwjax.experiments.presets import PRESETS
from dbwjax.experiments.sweep.cells import Cells
from dbwjax.report import style, table
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, document, embedded
from dbwjax.report.page.make import page_of
from dbwjax.report.page.several import compare_runs, page_of_several
from dbwjax.storage import manifest
from dbwjax.storage.parts import Parts
from tests.pages import EVIL, material

pytestmark = pytest.mark.pages

TASK = ["--workers", "4", "--graph", "complete", "--dataset", "logistic:dimension=4,samples=40", "--no-progress"]
RUN = [
    *TASK,
    "--policies",
    "dybw",
    "full",
    "--seconds",
    "30",
    "--rows",
    "6",
    "--seeds",
    "2",
    "--target-accuracy",
    "0.7",
]


class Read(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.inside = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag == "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "script"


def section(**more):
    return Section(**{"key": "some-thing", "title": "Some thing", "body": Markup("<p>x</p>"), **more})


def test_text_from_users_is_text_in_every_place():
    page = document(
        EVIL, Markup("<p>{}</p>").format(EVIL), [section(title=EVIL, body=escape(EVIL), data={EVIL: [EVIL]})]
    )
    read = Read(page)
    assert [tag for tag, _ in read.elements if tag in ("script", "img")] == ["script", "script"]
    assert json.loads(read.scripts[0]) == {EVIL: [EVIL]}
    assert json.loads(str(embedded("<!--\u2028\u2029&"))) == "<!--\u2028\u2029&"


def test_nothing_is_fetched_and_only_our_own_script_may_run():
    page = document("A page", Markup(), [section(script="root.dataset.seen = data.a;", data={"a": 1})])
    read = Read(page)
    policy = next(told["content"] for tag, told in read.elements if tag == "meta" and "http-equiv" in told)
    digest = base64.b64encode(hashlib.sha256(read.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [told for _, told in read.elements if re.match("(?i)(https?:)?//", told.get("src", ""))]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"key": "No key"}, "section key 'No key' is no anchor; use small letters"),
        ({"script": "'</ScRipt>'"}, "the script of section 'some-thing' would end its own element"),
        ({"style": "a </style>"}, "the style of section 'some-thing' would end its own element"),
    ],
)
def test_a_section_that_would_break_the_page_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        document("A page", Markup(), [section(**wrong)])
    with pytest.raises(ValueError, match="two sections have the key 'some-thing'"):
        document("A page", Markup(), [section(), section()])


def figure_of(text):
    figure, axes = style.new_figure(85, 40)
    axes[0, 0].plot([0, 1], [0, 1], **style.looks(["full"])["full"])
    axes[0, 0].set_title(style.plain(text))
    return figure


def test_a_drawing_has_text_as_text_ids_of_its_own_and_the_colours_of_the_page():
    told = 'full:id="a" url(#b) #000000 <script>'
    with style.house_style():
        drawn = str(drawing.svg_of(figure_of(told), EVIL, "mine"))
        assert drawn == drawing.svg_of(figure_of(told), EVIL, "mine")
    read = Read(drawn)
    assert ("svg", {**read.elements[0][1], "role": "img", "aria-label": EVIL}) == read.elements[0]
    assert not [tag for tag, _ in read.elements if tag in ("script", "style", "metadata")]
    ids = [told["id"] for _, told in read.elements if "id" in told]
    assert ids
    assert all(one.startswith("mine-") for one in ids)
    used = {word for _, told in read.elements for word in re.findall(r"url\(#([^)]+)\)", str(told))}
    used |= {told["href"].removeprefix("#") for _, told in read.elements if "href" in told}
    assert used
    assert used <= set(ids)
    looks = "".join(f"{told}" for _, told in read.elements)
    assert drawing.policy_colour("full:barrier=neighbours") in looks
    assert not re.search("#[0-9a-f]{6}", looks.replace(str(escape(EVIL)), ""))
    assert html.escape(told, quote=False) in drawn


# Of runs and sweeps


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run, with its page."""
    folder = tmp_path_factory.mktemp("page") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbwjax.experiments.run.write_figures", lambda path, *_, **__: [path / "summary.png"])
        assert train.main([*RUN, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of clocks, with its page."""
    folder = tmp_path_factory.mktemp("page") / "sweep"
    words = ["--graphs", "ring", "complete", "--policies", "dybw", "full", "--workers", "4", "--seconds", "20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbwjax.report.sweep_figures.write_figures", lambda *_, **__: [])
        assert sweep.main([*words, "--seeds", "2", "--timing-only", "--no-progress", "--out", str(folder)]) == 0
    return folder


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"(?s)<(script|style).*?</\1>", "", page)))


def command_in(page):
    return html.unescape(re.search("<pre><code>(python .*?)</code>", page)[1])


@pytest.mark.parametrize("kind", ["ran", "swept"])
def test_a_page_made_later_is_the_one_that_the_run_left(kind, request, tmp_path, capsys):
    left = request.getfixturevalue(kind)
    folder = tmp_path / left.name
    shutil.copytree(left, folder)
    page = (folder / "report.html").read_bytes()
    assert report.main([str(folder), "--out", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").read_bytes() == page
    (folder / "report.html").unlink()
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out.endswith(f"page: {folder / 'report.html'}\n")
    assert (folder / "report.html").read_bytes() == page
    _, run = manifest.read_config(folder, "")
    manifest.require_whole(folder, run)
    (folder / "report.html").write_bytes(page + b" ")
    with pytest.raises(ValueError, match="report.html has changed"):
        manifest.require_whole(folder, run)


def test_the_page_has_every_number_of_the_table(ran):
    page = text_of((ran / "report.html").read_text())
    summary = json.loads((ran / "summary.json").read_text())
    shown = {column.show(facts) for column in table.columns_of(summary) for facts in summary["policies"].values()}
    assert len(shown) > 10
    assert [one for one in shown if one not in page] == []
    assert "2 waiting rules in 2 worlds" in page


def test_the_command_on_a_page_is_the_run_s(ran, swept):
    for folder, parse, kind in ((ran, arguments.parse, "config"), (swept, cli_sweep.parse, "sweep")):
        words = shlex.split(command_in((folder / "report.html").read_text()))
        assert words[:2] == ["python", "-m"]
        config = parse(words[3:])[0]
        kept = json.loads((folder / "config.json").read_text())[kind]
        assert config == (from_json(kept) if kind == "config" else pages._config({kind: kept}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seconds": None, "steps": 100, "eval_every": 20},
        {"steps": 100, "seconds": None, "rows": 7},
        {"policies": ("dybw", "a b:path='$x y'"), "baseline": "dybw", "until_target": True, "learning_rate": 1e-7},
        {"bandwidth": 1e6, "latency": 0.25, "seed": 7, "pca": 3, "dtype": "bfloat16", "data_dir": "/some where"},
    ],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_command_says_a_configuration(preset, changes):
    config = replace(PRESETS[preset](), **changes)
    command, reads = command_of(config)
    given = arguments.typed_of(vars(arguments._train_parser().parse_args(shlex.split(command)[3:])))
    del given["list"], given["print_config"]
    assert not reads
    assert arguments.from_typed(given, arguments.preset(given))[0] == config


def test_a_configuration_that_no_words_say_is_a_file_beside_the_command():
    config = replace(TrainConfig(seconds=10.0), target_accuracy=None)
    assert command_of(config) == ("python -m dbwjax.train --config config.json", True)
    told = pages.provenance_of(config, {})
    assert from_json(json.loads(told.config)) == config
    page = page_of(material(["dybw", "full"], worlds=2, rows_each=8)._replace(provenance=told))
    link = re.search('download="config.json" href="data:application/json;base64,([^"]+)"', page)[1]
    assert base64.b64decode(link).decode() == told.config


def test_that_worlds_break_cannot_be_missed():
    made = material(["dybw", "full"], worlds=2, rows_each=8)
    warned = "These worlds <strong>break</strong>, the same under every rule: "
    assert warned not in page_of(made)
    told = pages.provenance_of(replace(TrainConfig(seconds=10.0), world=("crash:worker=2,at=3",), events="<b>.csv"), {})
    page = page_of(made._replace(provenance=told))
    assert f"{warned}<code>crash:worker=2,at=3</code>, <code>&lt;b&gt;.csv</code>." in page
    assert "<b>.csv" not in page


def test_names_are_text_in_a_whole_page():
    read = Read(page_of(material([EVIL, "full:" + EVIL], EVIL, worlds=2, rows_each=8)))
    assert {tag for tag, _ in read.elements} & {"img", "iframe", "object"} == set()
    scripts = [told.get("type", "ours") for tag, told in read.elements if tag == "script"]
    assert scripts == ["application/json", "ours"]
    assert not [name for _, told in read.elements for name in told if name.startswith("on")]


def test_a_sweep_has_a_verdict_for_each_cell_and_none_for_all(swept):
    page = (swept / "report.html").read_text()
    assert page.count('class="cell printed"') == 2
    assert "graph = ring" in text_of(page)
    assert "Clocks alone ran" in text_of(page)
    assert page.count('class="drawing"') == 1


def test_a_run_without_timelines_says_so(ran, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(ran, folder)
    _, run = manifest.read_config(folder, "")
    parts = Parts(folder / "parts", run)
    for file in (folder / "parts").glob("*.json"):
        parts.keep(int(file.stem), parts.rows(int(file.stem)))
    page = page_of(pages.material_of(folder))
    assert "timelines of single iterations were not kept" in text_of(page)
    assert "Quantiles" not in text_of(page)


def test_comparisons_in_python_have_pages(tmp_path):
    made = material(["dybw", "full"], worlds=3, rows_each=8)
    found = Comparison(made.rows, made.worlds, made.summary, made.timelines, made.picture)
    path = found.report(tmp_path / "mine.html")
    page = text_of(path.read_text())
    assert "no command repeats it" in page
    assert "mine: 2 waiting rules in 3 worlds" in page
    said = found.verdict().splitlines()
    assert [line for line in said if line.removeprefix("Note: ") not in page] == []
    assert len(said) >= 2
    cells = Cells(made.rows, made.worlds, made.summary).report(tmp_path / "cells.html")
    assert "Verdict" in text_of(cells.read_text())
    (tmp_path / "mine.html").write_text("dear diary")
    with pytest.raises(ValueError, match="mine.html is there and no page of this command; use another path"):
        found.report(tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "dear diary"


def test_runs_are_paired_where_they_share_their_delays():
    first, other = (
        material(["dybw", "full"], name, worlds=4, rows_each=40, seed=seed) for seed, name in enumerate("ab")
    )
    other = other._replace(rows=[row for row in other.rows if row["policy"] == "full"])
    other = other._replace(summary={**other.summary, "cells": [{"policies": {"full": {}}, "values": {}}]})
    assert {one.policy for one in compare_runs(first, other)} == {"full"}
    apart = [{**one, "hashes": {**one["hashes"], "delays": f"other {one['world']}"}} for one in other.worlds]
    paired, unpaired = compare_runs(first, other), compare_runs(first, other._replace(worlds=apart))
    assert {one.paired for one in paired} == {True}
    assert {one.paired for one in unpaired} == {False}
    assert unpaired[0].worlds == "4 and 4, unpaired"
    for one, two in zip(paired, unpaired, strict=True):
        assert one.interval["estimate"] == pytest.approx(two.interval["estimate"])
    same = compare_runs(first, first)
    assert {one.said for one in same} == {"the same in every world"}


def test_a_page_of_unpaired_runs_says_so(swept, ran, tmp_path, capsys):
    first, other = (material(["dybw", "full"], name, worlds=3, rows_each=10) for name in ("a", "b"))
    other = other._replace(provenance=other.provenance._replace(settings=[("graph", EVIL)]))
    assert "Unpaired" not in text_of(page_of_several([first, other], "today"))
    moved = [{"world": one["world"] + 10, "hashes": one["hashes"]} for one in other.worlds]
    rows = [{**row, "world": row["world"] + 10} for row in other.rows]
    page = page_of_several([first, other._replace(worlds=moved, rows=rows)], "today")
    assert "Unpaired" in text_of(page)
    assert EVIL in text_of(page)
    copy = tmp_path / "copy"
    shutil.copytree(ran, copy)
    assert report.main([str(ran), str(copy), "--out", str(tmp_path / "both.html")]) == 0
    assert "2 runs compared" in (tmp_path / "both.html").read_text()
    assert report.main([str(ran), str(swept), "--out", str(tmp_path / "both.html")]) == 2
    assert "is a sweep, whose cells are compared on its own page" in capsys.readouterr().err


def damaged(folder, name):
    (folder / name).write_bytes(b"[]")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: shutil.rmtree(run), "run is not a finished run (no config.json)"),
        (lambda run: (run / "summary.json").unlink(), "run is not a finished run (No such file"),
        (lambda run: (run / "manifest.json").unlink(), "run is not a finished run (No such file"),
        (lambda run: damaged(run, "worlds.json"), "worlds.json has changed since it was written"),
        (lambda run: damaged(run, "parts/0.json"), "parts/0.json is corrupt"),
        (lambda run: (run / "parts" / "1.json").unlink(), "has no rows in world"),
        (lambda run: damaged(run, "config.json"), "config.json is corrupt"),
    ],
)
def test_what_is_no_finished_run_is_refused_in_one_line(ran, tmp_path, capsys, change, said):
    folder = tmp_path / "run"
    shutil.copytree(ran, folder)
    (folder / "report.html").unlink()
    change(folder)
    assert report.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_page_that_cannot_be_written_loses_nothing(ran, tmp_path, capsys):
    (tmp_path / "notes.html").write_text("mine")
    for out, said in (
        (tmp_path / "notes.html", "is there and no page of this command; use another --out"),
        (tmp_path / "no" / "folder.html", "cannot be written"),
        ("", "--out names no file"),
    ):
        assert report.main([str(ran), "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
    assert (tmp_path / "notes.html").read_text() == "mine"
    assert report.main([str(ran), str(ran)]) == 2
    assert "is named twice" in capsys.readouterr().err
