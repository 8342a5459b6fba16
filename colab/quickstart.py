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
# # Your own waiting rule against the others
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dbwjax/dbwjax/blob/main/colab/quickstart.ipynb)
#
# **You will learn** to write a waiting rule in ten lines and to compare it fairly with others. It takes about a minute.
#
# Ten workers train one model together. Each computes a gradient on its own images and averages with its neighbours. Now
# and then somebody is slow. Whom should the others wait for? Answers are compared on one *virtual clock*: all rules see
# the same delays, the same batches and the same network, so their difference is the rule's.
#
# The first cell installs `dbwjax` if it is not here, leaves JAX as it is, and says which chip it found.

# %% tags=["volatile"]
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import distributions

held = {"jax", "jaxlib", "libtpu", "numpy", "scipy"}
kept = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"] in held}
if importlib.util.find_spec("dbwjax") is None:  # install it, and leave the JAX that is here as it is
    source = os.environ.get("DBWJAX_SOURCE", "git+https://github.com/dbwjax/dbwjax")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as constraints:
        constraints.write("\n".join(f"{name}=={version}" for name, version in kept.items()))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source, "-c", constraints.name], check=True)
    importlib.invalidate_caches()

import jax

import dbwjax

assert jax.__version__ == kept.get("jax", jax.__version__), "the installation has moved JAX: start the runtime anew"
chip = jax.devices()[0]
print(
    f"dbwjax {dbwjax.__version__}, JAX {jax.__version__}, {jax.device_count()} x {chip.device_kind} ({chip.platform})"
)

# %% [markdown]
# ## A waiting rule in ten lines
#
# `dybw` is cb-DyBW: the workers choose, iteration by iteration, how many neighbours nobody waits for. `full` waits
# for everybody. Here is another, ours: go on as soon as a majority has finished. A rule is two functions. `init` sees
# the graph once; `cut` looks at the arrival times of one iteration and says who is active and when it ends. A worker
# that is late goes on computing and takes part in the iteration in which it finishes.

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
found = compare(
    {"dybw": "dybw", "majority (ours)": gossip(majority()), "neighbours": "full:barrier=neighbours", "full": "full"},
    task="digits",
    model="lrm",
    learning_rate=0.5,
    graph="erdos_renyi:p=0.4",
    delays="shifted_exponential:shift=0.5,rate=1",
    workers=10,
    seconds=60,
    rows=60,
    seeds=5,
    target_accuracy=0.9,
    progress=True,
)
print(found.table())

# %% [markdown]
# `neighbours` is `full` with a barrier among neighbours: each worker waits for those it hears, and not for the rest. It
# is the stronger baseline of the two.
#
# In words, from the same intervals:

# %%
print(found.verdict())

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
# Why `dybw` has the shortest iterations: who computed, who waited, and for whom, in the first twenty of them.

# %%
waits = picture.with_name("waits.png")
found.gantt("dybw", waits)
Image(waits)

# %% [markdown]
# The same as a page of its own, to send to a colleague: verdict, curves with values, method and sources.

# %% tags=["volatile"]
page = found.report(picture.with_name("report.html"))
print(
    f"{page.name}, {page.stat().st_size / 1e6:.1f} MB; on Colab: from google.colab import files; files.download(page)"
)

# %% [markdown]
# ## What not to conclude
#
# - **Not that the shortest iteration wins.** Each one averages fewer gradients: compare the columns `iteration` and
#   `gradients`. That is why time to the target stands first.
# - **Not that a rule is better because its mean is.** Look at the interval. Two rules whose intervals over `full`
#   overlap may or may not differ; `baseline="dybw"` compares with `dybw` itself.
# - **Nothing about other delays, graphs, data or models.** The interval is over worlds of this one setting. Try
#   `fastest:k=6`, `backup:b=1`, `deadline:seconds=1`, another graph (`ring`, `complete`) or other delays
#   (`pareto:alpha=2,scale=1`, `slow_workers:fraction=0.1,factor=5`). With `seeds=10` and more time (`seconds=240`, a
#   target of 0.95) the intervals are narrower and the curves flatten out.
# - **Nothing about your cluster's wall clock.** Times are simulated. `your_cluster.ipynb` starts from measured ones.
