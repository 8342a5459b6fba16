"""One sentence by hand for each row of the comparison: why it stands where it stands, where the figures say so.

A row without one has its figures alone.
"""

from __future__ import annotations

WHY: dict[str, str] = {
    "adpsgd": "Nobody waits, but a gradient is added to one of 16 models: the mean moves by a sixteenth of the step.",
    "async_server": "Nobody waits, and one model takes every gradient at its full step, 16 times that of a mean: at "
    "0.1, too, it arrives in every world.",
    "async_server:weight=mean": "As many gradients as `adpsgd` and steps of the same size, but computed at one "
    "common model: so the gap between these two is not one of step sizes.",
    "dybw": "Its iterations are short with exponential delays; with Pareto and Markov delays a late worker often "
    "holds up its spanning path, and it waits about half of the time.",
    "fastest:k=12": "The four slowest are not waited for and their gradients are carried, so heavy tails cost "
    "little; the slow worker's label is not learned.",
    "server": "It waits for the slowest worker and makes few steps; but in each the slow worker's gradient counts "
    "like any other, at a common model that does not know its label.",
    "full": "The same barrier as `server`, and as many gradients, over a sparse graph: what differs is that each "
    "worker computes at its own model, and that of the slow worker presumably knows its label first.",
    "full:barrier=neighbours": "A late worker stops its neighbours, and others only through them: it waits less than "
    "`full` does.",
    "k_sync:k=12": "A quarter of all computations is cut off, and still it makes twice the iterations of `server`; "
    "the slow worker counts when four others are slower still, as happens in the spells of Markov delays.",
    "dsgd_aau": "As `dybw` without a path that is fixed in advance, and the figures are alike: with Pareto delays, "
    "the epoch that must span all workers ends with the slowest of them.",
    "dpsgd": "In setting 1 it is ahead of `full:barrier=neighbours` at rate 0.1 and behind at the chosen one: its "
    "gradients are of the parameters before they are mixed, and it bears large rates less well.",
    "server_backup:b=4": "Of 16 workers it takes the first 12: `k_sync:k=12` by another name, with the same figures.",
    "k_async:k=4": "Steps of four gradients, some of them stale, at one common model; few workers ever wait.",
    "k_batch_async:k=4": "`k_async` in which nobody waits at all.",
    "k_batch_sync:k=16": "Sixteen batches at one model, whoever computes them: fast workers compute several, the "
    "slow one is mostly cut off, and about half of all computing is thrown away.",
    "randomized_gossip": "`adpsgd` with averaging at random times in place of finishes, and much the same figures.",
    "acid": "Its second copy is for sparse graphs; on this one ten worlds show no gain over `randomized_gossip`.",
    "dbw": "It changes for how many it waits, throws away what comes late, and ends between `server` and "
    "`k_sync:k=12`.",
    "swift": "It takes the newest model of every neighbour, also that of one which has not moved for long: it is "
    "ahead with exponential delays and behind with heavy tails.",
    "deadline:seconds=1.5": "An iteration ends after 1.5 s whoever is there; late gradients are carried into the "
    "next one.",
    "hop": "As `backup:b=1`, with queues; the figures are alike.",
    "backup:b=1,gap=inf": "No limit on how far ahead a worker may be; against `backup:b=1` it gains little here.",
    "backup:b=1": "One neighbour is not waited for; a worker with one neighbour waits for it all the same.",
    "token": "One worker computes at a time, and the others wait; but its one model takes each step in full.",
    "d2": "The barrier of `full`, and its iterations; with the slow worker's label it reaches 0.9 in most worlds, "
    "and `full` in none: that is what it corrects.",
    "tracking": "As `d2`: no faster than `full` on IID data, and ahead of it where one worker holds a label.",
    "qgm": "The momentum makes more of few iterations: its figures are above those of `full` in all six settings.",
    "agp": "Nobody waits, and mass moves with the messages; it bears large rates badly with heavy tails.",
    "local_sgd": "Workers average at every fourth iteration, with a third of `full`'s bytes, and wait less for it.",
    "sgp": "`full:barrier=neighbours` over directed links, and close to it.",
    "matcha": "The barrier of `full` over half of the links: no time is saved where links are free.",
    "prague": "A member of a group waits until the others have finished, about three quarters of its time.",
    "choco": "`full` with a quarter of the bytes, and its figures; where links are free, that buys nothing.",
    "dcd": "`dpsgd` with a quarter of the bytes, and its figures; where links are free, that buys nothing.",
    "ecd": "As `dcd`: 8 bits are fine enough for it (with fewer it diverges: `docs/compression.md`).",
    "subgradient": "The steps of `dpsgd` divided by sqrt(k): the grid's largest rate is too small for it.",
    "dspodfl": "Half of the computations are not made, by design, and each iteration waits for the slowest of the "
    "others.",
    "dual_averaging": "What is evaluated is a running mean, which remembers the beginning, and the grid's largest "
    "alpha is too small for it.",
    "ssp": "The slow worker holds up the others where it falls behind by more than the bound.",
}
