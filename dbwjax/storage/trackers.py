"""TensorBoard event files of a run folder, through tensorboardX (the extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dbwjax.files import as_file_name, delete, refused


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
    """Writes TensorBoard event files from the rows of `metrics.jsonl`, one run per policy and world, in place of those
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
            run = f"{as_file_name(row['policy'])}/world {row['world']}"
            if run not in writers:
                writers[run] = SummaryWriter(str(folder / run))
            for name, value in row.items():
                if name not in ("policy", "world", "row") and value is not None:
                    writers[run].add_scalar(name, value, row["row"], walltime=row["virtual_time"])
        for writer in writers.values():
            writer.close()
