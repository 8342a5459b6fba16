"""The gossip family under a global barrier: adapt, then combine over the active subgraph.

    mix = W of the active subgraph      push = mix      X' = mix @ (X + U)

An iteration ends at one time for everybody. Who is active then is the waiting rule's business (`rules.py`, `dtur.py`);
a new rule is two functions of about ten lines, and `gossip` turns it into a policy.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from dbwjax.limits import shown
from dbwjax.network.bitmask import count_flagged, flagged, rows_as_words
from dbwjax.network.graphs import delivery
from dbwjax.network.properties import is_connected, links_of_one_direction, pieces
from dbwjax.network.weights import Weights, dense
from dbwjax.policies.method import Mixing, build_weights
from dbwjax.policies.presence import not_before
from dbwjax.specs import nearest
from dbwjax.types import Graph, Key, Plan, Policy, WaitRule

Late = Literal["drop", "carry", "apply"]
"""What becomes of a worker that is not active when the iteration ends.

`drop`: its unfinished gradient is thrown away and it starts the next iteration with the others: the parameter server's
backup workers (Chen et al. 2016, arXiv 1604.00981), carried over to gossip. There a late worker takes the server's new
parameters; here it keeps its own. `carry` is ours: it goes on computing and takes part in the iteration in which it
finishes. `apply`: its gradient enters its own parameters all the same, as in the recursion of the convergence analysis
of arXiv 2102.06280, as recalled; that counts a gradient before it is ready, so it is an idealisation.
"""

LATE: Late = "carry"
"""The default, by measurement (`docs/which-rule.md`): `drop` throws away what `carry` puts to use in the next
iteration, and `apply` cannot be realised."""

IDEALISED = {"late=apply": "the gradient of a late worker counts before it is ready"}
"""For a method's row."""

DENSE_ABOVE = 32
"""Rows with more slots than this may be mixed by a dense matrix product, the others are mixed from padded neighbour
lists, however few the nodes: `mixing_form` says why."""

DENSE_NODES_PER_SLOT = 16
"""Nodes for each slot of a row up to which a dense product is the faster one of long rows."""


class GossipState(NamedTuple):
    """The rule's state and what is fixed once for a graph."""

    rule: PyTree
    weights: PyTree
    delivery: Float[Array, " N"]  # seconds until all neighbours have a worker's message
    links: UInt32[Array, " N"] | None  # each worker's neighbours as the bits of a word; None: too many workers


def gossip(rule: WaitRule, weights: Weights | str | None = None, late: Late = LATE) -> Policy:
    """A policy of the gossip family from a waiting rule: adapt, then combine (arXiv 2102.06280, as recalled).

    A worker arrives when it has finished and all its neighbours have its message; the rule chooses among arrivals.

    Args:
      rule: who is active, and when an iteration ends.
      weights: of the active subgraph, or their name; Metropolis by default.
      late: what becomes of the others.

    Raises:
      ValueError: an unknown `late`, or what is no rule or no weights; in `init`, a graph that `require_graph` refuses;
        when traced, a rule that returns something else.
    """
    if late not in get_args(Late):
        raise ValueError(f"unknown late={shown(late)}; {nearest(str(late), get_args(Late))}")
    _require_rule(rule)
    scheme = build_weights(weights)

    def init_fn(graph: Graph) -> GossipState:
        require_graph(graph, "doubly")
        links = rows_as_words(graph.neighbours, graph.links)
        return GossipState(rule.init(graph), scheme.init(graph), delivery(graph), links)

    def decide_fn(
        key: Key, graph: Graph, state: GossipState, remaining: Array, feedback: Any
    ) -> tuple[Plan, GossipState]:
        del feedback
        # Who arrived during the announcement that ended the last iteration is simply there when this one begins.
        arrival = jnp.maximum(remaining + state.delivery, 0)
        arrival = not_before(graph, arrival)
        active, end, rule_state = _checked(rule.cut(key, graph, state.rule, arrival), arrival)
        active &= jnp.isfinite(arrival)  # a step that never ends has everybody by then who never arrives
        kept = graph.links & active[:, None] & flagged(active, graph.neighbours)
        mix, sources = matrix(scheme.apply(state.weights, graph, kept), graph, kept)
        plan = Plan(
            duration=end,
            fresh=jnp.ones_like(active) if late == "apply" else active,
            mix=mix,
            sources=sources,
            restart=active if late == "carry" else None,
            active=active,
            received=None if state.links is None else jnp.where(active, count_flagged(active, state.links), 0),
            flight=state.delivery,
            messages=jnp.where(active, graph.links.sum(axis=1), 0).sum(),
        )
        return plan, state._replace(rule=rule_state)

    return Policy(init_fn, decide_fn)


def _require_rule(rule: Any) -> None:
    """Raises `ValueError` unless this is a pair of functions that can be called as a `WaitRule`'s are."""
    if isinstance(rule, Policy | str) or not (callable(getattr(rule, "init", None)) and callable(rule.cut)):
        remedy = "give a WaitRule, as full()"
        if isinstance(rule, Policy):
            remedy = "it is a policy already"
        elif isinstance(rule, str):
            remedy = f"use build_policy({rule!r}) for a SPEC"
        elif callable(rule):
            remedy = f"call it, as in {getattr(rule, '__name__', 'rule')}()"
        raise ValueError(f"rule={shown(rule)} is no waiting rule; {remedy}")
    for name, words in (("init", ("graph",)), ("cut", ("key", "graph", "state", "arrival"))):
        try:
            inspect.signature(getattr(rule, name)).bind(*words)
        except TypeError as error:
            raise ValueError(f"the rule's {name} cannot be called as {name}({', '.join(words)}): {error}") from error
        except ValueError:  # it does not tell its parameters
            continue


