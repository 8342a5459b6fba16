"""Reads README.md: its fenced blocks, by language; and keeps what its first command found.

`python -m tests.readme RUN` writes docs/quickstart.json, docs/quickstart.png and docs/pictures/ from the folder of that
command.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "quickstart.json"
PICTURES = ("network", "iteration_length", "backup_workers", "accuracy")
"""Of the same run, in docs/concepts/idea.md."""

FIRST = "python -m dbwjax.train"


def text() -> str:
    """All of it."""
    return (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text(), flags=re.DOTALL)


def record(run: Path) -> dict[str, Any]:
    """What README quotes of a run: the summary, and each world's time to the target."""
    from dbwjax.report.statistics import crossing
    from dbwjax.storage.metrics_log import read_metrics

    summary = json.loads((run / "summary.json").read_text())
    by: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        by.setdefault(row["policy"], {}).setdefault(row["world"], []).append(row)
    target, times = summary["target_accuracy"], {}
    for policy, worlds in by.items():
        found = [
            crossing([row["virtual_time"] for row in own], [row["test_accuracy"] for row in own], target)
            for _, own in sorted(worlds.items())
        ]
        times[policy] = [None if one is None else one.seconds for one in found]
    kept = json.loads((run / "config.json").read_text())
    return {
        "command": FIRST,
        "environment": kept["environment"],
        "worlds": json.loads((run / "worlds.json").read_text()),
        "times to target": times,
        "summary": {**summary, "cells": [{**cell, "policies": list(cell["policies"])} for cell in summary["cells"]]},
    }


def main(words: list[str]) -> int:
    """Writes the record and the pictures."""
    run = Path(words[0])
    RECORD.write_text(json.dumps(record(run), indent=1) + "\n")
    shutil.copy(run / "summary.png", RECORD.with_suffix(".png"))
    for name in PICTURES:
        shutil.copy(run / f"{name}.png", ROOT / "docs" / "pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
