"""Seconds lost to each worker, and the matrix of who waited for whom, as a part of "who waited for whom"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dbwjax.report.digits import digits
from dbwjax.report.page.document import render
from dbwjax.report.page.material import Material
from dbwjax.report.waits import Cells, lost_to, totals

if TYPE_CHECKING:
    from markupsafe import Markup

WHOLE, WORST = 64, 20
"""Workers up to which the whole matrix is drawn; of more, so many who waited most and so many who were waited for."""

TEN = 10
"""Workers in the table: those to whom most is lost."""

_SHADES = 5


def lost(material: Material, found: Mapping[str, tuple[str, Cells]]) -> Markup:
    """For each policy a table and a matrix."""
    what_if = material.what_if or {}
    shown = [
        _policy(material, spec, cells, what_if.get("policies", {}).get(spec)) for spec, (_, cells) in found.items()
    ]
    return render("lost.html", policies=shown, asked=bool(what_if), ten=TEN)


def order_of(due: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows (who waited) and columns (for whom) of a matrix are drawn."""
    count = len(due)
    if count <= WHOLE:
        return np.arange(count), np.arange(count)
    rows = np.argsort(-due.sum(axis=1), kind="stable")[:WORST]
    columns = np.argsort(-due.sum(axis=0), kind="stable")[:WORST]
    return np.sort(rows), np.sort(columns)


def _policy(material: Material, spec: str, cells: Cells, told: Mapping[str, Any] | None) -> dict[str, Any]:
    sums = totals(cells)
    gone = lost_to(cells)
    whole = float(cells.waited.sum())
    done = np.maximum(np.bincount(cells.worker, minlength=cells.workers), 1)
    busy = np.bincount(cells.worker, cells.finish - cells.start, cells.workers)
    own = np.bincount(cells.worker, cells.waited, cells.workers)
    names = None if material.picture is None else material.picture.names
    by_worker = {} if told is None else {one["worker"]: one for one in told["workers"]}
    lines = [
        {
            "worker": f"{j} {names[j]}" if names and j < len(names) else str(j),
            "mean": digits(busy[j] / done[j]),
            "waited": digits(own[j]),
            "lost": digits(gone[j]),
            "share": f"{100 * gone[j] / whole:.0f} %" if whole > 0 else "-",
            "change": change_text(by_worker.get(int(j))),
        }
        for j in np.argsort(-gone, kind="stable")[:TEN]
    ]
    return {
        "name": spec,
        "place": material.policies.index(spec),
        "lines": lines,
        "whole": digits(whole),
        "nobody": digits(float(sums.nobody.sum())),
        "none": not whole > 0,
        "told": told,
        "worst": None if told is None else change_text(told["worst"]),
        "matrix": _matrix(spec, sums.due) if sums.due.any() else None,
        "part": cells.workers > WHOLE,
    }


def change_text(one: Mapping[str, Any] | None) -> str | None:
    """`-21 % [-25, -17]` of a ratio of iteration lengths; `None`: not known."""
    if one is None or one["estimate"] is None:
        return None
    percent = [None if value is None else 100 * (value - 1) for value in (one["estimate"], one["low"], one["high"])]
    text = f"{percent[0]:+.0f} %"
    return text if percent[1] is None or percent[2] is None else f"{text} [{percent[1]:+.0f}, {percent[2]:+.0f}]"


def _matrix(spec: str, due: np.ndarray) -> Markup:
    """A heat map: rows waited, columns were waited for; five shades, in the page's colours."""
    rows, columns = order_of(due)
    values = due[np.ix_(rows, columns)]
    most = float(values.max())
    level = np.ceil(_SHADES * values / most).astype(int)  # 0: nothing
    shades = []
    for shade in range(1, _SHADES + 1):
        path = "".join(f"M{j} {i}h1v1h-1z" for i, j in np.argwhere(level == shade))
        shades.append(
            (100 * shade // _SHADES, path, digits(most * (shade - 1) / _SHADES), digits(most * shade / _SHADES))
        )
    i, j = np.unravel_index(int(np.argmax(values)), values.shape)
    alt = (
        f"Heat map of who waited for whom under {spec}: most, {digits(most)} s, "
        f"worker {rows[i]} waited for worker {columns[j]}"
    )
    ticks = [[(place, str(which[place])) for place in _few(len(which))] for which in (rows, columns)]
    return render("matrix.html", rows=len(rows), columns=len(columns), ticks=ticks, shades=shades, alt=alt)


def _few(count: int) -> list[int]:
    """At most 20 places of so many."""
    return np.unique(np.linspace(0, count - 1, min(count, 20)).astype(int)).tolist()
