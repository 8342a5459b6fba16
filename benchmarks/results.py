"""Result files: one for each kind of device, `results/<device>.json`, each part with its own date, commit and versions.

    {"device": ..., "parts": {"step": {"date", "commit", "quick", "cpus", "versions", "figures"}, ...}}

A part that is measured again replaces its entry and leaves the others as they are.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "flax")


def commit() -> str:
    """The commit that is measured; `+` where the tree has changed since; `unknown` outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            cwd=FOLDER.parent,
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def entry(figures: dict, quick: bool) -> dict[str, Any]:
    """A part's figures with what must be known of the machine and the moment."""
    versions = {"python": platform.python_version(), "processor": platform.machine()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "quick": quick,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": versions,
        "figures": figures,
    }


def load(path: str | os.PathLike) -> dict[str, Any]:
    """A result file.

    Raises:
      ValueError: no such file, or not a result file.
    """
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); write it with python -m benchmarks") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("parts"), dict):
        raise ValueError(f"{path} is not a result file; write it with python -m benchmarks")
    return content


def merge(path: str | os.PathLike, device: str, parts: dict[str, Any]) -> None:
    """Writes `parts` into a result file and leaves its other parts as they are.

    Raises:
      ValueError: the file holds another device's results, or is not a result file.
    """
    target = Path(path)
    held = load(target) if target.exists() else {"device": device, "parts": {}}
    if held["device"] != device:
        raise ValueError(f"{path} holds results of {held['device']}, not of {device}; choose another --out")
    held["parts"] |= parts
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(held, indent=1) + "\n")
    os.replace(draft, target)


def flat(figures: Any, name: str = "") -> dict[str, float]:
    """Figures by their path; of a spread, the median."""
    if isinstance(figures, dict):
        if "median" in figures:
            return {name: figures["median"]}
        found: dict[str, float] = {}
        for key, value in figures.items():
            found |= flat(value, f"{name} / {key}" if name else key)
        return found
    return {name: figures} if isinstance(figures, int | float) and not isinstance(figures, bool) else {}


def compare(first: str | os.PathLike, second: str | os.PathLike) -> str:
    """A table of the figures of two result files, and `second / first`.

    Raises:
      ValueError: a file that is not a result file.
    """
    files = [load(first), load(second)]
    lines = []
    for part in dict.fromkeys([*files[0]["parts"], *files[1]["parts"]]):
        entries = [content["parts"].get(part) for content in files]
        commits = [entry["commit"] if entry else "-" for entry in entries]
        sides = [flat(entry["figures"]) if entry else {} for entry in entries]
        lines.append(f"{part:<80} {commits[0]:>12} {commits[1]:>12} {'ratio':>8}")
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            a, b = (side.get(name) for side in sides)
            ratio = f"{b / a:8.3f}" if a and b is not None else f"{'-':>8}"
            shown = [f"{'-':>12}" if value is None else f"{value:12.5g}" for value in (a, b)]
            lines.append(f"  {name:<78} {shown[0]} {shown[1]} {ratio}")
    return "\n".join(lines)
