"""What is concluded from rows of metrics: the only place where times to target, pairs and intervals are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def summary(rows: Iterable[Mapping[str, Any]], policies: Sequence[str], target_accuracy: float | None) -> dict:
    """What `summary.json` holds.

    Args:
      rows: of `metrics.jsonl`, ascending in `step` within a policy; at least one for each.
      policies: SPECs in the order named; speed-ups are over the last.
      target_accuracy: what `time_to_target` counts to; `None` for tasks without accuracy.

    Returns:
      `target_accuracy`, `policies` by SPEC and `speedup` by SPEC. A speed-up is the last policy's seconds over this
      policy's: `duration` of the mean iteration, `time_to_target` of the first evaluation at or above the target. What
      was not reached, or has no value, is `None`.
    """
    by_policy: dict[str, list[Mapping[str, Any]]] = {name: [] for name in policies}
    for row in rows:
        if row["policy"] in by_policy:
            by_policy[row["policy"]].append(row)
    facts = {name: _facts(of_policy, target_accuracy) for name, of_policy in by_policy.items()}
    last = facts[policies[-1]]
    speedup = {
        name: {
            "duration": _ratio(last["mean_duration"], own["mean_duration"]),
            "time_to_target": _ratio(last["time_to_target"], own["time_to_target"]),
        }
        for name, own in facts.items()
    }
    return {"target_accuracy": target_accuracy, "policies": facts, "speedup": speedup}


def _facts(rows: Sequence[Mapping[str, Any]], target_accuracy: float | None) -> dict:
    end = rows[-1]
    reached = (
        row["virtual_time"]
        for row in rows
        if target_accuracy is not None
        and row.get("test_accuracy") is not None
        and row["test_accuracy"] >= target_accuracy
    )
    return {
        "steps": end["step"],
        "virtual_time": end["virtual_time"],
        "wall_time": end["wall_time"],
        "mean_duration": end["virtual_time"] / end["step"] if end["step"] else None,
        "final_test_loss": end.get("test_loss"),
        "final_test_accuracy": end.get("test_accuracy"),
        "time_to_target": next(reached, None),
        "active_fraction": _mean_over_steps(rows, "active_fraction"),
        "backup_workers": _mean_over_steps(rows, "backup_workers"),
    }


def _mean_over_steps(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    """A row's value is the mean over the steps since the row before, so it weighs as many steps."""
    total, steps, before = 0.0, 0, 0
    for row in rows:
        if row.get(column) is not None:
            total += row[column] * (row["step"] - before)
            steps += row["step"] - before
        before = row["step"]
    return total / steps if steps else None


def _ratio(reference: float | None, own: float | None) -> float | None:
    if reference is None or own is None:
        return None
    if own == reference:
        return 1.0
    return reference / own if own > 0 else None
