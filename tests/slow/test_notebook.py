"""The notebook runs from top to bottom, and its two forms are one."""

from __future__ import annotations

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.readme import ROOT

pytestmark = pytest.mark.slow

COLAB = ROOT / "colab"


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def pictures(notebook):
    return [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]


def test_source_and_notebook_are_the_same():
    notebook = nbformat.read(COLAB / "quickstart.ipynb", as_version=4)
    assert cells(notebook) == cells(jupytext.read(COLAB / "quickstart.py"))
    assert len(pictures(notebook)) == 1
    assert not [out for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "error"]


@pytest.mark.filterwarnings("ignore:.*Proactor event loop:RuntimeWarning", "ignore::DeprecationWarning")
def test_it_runs(monkeypatch):
    monkeypatch.setenv("DBWJAX_FAST", "1")
    notebook = jupytext.read(COLAB / "quickstart.py")
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(COLAB)}}).execute()
    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    assert "majority (ours)" in printed
    assert "T = 10.0 s, the same for all policies. Worlds: 2 drawn, 2 distinct" in printed
    assert len(pictures(notebook)) == 1
