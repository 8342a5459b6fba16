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
# ## The world: a task, a network, and how slow the workers are
#
# Real handwritten digits, ten workers on a random graph. A computation takes half a second and an exponential time of
# mean 1 s.

# %%
import matplotlib.pyplot as plt
import optax

from dbwjax import build_delays, build_graph, build_policy, build_task, train_policy

STEPS = 40 if os.environ.get("DBWJAX_FAST") else 400

task = build_task("digits", model="2nn", workers=10, batch_size=32)
graph = build_graph("erdos_renyi:p=0.4", workers=10)
delays = build_delays("shifted_exponential:shift=0.5,rate=1", workers=10)

# %% [markdown]
# ## A waiting rule in ten lines
#
# `dybw` is cb-DyBW: the workers choose, iteration by iteration, how many neighbours nobody waits for. `full` waits
# for everybody.
# Here is a third, ours: go on as soon as a majority has finished. A rule is two functions; `cut` looks at the arrival
# times of one
# iteration and says who is active and when it ends.

# %%
import jax.numpy as jnp

from dbwjax import WaitRule, gossip


def majority() -> WaitRule:
    def init(graph):
        return jnp.asarray(graph.neighbours.shape[0] // 2 + 1)

    def cut(key, graph, needed, arrival):
        end = jnp.sort(arrival)[needed - 1]
        return arrival <= end, end, needed

    return WaitRule(init, cut)


# %% [markdown]
# ## The comparison

# %%
policies = {"dybw": build_policy("dybw"), "majority (ours)": gossip(majority()), "full": build_policy("full")}
results = {}
for name, policy in policies.items():
    results[name] = train_policy(policy, task, graph, delays, optax.sgd(0.1), steps=STEPS, eval_every=10)
    last = results[name].rows[-1]
    print(
        f"{name:16} {STEPS} iterations in {last['virtual_time']:7.1f} virtual seconds "
        f"({results[name].history.duration.mean():.2f} s each), accuracy {last['test_accuracy']:.3f}"
    )

# %%
figure, (time_axes, step_axes) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
for name, result in results.items():
    accuracy = [row["test_accuracy"] for row in result.rows]
    time_axes.plot([row["virtual_time"] for row in result.rows], accuracy, label=name)
    step_axes.plot([row["step"] for row in result.rows], accuracy, label=name)
until = results["dybw"].rows[-1]["virtual_time"]
time_axes.set(xlabel="virtual time [s]", ylabel="test accuracy", xlim=(0, until), ylim=(0.7, 1.0))
time_axes.set_title("what a clock on the wall would show")
step_axes.set(xlabel="iterations", title="the same, by iteration")
step_axes.legend(frameon=False)
for axes in (time_axes, step_axes):
    axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# By iteration, waiting for everybody is best: each average has more gradients in it. By time it is not, because an
# iteration
# that waits for the slowest of ten takes about three times as long. Try `deadline:seconds=1`, `backup:b=1`, another
# graph
# (`ring`, `complete`) or other delays (`pareto:alpha=2,scale=1`, `slow_workers:fraction=0.1,factor=5`), and see which
# rule wins.
