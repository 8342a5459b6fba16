"""Figures of a plan, from numbers alone: who is quickest, and what the measured times look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dbwjax.report import style

SHOWN = 16
"""Candidates, and machines, that a figure has room for."""

_COLUMNS = 240  # of the picture over time


def draw_ranking(
    names: Sequence[str], policies: Sequence[str], values: Sequence[tuple], groups: Sequence[int], what: str
) -> Any:
    """Each candidate's seconds with its interval, the quickest on top; the first group is marked.

    Args:
      names: of the candidates.
      policies: whose colours they have.
      values: estimate, low and high of each; `None`: no limit.
      groups: from 1.
      what: the axis.
    """
    shown = min(SHOWN, len(names))
    figure, axes = style.new_figure(style.PAGE, 16 + 6 * shown)
    ax = axes[0, 0]
    top = [place for place in range(shown) if groups[place] == 1]
    ax.axhspan(-0.5, top[-1] + 0.5 if top == list(range(len(top))) else 0.5, color="#eeeeee", zorder=0)
    for place in range(shown):
        at, low, high = values[place]
        colour = style.colour(policies[place])
        ax.plot([at if low is None else low, at if high is None else high], [place, place], color=colour, linewidth=1.6)
        ax.plot([at], [place], color=colour, marker="o" if groups[place] == 1 else "s", markersize=4.5)
        if high is None:
            ax.annotate(
                "", (at, place), (14, 0), textcoords="offset points", arrowprops={"arrowstyle": "<|-", "color": colour}
            )
    ends = [end for value in values[:shown] for end in value if end is not None and end < 20 * values[0][0]]
    low, high = min(ends), max(ends)
    ax.set_xlim(max(0.0, low - 0.06 * (high - low or high)), high + 0.08 * (high - low or high))
    ax.set_yticks(range(shown), [style.plain(name, 44) for name in names[:shown]])
    ax.set_ylim(shown - 0.4, -0.6)
    ax.set_xlabel(what)
    ax.grid(axis="y", visible=False)
    return figure


def draw_machines(names: Sequence[str], seconds: np.ndarray) -> Any:
    """Each machine's times: the middle half, 5 to 95 %, median, mean and 99th percentile; the slowest first.

    Args:
      names: of the machines.
      seconds: `[rows, N]`.
    """
    order = np.argsort(-seconds.mean(axis=0), kind="stable")[:SHOWN]
    figure, axes = style.new_figure(style.PAGE, 16 + 6 * len(order))
    ax = axes[0, 0]
    for place, machine in enumerate(order):
        p5, p25, p50, p75, p95, p99 = np.quantile(seconds[:, machine], [0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
        said = place == 0
        ax.plot([p5, p95], [place, place], color="#0072B2", linewidth=1.2, label="5 to 95 %" if said else None)
        ax.plot(
            [p25, p75],
            [place, place],
            color="#0072B2",
            linewidth=5,
            alpha=0.55,
            solid_capstyle="butt",
            label="25 to 75 %" if said else None,
        )
        for at, marker, what in ((p50, "|", "median"), (p99, "x", "99 %"), (seconds[:, machine].mean(), "D", "mean")):
            ax.plot(
                [at],
                [place],
                marker=marker,
                color="#000000",
                markersize=7 if marker == "|" else 3.5,
                linestyle="",
                label=what if said else None,
            )
    ax.set_yticks(range(len(order)), [style.plain(names[machine], 24) for machine in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("seconds a step")
    ax.grid(axis="y", visible=False)
    figure.legend(loc="outside upper left", ncols=5)
    return figure


def draw_over_time(names: Sequence[str], seconds: np.ndarray) -> Any:
    """How slow each machine is over the steps, in multiples of its own median; a column is the mean of some steps.

    Args:
      names: of the machines.
      seconds: `[rows, N]`.
    """
    order = np.argsort(-seconds.mean(axis=0), kind="stable")[:SHOWN]
    shown = (seconds / np.median(seconds, axis=0))[:, order]
    columns = min(_COLUMNS, len(shown))
    pooled = np.stack([part.mean(axis=0) for part in np.array_split(shown, columns)], axis=1)
    figure, axes = style.new_figure(style.PAGE, 22 + 4.5 * len(order))
    ax = axes[0, 0]
    picture = ax.imshow(
        pooled,
        aspect="auto",
        cmap="cividis",
        vmin=0.5,
        vmax=max(2.5, float(np.quantile(pooled, 0.99))),
        extent=(0, len(seconds), len(order) - 0.5, -0.5),
        interpolation="nearest",
    )
    ax.set_yticks(range(len(order)), [style.plain(names[machine], 24) for machine in order])
    ax.set_xlabel("step")
    ax.grid(visible=False)
    figure.colorbar(picture, ax=ax, label="times its median", pad=0.01)
    return figure


def draw_correlation(names: Sequence[str], correlation: np.ndarray) -> Any:
    """Correlation of the logarithms of two machines' times in the same step.

    Args:
      names: of the machines.
      correlation: `[N, N]`.
    """
    count = min(SHOWN, len(names))
    figure, axes = style.new_figure(style.COLUMN + 20, 20 + 5 * count)
    ax = axes[0, 0]
    values = correlation[:count, :count]
    picture = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    labels = [style.plain(name, 14) for name in names[:count]]
    ax.set_yticks(range(count), labels)
    ax.set_xticks(range(count), labels, rotation=90)
    ax.grid(visible=False)
    if count <= 10:
        for row in range(count):
            for column in range(count):
                ground = picture.cmap(picture.norm(values[row, column]))
                ax.text(
                    column,
                    row,
                    f"{values[row, column]:.1f}".replace("-0.0", "0.0"),
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=style.ink_on(ground),
                )
    figure.colorbar(picture, ax=ax, pad=0.02)
    return figure


def draw_quantiles(
    names: Sequence[str], observed: Sequence[np.ndarray], expected: Sequence[np.ndarray], law: str
) -> Any:
    """Measured against fitted quantiles of a few machines; on the line they agree.

    Args:
      names: of the machines.
      observed: of each, `[Q]` seconds.
      expected: of each, `[Q]` seconds.
      law: its name.
    """
    figure, axes = style.new_figure(style.PAGE, 62, 1, len(names))
    for ax, name, seen, said in zip(axes[0], names, observed, expected, strict=True):
        low, high = min(seen[0], said[0]), max(seen[-1], said[-1])
        ax.plot([low, high], [low, high], color=style.GREY, linewidth=0.8)
        ax.plot(said, seen, ".", color="#0072B2", markersize=3)
        style.heading(ax, style.plain(name, 18))
        ax.set_xlabel(f"{law} [s]")
    axes[0, 0].set_ylabel("measured [s]")
    return figure
