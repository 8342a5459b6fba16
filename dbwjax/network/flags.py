"""Looking up one bit for many nodes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

WORD = 32
"""Flags of so many nodes fit one word."""


def flagged(flags: Bool[Array, " N"], nodes: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """`flags[nodes]`. Of few nodes the flags are packed into one word and its bits are read: a gather is done element
    by element on a CPU, a shift for eight at once. Nodes must be in range."""
    count = flags.shape[0]
    if count > WORD:
        return flags[nodes]
    word = jnp.where(flags, np.uint32(1) << np.arange(count, dtype=np.uint32), np.uint32(0)).sum(dtype=jnp.uint32)
    return (word >> nodes.astype(jnp.uint32)) & np.uint32(1) != 0
