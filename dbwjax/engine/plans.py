"""Whether arrays from a file are plans: shapes, kinds, ranges, and rows that sum to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dbwjax.types import Plan

_NEEDED = ("duration", "fresh", "mix")
_DIMENSIONS = {  # with T
    **{"duration": (1,), "fresh": (2,), "mix": (3,), "sources": (3,), "push": (2, 3), "workers": (2,), "rows": (2,)},
    **{"restart": (2,), "ready": (2,), "active": (2,), "received": (2,), "pushers": (2,), "at": (2,), "backups": (1,)},
    **{"updates": (1,), "idle": (2,), "flight": (2,), "messages": (1,), "heard": (2,)},
    "constants": (2,),
}
_KINDS = {  # NumPy's letters
    **dict.fromkeys(("duration", "mix", "push", "ready", "flight", "constants"), "f"),
    **dict.fromkeys(("fresh", "active", "updates", "idle"), "b"),
    **dict.fromkeys(("sources", "workers", "rows", "received", "pushers", "at", "backups", "messages", "heard"), "iu"),
    "restart": "biu",
}
_WORDS = {"f": "floats", "b": "booleans", "iu": "whole numbers", "biu": "booleans or whole numbers"}
_CLOSE = 1e-5  # of a sum of float32 weights to 1


def plan_of(arrays: Mapping[str, np.ndarray]) -> Plan:
    """Stacked plans `[T, ...]` from arrays by field; fields that are `None` left out.

    Raises:
      ValueError: one line about the first field that cannot be one of a plan, or does not fit the others.
    """
    unknown, missing = sorted(set(arrays) - set(Plan._fields)), sorted(set(_NEEDED) - set(arrays))
    if unknown or missing:
        raise ValueError(f"unknown fields {unknown}, missing {missing}; fields are {', '.join(Plan._fields)}")
    for name, array in arrays.items():
        _require(array.ndim in _DIMENSIONS[name], f"{name} has the shape {array.shape}", "stack it to [T, ...]")
        kinds = _KINDS[name]
        _require(array.dtype.kind in kinds, f"{name} is of {array.dtype}", f"write {_WORDS[kinds]}")
        if array.dtype.kind == "f":
            _require(bool(np.isfinite(array).all()), f"{name} is not finite", "write finite numbers")
    plan = Plan(**arrays)  # type: ignore[arg-type]  # stacked
    _require_shapes(plan, arrays)
    _require_ranges(plan, arrays)
    _require_sums(plan)
    return plan


def _require(holds: bool, what: str, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{what}; {remedy}")


def _nodes(plan: Plan) -> int | None:
    """N, where the shapes tell it."""
    numbered = plan.restart is not None and not _is_mask(plan.restart)
    masks = [plan.active, plan.idle, plan.restart if _is_mask(plan.restart) else None]
    masks += [] if numbered else [plan.ready, plan.flight]
    if plan.workers is None:
        masks.append(plan.fresh)
    if plan.rows is None:
        masks.append(plan.mix[..., 0])
    if plan.sources is None:
        masks.append(plan.mix[:, 0])
    return next((mask.shape[1] for mask in masks if mask is not None), None)


def _is_mask(restart: Any) -> bool:
    return restart is not None and restart.dtype.kind == "b"


def _require_shapes(plan: Plan, arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    _require(len(set(lengths.values())) == 1, f"fields differ in their number of steps: {lengths}", "write [T, ...]")
    steps, rows, slots = plan.mix.shape
    _require(0 not in plan.mix.shape[1:] and 0 not in plan.fresh.shape[1:], "a step has nobody", "write at least one")
    nodes, computing = _nodes(plan), plan.fresh.shape[1]
    wanted = {
        "fresh": (steps, computing if plan.workers is not None else nodes),
        "mix": (steps, rows if plan.rows is not None else nodes, slots if plan.sources is not None else nodes),
        "sources": (steps, rows, slots),
        "workers": (steps, computing),
        "rows": (steps, rows),
        "received": (steps, rows),
        "pushers": (steps, rows),
        "at": (steps, computing),
        "idle": (steps, nodes),
        "active": (steps, nodes),
    }
    several = nodes if plan.restart is None or _is_mask(plan.restart) else plan.restart.shape[1]
    wanted |= {"ready": (steps, several), "flight": (steps, several)}
    if _is_mask(plan.restart):
        wanted["restart"] = (steps, nodes)
    if plan.push is None or (plan.push.ndim == 2 and plan.pushers is None):  # X + U, and a diagonal
        wanted["fresh"] = (steps, nodes)
    if plan.push is not None:
        height = 1 if plan.push.ndim == 3 and plan.push.shape[1] == 1 else rows
        wanted["push"] = (steps, height) if plan.push.ndim == 2 else (steps, height, computing)
    for name, shape in wanted.items():
        if name in arrays and arrays[name].shape != shape:
            said = ", ".join("N" if side is None else str(side) for side in shape)
            raise ValueError(f"{name} has the shape {arrays[name].shape} beside the others; write [{said}]")


def _require_ranges(plan: Plan, arrays: Mapping[str, np.ndarray]) -> None:
    nodes = _nodes(plan)
    most = np.iinfo(np.int32).max if nodes is None else nodes - 1
    limits = {"sources": most, "workers": most, "rows": most + 1, "received": most, "at": most}
    limits["pushers"] = plan.fresh.shape[1] - 1
    if not _is_mask(plan.restart):
        limits["restart"] = most + 1
    for name, last in limits.items():
        array = arrays.get(name)
        if array is not None and array.size and not (array.min() >= 0 and array.max() <= last):
            raise ValueError(f"{name} has {array.min()} to {array.max()}; use 0 to {last}")
    _require(bool((plan.duration >= 0).all()), "duration is below 0", "write seconds from 0")


def _require_sums(plan: Plan) -> None:
    """Rows of weights sum to one, or columns do, as push-sum's."""
    off = np.abs(plan.mix.sum(axis=2, dtype=np.float64) - 1) > _CLOSE
    nodes = _nodes(plan)
    if plan.rows is not None and nodes is not None:
        off &= plan.rows < nodes  # the others are padding
    if off.any() and not _columns_sum(plan):
        step, row = np.argwhere(off)[0]
        raise ValueError(
            f"mix: the weights of step {step}, row {row} sum to {plan.mix[step, row].sum():.6g}; make it 1"
        )


def _columns_sum(plan: Plan) -> bool:
    """Whether what is taken of each node sums to one; a node that is not written keeps what it has."""
    steps, rows, slots = plan.mix.shape
    written = np.broadcast_to(np.arange(rows), (steps, rows)) if plan.rows is None else np.asarray(plan.rows)
    sources = np.broadcast_to(np.arange(slots), plan.mix.shape) if plan.sources is None else np.asarray(plan.sources)
    step = np.arange(steps)[:, None]
    shape = (steps, int(max(written.max(), sources.max())) + 1)
    taken, used, kept = np.zeros(shape), np.zeros(shape, bool), np.ones(shape, bool)
    np.add.at(taken, (step[:, :, None], sources), np.asarray(plan.mix, np.float64))
    np.logical_or.at(used, (step[:, :, None], sources), np.asarray(plan.mix) != 0)
    kept[step, written] = False
    return bool((np.abs(taken + kept - 1) <= _CLOSE)[used].all())
