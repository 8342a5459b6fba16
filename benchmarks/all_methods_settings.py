"""What the comparison of all methods consists of: rows, settings, sizes, rates. All figures follow from these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dbwjax import specs
from dbwjax.policies import POLICIES

LAWS = {
    "exponential": "shifted_exponential:shift=0.5,rate=2",
    "Pareto": "pareto:alpha=1.5,scale=0.33333333",
    "Markov": "markov:p_slow=0.05,p_recover=0.2,factor=5*constant:seconds=0.55555556",
}
"""Three laws of one mean, 1 s a computation: independent; heavy-tailed, without a variance; slow for spells."""

DATA: dict[str, int | None] = {"iid": None, "one label": 9}
"""By data setting, the label that worker 0 alone holds."""

SLOW = 4.0
"""How many times slower worker 0 is where it alone holds a label."""

RATES = (0.03, 0.1, 0.3, 1.0)
"""Learning rates, of which one is chosen for each row, law and data setting."""

BEYOND = {RATES[0]: 0.01, RATES[-1]: 3.0}
"""The next rate outward of each edge: tried in the tuning worlds where the edge was chosen, to say so, and not used."""

FIXED = 0.1
"""The one learning rate of the figures beside."""

TUNED = 1000
"""Seed of the first tuning world; the first test world has seed 0."""

BASELINE = "adpsgd"
"""The row over which ratios are taken: it reaches the targets on IID data, and nobody in it waits."""

SPECS: dict[str, tuple[str, ...]] = {
    "full": ("full", "full:barrier=neighbours"),
    "fastest": ("fastest:k=12",),
    "deadline": ("deadline:seconds=1.5",),
    "backup": ("backup:b=1", "backup:b=1,gap=inf"),
    "server_backup": ("server_backup:b=4",),
    "k_sync": ("k_sync:k=12",),
    "k_batch_sync": ("k_batch_sync:k=16",),
    "k_async": ("k_async:k=4",),
    "k_batch_async": ("k_batch_async:k=4",),
    "async_server": ("async_server", "async_server:weight=mean"),
}
"""Rows of the methods that need a number, or of which a setting decides; all others are one row with their defaults."""

GRID_KEYS = {"dual_averaging": "alpha"}
"""Methods whose step is a key of their own, which takes the rates in place of the learner's rate."""

ORACLES = ("admm", "ssda", "msda", "mspd", "encoded")
"""Methods of convex tasks, which are not run here."""


class Sim(NamedTuple):
    """One simulation."""

    law: str
    data: str
    rate: float
    seed: int


class Scale(NamedTuple):
    """Sizes of a part."""

    name: str = "digits"
    dataset: str = "digits"
    model: str = "lrm"
    pca: int | None = None
    tests: int = 360  # test samples
    workers: int = 16
    batch: int = 32
    graph: str = "erdos_renyi:p=0.3"
    graph_seed: int = 1
    seconds: float = 60.0
    rows: int = 60
    laws: tuple[str, ...] = tuple(LAWS)
    targets: tuple[float, ...] = (0.93, 0.85)  # of each data setting
    tuning: int = 5  # worlds in which rates are tried
    worlds: int = 10
    fixed: bool = True  # whether the fixed rate is run in the test worlds, too
    best: int = 0  # so many rows, the best on digits; 0: all
    block: int = 60  # simulations side by side
    data_dir: str | None = None

    def target(self, data: str) -> float:
        """Of a data setting."""
        return dict(zip(DATA, self.targets, strict=True))[data]


MNIST = Scale(
    "mnist",
    "mnist",
    "2nn",
    pca=64,
    tests=1000,
    seconds=30.0,
    rows=10,
    laws=("exponential",),
    targets=(0.88, 0.8),
    tuning=2,
    fixed=False,
    best=8,
    block=5,
)


def rows_of(names: Sequence[str] | None = None) -> list[str]:
    """The rows of the page, or those of some methods.

    Args:
      names: of methods, or rows themselves; `None`: all.

    Raises:
      ValueError: a name that is none, or of a method that needs an oracle.
    """
    every = [spec for name in POLICIES if name not in ORACLES for spec in SPECS.get(name, (name,))]
    if names is None:
        return every
    found = [spec for name in names for spec in every if name in (spec, method_of(spec))]
    for name in names:
        if method_of(name) in ORACLES:
            raise ValueError(f"'{name}' needs an oracle and is not run here; see docs/convex.md")
        if not any(name in (spec, method_of(spec)) for spec in every):
            raise ValueError(f"there is no row '{name}'; {specs.nearest(name, [*every, *POLICIES])}")
    return list(dict.fromkeys(found))


def method_of(spec: str) -> str:
    """The method's name."""
    return specs.parse(spec)[0]


def with_step(spec: str, rate: float) -> str:
    """The SPEC that is trained at a rate: the same, but of methods whose step is a key of their own."""
    key = GRID_KEYS.get(method_of(spec))
    return spec if key is None else f"{spec}{',' if ':' in spec else ':'}{key}={rate:g}"
