"""One sentence by hand for each row of the comparison: why it stands where it stands, where the figures say so.

A row without one has its figures alone.
"""

from __future__ import annotations

WHY: dict[str, str] = {
    "adpsgd": "Nobody waits, but a gradient is added to one of 16 models: the mean moves by a sixteenth of the step.",
    "async_server": "Nobody waits, and one model takes every gradient at its full step, 16 times that of a mean: "
    "at 0.1, too, it arrives in every world.",
    "async_server:weight=mean": "As many gradients as `adpsgd` and steps of the same size, but computed at "
    "one common model: so the gap between these two is not one of step sizes.",
    "dybw": "Its iterations are short with exponential delays; with Pareto and Markov delays a late worker often "
    "holds up its spanning path, and it waits about half of the time.",
    "fastest:k=12": "The four slowest are not waited for and their gradients are carried, so heavy tails cost little; "
    "the slow worker's label is not learned.",
    "server": "It waits for the slowest worker and makes few steps; but in each the slow worker's gradient counts like "
    "any other, at a common model that does not know its label.",
    "full": "The same barrier as `server`, and as many gradients, over a sparse graph: what differs is that each "
    "worker computes at its own model, and that of the slow worker presumably knows its label first.",
    "full:barrier=neighbours": "A late worker stops its neighbours, and others only through them: it waits less than "
    "`full` does.",
    "k_sync:k=12": "A quarter of all computations is cut off, and still it makes twice the iterations of `server`; the "
    "slow worker counts when four others are slower still, as happens in the spells of Markov delays.",
    "dsgd_aau": "As `dybw` without a path that is fixed in advance, and the figures are alike: with Pareto delays, the "
    "epoch that must span all workers ends with the slowest of them.",
    "dpsgd": "In setting 1 it is ahead of `full:barrier=neighbours` at rate 0.1 and behind at the chosen one: its "
    "gradients are of the parameters before they are mixed, and it bears large rates less well.",
}
