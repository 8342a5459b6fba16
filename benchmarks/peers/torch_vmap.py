"""`torch.func`: gradients of all workers by `vmap` over stacked parameters, mixing by one gather a slot."""

from __future__ import annotations

import torch
from torch.func import grad_and_value, vmap
from torch.nn.functional import cross_entropy

from benchmarks.peers import job


def build(data: dict, rate: float) -> job.Advance:
    """Stacked leaves and the loop over steps."""
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]).long()
    draws = torch.from_numpy(data["draws"]).long()
    near, weights = torch.from_numpy(data["neighbours"]).long(), torch.from_numpy(data["weights"])
    stack = [torch.from_numpy(leaf).repeat(len(near), *(1,) * leaf.ndim) for leaf in job.parameters(data)]

    def loss_of(leaves: list[torch.Tensor], x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        for k in range(0, len(leaves), 2):
            x = x @ leaves[k] + leaves[k + 1]
            x = x.relu() if k + 2 < len(leaves) else x
        return cross_entropy(x, label)

    gradients = vmap(grad_and_value(loss_of))

    def mixed(leaf: torch.Tensor) -> torch.Tensor:
        slots = weights.view(*weights.shape, *(1,) * (leaf.ndim - 1))
        total = slots[:, 0] * leaf
        for s in range(1, weights.shape[1]):
            total.addcmul_(slots[:, s], leaf[near[:, s]])
        return total

    def advance(first: int, steps: int) -> float:
        nonlocal stack
        for step in range(first, first + steps):
            which = draws[step % len(draws)]
            grads, loss = gradients(stack, images[which].float() / 255, labels[which])
            stack = [mixed(leaf).sub_(grad, alpha=rate) for leaf, grad in zip(stack, grads, strict=True)]
        return float(loss.mean())

    return advance


if __name__ == "__main__":
    job.main(build)
