"""The rivals' environments, each a virtual environment in a cache folder.

    python -m benchmarks.peers.environment        makes those that are missing

The folder is `DBWJAX_PEERS`, or `~/.cache/dbwjax-benchmarks`. PyTorch comes as PyPI has it, with its libraries for
GPUs (about 6 GB), without which it does not load; what runs is the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ENVIRONMENTS = {"torch": (["torch", "numpy"], "import torch"), "flower": (["flwr[simulation]"], "import flwr, ray")}
"""What is installed, and what must work afterwards."""


def folder() -> Path:
    """Where the environments are."""
    return Path(os.environ.get("DBWJAX_PEERS") or Path.home() / ".cache" / "dbwjax-benchmarks")


def python(name: str) -> Path:
    """An environment's interpreter, whether or not it is there."""
    return folder() / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def missing(name: str) -> str | None:
    """Why an environment cannot be used, in a line; `None` if it can."""
    if not python(name).exists():
        return f"there is no environment in {folder()}; make it with python -m benchmarks.peers.environment"
    done = subprocess.run([python(name), "-c", ENVIRONMENTS[name][1]], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it does not start"])[-1]


def versions(name: str) -> dict[str, str]:
    """What an environment holds of the packages that it was made for."""
    listed = [package.split("[")[0] for package in ENVIRONMENTS[name][0]] + ["ray"] * (name == "flower")
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {listed!r}}}))"
    import json

    return json.loads(subprocess.run([python(name), "-c", code], check=True, capture_output=True, text=True).stdout)


def make(name: str) -> str | None:
    """Makes an environment unless it works already; why it cannot be made, or `None`."""
    if missing(name) is None:
        return None
    venv.create(folder() / name, with_pip=True)
    command = [python(name), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name][0]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return missing(name)


def main() -> int:
    """Makes all; 1 if one cannot be made."""
    failed = 0
    for name in ENVIRONMENTS:
        why = make(name)
        print(f"{name}: {'ready in ' + str(folder() / name) if why is None else 'cannot be made: ' + why}")
        failed |= why is not None
    return failed


if __name__ == "__main__":
    sys.exit(main())
