"""A wheel and an sdist, each installed into an environment of its own that holds nothing but what the package says it
needs, do what the first command does.

Those distributions are linked from the environment of the tests, so that no index is asked: what is not among the
requirements, or theirs, cannot be imported there. The package itself comes from the archive.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.compiling import light_environment
from tests.readme import ROOT

pytestmark = pytest.mark.slow

RUN = (
    *("dbwjax.train", "--policies", "dybw", "full", "--workers", "4", "--graph", "ring", "--model", "lrm"),
    *("--seconds", "5", "--rows", "2", "--seeds", "2", "--no-progress", "--out", "run"),
)


def call(*words, cwd, **around):
    """A process that must end well; what it printed. Nothing of this checkout is on its path."""
    env = {**os.environ, **light_environment(), **around}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def name_of(text):
    """A distribution's name as indices compare them."""
    return re.sub(r"[-_.]+", "-", text).lower()


def needed(requirements):
    """The distributions that are needed, directly or not, by name."""
    found, extras, open_ = {}, {}, [Requirement(each) for each in requirements]
    while open_:
        one = open_.pop()
        name = name_of(one.name)
        if name in found and one.extras <= extras[name]:
            continue
        extras[name] = extras.get(name, set()) | one.extras
        found[name] = metadata.distribution(name)
        for text in found[name].requires or ():
            further = Requirement(text)
            wanted = extras[name] or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in wanted):
                open_.append(further)
    return found


def environment(folder, requirements):
    """An environment that has pip and these distributions; its Python."""
    venv.create(folder, with_pip=True)
    (there,) = folder.glob("lib/python*/site-packages")
    for distribution in needed(requirements).values():
        for top in {Path(file.parts[0]) for file in distribution.files if ".." not in file.parts}:
            if top.name != "__pycache__" and not (there / top).exists():
                (there / top).symlink_to(distribution.locate_file(top))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Both, made from the files of this checkout that are kept."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    kept = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, kept.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    call(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", out, cwd=source)
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


@pytest.fixture(scope="module")
def requirements(archives):
    """What the wheel says that it needs, extras aside."""
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        said = metadata.PathDistribution(zipfile.Path(wheel, about.removesuffix("METADATA"))).requires
    return [each for each in said if "extra ==" not in each]


def test_they_hold_what_they_should(archives):
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        inside = set(wheel.namelist())
    kept = subprocess.run(["git", "ls-files", "dbwjax"], cwd=ROOT, capture_output=True, text=True, check=True)
    package = {name for name in kept.stdout.splitlines() if (ROOT / name).is_file()}
    assert {"dbwjax/py.typed", "dbwjax/tasks/digits.npz"} <= package <= inside  # data, templates and all
    assert {name.split("/")[0].split("-")[0] for name in inside} == {"dbwjax"}
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    with tarfile.open(archives["sdist"]) as sdist:
        source = {name.partition("/")[2] for name in sdist.getnames()}
    assert package | {"README.md", "LICENSE", "CITATION.cff", "docs/index.md", "tests/test_docs.py"} <= source
    assert not [name for name in source if "__pycache__" in name or name.startswith(("runs", "build"))]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_and_runs_where_only_what_it_needs_is(kind, archives, requirements, tmp_path):
    builder = ["hatchling"] if kind == "sdist" else []
    python = environment(tmp_path / "environment", [*requirements, *builder])
    call(
        *(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", archives[kind]), cwd=tmp_path
    )
    where = call(python, "-c", "import dbwjax; print(dbwjax.__file__)", cwd=tmp_path).strip()
    assert Path(where).resolve().is_relative_to((tmp_path / "environment").resolve())
    with pytest.raises(AssertionError, match="No module named 'pytest'"):
        call(python, "-c", "import pytest", cwd=tmp_path)
    assert "ratio" in call(python, "-m", *RUN, cwd=tmp_path)
    assert list(json.loads((tmp_path / "run" / "summary.json").read_text())["policies"]) == ["dybw", "full"]
    assert call(python, "-m", "dbwjax.replay", "run", cwd=tmp_path).count("in the recorded order") == 4
    if "dbwjax.report" in call(python, "-m", "dbwjax", cwd=tmp_path):  # its templates are data of the package
        call(python, "-m", "dbwjax.report", "run", cwd=tmp_path)
        assert "<svg" in (tmp_path / "run" / "report.html").read_text()
