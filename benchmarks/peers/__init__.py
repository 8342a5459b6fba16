"""The same training in other ways, each in a process (and an environment) of its own; see `run.py`.

Modules that rivals run import nothing here but `job.py`, which needs NumPy alone.
"""

from __future__ import annotations


def measure(quick: bool) -> dict:
    """All contenders on all cases; quick: one small case, and only those that need no other environment."""
    from benchmarks.peers import run

    return run.measure(quick)
