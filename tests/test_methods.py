"""The tables of methods are the table: docs/methods.md, README, `--list`."""

from __future__ import annotations

import re

from dbwjax import specs
from dbwjax.cli.listing import WIDTH, listing
from dbwjax.policies import FAMILIES, POLICIES, by_family
from tests import methods


def test_docs_are_what_the_rows_give():
    assert methods.PAGE.read_text() == methods.page(), "run python -m tests.methods"


def test_the_page_of_broken_worlds_has_every_method():
    assert methods.WORLD.read_text() == methods.world_page(), "run python -m tests.methods"


def test_the_page_names_every_method_once_in_its_family():
    sections = re.findall(r"^## (\w+): (.*?)\n(.*?)(?=^## |\Z)", methods.page(), flags=re.DOTALL | re.MULTILINE)
    found = {title.lower(): re.findall(r"^\| `(\w+)[:`]", body, flags=re.MULTILINE) for title, _, body in sections}
    assert found == {family: list(rows) for family, rows in by_family().items()}
    assert sorted(name for names in found.values() for name in names) == sorted(POLICIES)
    assert all(one in FAMILIES for one in found)


def test_every_method_has_a_family_and_a_line():
    for name, method in POLICIES.items():
        assert method.family in FAMILIES, name
        assert "\n" not in method.summary
        assert len(method.summary) <= WIDTH, f"{name}: the summary has {len(method.summary)} characters"


def test_the_list_is_readable():
    """No text is wider than a window; SPECs, which are to be copied, are not cut."""
    lines = listing().splitlines()
    described = {f"  {specs.describe(name, method.build)}" for name, method in POLICIES.items()}
    assert described <= set(lines)
    for line in lines:
        assert len(line) <= WIDTH or line in described or not line.startswith("   ")
    text = " ".join(listing().split())
    for method in POLICIES.values():
        assert f"{method.summary} {method.paper}" in text


def test_a_bar_in_a_cell_does_not_end_it():
    assert methods.table(("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |"


def test_readme_names_known_methods():
    assert {"dybw", "full", "backup", "dpsgd"} <= set(methods.FIRST) <= set(POLICIES)
    assert re.findall(r"^\| `(\w+)` \|", methods.readme(), flags=re.MULTILINE) == list(methods.FIRST)
