"""Where workers are put and what must cross: legal rounds, nothing forgotten, hardly anything moved in vain."""

from __future__ import annotations

import numpy as np
import pytest

from dbwjax.engine.sharding.schedule import crossing, lay_out
from dbwjax.network import graphs

CASES = [
    ("ring", 64, 8),
    ("ring", 10, 4),
    ("torus:rows=8", 64, 4),
    ("erdos_renyi:p=0.4", 10, 8),
    ("random_regular:degree=4", 256, 8),
    ("random_regular:degree=4", 1000, 8),
    ("star", 33, 8),
    ("complete", 16, 8),
    ("complete", 9, 8),
    ("hypercube", 64, 8),
    ("path", 1, 2),
]


@pytest.mark.parametrize(("spec", "nodes", "devices"), CASES)
def test_every_neighbour_is_found_and_little_is_moved_in_vain(spec, nodes, devices):
    graph = graphs.build_graph(spec, nodes)
    exchange, layout = lay_out(graph, devices)
    assert sorted(layout.order[layout.real]) == list(range(nodes))
    assert (layout.order[layout.position] == np.arange(nodes)).all()
    needed = sum(map(len, crossing(graph, layout.position, exchange.height).values()))
    assert exchange.moved <= 1.1 * needed or exchange.gather
    assert exchange.moved <= devices * (devices - 1) * exchange.height
    for one in exchange.rounds:
        sources, targets = zip(*one.pairs, strict=True)
        assert len(set(sources)) == len(sources)
        assert len(set(targets)) == len(targets)
    received = simulate(exchange, layout)
    for device in range(devices):
        mine = layout.order[device * exchange.height : (device + 1) * exchange.height]
        for worker in mine[layout.real[device * exchange.height : (device + 1) * exchange.height]]:
            for near in np.asarray(graph.neighbours)[worker]:
                if not exchange.gather:
                    assert received[device][layout.lookup[device, near]] == near


def simulate(exchange, layout):
    """What each device can read after the rounds: its own rows, then received ones, as worker numbers."""
    height = exchange.height
    own = [layout.order[d * height : (d + 1) * height].tolist() for d in range(exchange.devices)]
    everything = [list(rows) for rows in own]
    for one, send in zip(exchange.rounds, layout.send, strict=True):
        arrived = {target: [own[source][row] for row in send[source]] for source, target in one.pairs}
        for device, rows in enumerate(everything):
            rows += arrived.get(device, [-1] * one.rows)
    return everything


def test_workers_are_put_in_an_order_in_which_few_links_cross():
    shuffled = np.random.default_rng(0).permutation(64)
    graph = graphs.from_links(64, [(shuffled[i], shuffled[(i + 1) % 64]) for i in range(64)])
    exchange, _ = lay_out(graph, 8)
    in_natural_order = sum(map(len, crossing(graph, np.arange(64), 8).values()))
    assert exchange.moved <= 32 < in_natural_order


def test_everybody_hearing_everybody_is_one_all_gather():
    exchange, _ = lay_out(graphs.complete(16), 8)
    assert exchange.gather
    assert exchange.moved == 8 * 7 * 2


def test_a_device_too_few():
    with pytest.raises(ValueError, match="devices=0 is too few; use 1 or more"):
        lay_out(graphs.ring(4), 0)
