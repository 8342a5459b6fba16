"""Which simulations a row of the comparison consists of."""

from __future__ import annotations

from benchmarks.all_methods_settings import DATA, FIXED, RATES, TUNED, Scale, Sim


def tuning_sims(scale: Scale) -> list[Sim]:
    """Every rate in the tuning worlds; worlds outermost, so that blocks are alike."""
    return [
        Sim(law, data, rate, seed)
        for seed in range(TUNED, TUNED + scale.tuning)
        for law in scale.laws
        for data in DATA
        for rate in RATES
    ]


def test_sims(scale: Scale, chosen: dict[tuple[str, str], float]) -> list[Sim]:
    """The chosen rate, and the fixed one where the scale wants it, in the test worlds."""
    return [
        Sim(law, data, rate, seed)
        for seed in range(scale.worlds)
        for law in scale.laws
        for data in DATA
        for rate in dict.fromkeys([chosen[law, data], *([FIXED] if scale.fixed else [])])
    ]
