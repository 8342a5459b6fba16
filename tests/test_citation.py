"""The papers behind the methods, and what a run is asked to cite."""

from __future__ import annotations

import re

import pytest

import dbwjax
from dbwjax.experiments import citing
from dbwjax.experiments.config import TrainConfig
from dbwjax.policies import POLICIES, papers, papers_on_messages
from tests.readme import ROOT

PAPERS = {name: one for name, one in (vars(papers) | vars(papers_on_messages)).items() if isinstance(one, papers.Paper)}
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


def keys_of(text):
    return [key for _, key, _ in entries(text)]


def test_the_library_comes_first_without_authors():
    (kind, key, fields), *others = entries(dbwjax.citation("full"))
    assert (kind, key) == ("software", "dbwjax")
    assert set(fields) == {"title", "version", "year"}
    assert fields["version"] == dbwjax.__version__
    assert [key for _, key, _ in others] == ["xiong2021straggler"]
    assert f"## {fields['version']}, {citing.YEAR}-" in (ROOT / "CHANGELOG.md").read_text()
    assert fields["year"] == str(citing.YEAR)


def test_each_paper_is_there_once_in_the_order_of_the_policies():
    named = ["dpsgd", "dybw:late=drop", "full", "matcha:budget=0.3", "dpsgd:barrier=global", "local_sgd"]
    expected = ["dbwjax", "lian2017can", "xiong2021straggler", "wang2019matcha", "stich2018local"]
    assert keys_of(dbwjax.citation(named)) == expected
    assert keys_of(dbwjax.citation(tuple(named))) == expected
    assert keys_of(dbwjax.citation(TrainConfig(policies=tuple(named)))) == expected
    assert keys_of(dbwjax.citation(TrainConfig())) == ["dbwjax", "xiong2021straggler"]


def test_every_method_can_be_cited_together():
    """By their names; `test_extending.py` and others have the settings that some of them need."""
    needed = {"fastest": "fastest:k=2", "deadline": "deadline:seconds=1"}
    needed |= {name: f"{name}:k=2" for name in ("k_sync", "k_async", "k_batch_sync", "k_batch_async")}
    text = dbwjax.citation([needed.get(name, name) for name in POLICIES])
    found = keys_of(text)
    assert len(set(found)) == len(found)
    for method in POLICIES.values():
        assert set(keys_of(method.bibtex)) <= set(found)
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("dybww", "unknown policy 'dybww'; did you mean 'dybw'?"),
        (["dybw", "full:lat=drop"], "unknown key 'lat'; did you mean 'late'?"),
        (["fastest"], "needs k="),
        ([], r"\[\] names no policy; give a TrainConfig, a SPEC, or a list of SPECs"),
        (3, "3 names no policy"),
        ([3], "3 is no SPEC"),
    ],
)
def test_what_cannot_be_cited_is_one_line(config, expected):
    with pytest.raises(ValueError, match=expected) as raised:
        dbwjax.citation(config)
    assert "\n" not in str(raised.value)
