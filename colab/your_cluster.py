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
# # Your cluster's step times
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dbwjax/dbwjax/blob/main/colab/your_cluster.ipynb)
#
# **You will learn** what measured step times of your machines say about whom to wait for. It takes about two minutes, on
# a sample file or on your own.

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
# ## The file
#
# A CSV with a column for each machine and a row for each step, in seconds (or in the unit that a column's name ends in,
# such as `a_ms`). Set `UPLOAD = True` on Colab to choose a file of your own, or set `TIMES` to its path. Otherwise a sample
# is drawn: eight machines, of which one has *spells* in which it is three times slower.

# %%
from pathlib import Path

import numpy as np

UPLOAD = False
if UPLOAD:
    from google.colab import files

    TIMES = next(iter(files.upload()))
else:
    rng = np.random.default_rng(0)
    steps, machines = 400, 8
    seconds = 0.4 * rng.lognormal(0.0, 0.2, (steps, machines))
    slow = np.zeros(steps, bool)
    for begin in rng.choice(steps - 30, 5, replace=False):
        slow[begin : begin + 30] = True
    seconds[slow, 3] *= 3
    TIMES = str(Path(tempfile.mkdtemp()) / "times.csv")
    header = ",".join(f"m{i}" for i in range(machines))
    np.savetxt(TIMES, seconds, fmt="%.4f", delimiter=",", header=header, comments="")

table = np.genfromtxt(TIMES, delimiter=",", names=True)
names = table.dtype.names
times = np.stack([table[name] for name in names], axis=1)
print(f"{times.shape[0]} steps of {times.shape[1]} machines\n")
print(f"{'':12}{'mean':>8}{'p50':>8}{'p95':>8}{'p99':>8}")
for name, own in zip(names, times.T, strict=True):
    print(f"{name:12}{own.mean():8.3f}" + "".join(f"{np.quantile(own, q):8.3f}" for q in (0.5, 0.95, 0.99)))

# %% [markdown]
# ## What the clock says
#
# If everybody waits for everybody, a step lasts as long as its slowest machine. How much would other rules save? `plan`
# redraws the file in *blocks* of consecutive rows, all machines together, so that a spell stays a spell; it simulates
# each rule on each topology; and it says what it cannot tell apart. Leave `policies` and `graphs` out to have all
# sensible ones considered.

# %%
from dbwjax import compare, plan_cluster

MACHINES = times.shape[1]
RULES = [f"fastest:k={MACHINES - 1}", "backup:b=1", "full:barrier=neighbours", "full"]
planned = plan_cluster(TIMES, policies=RULES, graphs=["ring", "complete"], timing_only=True, replicates=100)
print(planned.table())

# %% [markdown]
# ## What training says
#
# Short steps are not the aim: a rule that leaves the slow machine out averages fewer gradients in each. So train, in
# worlds of which each redraws the file. Here it is on handwritten digits, a *stand-in* for your task; your own comes in
# by `from_arrays`. (`plan` without `timing_only=True` does this for all its candidates, which takes minutes.)

# %%
found = compare(
    RULES,
    task="digits",
    model="lrm",
    learning_rate=0.5,
    graph="ring",
    delays=f"trace:path={TIMES},resample=blocks:60",
    workers=MACHINES,
    seconds=30,
    rows=150,
    seeds=6,
    target_accuracy=0.85,
    progress=True,
)
print(found.table())

# %%
from IPython.display import Image

picture = Path(tempfile.mkdtemp()) / "rules.png"
found.plot(picture)
Image(picture)

# %% [markdown]
# ## What not to conclude
#
# - **Not that the interval covers your cluster next week.** It covers what could have been drawn from *this file*. Spells
#   that are rarer than the file is long are not in it. Measure for longer, and on another day.
# - **Not that a rule changes your step times.** They are taken as given. A rule that sends other messages, or a machine
#   that is waited for by others, may run at another speed in reality.
# - **Not that the digits are your task.** How many gradients your model needs is its own. Put it in with `from_arrays`
#   before you decide.
# - **Not that messages are free.** Add what a link takes: a graph with latency (`network.graphs.with_links`), or
#   `--latency` and `--bandwidth` on the command line.
