"""Runs the code of docs/ as it is written: `python -m tests.docs_commands [PAGE ...]`.

Each page in an empty folder and a process of its own, its blocks from top to bottom: Python in one namespace, sh by
bash. Blocks that are marked are left out (`tests/docs.py`). Programs are compiled lightly, as those of tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.compiling import light_environment
from tests.docs import FOLDER, Fenced, pages, to_run
from tests.readme import ROOT


def main(words: Sequence[str]) -> int:
    """Runs pages side by side, one a core; 1 if the code of any fails."""
    if words[:1] == ["--blocks-of"]:
        return run(to_run(Path(words[1])))
    chosen = [FOLDER / word for word in words] or pages()
    with tempfile.TemporaryDirectory() as programs, ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        # What one page compiles the next ones find.
        cache = {"JAX_COMPILATION_CACHE_DIR": programs, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        around = {**os.environ, **light_environment(), **cache, "PYTHONPATH": str(ROOT)}
        codes = list(side_by_side.map(lambda page: run_apart(page, around), filter(to_run, chosen)))
    return int(any(codes))


def run_apart(page: Path, around: Mapping[str, str]) -> int:
    """Runs a page in an empty folder and a process of its own, and prints what that printed; its exit code."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.docs_commands", "--blocks-of", str(page)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    what = "done" if done.returncode == 0 else f"exit code {done.returncode}"
    print(f"{done.stdout}== {page.relative_to(ROOT)}: {what}, {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode


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
