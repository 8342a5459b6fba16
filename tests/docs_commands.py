"""Runs the code of docs/ as it is written: `python -m tests.docs_commands [PAGE ...]`.

Each page in an empty folder and a process of its own, its blocks from top to bottom: Python in one namespace, sh by
bash. Blocks that are marked are left out (`tests/docs.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.docs import FOLDER, Fenced, pages, to_run
from tests.readme import ROOT


def main(words: Sequence[str]) -> int:
    """Stops at the first page whose code fails."""
    if words[:1] == ["--blocks-of"]:
        return run(to_run(Path(words[1])))
    chosen = [FOLDER / word for word in words] or pages()
    with tempfile.TemporaryDirectory() as programs:
        # What one page compiles the next ones find.
        compiled = {"JAX_COMPILATION_CACHE_DIR": programs, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for page in filter(to_run, chosen):
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                code = subprocess.run(
                    [sys.executable, "-m", "tests.docs_commands", "--blocks-of", str(page)],
                    cwd=folder,
                    env={**os.environ, **compiled, "PYTHONPATH": str(ROOT)},
                ).returncode
            print(f"== {page.relative_to(ROOT)}: {time.monotonic() - began:.0f} s", flush=True)
            if code:
                return code
    return 0


def run(blocks: Sequence[Fenced]) -> int:
    """Runs a page's blocks here, one after another; the exit code of the first that fails."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        print(f"\n$ {block.place}", flush=True)
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)
            continue
        code = subprocess.run(["bash", "-e", "-c", block.code]).returncode
        if code:
            print(f"{block.place}: exit code {code}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
