"""Runs README's commands as they are written, but for the tests: `python -m tests.readme_commands`.

For environments that can be thrown away. Of a line that first makes an environment, only what comes after the
installation is run: whoever calls this has just made and installed one by the same words (`.ci/run`). What the first
command found must be what `docs/quickstart.json` says.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from tests.readme import FIRST, RECORD, ROOT, blocks, record

SUITE = "python -m pytest"
"""README's second command, which `.ci/run` runs as a stage of its own."""

TOLERANCE = {"time_to_target": 0.05, "test_accuracy": 0.01, "iteration_length": 1e-4, "wasted": 1e-4}
"""Of the figures that README quotes, relative. Delays are the same everywhere; other versions of JAX round otherwise,
which training amplifies."""


def main() -> int:
    """Stops at the first command that fails, or whose result README does not quote."""
    for block in blocks("sh"):
        for line in filter(None, block.splitlines()):
            command = line.split("'.[dev]' && ")[-1]
            if command == SUITE:
                continue
            print(f"\n$ {command}", flush=True)
            code = subprocess.run(["bash", "-c", command], cwd=ROOT).returncode
            if code:
                print(f"README's command failed with exit code {code}: {command}", file=sys.stderr)
                return code
            wrong = differences(ROOT / "runs" / "quickstart") if command == FIRST else []
            if wrong:
                print("README quotes other figures than its command finds:", *wrong, sep="\n  ", file=sys.stderr)
                return 1
    return 0


def differences(run: Path) -> list[str]:
    """Where a run of README's first command and the committed record of it disagree, a line each."""
    found, kept = (one["summary"]["policies"] for one in (record(run), json.loads(RECORD.read_text())))
    if list(found) != list(kept):
        return [f"policies: {', '.join(found)} instead of {', '.join(kept)}"]
    lines = []
    for spec, facts in kept.items():
        for name, tolerance in TOLERANCE.items():
            one, other = found[spec][name], facts[name]
            if one is None or not math.isclose(one, other, rel_tol=tolerance):
                lines.append(f"{spec}, {name}: {one} instead of {other}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
