# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training when some workers are slow
#
# Ten workers train one model together. Each computes a gradient on its own images and averages with its neighbours. Now
# and then somebody is slow. Whom should the others wait for? This notebook compares answers on one *virtual clock*: all
# rules see the same delays, the same batches and the same network, so their difference is the rule's.
#
# The first cell installs `dbwjax` without moving the JAX that the machine came with.

# %%
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import distributions

if importlib.util.find_spec("dbwjax") is None:
    source = os.environ.get("DBWJAX_SOURCE") or (".." if os.path.exists("../pyproject.toml") else "dbwjax")
    held = {"jax", "jaxlib", "libtpu", "numpy", "scipy"}
    kept = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"] in held}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as constraints:
        constraints.write("\n".join(f"{name}=={version}" for name, version in kept.items()))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source, "-c", constraints.name], check=True)

import jax

import dbwjax

print(f"dbwjax {dbwjax.__version__}, JAX {jax.__version__} on {jax.devices()[0].device_kind}")

# %% [markdown]
# ## A waiting rule in ten lines
#
# `dybw` is cb-DyBW: the workers choose, iteration by iteration, how many neighbours nobody waits for. `full` waits
# for everybody. Here is a third, ours: go on as soon as a majority has finished. A rule is two functions; `cut` looks
# at the arrival times of one iteration and says who is active and when it ends. A worker that is late goes on
# computing and takes part in the iteration in which it finishes.

# %%
import jax.numpy as jnp

from dbwjax import WaitRule, compare, gossip


def majority() -> WaitRule:
    def init(graph):
        return jnp.asarray(graph.neighbours.shape[0] // 2 + 1)

    def cut(key, graph, needed, arrival):
        end = jnp.sort(arrival)[needed - 1]
        return arrival <= end, end, needed

    return WaitRule(init, cut)


# %% [markdown]
# ## The comparison
#
# Real handwritten digits, ten workers on a random graph, half a second and an exponential time of mean 1 s for a
# computation. Every rule gets the same virtual time. Each *world* draws its own delays, batches, parameters and graph,
# and all rules meet the same worlds.

# %%
FAST = bool(os.environ.get("DBWJAX_FAST"))

found = compare(
    {
        "dybw": "dybw",
        "majority (ours)": gossip(majority()),
        "full:barrier=neighbours": "full:barrier=neighbours",
        "full": "full",
    },
    task="digits",
    model="lrm",
    learning_rate=0.5,
    graph="erdos_renyi:p=0.4",
    delays="shifted_exponential:shift=0.5,rate=1",
    workers=10,
    seconds=10 if FAST else 100,
    rows=10 if FAST else 50,
    seeds=2 if FAST else 10,
    target_accuracy=0.9,
)
print(found.table())

# %%
from pathlib import Path

from IPython.display import Image

picture = Path(tempfile.mkdtemp()) / "rules.png"
found.plot(picture)
Image(picture)

# %% [markdown]
# (a) the error over time; (b) the time to the target, `full`'s over the rule's, with 95 % intervals over worlds; (c) where
# a worker's second goes; (d) how long iterations last; (e) the network of the first world; (f) accuracy when the time
# is up. A rule has one colour in all of them.
#
# The shortest iteration does not win by itself: each one averages fewer gradients. That is why time to the target
# stands first. Try `fastest:k=6`, `backup:b=1`, `deadline:seconds=1`, another graph (`ring`, `complete`) or other
# delays (`pareto:alpha=2,scale=1`, `slow_workers:fraction=0.1,factor=5`), and see which rule wins.
