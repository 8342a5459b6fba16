"""What one seed draws on the host must not be correlated: which graph, who holds what."""

import numpy as np

from dbwjax.network.graphs import adjacency, build_graph
from dbwjax.tasks.partition import dirichlet

SEEDS, WORKERS, CLASSES = 1500, 10, 10


def test_holdings_do_not_follow_degrees():
    """A thousand correlations (a worker's degree, what a worker holds of a class), each with a deviation of 0.026 by
    chance: the largest is about 0.09. When both used one stream it was 0.16."""
    labels = np.arange(200) % CLASSES
    degrees = np.zeros((SEEDS, WORKERS))
    held = np.zeros((SEEDS, WORKERS * CLASSES))
    for seed in range(SEEDS):
        degrees[seed] = adjacency(build_graph("erdos_renyi:p=0.4", WORKERS, seed)).sum(axis=1)
        parts = dirichlet(labels, WORKERS, alpha=0.5, seed=seed)
        held[seed] = np.ravel([np.bincount(labels[part], minlength=CLASSES) for part in parts])
    correlations = np.corrcoef(degrees.T, held.T)[:WORKERS, WORKERS:]
    assert np.abs(correlations).max() < 0.14
