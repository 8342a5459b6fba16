"""What `import dbwjax` gives, to people, to type checkers and to editors; and the overview of the commands."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dbwjax
from dbwjax.cli import overview

SOURCE = Path(dbwjax.__file__)
TREE = ast.parse(SOURCE.read_text(encoding="utf-8"))


def branch(negated):
    """The body of the module's `if TYPE_CHECKING:`, or of its `if not TYPE_CHECKING:`."""
    for node in TREE.body:
        if isinstance(node, ast.If):
            test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
            assert test.id == "TYPE_CHECKING"
            if isinstance(node.test, ast.UnaryOp) == negated:
                return node.body
    raise AssertionError("no such branch")


def told_to_checkers():
    """Where a type checker finds each name."""
    return {
        alias.asname: f"{node.module.removeprefix('dbwjax.')}.{alias.name}"
        for node in branch(negated=False)
        if node.module != "typing"
        for alias in node.names
    }


def test_checkers_and_python_find_the_same():
    assert told_to_checkers() == dbwjax._HOMES
    assert set(dbwjax.__all__) == {*dbwjax._HOMES, "__version__"}
    # A list of constants: checkers do not read any other.
    listed = next(node.value for node in TREE.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    assert ast.literal_eval(listed) == dbwjax.__all__


def test_checkers_do_not_see_the_catch_all():
    """With it every misspelt name would be of type Any."""
    assert [node.name for node in branch(negated=True)] == ["__getattr__"]
    assert (SOURCE.parent / "py.typed").read_text() == ""


def test_no_name_is_that_of_a_module():
    """Python would put the module in its place as soon as somebody imports it."""
    modules = {path.stem for path in SOURCE.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(dbwjax.__all__)


@pytest.mark.parametrize("name", dbwjax._HOMES)
def test_every_name_is_there(name):
    module, _, attribute = dbwjax._HOMES[name].rpartition(".")
    found = getattr(dbwjax, name)
    assert found is getattr(importlib.import_module(f"dbwjax.{module}"), attribute)
    assert name.isupper() or (found.__doc__ and found.__name__ == name)  # what `help` shows


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="module 'dbwjax' has no attribute 'simulate_training'; it has POLICIES, "):
        _ = dbwjax.simulate_training
    assert dir(dbwjax) == sorted(dbwjax.__all__)


def test_the_overview_lists_every_command(capsys):
    """What has a file of three lines in the package, and says what it does in the command line's room."""
    modules = [path.stem for path in SOURCE.parent.glob("*.py") if "    run(main)" in path.read_text()]
    modules += [path.parent.name for path in SOURCE.parent.glob("*/__main__.py")]
    found = overview.commands()
    assert set(found) == set(modules) - {"__main__"}
    assert overview.main(["--help"]) == overview.main([]) == 0
    printed = capsys.readouterr().out
    for name, about in found.items():
        assert f"python -m dbwjax.{name} " in printed
        assert len(about) > 20
        assert about in printed
    assert overview.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dbwjax {dbwjax.__version__}\n"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train", "'train' is a module of its own; write python -m dbwjax.train"),
        ("swep", "unknown command 'swep'; did you mean 'sweep'? known: "),
        ("--list", "unknown command '--list'; "),
        ("a\nb", "unknown command 'a b'; "),
    ],
)
def test_other_words_are_one_line(word, expected, capsys):
    assert overview.main([word]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"error: {expected}")
    assert error.count("\n") == 1


def test_it_runs_as_a_module():
    for words, code in (([], 0), (["swep"], 2)):
        done = subprocess.run([sys.executable, "-m", "dbwjax", *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        assert ("python -m dbwjax.train" in done.stdout) == (code == 0)
        assert done.stderr.count("\n") == (code == 2)
