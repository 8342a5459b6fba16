"""Ctrl-C and SIGTERM at random instants, from a command's first line to its end: one line, and 130 or 143."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.readme import ROOT

pytestmark = pytest.mark.slow

# Says when Python comes to the first line of our own module, which stands before everything that takes time.
FIRST_LINE = """
import os, runpy, sys
class Told:
    def find_spec(self, name, path=None, target=None):
        if name == "dbwjax.cli.start":
            os.write(1, b".")
sys.meta_path.insert(0, Told())
sys.argv[0] = module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

TASK = ["--workers", "4", "--dataset", "logistic:dimension=4,samples=40"]
TRAIN = ["dbwjax.train", *TASK, "--policies", "dybw", "full", "--seconds", "400", "--rows", "20", "--seeds", "2"]
SWEEP = ["dbwjax.sweep", *TASK, "--graphs", "ring", "path", "--policies", "full", "--seconds", "100", "--seeds", "2"]
LIST, OVERVIEW = ["dbwjax.train", "--list"], ["dbwjax"]
COMMANDS = [(TRAIN, 8.0), (SWEEP, 8.0), (TRAIN, 2.0), (LIST, 1.5), (TRAIN, 8.0), (OVERVIEW, 0.15)]  # and seconds
PROGRESS = re.compile(r".*: [0-9.]+ of [0-9.]+ s; \d+ of \d+ simulations done")
CASES, ALL = 20, 100.0  # signals, and seconds after which no more are sent


def interrupted(words, delay, signum, folder):
    """Exit code, lines on standard error but for progress, and seconds from the first line to the end."""
    place = ["--compile-cache", str(folder / "programs")] if len(words) > 2 else []
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_LINE, *words, *place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout.read(1) == b"."
        begin = time.monotonic()
        try:
            _, said = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signum)
            _, said = process.communicate(timeout=120)
    lines = [line for line in said.decode().splitlines() if not PROGRESS.fullmatch(line)]
    return process.returncode, lines, time.monotonic() - begin


def test_at_any_instant(tmp_path):
    draw, begin, ended = random.Random(), time.monotonic(), 0
    for case in range(CASES):
        if time.monotonic() - begin > ALL:
            break
        words, most = COMMANDS[case % len(COMMANDS)]
        delay = draw.uniform(0.01, most)
        signum = signal.SIGTERM if case % 4 == 3 else signal.SIGINT
        code, lines, took = interrupted([*words, *anew(words)], delay, signum, tmp_path)
        print(f"{delay:.2f} s, {words[:2]}: {code} after {took - delay:.2f} s, {lines}")
        assert code in (0, 128 + signum)
        assert len(lines) == bool(code)
        assert not code or lines[0].startswith(f"error: stopped by {signum.name}")
        ended += code != 0
    assert ended >= CASES // 4


def anew(words):
    """Of a training or a sweep: begin again."""
    return ["--overwrite"] if len(words) > 2 else []
