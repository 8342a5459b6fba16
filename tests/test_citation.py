"""The papers behind the methods, and what a run is asked to cite."""

from __future__ import annotations

import re

import pytest

from dbwjax.policies import papers

PAPERS = {name: one for name, one in vars(papers).items() if isinstance(one, papers.Paper)}
NEEDED = {"article": {"journal"}, "inproceedings": {"booktitle"}, "misc": {"eprint", "archivePrefix"}}


def entries(text):
    """`[(kind, key, fields)]` of BibTeX text: a small parser, for braced values alone."""
    found, rest = [], text.strip()
    while rest:
        kind, key, rest = re.match(r"@(\w+)\{(\w+),\s*(.*)", rest, re.DOTALL).groups()
        fields = {}
        while not rest.startswith("}"):
            name, rest = re.match(r"(\w+) = \{(.*)", rest, re.DOTALL).groups()
            depth, end = 1, 0
            while depth:
                depth += {"{": 1, "}": -1}.get(rest[end], 0)
                end += 1
            assert name not in fields, f"{name} twice in {key}"
            fields[name], rest = " ".join(rest[: end - 1].split()), re.sub(r"^\s*,?\s*", "", rest[end:])
        found.append((kind, key, fields))
        rest = rest[1:].strip()
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_is_one_valid_entry(name):
    paper = PAPERS[name]
    ((kind, key, fields),) = entries(paper.bibtex)
    assert {"title", "author", "year"} | NEEDED[kind] <= set(fields)
    assert all(fields.values())
    first, year = fields["author"].split(",")[0], fields["year"]
    assert key.startswith(first.lower() + year)
    assert first in paper.short
    assert year in paper.short
    assert kind != "misc" or paper.short.endswith(f"arXiv {fields['eprint']}")
    # Authors are written the one way that needs no knowledge of names: family, given.
    assert all(author.count(", ") == 1 for author in fields["author"].split(" and "))
    assert paper.bibtex.isascii()


def test_keys_are_unique():
    keys = [entries(paper.bibtex)[0][1] for paper in PAPERS.values()]
    assert len(set(keys)) == len(keys)
    assert len({paper.bibtex for paper in PAPERS.values()}) == len(PAPERS)


@pytest.mark.parametrize(
    "broken", ["@misc{a, title = {x}", "@misc{a, title = {x}, title = {y}}", "@misc{a title = {x}}", "@misc{a, {x}}"]
)
def test_the_parser_notices(broken):
    with pytest.raises((AssertionError, AttributeError, IndexError)):
        entries(broken)
