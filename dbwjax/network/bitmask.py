"""Looking up one bit for many nodes, by the bits of a word where the nodes are few."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

WORD = 32
"""Flags of so many nodes fit one word."""


def flagged(flags: Bool[Array, " N"], nodes: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """`flags[nodes]`. Of few nodes the flags are packed into one word and its bits are read: a gather is done element
    by element on a CPU, a shift for eight at once. Nodes must be in range."""
    if flags.shape[0] > WORD:
        return flags[nodes]
    return (_packed(flags) >> nodes.astype(jnp.uint32)) & np.uint32(1) != 0


def rows_as_words(nodes: Int[Array, "N D"], kept: Bool[Array, "N D"]) -> UInt32[Array, " N"] | None:
    """The kept nodes of every row as the bits of a word, for `count_flagged`; `None` of too many nodes. On the host."""
    if len(nodes) > WORD:
        return None
    bits = np.where(np.asarray(kept), np.uint32(1) << np.asarray(nodes).astype(np.uint32), np.uint32(0))
    return jnp.asarray(np.bitwise_or.reduce(bits, axis=1))


def count_flagged(flags: Bool[Array, " N"], rows: UInt32[Array, " N"]) -> Int[Array, " N"]:
    """How many nodes of every row, from `rows_as_words`, are flagged."""
    return jax.lax.population_count(rows & _packed(flags)).astype(jnp.int32)


def _packed(flags: Bool[Array, " N"]) -> UInt32[Array, ""]:
    bits = np.uint32(1) << np.arange(flags.shape[0], dtype=np.uint32)
    return jnp.where(flags, bits, np.uint32(0)).sum(dtype=jnp.uint32)
