import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dbwjax.tasks.png import decode


def encoded(pixels, **settings):
    """One image as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG", **settings)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def by_hand(height, width, channels, stored, pieces=1):
    """A PNG around filtered rows, whose decoding Pillow is asked for."""
    header = struct.pack(">2I5B", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    packed = zlib.compress(stored)
    cuts = np.linspace(0, len(packed), pieces + 1).astype(int)
    data = [chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(cuts)]
    text = chunk(b"tEXt", b"Comment\x00IDAT IEND")
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), text, *data, chunk(b"IEND", b"")])


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    pieces=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_every_filter_is_undone_as_pillow_undoes_it(shape, pieces, seed):
    height, width, channels = shape
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        rows = rng.integers(0, 256, (height, width * channels), dtype=np.uint8)
        stored = np.concatenate([rng.integers(0, 5, (height, 1), dtype=np.uint8), rows], axis=1)
        images.append(by_hand(*shape, stored.tobytes(), pieces))
    expected = [np.asarray(Image.open(io.BytesIO(image))).reshape(shape) for image in images]
    np.testing.assert_array_equal(decode(images, shape), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_pillow_writes_is_read_back(channels):
    ramp = np.add.outer(np.arange(20), 3 * np.arange(17))[:, :, None] * np.arange(1, channels + 1)
    noise = np.random.default_rng(0).integers(0, 30, (8, *ramp.shape))
    images = (ramp + noise).astype(np.uint8)
    np.testing.assert_array_equal(decode([encoded(image) for image in images], images.shape[1:]), images)


def test_files_of_another_kind_are_left_to_pillow():
    grey = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    flat = np.full((8, 8, 1), 77, np.uint8)
    file = io.BytesIO()
    Image.fromarray(flat[:, :, 0]).save(file, "JPEG")
    files = [*map(encoded, grey), file.getvalue()]
    np.testing.assert_array_equal(decode(files, (8, 8, 1)), [*grey, flat])


@pytest.mark.parametrize(
    "damage",
    [lambda image: image[:-30], lambda image: image[:40], lambda image: b"", lambda image: b"not an image at all"],
)
def test_a_damaged_image_is_an_error(damage):
    image = encoded(np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8))
    with pytest.raises(Exception, match=r".") as error:
        decode([image, damage(image)], (8, 8, 1))
    assert isinstance(error.value, (ValueError, OSError, zlib.error))


def test_an_unknown_filter_is_an_error():
    with pytest.raises(ValueError, match="filter type 9"):
        decode([by_hand(1, 2, 1, b"\x09\x00\x00")], (1, 2, 1))


def test_an_image_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"cannot reshape|size"):
        decode([encoded(np.zeros((4, 4, 1), np.uint8))], (4, 5, 1))
