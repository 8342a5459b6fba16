"""Runs `tests/eight_devices` in processes that have eight CPU devices; this one has a single one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.readme import ROOT

FILES = sorted(path.name for path in (ROOT / "tests" / "eight_devices").glob("test_*.py"))


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", FILES)
def test_the_suite_of_eight_devices_passes(name):
    command = [sys.executable, "-m", "pytest", f"tests/eight_devices/{name}", "-n", "0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
    assert " passed" in done.stdout
