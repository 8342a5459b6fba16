"""Who waits for whom: one method or family per file, and the table `POLICIES` that everything else reads."""

from __future__ import annotations

from dbwjax.policies.method import Method
from dbwjax.policies.table import POLICIES, build_policies, build_policy, idealisations, notes

__all__ = ["POLICIES", "Method", "build_policies", "build_policy", "idealisations", "notes"]
