"""Runs README's commands as they are written: `python -m tests.readme_commands`.

For environments that can be thrown away. Of a line that first makes an environment, only what comes after the
installation is run: whoever calls this has just made and installed one by the same words (`.ci/run`).
"""

from __future__ import annotations

import subprocess
import sys

from tests.readme import ROOT, blocks


def main() -> int:
    """Stops at the first command that fails."""
    for block in blocks("sh"):
        for line in filter(None, block.splitlines()):
            command = line.split("'.[dev]' && ")[-1]
            print(f"\n$ {command}", flush=True)
            code = subprocess.run(["bash", "-c", command], cwd=ROOT).returncode
            if code:
                print(f"README's command failed with exit code {code}: {command}", file=sys.stderr)
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
