"""One part in a process of its own: `python -m benchmarks.part NAME FILE [--quick]`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def device() -> str:
    """The device in a few words, as a file name part."""
    import os

    import jax

    kind = jax.devices()[0].device_kind if jax.default_backend() != "cpu" else f"cpu-{os.cpu_count()}-cores"
    return kind.lower().replace(" ", "-")


def main(words: list[str]) -> None:
    """Measures the part and writes `{"device", "entry"}` to the file."""
    from benchmarks import results

    name, file, quick = words[0], words[1], "--quick" in words
    figures = importlib.import_module(f"benchmarks.{name}").measure(quick)
    Path(file).write_text(json.dumps({"device": device(), "entry": results.entry(figures, quick)}))


if __name__ == "__main__":
    main(sys.argv[1:])
