"""Mixing a stack of 2nn parameters over 4 neighbours, against a plain copy that moves as many bytes.

    python -m benchmarks mixing

Mixing reads a row and its 4 neighbours and writes a row: 6 rows of traffic for each node. The copy beside it reads and
writes 3 rows for each, the same bytes, out of place. Rivals: dense product, BCOO and segment sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import sparse

from benchmarks import timing
from dbwjax.engine.mixing import mix
from dbwjax.network import graphs, weights

CASES = (10, 64, 256)
PARAMETERS = 784 * 256
ROUNDS = 4  # in one program, so that what is timed is not the allocation of the result


def contenders(nodes: int) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """One mixing of `[N, P]` each, all with the same weights."""
    graph = graphs.random_regular(nodes, degree=4, seed=0)
    scheme = weights.metropolis()
    slots = scheme.apply(scheme.init(graph), graph, graph.links)
    matrix = weights.dense(slots, graph)
    listed = sparse.BCOO.fromdense(matrix)
    receivers = jnp.repeat(jnp.arange(nodes), slots.shape[1])
    senders = graph.neighbours.reshape(-1)

    def segments(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(slots.reshape(-1)[:, None] * x[senders], receivers, num_segments=nodes)

    return {
        "padded neighbours": lambda x: mix(slots, graph.neighbours, x),
        "dense": lambda x: mix(matrix, None, x),
        "BCOO": lambda x: listed @ x,
        "segment sum": segments,
    }


def repeated(once: Callable[[jax.Array], jax.Array], x: jax.Array) -> Callable[[], jax.Array]:
    """`ROUNDS` applications in one compiled program, its argument donated."""

    @functools.partial(jax.jit, donate_argnums=0)
    def many(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (once(x), None), x, None, length=ROUNDS)[0]

    held = [jnp.copy(x)]

    def call() -> jax.Array:
        held[0] = many(held[0])
        return held[0]

    return call


def rolled(x: jax.Array) -> jax.Array:
    """A plain copy that cannot be done in place: every row moves to the next."""
    return jnp.concatenate([x[1:], x[:1]])


def measure(quick: bool) -> dict:
    """All cases, or one small one."""
    figures = {}
    for nodes in (10,) if quick else CASES:
        x = jax.random.normal(jax.random.key(0), (nodes, 10_000 if quick else PARAMETERS))
        work = {name: repeated(once, x) for name, once in contenders(nodes).items()}
        work["copy"] = repeated(rolled, x)
        seconds = timing.take_turns(work, 3 if quick else 9)
        # The copy moves 2 rows for each node and mixing 6, so equal bandwidth is three copies' time.
        figures[f"N={nodes}, degree 4"] = {
            "limit: copy bandwidth [GB/s]": timing.rates(seconds["copy"], 2 * ROUNDS * x.nbytes / 1e9),
            "bandwidth over a copy's": {
                name: timing.ratios(seconds, name, "copy", 3) for name in work if name != "copy"
            },
        }
    return figures
