"""Reads the pages of docs/: their fenced blocks, what is marked as not to be run, and why.

A block is not run if the line above it says so: `<!-- not run: a reason -->`, which no reader of the page sees.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.readme import ROOT

FOLDER = ROOT / "docs"

RUN = ("python", "sh")
"""Languages of blocks that are run. `diff` is edited and run by test_extending.py; `text` is no program."""

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n)?^(?P<fence>```+)(?P<language>.*)\n(?P<code>(?s:.*?))^(?P=fence)$", re.M
)


class Fenced(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int  # of its first line of code
    language: str
    code: str
    why: str | None  # it is not run; None: it is

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All pages."""
    return sorted(FOLDER.rglob("*.md"))


def fenced(page: Path) -> list[Fenced]:
    """A page's blocks, in order."""
    text = page.read_text()
    return [
        Fenced(page, text[: found.start("code")].count("\n") + 1, found["language"], found["code"], found["why"])
        for found in _BLOCK.finditer(text)
    ]


def to_run(page: Path) -> list[Fenced]:
    """Those of its blocks that are run."""
    return [block for block in fenced(page) if block.language in RUN and block.why is None]
