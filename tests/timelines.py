"""Timelines of the clocks alone: spans without training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dbwjax.engine import clock, ledger
from dbwjax.engine.simulate import World
from dbwjax.experiments.spans import spans_of
from dbwjax.policies import build_policy


def timeline(spec: str, graph: Any, seconds: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """What `timeline.npz` holds of a policy whose worker i takes `seconds[i, n]` for its n-th computation."""
    delays, key, policy = Partial(_of_table, jnp.asarray(seconds)), jax.random.key(0), build_policy(spec)
    network = graph if policy.network is None else policy.network(graph)
    world = World(network, delays, None, key)
    state = clock.init(policy, network, delays, key)
    _, ticks = jax.jit(ledger.look_ahead, static_argnums=(0, 3))(policy, world, state, steps)
    ticks, workers = jax.device_get(ticks), len(seconds)
    entries = np.broadcast_to(True, np.shape(ticks.computing)) & (
        True if ticks.nodes is None else ticks.nodes < workers
    )
    found = {"duration": ticks.duration, "active": ticks.active, **spans_of(ticks, entries, 0, 10**9)}
    if ticks.nodes is not None:
        found |= {"active": ticks.counted, "workers": ticks.nodes}
    elif ticks.active.shape[1] > workers:
        found["active"] = ticks.active[:, :workers]
    used = found["span_used"]
    for name, mask in (
        ("computing", used),
        ("wasted", ~used),
        ("waiting", used | ~used),
        ("communicating", used | ~used),
    ):
        seconds_of = found["span_computing" if name == "wasted" else f"span_{name}"]
        found[f"worker_{name}"] = np.bincount(found["span_worker"][mask], seconds_of[mask].astype(float), workers)
    return found


def _of_table(seconds: Any, key: Any, worker: Any, started: Any) -> Any:
    return seconds[jnp.minimum(worker, seconds.shape[0] - 1), started % seconds.shape[1]]
