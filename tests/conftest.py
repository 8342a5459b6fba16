"""Common to all tests: strict JAX, float64 where numbers are compared, and where the prepared data sets are."""

from __future__ import annotations

import gc
import os
from pathlib import Path

# Before JAX starts: one device, also where a sweep would take as many as there are cores.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

import jax
import pytest

from tests.compiling import compile_lightly

jax.config.update("jax_numpy_rank_promotion", "raise")

# They need a process of their own, see test_eight_devices.py.
collect_ignore = [] if os.environ.get("JAX_NUM_CPU_DEVICES") == "8" else ["eight_devices"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """The longest first, so that at the end no core waits for the other; and so that a module whose runs take long is
    not shared out between processes, which steal from the end."""
    first = ("test_eight_devices", "test_families")
    items.sort(key=lambda item: next((place for place, name in enumerate(first) if name in item.nodeid), len(first)))
    # Of a module, those that are marked `optimised` come last: each change of how is compiled lets all programs go.
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    items[:] = [item for own in modules.values() for item in sorted(own, key=lightly, reverse=True)]


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Programs compiled by one test are found by the others, and by the processes that tests start."""
    folder = str(tmp_path_factory.mktemp("programs"))
    before = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    os.environ.pop("JAX_COMPILATION_CACHE_DIR")
    if before is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = before


MAPPINGS = 15_000


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go():
    """A compiled program holds tens of memory mappings, of which Linux allows a process 65,530: a suite that keeps all
    of its programs crashes in the compiler. Until there are many, the next modules find what they share."""
    yield
    try:
        mappings = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # not Linux
        mappings = MAPPINGS
    if mappings >= MAPPINGS:
        jax.clear_caches()
        gc.collect()


def lightly(node) -> bool:
    """Whether a module or a test compiles lightly. What two programs have in common to the last bit, what memory one
    takes and what it sends is to be so in the programs that users get: such tests are marked `optimised`."""
    return node.get_closest_marker("optimised") is None


@pytest.fixture(scope="module", autouse=True)
def compiled_as_the_module_says(request):
    compile_lightly(lightly(request.node))


@pytest.fixture(autouse=True)
def compiled_as_the_test_says(request):
    compile_lightly(lightly(request.node))  # and so it stays: the next test may be of the same kind


@pytest.fixture(scope="module", autouse=True)
def pages_as_the_module_says(request):
    """A page takes most of a small run's time: runs and sweeps leave one only in modules that are marked `pages`."""
    if request.node.get_closest_marker("pages") is not None:
        yield
        return
    from dbwjax.experiments import run
    from dbwjax.experiments.sweep import run as sweep

    with pytest.MonkeyPatch.context() as patch:
        for left in (run, sweep):
            patch.setattr(left, "leave_page", lambda path, *_, **__: path / "report.html")
        yield


@pytest.fixture
def no_figures(monkeypatch):
    """Runs and sweeps draw nothing and leave no page, which is most of a small one's time: `test_plots.py` looks at
    figures, `test_page.py` at pages."""
    from dbwjax.experiments import run
    from dbwjax.experiments.sweep import run as sweep
    from dbwjax.report import sweep_figures

    for left in (run, sweep):
        monkeypatch.setattr(left, "leave_page", lambda path, *_, **__: path / "report.html")
    monkeypatch.setattr(run, "write_figures", lambda path, *_, **__: [path / "summary.png"])
    monkeypatch.setattr(sweep_figures, "write_figures", lambda *_, **__: [])


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
