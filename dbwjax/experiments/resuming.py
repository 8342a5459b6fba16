"""What a checkpoint keeps of a training, and how another one goes on from it: also on other devices, of another number,
with the workers of a simulation cut among them or not."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dbwjax.experiments.training import Slots, Training


def saved(training: Training) -> dict[str, Any]:
    """The arrays: the simulations, what is open among the readings, the accounts."""
    return {
        "simulation": training.state,
        "held": _open_readings(training),
        "accounts": [account.state() for account in training.accounts],
    }


def facts(training: Training) -> dict[str, Any]:
    """What must be kept beside them, as JSON."""
    return {
        "sims": len(training.accounts),
        "own": training.own,
        "wall_time": training.wall_time,
        "slots": training.slots,
        "order": training.place.order,
        "open": [{"rows": list(one.of_row.items()), "free": one.free} for one in training.open],
    }


def _open_readings(training: Training) -> dict[str, Any]:
    """The slots in use, and single workers once the first is past the budget; NumPy, `[B, U, ...]`."""
    used = max((slot + 1 for one in training.open for slot in one.of_row.values()), default=0)

    def front(leaf: jax.Array) -> np.ndarray:
        host = np.asarray(leaf).reshape(len(training.accounts), training.slots, *leaf.shape[1:])
        return np.ascontiguousarray(host[:, :used])

    found = {"mean": jax.tree.map(front, training.held.mean), "spread": front(training.held.spread)}
    if training.own:
        own = training.place.own(training.held)
        closing = any(_closing(account) for account in training.accounts)
        found["own"] = jax.tree.map(lambda leaf: np.asarray(leaf if closing else leaf[:0]), own)
    return found


def _closing(account: Any) -> bool:
    """Whether some workers are past the budget and others are not."""
    return bool(account.filled[-1] and not account.done)


def like(training: Training, told: dict[str, Any]) -> dict[str, Any]:
    """The structure of a checkpoint with the facts `told`, and where to read it to."""
    ours = saved(training)
    held = {name: ours["held"][name] for name in ("mean", "spread")}
    if told["own"]:
        held["own"] = jax.tree.map(lambda leaf: np.empty(0, leaf.dtype), training.state.model.params)
    simulation = training.place.like(training.state, told["order"], told["sims"])
    return {"simulation": simulation, "held": held, "accounts": ours["accounts"][:1] * told["sims"]}


def restore(training: Training, kept: dict[str, Any], told: dict[str, Any]) -> None:
    """Puts a training at virtual time 0 where a checkpoint was left.

    Of another number of simulations the real ones come first in both, and are repeated to fill the block.
    """
    count = len(training.accounts)
    which = np.arange(count) % (count if told["sims"] == count else training.real)
    training.state = training.place.reshard(kept["simulation"], told["order"], which, told["sims"])
    for account, place in zip(training.accounts, which, strict=True):
        account.restore(kept["accounts"][place])
    training.wall_time, training.slots = told["wall_time"], told["slots"]
    opened = [told["open"][place] for place in which]
    training.open = [Slots({int(row): slot for row, slot in one["rows"]}, list(one["free"])) for one in opened]
    held = {name: leaf for name, leaf in kept["held"].items() if name != "own"}
    held = jax.tree.map(lambda leaf: leaf[which], held)
    own = kept["held"].get("own")
    if own is not None and jax.tree.leaves(own)[0].shape[0]:
        held["own"] = jax.tree.map(lambda leaf: leaf[which], own)
    elif any(_closing(account) for account in training.accounts):
        training.evaluate_own = None  # several processes keep no single workers: those past the budget are not known
    empty = training.place.no_readings(training.slots, training.own)
    training.held = training.place.with_readings(empty, held, training.slots)
