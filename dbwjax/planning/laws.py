"""Laws fitted to each machine's times by maximum likelihood (`scipy.stats`), and how well they fit.

One family for all machines, with each machine's own parameters. Families have no free shift but the shifted exponential
and Pareto, whose maximum of the likelihood lies at the shortest time; with a free shift the likelihood of the others
has no maximum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dbwjax import specs

FAMILIES = {
    "exponential": ("expon", "shifted exponential"),
    "lognormal": ("lognorm", "log-normal"),
    "gamma": ("gamma", "gamma"),
    "weibull": ("weibull_min", "Weibull"),
    "pareto": ("pareto", "Pareto"),
}
"""What each is called in scipy, and in words."""

LEVEL = 0.05
"""A law is said not to fit where samples that it draws itself look worse less often."""

REDRAWN, TESTED, MACHINES, POOL = 99, 400, 12, 50_000
"""Samples that a law draws itself; steps and machines that are tested, spread evenly; rows drawn of a law."""


class Fit(NamedTuple):
    """One family, fitted."""

    family: str
    parameters: list[tuple[float, ...]]  # of each machine, as scipy takes them
    aic: float  # over all machines; lower is better
    gap: float  # Kolmogorov-Smirnov: the largest distance between data and law of any machine
    worst: int  # that machine
    p_value: float | None = None  # of all machines together; None: not tested

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        return self.p_value is not None and self.p_value >= LEVEL

    @property
    def words(self) -> str:
        """Its name for people."""
        return FAMILIES[self.family][1]

    def of(self, machine: int) -> Any:
        """A machine's law, frozen."""
        return _family(self.family)(*self.parameters[machine])


def fit_all(seconds: np.ndarray) -> list[Fit]:
    """Every family, the best first; the best alone is tested.

    Args:
      seconds: `[rows, N]`.
    """
    found = sorted((_fit(family, seconds) for family in FAMILIES), key=lambda one: one.aic)
    return [tested(found[0], seconds), *found[1:]]


def chosen(law: str, fits: list[Fit], seconds: np.ndarray, names: tuple[str, ...]) -> Fit:
    """The fit that `--law` names, if it fits.

    Raises:
      ValueError: an unknown name, or a law that does not fit.
    """
    if law != "best" and law not in FAMILIES:
        raise ValueError(f"unknown law '{law}'; {specs.nearest(law, ['trace', 'best', *FAMILIES])}")
    found = fits[0] if law == "best" else next(one for one in fits if one.family == law)
    found = found if found.p_value is not None else tested(found, seconds)
    if not found.fits:
        raise ValueError(
            f"law {found.family} does not fit: on '{names[found.worst]}' it is off by {100 * found.gap:.0f} points "
            f"(p = {found.p_value:.2g}); leave --law out, and the trace itself is used"
        )
    return found


def table_of(fit: Fit, rng: np.random.Generator) -> np.ndarray:
    """Many rows drawn from a law, `[POOL, N]`; machines and steps are independent in it."""
    return np.column_stack([fit.of(i).rvs(POOL, random_state=rng) for i in range(len(fit.parameters))])


def tested(fit: Fit, seconds: np.ndarray) -> Fit:
    """One test for all machines: the largest of Kolmogorov and Smirnov's distances, against that of samples that the
    laws draw themselves and that are fitted anew each time (parametric bootstrap).

    The test takes a machine's steps for independent; where they are not, it refuses too easily.
    """
    rng = np.random.default_rng(0)
    machines = np.unique(np.linspace(0, seconds.shape[1] - 1, min(MACHINES, seconds.shape[1])).astype(int))
    rows = seconds[np.linspace(0, len(seconds) - 1, min(TESTED, len(seconds))).astype(int)][:, machines]
    laws = [_family(fit.family)(*_parameters(fit.family, own)) for own in rows.T]
    seen = max(_distance(law, own) for law, own in zip(laws, rows.T, strict=True))
    worse = 0
    for _ in range(REDRAWN):
        drawn = [law.rvs(len(rows), random_state=rng) for law in laws]
        worse += max(_distance(_family(fit.family)(*_parameters(fit.family, own)), own) for own in drawn) >= seen
    return fit._replace(p_value=(1 + worse) / (1 + REDRAWN))


def _fit(family: str, seconds: np.ndarray) -> Fit:
    parameters = [_parameters(family, own) for own in seconds.T]
    laws = [_family(family)(*each) for each in parameters]
    free = 2 * len(parameters)
    density = sum(float(law.logpdf(own).sum()) for law, own in zip(laws, seconds.T, strict=True))
    gaps = [_distance(law, own) for law, own in zip(laws, seconds.T, strict=True)]
    return Fit(family, parameters, 2 * free - 2 * density, max(gaps), int(np.argmax(gaps)))


def _family(name: str) -> Any:
    from scipy import stats

    return getattr(stats, FAMILIES[name][0])


def _parameters(family: str, own: np.ndarray) -> tuple[float, ...]:
    """Maximum likelihood; a spread of zero is taken for a tiny one, since no law has none."""
    from scipy import stats

    if np.ptp(np.log(own)) < 1e-6:
        own = own * np.exp(np.linspace(-1e-6, 1e-6, len(own)))
    if family == "exponential":
        return stats.expon.fit(own)
    if family == "weibull":  # the logarithm of a Weibull time is Gumbel's, whose fit is one equation
        location, scale = stats.gumbel_l.fit(np.log(own))
        return 1 / scale, 0.0, float(np.exp(location))
    if family == "pareto":
        least = own.min()
        return 1 / float(np.log(own / least).mean()), 0.0, float(least)
    return _family(family).fit(own, floc=0)


def _distance(law: Any, own: np.ndarray) -> float:
    """Kolmogorov and Smirnov's."""
    below = law.cdf(np.sort(own))
    steps = np.arange(len(own) + 1) / len(own)
    return float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))
