"""The documentation: every block of code is run or says why not, every page is in the navigation, every public name is
on a page. `python -m tests.docs_commands` runs the blocks, `python -m tests.site` builds the site and checks links."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml

import dbwjax
from dbwjax.cli import overview, sweep
from dbwjax.cli.arguments import parse
from tests import docs, docs_commands, readme, site
from tests.readme import ROOT

BLOCKS = [block for page in docs.pages() for block in docs.fenced(page)]
NOT_RUN = {
    "docs/all-methods.md": ["half an hour"],
    "docs/cluster.md": ["Slurm", "Slurm", "submitit"],
    "docs/heterogeneous-data.md": ["half an hour"],
    "docs/compression.md": ["minutes"],
    "docs/index.md": ["an installation"],
    "docs/performance.md": ["an hour"],
    "docs/tutorials/devices-and-hosts.md": ["minutes, and needs MNIST", "two hosts", "Slurm"],
    "docs/which-rule.md": ["an hour"],
}
"""All exceptions, by page, and why."""


CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_block_is_run_or_says_why_not():
    not_run: dict[str, list[str]] = {}
    for block in BLOCKS:
        assert block.language in (*docs.RUN, "diff", "text"), block.place
        if block.why is not None:
            assert block.language in docs.RUN, block.place
            not_run.setdefault(str(block.page.relative_to(ROOT)), []).append(block.why)
    assert not_run == NOT_RUN
    assert {block.page.name for block in BLOCKS if block.language == "diff"} == {"extending.md"}


def test_no_block_or_marker_is_overlooked():
    for page in docs.pages():
        text = page.read_text()
        assert len(re.findall(r"^\s*(?:```|~~~)", text, flags=re.MULTILINE)) == 2 * len(docs.fenced(page)), page
        marked = [block for block in docs.fenced(page) if block.why is not None]
        assert len(re.findall(r"not run:", text)) == len(marked), page
        assert not re.search(r"\n\n    +(?:python|\$) ", text), f"{page}: code that is only indented"


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "python"], ids=lambda each: each.place)
def test_python_is_python(block):
    ast.parse(block.code)


def test_words_of_shells_are_known():
    known = set(overview.commands())
    for block in BLOCKS:
        if block.language != "sh":
            continue
        done = subprocess.run(["bash", "-n", "-c", block.code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block.place
        for line in block.code.replace("\\\n", " ").splitlines():
            for command, rest in re.findall(r"python -m dbwjax\.(\w+)([^&|>#]*)", line):
                assert command in known, f"{block.place}: {command}"
                for quote in ("'", '"'):  # which closes what began before the command
                    rest = rest.rstrip(quote) if rest.count(quote) % 2 else rest
                words = shlex.split(rest)
                if command == "train" and "--config" not in words:
                    parse(words)
                if command == "sweep" and not {"--join", "--shard"} & set(words):
                    sweep.parse(words)


def test_every_page_is_in_the_navigation_once():
    def files(entry):
        if isinstance(entry, str):
            return [entry]
        return [file for each in (entry.values() if isinstance(entry, dict) else entry) for file in files(each)]

    named = files(CONFIG["nav"])
    assert sorted(named) == sorted(str(page.relative_to(docs.FOLDER)) for page in docs.pages())


def test_every_public_name_is_on_a_page():
    shown = re.findall(r"^::: dbwjax\.(\w+)$", "".join(page.read_text() for page in docs.pages()), flags=re.MULTILINE)
    assert sorted(shown) == sorted(set(dbwjax.__all__) - {"__version__"})


def test_the_pictures_of_the_idea_are_those_that_are_kept():
    shown = re.findall(r"\]\(\.\./pictures/(\w+)\.png\)", (docs.FOLDER / "concepts" / "idea.md").read_text())
    assert tuple(shown) == readme.PICTURES
    assert sorted(file.stem for file in (docs.FOLDER / "pictures").iterdir()) == sorted(readme.PICTURES)


def test_the_site_takes_nothing_from_elsewhere():
    assert CONFIG["theme"]["font"] is False
    assert "repo_url" not in CONFIG, "the theme asks api.github.com for it"


def test_the_commands_of_docs_and_site_are_stages_of_ci():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "python -m tests.site" in lines
    assert "python -m tests.docs_commands" in lines


def test_blocks_share_names_and_stop_at_the_first_failure(tmp_path, monkeypatch, capfd):
    page = docs.FOLDER / "made-up.md"
    block = docs.Fenced(page, 1, "python", "kept = 3\n", None)
    monkeypatch.chdir(tmp_path)
    first = block._replace(code="import pathlib\npathlib.Path('a').write_text(str(kept))\n")
    shell = [block._replace(language="sh", code=code) for code in ("grep 3 a\n", "false\ntouch b\n", "touch c\n")]
    assert docs_commands.run([block, first, *shell]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert "made-up.md:1: exit code 1" in capfd.readouterr().err


def test_a_dead_link_an_anchor_and_a_stranger_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">1</a><a href="#x">2</a><a href="c.html">3</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#x">1</a><a href="https://a.b/">2</a><script src="//cdn/x.js">')
    assert site.faults(tmp_path) == [
        "a.html: b.html#y has no such anchor",
        "a.html: c.html leads nowhere",
        "b.html loads //cdn/x.js",
    ]


def test_hooks_are_the_checks_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    stage = (ROOT / ".ci" / "run").read_text().split("stage 'lint and types'\n")[1].split("\n\n")[0]
    assert [hook["entry"] for hook in hooks[0]["hooks"]] == stage.splitlines()


def test_the_citation_is_of_this_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["repository-code"] == project["urls"]["Repository"]
    (paper,) = cited["references"]
    assert paper["title"] in dbwjax.citation("dybw")
    assert paper["identifiers"][0]["value"].removeprefix("arXiv:") in dbwjax.citation("dybw")
