"""All measurements by one command.

    python -m benchmarks                          all parts
    python -m benchmarks step mixing --quick      some parts, small: to see that they work, not to quote
    python -m benchmarks --list                   what there is
    python -m benchmarks compare A.json B.json    two result files side by side

Results go to `benchmarks/results/<device>.json`; parts that were not measured keep what they have there. Quick figures
are only printed, unless `--out` names a file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import results

PARTS = {
    "step": "a whole training step of 2nn as a fraction of the machine's matrix product",
    "mixing": "mixing over 4 neighbours against a copy of as many bytes",
    "events": "event-driven methods one by one and in wide steps, against an event queue in Python and the limits",
    "graphs": "1,024 graphs in one program against NumPy; 32 trainings in one program against one at a time",
    "grid": "rows on a grid of times against rows by iteration; five worlds against one; a second call; the quickstart",
    "scaling": "cost of a worker-step and memory from 64 to 4,096 workers",
    "devices": "one training cut over 1, 2 and 8 devices; bytes moved against rows that must cross",
    "startup": "imports, and process start to the first step",
    "memory": "peak memory of training in multiples of the parameters",
    "coverage": "how often the interval over worlds holds the truth, with and without censored worlds",
    "which_rule": "late workers and waiting rules in six settings, ten paired worlds each; speed-up in N",
    "plan": "a hundred traces of known laws: how often plan is right, alone at the top, and its intervals hold",
    "dbw": "a server that decides for how many workers to wait, against every static number",
    "heterogeneous": "methods for data that differ from worker to worker: one label a worker, IID, time of a step",
    "compression": "compressed messages: a step over the plain one, CHOCO's gamma, who diverges with which codec",
    "peers": "the same training in PyTorch, torch.func, plain JAX and Flower, by wall and by CPU second",
}
FLAGS = {"devices": "--xla_force_host_platform_device_count=8"}
"""XLA flags that a part needs: a CPU shows itself as eight devices."""


def run_part(name: str, quick: bool) -> tuple[str, dict]:
    """Runs a part in a process of its own; its device and entry.

    Raises:
      RuntimeError: the part failed; the last line of what it said.
    """
    environment = dict(os.environ)
    if name in FLAGS:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {FLAGS[name]}".strip()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, "-m", "benchmarks.part", name, str(file), *(["--quick"] if quick else [])]
        root = Path(__file__).parents[1]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
        if done.returncode or not file.exists():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise RuntimeError(said[-1].strip() if said else f"exit code {done.returncode}")
        content = json.loads(file.read_text())
    return content["device"], content["entry"]


def shown(figures: dict, indent: str = "  ") -> str:
    """Figures to read: one a line, a spread as `median (min to max)`."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict) and "median" in value:
            lines.append(f"{indent}{name}: {value['median']:.4g} ({value['min']:.4g} to {value['max']:.4g})")
        elif value == {}:
            lines.append(f"{indent}{name}: nothing")
        elif isinstance(value, dict):
            lines += [f"{indent}{name}", shown(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value:.4g}" if isinstance(value, float) else f"{indent}{name}: {value}")
    return "\n".join(lines)


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line, understood."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measures, and writes results/<device>.json.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="of " + " ".join(PARTS) + " (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it works; not written by default"
    )
    parser.add_argument("--out", help="the result file (default: benchmarks/results/<device>.json)")
    parser.add_argument("--list", action="store_true", help="say what the parts measure")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part '{unknown[0]}'; the parts are {' '.join(PARTS)}")
    return chosen


def main(words: list[str]) -> int:
    """Runs the command; 1 if a part failed, 2 for what cannot be understood."""
    try:
        if words[:1] == ["compare"]:
            if len(words) != 3:
                raise ValueError("compare takes two result files: python -m benchmarks compare A.json B.json")
            print(results.compare(*words[1:]))
            return 0
        chosen = arguments(words)
        if chosen.list:
            print("\n".join(f"{name:<9} {what}" for name, what in PARTS.items()))
            return 0
        return measure_all(chosen)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def measure_all(chosen: argparse.Namespace) -> int:
    """Measures the chosen parts, one after another; each is written as soon as it is there."""
    failed = 0
    for name in chosen.parts or PARTS:
        print(f"{name}: {PARTS[name]}", flush=True)
        try:
            device, entry = run_part(name, chosen.quick)
        except RuntimeError as error:
            print(f"{name} failed: {error}", flush=True)
            failed = 1
            continue
        print(shown(entry["figures"]), flush=True)
        if chosen.out or not chosen.quick:
            results.merge(chosen.out or results.FOLDER / f"{device}.json", device, {name: entry})
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
