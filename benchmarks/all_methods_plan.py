"""Which simulations a row of the comparison consists of."""

from __future__ import annotations

from benchmarks.all_methods_settings import BEYOND, DATA, FIXED, RATES, TUNED, Scale, Sim


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


def beyond_sims(scale: Scale, chosen: dict[tuple[str, str], float]) -> list[Sim]:
    """The next rate outward in the tuning worlds, where the rate that was chosen is at the edge of the grid."""
    return [
        Sim(law, data, BEYOND[chosen[law, data]], seed)
        for seed in range(TUNED, TUNED + scale.tuning)
        for law in scale.laws
        for data in DATA
        if chosen[law, data] in BEYOND
    ]
