"""What measured times look like: each machine, spells of slowness, correlation, and how long a block must be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SLOW = 2.0
"""A step is slow where it takes more than so many times its machine's median."""


class Machine(NamedTuple):
    """One machine's times, in seconds."""

    name: str
    mean: float
    p50: float
    p95: float
    p99: float
    slow: float  # share of steps slower than `SLOW` medians
    spells: int  # runs of such steps
    longest: int  # steps of the longest run
    autocorrelation: float  # of the logarithms, from one step to the next


class Data(NamedTuple):
    """What a trace looks like."""

    machines: list[Machine]
    correlation: np.ndarray  # [N, N] of the logarithms
    block: int  # rows that bootstrap keeps together
    rows: int

    @property
    def blocks(self) -> float:
        """How many blocks the trace is made of."""
        return self.rows / self.block

    @property
    def slowest(self) -> int:
        """The machine with the largest mean."""
        return int(np.argmax([one.mean for one in self.machines]))

    @property
    def typical(self) -> int:
        """The machine whose mean is in the middle; never the slowest."""
        order = np.argsort([one.mean for one in self.machines], kind="stable")
        return int(order[(len(order) - 1) // 2])

    @property
    def mean_correlation(self) -> float:
        """Between two different machines."""
        count = len(self.machines)
        return float((self.correlation.sum() - count) / (count * (count - 1)))


def describe(seconds: np.ndarray, names: tuple[str, ...]) -> Data:
    """Looks at a trace.

    Args:
      seconds: `[rows, N]`.
      names: of the machines.
    """
    logs = np.log(seconds)
    block = max(block_length(series) for series in _rows(logs))
    return Data([_machine(*one) for one in zip(names, seconds.T, strict=True)], _correlation(logs), block, len(seconds))


def block_length(series: np.ndarray) -> int:
    """Rows that a circular block bootstrap should keep together, from a series' autocorrelation; 1: none.

    Politis and White 2004, "Automatic block-length selection for the dependent bootstrap", as corrected by Patton,
    Politis and White 2009: `(2 G^2 / D)^(1/3) n^(1/3)`, at most `min(3 sqrt(n), n / 3)`.

    Args:
      series: `[n]`.
    """
    count = len(series)
    centred = series - series.mean()
    if not np.any(centred):
        return 1
    most = int(np.ceil(np.sqrt(count))) + max(5, int(np.sqrt(np.log10(count))))
    quiet = max(5, int(np.sqrt(np.log10(count))))
    lags = min(2 * most, count - 1)
    power = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    covariance = np.fft.irfft(power)[: lags + 1] / count
    small = np.abs(covariance / covariance[0]) < 2 * np.sqrt(np.log10(count) / count)
    run = next((lag for lag in range(1, most + 1) if small[lag : lag + quiet].all()), None)
    last = (run - 1) if run is not None else int(np.flatnonzero(~small).max())
    if last == 0:
        return 1
    width = min(2 * last, lags)
    lag = np.arange(-width, width + 1)
    taper = np.clip(2 * (1 - np.abs(lag) / width), 0, 1)
    own = covariance[np.abs(lag)]
    spread, level = float((taper * np.abs(lag) * own).sum()), float((taper * own).sum())
    if level <= 0:
        return 1
    found = (2 * spread**2 / (4 / 3 * level**2)) ** (1 / 3) * count ** (1 / 3)
    return int(np.clip(np.ceil(found), 1, max(1, min(np.ceil(3 * np.sqrt(count)), count // 3))))


def _rows(logs: np.ndarray) -> list[np.ndarray]:
    """What an iteration depends on: a row's mean, middle and slowest machine."""
    return [logs.mean(axis=1), np.median(logs, axis=1), logs.max(axis=1)]


def _machine(name: str, seconds: np.ndarray) -> Machine:
    median = float(np.median(seconds))
    slow = np.concatenate([[False], seconds > SLOW * median, [False]])
    edges = np.flatnonzero(slow[1:] != slow[:-1])
    runs = edges[1::2] - edges[::2]
    p95, p99 = np.quantile(seconds, [0.95, 0.99])
    logs = np.log(seconds) - np.log(seconds).mean()
    total = float((logs**2).sum())
    return Machine(
        name,
        float(seconds.mean()),
        median,
        float(p95),
        float(p99),
        float(slow.mean() * len(slow) / len(seconds)),
        len(runs),
        int(runs.max(initial=0)),
        float((logs[1:] * logs[:-1]).sum() / total) if total else 0.0,
    )


def _correlation(logs: np.ndarray) -> np.ndarray:
    spread = logs.std(axis=0)
    centred = (logs - logs.mean(axis=0)) / np.where(spread > 0, spread, 1)
    found = centred.T @ centred / len(logs)
    np.fill_diagonal(found, 1)
    return found


def as_json(data: Data) -> dict[str, Any]:
    """The same as plain JSON."""
    return {
        "machines": [one._asdict() for one in data.machines],
        "mean_correlation": data.mean_correlation,
        "block": data.block,
        "rows": data.rows,
    }
