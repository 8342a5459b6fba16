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
# # A thousand graphs on one chip
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dbwjax/dbwjax/blob/main/colab/batch_of_graphs.ipynb)
#
# **You will learn** to run the clocks of thousands of clusters at once, and how waiting grows with links and workers. It
# takes about a minute.

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
# ## Clocks alone
#
# Who waits for whom depends on delays, graph and rule. It does not depend on data or parameters. So the clocks can run
# alone: `compare_clocks` stacks worlds into one program, up to 1,024 of them side by side. Here each world has a random
# graph of its own.

# %%
from dbwjax import compare_clocks

GRAPHS = 1000
found = compare_clocks(
    ["fastest:k=6", "full:barrier=neighbours", "full"],
    {
        "few links": "erdos_renyi:p=0.3",
        "half of them": "erdos_renyi:p=0.5",
        "all": "complete",
    },
    "shifted_exponential:shift=0.5,rate=1",
    workers=10,
    seconds=50,
    seeds=GRAPHS // 2,
    progress=True,
)
print(found.table())
graphs = {world["hashes"]["graph"] for world in found.worlds}
print(f"\n{len(found.rows)} simulations; {len(graphs)} different networks of ten workers")

# %% [markdown]
# Hundreds of worlds make intervals so narrow that they are hardly seen in the figure. They are over the law of graphs
# as well as over delays, because each world draws both.

# %%
from pathlib import Path

from IPython.display import Image, display

for figure in found.plot(Path(tempfile.mkdtemp())):
    display(Image(figure))

# %% [markdown]
# `full` and `fastest` do not ask who is linked to whom: one iteration ends for everybody. Under the barrier among
# neighbours each worker waits for those it hears, so every link is somebody more to wait for, and on the complete graph
# nothing is left of its lead: there it *is* `full`.

# %%
for cell in found.summary["cells"]:
    ratio = cell["policies"]["full:barrier=neighbours"]["iteration_ratio"]
    print(f"{cell['values']['graph']}: {ratio['estimate']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]")

# %% [markdown]
# ## Thousands of workers
#
# Now few worlds and many workers, each of whom hears four others. With exponential delays the slowest of N workers takes
# about a mean delay times the logarithm of N longer, and `full` pays that in each iteration. Who waits for four
# neighbours only pays hardly more in a larger cluster.

# %%
larger = compare_clocks(
    ["backup:b=1", "full:barrier=neighbours", "full"],
    "random_regular:degree=4",
    "shifted_exponential:shift=0.5,rate=1",
    workers=[64, 512, 4096],
    seconds=80,
    seeds=4,
    progress=True,
)
print(larger.table())

# %%
for figure in larger.plot(Path(tempfile.mkdtemp())):
    display(Image(figure))

# %% tags=["volatile"]
import time

began = time.perf_counter()
compare_clocks(["full"], "erdos_renyi:p=0.3", "shifted_exponential:shift=0.5,rate=1", workers=10, seconds=50, seeds=500)
print(f"500 more worlds took {time.perf_counter() - began:.1f} s on this {chip.device_kind}")

# %% [markdown]
# ## What not to conclude
#
# - **Not which rule learns faster.** A clock ranks the length of iterations. `fastest` has short ones, and leaves the
#   slowest workers' gradients out of each. `which_rule.ipynb` trains.
# - **Not that a narrow interval makes a law true.** A thousand worlds pin down the mean under *these* delays. Measured
#   delays have spells and machines that are slow together: see `your_cluster.ipynb`.
# - **Not that messages are free.** There is no latency here; every message arrives at once, and more links cost
#   nothing but waiting.
# - **Nothing from a single iteration.** The lengths are means over the whole time. More worlds and a longer time
#   (`seeds=20, seconds=200`) are the same call.
