"""An SVG in fewer bytes: one of thousands of bars is mostly digits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

_PATH = re.compile(r' d="([^"]*)"')
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_LINE = re.compile(r"M(\S+) (\S+) ?L(\S+) (\S+?)(?=[MLCZz\s]|$)")


def shortened(svg: Markup) -> Markup:
    """The same drawing, its paths to a hundredth of a point and without spaces that say nothing."""
    from markupsafe import Markup

    text = _PATH.sub(lambda found: f' d="{shorter(found[1])}"', str(svg))
    return Markup(re.sub(r">\s+<", "><", text))


def shorter(path: str) -> str:
    """A path's `d` with two decimals, and lines along an axis by one number.

    >>> shorter("M 31.181102 12.5 \\nL 40.123456 12.5 \\nM 1 2 \\nL 1 3.10001 ")
    'M31.18 12.5H40.12M1 2V3.1'
    """

    def line(found: re.Match[str]) -> str:
        x, y, to_x, to_y = found.groups()
        end = f"H{to_x}" if y == to_y else f"V{to_y}" if x == to_x else f"L{to_x} {to_y}"
        return f"M{x} {y}{end}"

    path = _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), path)
    path = re.sub(r"\s*([MLCZz])\s*", r"\1", path).strip()
    return _LINE.sub(line, path)
