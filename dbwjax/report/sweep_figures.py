"""What a sweep found: paired comparisons with their intervals, a table, and a figure for each axis.

Policies are compared world by world (the same graph, delays, batches and settings): the logarithm of the ratio of the
last policy's seconds to this policy's, its mean, and Student's 95 % interval; given back as a speed-up.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.experiments.sweep.config import SweepConfig

Rows = list[dict[str, Any]]


def summarise(config: SweepConfig, rows: Rows) -> dict[str, Any]:
    """What `summary.json` holds: by policy the mean seconds, how many worlds count and how many diverged, and the
    paired speed-up.

    Seconds are those to the target accuracy where there is one and training was done, of an iteration otherwise.
    """
    what, seconds = outcomes(config, rows)
    last, axes = seconds[config.base.policies[-1]], axes_of(rows)
    diverged: dict[str, dict[tuple, bool]] = {spec: {} for spec in config.base.policies}
    for row in rows:
        diverged[row["policy"]][tuple(row[name] for name in axes)] = bool(row.get("diverged"))
    facts: dict[str, Any] = {}
    for spec in config.base.policies:
        own = seconds[spec]
        known = [value for value in own.values() if value is not None]
        pairs = [(last[world], own[world]) for world in own if own[world] and last.get(world)]
        facts[spec] = {
            "worlds": len(own),
            "counted": len(known),
            "diverged": sum(diverged[spec].values()),
            "mean": float(np.mean(known)) if known else None,
            "paired": len(pairs),
            "speedup": _interval([math.log(theirs / ours) for theirs, ours in pairs if theirs and ours]),
        }
    return {"seconds": what, "over": config.base.policies[-1], "policies": facts}


def outcomes(config: SweepConfig, rows: Rows) -> tuple[str, dict[str, dict[tuple, float | None]]]:
    """Which seconds are compared, and them by policy and world; `None`: the target was not reached."""
    target = config.base.target_accuracy
    trained = any(row.get("test_accuracy") is not None for row in rows)
    what = "time_to_target" if trained and target is not None else "mean_duration"
    axes = axes_of(rows)
    found: dict[str, dict[tuple, float | None]] = {spec: {} for spec in config.base.policies}
    for row in rows:
        world = tuple(row[name] for name in axes)
        of_policy = found[row["policy"]]
        if what == "mean_duration":
            of_policy[world] = row["virtual_time"] / row["step"] if row["step"] and row["virtual_time"] else None
        elif of_policy.get(world) is None:
            reached = row["test_accuracy"] is not None and row["test_accuracy"] >= target
            of_policy[world] = row["virtual_time"] if reached else None
    return what, found


def axes_of(rows: Rows) -> list[str]:
    """The columns that name a world."""
    columns = list(rows[0])
    return columns[1 : columns.index("step")]


def table(summary: dict[str, Any]) -> str:
    """A plain-text table, a line per policy."""
    of = "seconds to the target" if summary["seconds"] == "time_to_target" else "seconds of an iteration"
    lines = [("policy", "worlds", "diverged", "counted", of, "speed-up", "95 % interval", "pairs")]
    for spec, facts in summary["policies"].items():
        speedup = facts["speedup"]
        low, high = (_shown(speedup[name]) if speedup else "-" for name in ("low", "high"))
        lines.append(
            (
                spec,
                str(facts["worlds"]),
                str(facts["diverged"]),
                str(facts["counted"]),
                _shown(facts["mean"]),
                _shown(speedup["mean"]) if speedup else "-",
                f"{low} to {high}" if speedup else "-",
                str(facts["paired"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    note = f"Speed-ups are over {summary['over']}, paired by world; seconds are virtual time."
    return "\n".join([*text, note])


def write_figures(path: Path, config: SweepConfig, rows: Rows) -> list[Path]:
    """One figure for each axis of several values, and a heat map for the first two of them."""
    from dbwjax.report.run_figures import house_style, new_figure, save_figure

    what, seconds = outcomes(config, rows)
    axes = axes_of(rows)
    values = {name: list(dict.fromkeys(row[name] for row in rows)) for name in axes}
    wide = [name for name in axes if len(values[name]) > 1 and name not in ("seed", "graph_seed")]
    made = []
    with house_style():
        for name in wide:
            figure, axis = _one(new_figure(1.2 * len(values[name]) + 3.2, 3.4, 1, 1))
            _against(axis, axes.index(name), values[name], seconds)
            axis.set_xlabel(name.replace("_", " "))
            axis.set_ylabel(_LABELS[what])
            axis.margins(x=0.12, y=0.1)
            axis.set_ylim(bottom=0)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
            made.append(path / f"{what}-{name}.png")
            save_figure(figure, made[-1])
        if len(wide) > 1 and len(config.base.policies) > 1:
            made.append(path / "speedup.png")
            figure, axis = _one(new_figure(1.1 * len(values[wide[0]]) + 4, 3.4, 1, 1))
            _heat(figure, axis, axes, wide[:2], values, seconds, config.base.policies)
            save_figure(figure, made[-1])
    return made


def _one(made: tuple[Any, Any]) -> tuple[Any, Any]:
    return made[0], made[1][0, 0]


_LABELS = {"time_to_target": "virtual time to target [s]", "mean_duration": "mean iteration [s]"}


def _against(axis: Any, place: int, values: list, seconds: dict[str, dict[tuple, float | None]]) -> None:
    for shift, (spec, by_world) in enumerate(seconds.items()):
        means, errors = [], []
        for value in values:
            known = [s for world, s in by_world.items() if world[place] == value and s is not None]
            found = _interval([math.log(s) for s in known if s > 0])
            means.append(found["mean"] if found else math.nan)
            ends = (found["low"], found["high"]) if found and len(known) > 1 else (means[-1], means[-1])
            errors.append((means[-1] - ends[0], ends[1] - means[-1]))
        x = np.arange(len(values)) + 0.08 * (shift - (len(seconds) - 1) / 2)
        axis.errorbar(x, means, yerr=np.array(errors).T, marker="o", capsize=3, linewidth=1.2, label=spec)
    axis.set_xticks(range(len(values)), [_wrapped(value) for value in values])


def _heat(figure: Any, axis: Any, axes: list, two: list, values: dict, seconds: dict, policies: Any) -> None:
    first, last = seconds[policies[0]], seconds[policies[-1]]
    where = [axes.index(name) for name in two]
    grid = np.full((len(values[two[1]]), len(values[two[0]])), np.nan)
    for column, a in enumerate(values[two[0]]):
        for row, b in enumerate(values[two[1]]):
            pairs = [(last[w], s) for w, s in first.items() if (w[where[0]], w[where[1]]) == (a, b)]
            logs = [math.log(theirs / ours) for theirs, ours in pairs if theirs and ours]
            grid[row, column] = math.exp(np.mean(logs)) if logs else np.nan
    image = axis.imshow(grid, cmap="viridis", aspect="auto")
    axis.grid(False)
    for (row, column), value in np.ndenumerate(grid):
        axis.text(
            column,
            row,
            "-" if np.isnan(value) else f"{value:.2f}",
            ha="center",
            va="center",
            color="white",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "#00000066", "edgecolor": "none"},
        )
    axis.set_xticks(range(grid.shape[1]), [_wrapped(value) for value in values[two[0]]])
    axis.set_yticks(range(grid.shape[0]), [_wrapped(value) for value in values[two[1]]])
    axis.set_xlabel(two[0].replace("_", " "))
    axis.set_ylabel(two[1].replace("_", " "))
    axis.set_title(f"speed-up of {policies[0]} over {policies[-1]}")
    figure.colorbar(image, ax=axis)


def _wrapped(value: Any) -> str:
    return str(value).replace(":", ":\n", 1).replace("*", "\n* ")


def _interval(logs: list[float]) -> dict[str, float] | None:
    """The geometric mean and Student's 95 % interval of it; of one value the interval is that value."""
    if not logs:
        return None
    mean = float(np.mean(logs))
    reach = 0.0
    if len(logs) > 1:
        from scipy.stats import t

        reach = float(t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / math.sqrt(len(logs)))
    return {"mean": math.exp(mean), "low": math.exp(mean - reach), "high": math.exp(mean + reach)}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
