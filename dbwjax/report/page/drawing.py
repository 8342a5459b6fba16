"""A Matplotlib figure inside a page: inline SVG whose text is text and whose colours follow the page's theme."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbwjax.report import style

if TYPE_CHECKING:
    from markupsafe import Markup

_SHADE = re.compile(r"#[0-9a-fA-F]{6}\b")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_XLINK = "{http://www.w3.org/1999/xlink}href"


def svg_of(figure: Any, alt: str, key: str, largest: float = 1.75) -> Markup:
    """A figure as inline SVG, as wide as its surroundings.

    Colours of policies become the page's `--policy-...`, and black, white and greys mixtures of `--ink` and `--paper`,
    so that a dark page has a dark figure; `style.FIXED` shades, for text on a colour, stay as they are.

    Args:
      figure: drawn under `style.house_style()`, and still under it.
      alt: what a reader who does not see it is told.
      key: begins all ids, so that two figures of a page share none.
      largest: CSS pixels of a point, at most: 1.75 makes 7 points 12 pixels.
    """
    return inlined(svg_file(figure, True), alt, key, largest)


def captioned(figure: Any, alt: str, key: str, caption: str, largest: float = 2.0) -> dict[str, Any]:
    """A figure for `captioned.html`: the drawing, what is said below it, and the same as an SVG file in a link.

    Args:
      figure, alt, key, largest: as for `svg_of`.
      caption: plain text.
    """
    text = svg_file(figure, True)
    return {
        "drawing": inlined(text, alt, key, largest),
        "caption": caption,
        "name": f"{key}.svg",
        "link": link_of("image/svg+xml", text),
    }


def link_of(kind: str, text: str) -> str:
    """Text as a link that holds it, for downloads."""
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


def inlined(text: str, alt: str, key: str, largest: float) -> Markup:
    """The SVG file of `svg_file` as a part of a page; arguments as for `svg_of`."""
    from xml.etree import ElementTree

    from markupsafe import Markup

    root = ElementTree.fromstring(text)
    for node in root.iter():
        node.tag = node.tag.partition("}")[2] or node.tag
        node.attrib = {_name(name): _value(name, value, key) for name, value in node.attrib.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style") or (child.tag == "defs" and not len(child)):
                parent.remove(child)
    wide, high = (float(value) for value in root.attrib["viewBox"].split()[2:])
    kept = {"viewBox": root.attrib["viewBox"], "class": "drawing", "role": "img", "aria-label": alt}
    root.attrib = {**kept, "style": f"max-width: {largest * wide:.0f}px; aspect-ratio: {wide:g} / {high:g}"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def svg_file(figure: Any, transparent: bool = False) -> str:
    """A figure as an SVG file, its text as text; the same figure gives the same text.

    Args:
      figure: drawn under `style.house_style()`.
      transparent: without the white grounds of figure and axes.
    """
    import matplotlib

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None}, transparent=transparent)
    return content.getvalue()


def policy_colour(policy: str) -> str:
    """The page's variable for a policy's colour, as CSS: `var(--policy-0)`."""
    return _shade(style.colour(policy))


def dashes(policies: Sequence[str]) -> dict[str, str]:
    """Each policy's dashes as an SVG `stroke-dasharray`, in units of the line's width; `none` for a whole line."""
    found = {}
    for name, look in style.looks(policies).items():
        kind = look["linestyle"]
        found[name] = "none" if kind == "-" else " ".join(f"{part:g}" for part in kind[1])
    return found


def _shade(hexadecimal: str) -> str:
    """A colour of Matplotlib as the page's."""
    low = hexadecimal.lower()
    if low in style.FIXED:
        return low
    if low == "#dcdcdc":  # of bars that say how long workers wait
        return "var(--waiting)"
    for place, known in enumerate(style.palette()):
        if low == known.lower():
            return f"var(--policy-{place})"
    parts = {low[at : at + 2] for at in (1, 3, 5)}
    if len(parts) > 1:
        return low
    ink = 100 * (1 - int(parts.pop(), 16) / 255)
    return (
        "var(--ink)"
        if ink == 100
        else "var(--paper)"
        if ink == 0
        else f"color-mix(in srgb, var(--ink) {ink:.0f}%, var(--paper))"
    )


def _name(name: str) -> str:
    return "href" if name == _XLINK else name.partition("}")[2] or name


def _value(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name in (_XLINK, "href"):
        return value.replace("#", f"#{key}-", 1)
    return _SHADE.sub(lambda found: _shade(found[0]), _REFERENCE.sub(rf"url(#{key}-\1)", value))
