"""Builds the documentation site and reads it as a browser would: `python -m tests.site`.

Warnings are errors, of Zensical and of griffe. Every link inside the site leads to a file and an anchor that are
there, and no page loads anything from elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.readme import ROOT

SITE = ROOT / "build" / "site"
BUILD = ("zensical", "build", "--clean", "--config-file", "mkdocs.yml", "--strict")
LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page of the site has and wants: anchors, links to follow, files to load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        has = {name: value or "" for name, value in attrs}
        self.anchors |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        if tag in LOADS and LOADS[tag] in has and has.get("rel") not in ("canonical", "edit", "next", "prev"):
            self.loads.append(has[LOADS[tag]])


def faults(site: Path) -> list[str]:
    """What is wrong with the links of a built site, a line each."""
    read = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in read.items():
        if file.name == "404.html":  # its links begin with the address of the site, whatever that is
            continue
        for link in page.loads:
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//"):
                found.append(f"{file.relative_to(site)} loads {link}")
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if there.is_dir():
                there /= "index.html"
            if not there.exists():
                found.append(f"{file.relative_to(site)}: {link} leads nowhere")
            elif parts.fragment and there in read and unquote(parts.fragment) not in read[there].anchors:
                found.append(f"{file.relative_to(site)}: {link} has no such anchor")
    return found


def main() -> int:
    """Builds, and prints what is wrong."""
    built = subprocess.run(BUILD, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(built.stdout, end="")
    warned = [line for line in built.stdout.splitlines() if line.startswith("griffe:")]
    found = faults(SITE.resolve()) if built.returncode == 0 else []
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if built.returncode or warned or found else 0


if __name__ == "__main__":
    sys.exit(main())
