"""Downloads a data set where TensorFlow and a network exist: `python -m dbwjax.tasks.prepare mnist --data-dir DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dbwjax.tasks.datasets import IMAGES
from dbwjax.tasks.tfds_folder import prepare


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after a one-line error."""
    parser = argparse.ArgumentParser(prog="python -m dbwjax.tasks.prepare", description=__doc__)
    parser.add_argument("name", choices=sorted(IMAGES))
    parser.add_argument("--data-dir", help="the TFDS folder (default: TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    chosen = parser.parse_args(arguments)
    try:
        print(prepare(chosen.name, chosen.data_dir))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
