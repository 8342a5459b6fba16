"""Flower's simulation engine: each worker a client (on Ray), which computes its gradient in NumPy; the server mixes.

Flower averages all clients into one model; here the server keeps each client's parameters and sends each its own, which
is what a decentralised rule needs of it.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from benchmarks.peers import job

JOB = json.loads(Path(sys.argv[1]).read_text())


def client_app(path: str) -> ClientApp:
    """A client: the gradient of one worker on one batch."""
    app = ClientApp()
    held: dict = {}

    @app.train()
    def train(message: Message, context: Context) -> Message:
        from benchmarks.peers import job

        data = held or held.update(np.load(path)) or held
        step, worker = (int(message.content["which"][name]) for name in ("step", "worker"))
        which = data["draws"][step % len(data["draws"]), worker]
        params = message.content["arrays"].to_numpy_ndarrays()
        loss, grads = job.gradient(params, data["images"][which], data["labels"][which])
        metrics = MetricRecord({"loss": loss, "worker": worker})
        return Message(RecordDict({"arrays": ArrayRecord(grads), "metrics": metrics}), reply_to=message)

    return app


def server_app(data: dict, result: dict) -> ServerApp:
    """The server: sends everybody their parameters, mixes, and takes the time."""
    app = ServerApp()
    workers = len(data["neighbours"])
    stack = [np.repeat(leaf[None], workers, axis=0) for leaf in job.parameters(data)]

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        import time

        while len(nodes := list(grid.get_node_ids())) < workers:
            time.sleep(0.1)

        def advance(first: int, steps: int) -> float:
            nonlocal stack
            for step in range(first, first + steps):
                messages = []
                for i in range(workers):
                    arrays = ArrayRecord([leaf[i] for leaf in stack])
                    content = RecordDict({"arrays": arrays, "which": ConfigRecord({"step": step, "worker": i})})
                    messages.append(Message(content, dst_node_id=nodes[i], message_type="train"))
                after, losses = job.mixed(stack, data["neighbours"], data["weights"]), []
                for reply in grid.send_and_receive(messages):
                    i = int(reply.content["metrics"]["worker"])
                    losses.append(reply.content["metrics"]["loss"])
                    for leaf, grad in zip(after, reply.content["arrays"].to_numpy_ndarrays(), strict=True):
                        leaf[i] -= JOB["rate"] * grad
                if len(losses) != workers:
                    raise RuntimeError(f"{workers - len(losses)} of {workers} clients did not answer")
                stack = after
            return float(np.mean(losses))

        result.update(job.timed(advance, JOB, workers))

    return app


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    data, result = dict(np.load(JOB["data"])), {}
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app(data, result), client_app(JOB["data"]), len(data["neighbours"]), backend_config=backend)
    print(json.dumps(result), flush=True)
