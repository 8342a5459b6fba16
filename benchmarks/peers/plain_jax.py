"""Twenty lines of plain JAX: stacked parameters, `vmap` of the gradient, one gather a slot, a scan over steps."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import job


def loss_of(leaves: list, batch: tuple) -> Any:
    """Mean cross entropy of a batch `(images, labels)`."""
    x = batch[0].astype(jnp.float32) / 255
    for k in range(0, len(leaves), 2):
        x = x @ leaves[k] + leaves[k + 1][None]
        x = jax.nn.relu(x) if k + 2 < len(leaves) else x
    return -jnp.take_along_axis(jax.nn.log_softmax(x), batch[1][:, None], axis=1).mean()


def build(data: dict, rate: float) -> job.Advance:
    """Stacked leaves and the compiled scan."""
    images, labels, draws, near, weights = (
        jnp.asarray(data[name]) for name in ("images", "labels", "draws", "neighbours", "weights")
    )
    stack = [jnp.repeat(jnp.asarray(leaf)[None], len(near), axis=0) for leaf in job.parameters(data)]

    def mixed(leaf: Any) -> Any:
        slots = weights.reshape(*weights.shape, *(1,) * (leaf.ndim - 1))
        return sum(slots[:, s] * leaf[near[:, s]] for s in range(weights.shape[1]))

    @functools.partial(jax.jit, donate_argnums=0)
    def scan(stack: list, steps: Any, arrays: tuple) -> tuple:
        def one(stack: list, step: Any) -> tuple:
            images, labels, draws = arrays
            which = draws[step % draws.shape[0]]
            loss, grads = jax.vmap(jax.value_and_grad(loss_of))(stack, (images[which], labels[which]))
            return [mixed(leaf) - rate * grad for leaf, grad in zip(stack, grads, strict=True)], loss.mean()

        return jax.lax.scan(one, stack, steps)

    def advance(first: int, steps: int) -> float:
        nonlocal stack
        stack, losses = scan(stack, jnp.asarray(np.arange(first, first + steps)), (images, labels, draws))
        jax.block_until_ready(stack)
        return float(losses[-1])

    return advance


if __name__ == "__main__":
    job.main(build)
