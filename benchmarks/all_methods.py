"""All methods on the same clock: the measurements behind `docs/all-methods.md`, and the page.

    python -m benchmarks.all_methods                     measures what is missing, then writes the page
    python -m benchmarks.all_methods --only choco dcd    of these methods alone
    python -m benchmarks.all_methods --page              writes the page from what is kept
    python -m benchmarks.all_methods --data-dir DIR      where MNIST is (default: TFDS_DATA_DIR)

Each row of the page is kept in `benchmarks/results/all_methods/`, part by part, under a digest of everything that
decides it. A command that was killed goes on where it was, a method that is new is computed alone, and a setting that
was changed is computed again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import all_methods_kept as kept
from benchmarks.all_methods_figures import best_rates, cells, ranking
from benchmarks.all_methods_page import PAGE, updated
from benchmarks.all_methods_plan import beyond_sims, test_sims, tuning_sims
from benchmarks.all_methods_settings import MNIST, Scale, Sim, rows_of, with_step


def measure(spec: str, scale: Scale, folder: Path = kept.FOLDER) -> None:
    """Measures what is missing of one row: rates in the tuning worlds, the test worlds, and rates beyond an edge."""
    tuning = _part(spec, "tuning", tuning_sims(scale), scale, folder)
    chosen = best_rates(tuning, scale)
    _part(spec, "test", test_sims(scale, chosen), scale, folder)
    outward = beyond_sims(scale, chosen) if scale.fixed else []
    if outward:
        _part(spec, "beyond", outward, scale, folder)


def _part(spec: str, part: str, sims: Sequence[Sim], scale: Scale, folder: Path) -> list[kept.Found]:
    found = kept.load(folder, spec, part, sims, scale)
    if found is not None:
        return found
    from benchmarks.all_methods_worlds import trained

    begin, before, found = time.perf_counter(), time.process_time(), []
    for step in dict.fromkeys(with_step(spec, sim.rate) for sim in sims):  # one, but where the step is a key
        own = [sim for sim in sims if with_step(spec, sim.rate) == step]
        found += [kept.short(sim, rows, scale) for sim, rows in zip(own, trained(step, own, scale), strict=True)]
    spent = time.perf_counter() - begin, time.process_time() - before
    kept.save(folder, spec, part, sims, scale, found, spent)
    print(
        f"{spec}, {scale.name} {part}: {len(sims)} simulations, {spent[0]:.0f} s ({spent[1]:.0f} s of CPU)", flush=True
    )
    return found


def measure_mnist(scale: Scale, folder: Path = kept.FOLDER) -> bool:
    """Measures MNIST for the best rows on digits; False where it is not there."""
    from dbwjax.tasks.datasets import load

    try:
        load(scale.dataset, scale.data_dir, scale.pca)
    except ValueError as error:
        print(f"MNIST is left out: {error}", flush=True)
        return False
    for spec in ranking(cells(rows_of(), Scale(), folder))[: scale.best]:
        measure(spec, scale, folder)
    return True


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line, understood."""
    parser = argparse.ArgumentParser("python -m benchmarks.all_methods", description="Measures, and writes the page.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these methods, or rows, alone")
    parser.add_argument("--page", action="store_true", help="write the page from what is kept, and measure nothing")
    parser.add_argument("--no-mnist", action="store_true", help="digits alone")
    parser.add_argument("--data-dir", metavar="DIR", help="the TFDS folder with MNIST (default: TFDS_DATA_DIR)")
    return parser.parse_args(words)


def measure_rows(rows: Sequence[str], scale: Scale, folder: Path = kept.FOLDER) -> int:
    """Measures rows one after another; 1 if one failed, which does not stop the others."""
    failed = 0
    for spec in rows:
        try:
            measure(spec, scale, folder)
        except (ValueError, RuntimeError) as error:
            print(f"{spec} failed: {error}", flush=True)
            failed = 1
    return failed


def main(words: Sequence[str]) -> int:
    """Runs the command; 1 if a row failed, 2 for what cannot be understood."""
    chosen, failed = arguments(words), 0
    try:
        if not chosen.page:
            failed = measure_rows(rows_of(chosen.only), Scale())
            if not chosen.no_mnist:
                measure_mnist(MNIST._replace(data_dir=chosen.data_dir))
        PAGE.write_text(updated(PAGE.read_text()))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