def _checked(found: Any, arrival: Array) -> tuple[Array, Array, PyTree]:
    """What a rule's `cut` returned, as arrays; `end` may be a Python number.

    Raises:
      ValueError: no mask of workers, no time, or not three things.
    """
    if not (isinstance(found, tuple) and len(found) == 3):
        what = f"{len(found)} values" if isinstance(found, tuple) else "one value"
        raise ValueError(f"the rule's cut returns {what}; return (active, end, state)")
    active, end, state = found
    kinds = []
    for value in (active, end):
        try:
            kinds.append(jax.eval_shape(jnp.asarray, value))
        except (TypeError, ValueError):
            raise ValueError(
                f"the rule's cut returns {shown(value)}, which is no array; return (active, end, state)"
            ) from None
    if kinds[0].shape != arrival.shape or kinds[0].dtype != bool:
        raise ValueError(
            f"the rule's active is {kinds[0].dtype}{list(kinds[0].shape)}; return one truth value for each of "
            f"{len(arrival)} workers"
        )
    if kinds[1].shape != () or not (
        jnp.issubdtype(kinds[1].dtype, jnp.floating) or jnp.issubdtype(kinds[1].dtype, jnp.integer)
    ):
        raise ValueError(f"the rule's end is {kinds[1].dtype}{list(kinds[1].shape)}; return one number of seconds")
    return jnp.asarray(active), jnp.asarray(end, arrival.dtype), state


def mixing_form(nodes: int, slots: int) -> Literal["dense", "padded"]:
    """How rows of `slots` slots among `nodes` nodes are mixed.

    Measured on a CPU with two cores, stacks of 200,000 parameters a node (50,000 from 128 nodes on), float32; the
    figure is the time of the padded form over that of the dense one, the median of 5 turns:

        nodes    3 slots  5     9     16-17  32-33  65    129
           10    0.80     1.53  1.96
           16    1.12     1.40  1.67  2.27
           32    0.82     0.96  1.52  2.21   3.87
           64    0.75     0.89  1.11  1.60   6.65
          128                         1.04   4.70   8.32
          256                                3.25         11.5

    Up to 32 slots the padded form is kept all the same. It is element by element, so a row has the same bits whatever
    the batch or the devices it is computed on, and a node that is not finite does not reach those that do not hear it,
    as `0 * nan` in a product would; and at that size mixing is a small part of a step. Beyond, the padded form is a
    loop over the slots, and dense is 3 times faster up to 8 nodes a slot; its advantage falls in proportion, to 1 at
    about 25 (extrapolated). Accelerators follow the same rule, unmeasured.
    """
    return "dense" if slots > DENSE_ABOVE and nodes <= DENSE_NODES_PER_SLOT * slots else "padded"


def matrix(slots: Float[Array, "N D"], graph: Graph, kept: Bool[Array, "N D"]) -> tuple[Array, Array | None]:
    """A plan's `mix` and `sources` from slot weights, in the form that `mixing_form` names.

    A slot that is not kept weighs nothing and points to the row's own node, so that nothing is read from afar for it
    and a neighbour that is not finite cannot leak through a zero.
    """
    if mixing_form(*slots.shape) == "dense":
        return dense(slots, graph), None
    return slots, jnp.where(kept, graph.neighbours, graph.neighbours[:, :1])


def require_graph(graph: Graph, mixing: Mixing) -> None:
    """Refuses a graph on which a method of the family would not reach what it promises.

    All of them need workers only, each of which hears every other one, if by way of others. Weights that are to sum to
    one in columns, too (`doubly`), need links of both directions: otherwise some workers count for more than others.

    Args:
      graph: who hears whom.
      mixing: what the method promises.

    Raises:
      ValueError: one line.
    """
    require_workers(graph, "gossip averages workers only")
    if not is_connected(graph):
        apart = pieces(graph)
        lost = f"worker {apart[1][0]} never hears worker 0" if len(apart) > 1 else "not everybody hears everybody"
        raise ValueError(f"the graph is not connected: {lost}, not by way of others either; add links")
    if mixing == "doubly":
        one_way = links_of_one_direction(graph)
        if len(one_way):
            listener, source = one_way[0]
            raise ValueError(
                f"worker {listener} hears worker {source} and not the other way round, so that some would count for "
                "more than others; use an undirected graph (of a file: undirected=true), or a rule for directed ones "
                "(backup)"
            )


def require_workers(graph: Graph, why: str) -> None:
    """Refuses a graph with a node that never computes.

    Args:
      graph: who hears whom.
      why: the method cannot have one.

    Raises:
      ValueError: one line.
    """
    computes = np.asarray(graph.computes)
    if not computes.all():
        raise ValueError(f"node {int(np.argmin(computes))} never computes, and {why}; use a graph of workers")


def require_no_latency(graph: Graph, method: str, why: str) -> None:
    """Refuses messages that take time.

    Args:
      graph: who hears whom.
      method: named in the error.
      why: the method cannot have them, and what else there is.

    Raises:
      ValueError: one line.
    """
    longest = float(np.asarray(graph.latency).max(initial=0))
    if longest > 0:
        raise ValueError(f"{method} takes no latency, and a message needs up to {longest:g} s: {why}")
