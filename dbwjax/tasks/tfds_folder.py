"""Image data sets in a TensorFlow Datasets folder: found, read and prepared.

Reading needs neither TensorFlow nor a network: the records are in TFDS's array_record format and Pillow decodes the
images. TFDS itself never sees the folder: it would import whatever class `features.json` names, open whatever path
`dataset_info.json` gives, and for a data set that is not there try the network for minutes. So both files are read here
as plain JSON, and what they may say is listed.
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dbwjax.files import content_of, read_json

REMEDY = "copy or prepare the data set again"

_FEATURES = "tensorflow_datasets.core.features."
_KINDS = {  # the classes that `features.json` may name, and where each keeps its settings
    f"{_FEATURES}image_feature.Image": "image",
    f"{_FEATURES}class_label_feature.ClassLabel": "classLabel",
    f"{_FEATURES}text_feature.Text": "text",
}
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_SIDE, _CLASSES, _SHARDS, _PIXELS = 1024, 1 << 16, 1 << 12, 8 << 30  # what is accepted at most; of a split, 8 GiB
_TEXT = 4 << 20  # bytes of a description
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
    """A short hash of what the files that are read hold.

    Raises:
      ValueError: one cannot be read.
    """
    return content_of(files_of(folder), REMEDY).sha256[:16]


def files_of(folder: Path) -> dict[str, Path]:
    """Every file that is read of a data set, by name.

    Raises:
      ValueError: `dataset_info.json` or `features.json` cannot be read, or is of another kind.
    """
    described(folder)
    names = [
        "dataset_info.json",
        "features.json",
        *(name for split in ("train", "test") for name in shards(folder, split)),
    ]
    return {f"{folder.parent.name}/{name}": folder / name for name in names}


def shards(folder: Path, split: str) -> dict[str, int]:
    """The record files of a split, by name, and how many records each holds.

    Raises:
      ValueError: `dataset_info.json` cannot be read, is of another kind, or has no such split.
    """
    path = folder / "dataset_info.json"
    told = _info(folder).get("splits")
    found = (
        [one for one in told if isinstance(one, dict) and one.get("name") == split] if isinstance(told, list) else []
    )
    if len(found) != 1:
        raise ValueError(f"{path} has no split '{split}'; {REMEDY}")
    if found[0].get("filepathTemplate", _TEMPLATE) != _TEMPLATE:
        raise ValueError(f"{path}: record files are named by '{found[0]['filepathTemplate']}'; {REMEDY}")
    counts = found[0].get("shardLengths")
    if not isinstance(counts, list) or not 1 <= len(counts) <= _SHARDS:
        raise ValueError(f"{path}: split '{split}' has no shards, or too many; {REMEDY}")
    lengths = [_whole(count, 0, 1 << 31, f"{path}: a shard's length", REMEDY) for count in counts]
    stem = f"{folder.parent.name}-{split}.array_record"
    return {f"{stem}-{i:05d}-of-{len(lengths):05d}": length for i, length in enumerate(lengths)}


def described(folder: Path) -> tuple[tuple[int, int, int], int]:
    """What `features.json` says: the shape (H, W, C) of every image, and the number of classes.

    Raises:
      ValueError: it names another class than TFDS's own for images, labels and texts, or shapes that are not supported.
    """
    path = folder / "features.json"
    remedy = f"only images of uint8 with a label are read; {REMEDY}"
    top = _settings(
        read_json(path, REMEDY, _TEXT), {f"{_FEATURES}features_dict.FeaturesDict": "featuresDict"}, str(path), remedy
    )
    named = top.get("features") if set(top) == {"features"} else None
    if not isinstance(named, dict) or not {"image", "label"} <= set(named):
        raise ValueError(f"{path} has no image or no label; {remedy}")
    kept = {name: _settings(one, _KINDS, f"{path}: '{name}'", remedy) for name, one in named.items()}
    for name, kind in (("image", "image"), ("label", "classLabel")):
        if kind not in named[name]:
            raise ValueError(f"{path}: '{name}' is of another kind; {remedy}")
    image, label = kept["image"], kept["label"]
    shape = image.get("shape")
    sides = shape.get("dimensions") if isinstance(shape, dict) else None
    if image.get("dtype") != "uint8" or not isinstance(sides, list) or len(sides) != 3:
        raise ValueError(f"{path}: 'image' is of another kind; {remedy}")
    height, width, channels = (_whole(side, 1, _SIDE, f"{path}: a side of 'image'", remedy) for side in sides)
    if channels not in (1, 3):
        raise ValueError(f"{path}: 'image' has {channels} channels and not 1 or 3; {remedy}")
    return (height, width, channels), _whole(label.get("numClasses"), 1, _CLASSES, f"{path}: numClasses", remedy)


def _settings(feature: Any, kinds: dict[str, str], where: str, remedy: str) -> dict[str, Any]:
    """A feature's settings; its class is one of `kinds`, and nothing else is said."""
    name = feature.get("pythonClassName") if isinstance(feature, dict) else None
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None or set(feature) != {"pythonClassName", kind} or not isinstance(feature[kind], dict):
        raise ValueError(f"{where} is a {str(name)[:200]!r} and not one of TFDS's own features; {remedy}")
    return feature[kind]


def _whole(value: Any, least: int, most: int, what: str, remedy: str) -> int:
    """A whole number; TFDS writes them as text."""
    if not re.fullmatch(r"[0-9]{1,12}", str(value)) or not least <= int(value) <= most:
        raise ValueError(f"{what} is {str(value)[:200]!r} and not {least} to {most}; {remedy}")
    return int(value)


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
    from tensorflow_datasets.proto import tf_example_pb2

    shape, classes = described(folder)
    lengths = shards(folder, split)
    if sum(lengths.values()) * math.prod(shape) > _PIXELS:
        raise ValueError(f"the {split} split of {folder} has more than {_PIXELS:,} bytes of pixels; use a smaller one")
    try:
        source = _records(folder, lengths)
        images = np.empty((len(source), *shape), np.uint8)
        labels = np.empty(len(source), np.int32)

        def fill(start: int) -> None:
            stop = min(start + _BLOCK, len(source))
            # TFDS's own way from record to features takes four times as long.
            examples = [tf_example_pb2.Example.FromString(raw) for raw in source.__getitems__([*range(start, stop)])]
            features = [example.features.feature for example in examples]
            classed = np.array([feature["label"].int64_list.value[0] for feature in features], np.int64)
            if ((classed < 0) | (classed >= classes)).any():
                raise ValueError(f"a label among records {start} to {stop - 1} is not 0 to {classes - 1}")
            labels[start:stop] = classed
            encoded = [feature["image"].bytes_list.value[0] for feature in features]
            images[start:stop] = decode(encoded, shape, first=start)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fill, range(0, len(source), _BLOCK)))
        source.__exit__(None, None, None)
    except Exception as error:  # array_record, protobuf and Pillow have no common error; each means the same here
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"the {split} split of {folder} cannot be read ({reason}); delete that folder and prepare or copy it again"
        ) from error
    return images, labels


def _records(folder: Path, lengths: dict[str, int]) -> Any:
    """The records of a split, one after another."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    for name in lengths:
        if not (folder / name).is_file():  # a pipe would never end
            raise ValueError(f"{name} is missing or not a regular file")
    source = ArrayRecordDataSource([str(folder / name) for name in lengths])
    if len(source) != sum(lengths.values()):
        raise ValueError(f"{len(source)} records and not {sum(lengths.values())}")
    return source


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
    info = read_json(folder / "dataset_info.json", REMEDY, _TEXT)
    return info if isinstance(info, dict) else {}
