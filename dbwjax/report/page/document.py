"""The frame of every page: a title, sections one below the other, and all they need inside the file.

Nothing is fetched: styles, script, data and drawings stand in the page, and its Content-Security-Policy allows no
request and no script but the one whose hash it names. So text from a user that were taken for markup could still not
run. Text is escaped by Jinja2, data by `embedded`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_KEY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Section(NamedTuple):
    """A part of a page with a heading of its own."""

    key: str  # anchor, kebab-case; unique in its page
    title: str  # heading
    body: Markup  # escaped HTML; its own headings begin with h3
    data: Any = None  # plain JSON for the script
    script: str = ""  # body of a function of `root`, the section's element, and `data`; may use `page` of document.js
    style: str = ""  # CSS of its own; scope it by #KEY


def document(title: str, lead: Markup, sections: Sequence[Section]) -> str:
    """A self-contained HTML file.

    Args:
      title: of the page, also its first heading.
      lead: what stands below the title.
      sections: in order.

    Returns:
      The file's text.

    Raises:
      ValueError: a key that is no anchor or stands twice, or a script or style that would end its own element.
    """
    _require_sound(sections)
    script = _script(sections)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = "\n".join([_source("document.css"), *dict.fromkeys(one.style for one in sections if one.style)])
    return (
        environment()
        .get_template("document.html")
        .render(
            title=title,
            lead=lead,
            sections=[{**one._asdict(), "embedded": embedded(one.data)} for one in sections],
            style=_safe(style),
            script=_safe(script),
            digest=digest,
        )
    )


@cache
def environment() -> Environment:
    """Jinja2 with every template of this folder: what is put in is escaped, and an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("dbwjax.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template of this folder, filled in.

    Args:
      template: its file name, such as `verdict.html`.
      **values: what it names; text is escaped.
    """
    return _safe(environment().get_template(template).render(**values))


def source(name: str) -> str:
    """A script or a style beside this module, as text: `table.js`."""
    return _source(name)


def embedded(data: Any) -> Markup:
    """Plain JSON that can stand in a script element: no character of it can end that element or begin a comment.

    Raises:
      ValueError: a number that is not finite.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return _safe(text)


def _script(sections: Sequence[Section]) -> str:
    """The one script of a page: what all sections use, then each section's own function."""
    own = [
        f"page.section({json.dumps(one.key)}, function (root, data) {{\n{one.script}\n}});"
        for one in sections
        if one.script
    ]
    return "\n".join(['"use strict";', "(function () {", _source("document.js"), *own, "})();"])


@cache
def _source(name: str) -> str:
    loader: Any = environment().loader
    return loader.get_source(environment(), name)[0]


def _safe(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)


def _require_sound(sections: Sequence[Section]) -> None:
    keys = [one.key for one in sections]
    for one in sections:
        if not _KEY.fullmatch(one.key):
            raise ValueError(f"section key '{one.key}' is no anchor; use small letters, digits and hyphens")
        if keys.count(one.key) > 1:
            raise ValueError(f"two sections have the key '{one.key}'; give each its own")
        for kind, text in (("script", one.script), ("style", one.style)):
            if re.search(rf"</{kind}|<!--", text, re.IGNORECASE):
                raise ValueError(f"the {kind} of section '{one.key}' would end its own element; split that string")
