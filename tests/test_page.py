"""The page that ends a run: its frame, its drawings, and what it says."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup, escape

from dbwjax.report import style
from dbwjax.report.page import drawing
from dbwjax.report.page.document import Section, document, embedded

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


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
