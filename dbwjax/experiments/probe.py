"""What a comparison in Python is given, asked by shapes alone: policies, graphs, delays, optimisers.

Nothing is computed or compiled, and a function that was asked once is remembered by JAX, so that a second call costs
almost nothing. What is wrong is one line about the value, before anything else is done. (`tasks.probe` asks tasks.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dbwjax.limits import shown
from dbwjax.tasks.probe import is_real, kind_of, shapes_of
from dbwjax.types import Graph, Plan, Policy, WaitRule


def require_graph_arrays(graph: Graph) -> None:
    """Refuses a graph whose arrays do not say who hears whom.

    Raises:
      ValueError: shapes or types that differ from `Graph`'s, a node that is not there, a link to itself or named twice,
        a latency that is no time.
    """
    try:
        neighbours, links, latency, computes = (np.asarray(part) for part in graph[:4])
    except ValueError:
        raise ValueError(
            "the graph's lists are of different lengths; build it with from_links or from_adjacency"
        ) from None
    shape = neighbours.shape
    if len(shape) != 2 or 0 in shape or links.shape != shape or latency.shape != shape or computes.shape != shape[:1]:
        said = ", ".join(f"{name} {list(np.shape(part))}" for name, part in zip(Graph._fields, graph[:4], strict=False))
        raise ValueError(f"the graph's arrays are of shapes {said}; give [N, D] three times, and computes [N]")
    if not np.issubdtype(neighbours.dtype, np.integer) or links.dtype != bool or computes.dtype != bool:
        kinds = f"{neighbours.dtype}, {links.dtype} and {computes.dtype}"
        raise ValueError(
            f"the graph's neighbours, links and computes are {kinds}; give integers and truth values twice"
        )
    nodes = shape[0]
    if neighbours.min() < 0 or neighbours.max() >= nodes:
        odd = int(neighbours.max() if neighbours.max() >= nodes else neighbours.min())
        raise ValueError(f"the graph names node {odd}, which is not there; use 0 to {nodes - 1}")
    if (
        (neighbours[:, 0] != np.arange(nodes)).any()
        or links[:, 0].any()
        or (links & (neighbours == neighbours[:, :1])).any()
    ):
        raise ValueError("the graph links a node to itself, or slot 0 is another node; build it with from_links")
    heard = np.sort(np.where(links, neighbours, -1 - np.arange(shape[1])), axis=1)
    if (heard[:, 1:] == heard[:, :-1]).any():
        twice = int(np.argmax((heard[:, 1:] == heard[:, :-1]).any(axis=1)))
        raise ValueError(f"the graph's node {twice} hears a node twice; name each of its neighbours once")
    if not jnp.issubdtype(latency.dtype, jnp.floating):
        raise ValueError(f"the graph's latency is of {latency.dtype}; give seconds as floats")
    fine = np.isfinite(latency) & (latency >= 0)
    if not fine.all():
        raise ValueError(f"the graph's latency holds {latency[~fine][0]:g}, which is no time; use 0 or more seconds")
    if not computes.any():
        raise ValueError("no node of the graph computes; set computes for the workers")


def require_delays(delays: Any) -> None:
    """Refuses delays that are not one number of seconds for a computation.

    Raises:
      ValueError: one line.
    """
    number = jax.ShapeDtypeStruct((), jnp.int32)
    if not callable(delays):
        raise ValueError(
            f"delays={shown(delays)} are no delays; use a SPEC, as 'constant:seconds=1', or a function "
            "(key, worker, started) -> seconds"
        )
    found = shapes_of("delays", "delays(key, worker, started)", delays, jax.random.key(0), number, number)
    if not is_real(found):
        raise ValueError(f"delays return {kind_of(found)}; return one number of seconds, for one worker")


def require_policy_kind(name: str, policy: Any) -> None:
    """Refuses what is no policy.

    Raises:
      ValueError: one line with what to use instead.
    """
    if isinstance(policy, Policy) and callable(policy.init) and callable(policy.decide):
        return
    remedy = "use a SPEC, as 'full', or a Policy, as from build_policy"
    if isinstance(policy, WaitRule):
        remedy = "it is a waiting rule: give gossip(rule)"
    elif callable(policy):
        remedy = f"it is a function: call it, as in {getattr(policy, '__name__', 'policy')}()"
    raise ValueError(f"policy '{name}' is {shown(policy)}; {remedy}")


def require_decision(name: str, policy: Policy, graph: Graph, state: PyTree) -> None:
    """Refuses a policy whose plans do not fit the graph, or whose state changes its shape.

    Args:
      name: for errors.
      policy: a `canonical` one, so that JAX remembers what it returns.
      graph: who hears whom.
      state: what `policy.init` made of it.

    Raises:
      ValueError: one line.
    """
    if policy.reads_training:  # what it reads is not known here
        return
    nodes = graph.neighbours.shape[0]
    held = jax.tree.map(jnp.asarray, state)
    remaining = jax.ShapeDtypeStruct((nodes,), jnp.result_type(float))
    words = "decide(key, graph, state, remaining, feedback)"
    found = shapes_of(f"policy '{name}'", words, policy.decide, jax.random.key(0), graph, held, remaining, None)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Plan)):
        raise ValueError(f"policy '{name}' decides {kind_of(found)}; return (Plan, state)")
    plan, after = found
    fault = _fault(plan, nodes)
    if fault:
        raise ValueError(f"policy '{name}': {fault}")
    if not _alike(held, after):
        raise ValueError(
            f"policy '{name}': its state changes from {_kinds(held)} to {_kinds(after)}; return it with the same "
            "structure, shapes and types"
        )


def _fault(plan: Plan, nodes: int) -> str | None:
    """What is wrong with a plan of shapes."""
    if not is_real(plan.duration):
        return f"a plan's duration is {kind_of(plan.duration)}; give one number of seconds"
    computing = nodes if plan.workers is None else plan.workers.shape[0]
    if getattr(plan.fresh, "shape", None) != (computing,) or plan.fresh.dtype != bool:
        return f"a plan's fresh is {kind_of(plan.fresh)}; give one truth value for each of {computing} workers"
    rows = nodes if plan.rows is None else plan.rows.shape[0]
    mix, sources = getattr(plan.mix, "shape", None), getattr(plan.sources, "shape", None)
    if mix is None or len(mix) != 2 or mix[0] != rows or (mix != sources if sources else mix[1] != nodes):
        wanted = f"[{rows}, {nodes}]" if sources is None else f"{list(sources)}, as its sources"
        return f"a plan's mix is {kind_of(plan.mix)}; give {wanted}"
    return None


def require_optimizer(optimizer: Any, params: PyTree) -> None:
    """Refuses what is no optax optimiser, or one that does not fit the parameters.

    Raises:
      ValueError: one line.
    """
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        remedy = "use optax.sgd(0.1), or a SPEC, as 'sgd'"
        if callable(optimizer):
            remedy = f"call it, as in {getattr(optimizer, '__name__', 'optimizer')}(0.1)"
        raise ValueError(f"optimizer={shown(optimizer)} is no optimiser; {remedy}")
    # What `learners` give it: at least float32.
    wide = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)), params
    )
    state = shapes_of("optimizer", "optimizer.init(params)", optimizer.init, wide)
    words = "optimizer.update(gradient, state, params)"
    found = shapes_of("optimizer", words, optimizer.update, wide, state, wide)
    if not (isinstance(found, tuple) and len(found) == 2):
        raise ValueError(f"optimizer.update returns {kind_of(found)}; return (updates, state)")
    if not _alike(wide, found[0], types=False):
        raise ValueError(
            f"optimizer.update returns {_kinds(found[0])} for parameters {_kinds(wide)}; return the same shapes"
        )
    if not _alike(state, found[1]):
        raise ValueError(
            f"the optimizer's state changes from {_kinds(state)} to {_kinds(found[1])}; return it with the same shapes"
        )


def _alike(one: PyTree, other: PyTree, types: bool = True) -> bool:
    if str(jax.tree.structure(one)) != str(jax.tree.structure(other)):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.shape == b.shape and (a.dtype == b.dtype or not types) for a, b in pairs)


def _kinds(tree: PyTree) -> str:
    kinds = [kind_of(leaf) for leaf in jax.tree.leaves(tree)]
    return ", ".join(kinds[:4]) + (", ..." if len(kinds) > 4 else "") if kinds else "nothing"
