"""`python -m dbwjax.prepare NAME`: downloads a data set where TensorFlow and a network exist."""

from __future__ import annotations

from collections.abc import Sequence

from dbwjax import specs
from dbwjax.cli import arguments
from dbwjax.cli.command import guarded
from dbwjax.runtime import environment, streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, as `command` lists them."""
    return guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = arguments.Parser(prog="python -m dbwjax.prepare", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", metavar="NAME", help="mnist, fashion_mnist or cifar10")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="the TFDS folder (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)"
    )
    typed = parser.parse_args(argv)
    environment.start_jax()
    from dbwjax.tasks.datasets import IMAGES
    from dbwjax.tasks.tfds_folder import prepare

    if typed.name not in IMAGES:
        raise ValueError(f"unknown data set '{typed.name}'; {specs.nearest(typed.name, IMAGES)}")
    if typed.data_dir == "":
        raise ValueError("--data-dir names no folder; name one, or leave it out")
    streams.show(str(prepare(typed.name, typed.data_dir)))
    return 0
