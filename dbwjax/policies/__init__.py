"""Who waits for whom: one method or family per file, and the table `POLICIES` that everything else reads."""

from __future__ import annotations

from dbwjax.policies.method import FAMILIES, MIXINGS, Method
from dbwjax.policies.table import POLICIES, build_policies, build_policy, by_family, idealisations, notes

__all__ = [
    "FAMILIES",
    "MIXINGS",
    "POLICIES",
    "Method",
    "build_policies",
    "build_policy",
    "by_family",
    "idealisations",
    "notes",
]
