"""Image data sets in a TensorFlow Datasets folder: found, read and prepared.

Reading needs neither TensorFlow nor a network: the records are in TFDS's array_record format and Pillow decodes the
images. Whether a data set is there is looked up in the folder before TFDS is imported, because TFDS itself would try
the network for minutes and then fail with words about something else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 4096  # records read at a time: one call for many records is several times faster than one for each
_THREADS = 4


def data_folder(data_dir: str | None) -> Path:
    """`data_dir`, else the environment's TFDS_DATA_DIR, else `~/tensorflow_datasets`."""
    return Path(os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))


def find(name: str, data_dir: str | None = None) -> Path:
    """The folder of the newest prepared version of a data set.

    Args:
      name: as TFDS knows it.
      data_dir: see `data_folder`.

    Raises:
      ValueError: it is not prepared there, or not as array_record files.
    """
    base = data_folder(data_dir)
    try:
        found = [path for path in (base / name).iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
        versions = [path for path in found if (path / "dataset_info.json").is_file()]
    except OSError:
        versions = []
    if not versions:
        raise ValueError(
            f"'{name}' is not prepared in {base}; name its TFDS folder with --data-dir or TFDS_DATA_DIR, or, "
            f"with TensorFlow and a network, run python -m dbwjax.prepare {name} --data-dir {base}"
        )
    newest = max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    form = _info(newest).get("fileFormat")
    if form != "array_record":
        raise ValueError(
            f"'{name}' in {newest} is stored as {form}, which needs TensorFlow to read; prepare it again with "
            f"python -m dbwjax.prepare {name} and another --data-dir"
        )
    return newest


def fingerprint(folder: Path) -> str:
    """A short hash that changes when the data set's files do: their names, sizes and times of change.

    Raises:
      ValueError: a file cannot be looked at.
    """
    try:
        files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error}); copy or prepare the data set again") from None
    facts = [folder.parent.name, folder.name, files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a split.

    Args:
      folder: of one version, from `find`.
      split: "train" or "test".

    Returns:
      Images [n, H, W, C] uint8 and labels [n] int32, in the order of the records.

    Raises:
      ValueError: files are missing or damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        builder = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        shape = builder.info.features["image"].shape
        images = np.empty((len(source), *shape), np.uint8)
        labels = np.empty(len(source), np.int32)

        def fill(start: int) -> None:
            stop = min(start + _BLOCK, len(source))
            # Parsed here, because TFDS's own way from record to features takes four times as long.
            examples = [tf_example_pb2.Example.FromString(raw) for raw in source.__getitems__([*range(start, stop)])]
            features = [example.features.feature for example in examples]
            labels[start:stop] = [feature["label"].int64_list.value[0] for feature in features]
            encoded = [feature["image"].bytes_list.value[0] for feature in features]
            images[start:stop] = decode(encoded, shape, first=start)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fill, range(0, len(source), _BLOCK)))
    except Exception as error:  # TFDS, array_record and Pillow have no common error, and each means the same here
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"the {split} split of {folder} cannot be read ({reason}); delete that folder and prepare or copy it again"
        ) from error
    return images, labels


def decode(encoded: Sequence[bytes], shape: tuple[int, int, int], first: int = 0) -> np.ndarray:
    """The pixels of images of one shape, whatever their modes: palettes are looked up, transparency is dropped, and of
    16 bits the upper 8 are kept.

    Args:
      encoded: PNG or JPEG files.
      shape: (H, W, C) of each; C is 1 (grey) or 3 (red, green, blue).
      first: the number of the first of them, for errors.

    Returns:
      [n, H, W, C] uint8.

    Raises:
      ValueError: one of them is damaged, of another kind or of another size; one line that gives its number.
    """
    from PIL import Image

    height, width, channels = shape
    mode = {1: "L", 3: "RGB"}[channels]
    pixels = np.empty((len(encoded), height, width * channels), np.uint8)
    for place, data in enumerate(encoded):
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                size = image.size  # known before a pixel is decoded, so that no small file becomes a large picture
                if size == (width, height):
                    pixels[place] = np.frombuffer(_in_mode(image, mode).tobytes(), np.uint8).reshape(height, -1)
        except Exception as error:  # Pillow raises whatever its plugins raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"image {first + place} cannot be decoded: {reason}") from error
        if size != (width, height):
            raise ValueError(f"image {first + place} has {size[0]} x {size[1]} pixels, and not {width} x {height}")
    return pixels.reshape(-1, *shape)


def _in_mode(image: Any, mode: str) -> Any:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)


def prepare(name: str, data_dir: str | None = None) -> Path:
    """Downloads a data set and writes it as array_record files; needs TensorFlow and a network.

    Args:
      name: as TFDS knows it.
      data_dir: see `data_folder`.

    Returns:
      The folder in which it is.

    Raises:
      ValueError: TensorFlow is not installed, or the download fails.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(f"preparing '{name}' needs TensorFlow; run pip install 'dbwjax[data]' first")
    import tensorflow_datasets as tfds

    base = data_folder(data_dir)
    try:
        tfds.builder(name, data_dir=str(base), file_format="array_record").download_and_prepare()
    except Exception as error:  # whatever stops TFDS, the user needs one line and the way round it
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"'{name}' cannot be prepared in {base} ({reason}); prepare it where there is a network and copy the folder"
        ) from error
    return find(name, str(base))


def _info(folder: Path) -> dict[str, Any]:
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder / 'dataset_info.json'} cannot be read ({error}); prepare the data set again"
        ) from None
    return info if isinstance(info, dict) else {}
