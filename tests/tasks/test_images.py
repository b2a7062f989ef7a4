"""Pictures of every kind as a person sees them, and what cannot be read."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from franken.errors import FrankenError
from franken.tasks.images import open_image, read_image

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image)


def test_plain_pictures_keep_every_pixel(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    image, data = Image.fromarray(rgb), encoded(Image.fromarray(rgb))
    (tmp_path / "a.png").write_bytes(data)
    address = "data:image/png;base64," + base64.b64encode(data).decode()
    values = [image, data, bytearray(data), "a.png", tmp_path / "a.png", address]
    values += [{"bytes": data, "path": "x"}, {"bytes": None, "path": "a.png"}]
    for value in values:
        opened, error = open_image(value, tmp_path)
        assert error is None
        assert np.array_equal(pixels(opened), rgb)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparency_is_white(mode):
    """Two pixels that are black but clear, or black and not."""
    if mode in ("P", "RGB", "L"):  # one colour is the clear one
        first, second = {"P": (0, 1), "RGB": ((9, 9, 9), BLACK), "L": (9, 0)}[mode]
        image = Image.new(mode, (2, 1), second)
        image.putpixel((0, 0), first)
        if mode == "P":
            image.putpalette([9, 9, 9, 0, 0, 0])
        data = encoded(image, transparency=first)
    else:
        image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
        image.putpixel((0, 0), (0, 0, 0, 0))
        data = encoded(image.convert(mode))
    assert pixels(read_image(data, "x")).tolist() == [[list(WHITE), list(BLACK)]]


def test_half_transparent_red_is_pink():
    data = encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))
    assert np.allclose(pixels(read_image(data, "x"))[0, 0], (255, 127, 127), atol=1)


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(turned):
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0] = RED
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = Image.fromarray(upright)
    if turned in undo:
        stored = stored.transpose(Image.Transpose[undo[turned]])
    exif = Image.Exif()
    exif[0x0112] = turned
    assert np.array_equal(pixels(read_image(encoded(stored, exif=exif), "x")), upright)


def test_sixteen_bits_are_scaled():
    grey = np.array([[0, 128, 257, 32768, 65407, 65535]], np.uint16)
    expected = np.round(grey / 257).astype(np.uint8)
    for image in (Image.fromarray(grey), Image.fromarray(grey.astype(np.int32))):
        assert np.array_equal(pixels(read_image(image, "x"))[..., 0], expected)
    assert np.array_equal(pixels(read_image(encoded(Image.fromarray(grey)), "x"))[..., 1], expected)


def test_cmyk_and_bits():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for value in (cmyk, encoded(cmyk, "JPEG"), encoded(cmyk, "TIFF")):
        assert np.allclose(pixels(read_image(value, "x")), RED, atol=6)
    assert pixels(read_image(encoded(Image.new("1", (2, 2), 1)), "x")).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_what_is_cut_off_is_an_error(kind, share):
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(rgb), kind)
    image, error = open_image(data[: int(len(data) * share)], None)
    assert image is None
    assert error.startswith("the image cannot be read: ")


def test_other_things_that_are_no_pictures(tmp_path):
    good = encoded(Image.new("L", (4, 4)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(good)
    broken = (
        good[:33] + struct.pack(">I", 9) + b"IDAT" + b"x" * 9 + struct.pack(">I", zlib.crc32(b""))
    )
    wrong = [
        (broken, "cannot be read"),
        (Image.new("F", (2, 2)), "floating-point"),
        (Image.new("I", (2, 2), 10**6), "32-bit"),
        (b"", "cannot be read"),
        ("gone.png", "gone.png cannot be read: it is missing"),
        (".", "cannot be read"),
        ("../folder/a.png/../../x", "lies outside"),
        ("data:image/png;base64,?", "not base64"),
        (None, "names no image"),
        ({"bytes": None, "path": None}, "names no image"),
        (3, "cannot be a int"),
    ]
    for value, error in wrong:
        image, told = open_image(value, tmp_path / "folder")
        assert image is None
        assert error in told
    assert "no folder" in open_image("a.png", None)[1]
    with pytest.raises(FrankenError, match="named cannot be read"):
        read_image(b"x", "named")


def test_a_bomb_is_an_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "cannot be read" in open_image(encoded(Image.new("1", (50, 50))), None)[1]
