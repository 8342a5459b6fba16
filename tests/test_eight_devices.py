"""Runs `tests/eight_devices` in a process that has eight CPU devices; this one has a single one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.readme import ROOT


@pytest.mark.timeout(1500)
def test_the_suite_of_eight_devices_passes():
    command = [sys.executable, "-m", "pytest", "tests/eight_devices", "-n", "0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
    assert " passed" in done.stdout
