"""A plain PyTorch loop over workers. Each worker's parameters are views of one row, so that a row is mixed at once."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from benchmarks.peers import job


def build(data: dict, rate: float) -> job.Advance:
    """A stack `[N, P]` and the loop over steps and workers."""
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]).long()
    draws = torch.from_numpy(data["draws"]).long()
    one = [torch.from_numpy(leaf) for leaf in job.parameters(data)]
    workers = len(data["neighbours"])
    stack = torch.cat([leaf.ravel() for leaf in one]).repeat(workers, 1)
    used = [data["weights"][i] != 0 for i in range(workers)]
    near = [torch.from_numpy(data["neighbours"][i][kept]).long() for i, kept in enumerate(used)]
    weights = [torch.from_numpy(data["weights"][i][kept]) for i, kept in enumerate(used)]
    sizes, shapes = [leaf.numel() for leaf in one], [leaf.shape for leaf in one]

    def forward(row: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        leaves = [flat.view(shape) for flat, shape in zip(row.split(sizes), shapes, strict=True)]
        for k in range(0, len(leaves), 2):
            x = torch.addmm(leaves[k + 1], x, leaves[k])
            x = x.relu() if k + 2 < len(leaves) else x
        return x

    def advance(first: int, steps: int) -> float:
        nonlocal stack
        for step in range(first, first + steps):
            after, losses = torch.empty_like(stack), []
            for i in range(workers):
                which = draws[step % len(draws), i]
                row = stack[i].detach().requires_grad_()
                loss = cross_entropy(forward(row, images[which].float() / 255), labels[which])
                (grad,) = torch.autograd.grad(loss, row)
                losses.append(loss.detach())
                after[i] = (weights[i] @ stack[near[i]]).sub_(grad, alpha=rate)
            stack = after
        return float(torch.stack(losses).mean())

    return advance


if __name__ == "__main__":
    job.main(build)
