"""Images as Pillow decodes them for a data set: of every mode, damaged, or of another size."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dbwjax.tasks.tfds_folder import decode


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind)
    return file.getvalue()


def random(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows):
    """A PNG file by hand (W3C, Portable Network Graphics): rows as they are stored, without filters."""
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_that_were_encoded(channels):
    images = random(8, 20, 17, channels)
    files = [encoded(image.squeeze(-1) if channels == 1 else image) for image in images]
    found = decode(files, (20, 17, channels))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, images)
    assert decode([], (20, 17, channels)).shape == (0, 20, 17, channels)


def test_a_file_written_by_hand():
    np.testing.assert_array_equal(decode([png(2, 1, 8, 0, [b"\x07\xff"])], (1, 2, 1)), [[[[7], [255]]]])


def test_jpeg_of_one_colour():
    assert (decode([encoded(np.full((8, 8), 77, np.uint8), "JPEG")], (8, 8, 1)) == 77).all()


def test_sixteen_bits_keep_the_upper_eight():
    values = [0, 255, 256, 40000, 65535]
    grey = encoded(np.array([values], np.uint16))
    upper = [value >> 8 for value in values]
    assert decode([grey], (1, 5, 1)).ravel().tolist() == upper
    assert decode([grey], (1, 5, 3)).tolist() == [[[[value] * 3 for value in upper]]]
    colours = png(1, 1, 16, 2, [struct.pack(">3H", 40000, 255, 65535)])
    assert decode([colours], (1, 1, 3)).ravel().tolist() == [40000 >> 8, 0, 255]


def test_palettes_are_looked_up():
    image = Image.fromarray(random(4, 4) % 3)
    image.putpalette([10, 20, 30, 40, 50, 60, 200, 100, 0])
    colours = np.array([[10, 20, 30], [40, 50, 60], [200, 100, 0]], np.uint8)
    assert image.mode == "P"
    np.testing.assert_array_equal(decode([encoded(image)], (4, 4, 3))[0], colours[random(4, 4) % 3])


def test_other_modes_are_brought_to_the_wanted_one():
    colours, opacity = random(5, 6, 3), random(5, 6, 1, seed=1)
    with_opacity = encoded(np.concatenate([colours, opacity], axis=2))
    np.testing.assert_array_equal(decode([with_opacity], (5, 6, 3))[0], colours)
    grey = random(5, 6, 1)
    np.testing.assert_array_equal(decode([encoded(grey.squeeze(-1))], (5, 6, 3))[0], np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(decode([encoded(np.repeat(grey, 3, axis=2))], (5, 6, 1))[0], grey)
    bits = Image.fromarray(grey.squeeze(-1) > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(decode([encoded(bits)], (5, 6, 1))[0], np.where(grey > 127, 255, 0))


WHOLE = encoded(random(8, 8))


@pytest.mark.parametrize(
    "damaged",
    [
        WHOLE[:-30],
        WHOLE[:40],
        WHOLE[:60] + b"\x00\xff" + WHOLE[62:],
        b"",
        b"not an image at all",
        encoded(random(8, 8), "BMP"),
    ],
    ids=["no end", "no pixels", "flipped", "empty", "words", "bmp"],
)
def test_a_damaged_image_is_one_line_that_names_it(damaged):
    with pytest.raises(ValueError, match=r"^image 71 cannot be decoded: [^\n]+$"):
        decode([WHOLE, damaged, WHOLE], (8, 8, 1), first=70)


def test_an_image_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"^image 1 has 5 x 4 pixels, and not 4 x 4$"):
        decode([encoded(random(4, 4)), encoded(random(4, 5))], (4, 4, 1))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_decompression_bomb_is_not_decoded(side):
    """Of both sizes: at the first Pillow warns, at the second it refuses."""
    bomb = png(side, side, 8, 0, [b""])
    with pytest.raises(ValueError, match=rf"^image 0 (has {side} x {side} pixels|cannot be decoded: [^\n]*bomb)"):
        decode([bomb], (28, 28, 1))
