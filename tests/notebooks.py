"""The notebooks of `colab/`: `python -m tests.notebooks [NAME ...]` makes each .ipynb anew from its .py.

The same sizes are run here, by the tests and by a reader. Cells tagged `volatile` print what depends on the machine and
the hour; of all others the test compares what they print.
"""

from __future__ import annotations

import re
import sys

import jupytext
import nbformat
from nbclient import NotebookClient

from tests.readme import ROOT

COLAB = ROOT / "colab"
NAMES = ("quickstart", "which_rule", "batch_of_graphs", "your_cluster", "on_a_tpu")
URL = "https://colab.research.google.com/github/dbwjax/dbwjax/blob/main/colab/{}.ipynb"
_BAR = re.compile(r"\s*(\d+%\|.*simulations.*)?")


def source(name):
    """A notebook without outputs, as its .py says."""
    notebook = jupytext.read(COLAB / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{name}-{number}"  # the same each time, so that a diff shows what has changed
    return notebook


def committed(name):
    """A notebook as it lies in the repository."""
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def executed(name):
    """A notebook run from top to bottom, without the progress bars that are gone when a cell is done."""
    notebook = source(name)
    where = {"metadata": {"path": str(COLAB)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where, record_timing=False).execute()
    for cell in code(notebook):
        cell["outputs"] = [out for out in cell["outputs"] if not is_bar(out)]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def code(notebook):
    """Its cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_bar(out):
    """Whether an output is a progress bar and nothing else."""
    text = out.get("text", "")
    return out.get("name") == "stderr" and all(_BAR.fullmatch(piece) for piece in re.split(r"[\r\n]", text))


def is_volatile(cell):
    """Whether what a cell prints is of the machine and the hour."""
    return "volatile" in cell.metadata.get("tags", ())


def printed(cell):
    """All text that a cell leaves."""
    texts = (out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell["outputs"])
    return "".join(texts)


def pictures(notebook):
    """The PNGs, base64."""
    return [
        out["data"]["image/png"]
        for cell in code(notebook)
        for out in cell["outputs"]
        if "image/png" in out.get("data", {})
    ]


def main(names):
    """Writes them."""
    for name in names or NAMES:
        nbformat.write(executed(name), COLAB / f"{name}.ipynb")
        print(f"colab/{name}.ipynb", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
