"""The table of methods, and the policies that SPECs name. The command line, the contract tests and the README read it.

Every method's row stands at the end of the method's own file.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jaxtyping import PyTree

from dbwjax import specs
from dbwjax.policies import (
    aau,
    acid,
    compressed,
    dbw,
    dtur,
    dual_averaging,
    encoded,
    exact,
    heterogeneous,
    hop,
    matcha,
    neighbours,
    pairwise,
    periodic,
    prague,
    push_sum,
    rules,
    server_events,
    servers,
    subgradient,
)
from dbwjax.policies.method import FAMILIES, Method
from dbwjax.types import Graph, Policy

POLICIES: dict[str, Method] = {
    method.name: method
    for methods in (
        dtur.METHODS,
        rules.METHODS,
        neighbours.METHODS,
        aau.METHODS,
        matcha.METHODS,
        periodic.METHODS,
        subgradient.METHODS,
        heterogeneous.METHODS,
        dual_averaging.METHODS,
        compressed.METHODS,
        hop.METHODS,
        prague.METHODS,
        pairwise.METHODS,
        acid.METHODS,
        push_sum.METHODS,
        servers.METHODS,
        server_events.METHODS,
        dbw.METHODS,
        exact.METHODS,
        encoded.METHODS,
    )
    for method in methods
}


def by_family() -> dict[str, dict[str, Method]]:
    """The table cut into families, in the order of `FAMILIES`; families without a method are left out."""
    found = {
        family: {name: method for name, method in POLICIES.items() if method.family == family} for family in FAMILIES
    }
    return {family: methods for family, methods in found.items() if methods}


def build_policy(spec: str) -> Policy:
    """The policy that a SPEC names, as in `dybw`, `fastest:k=6,late=carry`, `full:barrier=neighbours`.

    Raises:
      ValueError: an unknown name or key, or a value that the policy refuses.
    """
    return specs.build(spec, {name: method.build for name, method in POLICIES.items()}, "policy")


def build_policies(named: Sequence[str]) -> dict[str, Policy]:
    """The policies of a comparison, by SPEC.

    Raises:
      ValueError: as `build_policy`, or two SPECs that say the same once defaults are filled in.
    """
    found, builders = {}, {name: method.build for name, method in POLICIES.items()}
    told: dict[Hashable, str] = {}
    for spec in named:
        found[spec] = build_policy(spec)
        same = told.setdefault(specs.meaning(spec, builders), spec)
        if same != spec:
            raise ValueError(f"policies '{same}' and '{spec}' are the same, named twice; name it once")
    return found


def idealisations(spec: str) -> list[str]:
    """What no cluster could realise about a policy, a line for each such setting, typed or by default.

    Raises:
      ValueError: an unknown name.
    """
    method, settings = _method(spec)
    defaults = {key: str(parameter.default) for key, parameter in specs.keys(method.build).items()}
    used = {f"{key}={value}" for key, value in (defaults | settings).items()}
    return [f"{setting}: {why}" for setting, why in method.idealised.items() if setting in used]


def notes(spec: str, graph: Graph, state: PyTree = None) -> list[str]:
    """What a user should know about a policy on a graph, a line each; mostly nothing.

    Args:
      spec: of the policy.
      graph: who hears whom.
      state: the policy's `init(graph)`, where a caller has it.

    Raises:
      ValueError: as `build_policy`, and what the policy refuses about the graph.
    """
    method, _ = _method(spec)
    if method.notes is None:
        return []
    if state is None:
        state = build_policy(spec).init(graph)
    return [f"{spec}: {note}" for note in method.notes(graph, state)]


def _method(spec: str) -> tuple[Method, dict[str, str]]:
    name, settings = specs.parse(spec)
    if name not in POLICIES:
        raise ValueError(f"unknown policy '{name}'; {specs.nearest(name, POLICIES)}")
    return POLICIES[name], settings
