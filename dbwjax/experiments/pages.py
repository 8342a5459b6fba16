"""Pages of finished runs and sweeps: what their folders hold, read and checked, as material for `report.page`."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dbwjax.experiments import citing
from dbwjax.experiments.claim import versions
from dbwjax.experiments.commands import command_of
from dbwjax.experiments.config import RunOptions, TrainConfig, from_json, to_json, validate
from dbwjax.experiments.presets import PRESETS
from dbwjax.experiments.sweep import config as sweeps
from dbwjax.experiments.sweep.config import SweepConfig
from dbwjax.files import read, read_json, refused, replace_file
from dbwjax.network.breakage import said
from dbwjax.report.page.material import Material, Provenance
from dbwjax.storage import manifest
from dbwjax.storage.parts import Parts

PAGE, WHAT_IF = "report.html", "what_if.json"

_REMEDY = "run python -m dbwjax.train or dbwjax.sweep to its end first"
_MARK = b'<meta name="generator" content="dbwjax">'


def write_page(path: Path, make: Callable[[], str], remedy: str = "use another --out") -> None:
    """Makes a page and writes it whole; a file that is no page of ours is left alone, before anything is made.

    Raises:
      ValueError: something else lies there, or the operating system refuses.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written (there is no folder {path.parent}); {remedy}")
    if os.path.lexists(path) and _MARK not in read(path, remedy, 1 << 30)[:4096]:
        raise ValueError(f"{path} is there and no page of this command; {remedy}")
    text = make()
    replace_file(path, lambda file: file.write(text.encode()))


def report(folder: str | Path, out: str | Path | None = None, iterations: tuple[int, int] | None = None) -> Path:
    """Makes the page of one finished run or sweep.

    Args:
      folder: RUN.
      iterations: first and last of a Gantt chart besides the usual ones; of a run.
      out: the file; `None`: `RUN/report.html`, whose checksum the run's manifest then has.

    Returns:
      The file.

    Raises:
      ValueError: as `material_of`, or the file cannot be written.
    """
    from dbwjax.report.page.make import page_of

    path = Path(folder)

    def text() -> str:
        found = material_of(path) if iterations is None else _of_run(path, "--iterations")
        return page_of(found._replace(iterations=iterations))

    if out is not None:
        write_page(Path(out), text)
        return Path(out)
    _opened(path)
    write_page(path / PAGE, text, "give --out")
    manifest.list_also(path, _opened(path)[1], PAGE)
    return path / PAGE


def ask_what_if(folder: str | Path) -> None:
    """Runs a finished run's clocks again with each slow worker as fast as the median, and keeps what comes of it.

    Raises:
      ValueError: as `material_of`, or there is nothing to ask.
    """
    from dbwjax.experiments import what_if

    path = Path(folder)
    material, (kept, run) = _of_run(path, "--what-if"), _opened(path)
    what_if.ask(path, run, from_json(kept["config"]), material.timelines, material.worlds)


def write_trace(folder: str | Path, out: str) -> str:
    """Writes who waited for whom in the Trace Event Format, and says where and what was left out.

    Args:
      folder: RUN.
      out: the file; compressed where it ends in `.gz`.

    Raises:
      ValueError: as `material_of`, no computations were kept, or the file cannot be written.
    """
    from dbwjax.report.network import pairs_of
    from dbwjax.report.trace_events import packed, trace_events

    if not out:
        raise ValueError("--trace-events names no file; name one, or leave it out")
    found = _of_run(Path(folder), "--trace-events")
    picture = found.picture
    pairs, names = (None, None) if picture is None else (pairs_of(picture), picture.names)
    content, left = trace_events(found.timelines, found.rows, pairs, names)
    text = packed(content, out)
    replace_file(Path(out), lambda file: file.write(text))
    told = (
        f"trace: {out} ({len(content['traceEvents']):,} events, {len(text) / 1e6:.1f} MB; open it in ui.perfetto.dev)"
    )
    return f"{told}; left out: {left}" if left else told


def _of_run(path: Path, word: str) -> Material:
    """The material of a run, for what a sweep has not."""
    found = material_of(path)
    if found.is_sweep:
        raise ValueError(f"{path} is a sweep, which keeps no timelines; {word} needs a run of dbwjax.train")
    return found


