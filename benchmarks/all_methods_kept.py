"""What is kept of the comparison of all methods: a file a row, in it each part under a digest of what decides it."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.all_methods_settings import DATA, LAWS, SLOW, Scale, Sim

FOLDER = results.FOLDER / "all_methods"
ENDS = ("step", "gradients", "computing", "wasted", "waiting", "communicating", "bytes_sent", "iteration_length")
"""Columns of the last row that are kept. Of all rows, the test accuracy is, as a number of hits."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What is kept of a simulation."""

    sim: Sim
    hits: list[int | None]  # of the test samples, by row; None: the model was no longer finite
    end: Mapping[str, float | None]  # by column of `ENDS`


def short(sim: Sim, rows: Sequence[Mapping[str, Any]], scale: Scale) -> Found:
    """What is kept of the rows of a simulation."""
    accuracies = [row["test_accuracy"] for row in rows]
    hits = [None if not _finite(one) else round(one * scale.tests) for one in accuracies]
    return Found(sim, hits, {name: _rounded(rows[-1][name]) for name in ENDS})


def digest(spec: str, sims: Sequence[Sim], scale: Scale) -> str:
    """Of everything that decides a part's results, but the code."""
    said = [spec, scale._replace(data_dir=None, name="", best=0, fixed=False, targets=()), LAWS, DATA, SLOW, sims]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def load(folder: Path, spec: str, part: str, sims: Sequence[Sim], scale: Scale) -> list[Found] | None:
    """A part that is kept; `None`: there is none, or one of other settings."""
    entry = _read(folder, spec).get(f"{scale.name} {part}")
    if entry is None or entry["digest"] != digest(spec, sims, scale):
        return None
    return [Found(Sim(*one[:4]), one[4], dict(zip(ENDS, one[5], strict=True))) for one in entry["simulations"]]


def facts(folder: Path, spec: str, part: str, scale: Scale) -> dict[str, Any]:
    """Date, commit and seconds of a part that is kept."""
    return {name: value for name, value in _read(folder, spec)[f"{scale.name} {part}"].items() if name != "simulations"}


def save(
    folder: Path,
    spec: str,
    part: str,
    sims: Sequence[Sim],
    scale: Scale,
    found: Sequence[Found],
    spent: tuple[float, float],
) -> None:
    """Keeps a part; `spent` are seconds of the clock and of the CPU."""
    entry = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": results.commit(),
        "seconds": round(spent[0], 1),
        "cpu_seconds": round(spent[1], 1),
        "digest": digest(spec, sims, scale),
        "simulations": [[*one.sim, one.hits, list(one.end.values())] for one in found],
    }
    content = {**_read(folder, spec), f"{scale.name} {part}": entry}
    folder.mkdir(parents=True, exist_ok=True)
    target = _file(folder, spec)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    draft.write_text(_text(content))
    os.replace(draft, target)


def _file(folder: Path, spec: str) -> Path:
    return folder / f"{re.sub('[^a-z0-9_.]+', '-', spec.lower())}.json"


def _read(folder: Path, spec: str) -> dict[str, Any]:
    file = _file(folder, spec)
    try:
        return json.loads(file.read_text()) if file.exists() else {}
    except ValueError:
        raise ValueError(f"{file} is damaged; delete it, and the command computes it again") from None


def _text(content: Mapping[str, Any]) -> str:
    """JSON with a simulation a line."""
    parts = []
    for part, entry in content.items():
        lines = ",\n   ".join(json.dumps(one, separators=(",", ":")) for one in entry["simulations"])
        rest = "".join(f'  "{name}": {json.dumps(value)},\n' for name, value in entry.items() if name != "simulations")
        parts.append(f' "{part}": {{\n{rest}  "simulations": [\n   {lines}\n  ]\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _rounded(value: float | None) -> float | None:
    """To six digits; `None`: there is none."""
    return float(f"{value:.6g}") if _finite(value) else None
