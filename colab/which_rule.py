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
# # Which rule, and how sure is that?
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dbwjax/dbwjax/blob/main/colab/which_rule.ipynb)
#
# **You will learn** to read an interval over worlds, and to see when two rules cannot be told apart. It takes about a
# minute.

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
# ## Two clusters, three rules
#
# In the first cluster everybody is slow at times: half a second and an exponential time of mean 1 s. In the second the
# same, and one worker in ten is always five times slower. All rules run in the same worlds, so they are compared *in
# pairs*: a world that is hard is hard for all of them.

# %%
from dbwjax import compare_cells

RULES = ["dybw", "fastest:k=6", "full"]
found = compare_cells(
    RULES,
    {
        "delays": {
            "everybody, at times": "shifted_exponential:shift=0.5,rate=1",
            "one, always": "shifted_exponential:shift=0.5,rate=1*slow_workers:fraction=0.1,factor=5",
        }
    },
    task="digits",
    model="lrm",
    learning_rate=0.5,
    graph="erdos_renyi:p=0.4",
    workers=10,
    seconds=80,
    rows=100,
    seeds=6,
    target_accuracy=0.85,
    progress=True,
)
print(found.table())

# %% [markdown]
# A **ratio** is `full`'s time to the target over the rule's, in the same world; the table shows its geometric mean over
# worlds. The **interval** holds the true mean ratio in 95 of 100 such experiments. Where it holds 1, these worlds do not
# say which of the two is faster.
#
# Cells are never pooled: a rule that wins in one cluster may lose in another, and a mean over both would hide that.

# %%
from pathlib import Path

from IPython.display import Image, display

for figure in found.plot(Path(tempfile.mkdtemp())):
    display(Image(figure))

# %% [markdown]
# ## The same worlds, over another baseline
#
# Two rules that both beat `full` need not differ from each other. That is another question, and it needs no new run:
# the same rows are paired anew.

# %%
from dbwjax.report.statistics import summarise


def said(rule, other, interval):
    """One line about an interval of `other`'s time over `rule`'s."""
    if interval["bound"] == "none":
        return f"{rule} or {other}: no ratio; in some world neither reached the target"
    mean, low, high = interval["estimate"], interval["low"], interval["high"]
    if low is None or high is None:
        bound = f"{interval['bound']} " if interval["bound"] else ""
        return f"{rule} needs {other}'s time over {bound}{mean:.2f}; that is a bound or a single world, not an interval"
    verdict = "cannot be told apart" if low <= 1 <= high else f"{rule if low > 1 else other} is faster"
    return f"{rule} or {other}: {mean:.2f} [{low:.2f}, {high:.2f}], {verdict}"


def ratios(rows, worlds, baseline):
    for cell in summarise(rows, worlds, RULES, baseline, 0.85)["cells"]:
        print(f"{cell['values']['delays']}, {cell['distinct']} worlds:")
        for rule, facts in cell["policies"].items():
            if rule != baseline:
                print("  " + said(rule, baseline, facts["ratio"]))


ratios(found.rows, found.worlds, "dybw")

# %% [markdown]
# ## What fewer worlds would have said
#
# Take only the first three worlds of the same experiment. Their mean is still a fair guess; the interval says what it is
# worth. With one world there is none at all.

# %%
few = [world for world in found.worlds if world["seed"] < 3]
ratios([row for row in found.rows if row["seed"] < 3], few, "full")

# %% [markdown]
# ## What not to conclude
#
# - **Not that there is no difference** where the interval holds 1. It says that these worlds are too few to see one.
#   `seeds=20` narrows it, about as the square root of the number of worlds.
# - **Not that 95 % holds for the whole table at once.** Of twenty comparisons of rules that are all equally fast, about
#   one has an interval that leaves out 1. Choose the comparison before you look.
# - **Not that a rule is the best of all.** Three were asked here, at one learning rate, on easy data that is spread
#   evenly. With `partition="shards:per_worker=2"` each worker sees few kinds of digits, and leaving somebody out costs more. The
#   measured tables of more rules and settings are in `docs/which-rule.md`.
# - **Nothing about worlds of another law.** An interval covers what a world draws, and nothing else.
