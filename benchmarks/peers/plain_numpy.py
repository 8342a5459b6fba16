"""The rule in NumPy, worker by worker: what the others must agree with."""

from __future__ import annotations

import numpy as np

from benchmarks.peers import job


def build(data: dict, rate: float) -> job.Advance:
    """A stack of parameters and the loop over steps and workers."""
    workers = len(data["neighbours"])
    stack = [np.repeat(leaf[None], workers, axis=0) for leaf in job.parameters(data)]

    def advance(first: int, steps: int) -> float:
        nonlocal stack
        for step in range(first, first + steps):
            draws, losses, after = data["draws"][step % len(data["draws"])], [], None
            after = job.mixed(stack, data["neighbours"], data["weights"])
            for i in range(workers):
                own = [leaf[i] for leaf in stack]
                loss, grads = job.gradient(own, data["images"][draws[i]], data["labels"][draws[i]])
                losses.append(loss)
                for leaf, grad in zip(after, grads, strict=True):
                    leaf[i] -= rate * grad
            stack = after
        return float(np.mean(losses))

    return advance


if __name__ == "__main__":
    job.main(build)
