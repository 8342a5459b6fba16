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
# # On a TPU, or on several devices
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dbwjax/dbwjax/blob/main/colab/on_a_tpu.ipynb)
#
# **You will learn** what `dbwjax` does with the devices that it finds, and which numbers may differ between chips. It
# takes about a minute.
#
# On Colab: *Runtime, Change runtime type*, a TPU. All cells run on a CPU, too, and say so.

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
# ## The devices
#
# JAX takes the fastest kind that it finds. A CPU counts as one device, however many cores it has. (Start Python with
# `JAX_NUM_CPU_DEVICES=8` to try the rest of this notebook with eight.)

# %% tags=["volatile"]
for device in jax.devices():
    print(device.id, device.platform, device.device_kind, "process", device.process_index)
if jax.default_backend() == "cpu":
    print("This is a CPU: everything below is right, and nothing says how fast a TPU is.")

# %% [markdown]
# ## What is shared, and how
#
# - **Several worlds** lie side by side: mesh axis `sims`. Each device has whole worlds and nothing is sent.
# - **One world** is cut among the devices: mesh axis `workers`. Each device has some of the workers, and the parameters of
#   neighbours on other devices are sent. So a single cluster may be larger than one device's memory.
# - On **one device** there is no mesh.
#
# Nothing of that is yours to write: the same call does all three.

# %% tags=["volatile"]
from dbwjax.engine.batch import mesh_of

mesh = mesh_of(jax.devices())
print(f"{jax.device_count()} device(s); mesh:", "none" if mesh is None else dict(mesh.shape))

# %%
from dbwjax import compare

SETTING = {
    "task": "digits",
    "model": "lrm",
    "learning_rate": 0.5,
    "graph": "random_regular:degree=4",
    "delays": "shifted_exponential:shift=0.5,rate=1",
    "workers": 64,
    "seconds": 40,
    "rows": 40,
    "target_accuracy": 0.85,
}
# One world: it is cut among the devices, if there are several.
one = compare(["backup:b=1", "full"], **SETTING, seeds=1, progress=True)
print(one.table())

# %% [markdown]
# ## What must not change: the clock
#
# Delays are a pure function of (seed, worker, computation), so who waits for whom is the same in one world and in a
# batch of worlds, and on every chip up to the rounding of float32. A second run on the same chip and versions is bitwise
# the same.

# %%
again = compare(["backup:b=1", "full"], **SETTING, seeds=1, progress=True)


def virtual(rows):
    return [{name: value for name, value in row.items() if name != "wall_time"} for row in rows]


same = [before == after for before, after in zip(virtual(one.rows), virtual(again.rows), strict=True)]
print(f"{sum(same)} of {len(same)} rows are bitwise the same in a second run")

# %% [markdown]
# ## What may change: the order of events, `wide=`
#
# Under AD-PSGD each step is the event of one worker: a small gradient and the average of two models. A CPU does them one
# by one. An accelerator would idle, so there events that touch different workers are done in one *wide* step. That is
# the same run, to rounding; `wide=` chooses it by hand.

# %%
import numpy as np

from dbwjax import train_policy

EVENTS = ("adpsgd", "digits", "ring", "shifted_exponential:shift=0.5,rate=1", "sgd")
narrow, wide = (
    train_policy(*EVENTS, workers=16, seconds=10, rows=5, learning_rate=0.1, wide=wide) for wide in (False, True)
)
apart = max(
    float(np.abs(a - b).max() / np.abs(a).max())
    for a, b in zip(jax.tree.leaves(narrow.params), jax.tree.leaves(wide.params), strict=True)
)
counted = [result.rows[-1]["gradients"] for result in (narrow, wide)]
print(f"gradients that counted: {counted[0]} one by one, {counted[1]} in wide steps")
print(f"parameters agree to 1 part in 10,000: {apart < 1e-4}")

# %% [markdown]
# ## What to expect on a TPU
#
# - **Matrix products.** A TPU multiplies float32 in bfloat16 unless it is told otherwise. That keeps two to three decimal
#   digits, so losses differ from a CPU's, and a world may cross the target a row earlier or later. Compare rules on one
#   chip. `jax.config.update("jax_default_matmul_precision", "highest")` before the first call gives float32 back, more slowly.
# - **Speed.** Ten workers of a small model are too little work for any accelerator: the CPU may win. Wide models, many
#   workers or many worlds are what it is for.
# - **Compiling** takes longer, once for each rule and shape.

# %% tags=["volatile"]
import time

began = time.perf_counter()
again = compare(["backup:b=1", "full"], **SETTING, seeds=1)
gradients = sum(row["gradients"] for row in again.rows if row["row"] == SETTING["rows"])
print(f"{gradients} gradients in {time.perf_counter() - began:.1f} s, nothing compiled, on {chip.device_kind}")

# %% [markdown]
# ## What not to conclude
#
# - **Not a speed-up from these seconds.** They include compiling and this machine's other work. `python -m benchmarks`
#   measures side by side.
# - **Not that a chip changes which rule wins.** The virtual clock knows nothing of the chip. If the winner changes, the
#   rules were too close to be told apart: look at the intervals.
# - **Not bitwise equality between chips or versions.** It holds on one machine with the same versions.
