"""Weights & Biases (the extra `wandb`): a W&B run for every policy and world, written while it is trained.

A W&B run's identity is a hash of the run's own and of policy and world, and a row's number is its step. So a resumed
command, or another shard of the same sweep, writes to the W&B run that is there, and leaves out what the server says it
has. Offline nobody can say so: what an unfinished W&B run has left is deleted and written anew. Whoever has ended is
listed in RUN/wandb/finished.

Nothing of it ends a run or changes a number: at the first failure one note is said, and no more is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dbwjax.files import delete, hold, make_folder, read
from dbwjax.runtime import streams
from dbwjax.storage.callbacks import Callbacks

START, FINISH = 60, 60
"""Seconds that W&B may take to begin a run, and to send what is left at its end."""

_REMEDY = "delete it"
_LINE = 16  # characters of an identity


def check_wandb() -> None:
    """Says before a run whether W&B can be written to, as far as that is known here.

    Raises:
      ValueError: it is not installed, or nobody is logged in.
    """
    try:
        import wandb
    except ImportError:
        raise ValueError("--wandb needs wandb; install it with: pip install dbwjax[wandb]") from None
    found = wandb.setup(settings=_settings(wandb)).settings
    if found.mode == "disabled":
        raise ValueError("--wandb writes nothing with WANDB_MODE=disabled; leave one of them out")
    if found.mode == "online" and not found.api_key and not _is_logged_in(wandb):
        raise ValueError("--wandb knows no API key; run wandb login, or set WANDB_MODE=offline and sync later")


def _is_logged_in(wandb: Any) -> bool:
    """Whether a key is kept somewhere. A server that does not answer is no reason to say no: a note will say it."""
    try:
        return bool(wandb.login(prompt=False, timeout=10))
    except Exception:
        return True


class Wandb:
    """Writes to W&B; of use within `with`.

    Args:
      folder: the run's; W&B keeps its files in `wandb` there.
      run: the run's identity.
      project: W&B's.
      words: the configuration, which every W&B run gets together with its policy and world.
    """

    def __init__(self, folder: Path, run: str, project: str, words: Mapping[str, Any]):
        self.folder, self.run, self.project, self.words = folder / "wandb", run, project, words
        self.group = f"{folder.name}-{run[:8]}"
        self._open: dict[str, Any] = {}
        self._off = False

    @property
    def callbacks(self) -> Callbacks:
        """What it listens by."""
        return Callbacks(self._quietly(self._start), self._quietly(self._row), self._quietly(self._end))

    def __enter__(self) -> Wandb:
        self._quietly(self._begin)()
        return self

    def __exit__(self, *exception: object) -> None:
        # Of a command that was stopped: the next one goes on with them.
        for one in self._open.values():
            self._quietly(one.finish)(exit_code=1)
        self._open.clear()

    def _begin(self) -> None:
        make_folder(self.folder, "use another --out")
        path = self.folder / "finished"
        os.close(hold(path, _REMEDY))
        lines = read(path, _REMEDY).decode("ascii", "replace").split("\n")
        self._finished = {line for line in lines if len(line) == _LINE}

    def _start(self, where: Mapping[str, Any]) -> None:
        import wandb

        name = self._id(where)
        if name in self._finished:
            return
        if wandb.setup().settings.mode == "offline":
            for left in self.folder.glob(f"offline-run-*-{name}"):
                delete(left)
        policy, *rest = where.values()
        world = ", ".join(f"{key} {value}" for key, value in list(where.items())[1:])
        one = wandb.init(
            project=self.project,
            id=name,
            name=f"{policy}, {world}" if rest else policy,
            group=self.group,
            dir=str(self.folder.parent),
            config={**self.words, **where},
            resume="allow",
            settings=_settings(wandb),
        )
        one.define_metric("virtual_time")
        one.define_metric("*", step_metric="virtual_time")
        self._open[name] = one

    def _row(self, row: Mapping[str, Any]) -> None:
        names = list(row)
        before = names.index("row")
        one = self._open.get(self._id({name: row[name] for name in names[:before]}))
        if one is None or row["row"] < one.starting_step:  # which the server has
            return
        told = {name: row[name] for name in names[before + 1 :] if row[name] is not None}
        one.log(told, step=row["row"])

    def _end(self, told: Mapping[str, Any]) -> None:
        name = self._id({key: told[key] for key in list(told)[:-2]})  # without `rows` and `stopped`
        one = self._open.pop(name, None)
        if one is None:
            return
        one.summary["stopped"] = told["stopped"]
        one.finish()
        with os.fdopen(hold(self.folder / "finished", _REMEDY), "ab") as file:
            file.write(f"\n{name}\n".encode())

    def _id(self, where: Mapping[str, Any]) -> str:
        return hashlib.sha256(json.dumps([self.run, dict(where)]).encode()).hexdigest()[:_LINE]

    def _quietly(self, work: Callable[..., Any]) -> Callable[..., None]:
        """Does something, unless something has failed before; the first failure is a note."""

        def done(*arguments: Any, **named: Any) -> None:
            if self._off:
                return
            try:
                work(*arguments, **named)
            except Exception as error:  # W&B has many kinds; none of them is worth a run
                self._off = True
                reason = str(error).partition("\n")[0] or type(error).__name__
                streams.note(f"W&B: {reason}; nothing more is written there, and the run goes on without it")

        return done


def _settings(wandb: Any) -> Any:
    """Several W&B runs in one process; nothing about the machine, the code or the person; no words on the terminal."""
    wanted = {
        **{"silent": True, "console": "off", "reinit": "create_new", "save_code": False},
        **{"disable_code": True, "disable_git": True, "disable_job_creation": True},
        **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True},
        **{"x_save_requirements": False, "init_timeout": START},
        **{"finish_timeout": FINISH, "finish_timeout_raises": True},
    }
    known = type(wandb.Settings()).model_fields
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})