def report_several(folders: Sequence[str | Path], out: Path) -> Path:
    """Makes one page that compares finished runs, the first with each of the others; the file.

    Raises:
      ValueError: as `material_of`, a sweep among them, one folder named twice, or the file cannot be written.
    """
    from dbwjax.report.page.several import page_of_several

    paths = [Path(one) for one in folders]
    real = [os.path.realpath(one) for one in paths]
    for path, one in zip(paths, real, strict=True):
        if real.count(one) > 1:
            raise ValueError(f"{path} is named twice; name it once")
    write_page(out, lambda: page_of_several(_runs(paths), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())))
    return out


def _runs(paths: Sequence[Path]) -> list[Material]:
    """Runs by names that differ; a sweep is refused."""
    runs = [material_of(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        if run.is_sweep:
            raise ValueError(f"{path} is a sweep, whose cells are compared on its own page; name runs of dbwjax.train")
    names = [run.name for run in runs]
    return [
        run._replace(name=str(path)) if names.count(run.name) > 1 else run
        for path, run in zip(paths, runs, strict=True)
    ]


def provenance_of(config: TrainConfig | SweepConfig, environment: Mapping[str, Any]) -> Provenance:
    """How to repeat a run or a sweep.

    Args:
      config: its configuration.
      environment: as `config.json` has it.
    """
    base = config.base if isinstance(config, SweepConfig) else config
    command, reads = command_of(config)
    told = sweeps.content(config) if isinstance(config, SweepConfig) else to_json(config)
    now, before = _settings(config), _settings(PRESETS[base.preset]())
    before |= {"graph seeds": _text(None), "timing only": _text(False)}  # of a sweep
    return Provenance(
        command,
        json.dumps(told, indent=2, allow_nan=False) + "\n" if reads else None,
        {name: str(value) for name, value in environment.items()},
        [(name, before[name], value) for name, value in now.items() if before[name] != value],
        base.preset,
        list(now.items()),
        citing.citation(base),
        said(base.world, base.events),
    )


def _settings(config: TrainConfig | SweepConfig) -> dict[str, str]:
    """Every setting as text, the preset's name aside; axes of a sweep take the place of single values."""
    base = config.base if isinstance(config, SweepConfig) else config
    found = {name: value for name, value in dataclasses.asdict(base).items() if name != "preset"}
    if isinstance(config, SweepConfig):
        axes = {"graph": config.graphs, "delays": config.delays, "learning_rate": config.learning_rates}
        found |= {name: values if len(values) > 1 else values[0] for name, values in axes.items()}
        found |= dict(config.settings) | {"graph_seeds": config.graph_seeds, "timing_only": config.timing_only}
    return {name.replace("_", " "): _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " | ".join(map(_text, value)) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def leave_page(
    path: Path,
    config: TrainConfig | SweepConfig,
    rows: Sequence[Mapping[str, Any]],
    worlds: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    timelines: Mapping[str, Any] | None = None,
    picture: Any = None,
) -> Path:
    """Writes the page of a run or a sweep that has just ended, the same that `report` would make.

    Args:
      path: of its folder, where `config.json` and `summary.json` lie already.
      config: its configuration.
      rows, worlds, summary, timelines, picture: as in `Material`.

    Raises:
      ValueError: it cannot be written.
    """
    from dbwjax.report.page.make import page_of

    kept, _ = _opened(path, ("summary.json",))
    material = Material(path.absolute().name, _date(path), rows, worlds, summary, timelines or {}, picture)
    text = page_of(material._replace(provenance=provenance_of(config, kept.get("environment") or {})))
    replace_file(path / PAGE, lambda file: file.write(text.encode()))
    return path / PAGE


def report_in_python(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    worlds: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    timelines: Mapping[str, Any] | None = None,
    picture: Any = None,
) -> Path:
    """Writes the page of a comparison that was made in Python, which no command repeats; the file.

    Raises:
      ValueError: a file that is no page of ours lies there, or it cannot be written.
    """
    from dbwjax.report.page.make import page_of

    where, specs = Path(path), list(summary["cells"][0]["policies"])
    try:
        citation = citing.citation(specs)
    except ValueError:  # policies of the caller's own
        citation = ""
    told = Provenance(versions=versions(), citation=citation)
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    material = Material(where.stem, date, rows, worlds, summary, timelines or {}, picture, told)
    write_page(where, lambda: page_of(material), "use another path")
    return where


def _date(path: Path) -> str:
    """When the numbers of a run were complete."""
    with refused(f"{path} cannot be read", _REMEDY):
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime((path / "summary.json").lstat().st_mtime))


def material_of(folder: str | Path) -> Material:
    """What a finished run or sweep left, read from its parts.

    Args:
      folder: RUN.

    Raises:
      ValueError: there is no such folder, it holds no finished run, or something in it has changed.
    """
    path = Path(folder)
    kept, run = _opened(path)
    manifest.require_whole(path, run)
    try:
        config = _config(kept)
    except ValueError as error:
        raise ValueError(f"{path}/config.json: {error}") from error
    base = config.base if isinstance(config, SweepConfig) else config
    rows, timelines = _parts(path, run)
    worlds = read_json(path / "worlds.json", _REMEDY, manifest.memory_over(8), path)
    summary = _summary(path, rows, worlds, base)
    if kept.get("names") is not None and not isinstance(config, SweepConfig):
        summary["names"] = kept["names"]
    environment = kept.get("environment")
    provenance = provenance_of(config, environment if isinstance(environment, dict) else {})
    picture = None if isinstance(config, SweepConfig) else _picture(config)
    told = None
    if not isinstance(config, SweepConfig) and os.path.lexists(path / WHAT_IF):
        told = manifest.read_sealed(path / WHAT_IF, run, "delete it, or give --what-if again", path)
    return Material(path.absolute().name, _date(path), rows, worlds, summary, timelines, picture, provenance, told)


def _opened(
    path: Path, needed: Sequence[str] = ("summary.json", "worlds.json", manifest.MANIFEST)
) -> tuple[dict[str, Any], str]:
    with refused(f"{path} is not a finished run", _REMEDY):
        found = manifest.read_config(path, _REMEDY)
        if found is not None:
            for name in needed:
                (path / name).lstat()
    if found is None:
        raise ValueError(f"{path} is not a finished run (no config.json); {_REMEDY}")
    return found


def _config(kept: dict[str, Any]) -> TrainConfig | SweepConfig:
    if "config" in kept:
        config = from_json(kept["config"])
        validate(config, RunOptions())
        return config
    told = kept.get("sweep")
    if not isinstance(told, dict) or "base" not in told:
        raise ValueError("neither of a run nor of a sweep of this version; run the command again")
    sweep = sweeps.from_content(told, from_json(told["base"]))
    sweeps.validate(sweep, RunOptions())
    return sweep


def _parts(path: Path, run: str) -> tuple[list[dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """Rows and timelines of all blocks, in their order."""
    parts = Parts(path / "parts", run)
    with refused(f"{path / 'parts'} cannot be read", _REMEDY):
        numbers = sorted(int(one.stem) for one in (path / "parts").glob("*.json") if one.stem.isdecimal())
    rows: list[dict[str, Any]] = []
    timelines: dict[str, dict[str, dict[str, Any]]] = {}
    for number in numbers:
        own = parts.rows(number)
        rows += own
        for key, array in parts.timelines(number).items():
            world, _, name = key.rpartition("/")
            timelines.setdefault(own[0]["policy"], {}).setdefault(world, {})[name] = array
    return rows, timelines


def _summary(path: Path, rows: Sequence[Mapping[str, Any]], worlds: Any, config: TrainConfig) -> dict[str, Any]:
    """Concluded anew from the rows."""
    from dbwjax.report.statistics import summarise

    has_accuracy = any(row.get("test_accuracy") is not None for row in rows)
    target = config.target_accuracy if has_accuracy else None
    try:
        return summarise(rows, worlds, config.policies, config.over, target)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start the run's command again") from error


def _picture(config: TrainConfig) -> Any:
    """The first world's network, drawn again from the configuration; `None` where its files are elsewhere now."""
    from dbwjax.experiments.picture import picture_of
    from dbwjax.experiments.problem import of_seeds, problems

    try:
        return picture_of(problems(of_seeds(config)[:1], True)[0], config.graph, config.seeds > 1)
    except ValueError:
        return None
