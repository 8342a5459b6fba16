"""Common to all tests: strict JAX, float64 where numbers are compared, and where the prepared data sets are."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def x64():
    """Double precision for one test: for agreement with the references to 1e-12."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="session")
def tfds_dir() -> str:
    """A TFDS folder with prepared MNIST and CIFAR-10."""
    beside = ROOT.parent / "shared" / "data" / "tfds"
    folder = os.environ.get("TFDS_DATA_DIR") or (str(beside) if beside.is_dir() else None)
    if folder is None or not Path(folder).is_dir():
        pytest.fail("prepared data sets are needed: set TFDS_DATA_DIR to a TFDS folder with mnist and cifar10")
    return folder
