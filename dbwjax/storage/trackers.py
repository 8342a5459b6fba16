"""Who else hears of a run's rows: TensorBoard event files, through tensorboardX (the extra `tensorboard`), and W&B
(`wandb_tracker`). Neither ends a run or changes a number: what fails is one note.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dbwjax.files import as_file_name, delete, refused
from dbwjax.runtime import streams
from dbwjax.storage.callbacks import Callbacks
from dbwjax.storage.metrics_writer import where_of
from dbwjax.storage.wandb_tracker import Wandb, check_wandb


def check_trackers(tensorboard: bool, wandb: str | None) -> None:
    """Says before a run whether its trackers can be written.

    Raises:
      ValueError: one is not installed, or nobody is logged in.
    """
    if tensorboard:
        check_tensorboard()
    if wandb is not None:
        check_wandb()


@contextlib.contextmanager
def opened(wandb: str | None, folder: Path, run: str, words: Mapping[str, Any]) -> Iterator[list[Callbacks]]:
    """The trackers that hear of rows as they come; closed at the end.

    Args:
      wandb: W&B's project; `None`: not asked for.
      folder: the run's.
      run: its identity.
      words: its configuration.
    """
    if wandb is None:
        yield []
        return
    with Wandb(folder, run, wandb, words) as tracker:
        yield [tracker.callbacks]


def finish_trackers(folder: Path, tensorboard: bool, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes what is written at the end, from all rows."""
    if tensorboard:
        try:
            write_tensorboard(folder / "tensorboard", rows)
        except (ValueError, OSError) as error:
            streams.note(f"TensorBoard: {error}; the run is complete without it")


def check_tensorboard() -> None:
    """Says before a run whether its end can write event files.

    Raises:
      ValueError: tensorboardX is not installed.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise ValueError("--tensorboard needs tensorboardX; install it with: pip install dbwjax[tensorboard]") from None


def write_tensorboard(folder: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes TensorBoard event files from a run's or a sweep's rows, one run per policy and world, in place of those
    there.

    To be called at the end with all rows, so that a resumed run has no event twice. An event's step is its row's
    number, and its time the virtual time: TensorBoard's relative axis shows virtual seconds.

    Raises:
      ValueError: tensorboardX is not installed, or the folder cannot be written.
    """
    check_tensorboard()
    from tensorboardX import SummaryWriter

    folder = Path(folder)
    delete(folder)
    with refused(f"{folder} cannot be written", "free some space or use another --out"):
        writers: dict[str, SummaryWriter] = {}
        for row in rows:
            policy, *values = where_of(row).items()
            run = (
                f"{as_file_name(policy[1])}/{', '.join(f'{name} {as_file_name(str(value))}' for name, value in values)}"
            )
            if run not in writers:
                writers[run] = SummaryWriter(str(folder / run))
            for name, value in row.items():
                if name not in (*where_of(row), "row") and value is not None and not isinstance(value, str):
                    writers[run].add_scalar(name, value, row["row"], walltime=row["virtual_time"])
        for writer in writers.values():
            writer.close()
