"""Who waits for whom: one family per file, and the table `POLICIES` that everything else reads."""

from __future__ import annotations

from dbwjax.policies.table import POLICIES, Method, build_policy

__all__ = ["POLICIES", "Method", "build_policy"]
