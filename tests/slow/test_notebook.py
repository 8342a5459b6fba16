"""The notebooks run from top to bottom, their two forms are one, and what they print is what lies in the repository."""

from __future__ import annotations

import importlib.util
import math
import re
import struct
import subprocess
import tempfile
from base64 import b64decode
from pathlib import Path

import jax
import jupytext
import numpy as np
import pytest

from tests import notebooks
from tests.notebooks import NAMES, code, committed, executed, is_bar, is_volatile, pictures, printed

pytestmark = pytest.mark.slow

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*[A-Za-z_])")
TRAINED = 0.05
"""Of times to a target, relative: other versions of JAX round otherwise, which training amplifies (as in
`readme_commands`). What clocks alone print is the same to the last digit that is shown."""


def told(cell):
    return cell.cell_type, cell.source, cell.metadata.get("tags", [])


def differences(kept, found, trained):
    """Where two texts differ in a word, in a count, or in another number by more than its last digit (or than training
    may)."""
    words = [NUMBER.sub("#", text).split() for text in (kept, found)]
    if words[0] != words[1]:
        return [f"{a} became {b}" for a, b in zip(*words, strict=False) if a != b] or ["one is longer"]
    lines = []
    for a, b in zip(NUMBER.findall(kept), NUMBER.findall(found), strict=True):
        one, other = (float(text.replace(",", "")) for text in (a, b))
        unit = 10.0 ** -len(a.partition(".")[2])
        near = math.isclose(one, other, rel_tol=TRAINED if trained else 0.0, abs_tol=1.01 * unit)
        if not (near if "." in a else one == other):
            lines.append(f"{a} became {b}")
    return lines


def test_every_notebook_is_known():
    for ending in ("py", "ipynb"):
        assert {path.stem for path in notebooks.COLAB.glob(f"*.{ending}")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_source_and_notebook_are_the_same(name):
    kept = committed(name)
    assert list(map(told, kept.cells)) == list(map(told, jupytext.read(notebooks.COLAB / f"{name}.py").cells))
    assert [cell.execution_count for cell in code(kept)] == list(range(1, len(code(kept)) + 1))  # one run, in order


@pytest.mark.parametrize("name", NAMES)
def test_what_a_reader_meets_first_and_last(name):
    cells = committed(name).cells
    assert notebooks.URL.format(name) in cells[0].source
    assert "**You will learn**" in cells[0].source
    assert cells[1] == committed(NAMES[0]).cells[1] | {"id": cells[1].id, "outputs": cells[1].outputs}
    assert cells[1].source.count("pip") == 1
    assert cells[-1].cell_type == "markdown"
    assert "## What not to conclude" in cells[-1].source


def test_the_installation_leaves_jax_as_it_is(monkeypatch, capsys, tmp_path):
    """Where `dbwjax` is not here, pip is told to keep the versions that are."""
    called, find = [], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dbwjax" else find(name))
    monkeypatch.setattr(subprocess, "run", lambda words, **named: called.append((words, named)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = code(committed(NAMES[0]))[0].source
    exec(compile(source, "cell", "exec"), {})
    ((words, named),) = called
    assert named == {"check": True}
    assert words[1:5] == ["-m", "pip", "install", "-q"]
    assert words[5] == "git+https://github.com/dbwjax/dbwjax"
    kept = Path(words[words.index("-c") + 1]).read_text().split()
    assert {f"jax=={jax.__version__}", f"numpy=={np.__version__}"} <= set(kept)
    assert f"JAX {jax.__version__}, 1 x cpu (cpu)" in capsys.readouterr().out
    monkeypatch.setattr(importlib.util, "find_spec", find)
    exec(compile(source, "cell", "exec"), {})  # it is here: nothing is installed
    assert len(called) == 1
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    with pytest.raises(AssertionError, match="the installation has moved JAX"):
        exec(compile(source, "cell", "exec"), {})


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_fit_to_be_seen(name):
    """Neither where they were made, nor warnings; pictures that are some."""
    kept = committed(name)
    for cell in code(kept):
        assert {out.output_type for out in cell["outputs"]} <= {"stream", "display_data", "execute_result"}
        assert not [out for out in cell["outputs"] if out.get("name") == "stderr"]
        text = printed(cell)
        assert not re.search(r"/(tmp|home|root|work|usr|content)\b|[A-Za-z]:\\|warning|\bnan\b", text, re.IGNORECASE)
    for picture in pictures(kept):
        width, height = struct.unpack(">II", b64decode(picture)[16:24])
        assert width > 600
        assert height > 200


@pytest.mark.filterwarnings("ignore:.*Proactor event loop:RuntimeWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_run_prints_what_is_committed(name, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    kept, fresh = committed(name), executed(name)
    trains = any("compare(" in cell.source or "compare_cells(" in cell.source for cell in code(kept))
    wrong = []
    for before, after in zip(code(kept), code(fresh), strict=True):
        if not is_volatile(after):
            wrong += differences(printed(before), printed(after), trains)
    assert not wrong, "\n".join(wrong)
    assert len(pictures(fresh)) == len(pictures(kept))


@pytest.mark.parametrize("name", NAMES)
def test_only_seconds_versions_and_chips_are_left_out(name):
    """`volatile` is for seconds, versions and chips: no cell that prints a table has it."""
    for cell in code(committed(name)):
        if is_volatile(cell):
            assert not re.search(r"table\(\)|ratio|interval", cell.source)
        elif "chip" in cell.source or "perf_counter" in cell.source:
            raise AssertionError(f"this cell prints what changes, and is compared:\n{cell.source}")


def test_differences_are_seen():
    line = "full  12.3  0.981 [0.970, 0.990]  5 of 5\n"
    assert not differences(line, line, False)
    assert not differences(line, line.replace("12.3", "12.4"), False)  # the last digit
    assert differences(line, line.replace("12.3", "12.5"), False) == ["12.3 became 12.5"]
    assert not differences(line, line.replace("12.3", "12.5"), True)
    assert differences(line, line.replace("12.3", "13.3"), True) == ["12.3 became 13.3"]
    assert differences(line, line.replace("5 of 5", "4 of 5"), True) == ["5 became 4"]
    assert differences(line, line.replace("full", "dybw"), True) == ["full became dybw"]
    assert differences(line, line + line, True) == ["one is longer"]
    assert differences("107 iterations", "108 iterations", True) == ["107 became 108"]
    assert differences("fastest:k=6 1", "fastest:k=7 1", True)


def test_bars_are_known():
    bar = "\r  0%|          | 0/20 [00:00<?, ? simulations/s]\r 25%|##5   | 5/20 [00:01<00:03, 4.2 simulations/s, full]"
    out = {"output_type": "stream", "name": "stderr", "text": bar + "\r" + " " * 80 + "\r"}
    assert is_bar(out)
    assert not is_bar(out | {"text": bar + "\nUserWarning: something"})
    assert not is_bar(out | {"name": "stdout"})
